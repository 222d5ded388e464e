//! The HTTP side of the store: which path means what. What a store does it does not know; what HTTP means the handlers
//! below do.
//!
//! | path | methods | |
//! |---|---|---|
//! | `/b/{bucket}/{key…}` | GET HEAD PUT DELETE | a blob |
//! | `/b/{bucket}` | GET HEAD | the blobs of a bucket, in order of their keys |
//! | `/cache/{key…}` | GET HEAD PUT DELETE | ccache's HTTP storage, any of its layouts: the bucket `cache` |
//! | `/ac/{hash}` `/cas/{hash}` | GET HEAD PUT | Bazel's HTTP cache: the buckets `ac` and `cas` |
//! | `/watch/{bucket}` | GET | what happens in a bucket, as server-sent events |
//! | `/healthz` `/readyz` `/metrics` `/openapi.json` | GET HEAD | for those who run it |

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use http::StatusCode;

use crate::store::Store;
use counts::Counts;

mod blobs;
mod buckets;
pub mod counts;
mod name;
mod openapi;
pub mod operators;
pub mod problem;
pub mod watch;

pub use problem::Problem;
pub use watch::Watches;

/// What the handlers share.
pub struct Api {
    /// Where the blobs are.
    pub store: Store,
    /// The largest blob, in bytes.
    pub largest: u64,
    /// What was found, and what was not.
    pub counts: Counts,
    /// What happens in the buckets.
    pub watches: Watches,
}

impl Api {
    /// Over a store.
    pub fn new(store: Store, largest: u64, watches: Watches) -> Self {
        let counts = Counts::default();
        Self {
            store,
            largest,
            counts,
            watches,
        }
    }
}

/// The routes of the table above, but for the last row's first three, over a store.
pub fn routes(api: Arc<Api>) -> Router {
    let blob = || get(blobs::read).put(blobs::write).delete(blobs::remove);
    Router::new()
        .route("/b/{bucket}", get(buckets::list))
        .route("/b/{bucket}/", get(buckets::list))
        .route("/b/{bucket}/{*key}", blob())
        .route("/cache/{*key}", blob())
        .route("/ac/{hash}", get(blobs::read).put(blobs::write))
        .route("/cas/{hash}", get(blobs::read).put(blobs::write))
        .route("/watch/{bucket}", get(watch::watch))
        .route("/openapi.json", get(openapi::document))
        .with_state(api)
}

/// What is answered where there is no such path, and where there is no such method.
pub fn or_explain(routes: Router) -> Router {
    routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
}

async fn nothing_here() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "nothing is served here: blobs are at /b/{bucket}/{key}, the rest is in /openapi.json",
    )
}

async fn other_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this can't be done here: see the Allow field for what can",
    )
}
