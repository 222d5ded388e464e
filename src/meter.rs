//! A peer's patience in one direction: one figure bounds a stall and a trickle. Instants in, instants out; the clock is the
//! caller's.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;

/// How patient the connection still is with its peer in one direction.
///
/// Waiting spends the allowance, bytes earn it back at the rate floor. It starts at the grace and never exceeds the
/// stall time: so one figure bounds a peer that stands still, one that trickles, and one that was fast once.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    allowance: Duration,
    waiting_since: Option<Instant>,
    grace: Duration,
    most: Duration,
    floor: u32,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
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
    pub(crate) fn restart(&mut self) {
        (self.allowance, self.waiting_since) = (self.grace, None);
    }

    /// The peer has done all that was asked of it.
    pub(crate) fn forgive(&mut self) {
        self.allowance = self.allowance.max(self.grace);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The peer's move, from `now` on.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Not the peer's move any more.
    pub(crate) fn rest(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            let waited = now.saturating_duration_since(since);
            self.allowance = self.allowance.saturating_sub(waited);
        }
    }

    /// The peer sent or took `bytes`, waited for or not.
    pub(crate) fn earn(&mut self, bytes: usize) {
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

    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + self.allowance)
    }
}
