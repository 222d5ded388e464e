//! A frame of the page: the figures of one moment as JSON, made once for all who watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use wharf::{ConnView, Phase};
use wharf_middleware::timed::Share;

use super::history::{Column, View};
use super::{PER_CONNECTION, Shared, lock};

/// Connections that a frame shows.
const CONNECTIONS: usize = 60;
/// Lines that a frame shows.
const LINES: usize = 60;

/// What doesn't change, in words.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Where it listens.
    pub listening: Vec<String>,
    /// Where the blobs are.
    pub store: String,
    /// The stack, from socket to handler: a name and what it does.
    pub layers: Vec<(String, String)>,
    /// The version of dockyard.
    pub version: &'static str,
}

#[derive(Serialize)]
struct Hello<'a> {
    facts: &'a Facts,
    columns: Vec<Column>,
    lines: &'a [Arc<RawValue>],
    controls: Option<&'a str>,
}

#[derive(Serialize)]
struct Frame<'a> {
    up: u64,
    phase: &'static str,
    viewers: usize,
    /// Frames that slow viewers did without, all viewers and all time.
    lost: u64,
    rate: f64,
    quantiles: [Option<f64>; 3],
    /// Client errors, server errors and broken responses: a second, and in all.
    errors: [f64; 3],
    errors_all: [u64; 3],
    running: u64,
    column: Option<&'a Column>,
    open: usize,
    max: usize,
    states: BTreeMap<String, usize>,
    keep: Keep,
    time: Vec<Part>,
    rejects: BTreeMap<&'static str, u64>,
    lines: &'a [Arc<RawValue>],
    lines_skipped: u64,
    connections: Vec<Connection>,
    store: StoreFigures,
}

#[derive(Serialize)]
struct Keep {
    requests: u64,
    connections: u64,
    per_connection: [u64; PER_CONNECTION],
    depths: [u64; super::phases::DEPTHS],
    closes: BTreeMap<&'static str, u64>,
}

/// What a part of a request's way took, of all requests in the last ten seconds or since the start.
#[derive(Serialize)]
struct Part {
    name: String,
    micros: f64,
}

#[derive(Serialize)]
pub(super) struct Connection {
    id: u64,
    peer: String,
    listener: String,
    age: u64,
    requests: u64,
    bytes_in: u64,
    bytes_out: u64,
    state: String,
    in_state: u64,
    request: Option<String>,
}

impl From<&ConnView> for Connection {
    fn from(view: &ConnView) -> Self {
        let client = view
            .info
            .proxy
            .as_ref()
            .map(|_| " by PROXY")
            .unwrap_or_default();
        Self {
            id: view.info.id,
            peer: format!("{}{client}", view.info.peer),
            listener: view.info.local.to_string(),
            age: millis(view.age),
            requests: view.requests,
            bytes_in: view.bytes_in,
            bytes_out: view.bytes_out,
            state: view.state.to_string(),
            in_state: millis(view.in_state),
            request: view.request.as_ref().map(ToString::to_string),
        }
    }
}

#[derive(Serialize)]
struct StoreFigures {
    hits: u64,
    misses: u64,
    received: u64,
    sent: u64,
    blobs: u64,
    bytes: u64,
    budget: u64,
    evictions: u64,
    queued: usize,
    queue: usize,
    commits: u64,
    changes: u64,
    largest_commit: u64,
    last_commit: f64,
    trouble: Option<String>,
}

/// The first event: what there was before the viewer came.
pub(super) fn hello(shared: &Shared, controls: Option<&str>) -> Bytes {
    let columns = lock(&shared.history).columns();
    let (lines, _) = shared.watched.lines.since(0);
    sse(
        "hello",
        &Hello {
            facts: &shared.watched.facts,
            columns,
            lines: &lines,
            controls,
        },
    )
}

/// How it is now.
pub(super) fn event(shared: &Shared, view: &View, lines: &[Arc<RawValue>], new: u64) -> Bytes {
    let watched = &shared.watched;
    let report = watched.handle.report();
    let now = &view.now;
    let shown = &lines[lines.len().saturating_sub(LINES)..];
    let states = watched.handle.counts().into_iter();
    let open = watched.handle.open();
    let per_connection = &shared.tally.per_connection;
    sse(
        "frame",
        &Frame {
            up: millis(shared.began.elapsed()),
            phase: phase(watched.handle.phase()),
            viewers: shared.viewers.load(Relaxed),
            lost: shared.lost.load(Relaxed),
            rate: view.rate,
            quantiles: view.quantiles,
            errors: view.errors,
            errors_all: [now.client_errors, now.server_errors, now.broken_off],
            running: now.running,
            column: view.column.as_ref(),
            open,
            max: watched.handle.max_connections(),
            states: states
                .map(|(state, count)| (state.to_string(), count))
                .collect(),
            keep: Keep {
                requests: now.requests,
                connections: report.connections,
                per_connection: std::array::from_fn(|at| per_connection[at].load(Relaxed)),
                depths: now.depths,
                closes: report.closed,
            },
            time: parts(view, &watched.timings.snapshot().layers),
            rejects: lock(&shared.tally.rejects).clone(),
            lines: shown,
            lines_skipped: new.saturating_sub(shown.len() as u64),
            connections: connections(watched.handle.connections()),
            store: store(shared),
        },
    )
}

/// The busy ones first, then those that came last.
fn connections(mut views: Vec<ConnView>) -> Vec<Connection> {
    views.sort_by_key(|view| {
        (
            view.state == wharf::State::Idle,
            std::cmp::Reverse(view.info.id),
        )
    });
    views
        .iter()
        .take(CONNECTIONS)
        .map(Connection::from)
        .collect()
}

/// Head, ready, each layer's own time, what is inside of them, and the body: of one request, on average.
fn parts(view: &View, layers: &[Share]) -> Vec<Part> {
    let [head, ready, answer, body] = view
        .times
        .map(|time| time.as_secs_f64() * 1e6 / view.requests.max(1) as f64);
    let own = |layer: &Share| layer.own.as_secs_f64() * 1e6 / layer.calls.max(1) as f64;
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| (layer.name.to_string(), own(layer)))
        .collect();
    let handler = answer - layers.iter().map(|(_, micros)| micros).sum::<f64>();
    let fixed = |name: &str, micros: f64| (name.to_owned(), micros.max(0.0));
    let parts = [fixed("head", head), fixed("ready", ready)].into_iter();
    let parts = parts
        .chain(layers)
        .chain([fixed("handler", handler), fixed("body", body)]);
    parts.map(|(name, micros)| Part { name, micros }).collect()
}

fn store(shared: &Shared) -> StoreFigures {
    let counted = shared.watched.counts.now();
    let stats = shared.watched.store.stats();
    StoreFigures {
        hits: counted.hits,
        misses: counted.misses,
        received: counted.received,
        sent: counted.sent,
        blobs: stats.blobs,
        bytes: stats.bytes,
        budget: stats.budget,
        evictions: stats.evictions,
        queued: stats.queued,
        queue: stats.queue,
        commits: stats.commits,
        changes: stats.changes,
        largest_commit: stats.largest_commit,
        last_commit: stats.last_commit.as_secs_f64() * 1e6,
        trouble: shared.watched.store.trouble(),
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::LameDuck => "lame duck",
        Phase::Draining => "draining",
        _ => "stopped",
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// JSON has no line ends outside of strings when it is written like this, so one `data` line will do.
fn sse(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|error| format!("\"{error}\""));
    format!("event: {name}\ndata: {data}\n\n").into()
}
