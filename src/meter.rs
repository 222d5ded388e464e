//! A peer's patience in one direction: one figure bounds a stall and a trickle. Instants in, instants out; the clock is the
//! caller's.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;

/// How patient a connection is with its peer, in either direction.
///
/// Waiting spends an allowance, bytes earn it back at the rate floor. It starts at the grace and never exceeds the
/// stall time: so one figure bounds a peer that stands still, one that trickles, and one that was fast once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    grace: Duration,
    most: Duration,
    floor: u32,
}

impl From<&Limits> for Patience {
    fn from(limits: &Limits) -> Self {
        Self {
            grace: limits.rate_grace.min(limits.stall_timeout),
            most: limits.stall_timeout,
            floor: limits.rate_floor,
        }
    }
}

/// What is left of the patience in one direction.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    allowance: Duration,
    /// Bytes that aren't in the allowance yet: it is reckoned only before a wait, which spares most bodies a division.
    earned: u64,
    waiting_since: Option<Instant>,
}

impl Meter {
    pub(crate) fn new(patience: impl Into<Patience>) -> Self {
        Self {
            allowance: patience.into().grace,
            earned: 0,
            waiting_since: None,
        }
    }

    /// Starts anew, for a new body.
    pub(crate) fn restart(&mut self, patience: impl Into<Patience>) {
        *self = Self::new(patience);
    }

    /// The peer has done all that was asked of it.
    pub(crate) fn forgive(&mut self, patience: impl Into<Patience>) {
        let patience = patience.into();
        self.reckon(patience);
        self.allowance = self.allowance.max(patience.grace);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The peer's move, from `now` on.
    pub(crate) fn wait(&mut self, now: Instant, patience: impl Into<Patience>) {
        if self.waiting_since.is_none() {
            self.reckon(patience.into());
            self.waiting_since = Some(now);
        }
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
        self.earned = self.earned.saturating_add(bytes as u64);
    }

    fn reckon(&mut self, patience: Patience) {
        let earned = match (std::mem::take(&mut self.earned), patience.floor) {
            (0, _) => return,
            (_, 0) => patience.most,
            (bytes, floor) => {
                Duration::from_micros(bytes.saturating_mul(1_000_000) / u64::from(floor))
            }
        };
        self.allowance = self.allowance.saturating_add(earned).min(patience.most);
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting_since.map(|since| since + self.allowance)
    }
}

/// A meter that carries its patience, for streams that come and go on one connection.
#[cfg(feature = "http2")]
#[derive(Debug, Clone)]
pub(crate) struct StreamMeter {
    meter: Meter,
    patience: Patience,
}

#[cfg(feature = "http2")]
impl StreamMeter {
    pub(crate) fn new(limits: &Limits) -> Self {
        let patience = Patience::from(limits);
        Self {
            meter: Meter::new(patience),
            patience,
        }
    }

    pub(crate) fn forgive(&mut self) {
        self.meter.forgive(self.patience);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.meter.is_waiting()
    }

    pub(crate) fn wait(&mut self, now: Instant) {
        self.meter.wait(now, self.patience);
    }

    pub(crate) fn rest(&mut self, now: Instant) {
        self.meter.rest(now);
    }

    pub(crate) fn earn(&mut self, bytes: usize) {
        self.meter.earn(bytes);
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.meter.due()
    }
}
