//! The meter of a stream: it carries its patience, because streams come and go on one connection.

use tokio::time::Instant;

use crate::limits::Limits;
use crate::meter::{Meter, Patience};

/// A meter that carries its patience, for streams that come and go on one connection.
#[derive(Debug, Clone)]
pub(super) struct StreamMeter {
    meter: Meter,
    patience: Patience,
}

impl StreamMeter {
    pub(super) fn new(limits: &Limits) -> Self {
        let patience = Patience::from(limits);
        Self {
            meter: Meter::new(patience),
            patience,
        }
    }

    pub(super) fn forgive(&mut self) {
        self.meter.forgive(self.patience);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.meter.is_waiting()
    }

    pub(super) fn wait(&mut self, now: Instant) {
        self.meter.wait(now, self.patience);
    }

    pub(super) fn rest(&mut self, now: Instant) {
        self.meter.rest(now);
    }

    pub(super) fn earn(&mut self, bytes: usize) {
        self.meter.earn(bytes);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.meter.due()
    }
}
