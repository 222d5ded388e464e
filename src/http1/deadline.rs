//! When a connection must stop waiting. Instants are stored as plain values; tokio's timer is touched only when the
//! connection is about to wait past it, never per request.

use std::pin::Pin;
use std::task::{Context, Poll};
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
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer wakes the task that the connection is in.
    is_armed: bool,
}

impl Deadline {
    pub(super) fn new(limits: &Limits) -> Self {
        let meter = Meter::new(limits);
        Self {
            phase: None,
            reading: meter.clone(),
            writing: meter,
            timer: None,
            is_armed: false,
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

    /// Ready when a deadline has passed; otherwise the task of `cx` is woken when the earliest does, or before. That an
    /// armed timer is left alone saves 137 instructions a wait.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let mut next = self.phase.map(|(phase, due)| (due, Late::Phase(phase)));
        if self.reading.is_waiting() || self.writing.is_waiting() {
            next = self.with_meters(next);
        }
        let Some((due, late)) = next else {
            return Poll::Pending;
        };
        if self.is_armed
            && let Some(timer) = &self.timer
            && timer.deadline() <= due
            && !timer.is_elapsed()
        {
            return Poll::Pending;
        }
        self.arm(due, cx).map(|()| late)
    }

    /// The earliest of `next` and the meters.
    fn with_meters(&self, mut next: Option<(Instant, Late)>) -> Option<(Instant, Late)> {
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
        next
    }

    #[cold]
    fn arm(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.is_armed = true;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }

    /// The connection is in another task now.
    pub(super) fn has_moved(&mut self) {
        self.is_armed = false;
    }
}

/// How patient the connection still is with its peer in one direction.
///
/// Waiting spends the allowance, bytes earn it back at the rate floor. It starts at the grace and never exceeds the
/// stall time: so one figure bounds a peer that stands still, one that trickles, and one that was fast once.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    allowance: Duration,
    /// Bytes that aren't in the allowance yet: it is reckoned only before a wait, which spares most bodies a division.
    earned: u64,
    waiting_since: Option<Instant>,
}

impl Meter {
    fn new(limits: &Limits) -> Self {
        Self {
            allowance: grace(limits),
            earned: 0,
            waiting_since: None,
        }
    }

    /// Starts anew, for a new body.
    pub(super) fn restart(&mut self, limits: &Limits) {
        *self = Self::new(limits);
    }

    /// The peer has done all that was asked of it.
    pub(super) fn forgive(&mut self, limits: &Limits) {
        self.reckon(limits);
        self.allowance = self.allowance.max(grace(limits));
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The peer's move, from `now` on.
    pub(super) fn wait(&mut self, now: Instant, limits: &Limits) {
        if self.waiting_since.is_none() {
            self.reckon(limits);
            self.waiting_since = Some(now);
        }
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
        self.earned = self.earned.saturating_add(bytes as u64);
    }

    fn reckon(&mut self, limits: &Limits) {
        let earned = match (std::mem::take(&mut self.earned), limits.rate_floor) {
            (0, _) => return,
            (_, 0) => limits.stall_timeout,
            (bytes, floor) => {
                Duration::from_micros(bytes.saturating_mul(1_000_000) / u64::from(floor))
            }
        };
        self.allowance = self
            .allowance
            .saturating_add(earned)
            .min(limits.stall_timeout);
    }

    fn due(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + self.allowance)
    }
}

fn grace(limits: &Limits) -> Duration {
    limits.rate_grace.min(limits.stall_timeout)
}
