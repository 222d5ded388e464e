//! What this client itself costs, so that nobody takes its limit for the server's.

use std::time::Duration;

/// CPU time of a thread, and time in which it wanted a core and got none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Linux alone tells.
    pub(crate) starved: Duration,
}

impl Usage {
    pub(crate) fn of_this_thread() -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Self {
            cpu: Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec.unsigned_abs() as u32),
            starved: starved().unwrap_or_default(),
        }
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            starved: self.starved.saturating_sub(earlier.starved),
        }
    }
}

/// The scheduler's account: time on a core, time in the queue for one, in nanoseconds.
fn starved() -> Option<Duration> {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    account
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

/// The client's share in what was measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overhead {
    /// One entry a thread, over the time that was measured.
    pub(crate) threads: Vec<Usage>,
    /// The thread that reads the gauges and draws.
    pub(crate) drawing: Usage,
    pub(crate) elapsed: Duration,
}

/// Above that share of the time, a thread had no room left.
const FULL: f64 = 0.90;

impl Overhead {
    fn share(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The largest share of the time that a thread was on a core.
    pub(crate) fn busiest(&self) -> f64 {
        self.threads
            .iter()
            .map(|usage| self.share(usage.cpu))
            .fold(0.0, f64::max)
    }

    /// The largest share of the time that a thread waited for a core.
    pub(crate) fn starved(&self) -> f64 {
        self.threads
            .iter()
            .map(|usage| self.share(usage.starved))
            .fold(0.0, f64::max)
    }

    pub(crate) fn drawing(&self) -> f64 {
        self.share(self.drawing.cpu)
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.threads.iter().map(|usage| usage.cpu).sum()
    }

    /// Whether the client itself was the limit, in a sentence.
    pub(crate) fn bottleneck(&self) -> Option<String> {
        let wants = |usage: &Usage| self.share(usage.cpu + usage.starved);
        let full = self
            .threads
            .iter()
            .filter(|usage| wants(usage) > FULL)
            .count();
        if full == 0 || self.elapsed < Duration::from_millis(50) {
            return None;
        }
        let (busy, starved) = (self.busiest() * 100.0, self.starved() * 100.0);
        Some(if starved > 25.0 {
            format!(
                "stevedore itself is the bottleneck: its threads waited up to {starved:.0} % of the time for a core. \
                 The machine is full; run the client elsewhere, or with fewer --threads, before blaming the server."
            )
        } else {
            format!(
                "stevedore itself is the bottleneck: {full} of its {} threads had no time left (up to {busy:.0} % busy). \
                 The server can do more than this; give stevedore more --threads.",
                self.threads.len()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Overhead, Usage};
    use std::time::Duration;

    fn overhead(cpu: u64, starved: u64) -> Overhead {
        Overhead {
            threads: vec![Usage {
                cpu: Duration::from_millis(cpu),
                starved: Duration::from_millis(starved),
            }],
            drawing: Usage::default(),
            elapsed: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_thread_without_time_left_is_the_bottleneck() {
        assert_eq!(overhead(900, 0).bottleneck(), None);
        let busy = overhead(901, 0).bottleneck().unwrap();
        assert!(busy.contains("more --threads"), "{busy}");
        let starved = overhead(500, 450).bottleneck().unwrap();
        assert!(starved.contains("The machine is full"), "{starved}");
    }

    #[test]
    fn a_thread_that_works_uses_time() {
        let before = Usage::of_this_thread();
        let mut sum = 0u64;
        while Usage::of_this_thread().since(before).cpu < Duration::from_millis(1) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
