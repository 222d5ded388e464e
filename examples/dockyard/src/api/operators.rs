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

/// Adds what the store and the log count.
pub fn figures(metrics: Metrics, api: &Arc<Api>, log: &AccessLog) -> Metrics {
    let counter = |metrics: Metrics, name: &str, help, read: fn(&Api) -> u64| {
        let api = api.clone();
        metrics.counter(name, help, move || read(&api))
    };
    let gauge = |metrics: Metrics, name: &str, help, read: fn(&Api) -> f64| {
        let api = api.clone();
        metrics.gauge(name, help, move || read(&api))
    };
    let log = log.clone();
    let metrics = metrics.counter(
        "access_log_dropped_total",
        "Lines that found no room.",
        move || log.dropped(),
    );
    let metrics = counter(
        metrics,
        "dockyard_hits_total",
        "Blobs that were asked for and found.",
        |api| api.counts.now().hits,
    );
    let metrics = counter(
        metrics,
        "dockyard_misses_total",
        "Blobs that were asked for and not there.",
        |api| api.counts.now().misses,
    );
    let metrics = counter(
        metrics,
        "dockyard_received_bytes_total",
        "Bytes of blobs that came in whole.",
        |api| api.counts.now().received,
    );
    let metrics = counter(
        metrics,
        "dockyard_sent_bytes_total",
        "Bytes of blobs that went out.",
        |api| api.counts.now().sent,
    );
    let metrics = counter(
        metrics,
        "dockyard_evictions_total",
        "Blobs that made room for others.",
        |api| api.store.stats().evictions,
    );
    let metrics = counter(
        metrics,
        "dockyard_commits_total",
        "Commits of the store.",
        |api| api.store.stats().commits,
    );
    let metrics = counter(
        metrics,
        "dockyard_changes_total",
        "Changes that these made.",
        |api| api.store.stats().changes,
    );
    let metrics = gauge(metrics, "dockyard_blobs", "Blobs that are kept.", |api| {
        api.store.stats().blobs as f64
    });
    let metrics = gauge(
        metrics,
        "dockyard_bytes",
        "Bytes that they count for.",
        |api| api.store.stats().bytes as f64,
    );
    let metrics = gauge(
        metrics,
        "dockyard_queued",
        "Changes that wait for the writer.",
        |api| api.store.stats().queued as f64,
    );
    gauge(
        metrics,
        "dockyard_writable",
        "1 unless the last commit failed.",
        |api| f64::from(u8::from(api.store.trouble().is_none())),
    )
}
