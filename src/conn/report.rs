//! The account of a connection that ended, and why it did: in the words of whoever reads it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{ConnInfo, Http2Error, ProxyError, RequestLine, State, TlsError};
use crate::codec::Close;
use crate::error::{BoxError, Reject};

/// What a connection was, told once, when it has ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnReport {
    /// The facts of the connection.
    pub info: ConnInfo,
    /// Requests whose head was complete, refused ones not included.
    pub requests: u64,
    /// Bytes read from the peer.
    pub bytes_in: u64,
    /// Bytes written to the peer.
    pub bytes_out: u64,
    /// From accept to end.
    pub age: Duration,
    /// Why it ended.
    pub reason: CloseReason,
    /// What it was doing last.
    pub state: State,
    /// The request that was under way when it ended, if that took longer than a moment.
    pub request: Option<RequestLine>,
    /// For a refused request: the first bytes, at most 64, of what could not be read.
    pub first_bytes: Bytes,
}

impl fmt::Display for ConnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connection {} from {}: {} requests, {} bytes in, {} out, {:.1?}; {}",
            self.info.id,
            self.info.peer,
            self.requests,
            self.bytes_in,
            self.bytes_out,
            self.age,
            self.reason
        )
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed between two requests, or without ever sending one.
    ClientClosed,
    /// The client asked for it: `Connection: close`, or HTTP/1.0 without `keep-alive`.
    ClientAsked,
    /// The handler asked for it: `Connection: close` in its response.
    HandlerAsked,
    /// Only the end of the connection could show the end of a response (HTTP/1.0).
    Unframed,
    /// No further request came in time.
    Idle {
        /// The time that was allowed.
        after: Duration,
    },
    /// The connection was kept for as long as it may be.
    MaxAge,
    /// A request head didn't arrive in time.
    HeadTimeout {
        /// How many bytes of it had come.
        got: usize,
    },
    /// A request body stood still or came too slowly.
    BodyTimeout,
    /// The client didn't take its response, or took it too slowly.
    WriteTimeout,
    /// The service didn't become ready in time.
    ReadyTimeout,
    /// A request was refused.
    Refused(Reject),
    /// More of an unread request body was declared than is worth draining.
    BodyUnread,
    /// The client closed in the middle of a head or body.
    Truncated,
    /// The client reset the connection, or the network failed.
    Io(std::io::ErrorKind),
    /// The response's body failed after its head was sent.
    ResponseFailed,
    /// The response's body was longer or shorter than its head declared.
    ResponseLength,
    /// User code panicked.
    Panicked,
    /// The service failed for good (`poll_ready` returned an error).
    ServiceFailed,
    /// The server is shutting down.
    Shutdown,
    /// The server was shutting down and the time for finishing was over.
    Cut,
    /// It was idle, and the server needed room for others.
    Evicted,
    /// Somebody closed or aborted it through the server's [`Handle`](crate::Handle).
    Operator,
    /// The connection left HTTP: its socket was handed to the handler after `101` or a `CONNECT`.
    Upgraded,
    /// It didn't begin with a PROXY header that is believed.
    Proxy(ProxyError),
    /// It didn't begin with a TLS handshake that came to its end.
    Tls(TlsError),
    /// Its peer had as many connections open as one may have.
    PeerLimit,
    /// A service of the connection plane ended it before it spoke HTTP: its error, in words.
    BeforeHttp(Arc<str>),
    /// HTTP/2 was broken, by what the client sent or by what it says of this server.
    Http2(Http2Error),
}

impl CloseReason {
    /// What a service of the connection plane said, an error or a sentence, when it ended a connection.
    pub fn before_http(why: impl Into<BoxError>) -> Self {
        Self::BeforeHttp(why.into().to_string().into())
    }

    /// One sentence for whoever reads the log.
    pub fn explain(&self) -> String {
        let fixed = match self {
            Self::Idle { after } => return format!("no further request came within {after:?}"),
            Self::HeadTimeout { got } => {
                return format!("the request head took too long, {got} bytes of it had come");
            }
            Self::Refused(reject) => {
                return format!("refused with {}: {reject}", reject.status().as_u16());
            }
            Self::Io(kind) => return format!("the connection failed: {kind}"),
            Self::Proxy(error) => return error.to_string(),
            Self::Tls(error) => return error.to_string(),
            Self::Http2(error) => return error.to_string(),
            Self::BeforeHttp(why) => return format!("ended before it spoke HTTP: {why}"),
            Self::ClientClosed => "closed by the client",
            Self::ClientAsked => "the client asked for it",
            Self::HandlerAsked => "the handler asked for it",
            Self::Unframed => "the end of the connection was the end of an HTTP/1.0 response",
            Self::MaxAge => "it reached its greatest age",
            Self::BodyTimeout => "the request body stood still or came too slowly",
            Self::WriteTimeout => "the client took its response too slowly or not at all",
            Self::ReadyTimeout => "the service did not become ready in time",
            Self::BodyUnread => {
                "the handler left more of a request body unread than is worth draining"
            }
            Self::Truncated => "the client closed in the middle of a request",
            Self::ResponseFailed => "the response body failed midway",
            Self::ResponseLength => "the response body was not as long as declared",
            Self::Panicked => "user code panicked",
            Self::ServiceFailed => "the service failed for good",
            Self::Shutdown => "the server is shutting down",
            Self::Cut => "cut at the end of the shutdown's time",
            Self::Evicted => "it was idle and the server needed room",
            Self::Operator => "closed by the operator",
            Self::Upgraded => "handed over to another protocol",
            Self::PeerLimit => "its peer has as many connections open as one may have",
        };
        fixed.to_owned()
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.explain())
    }
}

impl From<Close> for CloseReason {
    fn from(close: Close) -> Self {
        match close {
            Close::ClientAsked => Self::ClientAsked,
            Close::HandlerAsked => Self::HandlerAsked,
            Close::Unframed => Self::Unframed,
            Close::Connection => Self::BodyUnread,
        }
    }
}
