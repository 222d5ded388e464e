//! A blob over HTTP: its conditions, its ranges, its upload. Nothing is read of a body before it is known that it can be
//! stored, so a client that expects `100 Continue` is refused before it has sent it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use wharf::error::status_of;
use wharf_middleware::conditional::{Decision, ETag, Validators, evaluate};
use wharf_middleware::range;

use super::name::Name;
use super::{Api, Problem};
use crate::store::{Meta, OnlyIf};

/// What a blob is that nobody said anything about.
const UNKNOWN_TYPE: &str = "application/octet-stream";

pub(super) async fn read(
    State(api): State<Arc<Api>>,
    name: Name,
    method: Method,
    fields: HeaderMap,
) -> Result<Response, Problem> {
    let Some(found) = api.store.find(&name.key).await? else {
        api.counts.missed();
        return Err(match evaluate(&method, &fields, None) {
            Decision::Proceed => not_here(),
            refused => Problem::new(refused.status(), "there is no such blob"),
        });
    };
    api.counts.hit();
    let mut full = Response::new(found.content);
    let head = full.headers_mut();
    validators(&found.meta).write(head);
    let kind = HeaderValue::try_from(found.meta.content_type);
    let unknown = HeaderValue::from_static(UNKNOWN_TYPE);
    head.insert(header::CONTENT_TYPE, kind.unwrap_or(unknown));
    // A blob is what somebody uploaded: no browser may take it for a page of this server.
    head.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let sandbox = HeaderValue::from_static("sandbox; default-src 'none'");
    head.insert(header::CONTENT_SECURITY_POLICY, sandbox);
    head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let response = range::respond(&method, &fields, full);
    Ok(response.map(|body| Body::new(api.counts.sent(body))))
}

pub(super) async fn write(
    State(api): State<Arc<Api>>,
    name: Name,
    fields: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_upload(&fields, api.largest)?;
    if is_conditional(&fields) {
        let now = api.store.find(&name.key).await?;
        if !is_wanted(&Method::PUT, &fields, now.as_ref().map(|found| &found.meta)) {
            return Err(not_as_expected());
        }
    }
    let gathered = gather(&api, body).await?;
    if name
        .content
        .is_some_and(|expected| expected != gathered.digest)
    {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!(
                "the content has the SHA-256 {}, not the one of the path; nothing was stored",
                gathered.digest
            ),
        ));
    }
    api.counts.received(gathered.size);
    let kind = fields
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or(UNKNOWN_TYPE).to_owned();
    let stored = api
        .store
        .put(&name.key, gathered, &kind, only_if(Method::PUT, fields))
        .await?;
    let status = if stored.replaced {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::CREATED
    };
    let mut response = status.into_response();
    validators(&stored.meta).write(response.headers_mut());
    Ok(response)
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    name: Name,
    fields: HeaderMap,
) -> Result<StatusCode, Problem> {
    let removed = api
        .store
        .delete(&name.key, only_if(Method::DELETE, fields))
        .await?;
    removed.map(|_| StatusCode::NO_CONTENT).ok_or_else(not_here)
}

/// What can be seen of an upload before it comes.
fn check_upload(fields: &HeaderMap, largest: u64) -> Result<(), Problem> {
    let length = fields.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > largest) {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a blob has at most {largest} bytes here"),
        ));
    }
    if fields.contains_key(header::CONTENT_RANGE) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "a blob is stored as a whole: send all of it, without Content-Range",
        ));
    }
    if fields.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Encoding is not kept: send the bytes that you want back, without it",
        ));
    }
    Ok(())
}

/// Reads the whole body. One frame is on its way at a time: while the store is busy with it, the client has to wait.
async fn gather(api: &Api, mut body: Body) -> Result<crate::store::Gathered, Problem> {
    let mut spool = api.store.spool();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken_off)?;
        if let Some(bytes) = frame.data_ref() {
            spool.take(bytes).await?;
        }
    }
    Ok(spool.finish().await?)
}

fn broken_off(error: axum::Error) -> Problem {
    let error = error.into_inner();
    Problem::new(status_of(&error), error.to_string())
}

fn validators(meta: &Meta) -> Validators {
    let tag = ETag::strong(&meta.digest.to_string());
    let validators = Validators::new().last_modified(meta.modified);
    tag.map_or(validators.clone(), |tag| validators.etag(tag))
}

fn is_conditional(fields: &HeaderMap) -> bool {
    let conditions = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_UNMODIFIED_SINCE,
    ];
    conditions.iter().any(|name| fields.contains_key(name))
}

/// Whether the request's conditions hold for what is there.
fn is_wanted(method: &Method, fields: &HeaderMap, now: Option<&Meta>) -> bool {
    evaluate(method, fields, now.map(validators).as_ref()) == Decision::Proceed
}

/// The same question, for the store to ask when it makes the change.
fn only_if(method: Method, fields: HeaderMap) -> OnlyIf {
    if !is_conditional(&fields) {
        return OnlyIf::always();
    }
    OnlyIf::new(move |now| is_wanted(&method, &fields, now))
}

fn not_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such blob")
}

fn not_as_expected() -> Problem {
    crate::store::StoreError::NotMet.into()
}
