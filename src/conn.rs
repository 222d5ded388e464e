//! A connection from accept to its end: the stream with its facts, how it is going, and why it ended.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::Body;

mod closing;
mod http2;
mod live;
mod proxied;
mod report;
mod tls;

pub use closing::Closing;
pub use http2::Http2Error;
pub(crate) use live::{By, Live, Told};
pub use live::{RequestLine, State};
pub use proxied::{ProxyClient, ProxyError, ProxyInfo};
pub use report::{CloseReason, ConnReport};
pub use tls::{TlsError, TlsInfo, TlsVersion};

/// An accepted stream with its facts: what the connection plane's services are called with.
#[derive(Debug)]
pub struct Conn<Io> {
    io: Io,
    info: ConnInfo,
    live: Arc<Live>,
}

impl<Io> From<Io> for Conn<Io> {
    /// A connection without an address.
    fn from(io: Io) -> Self {
        Self::new(io, ConnInfo::default())
    }
}

impl<Io> Conn<Io> {
    /// A connection over any stream, with facts of one's own.
    pub fn new(io: Io, info: ConnInfo) -> Self {
        Self {
            io,
            info,
            live: Arc::new(Live::new()),
        }
    }

    /// A connection whose stream knows how it is going.
    pub(crate) fn accepted(io: Io, info: ConnInfo, live: Arc<Live>) -> Self {
        Self { io, info, live }
    }

    /// The facts known so far.
    pub fn info(&self) -> &ConnInfo {
        &self.info
    }

    /// The facts, for a layer that learns more (a real peer behind a balancer, say).
    pub fn info_mut(&mut self) -> &mut ConnInfo {
        &mut self.info
    }

    /// The stream, for a layer that looks at it before HTTP does.
    pub fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Wraps the stream, as TLS or a byte counter does; facts and identity stay.
    pub fn map_io<T>(self, wrap: impl FnOnce(Io) -> T) -> Conn<T> {
        Conn {
            io: wrap(self.io),
            info: self.info,
            live: self.live,
        }
    }

    /// The facts, and the stream by itself.
    #[cfg(feature = "tls")]
    pub(crate) fn split(self) -> (Conn<()>, Io) {
        let Self { io, info, live } = self;
        (Conn { io: (), info, live }, io)
    }

    /// Ends the connection without a word: the account that a layer answers with which refuses it.
    ///
    /// ```
    /// use wharf::{CloseReason, Conn, ConnReport};
    ///
    /// fn refuse<Io>(conn: Conn<Io>) -> ConnReport {
    ///     let why = format!("{} is on the list", conn.info().peer);
    ///     conn.end(CloseReason::before_http(why))
    /// }
    /// # let _ = refuse::<tokio::io::DuplexStream>;
    /// ```
    pub fn end(self, reason: CloseReason) -> ConnReport {
        let (_, live) = self.seal();
        live.report(reason, Bytes::new())
    }

    /// How this connection is told to stop, and watched; shared with the server that accepted it.
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// From here on the facts can't change: they are shared with every request of the connection.
    pub(crate) fn seal(self) -> (Io, Arc<Live>) {
        self.live.settle(self.info);
        (self.io, self.live)
    }
}

/// The facts of a connection.
///
/// A handler finds them with [`ConnInfo::of`]; [`ConnInfoLayer`] puts them into each
/// request's extensions for code that can't see the body's type.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConnInfo {
    /// Counts up from 1 within a server; 0 for a connection that no server accepted.
    pub id: u64,
    /// Who is at the other end.
    pub peer: Address,
    /// The address it was accepted on.
    pub local: Address,
    /// The name of the listener that accepted it; empty unless it was given one.
    pub listener: Arc<str>,
    /// What a balancer said of it, where the listener speaks the PROXY protocol.
    pub proxy: Option<Arc<ProxyInfo>>,
    /// What the TLS handshake agreed upon, where the listener speaks TLS.
    pub tls: Option<Arc<TlsInfo>>,
}

impl ConnInfo {
    /// The facts of the connection that `request` came on.
    ///
    /// `None` once a layer has replaced the body with one of its own, and for requests that came on no connection.
    pub fn of(request: &Request<Body>) -> Option<&Self> {
        request.body().live().and_then(|live| live.info())
    }

    /// The same for any type of body: from the request's extensions, else from its body if that is a [`Body`].
    ///
    /// For layers that are generic over bodies; see [`ConnInfoLayer`].
    pub fn find<B: 'static>(request: &Request<B>) -> Option<&Self> {
        let own = || (request.body() as &dyn Any).downcast_ref::<Body>();
        let extension = request.extensions().get();
        extension.or_else(|| own()?.live()?.info())
    }

    /// The number of the request on its connection, from 1, as long as it has the [`Body`] that it came with.
    pub fn request_number<B: 'static>(request: &Request<B>) -> Option<u64> {
        let body = (request.body() as &dyn Any).downcast_ref::<Body>()?;
        body.origin().map(|origin| origin.exchange)
    }

    /// How long ago the request's connection was accepted, as long as it has the [`Body`] that it came with.
    pub fn age<B: 'static>(request: &Request<B>) -> Option<Duration> {
        let body = (request.body() as &dyn Any).downcast_ref::<Body>()?;
        body.live().map(|live| live.since().elapsed())
    }
}

/// Puts [`ConnInfo`] and [`Closing`] into the extensions of each request, for code that can't see the body's type: handlers and
/// extractors of a framework, layers that are generic over bodies.
///
/// Not done by default: the first extension of a request costs three allocations, the second one more.
///
/// ```
/// use tower::ServiceBuilder;
/// use wharf::{Body, ConnInfo, ConnInfoLayer, Http};
///
/// let stack = ServiceBuilder::new().layer(Http::new()).layer(ConnInfoLayer).service_fn(
///     |request: http::Request<Body>| async move {
///         let peer = request.extensions().get::<ConnInfo>().map(|info| info.peer.to_string());
///         Ok::<_, wharf::BoxError>(http::Response::new(Body::from(peer.unwrap_or_default())))
///     },
/// );
/// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnInfoLayer;

impl<S> Layer<S> for ConnInfoLayer {
    type Service = WithConnInfo<S>;

    fn layer(&self, service: S) -> WithConnInfo<S> {
        WithConnInfo { service }
    }
}

/// The service that [`ConnInfoLayer`] makes.
#[derive(Debug, Clone)]
pub struct WithConnInfo<S> {
    service: S,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for WithConnInfo<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        if let Some(info) = ConnInfo::of(&request).cloned() {
            request.extensions_mut().insert(info);
        }
        if let Some(closing) = Closing::find(&request) {
            request.extensions_mut().insert(closing);
        }
        self.service.call(request)
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// No address: an unnamed Unix socket, or a stream in memory.
    #[default]
    Unnamed,
}

impl Address {
    /// IP address and port, if it has one.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Unnamed => f.write_str("unnamed"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}
