//! Metrics: how many requests, how long they take, how many bytes they move, and what the server's connections are doing.
//!
//! The layer counts; a [`Snapshot`] is what was counted so far; [`page`](Metrics::page) is a service that shows it to Prometheus
//! (text format 0.0.4). Two snapshots make a window: what came between them, with its rate and percentiles.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::Metrics;
//!
//! async fn hello(_: Request<String>) -> Result<Response<Full<Bytes>>, Infallible> {
//!     Ok(Response::new(Full::from("hello")))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let metrics = Metrics::new();
//! let app = ServiceBuilder::new().layer(metrics.clone()).service(service_fn(hello));
//!
//! let earlier = metrics.snapshot();
//! let response = app.oneshot(Request::new(String::new())).await?;
//! response.into_body().collect().await?;
//! let window = &metrics.snapshot() - &earlier;
//! assert_eq!(window.requests(), 1);
//! println!("{:.1} requests/s, p99 {:?}", window.per_second(), window.duration(0.99));
//!
//! let page = metrics.page().oneshot(Request::new(())).await?;
//! assert!(page.body().contains("http_requests_total{method=\"GET\",status=\"2xx\"} 1\n"));
//! # Ok(())
//! # }
//! ```
//!
//! With a server of wharf, its connections are on the page too, by state and by the reason for which they ended:
//!
//! ```
//! # async fn hello(_: http::Request<wharf::Body>) -> Result<http::Response<wharf::Body>, wharf::BoxError> {
//! #     Ok(http::Response::default())
//! # }
//! use tower::ServiceBuilder;
//! use wharf::{Http, Server};
//! use wharf_middleware::{AccessLog, Metrics};
//!
//! let server = Server::new();
//! let log = AccessLog::json();
//! let lines = log.clone();
//! let metrics = Metrics::new()
//!     .follow(server.handle())
//!     .counter("access_log_dropped_total", "Lines that found no room.", move || lines.dropped());
//! let stack = ServiceBuilder::new()
//!     .layer(Http::new().on_refused(metrics.refused()))
//!     .layer(metrics.clone())
//!     .layer(log)
//!     .service_fn(hello);
//! # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
//! ```
//!
//! Serve the page where only you can reach it, on a listener of its own: it tells how much you have to do.
//!
//! **What is counted.** A request is counted when its response begins, by method and class of status; if that never comes, as
//! `error` (the service failed or panicked; on wharf by the status that its error gets) or as `aborted` (its client left). Its
//! duration ends with the response's body, also of one that is dropped midway. Those that the server refuses before
//! any handler are counted apart, if [`refused`](Metrics::refused) is told. Sizes are those of content: of requests
//! that declare theirs, and of all responses. What crosses the connections, heads included, is counted by the server.
//!
//! **Memory is bounded**: every label is one of few; a method that isn't one of RFC 9110's nine or `PATCH` is `other`.
//! Half a MiB in all, whatever comes.
//!
//! **Percentiles** come from histograms whose buckets are a thirty-second of a power of two apart: what is said is never below
//! the true value and at most 1/32 (3.1 %) above it, from a nanosecond to centuries. The page shows fewer buckets, whose
//! bounds are exact.
//!
//! Cost: a dozen additions to counters that threads seldom share and three readings of the clock a request; no lock, no
//! allocation.

mod counts;
#[cfg(feature = "metrics")]
mod facade;
mod histogram;
mod labels;
mod page;
mod snapshot;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use wharf::{Handle, Refused};

use crate::follow::{Ended, Follow, Followed, FollowedBody, Watch};
use counts::Counts;
use labels::Method;

pub use histogram::Distribution;
pub use labels::StatusClass;
pub use page::Page;
pub use snapshot::{ServerSnapshot, Snapshot};

/// The layer, and a handle of what it has counted: a clone is another handle. See [the module](self).
#[derive(Clone)]
#[must_use]
pub struct Metrics {
    counts: Arc<Counts>,
    server: Option<Handle>,
    more: Vec<More>,
    #[cfg(feature = "metrics")]
    facade: Option<Arc<facade::Facade>>,
}

/// A number of somebody else's, for the page.
#[derive(Clone)]
struct More {
    name: String,
    help: Cow<'static, str>,
    read: Read,
}

#[derive(Clone)]
enum Read {
    Counter(Arc<dyn Fn() -> u64 + Send + Sync>),
    Gauge(Arc<dyn Fn() -> f64 + Send + Sync>),
}

impl Metrics {
    /// Nothing is counted yet.
    pub fn new() -> Self {
        Self {
            counts: Arc::new(Counts::new()),
            server: None,
            more: Vec::new(),
            #[cfg(feature = "metrics")]
            facade: None,
        }
    }

    /// Shows what a server of wharf is doing, too. A snapshot and the page then look at each of its connections.
    pub fn follow(mut self, server: Handle) -> Self {
        self.server = Some(server);
        self
    }

    /// Shows a counter of somebody else's on the page: `read` is called for each, and must never return less than before.
    ///
    /// Characters that a name can't have become `_`; a counter's should end in `_total`. The last one of a name is shown, and none
    /// that is called as one of the layer's own.
    pub fn counter(
        self,
        name: &str,
        help: impl Into<Cow<'static, str>>,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.and(name, help.into(), Read::Counter(Arc::new(read)))
    }

    /// Shows a value of somebody else's that goes up and down, such as a queue's length or how much is stored.
    pub fn gauge(
        self,
        name: &str,
        help: impl Into<Cow<'static, str>>,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.and(name, help.into(), Read::Gauge(Arc::new(read)))
    }

    fn and(mut self, name: &str, help: Cow<'static, str>, read: Read) -> Self {
        let name = text::name(name);
        self.more.retain(|more| more.name != name);
        self.more.push(More { name, help, read });
        self
    }

    /// Counts requests with the `metrics` facade as well, under the names of the page. Whatever recorder is installed *now* is
    /// told, so install it first.
    #[cfg(feature = "metrics")]
    pub fn to_facade(mut self) -> Self {
        self.facade = Some(Arc::new(facade::Facade::register()));
        self
    }

    /// What `Http::on_refused` is to call, so that requests that no handler saw are counted too. Where the access log has to hear
    /// of them as well, call both: `move |refused| { log(refused); metrics(refused) }`.
    pub fn refused(&self) -> impl Fn(&Refused<'_>) + Send + Sync + 'static {
        let tallies = self.tallies();
        move |refused| tallies.refused(StatusClass::of(refused.status()))
    }

    fn tallies(&self) -> Tallies {
        Tallies {
            counts: self.counts.clone(),
            #[cfg(feature = "metrics")]
            facade: self.facade.clone(),
        }
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.counts, self.server.as_ref())
    }

    /// The service that shows all of it in Prometheus' text format.
    pub fn page(&self) -> Page {
        Page::new(self.clone())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = self.more.iter().map(|more| &more.name);
        f.debug_struct("Metrics")
            .field("server", &self.server)
            .field("more", &more.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Metrics {
    type Service = WithMetrics<S>;

    fn layer(&self, inner: S) -> WithMetrics<S> {
        WithMetrics {
            inner,
            tallies: self.tallies(),
        }
    }
}

/// The service that [`Metrics`] makes.
#[derive(Debug, Clone)]
pub struct WithMetrics<S> {
    inner: S,
    tallies: Tallies,
}

impl<S, B, R> Service<Request<B>> for WithMetrics<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: 'static>,
    B: Body,
    R: Body,
{
    type Response = Response<MeteredBody<R>>;
    type Error = S::Error;
    type Future = Metered<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let tally = Tally::begin(&self.tallies, &request);
        let follow = Follow::new(tally, request.method());
        Followed::new(follow, || self.inner.call(request))
    }
}

/// The future of [`WithMetrics`].
pub type Metered<F> = Followed<F, Tally>;

/// A response's body; when it ends, or is dropped, the request's duration does.
pub type MeteredBody<B> = FollowedBody<B, Tally>;

/// Who is told of a request.
#[derive(Clone)]
struct Tallies {
    counts: Arc<Counts>,
    #[cfg(feature = "metrics")]
    facade: Option<Arc<facade::Facade>>,
}

impl Tallies {
    fn refused(&self, class: StatusClass) {
        self.counts.refused(class);
        #[cfg(feature = "metrics")]
        if let Some(facade) = &self.facade {
            facade.refused(class);
        }
    }
}

impl fmt::Debug for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tallies").finish_non_exhaustive()
    }
}

/// One request under way.
#[derive(Debug)]
pub struct Tally {
    tallies: Tallies,
    start: Instant,
    method: Method,
    counted: bool,
}

impl Tally {
    fn begin<B: Body>(tallies: &Tallies, request: &Request<B>) -> Self {
        // A size that isn't declared is known when the body is read, by whoever reads it.
        let size = request.body().size_hint().exact().filter(|size| *size > 0);
        tallies.counts.begin(size);
        #[cfg(feature = "metrics")]
        if let Some(facade) = &tallies.facade {
            facade.begin(size);
        }
        Self {
            tallies: tallies.clone(),
            start: Instant::now(),
            method: Method::of(request.method()),
            counted: false,
        }
    }

    fn count(&mut self, class: StatusClass) {
        self.counted = true;
        self.tallies.counts.request(self.method, class);
        #[cfg(feature = "metrics")]
        if let Some(facade) = &self.tallies.facade {
            facade.request(self.method, class);
        }
    }
}

impl Watch for Tally {
    fn answered(&mut self, status: StatusCode) {
        self.count(StatusClass::of(status));
        let time = self.start.elapsed();
        self.tallies.counts.first_byte(time);
        #[cfg(feature = "metrics")]
        if let Some(facade) = &self.tallies.facade {
            facade.first_byte(time);
        }
    }

    fn failed(&mut self, status: Option<StatusCode>) {
        self.count(status.map_or(StatusClass::Failed, StatusClass::of));
    }

    fn ended(&mut self, how: Ended, bytes: u64) {
        if !self.counted {
            self.count(match how {
                Ended::Panicked | Ended::Error => StatusClass::Failed,
                Ended::Complete | Ended::Aborted | Ended::Refused => StatusClass::Aborted,
            });
        }
        let time = self.start.elapsed();
        self.tallies.counts.end(how, time, bytes);
        #[cfg(feature = "metrics")]
        if let Some(facade) = &self.tallies.facade {
            facade.end(how, time, bytes);
        }
    }
}
