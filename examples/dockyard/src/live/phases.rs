//! Where the time of a request goes outside of the layers: its head, the wait until the service was ready, the body. One
//! layer on each plane, and between them a connection's own clock: the lower one sees bytes come, the upper one requests.
//!
//! Both run in the connection's task, so what the lower one saw the upper one finds in a task-local.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::futures::TaskLocalFuture;
use tower_layer::Layer;
use tower_service::Service;
use wharf::Conn;

/// Requests of one read (pipelined, or streams side by side) that are told apart: 1, 2, 3 to 4, 5 to 8, and so on.
pub(crate) const DEPTHS: usize = 6;

tokio::task_local! {
    static CLOCK: Clock;
}

/// What a connection has seen since its last answer.
#[derive(Default)]
pub struct Clock {
    /// When the first byte of what may be the next head came.
    began: Cell<Option<Instant>>,
    /// Requests since bytes came last.
    depth: Cell<u64>,
}

/// What was measured; a clone is the same.
#[derive(Clone, Default)]
pub struct Phases {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicU64,
    head: AtomicU64,
    ready: AtomicU64,
    answer: AtomicU64,
    body: AtomicU64,
    depths: [AtomicU64; DEPTHS],
}

/// The times that all requests took together, and how deep they were pipelined.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    /// Requests that are over.
    pub(crate) requests: u64,
    pub(crate) head: Duration,
    pub(crate) ready: Duration,
    pub(crate) answer: Duration,
    pub(crate) body: Duration,
    pub(crate) depths: [u64; DEPTHS],
}

impl Phases {
    /// The layer of the connection plane.
    pub fn connections(&self) -> Connections {
        Connections
    }

    /// The layer of the request plane: the outermost.
    pub fn requests(&self) -> Requests {
        Requests {
            shared: self.shared.clone(),
        }
    }

    pub(crate) fn now(&self) -> Sums {
        let shared = &self.shared;
        let time = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Relaxed));
        Sums {
            requests: shared.requests.load(Relaxed),
            head: time(&shared.head),
            ready: time(&shared.ready),
            answer: time(&shared.answer),
            body: time(&shared.body),
            depths: std::array::from_fn(|at| shared.depths[at].load(Relaxed)),
        }
    }
}

/// See [`Phases::connections`].
#[derive(Debug, Clone, Copy)]
pub struct Connections;

impl<S> Layer<S> for Connections {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner }
    }
}

/// The service that [`Connections`] makes.
#[derive(Debug, Clone)]
pub struct Watched<S> {
    inner: S,
}

impl<S, Io> Service<Conn<Io>> for Watched<S>
where
    S: Service<Conn<WatchedIo<Io>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<Clock, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, conn: Conn<Io>) -> Self::Future {
        let conn = conn.map_io(|io| WatchedIo { io });
        CLOCK.scope(Clock::default(), self.inner.call(conn))
    }
}

pin_project! {
    /// A stream that notes when bytes come.
    #[derive(Debug)]
    pub struct WatchedIo<Io> {
        #[pin]
        io: Io,
    }
}

impl<Io: AsyncRead> AsyncRead for WatchedIo<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = ready!(self.project().io.poll_read(cx, into));
        if into.filled().len() > before {
            let _ = CLOCK.try_with(|clock| {
                if clock.began.get().is_none() {
                    clock.began.set(Some(Instant::now()));
                }
                clock.depth.set(0);
            });
        }
        Poll::Ready(read)
    }
}

impl<Io: AsyncWrite> AsyncWrite for WatchedIo<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        answered();
        self.project().io.poll_write(cx, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        answered();
        self.project().io.poll_write_vectored(cx, from)
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

/// What came before belongs to the request that is answered now: the next head has not begun.
fn answered() {
    let _ = CLOCK.try_with(|clock| clock.began.set(None));
}

/// See [`Phases::requests`].
#[derive(Clone)]
pub struct Requests {
    shared: Arc<Shared>,
}

impl<S> Layer<S> for Requests {
    type Service = Phased<S>;

    fn layer(&self, inner: S) -> Phased<S> {
        Phased {
            inner,
            shared: self.shared.clone(),
            asked: None,
        }
    }
}

/// The service that [`Requests`] makes.
pub struct Phased<S> {
    inner: S,
    shared: Arc<Shared>,
    /// When the head was there: the service is asked then, and not before.
    asked: Option<Instant>,
}

impl<S: Clone> Clone for Phased<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.shared.clone(),
            asked: None,
        }
    }
}

impl<S, B, R> Service<Request<B>> for Phased<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<PhasedBody<R>>;
    type Error = S::Error;
    type Future = PhasedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.asked.get_or_insert_with(Instant::now);
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let now = Instant::now();
        let asked = self.asked.take().unwrap_or(now);
        let (began, depth) = CLOCK
            .try_with(|clock| {
                clock.depth.set(clock.depth.get() + 1);
                (clock.began.take(), clock.depth.get())
            })
            .unwrap_or_default();
        let shared = &self.shared;
        let head = began.map_or(Duration::ZERO, |began| {
            asked.saturating_duration_since(began)
        });
        add(&shared.head, head);
        add(&shared.ready, now.saturating_duration_since(asked));
        let bucket = depth.max(1).next_power_of_two().trailing_zeros() as usize;
        shared.depths[bucket.min(DEPTHS - 1)].fetch_add(1, Relaxed);
        PhasedFuture {
            call: self.inner.call(request),
            record: Some(Record {
                shared: shared.clone(),
                began: now,
                answered: None,
            }),
        }
    }
}

fn is_stream<R>(response: &Response<R>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind == "text/event-stream")
}

fn add(sum: &AtomicU64, time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    sum.fetch_add(nanos, Relaxed);
}

/// A request that is under way. Dropped, it is over.
struct Record {
    shared: Arc<Shared>,
    began: Instant,
    answered: Option<Instant>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let (now, shared) = (Instant::now(), &self.shared);
        let answered = self.answered.unwrap_or(now);
        add(&shared.answer, answered - self.began);
        add(&shared.body, now - answered);
        shared.requests.fetch_add(1, Relaxed);
    }
}

pin_project! {
    /// The call that [`Phased`] makes.
    pub struct PhasedFuture<F> {
        #[pin]
        call: F,
        record: Option<Record>,
    }
}

impl<F, R, E> Future for PhasedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<PhasedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.call.poll(cx));
        let mut record = this.record.take();
        if let Some(record) = &mut record {
            record.answered = Some(Instant::now());
        }
        // A stream of events takes as long as somebody listens, which is nobody's time.
        if answer.as_ref().is_ok_and(is_stream) {
            record = None;
        }
        Poll::Ready(answer.map(|response| response.map(|body| PhasedBody { body, record })))
    }
}

pin_project! {
    /// A response's body on its way.
    pub struct PhasedBody<B> {
        #[pin]
        body: B,
        record: Option<Record>,
    }
}

impl<B: Body> Body for PhasedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let is_over = frame.is_none() || this.body.is_end_stream();
        if is_over {
            drop(this.record.take());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
