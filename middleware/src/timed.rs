//! Where the time of a request goes, layer by layer.
//!
//! [`Timed`] wraps a layer and measures twice: around the service that the layer makes, and around the service that the
//! layer was given. The difference is the layer's own share. A [`Timings`] collects them; its [`Snapshot`] says, layer by
//! layer, how often it was called and how long it took.
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::{Timeout, Timings, from_fn};
//!
//! async fn hello(_: Request<String>) -> Result<Response<Full<Bytes>>, Infallible> {
//!     tokio::time::sleep(Duration::from_millis(30)).await;
//!     Ok(Response::new(Full::from("hello")))
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Infallible> {
//! let timings = Timings::new();
//! let app = ServiceBuilder::new()
//!     .layer(timings.timed("time-out", Timeout::new().handler(Duration::from_secs(5))))
//!     .layer(timings.timed("look-up", from_fn(|request, next| async move {
//!         tokio::time::sleep(Duration::from_millis(10)).await;
//!         next.call(request).await
//!     })))
//!     .service(service_fn(hello));
//!
//! app.oneshot(Request::new(String::new())).await?;
//! let snapshot = timings.snapshot();
//! assert_eq!(snapshot.layers[1].name, "look-up");
//! assert_eq!(snapshot.layers[1].own, Duration::from_millis(10));
//! assert_eq!(snapshot.layers[1].inside, Duration::from_millis(30));
//! println!("{snapshot}");
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! layer             calls   passed on     own/call    longest   share
//! time-out              1           1        0.0µs  40000.0µs    0.0 %
//! look-up               1           1    10000.0µs  40000.0µs   25.0 %
//! inside of them                                                75.0 %
//! ```
//!
//! What is measured is the time on the clock from the call to the response, waiting included; the time for which the layer
//! was asked in vain whether it is ready; and the time that it takes to produce the body's frames, without the time
//! between them, which is the client's. A request whose future is dropped counts up to there.
//!
//! Cost: four readings of the clock a request and layer, and four a frame; counters that threads seldom share; no
//! allocation. Leave it out of what you don't look at.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::shard::{SHARDS, shard};

/// The layers that are timed; a clone is the same collection.
#[derive(Debug, Clone, Default)]
pub struct Timings {
    entries: Arc<Mutex<Vec<Arc<Entry>>>>,
}

impl Timings {
    /// A collection without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Times `layer` under a name. Snapshots keep the order of these calls: outermost first, as a stack is written.
    pub fn timed<L>(&self, name: impl Into<Cow<'static, str>>, layer: L) -> Timed<L> {
        let entry = Arc::new(Entry::new(name.into()));
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(entry.clone());
        Timed { layer, entry }
    }

    /// What was measured so far. Requests that are under way may be in the numbers of an inner layer only.
    pub fn snapshot(&self) -> Snapshot {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = entries.iter().map(|entry| entry.share()).collect();
        Snapshot { layers }
    }
}

/// The time of all requests, by layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// In the order in which they were made.
    pub layers: Vec<Share>,
}

/// What one layer did, and how long that took.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// The name it was given.
    pub name: Cow<'static, str>,
    /// Requests that it was called with, and that are over.
    pub calls: u64,
    /// Requests that it called its inner service with, and that are over.
    pub passed_on: u64,
    /// The time that all of them spent in the layer itself.
    pub own: Duration,
    /// The time that they spent in its inner service.
    pub inside: Duration,
    /// The longest that a response took, inner service included.
    pub longest: Duration,
}

impl Share {
    /// The layer's own time for one call.
    pub fn own_per_call(&self) -> Duration {
        let nanos = self.own.as_nanos() / u128::from(self.calls.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Snapshot {
    /// A table; shares are of what the layers of this collection took at most together, so it reads best if they are one stack.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| format!("{:.1}µs", time.as_secs_f64() * 1e6);
        let whole = self
            .layers
            .iter()
            .map(|layer| layer.own + layer.inside)
            .max();
        let whole = whole
            .unwrap_or_default()
            .as_secs_f64()
            .max(f64::MIN_POSITIVE);
        let share = |time: Duration| time.as_secs_f64() / whole * 100.0;
        let mut rest = 100.0;
        writeln!(
            f,
            "{:<14}{:>9}{:>12}{:>13}{:>11}{:>8}",
            "layer", "calls", "passed on", "own/call", "longest", "share"
        )?;
        for layer in &self.layers {
            let (own, longest) = (micros(layer.own_per_call()), micros(layer.longest));
            rest -= share(layer.own);
            writeln!(
                f,
                "{:<14}{:>9}{:>12}{own:>13}{longest:>11}{:>7.1} %",
                layer.name,
                layer.calls,
                layer.passed_on,
                share(layer.own)
            )?;
        }
        write!(f, "{:<14}{:>52.1} %", "inside of them", f64::max(rest, 0.0))
    }
}

/// A layer that is timed; made by [`Timings::timed`].
#[derive(Debug, Clone)]
pub struct Timed<L> {
    layer: L,
    entry: Arc<Entry>,
}

impl<L, S> Layer<S> for Timed<L>
where
    L: Layer<Measured<S>>,
{
    type Service = Measured<L::Service>;

    fn layer(&self, inner: S) -> Self::Service {
        let measured = Measured::new(inner, Gauge::new(&self.entry, Side::Inside));
        let service = self.layer.layer(measured);
        Measured::new(service, Gauge::new(&self.entry, Side::Whole))
    }
}

/// Which of the two times of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// That of the service which it makes.
    Whole,
    /// That of the service which it was given.
    Inside,
}

#[derive(Debug)]
struct Entry {
    name: Cow<'static, str>,
    shards: [Shard; SHARDS],
}

/// What some threads have measured; as large as a pair of cache lines, so that others don't wait for them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    whole: Sum,
    inside: Sum,
    longest: AtomicU64,
}

#[derive(Debug, Default)]
struct Sum {
    calls: AtomicU64,
    nanos: AtomicU64,
}

impl Entry {
    fn new(name: Cow<'static, str>) -> Self {
        Self {
            name,
            shards: Default::default(),
        }
    }

    fn share(&self) -> Share {
        let sum = |of: fn(&Shard) -> &AtomicU64| {
            self.shards.iter().fold(0_u64, |all, shard| {
                all.saturating_add(of(shard).load(Relaxed))
            })
        };
        let longest = self.shards.iter().map(|shard| shard.longest.load(Relaxed));
        let inside = sum(|shard| &shard.inside.nanos);
        Share {
            name: self.name.clone(),
            calls: sum(|shard| &shard.whole.calls),
            passed_on: sum(|shard| &shard.inside.calls),
            own: Duration::from_nanos(sum(|shard| &shard.whole.nanos).saturating_sub(inside)),
            inside: Duration::from_nanos(inside),
            longest: Duration::from_nanos(longest.max().unwrap_or_default()),
        }
    }
}

/// Adds to one of a layer's two times.
#[derive(Debug, Clone)]
struct Gauge {
    entry: Arc<Entry>,
    side: Side,
}

impl Gauge {
    fn new(entry: &Arc<Entry>, side: Side) -> Self {
        let entry = entry.clone();
        Self { entry, side }
    }

    fn add(&self, time: Duration, calls: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let shard = &self.entry.shards[shard()];
        let sum = match self.side {
            Side::Whole => &shard.whole,
            Side::Inside => &shard.inside,
        };
        sum.nanos.fetch_add(nanos, Relaxed);
        if calls > 0 {
            sum.calls.fetch_add(calls, Relaxed);
            if self.side == Side::Whole {
                shard.longest.fetch_max(nanos, Relaxed);
            }
        }
    }
}

/// A service whose time is measured: the one that a [`Timed`] layer makes, and the one that it is given.
#[derive(Debug)]
pub struct Measured<S> {
    inner: S,
    gauge: Gauge,
    waiting_since: Option<Instant>,
}

impl<S> Measured<S> {
    fn new(inner: S, gauge: Gauge) -> Self {
        Self {
            inner,
            gauge,
            waiting_since: None,
        }
    }
}

impl<S: Clone> Clone for Measured<S> {
    /// The clone waits for nothing yet.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.gauge.clone())
    }
}

impl<S, B, R> Service<Request<B>> for Measured<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<MeasuredBody<R>>;
    type Error = S::Error;
    type Future = MeasuredFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let ready = self.inner.poll_ready(cx);
        if ready.is_pending() {
            self.waiting_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.waiting_since.take() {
            self.gauge.add(since.elapsed(), 0);
        }
        ready
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Before the call: a service may do its work in it.
        let since = Instant::now();
        MeasuredFuture {
            call: self.inner.call(request),
            running: Some(Running {
                gauge: self.gauge.clone(),
                since,
            }),
        }
    }
}

/// A call under way; dropped, it is counted.
#[derive(Debug)]
struct Running {
    gauge: Gauge,
    since: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gauge.add(self.since.elapsed(), 1);
    }
}

pin_project! {
    /// The future of [`Measured`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct MeasuredFuture<F> {
        #[pin]
        call: F,
        // None once it is over.
        running: Option<Running>,
    }
}

impl<F, R, E> Future for MeasuredFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<MeasuredBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.call.poll(cx).map(|answer| {
            let gauge = this.running.take().map(|running| running.gauge.clone());
            answer.map(|response| response.map(|body| MeasuredBody { body, gauge }))
        })
    }
}

pin_project! {
    /// A body whose frames' making is measured.
    #[derive(Debug)]
    pub struct MeasuredBody<B> {
        #[pin]
        body: B,
        // None for one that no response came with.
        gauge: Option<Gauge>,
    }
}

impl<B: Default> Default for MeasuredBody<B> {
    /// A body that isn't measured.
    fn default() -> Self {
        Self {
            body: B::default(),
            gauge: None,
        }
    }
}

impl<B: Body> Body for MeasuredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(gauge) = this.gauge else {
            return this.body.poll_frame(cx);
        };
        let since = Instant::now();
        let frame = this.body.poll_frame(cx);
        gauge.add(since.elapsed(), 0);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
