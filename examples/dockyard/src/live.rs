//! What the page shows: figures gathered from the layers, the server's handle and the store, four times a second. Nobody
//! who is watched waits for it: counters are read, never asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use wharf::{ConnReport, Handle, Phase, Refused};
use wharf_middleware::Timings;

use crate::api::counts::Counts;
use crate::store::Store;

mod frame;
mod history;
mod latency;
mod lines;
mod page;
mod phases;

pub use frame::Facts;
pub use lines::Lines;
pub use page::routes;
pub use phases::Phases;

use history::History;

/// How often the page gets a frame.
const TICK: Duration = Duration::from_millis(250);
/// Requests a connection that are told apart: 1, 2, 3 to 4, 5 to 8, and so on.
const PER_CONNECTION: usize = 12;

/// What is watched; a clone is the same.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

struct Shared {
    watched: Watched,
    tally: Arc<Tally>,
    frames: watch::Sender<Numbered>,
    history: Mutex<History>,
    viewers: AtomicUsize,
    lost: AtomicU64,
    began: Instant,
}

/// Where the figures come from.
pub struct Watched {
    /// What is served, in words.
    pub facts: Facts,
    /// The server.
    pub handle: Handle,
    /// Head, ready, answer and body.
    pub phases: Phases,
    /// The layers.
    pub timings: Timings,
    /// The access log's last lines.
    pub lines: Lines,
    /// What the API has done.
    pub counts: Counts,
    /// The blobs.
    pub store: Store,
    /// What was counted as connections ended and requests were refused.
    pub tally: Arc<Tally>,
    /// Whether the page may stop the server and close connections.
    pub controls: bool,
}

/// A frame, and which one it is.
#[derive(Clone, Default)]
struct Numbered {
    number: u64,
    event: Bytes,
}

/// What is counted as connections end and requests are refused.
#[derive(Debug, Default)]
pub struct Tally {
    per_connection: [AtomicU64; PER_CONNECTION],
    rejects: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    /// A connection has ended; for `Server::on_close`.
    pub fn closed(&self, report: &ConnReport) {
        let bucket = match report.requests {
            0 => return,
            requests => requests.next_power_of_two().trailing_zeros() as usize,
        };
        self.per_connection[bucket.min(PER_CONNECTION - 1)].fetch_add(1, Relaxed);
    }

    /// A request was refused before any handler saw it; for `Http::on_refused`.
    pub fn refused(&self, refused: &Refused<'_>) {
        *lock(&self.rejects)
            .entry(refused.reject().explain())
            .or_default() += 1;
    }
}

impl Live {
    /// Begins to watch, in a task of the runtime that this is called in.
    pub fn watch(watched: Watched) -> Self {
        let (frames, _) = watch::channel(Numbered::default());
        let tally = watched.tally.clone();
        let shared = Arc::new(Shared {
            watched,
            tally,
            frames,
            history: Mutex::default(),
            viewers: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            began: Instant::now(),
        });
        tokio::spawn(sample(shared.clone()));
        Self { shared }
    }
}

/// Looks every tick until the server has stopped. A frame is made only if somebody watches.
async fn sample(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seen = 0;
    loop {
        ticks.tick().await;
        let measured = shared.watched.phases.now();
        let now = shared.began.elapsed();
        let view = lock(&shared.history).add(now, measured);
        let stopped = shared.watched.handle.phase() == Phase::Stopped;
        if shared.viewers.load(Relaxed) > 0 || stopped {
            let (lines, count) = shared.watched.lines.since(seen);
            let event = frame::event(&shared, &view, &lines, count - seen.min(count));
            seen = count;
            shared.frames.send_modify(|frame| {
                frame.number += 1;
                frame.event = event;
            });
        } else {
            seen = shared.watched.lines.since(u64::MAX).1;
        }
        if stopped {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
