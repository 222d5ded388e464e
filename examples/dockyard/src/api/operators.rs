//! What those ask for who run it: is it alive, is it ready, what does it count.

use std::sync::Arc;

use axum::Router;
use wharf_middleware::{AccessLog, Health, Metrics};

use super::Api;

/// `/healthz`, `/readyz` and `/metrics`.
pub fn routes(health: &Health, metrics: &Metrics) -> Router {
    Router::new()
        .route_service("/healthz", health.liveness())
        .route_service("/readyz", health.readiness())
        .route_service("/metrics", metrics.page())
}

type Counter = (&'static str, &'static str, fn(&Api) -> u64);
type Gauge = (&'static str, &'static str, fn(&Api) -> f64);

#[rustfmt::skip]
const COUNTERS: [Counter; 7] = [
    ("dockyard_hits_total", "Blobs that were asked for and found.", |api| api.counts.now().hits),
    ("dockyard_misses_total", "Blobs that were asked for and not there.", |api| api.counts.now().misses),
    ("dockyard_received_bytes_total", "Bytes of blobs that came in whole.", |api| api.counts.now().received),
    ("dockyard_sent_bytes_total", "Bytes of blobs that went out.", |api| api.counts.now().sent),
    ("dockyard_evictions_total", "Blobs that made room for others.", |api| api.store.stats().evictions),
    ("dockyard_commits_total", "Commits of the store.", |api| api.store.stats().commits),
    ("dockyard_changes_total", "Changes that these made.", |api| api.store.stats().changes),
];

#[rustfmt::skip]
const GAUGES: [Gauge; 4] = [
    ("dockyard_blobs", "Blobs that are kept.", |api| api.store.stats().blobs as f64),
    ("dockyard_bytes", "Bytes that they count for.", |api| api.store.stats().bytes as f64),
    ("dockyard_queued", "Changes that wait for the writer.", |api| api.store.stats().queued as f64),
    ("dockyard_writable", "1 unless the last commit failed.", |api| f64::from(u8::from(api.store.trouble().is_none()))),
];

/// Adds what the store and the log count.
pub fn figures(metrics: Metrics, api: &Arc<Api>, log: &AccessLog) -> Metrics {
    let log = log.clone();
    let dropped = "Lines that found no room.";
    let mut metrics = metrics.counter("access_log_dropped_total", dropped, move || log.dropped());
    for (name, help, read) in COUNTERS {
        let api = api.clone();
        metrics = metrics.counter(name, help, move || read(&api));
    }
    for (name, help, read) in GAUGES {
        let api = api.clone();
        metrics = metrics.gauge(name, help, move || read(&api));
    }
    metrics
}
