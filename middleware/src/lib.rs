//! Tower layers for the edge: what tower and tower-http do not have.
//!
//! One layer, one file; each is generic over body types, so that it runs on wharf and under hyper and axum alike.
//!
//! - [`from_fn`](mod@from_fn): middleware from a function, without boxing or pinning.
//! - [`overload`]: an in-flight limit, fixed or found, with a short queue and a quick 503.
//! - [`rate_limit`]: so many requests a client, in bounded memory and without a lock.

pub mod from_fn;
pub mod overload;
pub mod rate_limit;

pub use from_fn::{Next, from_fn};
pub use overload::OverloadLayer;
pub use rate_limit::RateLimitLayer;
