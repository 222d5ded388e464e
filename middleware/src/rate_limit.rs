//! Rate limit: so many requests a client in so much time, and 429 for what is more.
//!
//! A client is who the request's key says, by default its IP address ([`ClientIp`]: behind proxies, what
//! [`TrustedProxies`](crate::TrustedProxies) around this layer says); each has a budget that fills up evenly (GCRA, the
//! *generic cell rate algorithm*: a leaky bucket that is remembered as one time). All responses tell what is left of it in
//! `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11), a 429 says `Retry-After`.
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::RateLimitLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let by_token = RateLimitLayer::new(2, Duration::from_secs(60))
//!     .by_key(|request: &Request<()>| request.headers().get("x-token").cloned());
//! let mut app = ServiceBuilder::new()
//!     .layer(by_token)
//!     .service(service_fn(async |_| Ok::<_, Infallible>(Response::new(String::new()))));
//!
//! let request = || Request::get("/").header("x-token", "a").body(()).unwrap();
//! let first = app.ready().await?.call(request()).await?;
//! assert_eq!(first.headers()["ratelimit-policy"], r#""default";q=2;w=60"#);
//! assert_eq!(first.headers()["ratelimit"], r#""default";r=1;t=30"#);
//! app.ready().await?.call(request()).await?;
//!
//! let third = app.ready().await?.call(request()).await?;
//! assert_eq!(third.status(), 429);
//! assert_eq!(third.headers()["retry-after"], "30");
//! # Ok(())
//! # }
//! ```
//!
//! **Memory** is bounded: twelve bytes for each of the keys there is room for, a million by default, allocated page by
//! page as they are touched. Nothing sweeps it. A key whose budget is full again is as good as forgotten, and its slot is
//! taken by the next one. Only if more keys than that are busy at the same time, the one that has used least is
//! forgotten too: it gets a fresh budget. So somebody who comes from very many addresses can buy others more, never less.
//!
//! **No lock, no allocation** to decide. The values of the fields are made once and shared, for bursts below 1,024;
//! for larger ones `RateLimit` is made anew each time. [`without_fields`](RateLimitLayer::without_fields) leaves them out.
//!
//! The budgets belong to the layer: every service made by it or by its clones shares them.

mod key;
mod table;

use std::fmt;
use std::hash::{Hash, RandomState};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

pub use key::{ClientIp, Key};
use table::{TICKS, Table, Verdict};

/// For how many keys there is room by default.
const KEYS: usize = 1_000_000;

/// Values of `RateLimit` that are kept; there is one for each number of remaining requests.
const KEPT_FIELDS: u64 = 1_024;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Answers with 429 whoever asks more often than the rate.
#[derive(Clone)]
#[must_use]
pub struct RateLimitLayer<K = ClientIp> {
    settings: Settings,
    key: K,
    limiter: Arc<Limiter>,
}

#[derive(Debug, Clone)]
struct Settings {
    interval: Duration,
    burst: u64,
    keys: usize,
    name: &'static str,
    fields: bool,
}

impl RateLimitLayer {
    /// At most `requests` at once, and on average no more than that in `time`, for each client address.
    ///
    /// Rates above a million a second are taken as a million, and zero requests as one.
    pub fn new(requests: u32, time: Duration) -> Self {
        let requests = requests.max(1);
        let settings = Settings {
            interval: (time / requests)
                .clamp(Duration::from_micros(1), Duration::from_secs(86_400)),
            burst: u64::from(requests),
            keys: KEYS,
            name: "default",
            fields: true,
        };
        Self {
            limiter: Arc::new(Limiter::new(&settings)),
            settings,
            key: ClientIp,
        }
    }
}

impl<K> RateLimitLayer<K> {
    /// How many may come at once, if not as many as in the whole time. At most 16 million.
    pub fn burst(mut self, requests: u32) -> Self {
        self.settings.burst = u64::from(requests.max(1));
        self.renewed()
    }

    /// For how many busy keys there is room; each takes twelve bytes. Default a million.
    pub fn room_for(mut self, keys: usize) -> Self {
        self.settings.keys = keys.max(1);
        self.renewed()
    }

    /// The policy's name in the fields: letters, digits, `-`, `_` and `.`; others are left out. Default `default`.
    pub fn name(mut self, name: &'static str) -> Self {
        self.settings.name = name;
        self.renewed()
    }

    /// Leaves `RateLimit` and `RateLimit-Policy` out of the responses.
    pub fn without_fields(mut self) -> Self {
        self.settings.fields = false;
        self.renewed()
    }

    /// Tells clients apart by what `key` returns; requests for which that is `None` are not limited.
    pub fn by_key<F, B, T>(self, key: F) -> RateLimitLayer<F>
    where
        F: Fn(&Request<B>) -> Option<T>,
        T: Hash,
    {
        RateLimitLayer {
            settings: self.settings,
            key,
            limiter: self.limiter,
        }
        .renewed()
    }

    /// With budgets that follow the settings: nobody has used them yet.
    fn renewed(mut self) -> Self {
        self.limiter = Arc::new(Limiter::new(&self.settings));
        self
    }
}

impl<S, K: Clone> Layer<S> for RateLimitLayer<K> {
    type Service = RateLimit<S, K>;

    fn layer(&self, inner: S) -> RateLimit<S, K> {
        RateLimit {
            inner,
            key: self.key.clone(),
            limiter: self.limiter.clone(),
        }
    }
}

impl<K> fmt::Debug for RateLimitLayer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What all services of one layer share.
struct Limiter {
    table: Table,
    /// Secret, so that nobody can choose keys that meet in one place.
    hasher: RandomState,
    start: Instant,
    interval: Duration,
    /// Ticks in 2^64 nanoseconds.
    tick_rate: u128,
    burst: u64,
    fields: Option<Fields>,
}

impl Limiter {
    fn new(settings: &Settings) -> Self {
        let burst = settings.burst.min(table::MOST_BURST);
        Self {
            table: Table::new(settings.keys, burst),
            hasher: RandomState::new(),
            start: Instant::now(),
            interval: settings.interval,
            tick_rate: (u128::from(TICKS) << 64) / settings.interval.as_nanos(),
            burst,
            fields: settings
                .fields
                .then(|| Fields::new(settings.name, burst, settings.interval)),
        }
    }

    fn count(&self, hash: u64) -> Verdict {
        let nanos = self.start.elapsed().as_nanos() as u64;
        let now = (u128::from(nanos) * self.tick_rate) >> 64;
        self.table.count(hash, now as u64)
    }

    /// In whole seconds, rounded up.
    fn seconds(&self, ticks: u64) -> u64 {
        seconds_up(self.interval.as_nanos() * u128::from(ticks) / u128::from(TICKS))
    }

    fn mark<B>(&self, response: &mut Response<B>, remaining: u64) {
        let Some(fields) = &self.fields else { return };
        let headers = response.headers_mut();
        // Another limit may have spoken already: both fields are lists.
        headers.append(RATE_LIMIT_POLICY, fields.policy.clone());
        headers.append(
            RATE_LIMIT,
            fields.limit(remaining, self.burst, self.interval),
        );
    }

    fn refusal<B: Default>(&self, ticks: u64) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let after = match self.seconds(ticks) {
            0 | 1 => HeaderValue::from_static("1"),
            seconds => HeaderValue::from(seconds),
        };
        response.headers_mut().insert(header::RETRY_AFTER, after);
        self.mark(&mut response, 0);
        response
    }
}

/// The fields that tell a client where it stands.
struct Fields {
    name: String,
    policy: HeaderValue,
    /// By remaining requests.
    limits: Box<[OnceLock<HeaderValue>]>,
}

impl Fields {
    fn new(name: &str, burst: u64, interval: Duration) -> Self {
        let plain = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
        let name: String = name.chars().filter(plain).take(64).collect();
        let window = seconds_up(interval.as_nanos() * u128::from(burst));
        let policy = value(format!("\"{name}\";q={burst};w={window}"));
        let kept = if burst < KEPT_FIELDS { burst + 1 } else { 0 };
        Self {
            name,
            policy,
            limits: (0..kept).map(|_| OnceLock::new()).collect(),
        }
    }

    /// What remains, and in how many seconds it will be all again.
    fn limit(&self, remaining: u64, burst: u64, interval: Duration) -> HeaderValue {
        let make = || {
            let used = burst.saturating_sub(remaining);
            let full = seconds_up(interval.as_nanos() * u128::from(used));
            value(format!("\"{}\";r={remaining};t={full}", self.name))
        };
        match self.limits.get(remaining as usize) {
            Some(kept) => kept.get_or_init(make).clone(),
            None => make(),
        }
    }
}

/// A field of plain ASCII, as all that are made here.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

fn seconds_up(nanos: u128) -> u64 {
    u64::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
}

/// The service that [`RateLimitLayer`] makes.
#[derive(Clone)]
pub struct RateLimit<S, K = ClientIp> {
    inner: S,
    key: K,
    limiter: Arc<Limiter>,
}

impl<S, K, B, R> Service<Request<B>> for RateLimit<S, K>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    K: Key<B>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Limited<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Limited<S::Future> {
        let verdict = self
            .key
            .hash(&request, &self.limiter.hasher)
            .map(|hash| self.limiter.count(hash));
        match verdict {
            Some(Verdict::Beyond { ticks }) => {
                // What the inner service reserved is given back: this request has no use for it.
                let clone = self.inner.clone();
                drop(std::mem::replace(&mut self.inner, clone));
                Limited {
                    stage: Stage::Refused {
                        limiter: self.limiter.clone(),
                        ticks,
                    },
                }
            }
            Some(Verdict::Within { remaining }) => Limited {
                stage: Stage::Called {
                    call: self.inner.call(request),
                    mark: Some((self.limiter.clone(), remaining)),
                },
            },
            None => Limited {
                stage: Stage::Called {
                    call: self.inner.call(request),
                    mark: None,
                },
            },
        }
    }
}

impl<S: fmt::Debug, K> fmt::Debug for RateLimit<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`RateLimit`].
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Limited<F> {
        #[pin]
        stage: Stage<F>,
    }
}

pin_project! {
    #[project = Project]
    enum Stage<F> {
        Refused {
            limiter: Arc<Limiter>,
            ticks: u64,
        },
        Called {
            #[pin]
            call: F,
            mark: Option<(Arc<Limiter>, u64)>,
        },
    }
}

impl<F, R, E> Future for Limited<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().stage.project() {
            Project::Refused { limiter, ticks } => Poll::Ready(Ok(limiter.refusal(*ticks))),
            Project::Called { call, mark } => {
                let mut result = ready!(call.poll(cx));
                if let (Ok(response), Some((limiter, remaining))) = (&mut result, mark) {
                    limiter.mark(response, *remaining);
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<F> fmt::Debug for Limited<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
