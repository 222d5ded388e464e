//! A handler's response as HTTP/2 sends it: of what it says about length and connection only what is true goes out, by the
//! rules that the way back of HTTP/1 has.

use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode, response};

use crate::codec::encode::{Special, asks_for_close, number, timeout};
use crate::codec::{EncodeError, Kind};

/// What follows a response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// Nothing: the head ends the stream.
    Nothing,
    /// Content, of that length if it is known.
    Content(Option<u64>),
    /// The bytes of a tunnel.
    Tunnel,
}

/// A head that can be sent, and what it said to the container.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) follows: Follows,
    /// `connection: close`: no further stream is wanted.
    pub(super) close: bool,
    /// How long the connection is kept while it is idle, in seconds.
    pub(super) keep_alive: Option<u32>,
}

/// Makes `head` one that can be sent as the answer to a request with this method; `length` is that of its body.
pub(super) fn prepare(
    head: &mut response::Parts,
    method: Kind,
    length: Option<u64>,
    date: impl FnOnce() -> HeaderValue,
) -> Result<Said, EncodeError> {
    let mut said = Said {
        follows: Follows::Nothing,
        close: false,
        keep_alive: None,
    };
    let declared = own_words(&mut head.headers, &mut said)?;
    let fields = &mut head.headers;
    match head.status.as_u16() {
        // HTTP/2 has no 101 (RFC 9113 section 8.6).
        101 => return Err(EncodeError::Upgrade),
        0..200 => return Err(EncodeError::Status),
        200..300 if method == Kind::Connect => {
            fields.remove(CONTENT_LENGTH);
            said.follows = Follows::Tunnel;
        }
        204 => drop(fields.remove(CONTENT_LENGTH)),
        205 => drop(fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"))),
        _ if method == Kind::Head || head.status == StatusCode::NOT_MODIFIED => {
            // A handler that answers HEAD often leaves the body out, so an empty one says nothing about a GET's.
            let known = length.filter(|&length| method == Kind::Head && length > 0);
            if let Some(length) = known.filter(|_| declared.is_none()) {
                fields.insert(CONTENT_LENGTH, length.into());
            }
        }
        _ => {
            if let (Some(declared), Some(length)) = (declared, length)
                && declared != length
            {
                return Err(EncodeError::LengthMismatch { declared, length });
            }
            if let Some(length) = length.filter(|_| declared.is_none()) {
                fields.insert(CONTENT_LENGTH, length.into());
            }
            let length = declared.or(length);
            if length != Some(0) {
                said.follows = Follows::Content(length);
            }
        }
    }
    if !fields.contains_key(DATE) {
        fields.insert(DATE, date());
    }
    Ok(said)
}

/// Takes out what belongs to the connection (RFC 9113 section 8.2.2); returns what `content-length` declares.
fn own_words(fields: &mut HeaderMap, said: &mut Said) -> Result<Option<u64>, EncodeError> {
    let mut declared = None;
    let mut has_own = false;
    for (name, value) in fields.iter() {
        if !is_sendable(value) {
            return Err(EncodeError::FieldValue);
        }
        match Special::of(name.as_str()) {
            None | Some(Special::Date) => continue,
            Some(Special::ContentLength) => {
                let length = number(value.as_bytes()).ok_or(EncodeError::ContentLength)?;
                if declared.replace(length).is_some() {
                    return Err(EncodeError::ContentLength);
                }
                continue;
            }
            Some(Special::Connection) => said.close |= asks_for_close(value),
            Some(Special::KeepAlive) => said.keep_alive = timeout(value),
            Some(Special::Upgrade | Special::TransferEncoding | Special::ProxyConnection) => {}
        }
        has_own = true;
    }
    if has_own {
        drop_own(fields);
    }
    Ok(declared)
}

#[cold]
fn drop_own(fields: &mut HeaderMap) {
    const OWN: [HeaderName; 5] = [
        http::header::CONNECTION,
        http::header::UPGRADE,
        http::header::TRANSFER_ENCODING,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in OWN {
        fields.remove(name);
    }
}

/// No control character but the tab: a proxy might write it into lines of HTTP/1.
fn is_sendable(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes
        .iter()
        .all(|&byte| byte >= b' ' && byte != 0x7f || byte == b'\t')
}

/// The fields of an interim response, without what belongs to the connection or speaks of content.
pub(super) fn interim(status: StatusCode, fields: HeaderMap) -> Option<http::Response<()>> {
    if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = trailers(fields)?;
    Some(response)
}

/// The fields of a trailer section; `None` where a value can't be sent.
pub(super) fn trailers(mut fields: HeaderMap) -> Option<HeaderMap> {
    if !fields.values().all(is_sendable) {
        return None;
    }
    drop_own(&mut fields);
    fields.remove(CONTENT_LENGTH);
    Some(fields)
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn prepared(
        response: http::response::Builder,
        method: Kind,
        length: Option<u64>,
    ) -> Result<(Follows, String), EncodeError> {
        let (mut parts, ()) = response.body(()).unwrap().into_parts();
        let said = prepare(&mut parts, method, length, || {
            HeaderValue::from_static("now")
        })?;
        let fields = parts.headers.iter();
        let fields = fields.map(|(name, value)| format!("{name}={} ", value.to_str().unwrap()));
        Ok((said.follows, fields.collect()))
    }

    #[test]
    fn what_follows_a_head_is_decided_by_status_and_method() {
        use Follows::{Content, Nothing, Tunnel};
        for (status, method, length, follows, fields) in [
            (
                200,
                Kind::Other,
                Some(3),
                Content(Some(3)),
                "content-length=3 date=now ",
            ),
            (200, Kind::Other, None, Content(None), "date=now "),
            (
                200,
                Kind::Other,
                Some(0),
                Nothing,
                "content-length=0 date=now ",
            ),
            (
                200,
                Kind::Head,
                Some(3),
                Nothing,
                "content-length=3 date=now ",
            ),
            (200, Kind::Head, Some(0), Nothing, "date=now "),
            (204, Kind::Other, Some(3), Nothing, "date=now "),
            (
                205,
                Kind::Other,
                Some(3),
                Nothing,
                "content-length=0 date=now ",
            ),
            (304, Kind::Other, Some(3), Nothing, "date=now "),
            (200, Kind::Connect, Some(3), Tunnel, "date=now "),
            (
                404,
                Kind::Connect,
                Some(3),
                Content(Some(3)),
                "content-length=3 date=now ",
            ),
        ] {
            let prepared = prepared(Response::builder().status(status), method, length);
            assert_eq!(
                prepared,
                Ok((follows, fields.to_owned())),
                "{status} {method:?}"
            );
        }
    }

    #[test]
    fn what_belongs_to_the_connection_is_not_sent() {
        let response = Response::builder()
            .header("connection", "keep-alive, close")
            .header("keep-alive", "timeout=7")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "h2c")
            .header("proxy-connection", "close")
            .header("x", "y");
        let (mut parts, ()) = response.body(()).unwrap().into_parts();
        let said = prepare(&mut parts, Kind::Other, None, || {
            HeaderValue::from_static("now")
        });
        let said = said.unwrap();
        assert_eq!((said.close, said.keep_alive), (true, Some(7)));
        assert_eq!(parts.headers.len(), 2, "x and date: {:?}", parts.headers);
    }

    #[test]
    fn what_cannot_be_sent_without_harm_is_an_error() {
        let with = |name, value| Response::builder().header(name, value);
        let status = |status| Response::builder().status(status);
        for (response, error) in [
            (status(101), EncodeError::Upgrade),
            (status(103), EncodeError::Status),
            (with("content-length", "+3"), EncodeError::ContentLength),
            (
                with("content-length", "4"),
                EncodeError::LengthMismatch {
                    declared: 4,
                    length: 3,
                },
            ),
        ] {
            assert_eq!(prepared(response, Kind::Other, Some(3)), Err(error));
        }
    }
}
