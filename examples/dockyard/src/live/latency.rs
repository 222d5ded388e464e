//! Latencies in buckets, an eighth of an octave wide: counted without a lock, subtracted from each other, read as
//! quantiles and as the rows of a heat map.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets of each doubling.
const STEPS: u32 = 8;
/// Doublings, from a microsecond on: to over a minute.
const OCTAVES: u32 = 27;
const BUCKETS: usize = (STEPS * OCTAVES) as usize;
/// Rows of a heat map: one for each doubling from 16 µs on, faster ones in the lowest.
pub(crate) const ROWS: usize = 20;
const LOWEST_ROW: u32 = 4;

/// How many requests took how long.
pub(crate) struct Latency {
    counts: [AtomicU64; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Latency {
    pub(crate) fn add(&self, time: Duration) {
        self.counts[bucket(time)].fetch_add(1, Relaxed);
    }

    pub(crate) fn now(&self) -> Vec<u64> {
        self.counts
            .iter()
            .map(|count| count.load(Relaxed))
            .collect()
    }
}

fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    // The bits behind the highest one say where in its doubling a number is.
    let step = (u128::from(micros) << 3 >> octave) as u32 & (STEPS - 1);
    ((octave * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The upper end of a bucket, in microseconds.
fn upper(bucket: usize) -> f64 {
    let (octave, step) = (bucket as u32 / STEPS, bucket as u32 % STEPS);
    f64::from(STEPS + step + 1) / f64::from(STEPS) * 2_f64.powi(octave as i32)
}

/// What came between two times.
pub(crate) fn between(before: &[u64], after: &[u64]) -> Vec<u64> {
    let pairs = after.iter().zip(before.iter().chain(std::iter::repeat(&0)));
    pairs
        .map(|(after, before)| after.saturating_sub(*before))
        .collect()
}

/// The time, in microseconds, within which that share of the requests was answered.
pub(crate) fn quantile(counts: &[u64], share: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let wanted = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
    let mut seen = 0;
    let found = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    });
    found.map(upper)
}

/// The same as rows of a heat map, fastest first.
pub(crate) fn rows(counts: &[u64]) -> [u64; ROWS] {
    let mut rows = [0; ROWS];
    for (bucket, count) in counts.iter().enumerate() {
        let row = (bucket as u32 / STEPS).saturating_sub(LOWEST_ROW) as usize;
        rows[row.min(ROWS - 1)] += count;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_within_an_eighth() {
        for micros in [1, 2, 3, 9, 100, 1_000, 4_095, 4_096, 123_456, 9_999_999] {
            let latency = Latency::default();
            latency.add(Duration::from_micros(micros));
            let found = quantile(&latency.now(), 0.5).unwrap();
            let error = found / micros as f64;
            assert!(
                (1.0..=2.0).contains(&error) && (micros < 8 || error <= 1.13),
                "{micros}: {found}"
            );
        }
    }

    #[test]
    fn quantiles_divide_what_came_and_nothing_has_none() {
        let latency = Latency::default();
        assert_eq!(quantile(&latency.now(), 0.5), None);
        (0..99).for_each(|_| latency.add(Duration::from_micros(100)));
        let before = latency.now();
        latency.add(Duration::from_millis(100));
        let now = latency.now();
        assert!(quantile(&now, 0.99).unwrap() < 120.0);
        assert!(quantile(&now, 0.999).unwrap() > 99_000.0);
        assert_eq!(between(&before, &now).iter().sum::<u64>(), 1);
        assert!(quantile(&between(&before, &now), 0.5).unwrap() > 99_000.0);
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_place() {
        let latency = Latency::default();
        latency.add(Duration::ZERO);
        latency.add(Duration::MAX);
        let rows = rows(&latency.now());
        assert_eq!((rows[0], rows[ROWS - 1]), (1, 1));
    }
}
