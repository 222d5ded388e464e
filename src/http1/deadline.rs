//! When a connection must stop waiting. Instants are stored as plain values; tokio's timer is touched only when the
//! connection is about to wait past it, never per request.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::conn::State;
use crate::limits::Limits;
use crate::meter::Meter;

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
