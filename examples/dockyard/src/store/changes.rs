//! What happened to the blobs, for whoever watches: told after it was committed, in that order.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Digest, Key};

/// What happened to a blob.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its name.
    pub key: Key,
    /// What.
    pub what: What,
}

/// What can happen to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was stored.
    Put {
        /// Its bytes.
        size: u64,
        /// Of its content.
        digest: Digest,
    },
    /// Somebody removed it.
    Deleted,
    /// It made room for others.
    Evicted,
}

type Tell = Box<dyn Fn(Change) + Send + Sync>;

/// Where a store tells what happened; a clone is the same.
#[derive(Clone, Default)]
pub struct Changes {
    tell: Arc<Mutex<Option<Tell>>>,
}

impl Changes {
    /// Nobody listens yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Each change is told to `tell`, on the store's thread; it must not block.
    pub fn listen(&self, tell: impl Fn(Change) + Send + Sync + 'static) {
        *self.lock() = Some(Box::new(tell));
    }

    pub(crate) fn tell(&self, change: Change) {
        if let Some(tell) = &*self.lock() {
            tell(change);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Tell>> {
        self.tell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
