//! The handshake of a WebSocket (RFC 6455 section 4.2): a request's fields in, a `101` and the promise of its socket out.
//! Frames are another's business, tokio-tungstenite's say.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use sha1::{Digest, Sha1};

use super::OnUpgrade;
use crate::body::Body;

/// The only version there is (RFC 6455 section 4.1).
const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// What a server appends to a client's key to show that it speaks the protocol (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Answers a request that asks for a WebSocket: the `101` to return, and the promise of the socket.
///
/// An error returned from the handler by `?` is answered as it should be: see [`NotWebSocket`]. A subprotocol is agreed on by
/// putting one of [`protocols`] into the response's `Sec-WebSocket-Protocol`.
///
/// Who may connect is for the handler to decide, by the request's `Origin`: browsers let any page open a WebSocket (RFC 6455
/// section 10.2).
///
/// # Errors
///
/// When the request doesn't ask for a WebSocket, or not properly.
///
/// ```
/// use futures_util::{SinkExt, StreamExt};
/// use http::{Request, Response};
/// use tokio_tungstenite::WebSocketStream;
/// use tokio_tungstenite::tungstenite::protocol::{Message, Role};
/// use wharf::{Body, BoxError};
///
/// async fn echo(mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
///     let (response, upgrade) = wharf::upgrade::websocket(&mut request)?;
///     upgrade.spawn(|socket, stop| async move {
///         let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
///         loop {
///             let message = tokio::select! {
///                 message = socket.next() => message,
///                 () = stop.draining() => { let _ = socket.close(None).await; return } // the server shuts down
///             };
///             let Some(Ok(message)) = message else { return };
///             if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() { return }
///         }
///     });
///     Ok(response)
/// }
/// # let _ = echo;
/// ```
pub fn websocket<B>(request: &mut Request<B>) -> Result<(Response<Body>, OnUpgrade), NotWebSocket> {
    let accept = check(request.method(), request.headers())?;
    let upgrade = super::on(request).ok_or(NotWebSocket::NoOffer)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(header::UPGRADE, WEBSOCKET);
    fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, upgrade))
}

/// The subprotocols that a client offers, the one it likes best first (RFC 6455 section 11.3.4).
///
/// ```
/// let request = http::Request::builder().header("sec-websocket-protocol", "chat.v2, chat").body(()).unwrap();
/// let mut offered = wharf::upgrade::protocols(request.headers());
/// assert_eq!(offered.find(|one| *one == "chat"), Some("chat"));
/// ```
pub fn protocols(fields: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = fields.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    tokens(lines)
}

/// What answers the client's key, if the handshake is sound.
fn check(method: &Method, fields: &HeaderMap) -> Result<HeaderValue, NotWebSocket> {
    let mut offered = tokens(fields.get_all(header::UPGRADE).iter());
    if !offered.any(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        return Err(NotWebSocket::NoOffer);
    }
    if method != Method::GET {
        return Err(NotWebSocket::Method);
    }
    if only(fields, header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(NotWebSocket::Version);
    }
    let key = only(fields, header::SEC_WEBSOCKET_KEY).ok_or(NotWebSocket::Key)?;
    let nonce = STANDARD.decode(key).map_err(|_| NotWebSocket::Key)?;
    if nonce.len() != 16 {
        return Err(NotWebSocket::Key);
    }
    let proof = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    // Base64 is made of visible characters.
    HeaderValue::try_from(STANDARD.encode(proof)).map_err(|_| NotWebSocket::Key)
}

/// The value of a field that must come once.
fn only(fields: &HeaderMap, name: header::HeaderName) -> Option<&HeaderValue> {
    let mut values = fields.get_all(name).iter();
    let first = values.next();
    first.filter(|_| values.next().is_none())
}

fn tokens<'a>(lines: impl Iterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a str> {
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Why a request can't become a WebSocket. Returned from a handler it is answered with its [`response`](Self::response).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotWebSocket {
    /// It doesn't offer `Upgrade: websocket`, or on a connection that can't leave HTTP: 426.
    NoOffer,
    /// Its method isn't `GET`: 400.
    Method,
    /// It speaks another version than 13: 426, which names that one (RFC 6455 section 4.4).
    Version,
    /// Its `Sec-WebSocket-Key` isn't 16 bytes in base64: 400.
    Key,
}

impl NotWebSocket {
    /// The answer that it deserves, for a handler that can't return errors.
    pub fn response(self) -> Response<Bytes> {
        let status = match self {
            Self::NoOffer | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Method | Self::Key => StatusCode::BAD_REQUEST,
        };
        let mut response = crate::service::plain(status, self.explain());
        if status == StatusCode::UPGRADE_REQUIRED {
            let fields = response.headers_mut();
            fields.insert(header::UPGRADE, WEBSOCKET);
            fields.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
        }
        response
    }

    fn explain(self) -> &'static str {
        match self {
            Self::NoOffer => {
                "this resource speaks WebSocket: ask with Upgrade: websocket in HTTP/1.1"
            }
            Self::Method => "a WebSocket is asked for with GET",
            Self::Version => "this server speaks version 13 of the WebSocket protocol",
            Self::Key => "Sec-WebSocket-Key must be 16 bytes in base64",
        }
    }
}

impl fmt::Display for NotWebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explain())
    }
}

impl std::error::Error for NotWebSocket {}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn judged(method: Method, lines: &[(&str, &str)]) -> Result<String, NotWebSocket> {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            fields.append(name, HeaderValue::from_str(value).unwrap());
        }
        check(&method, &fields).map(|accept| accept.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_rfcs_own_key_has_the_rfcs_own_answer() {
        let lines = [
            ("upgrade", "h2c, WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        let accept = judged(Method::GET, &lines).unwrap();
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_answer() {
        let good = [
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        let with = |at: usize, value| {
            let mut lines = good;
            lines[at].1 = value;
            judged(Method::GET, &lines)
        };
        for (what, got, wanted, status) in [
            (
                "no offer",
                judged(Method::GET, &good[1..]),
                NotWebSocket::NoOffer,
                426,
            ),
            (
                "another protocol",
                with(0, "websockets"),
                NotWebSocket::NoOffer,
                426,
            ),
            (
                "another method",
                judged(Method::POST, &good),
                NotWebSocket::Method,
                400,
            ),
            (
                "no version",
                judged(Method::GET, &[good[0], good[2]]),
                NotWebSocket::Version,
                426,
            ),
            ("an old version", with(1, "8"), NotWebSocket::Version, 426),
            (
                "two versions",
                judged(Method::GET, &[good[0], good[1], good[1], good[2]]),
                NotWebSocket::Version,
                426,
            ),
            (
                "no key",
                judged(Method::GET, &good[..2]),
                NotWebSocket::Key,
                400,
            ),
            (
                "two keys",
                judged(Method::GET, &[good[0], good[1], good[2], good[2]]),
                NotWebSocket::Key,
                400,
            ),
            (
                "15 bytes",
                with(2, "dGhlIHNhbXBsZSBub25j"),
                NotWebSocket::Key,
                400,
            ),
            (
                "17 bytes",
                with(2, "dGhlIHNhbXBsZSBub25jZSE="),
                NotWebSocket::Key,
                400,
            ),
            (
                "no base64",
                with(2, "dGhlIHNhbXBsZSBub25jZ!=="),
                NotWebSocket::Key,
                400,
            ),
        ] {
            assert_eq!(got, Err(wanted), "{what}");
            assert_eq!(wanted.response().status(), status, "{what}");
        }
    }

    #[test]
    fn a_426_names_what_would_do() {
        let response = NotWebSocket::Version.response();
        assert_eq!(response.headers()[header::UPGRADE], "websocket");
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_VERSION], "13");
    }

    #[test]
    fn offered_subprotocols_are_listed_over_all_lines() {
        let mut fields = HeaderMap::new();
        for line in ["a, b", " ,c ,"] {
            fields.append(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(line),
            );
        }
        assert_eq!(protocols(&fields).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
