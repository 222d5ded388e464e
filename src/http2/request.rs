//! Requests as h2 hands them on, held to what the container asks of any request: the rules of RFC 9113 section 8 that h2
//! leaves open, and the limits. `http` types in, a reason out.

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, request};

use crate::codec::chunked::is_forbidden_in_trailers;
use crate::codec::target::{self, Form};
use crate::codec::{Kind, Length};
use crate::error::Reason;
use crate::limits::Limits;

/// What a request's head says of what follows.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Kind,
    pub(super) expects_continue: bool,
    /// What `content-length` declares.
    pub(super) declared: Option<u64>,
}

/// Judges a head; `ends` if the message ends with it.
pub(super) fn judge(parts: &request::Parts, ends: bool, limits: &Limits) -> Result<Asked, Reason> {
    if parts.headers.len() > limits.header_fields {
        return Err(Reason::TooManyFields);
    }
    let mut asked = Asked {
        method: match parts.method {
            Method::HEAD => Kind::Head,
            Method::CONNECT => Kind::Connect,
            _ => Kind::Other,
        },
        expects_continue: false,
        declared: ends.then_some(0),
    };
    let (mut host, mut length) = (None, None);
    for (name, value) in &parts.headers {
        if is_padded(value) {
            return Err(Reason::Field);
        }
        if name == HOST && host.replace(value).is_some() {
            return Err(Reason::Host);
        }
        if name == CONTENT_LENGTH && length.replace(value).is_some() {
            return Err(Reason::ContentLength);
        }
        if name == EXPECT {
            if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
                return Err(Reason::Expectation);
            }
            asked.expects_continue = !ends;
        }
    }
    target(parts)?;
    authority(parts, host)?;
    if let Some(length) = length {
        // h2 holds the content to it, so what it is matters only here.
        let length = length.to_str().ok().and_then(|length| length.parse().ok());
        let length = length.ok_or(Reason::ContentLength)?;
        if length > limits.body_bytes {
            return Err(Reason::BodyTooLarge);
        }
        if !ends {
            asked.declared = Some(length);
        }
    }
    Ok(asked)
}

impl Asked {
    /// The length in the container's own terms.
    pub(super) fn length(&self) -> Length {
        self.declared.map_or(Length::Chunked, Length::Known)
    }
}

/// Whether white space leads or trails the value (RFC 9113 section 8.2.1).
fn is_padded(value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    is_space(bytes.first()) || is_space(bytes.last())
}

/// The path is in origin form, or `*` with OPTIONS; a tunnel's target is host and port (RFC 9113 section 8.3.1, 8.5).
fn target(parts: &request::Parts) -> Result<(), Reason> {
    let uri = &parts.uri;
    let is_tunnel = parts.method == Method::CONNECT && uri.path_and_query().is_none();
    if is_tunnel {
        let authority = uri.authority().ok_or(Reason::Target)?;
        return target::check(b"CONNECT", authority.as_str().as_bytes()).map(drop);
    }
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let form = target::check(parts.method.as_str().as_bytes(), path.as_bytes());
    match form {
        Ok(Form::Origin | Form::Asterisk) => Ok(()),
        // Of CONNECT with a protocol the path is that of any request (RFC 8441 section 4).
        Err(_) if parts.method == Method::CONNECT => {
            target::check(b"GET", path.as_bytes()).map(drop)
        }
        _ => Err(Reason::Target),
    }
}

/// One authority, in `:authority`, in `Host`, or the same in both (RFC 9113 section 8.3.1).
fn authority(parts: &request::Parts, host: Option<&HeaderValue>) -> Result<(), Reason> {
    let named = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let host = host.map(HeaderValue::as_bytes);
    let is_same = match (named, host) {
        (Some(named), Some(host)) => named.eq_ignore_ascii_case(host),
        (None, None) => false,
        _ => true,
    };
    let is_valid = |value: &[u8]| target::host(value) == Some(target::Host::Named);
    if is_same && named.or(host).is_some_and(is_valid) {
        return Ok(());
    }
    Err(Reason::Host)
}

/// Judges a request's trailers (RFC 9113 section 8.1, RFC 9110 section 6.5.1).
pub(super) fn judge_trailers(trailers: &HeaderMap, limits: &Limits) -> Result<(), Reason> {
    let size = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + ": \r\n".len()
    };
    let bytes = trailers.iter().map(size).sum::<usize>();
    if trailers.len() > limits.trailer_fields || bytes > limits.trailer_bytes {
        return Err(Reason::TrailersTooLarge);
    }
    for (name, value) in trailers {
        if is_padded(value) || is_forbidden_in_trailers(name) {
            return Err(Reason::Trailer);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn judged(request: http::request::Builder) -> Result<Asked, Reason> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        judge(&parts, true, &Limits::default())
    }

    #[test]
    fn one_authority_is_asked_for() {
        for (uri, hosts, is_right) in [
            ("http://a.example/", &[][..], true),
            ("http://a.example/", &["a.example"][..], true),
            ("http://A.example/", &["a.EXAMPLE"][..], true),
            ("/", &["a.example"][..], true),
            ("/", &[][..], false),
            ("/", &[""][..], false),
            ("/", &["a b"][..], false),
            ("/", &["a", "a"][..], false),
            ("http://a.example/", &["b.example"][..], false),
            ("http://u@a.example/", &[][..], false),
        ] {
            let request = hosts.iter().fold(Request::get(uri), |request, host| {
                request.header(HOST, *host)
            });
            assert_eq!(judged(request).is_ok(), is_right, "{uri} {hosts:?}");
        }
    }

    #[test]
    fn space_around_a_value_is_refused() {
        for value in [" a", "a ", "\ta", "a\t", " "] {
            let request = Request::get("http://a/").header("x", value);
            assert_eq!(judged(request).unwrap_err(), Reason::Field, "{value:?}");
        }
        assert!(judged(Request::get("http://a/").header("x", "a b")).is_ok());
        assert!(judged(Request::get("http://a/").header("x", "")).is_ok());
    }

    #[test]
    fn trailers_are_held_to_their_limits() {
        let limits = Limits {
            trailer_fields: 2,
            trailer_bytes: 20,
            ..Limits::default()
        };
        let fields = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
            let fields = fields.iter().map(|(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            fields.collect()
        };
        for (trailers, judged) in [
            (&[("a", "1"), ("b", "2")][..], Ok(())),
            (
                &[("a", "1"), ("b", "2"), ("c", "3")],
                Err(Reason::TrailersTooLarge),
            ),
            (&[("a", "123456789012345")], Ok(())),
            (&[("a", "1234567890123456")], Err(Reason::TrailersTooLarge)),
            (&[("a", " 1")], Err(Reason::Trailer)),
            (&[("host", "a")], Err(Reason::Trailer)),
        ] {
            assert_eq!(
                judge_trailers(&fields(trailers), &limits),
                judged,
                "{trailers:?}"
            );
        }
    }
}
