//! What is counted: for each group of threads a part of its own, added up by whoever looks.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::histogram::{Distribution, Histogram};
use super::labels::{ENDS, Method, StatusClass};
use crate::follow::Ended;
use crate::shard::{SHARDS, shard};

/// A number for each class.
pub(super) type ByClass<T> = [T; StatusClass::ALL.len()];

/// A number for each method and class.
pub(super) type ByMethod<T> = [ByClass<T>; Method::ALL.len()];

/// All that one layer counts.
pub(super) struct Counts {
    pub(super) since: Instant,
    shards: [Part; SHARDS],
}

/// What some threads have counted; aligned to a pair of cache lines, so that others don't wait for them.
#[repr(align(128))]
struct Part {
    begun: AtomicU64,
    requests: ByMethod<AtomicU64>,
    refused: ByClass<AtomicU64>,
    ended: [AtomicU64; ENDS.len()],
    first_byte: Histogram,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

/// All parts, added up.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    pub(super) begun: u64,
    pub(super) requests: ByMethod<u64>,
    pub(super) refused: ByClass<u64>,
    pub(super) ended: [u64; ENDS.len()],
    pub(super) first_byte: Distribution,
    pub(super) duration: Distribution,
    pub(super) request_bytes: Distribution,
    pub(super) response_bytes: Distribution,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            shards: array::from_fn(|_| Part {
                begun: AtomicU64::new(0),
                requests: Default::default(),
                refused: Default::default(),
                ended: Default::default(),
                first_byte: Histogram::new(),
                duration: Histogram::new(),
                request_bytes: Histogram::new(),
                response_bytes: Histogram::new(),
            }),
        }
    }

    fn part(&self) -> &Part {
        &self.shards[shard()]
    }

    pub(super) fn begin(&self, size: Option<u64>) {
        let part = self.part();
        part.begun.fetch_add(1, Relaxed);
        if let Some(size) = size {
            part.request_bytes.record(size);
        }
    }

    pub(super) fn request(&self, method: Method, class: StatusClass) {
        self.part().requests[method as usize][class as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self, class: StatusClass) {
        self.part().refused[class as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn first_byte(&self, time: Duration) {
        self.part().first_byte.record(nanos(time));
    }

    pub(super) fn end(&self, how: Ended, time: Duration, bytes: u64) {
        let part = self.part();
        part.duration.record(nanos(time));
        part.response_bytes.record(bytes);
        if let Some(index) = ENDS.iter().position(|end| *end == how) {
            part.ended[index].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums {
            begun: 0,
            requests: Default::default(),
            refused: Default::default(),
            ended: Default::default(),
            first_byte: Distribution::new(),
            duration: Distribution::new(),
            request_bytes: Distribution::new(),
            response_bytes: Distribution::new(),
        };
        // Ends first: what ends while this looks has begun, so that there is never less than nothing in flight.
        for part in &self.shards {
            for (sum, own) in sums.ended.iter_mut().zip(&part.ended) {
                *sum += own.load(Relaxed);
            }
        }
        for part in &self.shards {
            sums.begun += part.begun.load(Relaxed);
            for (sum, own) in sums
                .requests
                .iter_mut()
                .flatten()
                .zip(part.requests.iter().flatten())
            {
                *sum += own.load(Relaxed);
            }
            for (sum, own) in sums.refused.iter_mut().zip(&part.refused) {
                *sum += own.load(Relaxed);
            }
            part.first_byte.add_to(&mut sums.first_byte);
            part.duration.add_to(&mut sums.duration);
            part.request_bytes.add_to(&mut sums.request_bytes);
            part.response_bytes.add_to(&mut sums.response_bytes);
        }
        sums
    }
}

impl Sums {
    /// What came after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let less = |now: &u64, then: &u64| now.saturating_sub(*then);
        Self {
            begun: less(&self.begun, &earlier.begun),
            requests: array::from_fn(|method| {
                array::from_fn(|class| {
                    less(
                        &self.requests[method][class],
                        &earlier.requests[method][class],
                    )
                })
            }),
            refused: array::from_fn(|class| less(&self.refused[class], &earlier.refused[class])),
            ended: array::from_fn(|end| less(&self.ended[end], &earlier.ended[end])),
            first_byte: self.first_byte.since(&earlier.first_byte),
            duration: self.duration.since(&earlier.duration),
            request_bytes: self.request_bytes.since(&earlier.request_bytes),
            response_bytes: self.response_bytes.since(&earlier.response_bytes),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
