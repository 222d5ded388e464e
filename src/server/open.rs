//! What is open: each connection from its accept to its one report. The table is locked when a connection opens and
//! closes, and when all are told something; never in between.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pin_project_lite::pin_project;
use tokio::sync::Notify;

use crate::conn::{CloseReason, Conn, ConnInfo, ConnReport, Live, Told};
use crate::shutdown::{Oldest, Report};

pub(super) type OnClose = Box<dyn Fn(&ConnReport) + Send + Sync>;

/// The open connections of one server.
#[derive(Default)]
pub(super) struct Open {
    table: Mutex<Table>,
    /// Told of each close; only the server's own task waits for it.
    closed: Notify,
    on_close: Option<OnClose>,
}

#[derive(Default)]
struct Table {
    connections: HashMap<u64, Entry>,
    /// What was said to all, and is said to whoever comes later.
    told: Told,
    report: Report,
}

struct Entry {
    live: Arc<Live>,
    /// The facts at accept, for a connection that ends before its service has settled on them.
    info: ConnInfo,
}

impl Open {
    pub(super) fn new(on_close: Option<OnClose>) -> Arc<Self> {
        Arc::new(Self {
            on_close,
            ..Self::default()
        })
    }

    pub(super) fn count(&self) -> usize {
        self.lock().connections.len()
    }

    /// Enters a connection.
    pub(super) fn enter<Io>(self: &Arc<Self>, conn: &Conn<Io>) -> Ticket {
        let live = conn.live().clone();
        let info = conn.info().clone();
        let id = info.id;
        let mut table = self.lock();
        if table.told > Told::Nothing {
            live.tell(table.told);
        }
        table.report.connections += 1;
        let entry = Entry {
            live: live.clone(),
            info,
        };
        table.connections.insert(id, entry);
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
        let all: Vec<_> = table
            .connections
            .values()
            .map(|entry| entry.live.clone())
            .collect();
        // A waker may run anything, even what closes a connection.
        drop(table);
        for live in all {
            live.tell(told);
        }
    }

    /// Waits until another connection has closed, perhaps since this was asked last.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Waits until none is open.
    pub(super) async fn emptied(&self) {
        while self.count() > 0 {
            self.closed().await;
        }
    }

    /// How many are open, and the one that is open for longest.
    pub(super) fn oldest(&self) -> (usize, Option<Oldest>) {
        let table = self.lock();
        let oldest = table
            .connections
            .values()
            .min_by_key(|entry| entry.live.since())
            .map(|entry| Oldest {
                peer: entry.info().peer.clone(),
                age: entry.live.since().elapsed(),
                requests: entry.live.requests(),
            });
        (table.connections.len(), oldest)
    }

    /// The account of all; what is still open counts as cut.
    pub(super) fn report(&self, accept_errors: u64) -> Report {
        let mut table = self.lock();
        let left: Vec<_> = table.connections.drain().map(|(_, entry)| entry).collect();
        for entry in left {
            let report = entry.report(CloseReason::Cut);
            table.report.add(&report);
        }
        Report {
            accept_errors,
            ..table.report.clone()
        }
    }

    fn close(&self, id: u64, end: Result<ConnReport, CloseReason>) {
        let mut table = self.lock();
        let Some(entry) = table.connections.remove(&id) else {
            return; // It was given up, and is in the account as cut.
        };
        let report = end.unwrap_or_else(|reason| entry.report(reason));
        table.report.add(&report);
        drop(table);
        self.closed.notify_one();
        if let Some(on_close) = &self.on_close {
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

impl Entry {
    fn info(&self) -> &ConnInfo {
        self.live.info().unwrap_or(&self.info)
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
                this.ticket.close(Err(CloseReason::Cut));
                return Poll::Ready(());
            }
        }
        let end = ready!(this.connection.poll(cx));
        this.ticket.close(end.map_err(|_| CloseReason::BeforeHttp));
        Poll::Ready(())
    }
}
