//! When a connection must stop waiting. Instants are stored as plain values; tokio's timer is touched only when the
//! connection is about to wait past it, never per request.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::conn::State;
use crate::limits::Limits;

/// What the connection waits for, where that has a fixed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first byte of a further head, for so long.
    Idle(Duration),
    /// The rest of a head.
    Head,
    /// The service to become ready.
    Ready,
    /// The rest of an unread body.
    Drain,
    /// The next byte, or the end, of what a peer still sends to a closing connection.
    Linger,
}

impl Phase {
    /// What a connection does in it.
    pub(super) fn state(self) -> State {
        match self {
            Self::Idle(_) => State::Idle,
            Self::Head => State::ReadingHead,
            Self::Ready => State::Waiting,
            Self::Drain => State::Draining,
            Self::Linger => State::Closing,
        }
    }
}

/// A deadline that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The phase under way.
    Phase(Phase),
    /// A wanted body stood still or came too slowly.
    Reading,
    /// An owed response was not taken, or too slowly.
    Writing,
}

/// All deadlines of one connection over one lazily armed timer.
pub(super) struct Deadline {
    phase: Option<(Phase, Instant)>,
    pub(super) reading: Meter,
    pub(super) writing: Meter,
    timer: Option<Timer>,
}

struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// The task that the armed timer wakes.
    waker: Waker,
}

impl Deadline {
    pub(super) fn new(limits: &Limits) -> Self {
        let meter = Meter::new(limits);
        Self {
            phase: None,
            reading: meter.clone(),
            writing: meter,
            timer: None,
        }
    }

    /// The phase under way, if it has a deadline.
    pub(super) fn phase(&self) -> Option<Phase> {
        self.phase.map(|(phase, _)| phase)
    }

    pub(super) fn set(&mut self, phase: Phase, due: Instant) {
        self.phase = Some((phase, due));
    }

    pub(super) fn clear(&mut self) {
        self.phase = None;
    }

    /// Ready when a deadline has passed; otherwise the task of `cx` is woken when the earliest does.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let mut next = self.phase.map(|(phase, due)| (due, Late::Phase(phase)));
        for (meter, late) in [
            (&self.reading, Late::Reading),
            (&self.writing, Late::Writing),
        ] {
            if let Some(due) = meter.due()
                && next.is_none_or(|(earliest, _)| due < earliest)
            {
                next = Some((due, late));
            }
        }
        let Some((due, late)) = next else {
            return Poll::Pending;
        };
        if let Some(timer) = &self.timer
            && timer.sleep.deadline() <= due
            && !timer.sleep.is_elapsed()
            && timer.waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        self.arm(due, cx).map(|()| late)
    }

    fn arm(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = match &mut self.timer {
            Some(timer) => {
                if timer.sleep.deadline() != due {
                    timer.sleep.as_mut().reset(due);
                }
                timer.waker.clone_from(cx.waker());
                timer
            }
            None => self.timer.insert(Timer {
                sleep: Box::pin(sleep_until(due)),
                waker: cx.waker().clone(),
            }),
        };
        timer.sleep.as_mut().poll(cx)
    }
}

/// How patient the connection still is with its peer in one direction.
///
/// Waiting spends the allowance, bytes earn it back at the rate floor. It starts at the grace and never exceeds the
/// stall time: so one figure bounds a peer that stands still, one that trickles, and one that was fast once.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    allowance: Duration,
    waiting_since: Option<Instant>,
    grace: Duration,
    most: Duration,
    floor: u32,
}

impl Meter {
    fn new(limits: &Limits) -> Self {
        let grace = limits.rate_grace.min(limits.stall_timeout);
        Self {
            allowance: grace,
            waiting_since: None,
            grace,
            most: limits.stall_timeout,
            floor: limits.rate_floor,
        }
    }

    /// Starts anew, for a new body.
    pub(super) fn restart(&mut self) {
        (self.allowance, self.waiting_since) = (self.grace, None);
    }

    /// The peer has done all that was asked of it.
    pub(super) fn forgive(&mut self) {
        self.allowance = self.allowance.max(self.grace);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The peer's move, from `now` on.
    pub(super) fn wait(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Not the peer's move any more.
    pub(super) fn rest(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            let waited = now.saturating_duration_since(since);
            self.allowance = self.allowance.saturating_sub(waited);
        }
    }

    /// The peer sent or took `bytes`, waited for or not.
    pub(super) fn earn(&mut self, bytes: usize) {
        if self.allowance == self.most {
            return;
        }
        let earned = match self.floor {
            0 => self.most,
            floor => {
                Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / u64::from(floor))
            }
        };
        self.allowance = self.allowance.saturating_add(earned).min(self.most);
    }

    fn due(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + self.allowance)
    }
}
