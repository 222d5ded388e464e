//! Leaving HTTP: after `101 Switching Protocols`, or a successful `CONNECT`, the socket belongs to the handler.
//! Nothing is handed over before the response is on the wire, and bytes that came early travel with the socket, in order.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::conn::{CloseReason, Live, Told};

#[cfg(feature = "hyper-upgrade")]
pub(crate) mod hyper;
#[cfg(feature = "websocket")]
mod websocket;

#[cfg(feature = "websocket")]
pub use websocket::{NotWebSocket, protocols, websocket};

/// Takes from a request the promise of its socket, if it offers to leave HTTP.
///
/// It does when it is an HTTP/1.1 request without a body that has `Upgrade` and names it in `Connection`, or a
/// `CONNECT`: of HTTP/2 with a [`Protocol`] that is a WebSocket's way (RFC 8441), and the socket is the stream. The promise is kept once a response with status 101 (2xx to `CONNECT`) has been sent; any other
/// response breaks it and the connection goes on with HTTP.
///
/// ```
/// use http::{Request, Response, StatusCode, header};
/// use tokio::io::AsyncWriteExt;
/// use wharf::{Body, BoxError};
///
/// async fn handler(mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
///     let Some(upgrade) = wharf::upgrade::on(&mut request) else {
///         return Ok(Response::builder().status(StatusCode::UPGRADE_REQUIRED).body(Body::empty())?);
///     };
///     tokio::spawn(async move {
///         let mut socket = upgrade.await?;
///         socket.write_all(b"hello in another protocol").await?;
///         Ok::<_, BoxError>(())
///     });
///     let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::UPGRADE, "echo");
///     Ok(response.body(Body::empty())?)
/// }
/// # let _ = handler;
/// ```
pub fn on<B>(request: &mut Request<B>) -> Option<OnUpgrade> {
    request
        .extensions_mut()
        .remove::<Promise>()
        .and_then(|promise| promise.take())
}

/// The protocol that an extended `CONNECT` of HTTP/2 asks for (RFC 8441), in the request's extensions: `websocket`.
///
/// ```
/// use wharf::{Body, upgrade::Protocol};
///
/// fn is_websocket(request: &http::Request<Body>) -> bool {
///     request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
/// }
/// # assert!(!is_websocket(&http::Request::new(Body::empty())));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(Arc<str>);

impl Protocol {
    #[cfg(feature = "http2")]
    pub(crate) fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name, of the registry that `Upgrade` has.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A future of the socket; see [`on`]. Dropping it gives the socket up.
#[derive(Debug)]
pub struct OnUpgrade(oneshot::Receiver<Upgraded>);

impl OnUpgrade {
    /// Spawns a task that `talk`s on the socket once there is one, and is dropped when the connection is cut.
    ///
    /// The connection counts as open until the socket is dropped. `stop` tells when it should end.
    ///
    /// ```
    /// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// # fn handler(request: &mut http::Request<wharf::Body>) -> Option<()> {
    /// wharf::upgrade::on(request)?.spawn(|mut socket, stop| async move {
    ///     loop {
    ///         tokio::select! {
    ///             byte = socket.read_u8() => { let Ok(byte) = byte else { return }; let _ = socket.write_u8(byte).await; }
    ///             () = stop.draining() => { let _ = socket.write_all(b"bye").await; return }
    ///         }
    ///     }
    /// });
    /// # Some(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn<F, T>(self, talk: F) -> JoinHandle<()>
    where
        F: FnOnce(Upgraded, Stop) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(async move {
            let Ok(socket) = self.await else { return };
            let stop = socket.stop();
            let cut = stop.clone();
            tokio::select! {
                () = talk(socket, stop) => {}
                () = cut.cut() => {}
            }
        })
    }
}

impl Future for OnUpgrade {
    type Output = Result<Upgraded, NotUpgraded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| NotUpgraded(()))
    }
}

/// The connection stayed with HTTP, or ended before the response was sent.
#[derive(Debug)]
pub struct NotUpgraded(());

impl fmt::Display for NotUpgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection did not leave HTTP: the response was not a 101 (or 2xx to CONNECT), or was never sent")
    }
}

impl std::error::Error for NotUpgraded {}

/// Extensions are cloned with their request, a socket can be given only once.
#[derive(Clone)]
pub(crate) struct Promise(Arc<Mutex<Option<oneshot::Receiver<Upgraded>>>>);

impl Promise {
    pub(crate) fn new() -> (oneshot::Sender<Upgraded>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Arc::new(Mutex::new(Some(receiver)))))
    }

    fn take(&self) -> Option<OnUpgrade> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map(OnUpgrade)
    }
}

/// A socket that has left HTTP. Its connection counts as open until this is dropped: a shutdown waits for it, and tells
/// it by [`stop`](Upgraded::stop).
pub struct Upgraded {
    io: Box<dyn Socket>,
    early: Bytes,
    live: Arc<Live>,
    /// Its bytes are counted here, and not by a connection that has other streams too.
    counts: bool,
    told: watch::Receiver<Told>,
    waiting: Arc<Waiting>,
    _open: oneshot::Sender<Infallible>,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin> Socket for Io {}

impl Upgraded {
    /// The socket, and what the connection keeps of it.
    pub(crate) fn new<Io>(io: Io, early: Bytes, live: Arc<Live>) -> (Self, Kept)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (tell, told) = watch::channel(Told::Nothing);
        let (open, closed) = oneshot::channel();
        let waiting = Arc::new(Waiting::default());
        let kept = Kept {
            live: live.clone(),
            tell,
            closed,
            waiting: waiting.clone(),
        };
        let upgraded = Self {
            io: Box::new(io),
            early,
            live,
            counts: true,
            told,
            waiting,
            _open: open,
        };
        (upgraded, kept)
    }

    /// The same for one stream of a connection that goes on with HTTP.
    #[cfg(feature = "http2")]
    pub(crate) fn on_stream<Io>(io: Io, live: Arc<Live>) -> (Self, Kept)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut upgraded, kept) = Self::new(io, Bytes::new(), live);
        upgraded.counts = false;
        (upgraded, kept)
    }

    /// What tells when the server shuts down, or wants this connection to end for another reason.
    pub fn stop(&self) -> Stop {
        Stop(self.told.clone())
    }

    /// Whoever is left waiting is woken should the connection be cut.
    fn poll_io<T>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        poll: impl FnOnce(Pin<&mut dyn Socket>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.check()?;
        let polled = poll(Pin::new(&mut *self.io), cx);
        if polled.is_pending() {
            self.waiting.leave(side, cx.waker());
            self.check()?;
        }
        polled
    }

    /// Once the connection is cut nothing passes any more.
    fn check(&self) -> io::Result<()> {
        if self.live.told() < Told::Cut {
            return Ok(());
        }
        let cut = "the server cut the connection at the end of its shutdown";
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, cut))
    }
}

/// Which half of a socket waits: each may have a task of its own.
#[derive(Clone, Copy)]
enum Side {
    Reading,
    Writing,
}

/// Who waits for the socket, to be woken when the connection is cut.
#[derive(Default)]
struct Waiting([Mutex<Option<Waker>>; 2]);

impl Waiting {
    fn leave(&self, side: Side, waker: &Waker) {
        let mut left = self.lock(side);
        if !left.as_ref().is_some_and(|left| left.will_wake(waker)) {
            *left = Some(waker.clone());
        }
    }

    fn wake(&self) {
        for side in [Side::Reading, Side::Writing] {
            let left = self.lock(side).take();
            if let Some(waker) = left {
                waker.wake();
            }
        }
    }

    fn lock(&self, side: Side) -> MutexGuard<'_, Option<Waker>> {
        let [reading, writing] = &self.0;
        let left = match side {
            Side::Reading => reading,
            Side::Writing => writing,
        };
        left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the user of an [`Upgraded`] socket when to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Told>);

impl Stop {
    /// Waits until the connection is asked to end: say goodbye in the protocol's own way (a WebSocket's close frame).
    ///
    /// Cancel safe.
    pub async fn draining(&self) {
        self.told(Told::Drain).await;
    }

    /// Waits until the connection is cut: nothing can be sent any more.
    ///
    /// Cancel safe.
    pub async fn cut(&self) {
        self.told(Told::Cut).await;
    }

    async fn told(&self, least: Told) {
        // An error says that the connection is gone, which is the end as well.
        let _ = self.0.clone().wait_for(|told| *told >= least).await;
    }
}

/// What the connection keeps of a socket that it gave away.
pub(crate) struct Kept {
    live: Arc<Live>,
    tell: watch::Sender<Told>,
    closed: oneshot::Receiver<Infallible>,
    waiting: Arc<Waiting>,
}

impl Kept {
    /// Waits until nobody has the socket, and passes on what the connection is told.
    pub(crate) async fn closed(mut self) -> CloseReason {
        poll_fn(|cx| {
            let (told, _) = self.live.watch(cx);
            self.tell.send_if_modified(|before| {
                let grows = told > *before;
                *before = told.max(*before);
                grows
            });
            if told >= Told::Cut {
                self.waiting.wake();
                return Poll::Ready(self.live.told_why());
            }
            let closed = Pin::new(&mut self.closed).poll(cx);
            closed.map(|_| CloseReason::Upgraded)
        })
        .await
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded")
            .field("early", &self.early.len())
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            self.check()?;
            let count = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..count]);
            self.early.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(self.poll_io(cx, Side::Reading, |io, cx| io.poll_read(cx, buf)))?;
        if self.counts {
            self.live.count_in(buf.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.poll_io(cx, Side::Writing, |io, cx| io.poll_write(cx, buf)))?;
        if self.counts {
            self.live.count_out(written);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.poll_io(cx, Side::Writing, |io, cx| {
            io.poll_write_vectored(cx, slices)
        }))?;
        if self.counts {
            self.live.count_out(written);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, Side::Writing, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, Side::Writing, |io, cx| io.poll_shutdown(cx))
    }
}
