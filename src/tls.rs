//! TLS as a layer of the connection plane: below it is the socket, above it the same connection in plain text. It knows
//! rustls and nothing of HTTP, but for the one answer that a client gets which forgot the `s` of `https`.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::ServerConfig;
use tower_layer::Layer;
use tower_service::Service;

use crate::conn::{CloseReason, Conn, ConnReport, TlsError, TlsInfo, Told};
use crate::error::Error;

mod files;
mod handshake;
mod shared;

use files::Clients;
use handshake::Shaken;
use shared::Shared;

/// Speaks TLS with the clients of a connection plane (with the feature `tls`).
///
/// What a handshake agreed upon is in [`ConnInfo::tls`](crate::ConnInfo::tls). Handshakes are a part of each connection's
/// own future, so they never hold up `accept()`; at most 256 of them are worked on at once, and each is over within ten
/// seconds of the accept, waiting included. While others wait, one whose client lets two seconds pass makes room. A
/// request in plain text gets a readable 400. At the end of a connection the client is told so (`close_notify`), behind
/// the last response.
///
/// In a stack the layer comes behind `ProxyProtocol` and before [`Http`](crate::Http). Which protocols are offered (ALPN) must
/// be what the rest of the stack can speak: HTTP/1.1 alone by default, `with_http2` where it is `Http::new().with_http2()`.
///
/// A client that closes without saying so first is taken to have closed: the framing of HTTP shows what is missing.
///
/// ```no_run
/// use tower::ServiceBuilder;
/// use wharf::{Body, Http, Server, Tls};
///
/// # async fn run() -> Result<(), wharf::Error> {
/// # #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))] {
/// let stack = ServiceBuilder::new()
///     .layer(Tls::from_pem_files("cert.pem", "key.pem")?)
///     .layer(Http::new())
///     .service_fn(|_: http::Request<Body>| async { Ok::<_, wharf::BoxError>(http::Response::new(Body::from("hello"))) });
/// Server::new().bind("0.0.0.0:443")?.serve(stack).await?;
/// # }
/// # Ok(())
/// # }
/// ```
///
/// **New certificates** are taken from the files when those have changed, which is looked at with a handshake and at most
/// once a second, and by [`reload`](Tls::reload), on a signal for instance:
///
/// ```no_run
/// # async fn run(tls: wharf::Tls) -> std::io::Result<()> {
/// use tokio::signal::unix::{SignalKind, signal};
///
/// let mut hang_up = signal(SignalKind::hangup())?;
/// while hang_up.recv().await.is_some() {
///     if let Err(error) = tls.reload() {
///         eprintln!("the old certificates are still in use: {error}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// A clone is the same TLS: what one reloads, all have.
#[derive(Clone)]
#[must_use]
pub struct Tls {
    shared: Arc<Shared>,
}

impl Tls {
    /// TLS by a configuration of your own: its protocols (ALPN), versions and verifiers are what is spoken.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            shared: Arc::new(Shared::fixed(config)),
        }
    }

    /// TLS with a certificate chain, the server's own certificate first, and its private key, both in PEM.
    ///
    /// TLS 1.3 and 1.2, no client certificates, `http/1.1`. The cryptography is the process's default provider of rustls,
    /// if one was installed, else that of the feature `tls-aws-lc-rs` or `tls-ring`.
    ///
    /// # Errors
    ///
    /// A sentence that names the file that can't be used, and why.
    pub fn from_pem_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        let shared = Shared::of_files(certificates.as_ref(), key.as_ref())?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Another certificate chain and its key: each client gets the first whose names match the one that it asks for (SNI)
    /// and whose key it can use, and the first of all if none does.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Tls::from_pem_files), and when the TLS isn't made from files.
    pub fn certificate(
        self,
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        self.with_files(|files| files.add(certificates.as_ref(), key.as_ref()))
    }

    /// Requires a client certificate that an authority in this PEM file has issued.
    ///
    /// # Errors
    ///
    /// As [`certificate`](Tls::certificate).
    pub fn require_client_certificates(self, authorities: impl AsRef<Path>) -> Result<Self, Error> {
        self.with_files(|files| files.clients = Some(Clients::required(authorities.as_ref())))
    }

    /// Asks for a client certificate that an authority in this PEM file has issued. A client without one is served too: see
    /// [`TlsInfo::peer_certificates`].
    ///
    /// # Errors
    ///
    /// As [`certificate`](Tls::certificate).
    pub fn ask_for_client_certificates(self, authorities: impl AsRef<Path>) -> Result<Self, Error> {
        self.with_files(|files| files.clients = Some(Clients::optional(authorities.as_ref())))
    }

    /// Offers HTTP/2 too (`h2`, before `http/1.1`), for a stack of [`Http::with_http2`](crate::Http::with_http2).
    ///
    /// # Errors
    ///
    /// When the TLS isn't made from files: a configuration of your own has its own list.
    #[cfg(feature = "http2")]
    pub fn with_http2(self) -> Result<Self, Error> {
        self.with_files(|files| files.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()])
    }

    /// How long a handshake may take, from the accept on. Default 10 s.
    pub fn timeout(mut self, time: Duration) -> Self {
        Arc::make_mut(&mut self.shared).time = time;
        self
    }

    /// Calls `tell` when files have changed, with the error if they can't be used: the certificates from before are still in
    /// use then. Without this the error goes to standard error.
    pub fn on_reload(mut self, tell: impl Fn(Result<(), &Error>) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.shared).on_reload = Some(Arc::new(tell));
        self
    }

    /// Reads the files again, now. Handshakes from here on go by them; connections are not touched.
    ///
    /// Blocks while it reads. Does nothing for a configuration of your own.
    ///
    /// # Errors
    ///
    /// A sentence that names the file that can't be used, and why; what was in use before still is.
    pub fn reload(&self) -> Result<(), Error> {
        self.shared.reload()
    }

    /// Another configuration, for the handshakes from here on.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.shared.replace(config);
    }

    fn with_files(mut self, change: impl FnOnce(&mut files::Files)) -> Result<Self, Error> {
        Arc::make_mut(&mut self.shared).change_files(change)?;
        Ok(self)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("timeout", &self.shared.time)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Tls {
    type Service = Secured<S>;

    fn layer(&self, service: S) -> Secured<S> {
        Secured {
            shared: self.shared.clone(),
            service,
        }
    }
}

/// The service that [`Tls`] makes.
#[derive(Clone)]
pub struct Secured<S> {
    shared: Arc<Shared>,
    service: S,
}

impl<S: fmt::Debug> fmt::Debug for Secured<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl<S, Io> Service<Conn<Io>> for Secured<S>
where
    S: Service<Conn<TlsStream<Io>>, Response = ConnReport> + Clone,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Response = ConnReport;
    type Error = S::Error;
    type Future = Securing<S, Io, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, conn: Conn<Io>) -> Self::Future {
        // The one that is ready is called, later; the next connection asks the clone.
        let next = self.service.clone();
        let service = std::mem::replace(&mut self.service, next);
        let (conn, io) = conn.split();
        let deadline = conn.live().since() + self.shared.time;
        let handshake = handshake::shake(io, self.shared.clone(), deadline);
        Securing {
            phase: Phase::Shaking {
                conn,
                service,
                handshake: Box::pin(handshake),
            },
        }
    }
}

pin_project! {
    /// A connection's life: its handshake, then what the service above makes of it.
    pub struct Securing<S, Io, F> {
        #[pin]
        phase: Phase<S, Io, F>,
    }
}

type Handshake<Io> = Pin<Box<dyn Future<Output = Result<Shaken<Io>, TlsError>> + Send>>;

pin_project! {
    #[project = PhaseProjection]
    #[project_replace = PhaseOwned]
    enum Phase<S, Io, F> {
        Shaking {
            conn: Conn<()>,
            service: S,
            handshake: Handshake<Io>,
        },
        Serving {
            #[pin]
            serving: F,
        },
        Ended,
    }
}

impl<S, Io> Future for Securing<S, Io, S::Future>
where
    S: Service<Conn<TlsStream<Io>>, Response = ConnReport>,
{
    type Output = Result<ConnReport, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut phase = self.project().phase;
        loop {
            let end = match phase.as_mut().project() {
                PhaseProjection::Shaking {
                    conn, handshake, ..
                } => ready!(poll_handshake(cx, conn, handshake)),
                PhaseProjection::Serving { serving } => return serving.poll(cx),
                PhaseProjection::Ended => panic!("polled after its end"),
            };
            let PhaseOwned::Shaking {
                conn, mut service, ..
            } = phase.as_mut().project_replace(Phase::Ended)
            else {
                continue;
            };
            match end {
                Ok(shaken) => {
                    let serving = service.call(told(conn, shaken));
                    phase.set(Phase::Serving { serving });
                }
                Err(reason) => return Poll::Ready(Ok(conn.end(reason))),
            }
        }
    }
}

/// Waits for the end of the handshake, or until the server wants its connections to end.
fn poll_handshake<Io>(
    cx: &mut Context<'_>,
    conn: &Conn<()>,
    handshake: &mut Handshake<Io>,
) -> Poll<Result<Shaken<Io>, CloseReason>> {
    if let Poll::Ready(end) = handshake.as_mut().poll(cx) {
        return Poll::Ready(end.map_err(CloseReason::Tls));
    }
    if conn.live().watch(cx).0 >= Told::Drain {
        return Poll::Ready(Err(conn.live().told_why()));
    }
    Poll::Pending
}

/// The connection in plain text, with what is known of its TLS.
fn told<Io>(mut conn: Conn<()>, shaken: Shaken<Io>) -> Conn<TlsStream<Io>> {
    conn.info_mut().tls = Some(Arc::new(TlsInfo::of(&shaken)));
    conn.map_io(|()| TlsStream { io: shaken })
}

pin_project! {
    /// The stream of a connection after its handshake.
    #[derive(Debug)]
    pub struct TlsStream<Io> {
        #[pin]
        io: Shaken<Io>,
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.project().io.poll_read(cx, buf)) {
            // Most clients close without a word, and HTTP shows by itself what is missing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}
