//! The slot through which a request's content crosses from the connection to whoever reads it. At most one frame is in
//! flight, and only when it was asked for.
//!
//! The locks and atomics are those of the parent: here the standard library's, in `tests/loom` those of a model that tries
//! every interleaving of this very file.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;

use super::{Arc, AtomicBool, AtomicU8, Mutex, MutexGuard, PoisonError, Relaxed};
use crate::error::{BoxError, Reason, Reject};

/// Where one frame at a time crosses from the connection to the reader of a request's body.
///
/// What changes is changed under the lock. What the connection asks again and again can be read without it: that leaves
/// three locks of eight for a body that comes in one piece behind its head.
#[derive(Default)]
pub(crate) struct Slot {
    reading: AtomicU8,
    /// The connection's waker is there.
    is_watched: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frame: Option<Frame<Bytes>>,
    end: End,
    /// Wakes the reader when a frame or the end has come.
    reader: Option<Waker>,
    /// Wakes the connection when a frame is wanted or the reader has left.
    feeder: Option<Waker>,
}

#[derive(Default)]
enum End {
    #[default]
    NotYet,
    Complete,
    Failed(Reject),
    /// The failure has been told; the stream is over.
    Told,
}

/// What the reader is doing, as the connection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reading {
    /// It holds the body and asked for nothing, or has not taken what it asked for.
    Holds = 0,
    /// It waits for a frame.
    Wants = 1,
    /// It has seen the end.
    Finished = 2,
    /// It has dropped the body before its end.
    Left = 3,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll_take(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.lock();
        if let Some(frame) = state.frame.take() {
            if matches!(state.end, End::Complete) {
                self.set(Reading::Finished);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match std::mem::replace(&mut state.end, End::Told) {
            End::NotYet => state.end = End::NotYet,
            End::Complete | End::Told => {
                self.set(Reading::Finished);
                return Poll::Ready(None);
            }
            End::Failed(reject) => {
                self.set(Reading::Finished);
                return Poll::Ready(Some(Err(reject.into())));
            }
        }
        self.set(Reading::Wants);
        keep_waker(&mut state.reader, cx);
        // The connection looks at the slot after each poll of the handler, so only another task has to wake it.
        if state
            .feeder
            .as_ref()
            .is_some_and(|feeder| !feeder.will_wake(cx.waker()))
        {
            self.wake_feeder(state);
        }
        Poll::Pending
    }

    pub(super) fn leave(&self) {
        if self.reading() == Reading::Finished {
            return;
        }
        let mut state = self.lock();
        self.set(Reading::Left);
        state.frame = None;
        self.wake_feeder(state);
    }

    /// Says that the waker is gone before it is used: a connection that doesn't see this yet is polled once more.
    fn wake_feeder(&self, mut state: MutexGuard<'_, State>) {
        self.is_watched.store(false, Relaxed);
        let feeder = state.feeder.take();
        drop(state);
        feeder.into_iter().for_each(Waker::wake);
    }

    /// What the reader is doing.
    pub(crate) fn reading(&self) -> Reading {
        match self.reading.load(Relaxed) {
            0 => Reading::Holds,
            1 => Reading::Wants,
            2 => Reading::Finished,
            _ => Reading::Left,
        }
    }

    fn set(&self, reading: Reading) {
        self.reading.store(reading as u8, Relaxed);
    }

    /// The same, and the task of `cx` will be woken when it changes; `stays` if that is the one of the last time.
    #[inline]
    pub(crate) fn watch(&self, cx: &Context<'_>, stays: bool) -> Reading {
        if !(stays && self.is_watched.load(Relaxed)) {
            self.watch_anew(cx);
        }
        self.reading()
    }

    #[cold]
    fn watch_anew(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        keep_waker(&mut state.feeder, cx);
        self.is_watched.store(true, Relaxed);
    }

    /// Gives the reader what it waits for; `last` if nothing will follow.
    pub(crate) fn give(&self, frame: Frame<Bytes>, last: bool, cx: &Context<'_>) {
        let mut state = self.lock();
        if self.reading() == Reading::Left {
            return;
        }
        state.frame = Some(frame);
        if last {
            state.end = End::Complete;
        }
        self.serve(state, cx);
    }

    /// Tells the reader that the body is complete, or why it never will be.
    pub(crate) fn end(&self, result: Result<(), Reject>, cx: &Context<'_>) {
        let mut state = self.lock();
        if self.reading() == Reading::Left {
            return;
        }
        state.end = result.map_or_else(End::Failed, |()| End::Complete);
        self.serve(state, cx);
    }

    /// Tells the reader of a body that isn't over that the rest will never come.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        if !matches!(state.end, End::NotYet) || self.reading() == Reading::Left {
            return;
        }
        state.end = End::Failed(Reject::new(Reason::BodyCut));
        self.set(Reading::Holds);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    fn serve(&self, mut state: MutexGuard<'_, State>, cx: &Context<'_>) {
        self.set(Reading::Holds);
        // A reader in the connection's own task is polled next anyway.
        let reader = state.reader.take_if(|reader| !reader.will_wake(cx.waker()));
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Makes a slot that nobody else holds any more ready for the next body of the connection.
    pub(crate) fn reuse(slot: &mut Arc<Self>) -> bool {
        let Some(slot) = Arc::get_mut(slot) else {
            return false;
        };
        slot.set(Reading::Holds);
        let state = slot.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (state.frame, state.end, state.reader) = (None, End::NotYet, None);
        true
    }
}

fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    if !kept
        .as_ref()
        .is_some_and(|waker| waker.will_wake(cx.waker()))
    {
        *kept = Some(cx.waker().clone());
    }
}
