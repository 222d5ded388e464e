//! A small HTTP container: sockets become a stream of `http::Request`s, each handled by a `tower::Service`.
//!
//! Two planes, one vocabulary. A *connection* is a call to a `Service<Conn<Io>>` whose future lasts as long as the
//! connection does; a *request* is a call to a `Service<Request<Body>>`. [`Http`] is the layer between them, so one
//! `ServiceBuilder` reads from socket to handler, and tower's own layers work on both sides of it.
//!
//! - Start with [`serve`]; [`Server`] and [`Http`] are for a stack of your own, [`serve_connection`] for one stream.
//! - [`Limits`] has every bound and every deadline; all are on.
//! - [`CloseReason`] says why a connection ended, [`Reject`] why a request was refused.
//! - [`mod@test`] connects a client in memory to a stack, on a clock that a test can pause.
//! - [`codec`] is the parser's seam: two ship, and yours may be the third.

mod authority;
pub mod body;
pub mod codec;
pub mod conn;
pub mod date;
pub mod error;
mod fair;
mod http1;
#[cfg(feature = "http2")]
mod http2;
mod interim;
mod layer;
pub mod limits;
pub mod listener;
mod meter;
pub mod per_peer;
#[cfg(feature = "proxy-protocol")]
pub mod proxy_protocol;
mod serve;
pub mod server;
mod service;
pub mod shutdown;
pub mod test;
#[cfg(feature = "tls")]
pub mod tls;
pub mod upgrade;

pub use authority::authority;
pub use body::Body;
pub use conn::{
    Address, CloseReason, Closing, Conn, ConnInfo, ConnInfoLayer, ConnReport, Http2Error,
    ProxyClient, ProxyError, ProxyInfo, RequestLine, State, TlsError, TlsInfo, TlsVersion,
};
pub use error::{BoxError, Error, ErrorKind, Reason, Reject};
pub use http1::{ConcurrentPipelining, Http, Refused, serve_connection};
#[cfg(feature = "http2")]
pub use http2::{OnlyHttp2, WithHttp2};
pub use interim::{Interim, NotSent, interim};
pub use layer::{
    Connections, Local, LocalConnections, MadeConnections, PerConnection, Speak, SpeakLocal,
};
pub use limits::Limits;
pub use listener::{IntoListeners, Listener, Stream};
pub use per_peer::PerPeer;
#[cfg(feature = "proxy-protocol")]
pub use proxy_protocol::ProxyProtocol;
pub use serve::{Serve, serve};
pub use server::{ConnView, Handle, Phase, Server, Traffic};
pub use shutdown::{Report, Shutdown};
#[cfg(feature = "tls")]
pub use tls::Tls;

/// The README's examples, compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
