//! What is open: each connection from its accept to its one report. The table is locked when a connection opens and
//! closes, when all are told something, and when somebody looks; never per request.

mod count;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::count::Count;
use super::handle::{ConnView, Phase, Traffic};
use crate::conn::{By, CloseReason, Conn, ConnInfo, ConnReport, Live, State, Told};
use crate::error::BoxError;
use crate::shutdown::{Oldest, Report};

pub(super) type OnClose = Box<dyn Fn(&ConnReport) + Send + Sync>;

/// The open connections of one server.
#[derive(Default)]
pub(super) struct Open {
    table: Mutex<Table>,
    count: Count,
    max: AtomicUsize,
    phase: AtomicU8,
    last_id: AtomicU64,
    /// Somebody with a handle wants the server to stop.
    stop: Notify,
    on_close: OnceLock<OnClose>,
}

#[derive(Default)]
struct Table {
    connections: HashMap<u64, Entry>,
    /// The longest idle when that was last looked up, the oldest first. Whoever became idle later is younger, so as
    /// long as one of these is still idle it is the oldest of all.
    oldest_idle: VecDeque<(u64, Instant)>,
    /// When none was idle.
    none_idle: Option<Instant>,
    /// What was said to all, and is said to whoever comes later.
    told: Told,
    report: Report,
}

struct Entry {
    live: Arc<Live>,
    /// The facts at accept, for a connection that ends before its service has settled on them.
    info: ConnInfo,
}

/// Idle for less isn't idle: its next request, or the first of a connection that has just come, may be on its way.
const SETTLED: Duration = Duration::from_secs(1);
/// When all are busy they are not searched again for so long.
const SEARCH_AGAIN: Duration = Duration::from_millis(20);
/// How many of the longest idle are looked up at once, so that the search through all is shared by many accepts.
const IDLE_AT_ONCE: usize = 256;

impl Open {
    /// The server begins to serve.
    pub(super) fn begin(&self, max: usize, on_close: Option<OnClose>) {
        self.max.store(max, Relaxed);
        if let Some(on_close) = on_close {
            let _ = self.on_close.set(on_close);
        }
        self.enter_phase(Phase::Serving);
    }

    pub(super) fn enter_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        let phase = Phase::ALL.get(usize::from(self.phase.load(Relaxed)));
        phase.copied().unwrap_or(Phase::Stopped)
    }

    pub(super) fn count(&self) -> usize {
        self.count.now()
    }

    pub(super) fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Nine tenths of the places are taken, so that it is time to make room.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.count() > self.max() - self.max() / 10
    }

    /// The id of the next connection, from 1.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }

    /// A connection could not be accepted.
    pub(super) fn count_accept_error(&self) {
        self.lock().report.accept_errors += 1;
    }

    /// Enters a connection.
    pub(super) fn enter<Io>(self: &Arc<Self>, conn: &Conn<Io>) -> Ticket {
        let live = conn.live().clone();
        let info = conn.info().clone();
        let id = info.id;
        let mut table = self.lock();
        if table.told > Told::Nothing {
            live.tell(table.told, By::Shutdown);
        }
        table.report.connections += 1;
        let entry = Entry {
            live: live.clone(),
            info,
        };
        table.connections.insert(id, entry);
        self.count.set(table.connections.len());
        drop(table);
        Ticket {
            id,
            live,
            open: Some(self.clone()),
        }
    }

    /// Tells all, and all that come.
    pub(super) fn tell(&self, told: Told) {
        let mut table = self.lock();
        table.told = told;
        let all = table.all();
        // A waker may run anything, even what closes a connection.
        drop(table);
        for live in all {
            live.tell(told, By::Shutdown);
        }
    }

    /// Tells one; `false`: it isn't open.
    pub(super) fn tell_one(&self, id: u64, told: Told) -> bool {
        let live = self.lock().connections.get(&id).map(|one| one.live.clone());
        let is_open = live.is_some();
        if let Some(live) = live {
            live.tell(told, By::Operator);
        }
        is_open
    }

    /// Closes the connection that has been idle for longest; `false`: none is idle.
    pub(super) fn evict(&self) -> bool {
        let oldest = self.lock().oldest_idle();
        let found = oldest.is_some();
        if let Some(live) = oldest {
            live.tell(Told::Drain, By::Room);
        }
        found
    }

    /// Asks the server to stop.
    pub(super) fn ask_to_stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until somebody asks for that.
    pub(super) async fn stop_asked(self: Arc<Self>) {
        self.stop.notified().await;
    }

    /// Waits until another connection has closed after this was called.
    pub(super) async fn closed(&self) {
        self.count.closed().await;
    }

    /// Waits until none is open.
    pub(super) async fn emptied(&self) {
        self.count.emptied().await;
    }

    /// How many are open, and the one that is open for longest.
    pub(super) fn oldest(&self) -> (usize, Option<Oldest>) {
        let table = self.lock();
        let entries = table.connections.values();
        let oldest = entries.min_by_key(|entry| entry.live.since());
        let oldest = oldest.map(|entry| Oldest {
            peer: entry.info().peer.clone(),
            age: entry.live.since().elapsed(),
            requests: entry.live.requests(),
            state: entry.live.state(),
            request: entry.live.request(),
        });
        (table.connections.len(), oldest)
    }

    /// All that are open, in the order in which they were accepted.
    pub(super) fn views(&self) -> Vec<ConnView> {
        let table = self.lock();
        let mut views: Vec<_> = table.connections.values().map(Entry::view).collect();
        drop(table);
        views.sort_unstable_by_key(|view| view.info.id);
        views
    }

    /// The states of all that are open.
    pub(super) fn states(&self) -> Vec<State> {
        let all = self.lock().all();
        all.iter().map(|live| live.state()).collect()
    }

    /// What has crossed all connections. Under one lock, so that one which closes is counted once.
    pub(super) fn traffic(&self) -> Traffic {
        let table = self.lock();
        let mut traffic = Traffic {
            connections: table.report.connections,
            requests: table.report.requests,
            bytes_in: table.report.bytes_in,
            bytes_out: table.report.bytes_out,
        };
        for entry in table.connections.values() {
            let (bytes_in, bytes_out) = entry.live.bytes();
            traffic.requests += entry.live.requests();
            traffic.bytes_in += bytes_in;
            traffic.bytes_out += bytes_out;
        }
        traffic
    }

    /// The account of all that have closed.
    pub(super) fn so_far(&self) -> Report {
        self.lock().report.clone()
    }

    /// The account of all; what is still open counts as cut.
    pub(super) fn report(&self) -> Report {
        let mut table = self.lock();
        let left: Vec<_> = table.connections.drain().map(|(_, entry)| entry).collect();
        self.count.set(0);
        for entry in left {
            let report = entry.report(CloseReason::Cut);
            table.report.add(&report);
        }
        table.report.clone()
    }

    fn close(&self, id: u64, end: Result<ConnReport, CloseReason>) {
        let mut table = self.lock();
        let Some(entry) = table.connections.remove(&id) else {
            return; // It was given up, and is in the account as cut.
        };
        self.count.set(table.connections.len());
        let report = end.unwrap_or_else(|reason| entry.report(reason));
        table.report.add(&report);
        drop(table);
        self.count.tell_closed();
        if let Some(on_close) = self.on_close.get() {
            // It runs within another's task, or while that unwinds.
            let _ = catch_unwind(AssertUnwindSafe(|| on_close(&report)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

impl Table {
    fn all(&self) -> Vec<Arc<Live>> {
        let entries = self.connections.values();
        entries.map(|entry| entry.live.clone()).collect()
    }

    /// The connection that has been idle for longest, once.
    fn oldest_idle(&mut self) -> Option<Arc<Live>> {
        loop {
            if self.oldest_idle.is_empty() && !self.find_idle() {
                return None;
            }
            let (id, since) = self.oldest_idle.pop_front()?;
            // Idle for the same reason as when it was looked up, not again.
            let entry = self.connections.get(&id);
            if let Some(entry) = entry.filter(|entry| entry.idle_since() == Some(since)) {
                return Some(entry.live.clone());
            }
        }
    }

    /// Looks up who has been idle for longest; `false`: nobody is.
    fn find_idle(&mut self) -> bool {
        let now = Instant::now();
        if self.none_idle.is_some_and(|then| now - then < SEARCH_AGAIN) {
            return false;
        }
        let idle = |(id, entry): (&u64, &Entry)| {
            let since = entry.idle_since()?;
            (now.saturating_duration_since(since) >= SETTLED).then_some((*id, since))
        };
        let mut idle: Vec<_> = self.connections.iter().filter_map(idle).collect();
        if idle.len() > IDLE_AT_ONCE {
            idle.select_nth_unstable_by_key(IDLE_AT_ONCE, |(_, since)| *since);
            idle.truncate(IDLE_AT_ONCE);
        }
        idle.sort_unstable_by_key(|(_, since)| *since);
        self.none_idle = idle.is_empty().then_some(now);
        self.oldest_idle = idle.into();
        !self.oldest_idle.is_empty()
    }
}

impl Entry {
    fn info(&self) -> &ConnInfo {
        self.live.info().unwrap_or(&self.info)
    }

    /// Since when it is idle, if it is and wasn't told to end.
    fn idle_since(&self) -> Option<Instant> {
        let (state, since) = self.live.doing();
        (state == State::Idle && self.live.told() < Told::Drain).then_some(since)
    }

    fn view(&self) -> ConnView {
        let (state, since) = self.live.doing();
        let (bytes_in, bytes_out) = self.live.bytes();
        ConnView {
            info: self.info().clone(),
            age: self.live.since().elapsed(),
            is_http2: self.live.is_http2(),
            requests: self.live.requests(),
            bytes_in,
            bytes_out,
            state,
            in_state: since.elapsed(),
            request: self.live.request(),
        }
    }

    fn report(&self, reason: CloseReason) -> ConnReport {
        let mut report = self.live.report(reason, Bytes::new());
        report.info = self.info().clone();
        report
    }
}

/// One entry; it leaves the table exactly once, by `close` or when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    id: u64,
    live: Arc<Live>,
    open: Option<Arc<Open>>,
}

impl Ticket {
    pub(super) fn close(&mut self, end: Result<ConnReport, CloseReason>) {
        if let Some(open) = self.open.take() {
            open.close(self.id, end);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() {
            CloseReason::Panicked
        } else {
            CloseReason::Cut // Its task was dropped, with the runtime perhaps.
        };
        self.close(Err(reason));
    }
}

pin_project! {
    /// A connection's task: its service's future until that is done, or until the server gives it up.
    pub(super) struct Task<F> {
        #[pin]
        connection: F,
        ticket: Ticket,
        seen: Option<Told>,
    }
}

impl<F> Task<F> {
    pub(super) fn new(connection: F, ticket: Ticket) -> Self {
        Self {
            connection,
            ticket,
            seen: None,
        }
    }
}

impl<F, E> Future for Task<F>
where
    F: Future<Output = Result<ConnReport, E>>,
    E: Into<BoxError>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // `tell` uses the waker up, so only then has it to be left again. A connection that watches too leaves its
        // own in this one's place, which wakes the same task.
        if *this.seen != Some(this.ticket.live.told()) {
            let (told, _) = this.ticket.live.watch(cx);
            *this.seen = Some(told);
            if told == Told::Abort {
                this.ticket.close(Err(this.ticket.live.told_why()));
                return Poll::Ready(());
            }
        }
        let end = ready!(this.connection.poll(cx));
        this.ticket.close(end.map_err(CloseReason::before_http));
        Poll::Ready(())
    }
}
