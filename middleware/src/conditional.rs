//! Conditional requests: "if it is still what I know" and "if it isn't what I have" (RFC 9110 section 13).
//!
//! A client that has a copy asks whether it is still good (`If-None-Match`, `If-Modified-Since`) and gets a 304 without
//! content; one that wants to change something says what it has seen (`If-Match`, `If-Unmodified-Since`), and gets a 412
//! instead of overwriting what somebody else wrote meanwhile.
//!
//! [`evaluate`] is the whole of it as one function, for a handler that knows its [`Validators`] before it works:
//!
//! ```
//! use http::{HeaderMap, Method, StatusCode};
//! use wharf_middleware::conditional::{Decision, ETag, Validators, evaluate};
//!
//! fn put(fields: &HeaderMap, stored: Option<&Validators>) -> StatusCode {
//!     match evaluate(&Method::PUT, fields, stored) {
//!         Decision::Proceed if stored.is_none() => StatusCode::CREATED, // and store it
//!         Decision::Proceed => StatusCode::NO_CONTENT,
//!         refused => refused.status(),
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let stored = Validators::new().etag(ETag::strong("v1")?);
//! let mut fields = HeaderMap::new();
//! fields.insert("if-none-match", "*".parse()?); // only if there is none yet
//! assert_eq!(put(&fields, None), 201);
//! assert_eq!(put(&fields, Some(&stored)), 412);
//! # Ok(())
//! # }
//! ```
//!
//! [`Conditional`] is the layer for all the others: it looks at the `ETag` and `Last-Modified` of a finished response, and
//! sends a 304 or 412 instead if the client's conditions say so. It saves bytes, not the handler's work, and it leaves
//! all methods but GET and HEAD alone, because for those it would come too late.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::Conditional;
//!
//! async fn page(_: Request<()>) -> Result<Response<String>, Infallible> {
//!     let response = Response::builder().header("etag", r#""7""#);
//!     Ok(response.body("a long page".to_owned()).expect("a response"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let app = ServiceBuilder::new().layer(Conditional).service(service_fn(page));
//! let request = Request::get("/").header("if-none-match", r#""6", W/"7""#);
//! let response = app.oneshot(request.body(()).expect("a request")).await?;
//! assert_eq!(response.status(), 304);
//! # Ok(())
//! # }
//! ```
//!
//! Ranges are another matter, since they need a source that can be read from any place: [`range`](crate::range).
//!
//! Cost: without a conditional field nothing; with one, a map of these fields is kept for the response.

use std::time::SystemTime;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Method, StatusCode};

mod etag;
mod layer;
#[cfg(test)]
mod tests;

pub use etag::{ETag, InvalidETag};
pub use layer::{Conditional, ConditionalFuture, WithConditions};

use etag::{Listed, listed};

/// What tells one version of a representation from another (RFC 9110 section 8.8).
///
/// One without an entity tag and without a date is a representation all the same: `If-None-Match: *` is about that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    etag: Option<ETag>,
    last_modified: Option<SystemTime>,
}

impl Validators {
    /// Of a representation that has neither.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those that a response's fields tell. A field that is malformed, or there twice, tells nothing.
    pub fn of(fields: &HeaderMap) -> Self {
        let etag = only(fields, &header::ETAG).and_then(ETag::parse);
        Self {
            etag,
            last_modified: date(fields, &header::LAST_MODIFIED),
        }
    }

    /// With this entity tag.
    #[must_use]
    pub fn etag(mut self, etag: ETag) -> Self {
        self.etag = Some(etag);
        self
    }

    /// Changed last at this time, of which the second counts. A time that HTTP can't write (before 1970, after 9999)
    /// counts as unknown.
    #[must_use]
    pub fn last_modified(mut self, time: SystemTime) -> Self {
        self.last_modified = whole_seconds(time);
        self
    }

    /// Writes `ETag` and `Last-Modified`.
    pub fn write(&self, fields: &mut HeaderMap) {
        if let Some(etag) = &self.etag {
            fields.insert(header::ETAG, etag.value().clone());
        }
        if let Some(time) = self.last_modified {
            let text = httpdate::fmt_http_date(time);
            let value = HeaderValue::try_from(text).expect("ASCII");
            fields.insert(header::LAST_MODIFIED, value);
        }
    }

    /// `If-Range`: whether the part that is asked for belongs to what the client has (RFC 9110 section 13.1.5). True
    /// without the field.
    ///
    /// Only a strong validator will do. A date is one if its second is over, so that it can't stand for two versions.
    pub(crate) fn are_those_of_if_range(
        &self,
        fields: &HeaderMap,
        now: impl FnOnce() -> SystemTime,
    ) -> bool {
        if !fields.contains_key(header::IF_RANGE) {
            return true;
        }
        let Some(value) = only(fields, &header::IF_RANGE) else {
            return false;
        };
        if let Some(theirs) = ETag::parse(value) {
            return self.etag.as_ref().is_some_and(|own| own.strong_eq(&theirs));
        }
        let (Some(own), Some(theirs)) = (self.last_modified, parse_date(value)) else {
            return false;
        };
        let age = now().duration_since(own);
        own == theirs && age.is_ok_and(|age| age.as_secs() >= 1)
    }
}

/// What a request's conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// They hold, or there are none: do what is asked.
    Proceed,
    /// What the client has is still good: 304.
    NotModified,
    /// What the client wants isn't wanted any more, as things are: 412.
    PreconditionFailed,
}

impl Decision {
    /// The status it is answered with; 200 for [`Proceed`](Self::Proceed).
    pub fn status(self) -> StatusCode {
        match self {
            Self::Proceed => StatusCode::OK,
            Self::NotModified => StatusCode::NOT_MODIFIED,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        }
    }

    /// Makes the head of a full response the one that is sent: `true` if it goes without content now.
    ///
    /// A 304 loses the fields that describe the content it doesn't have, and keeps those that a cache needs: ETag, Vary,
    /// Cache-Control, Expires, Content-Location, Date (RFC 9110 section 15.4.5). `Last-Modified` stays only where there
    /// is no ETag. What isn't about the content (cookies, CORS, security fields) stays.
    pub fn apply(self, head: &mut Parts) -> bool {
        if self == Self::Proceed {
            return false;
        }
        head.status = self.status();
        without_content(&mut head.headers);
        if self == Self::NotModified && head.headers.contains_key(header::ETAG) {
            head.headers.remove(header::LAST_MODIFIED);
        }
        true
    }
}

/// Fields that describe content, which isn't sent.
pub(crate) fn without_content(fields: &mut HeaderMap) {
    const OF_CONTENT: [HeaderName; 9] = [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_RANGE,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ];
    for name in &OF_CONTENT {
        fields.remove(name);
    }
}

/// Evaluates the conditions of a request in the order of RFC 9110 section 13.2.2.
///
/// `current` are the validators of what is there now, `None` if nothing is. To be asked after everything that would
/// refuse the request anyway (section 13.2.1), and before it has any effect. `If-Range` is looked at with the
/// [ranges](crate::range::select).
///
/// What is malformed must not do harm: a date counts as absent; an `If-Match` list matches nothing; an `If-None-Match`
/// list is absent for GET and HEAD, and fails for methods that change something.
pub fn evaluate(method: &Method, fields: &HeaderMap, current: Option<&Validators>) -> Decision {
    // Section 13.2.1: these have nothing to do with a representation.
    if [Method::CONNECT, Method::OPTIONS, Method::TRACE].contains(method) {
        return Decision::Proceed;
    }
    let reads = [Method::GET, Method::HEAD].contains(method);
    let own = current.and_then(|current| current.etag.as_ref());
    let changed = current.and_then(|current| current.last_modified);

    let is_as_known = match listed(fields, &header::IF_MATCH) {
        Listed::Absent => match (changed, date(fields, &header::IF_UNMODIFIED_SINCE)) {
            (Some(changed), Some(since)) => changed <= since,
            _ => true,
        },
        Listed::Any => current.is_some(),
        Listed::Tags(mut tags) => own.is_some_and(|own| tags.any(|tag| own.strong_eq_to(tag))),
        Listed::Malformed => false,
    };
    if !is_as_known {
        return Decision::PreconditionFailed;
    }

    let is_new = match listed(fields, &header::IF_NONE_MATCH) {
        Listed::Absent if reads => match (changed, date(fields, &header::IF_MODIFIED_SINCE)) {
            (Some(changed), Some(since)) => changed > since,
            _ => true,
        },
        Listed::Absent => true,
        Listed::Any => current.is_none(),
        Listed::Tags(mut tags) => !own.is_some_and(|own| tags.any(|tag| own.weak_eq_to(tag))),
        Listed::Malformed => reads,
    };
    match (is_new, reads) {
        (true, _) => Decision::Proceed,
        (false, true) => Decision::NotModified,
        (false, false) => Decision::PreconditionFailed,
    }
}

/// The value of a field that is there once.
pub(crate) fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = fields.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

fn date(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    only(fields, name).and_then(parse_date)
}

fn parse_date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// The time as HTTP can write it.
fn whole_seconds(time: SystemTime) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let second = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since);
    (since < YEAR_10000).then_some(second)
}
