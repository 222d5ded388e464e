//! Parts of a counter or buffer, so that threads seldom write to the same one.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many parts.
pub(crate) const SHARDS: usize = 8;

/// The part of this thread, below [`SHARDS`].
pub(crate) fn shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: usize = THREADS.fetch_add(1, Relaxed) % SHARDS;
    }
    SHARD.try_with(|shard| *shard).unwrap_or(0)
}
