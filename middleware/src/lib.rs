//! Tower layers for the edge: what tower and tower-http do not have.
//!
//! One layer, one file; each is generic over body types, so that it runs on wharf and under hyper and axum alike.
//!
//! - [`access_log`]: a line for each request, when its response has ended, to any writer, never in a worker's way.
//! - [`conditional`]: ETags and dates, 304 and 412; as a function and as a layer.
//! - [`decompression_guard`]: what a compressed request may become.
//! - [`detach`]: handlers that finish although their client is gone.
//! - [`from_fn`](mod@from_fn): middleware from a function, without boxing or pinning.
//! - [`health`]: readiness and liveness, from the life of the server and from checks of your own.
//! - [`keep_alive`]: for how long a connection is kept, said through the fields of the response.
//! - [`metrics`](mod@metrics): counters and percentiles of requests, connections by state and reason, a page for Prometheus.
//! - [`overload`]: an in-flight limit, fixed or found, with a short queue and a quick 503.
//! - [`range`]: parts of a representation, from memory, a file or a source of one's own.
//! - [`rate_limit`]: so many requests a client, in bounded memory and without a lock.
//! - [`sse`]: server-sent events, for one client or for thousands, that resume and never hold up who publishes.
//! - [`timed`]: where the time of a request goes, layer by layer.
//! - [`timeout`]: time-outs of the handler, of the whole exchange and of the gap between frames.
//! - [`trusted_proxies`]: the client's address behind proxies that are trusted, from `Forwarded` or `X-Forwarded-For`.
//!
//! The example `edge` has most of them in one stack, in an order that works, with the log's rotation, the probes and the page
//! for Prometheus around it. To write one of your own, read the [`guide`].

pub mod access_log;
pub mod conditional;
pub mod decompression_guard;
pub mod detach;
mod follow;
pub mod from_fn;
mod get;
pub mod guide;
pub mod health;
pub mod keep_alive;
mod maybe;
pub mod metrics;
#[cfg(test)]
mod mock;
pub mod overload;
pub mod range;
pub mod rate_limit;
mod shard;
pub mod sse;
pub mod timed;
pub mod timeout;
pub mod trusted_proxies;

pub use access_log::AccessLog;
pub use conditional::Conditional;
pub use decompression_guard::DecompressionGuard;
pub use detach::{Detach, Detached, DetachedFuture};
pub use from_fn::{Next, from_fn};
pub use health::Health;
pub use keep_alive::KeepAlive;
pub use maybe::MaybeBody;
pub use metrics::Metrics;
pub use overload::OverloadLayer;
pub use rate_limit::RateLimitLayer;
pub use timed::{Timed, Timings};
pub use timeout::{Deadline, TimedOut, Timeout};
pub use trusted_proxies::{ClientAddress, TrustedProxies};

pub use wharf::BoxError;
