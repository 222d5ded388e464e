//! Log-linear histograms: 32 buckets between a power of two and the next, so that a bucket's bounds are at most 1/32 apart.
//!
//! A bucket holds what is above its lower bound and not above its upper one, as Prometheus counts. Below 32 each number has a
//! bucket of its own; zero shares that of one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets between a power of two and the next.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 5;

/// For all that a `u64` holds.
const BUCKETS: usize = ((64 - STEP_BITS as usize) + 1) << STEP_BITS;

/// Counts values; each bucket is an atomic of its own.
pub(super) struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub(super) fn record(&self, value: u64) {
        // Always there: `bucket` knows no index beyond the last.
        if let Some(bucket) = self.buckets.get(bucket(value)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(value, Relaxed);
    }

    /// Adds what was counted to `all`.
    pub(super) fn add_to(&self, all: &mut Distribution) {
        for (all, own) in all.buckets.iter_mut().zip(&self.buckets) {
            *all += own.load(Relaxed);
        }
        all.sum = all.sum.wrapping_add(self.sum.load(Relaxed));
    }
}

/// The bucket that holds `value`.
fn bucket(value: u64) -> usize {
    let value = value.saturating_sub(1);
    if value < STEPS {
        return value as usize;
    }
    let octave = value.ilog2() - STEP_BITS;
    let step = (value >> octave) - STEPS;
    ((u64::from(octave + 1) << STEP_BITS) + step) as usize
}

/// The greatest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let (octave, step) = (bucket as u64 >> STEP_BITS, bucket as u64 % STEPS);
    if octave == 0 {
        return step + 1;
    }
    let upper = u128::from(STEPS + step + 1) << (octave - 1);
    u64::try_from(upper).unwrap_or(u64::MAX)
}

/// How values are distributed: those of a histogram, at one time or between two.
#[derive(Clone, PartialEq, Eq)]
pub struct Distribution {
    buckets: Box<[u64]>,
    sum: u64,
}

impl Distribution {
    /// Of no value.
    pub(super) fn new() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into(),
            sum: 0,
        }
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The value that a share of `q` of all values, from 0 to 1, does not exceed, or at most 1/32 more than that; `None` if there
    /// are no values.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        // At least one, and not more than there are.
        let rank = ((count as f64 * q).ceil() as u64).max(1).min(count);
        let mut below = 0;
        let at = self.buckets.iter().position(|bucket| {
            below += bucket;
            below >= rank && rank > 0
        });
        at.map(upper)
    }

    /// How many values are at most `bound`, which is exact for powers of two.
    pub fn at_most(&self, bound: u64) -> u64 {
        self.buckets[..=bucket(bound)].iter().sum()
    }

    /// What came after `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        Self {
            buckets: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum: self.sum.wrapping_sub(earlier.sum),
        }
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Distribution")
            .field("count", &self.count())
            .field("sum", &self.sum)
            .field("median", &self.quantile(0.5))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
        let histogram = Histogram::new();
        values.into_iter().for_each(|value| histogram.record(value));
        let mut all = Distribution::new();
        histogram.add_to(&mut all);
        all
    }

    #[test]
    fn buckets_follow_each_other_without_gap_and_are_at_most_a_thirty_second_wide() {
        let mut lower = 0;
        for index in 0..BUCKETS {
            let upper = upper(index);
            assert_eq!(bucket(lower + 1), index);
            assert_eq!(bucket(upper), index);
            // In whole numbers, so that no rounding hides anything.
            let width = upper - lower;
            assert!(width == 1 || width * 32 <= lower, "{lower} {upper}");
            lower = upper;
        }
        assert_eq!(
            (bucket(0), lower, bucket(u64::MAX)),
            (0, u64::MAX, BUCKETS - 1)
        );
    }

    #[test]
    fn a_quantile_is_never_below_the_true_one_and_at_most_a_thirty_second_above() {
        // A thousand values over nine decades, in no order (multiplication by a generator modulo a prime).
        let mut values: Vec<u64> = (1..=1_000_u64)
            .map(|n| 1 + (n * 7_919 % 1_009).pow(3) * (n % 7 + 1))
            .collect();
        let all = of(values.iter().copied());
        values.sort_unstable();
        for q in [0.0, 0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((1_000.0 * q) as usize).max(1);
            let (truth, said) = (values[rank - 1], all.quantile(q).unwrap());
            assert!(
                said >= truth && said - truth <= truth / 32,
                "{q}: {truth} {said}"
            );
        }
        assert_eq!((all.count(), all.sum()), (1_000, values.iter().sum()));
    }

    #[test]
    fn of_nothing_there_is_no_quantile_and_of_one_value_it_is_all_of_them() {
        assert_eq!(of([]).quantile(0.5), None);
        for q in [f64::NAN, -1.0, 0.0, 0.5, 1.0, 7.0] {
            assert_eq!(of([17]).quantile(q), Some(17));
        }
    }

    #[test]
    fn up_to_a_power_of_two_is_counted_exactly() {
        let all = of([0, 1, 1_023, 1_024, 1_025, 1 << 40]);
        assert_eq!(all.at_most(1), 2);
        assert_eq!(all.at_most(512), 2);
        assert_eq!(all.at_most(1_024), 4);
        assert_eq!(all.at_most(2_048), 5);
        assert_eq!(all.at_most(u64::MAX), 6);
    }

    #[test]
    fn a_window_is_what_came_between() {
        let (earlier, later) = (of([5, 100]), of([5, 100, 100, 7]));
        let window = later.since(&earlier);
        assert_eq!((window.count(), window.sum()), (2, 107));
        assert_eq!(window.quantile(0.0), Some(7));
        // Never less than nothing, should somebody take them the other way round.
        assert_eq!(earlier.since(&later).count(), 0);
    }
}
