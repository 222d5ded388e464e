//! How many connections are open: changed under the table's lock, read and waited for without it.
//!
//! The atomic and the notification are those of the parent: here the real ones, in `tests/loom` those of a model that tries
//! every interleaving of this very file.

use std::pin::pin;

use super::{AtomicUsize, Notify, Relaxed};

#[derive(Default)]
pub(super) struct Count {
    now: AtomicUsize,
    /// Told of each close.
    closed: Notify,
}

impl Count {
    pub(super) fn now(&self) -> usize {
        self.now.load(Relaxed)
    }

    /// To be called under the lock of the table.
    pub(super) fn set(&self, now: usize) {
        self.now.store(now, Relaxed);
    }

    /// Tells who waits that one has closed, after it was counted. A waker may run anything, so not under the lock.
    pub(super) fn tell_closed(&self) {
        self.closed.notify_waiters();
    }

    /// Waits until another connection has closed after this was called.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Waits until none is open.
    pub(super) async fn emptied(&self) {
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.now() == 0 {
                return;
            }
            closed.await;
        }
    }
}
