//! A coarse scale of latencies: sixteen steps an octave, so at most 6 % wide each. Plain arithmetic, shared by the live
//! counters, the heat maps and the comparison; exact percentiles come from the HDR histograms.

/// Steps in all: two below a microsecond's octave, up to 137 seconds and beyond.
pub(crate) const STEPS: usize = (LAST_OCTAVE - FIRST_OCTAVE + 1) * PER_OCTAVE;

const PER_OCTAVE: usize = 16;
const FIRST_OCTAVE: usize = 9;
const LAST_OCTAVE: usize = 36;

/// The step that holds a latency; what is off the scale is in its first or last one.
pub(crate) fn step_of(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << FIRST_OCTAVE, (1 << (LAST_OCTAVE + 1)) - 1);
    let octave = nanos.ilog2() as usize;
    let within = (nanos >> (octave - 4)) as usize & (PER_OCTAVE - 1);
    (octave - FIRST_OCTAVE) * PER_OCTAVE + within
}

/// The least latency in a step, in nanoseconds; that of `STEPS` is the scale's end.
pub(crate) fn floor_of(step: usize) -> u64 {
    let (octave, within) = (FIRST_OCTAVE + step / PER_OCTAVE, step % PER_OCTAVE);
    ((PER_OCTAVE + within) as u64) << (octave - 4)
}

/// The latency below which a share of the counts lies, evenly spread within each step; 0 when there are none.
pub(crate) fn quantile(counts: &[u64], share: f64) -> f64 {
    let total: u64 = counts.iter().sum();
    let wanted = share * total as f64;
    let mut below = 0.0;
    for (step, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        if below + count >= wanted {
            let (floor, end) = (floor_of(step) as f64, floor_of(step + 1) as f64);
            return floor + (end - floor) * ((wanted - below) / count).clamp(0.0, 1.0);
        }
        below += count;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::{STEPS, floor_of, quantile, step_of};

    #[test]
    fn each_step_begins_where_the_one_before_ends() {
        for step in 0..STEPS {
            assert_eq!(step_of(floor_of(step)), step);
            assert_eq!(step_of(floor_of(step + 1) - 1), step);
            assert!(floor_of(step + 1) as f64 / floor_of(step) as f64 <= 1.0625);
        }
    }

    #[test]
    fn what_is_off_the_scale_is_in_its_first_or_last_step() {
        assert_eq!(step_of(0), 0);
        assert_eq!(step_of(u64::MAX), STEPS - 1);
    }

    #[test]
    fn a_quantile_is_found_within_its_step() {
        let mut counts = vec![0; STEPS];
        counts[step_of(1_000_000)] = 50;
        counts[step_of(9_000_000)] = 50;
        let median = quantile(&counts, 0.25);
        assert!((median / 1_000_000.0 - 1.0).abs() < 0.0625, "{median}");
        let late = quantile(&counts, 0.99);
        assert!((late / 9_000_000.0 - 1.0).abs() < 0.0625, "{late}");
        assert_eq!(quantile(&vec![0; STEPS], 0.5), 0.0);
    }
}
