//! A timer that is armed only when its task is about to wait, and then only if it would ring too late.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer for all deadlines of a connection; tokio's is made when the first of them is waited for.
#[derive(Default)]
pub(super) struct Timer {
    armed: Option<Armed>,
}

struct Armed {
    sleep: Pin<Box<Sleep>>,
    /// The task that it wakes.
    waker: Waker,
}

impl Timer {
    /// Ready at `due`; otherwise the task of `cx` is woken then, or earlier.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let armed = match &mut self.armed {
            Some(armed) => {
                let rings_in_time = armed.sleep.deadline() <= due && !armed.sleep.is_elapsed();
                if rings_in_time && armed.waker.will_wake(cx.waker()) {
                    return Poll::Pending;
                }
                if armed.sleep.deadline() != due {
                    armed.sleep.as_mut().reset(due);
                }
                armed.waker.clone_from(cx.waker());
                armed
            }
            None => self.armed.insert(Armed {
                sleep: Box::pin(sleep_until(due)),
                waker: cx.waker().clone(),
            }),
        };
        armed.sleep.as_mut().poll(cx)
    }
}
