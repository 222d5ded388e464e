//! For how long a connection is kept: a policy that speaks through the fields of the response.
//!
//! `Connection: close` ends the connection after a response, and the client knows not to send another request there.
//! `Keep-Alive: timeout=N` says for how long an idle connection is kept. [`KeepAlive`] sets both by rule; the container
//! obeys them, and enforces a second more than is advertised, so that a client that goes by it never sends into a
//! connection that is just being closed.
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::KeepAlive;
//!
//! async fn hello(_: Request<String>) -> Result<Response<&'static str>, Infallible> {
//!     Ok(Response::new("hello"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! # let fullness = || 0.3;
//! let app = ServiceBuilder::new()
//!     .layer(
//!         KeepAlive::new()
//!             .max_requests(1_000)
//!             .max_age(Duration::from_secs(300))
//!             .jitter(0.1)
//!             .idle(Duration::from_secs(30))
//!             // `move || handle.fullness()` of a `wharf::Handle`, say
//!             .crowded(0.9, Duration::from_secs(5), fullness),
//!     )
//!     .service(service_fn(hello));
//!
//! let response = app.oneshot(Request::new(String::new())).await?;
//! assert_eq!(response.headers()["keep-alive"], "timeout=29");
//! # Ok(())
//! # }
//! ```
//!
//! A closure decides where the rules don't reach: [`policy`](KeepAlive::policy).
//!
//! - HTTP/2 has neither field (RFC 9113 section 8.2.2). wharf takes them out of the response and obeys them: `close` becomes a
//!   `GOAWAY` behind which streams on their way are still served. Under another server nothing is said there. Nor is a
//!   connection spoken of that the client doesn't want kept: one with `Connection: close`, or HTTP/1.0 without `keep-alive`.
//! - The number of a request and the age of its connection are known on wharf, where the request still has its
//!   [`wharf::Body`], so this layer belongs outside of those that replace it. Elsewhere [`max_requests`](KeepAlive::max_requests) and
//!   [`max_age`](KeepAlive::max_age) have no effect; the server has settings of its own.
//! - Where a server doesn't obey `Keep-Alive`, it is only advertised: set the server's own time a second longer.
//!
//! Cost: no allocation, but for the map of a response that has no other field (wharf uses it again for the next request);
//! with a policy, the request's method and target are kept for it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use wharf::ConnInfo;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Balancers (AWS' and Google's among them) keep an idle connection for 60 seconds by default or less: longer than
/// that, with room for a slow clock.
const LONGER_THAN_A_BALANCER: Duration = Duration::from_secs(75);

type Policy = Arc<dyn Fn(&Facts<'_>) -> Decision + Send + Sync>;

/// The layer: the rules by which a connection is kept. See [the module](self).
#[derive(Clone, Default)]
#[must_use]
pub struct KeepAlive {
    max_requests: Option<u64>,
    max_age: Option<Duration>,
    jitter: f64,
    idle: Option<Idle>,
    crowded: Option<Crowded>,
    policy: Option<Policy>,
}

#[derive(Clone)]
struct Crowded {
    at: f32,
    idle: Idle,
    fullness: Arc<dyn Fn() -> f32 + Send + Sync>,
}

/// An idle time with the field that says so, made once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Idle {
    time: Duration,
    advertised: HeaderValue,
}

impl Idle {
    fn new(time: Duration) -> Self {
        let seconds = time.as_secs().clamp(1, u32::MAX.into()) - 1;
        let text = format!("timeout={seconds}");
        Self {
            time,
            advertised: HeaderValue::try_from(text).expect("ASCII"),
        }
    }
}

impl KeepAlive {
    /// No rule yet: the container's own settings hold.
    pub fn new() -> Self {
        Self::default()
    }

    /// Behind a balancer that closes idle connections after 60 seconds, the usual default: they are kept for 75.
    ///
    /// Whoever closes first must be the balancer. Were it the server, requests would now and then be sent into a
    /// connection that is just being closed, and fail as a 502. So don't add [`crowded`](Self::crowded) to it.
    pub fn behind_balancer() -> Self {
        Self::new().idle(LONGER_THAN_A_BALANCER)
    }

    /// The response to request number `n` of a connection is its last one.
    pub fn max_requests(mut self, n: u64) -> Self {
        self.max_requests = Some(n);
        self
    }

    /// The first response that begins when the connection is this old is its last one.
    ///
    /// With [`idle`](Self::idle), an idle connection isn't kept for longer than is left of it.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Spreads [`max_requests`](Self::max_requests) and [`max_age`](Self::max_age) by this share (0 to 1) up and down,
    /// so that connections that began together don't end together. A connection's share is always the same: it is
    /// computed from its id.
    pub fn jitter(mut self, share: f32) -> Self {
        self.jitter = if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0).into()
        };
        self
    }

    /// For how long an idle connection is kept: in whole seconds, at least one; a second less is advertised.
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = Some(Idle::new(time));
        self
    }

    /// From `at` (0 to 1) of `fullness` on, an idle connection is kept for `idle` at most.
    pub fn crowded<F>(mut self, at: f32, idle: Duration, fullness: F) -> Self
    where
        F: Fn() -> f32 + Send + Sync + 'static,
    {
        self.crowded = Some(Crowded {
            at,
            idle: Idle::new(idle),
            fullness: Arc::new(fullness),
        });
        self
    }

    /// Asks a closure about each response; it goes before the rules.
    ///
    /// ```
    /// use wharf_middleware::KeepAlive;
    /// use wharf_middleware::keep_alive::{Decision, Facts};
    ///
    /// let layer = KeepAlive::new().policy(|facts: &Facts<'_>| {
    ///     let internal = facts.connection.is_some_and(|info| &*info.listener == "internal");
    ///     if facts.status.is_client_error() && !internal {
    ///         Decision::Close
    ///     } else {
    ///         Decision::ByTheRules
    ///     }
    /// });
    /// # let _ = layer;
    /// ```
    pub fn policy<F>(mut self, decide: F) -> Self
    where
        F: Fn(&Facts<'_>) -> Decision + Send + Sync + 'static,
    {
        self.policy = Some(Arc::new(decide));
        self
    }

    /// What the rules say about a connection with this id, as old as that, at its `number`th response.
    fn by_the_rules(&self, id: u64, number: Option<u64>, age: Option<Duration>) -> Verdict {
        let factor = 1.0 + self.jitter * spread(id);
        if let (Some(most), Some(number)) = (self.max_requests, number)
            && number as f64 >= most as f64 * factor
        {
            return Verdict::Close;
        }
        let mut idle = self.idle.clone();
        if let Some(crowded) = &self.crowded
            && idle
                .as_ref()
                .is_none_or(|idle| idle.time > crowded.idle.time)
            && (crowded.fullness)() >= crowded.at
        {
            idle = Some(crowded.idle.clone());
        }
        if let (Some(most), Some(age)) = (self.max_age, age) {
            let most = Duration::try_from_secs_f64(most.as_secs_f64() * factor);
            let left = most.unwrap_or(Duration::MAX).checked_sub(age);
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                return Verdict::Close;
            };
            idle = idle.map(|idle| {
                if left < idle.time {
                    Idle::new(left)
                } else {
                    idle
                }
            });
        }
        idle.map_or(Verdict::AsItIs, Verdict::Idle)
    }
}

/// From -1 to 1, always the same for an id and as good as random over ids (the finalizer of splitmix64).
fn spread(id: u64) -> f64 {
    let mut x = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    (x >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// What is done with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Close,
    Idle(Idle),
    AsItIs,
}

impl Verdict {
    fn write(self, fields: &mut HeaderMap) {
        match self {
            Self::Close => {
                fields.remove(KEEP_ALIVE);
                fields.append(CONNECTION, HeaderValue::from_static("close"));
            }
            // What the handler advertises itself stands.
            Self::Idle(idle) if !fields.contains_key(KEEP_ALIVE) => {
                fields.insert(KEEP_ALIVE, idle.advertised);
                // It speaks of this connection only, so `Connection` has to name it (RFC 9110 section 7.6.1).
                if !names(fields, b"keep-alive") {
                    fields.append(CONNECTION, HeaderValue::from_static("keep-alive"));
                }
            }
            Self::Idle(_) | Self::AsItIs => {}
        }
    }
}

/// What a [`policy`](KeepAlive::policy) decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The layer's other rules hold.
    ByTheRules,
    /// The connection is kept, whatever the other rules say.
    Keep,
    /// The same, for so long when it is idle.
    KeepIdle(Duration),
    /// This is the connection's last response.
    Close,
}

/// What a [`policy`](KeepAlive::policy) goes by.
#[derive(Debug)]
#[non_exhaustive]
pub struct Facts<'a> {
    /// The connection, where the server is wharf.
    pub connection: Option<&'a ConnInfo>,
    /// The number of the request on its connection, from 1, where the server is wharf.
    pub request_number: Option<u64>,
    /// How old the connection is, where the server is wharf.
    pub age: Option<Duration>,
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// The request's version: HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The response's status.
    pub status: StatusCode,
    /// The response's fields.
    pub fields: &'a HeaderMap,
}

impl<S> Layer<S> for KeepAlive {
    type Service = WithKeepAlive<S>;

    fn layer(&self, inner: S) -> WithKeepAlive<S> {
        WithKeepAlive {
            inner,
            rules: Arc::new(self.clone()),
        }
    }
}

impl fmt::Debug for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepAlive")
            .field("max_requests", &self.max_requests)
            .field("max_age", &self.max_age)
            .field("jitter", &self.jitter)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// The service that [`KeepAlive`] makes.
#[derive(Debug, Clone)]
pub struct WithKeepAlive<S> {
    inner: S,
    rules: Arc<KeepAlive>,
}

impl<S, B, R> Service<Request<B>> for WithKeepAlive<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = KeepAliveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asked = wants_kept(&request).then(|| Asked::new(&self.rules, &request));
        KeepAliveFuture {
            call: self.inner.call(request),
            asked,
        }
    }
}

/// Whether the connection can be kept and the client wants it to be.
fn wants_kept<B: 'static>(request: &Request<B>) -> bool {
    let fields = request.headers();
    let wanted = match request.version() {
        Version::HTTP_11 => true,
        Version::HTTP_10 => names(fields, b"keep-alive"),
        // wharf takes the fields for itself there, and says it in frames.
        Version::HTTP_2 => ConnInfo::request_number(request).is_some(),
        _ => false,
    };
    wanted && request.method() != Method::CONNECT && !names(fields, b"close")
}

/// Whether `Connection` has this option.
fn names(fields: &HeaderMap, option: &[u8]) -> bool {
    let mut options = fields
        .get_all(CONNECTION)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
}

/// What is remembered of a request until its response.
#[derive(Debug)]
struct Asked {
    rules: Arc<KeepAlive>,
    id: u64,
    number: Option<u64>,
    since: Option<Instant>,
    for_policy: Option<ForPolicy>,
}

#[derive(Debug)]
struct ForPolicy {
    info: Option<ConnInfo>,
    method: Method,
    uri: Uri,
    version: Version,
}

impl Asked {
    fn new<B: 'static>(rules: &Arc<KeepAlive>, request: &Request<B>) -> Self {
        let info = ConnInfo::find(request);
        let needs_age = rules.max_age.is_some() || rules.policy.is_some();
        let age = needs_age.then(|| ConnInfo::age(request)).flatten();
        Self {
            rules: rules.clone(),
            id: info.map_or(0, |info| info.id),
            number: ConnInfo::request_number(request),
            since: age.and_then(|age| Instant::now().checked_sub(age)),
            for_policy: rules.policy.is_some().then(|| ForPolicy {
                info: info.cloned(),
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
            }),
        }
    }

    fn answer<R>(&self, response: &mut Response<R>) {
        // After `101` the connection speaks something else, and one that the handler closes is not kept.
        let settled = response.status().is_informational() || names(response.headers(), b"close");
        if !settled {
            let verdict = self.verdict(response.status(), response.headers());
            verdict.write(response.headers_mut());
        }
    }

    fn verdict(&self, status: StatusCode, fields: &HeaderMap) -> Verdict {
        let age = self.since.map(|since| since.elapsed());
        if let (Some(decide), Some(request)) = (&self.rules.policy, &self.for_policy) {
            let facts = Facts {
                connection: request.info.as_ref(),
                request_number: self.number,
                age,
                method: &request.method,
                uri: &request.uri,
                version: request.version,
                status,
                fields,
            };
            match decide(&facts) {
                Decision::ByTheRules => {}
                Decision::Keep => {
                    return self
                        .rules
                        .idle
                        .clone()
                        .map_or(Verdict::AsItIs, Verdict::Idle);
                }
                Decision::KeepIdle(time) => return Verdict::Idle(Idle::new(time)),
                Decision::Close => return Verdict::Close,
            }
        }
        self.rules.by_the_rules(self.id, self.number, age)
    }
}

pin_project! {
    /// The future of [`WithKeepAlive`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct KeepAliveFuture<F> {
        #[pin]
        call: F,
        // None where nothing is to be said.
        asked: Option<Asked>,
    }
}

impl<F, R, E> Future for KeepAliveFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.call.poll(cx));
        if let (Some(asked), Ok(response)) = (this.asked.take(), &mut answer) {
            asked.answer(response);
        }
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests;
