//! What a server's life tells its accept loops, and they tell it: one loop in the same task, or one on each thread.

use tokio::sync::watch;

use crate::error::BoxError;

/// How far the accept loops may go; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Get ready.
    Prepare,
    /// Accept.
    Accept,
    /// Accept what is queued already, then close the listeners.
    Queued,
    /// Close the listeners now.
    Close,
    /// All is over: threads end.
    End,
}

/// The steps of one server, and how its loops keep up with them.
#[derive(Debug)]
pub(super) struct Steps {
    step: watch::Sender<Step>,
    loops: watch::Sender<Loops>,
}

#[derive(Debug)]
struct Loops {
    /// Not ready yet.
    preparing: usize,
    /// With their listeners open.
    listening: usize,
    /// Threads that haven't ended.
    running: usize,
    /// Why the first one failed that did.
    failed: Option<BoxError>,
}

impl Steps {
    pub(super) fn of_loops(count: usize) -> Self {
        let loops = Loops {
            preparing: count,
            listening: count,
            running: 0,
            failed: None,
        };
        Self {
            step: watch::Sender::new(Step::Prepare),
            loops: watch::Sender::new(loops),
        }
    }

    /// Goes on to that step; never back.
    pub(super) fn enter(&self, step: Step) {
        self.step.send_if_modified(|now| {
            let goes_on = step > *now;
            *now = step.max(*now);
            goes_on
        });
    }

    /// Waits for that step or a later one.
    pub(super) async fn reached(&self, step: Step) {
        // It can't fail: the sender is here.
        let _ = self.step.subscribe().wait_for(|now| *now >= step).await;
    }

    /// A loop is ready to accept.
    pub(super) fn prepared(&self) {
        self.loops.send_modify(|loops| loops.preparing -= 1);
    }

    /// A loop has closed its listeners: because it was told to, or because it failed.
    pub(super) fn closed(&self, failed: Option<BoxError>) {
        self.loops.send_modify(|loops| {
            loops.listening -= 1;
            loops.failed = loops.failed.take().or(failed);
        });
    }

    /// A thread begins, or has ended.
    pub(super) fn thread(&self, begins: bool) {
        self.loops.send_modify(|loops| match begins {
            true => loops.running += 1,
            false => loops.running -= 1,
        });
    }

    /// Waits until all are ready to accept, or one has failed.
    pub(super) async fn all_prepared(&self) {
        let done = |loops: &Loops| loops.preparing == 0 || loops.failed.is_some();
        self.until(done).await;
    }

    /// Waits until a loop has failed.
    pub(super) async fn failed(&self) {
        self.until(|loops| loops.failed.is_some()).await;
    }

    /// Waits until no listener is open.
    pub(super) async fn all_closed(&self) {
        self.until(|loops| loops.listening == 0).await;
    }

    /// Waits until all threads have ended.
    pub(super) async fn all_ended(&self) {
        self.until(|loops| loops.running == 0).await;
    }

    /// Why the first loop failed that did.
    pub(super) fn take_failed(&self) -> Option<BoxError> {
        let mut failed = None;
        self.loops.send_modify(|loops| failed = loops.failed.take());
        failed
    }

    async fn until(&self, is_so: impl FnMut(&Loops) -> bool) {
        let _ = self.loops.subscribe().wait_for(is_so).await;
    }
}
