//! What happens in a bucket, as server-sent events: `put`, `deleted` and `evicted`. Each bucket has a ring of its newest
//! events, so that whoever comes back with `Last-Event-ID` gets what it has missed, or is told that it can't.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;
use wharf_middleware::sse::{Event, Hub};

use super::Api;
use super::name::Bucket;
use crate::store::{Change, Changes, What};

/// Buckets that have a ring; of more, those go that nobody listens to.
const BUCKETS: usize = 256;
/// Events of a ring.
const EVENTS: usize = 1024;
/// Their bytes.
const BYTES: usize = 256 * 1024;

/// The rings of all buckets; a clone is the same.
#[derive(Clone, Default)]
pub struct Watches {
    hubs: Arc<Mutex<HashMap<String, Hub>>>,
}

impl Watches {
    /// Of what a store tells.
    pub fn of(changes: &Changes) -> Self {
        let watches = Self::default();
        let told = watches.clone();
        changes.listen(move |change| told.publish(&change));
        watches
    }

    fn publish(&self, change: &Change) {
        let key = change.key.key();
        let (name, data) = match change.what {
            What::Put { size, digest } => (
                "put",
                json!({ "key": key, "size": size, "etag": digest.etag() }),
            ),
            What::Deleted => ("deleted", json!({ "key": key })),
            What::Evicted => ("evicted", json!({ "key": key })),
        };
        let event = Event::new(data.to_string()).name(name);
        let event = event.expect("a name of one line");
        self.hub(change.key.bucket()).publish(event);
    }

    fn hub(&self, bucket: &str) -> Hub {
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        if hubs.len() >= BUCKETS && !hubs.contains_key(bucket) {
            hubs.retain(|_, hub| hub.subscribers() > 0);
        }
        if let Some(hub) = hubs.get(bucket) {
            return hub.clone();
        }
        let hub = Hub::builder().events(EVENTS).bytes(BYTES).build();
        // Where all have listeners, a further one has a ring for itself, without a past.
        if hubs.len() < BUCKETS {
            hubs.insert(bucket.to_owned(), hub.clone());
        }
        hub
    }
}

pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    Bucket(bucket): Bucket,
    request: Request,
) -> Response {
    api.watches.hub(&bucket).answer(&request).map(Body::new)
}
