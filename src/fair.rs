//! How a task gives its thread away. A task that merely wakes itself keeps the runtime from asking the kernel for up to
//! 61 turns of such tasks, and everyone else waits as long; tokio's own yield lets it ask first.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

/// After so many requests in one go, or so many bytes read or written, a connection lets others have the thread, whatever it
/// speaks.
pub(crate) const REQUESTS: u32 = 16;
pub(crate) const READ: u32 = 32 * 1024;
pub(crate) const WRITTEN: u32 = 512 * 1024;

/// Wakes the task of `cx` when the others have had their turn. Whoever calls this returns `Pending`.
pub(crate) fn give_way(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}
