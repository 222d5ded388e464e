//! A frame of the page: the figures of one moment as JSON, made once for all who watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use wharf::{ConnView, Phase, State};
use wharf_middleware::metrics::Snapshot;
use wharf_middleware::sse::Event;

use super::history::{Column, Part, View, errors};
use super::phases::{DEPTHS, Sums};
use super::{PER_CONNECTION, Shared, lock};

/// Connections that a frame shows.
const CONNECTIONS: usize = 60;

/// What doesn't change, in words.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// Where it listens.
    pub listening: Vec<String>,
    /// Which certificate is shown, a line or two; none without TLS.
    pub certificate: Vec<String>,
    /// Where the blobs are.
    pub store: String,
    /// The stack, from socket to handler: a name and what it does.
    pub layers: Vec<(String, String)>,
    /// Commands to try.
    pub tries: [String; 3],
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
    /// They count up: a page that sees a gap has missed some.
    number: u64,
    up: u64,
    phase: &'static str,
    /// Pages that watch, and the connections that carry them.
    viewers: usize,
    watching: usize,
    /// Frames that slow viewers did without, all viewers and all time.
    lost: u64,
    rate: f64,
    /// p50, p99 and p99.9 of the last ten seconds, in microseconds.
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
    time: &'a [Part],
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
    depths: [u64; DEPTHS],
    closes: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
pub(super) struct Connection {
    id: u64,
    peer: String,
    listener: String,
    protocol: String,
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
            protocol: protocol(view),
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

/// In the words of ALPN, and the version of TLS below it.
fn protocol(view: &ConnView) -> String {
    let http = if view.is_http2 { "h2" } else { "http/1.1" };
    match &view.info.tls {
        Some(tls) => format!("{http}, {}", tls.version),
        None if view.state == State::BeforeHttp => "not known yet".to_owned(),
        None => http.to_owned(),
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

/// What a frame is made of.
pub(super) struct Figures<'a> {
    pub(super) number: u64,
    pub(super) counted: &'a Snapshot,
    pub(super) sums: &'a Sums,
    pub(super) view: &'a View,
    /// The last lines of the access log, as far as they are kept.
    pub(super) lines: &'a [Arc<RawValue>],
    /// How many there were since the frame before.
    pub(super) new_lines: u64,
}

/// The first event: what there was before the viewer came.
pub(super) fn hello(shared: &Shared, controls: Option<&str>) -> Bytes {
    let columns = lock(&shared.history).columns();
    let (lines, _) = shared.watched.lines.since(0);
    let hello = Hello {
        facts: &shared.watched.facts,
        columns,
        lines: &lines,
        controls,
    };
    named("hello", &hello).into_bytes()
}

/// How it is now.
pub(super) fn event(shared: &Shared, figures: &Figures<'_>) -> Event {
    let watched = &shared.watched;
    let (view, sums) = (figures.view, figures.sums);
    let report = watched.handle.report();
    let states = watched.handle.counts().into_iter();
    let per_connection = &watched.tally.per_connection;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let frame = Frame {
        number: figures.number,
        up: millis(figures.counted.span()),
        phase: phase(watched.handle.phase()),
        viewers: shared.viewers.pages(),
        watching: shared.viewers.connections(),
        lost: shared.frames.missed(),
        rate: view.rate,
        quantiles: [0.5, 0.99, 0.999].map(|share| view.window.duration(share).map(micros)),
        errors: view.errors,
        errors_all: errors(figures.counted),
        running: figures.counted.in_flight(),
        column: view.column.as_ref(),
        open: watched.handle.open(),
        max: watched.handle.max_connections(),
        states: states
            .map(|(state, count)| (state.to_string(), count))
            .collect(),
        keep: Keep {
            requests: figures.counted.requests(),
            connections: report.connections,
            per_connection: std::array::from_fn(|at| per_connection[at].load(Relaxed)),
            depths: sums.depths,
            closes: report.closed,
        },
        time: &view.parts,
        rejects: lock(&watched.tally.rejects).clone(),
        lines: figures.lines,
        lines_skipped: figures.new_lines.saturating_sub(figures.lines.len() as u64),
        connections: connections(watched.handle.connections()),
        store: store(shared),
    };
    named("frame", &frame)
}

fn named(name: &str, data: &impl Serialize) -> Event {
    let data = serde_json::to_string(data).unwrap_or_default();
    Event::new(data).name(name).expect("a name of one line")
}

/// The busy ones first, then those that came last.
fn connections(mut views: Vec<ConnView>) -> Vec<Connection> {
    views.sort_by_key(|view| (view.state == State::Idle, std::cmp::Reverse(view.info.id)));
    views
        .iter()
        .take(CONNECTIONS)
        .map(Connection::from)
        .collect()
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
