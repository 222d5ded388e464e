//! The easy door: one line from listener and service to a running server.

use std::fmt;
use std::pin::Pin;

use tower_layer::Layer;
use tower_service::Service;

use crate::conn::{Conn, ConnReport};
use crate::error::{BoxError, Error};
use crate::http1::Http;
use crate::layer::Connections;
use crate::listener::{IntoListeners, Stream};
use crate::server::Server;
use crate::shutdown::{Report, Shutdown};

/// Serves any tower service over HTTP/1: an axum `Router`, a hand-written `Service`, a stack of layers.
///
/// `listeners` is an address, a bound socket of tokio or of the standard library, or several; see [`IntoListeners`].
/// All deadlines and limits are on, Ctrl-C and SIGTERM drain, the second one cuts. What it resolves to can be printed.
///
/// ```no_run
/// use http::{Request, Response};
/// use wharf::{Body, BoxError};
///
/// # async fn run() -> Result<(), wharf::Error> {
/// let echo = tower::service_fn(|request: Request<Body>| async { Ok::<_, BoxError>(Response::new(request.into_body())) });
/// let report = wharf::serve("127.0.0.1:8888", echo).await?;
/// println!("{report}"); // 12,431 requests on 87 connections; closed: 80 by the client, 6 idle, 1 refused
/// # Ok(())
/// # }
/// ```
pub fn serve<L, S>(listeners: L, service: S) -> Serve<L, Connections<Http, S>> {
    Serve::over(listeners, Http::new().layer(service))
}

/// A server to be awaited: [`serve`] makes it.
///
/// By default Ctrl-C and SIGTERM drain it, and the second one cuts.
#[must_use = "a server does nothing until it is awaited"]
pub struct Serve<L, S> {
    listeners: L,
    stack: S,
    server: Server,
}

impl<L, S> Serve<L, S> {
    /// Serves connections with any service of the connection plane.
    pub fn over(listeners: L, stack: S) -> Self {
        Self {
            listeners,
            stack,
            server: Server::new(),
        }
    }

    /// Drains when `signal` is over, instead of on Ctrl-C and SIGTERM.
    pub fn with_graceful_shutdown(self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown(Shutdown::when(signal))
    }

    /// When and how to stop, in full.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.server = self.server.shutdown(shutdown);
        self
    }

    /// Calls `tell` with each connection's account when it has ended.
    pub fn on_close(mut self, tell: impl Fn(&ConnReport) + Send + Sync + 'static) -> Self {
        self.server = self.server.on_close(tell);
        self
    }
}

impl<L, S> IntoFuture for Serve<L, S>
where
    L: IntoListeners,
    S: Service<Conn<Stream>, Response = ConnReport> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Output = Result<Report, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        // Bound at once, so that clients can connect from here on.
        let server = self.server.listen(self.listeners);
        let stack = self.stack;
        Box::pin(async move { server?.serve(stack).await })
    }
}

impl<L: fmt::Debug, S> fmt::Debug for Serve<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listeners", &self.listeners)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}
