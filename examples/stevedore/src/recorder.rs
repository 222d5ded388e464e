//! What a thread measures: two HDR histograms with three significant digits, and counts. Its own memory, no lock; the
//! tallies of all threads are merged when they are done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::fault::{Fault, FaultKind};
use crate::gauge::Gauge;

/// A request is late when it was sent that long after it was due.
pub(crate) const LATE: Duration = Duration::from_millis(1);

/// The longest latency that is told from longer ones.
const LONGEST: u64 = 3_600_000_000_000;

/// What was measured, by one thread or by all.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// From when a request was due to the end of its answer, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// From when it was sent.
    pub(crate) service: Histogram<u64>,
    /// From when a connection was wanted until it was there.
    pub(crate) connect: Histogram<u64>,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) faults: BTreeMap<FaultKind, u64>,
    /// The first fault of each kind, in words.
    pub(crate) first: BTreeMap<FaultKind, String>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Sent more than a millisecond after they were due.
    pub(crate) late: u64,
    /// Those among them for which a connection was free: stevedore itself was late.
    pub(crate) late_by_itself: u64,
    /// Sent again because the server had announced that it wouldn't look at them.
    pub(crate) sent_again: u64,
    /// Due or sent, and neither answered nor failed when the time was over.
    pub(crate) unfinished: u64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that are constants and in order")
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latency: histogram(),
            service: histogram(),
            connect: histogram(),
            statuses: BTreeMap::new(),
            faults: BTreeMap::new(),
            first: BTreeMap::new(),
            received: 0,
            sent: 0,
            late: 0,
            late_by_itself: 0,
            sent_again: 0,
            unfinished: 0,
        }
    }
}

impl Tally {
    pub(crate) fn answered(&self) -> u64 {
        self.latency.len()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Faults, and answers with a status of 400 and above.
    pub(crate) fn errors(&self) -> u64 {
        self.failed()
            + self
                .statuses
                .range(400..)
                .map(|(_, count)| count)
                .sum::<u64>()
    }

    pub(crate) fn fault(&self, kind: FaultKind) -> u64 {
        self.faults.get(&kind).copied().unwrap_or(0)
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("equal bounds");
        self.service.add(&other.service).expect("equal bounds");
        self.connect.add(&other.connect).expect("equal bounds");
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for (kind, words) in &other.first {
            self.first.entry(*kind).or_insert_with(|| words.clone());
        }
        self.received += other.received;
        self.sent += other.sent;
        self.late += other.late;
        self.late_by_itself += other.late_by_itself;
        self.sent_again += other.sent_again;
        self.unfinished += other.unfinished;
    }
}

/// A thread's tally and the gauge that shows it.
pub(crate) struct Recorder {
    pub(crate) tally: Tally,
    pub(crate) gauge: Arc<Gauge>,
    /// Counts of statuses 100 to 599: a map is too slow for each answer.
    statuses: Box<[u64; 500]>,
}

impl Recorder {
    pub(crate) fn new(gauge: Arc<Gauge>) -> Self {
        Self {
            tally: Tally::default(),
            gauge,
            statuses: Box::new([0; 500]),
        }
    }

    pub(crate) fn answered(&mut self, status: u16, latency: Duration, service: Duration) {
        let latency = nanos(latency);
        self.tally.latency.saturating_record(latency);
        self.tally.service.saturating_record(nanos(service));
        self.statuses[usize::from(status) - 100] += 1;
        self.gauge.answered(status, latency);
    }

    pub(crate) fn failed(&mut self, fault: &Fault, requests: u64) {
        let kind = fault.kind();
        *self.tally.faults.entry(kind).or_default() += requests;
        self.tally
            .first
            .entry(kind)
            .or_insert_with(|| fault.to_string());
        self.gauge.failed(kind, requests);
    }

    pub(crate) fn received(&mut self, bytes: usize) {
        self.tally.received += bytes as u64;
        self.gauge.received(bytes);
    }

    pub(crate) fn connected(&mut self, took: Duration) {
        self.tally.connect.saturating_record(nanos(took));
        self.gauge.connected();
    }

    /// A connection was `free`, so nobody else is to blame.
    pub(crate) fn late(&mut self, requests: u64, free: bool) {
        self.tally.late += requests;
        if free {
            self.tally.late_by_itself += requests;
        }
        self.gauge.late(requests);
    }

    pub(crate) fn finish(&mut self) -> Tally {
        let mut tally = std::mem::take(&mut self.tally);
        let counted = (100..).zip(self.statuses.iter().copied());
        tally.statuses = counted.filter(|(_, count)| *count > 0).collect();
        tally
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
