//! What the page shows: figures gathered from the layers, the server's handle and the store, four times a second. Nobody
//! who is watched waits for it: counters are read, never asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use wharf::{ConnReport, Handle, Phase, Refused};
use wharf_middleware::sse::{Hub, Lag};
use wharf_middleware::{Metrics, Timings};

use crate::api::counts::Counts;
use crate::store::Store;

mod frame;
mod history;
mod lines;
mod page;
mod phases;
mod viewer;

pub use frame::Facts;
pub use lines::Lines;
pub use page::routes;
pub use phases::Phases;

use history::{History, Sample};
use viewer::Viewers;

/// How often the page gets a frame.
const TICK: Duration = Duration::from_millis(250);
/// Requests a connection that are told apart: 1, 2, 3 to 4, 5 to 8, and so on.
const PER_CONNECTION: usize = 12;

/// Where the figures come from.
pub struct Watched {
    /// What is served, in words.
    pub facts: Facts,
    /// The server.
    pub handle: Handle,
    /// Requests and how long they took.
    pub metrics: Metrics,
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
        let mut rejects = lock(&self.rejects);
        *rejects.entry(refused.reject().explain()).or_default() += 1;
    }
}

/// What is watched, for the page; a clone is the same.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

struct Shared {
    watched: Watched,
    history: Mutex<History>,
    /// A frame takes the place of those before it: whoever is slow gets the newest.
    frames: Hub,
    viewers: Viewers,
}

impl Live {
    /// Begins to watch, in a task of the runtime that this is called in.
    pub fn watch(watched: Watched) -> Self {
        let shared = Arc::new(Shared {
            watched,
            history: Mutex::default(),
            frames: Hub::builder().lag(Lag::Coalesce).build(),
            viewers: Viewers::default(),
        });
        tokio::spawn(sample(shared.clone()));
        Self { shared }
    }
}

/// Looks every tick until the server has stopped. A frame is made only if somebody watches.
async fn sample(shared: Arc<Shared>) {
    let watched = &shared.watched;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut number, mut seen) = (0, 0);
    while watched.handle.phase() < Phase::Stopped {
        ticks.tick().await;
        let counted = watched.metrics.snapshot();
        let sums = watched.phases.now();
        let sample = Sample {
            counted: counted.clone(),
            sums: sums.clone(),
            layers: watched.timings.snapshot().layers,
        };
        let view = lock(&shared.history).add(sample);
        let (lines, count) = watched.lines.since(seen);
        if shared.viewers.pages() > 0 {
            number += 1;
            let figures = frame::Figures {
                number,
                counted: &counted,
                sums: &sums,
                view: &view,
                lines: &lines,
                new_lines: count - seen,
            };
            shared.frames.publish(frame::event(&shared, &figures));
        }
        seen = count;
    }
    shared.frames.close();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
