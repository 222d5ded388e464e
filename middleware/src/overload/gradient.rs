//! The limit that finds itself: how long responses take now against how long they take when few are under way.
//!
//! Little's law says that more in flight than the service can work on only makes each wait longer. So, window by window:
//! latency as at low load, and the limit is in use: raise it by its square root. Latency above that by more than the
//! tolerance: lower it in proportion. What latency at low load is gets measured where the load is low, or by halving the
//! limit for a moment; an average alone would drift up with the very overload that it should show.
//!
//! The idea is TCP Vegas', by way of Netflix's concurrency-limits and Envoy's adaptive concurrency filter.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest window, and how many responses it must have seen.
const WINDOW: Duration = Duration::from_millis(100);
const SAMPLES: u64 = 16;

/// By how much latency may be above the baseline before the limit falls.
const TOLERANCE: f64 = 1.5;

/// Never to less than half in one window.
const STEEPEST: f64 = 0.5;

/// How long a baseline is believed; one that has just moved is looked at again soon.
const BELIEVED: Duration = Duration::from_secs(15);
const DOUBTED: Duration = Duration::from_secs(1);

/// That many windows at the lowest limit, and the service itself has become slower.
const AT_FLOOR: u32 = 5;

#[derive(Debug)]
pub(super) struct Gradient {
    floor: usize,
    ceiling: usize,
    samples: AtomicU64,
    total_nanos: AtomicU64,
    /// The most in flight that this window has seen.
    peak: AtomicUsize,
    baseline_nanos: AtomicU64,
    course: Mutex<Course>,
}

#[derive(Debug)]
struct Course {
    window_ends: Instant,
    limit: f64,
    at_floor: u32,
    look: Look,
}

/// How the baseline is being watched.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Look {
    /// To be measured again then.
    Next(Instant),
    /// The limit is halved; what was admitted before is still leaving.
    Emptying,
    /// The limit is halved, and this window sees only what was admitted since.
    Measuring,
}

impl Gradient {
    pub(super) fn new(start: usize, floor: usize, ceiling: usize) -> Self {
        let now = Instant::now();
        Self {
            floor,
            ceiling,
            samples: AtomicU64::new(0),
            total_nanos: AtomicU64::new(0),
            peak: AtomicUsize::new(0),
            baseline_nanos: AtomicU64::new(0),
            course: Mutex::new(Course {
                window_ends: now + WINDOW,
                limit: start as f64,
                at_floor: 0,
                look: Look::Next(now + DOUBTED),
            }),
        }
    }

    /// A request got in, and with it that many are in flight.
    pub(super) fn entered(&self, in_flight: usize) {
        self.peak.fetch_max(in_flight, Relaxed);
    }

    /// A response came after `took`. Returns the new limit at the end of a window.
    pub(super) fn answered(&self, took: Duration, now: Instant) -> Option<usize> {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX >> 16);
        self.total_nanos.fetch_add(nanos.max(1), Relaxed);
        let samples = self.samples.fetch_add(1, Relaxed) + 1;
        if samples < SAMPLES {
            return None;
        }
        // Whoever finds it locked leaves the window to the one who has it.
        let mut course = self.course.try_lock().ok()?;
        if now < course.window_ends {
            return None;
        }
        let samples = self.samples.swap(0, Relaxed).max(1);
        let mean = self.total_nanos.swap(0, Relaxed) as f64 / samples as f64;
        let peak = self.peak.swap(0, Relaxed);
        course.window_ends = now + WINDOW;
        Some(self.close_window(&mut course, mean, peak, now))
    }

    /// A request failed or was given up after `took`: quick failures say nothing about load, slow ones do.
    pub(super) fn failed(&self, took: Duration, now: Instant) -> Option<usize> {
        let slow = took.as_nanos() > u128::from(self.baseline_nanos.load(Relaxed));
        slow.then(|| self.answered(took, now)).flatten()
    }

    fn close_window(&self, course: &mut Course, mean: f64, peak: usize, now: Instant) -> usize {
        let before = self.baseline_nanos.load(Relaxed) as f64;
        let lightly_used = (peak as f64) * 2.0 <= course.limit;
        match course.look {
            Look::Emptying => {
                course.look = Look::Measuring;
                return self.halved(course.limit);
            }
            Look::Measuring => {
                self.believe(course, mean, before, now);
                return self.within(course.limit) as usize;
            }
            // As good as a measurement, and nobody had to wait for it.
            Look::Next(_) if lightly_used => {
                let smooth = if before == 0.0 {
                    mean
                } else {
                    (before + mean) / 2.0
                };
                self.believe(course, smooth, before, now);
                return self.within(course.limit) as usize;
            }
            Look::Next(at) => {
                self.adjust(course, mean, before, now);
                if now >= at {
                    course.look = Look::Emptying;
                    return self.halved(course.limit);
                }
            }
        }
        self.within(course.limit) as usize
    }

    /// Takes `mean` for the latency at low load.
    fn believe(&self, course: &mut Course, mean: f64, before: f64, now: Instant) {
        self.baseline_nanos.store(mean as u64, Relaxed);
        let moved = before == 0.0 || mean < before * 0.9;
        course.look = Look::Next(now + if moved { DOUBTED } else { BELIEVED });
        course.at_floor = 0;
    }

    /// One step of the limit, and of the baseline if it was seen to be lower.
    fn adjust(&self, course: &mut Course, mean: f64, before: f64, now: Instant) {
        let baseline = if before == 0.0 {
            mean
        } else {
            before.min(mean)
        };
        self.baseline_nanos.store(baseline as u64, Relaxed);
        let gradient = (TOLERANCE * baseline / mean).clamp(STEEPEST, 1.0);
        course.limit = self.within(course.limit * gradient + course.limit.sqrt());

        // Half of it and its root: that stands still at four.
        let lowest = (self.floor as f64).max(4.0);
        let at_floor = gradient <= STEEPEST && course.limit < lowest + 1.0;
        course.at_floor = if at_floor { course.at_floor + 1 } else { 0 };
        if course.at_floor >= AT_FLOOR {
            self.believe(course, mean, before, now);
        }
    }

    fn within(&self, limit: f64) -> f64 {
        limit.clamp(self.floor as f64, self.ceiling as f64)
    }

    fn halved(&self, limit: f64) -> usize {
        self.within(limit / 2.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(10);
    const SERVERS: usize = 8;

    /// Latency of `SERVERS` that work `base` on each of `in_flight` requests.
    fn latency(base: Duration, in_flight: usize) -> Duration {
        base.mul_f64((in_flight as f64 / SERVERS as f64).max(1.0))
    }

    /// Feeds windows of a load that always fills the limit; returns the last limit.
    fn saturate(
        gradient: &Gradient,
        mut limit: usize,
        base: Duration,
        windows: usize,
        now: &mut Instant,
    ) -> usize {
        for _ in 0..windows {
            *now += WINDOW;
            gradient.entered(limit);
            for _ in 0..SAMPLES {
                if let Some(new) = gradient.answered(latency(base, limit), *now) {
                    limit = new;
                }
            }
        }
        limit
    }

    #[tokio::test(start_paused = true)]
    async fn it_settles_a_little_above_what_the_service_works_on() {
        let mut now = Instant::now();
        for start in [3, 10, 100] {
            let gradient = Gradient::new(start, 3, 1_000);
            let mut limits = Vec::new();
            let mut limit = saturate(&gradient, start, BASE, 200, &mut now);
            for _ in 0..300 {
                limit = saturate(&gradient, limit, BASE, 1, &mut now);
                limits.push(limit);
            }
            limits.sort_unstable();
            let median = limits[limits.len() / 2];
            assert!(
                (SERVERS..=SERVERS * 3).contains(&median),
                "from {start}: {limits:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_rises_while_latency_stays_as_it_was() {
        let gradient = Gradient::new(3, 3, 50);
        let mut now = Instant::now();
        let mut limit = 3;
        for _ in 0..50 {
            now += WINDOW;
            gradient.entered(limit);
            for _ in 0..SAMPLES {
                limit = gradient.answered(BASE, now).unwrap_or(limit);
            }
        }
        assert_eq!(limit, 50, "and stops at its ceiling");
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_rise_unused() {
        let gradient = Gradient::new(20, 3, 1_000);
        let mut now = Instant::now();
        for _ in 0..50 {
            now += WINDOW;
            gradient.entered(10);
            for _ in 0..SAMPLES {
                if let Some(limit) = gradient.answered(BASE, now) {
                    assert_eq!(limit, 20);
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_became_slower_is_believed_after_a_while() {
        let gradient = Gradient::new(10, 3, 1_000);
        let mut now = Instant::now();
        let limit = saturate(&gradient, 10, BASE, 200, &mut now);
        let limit = saturate(&gradient, limit, BASE * 10, 200, &mut now);
        assert!((SERVERS..=SERVERS * 3).contains(&limit), "{limit}");
    }

    #[tokio::test(start_paused = true)]
    async fn quick_failures_say_nothing() {
        let gradient = Gradient::new(10, 3, 1_000);
        let mut now = Instant::now();
        saturate(&gradient, 10, BASE, 20, &mut now);
        let samples = gradient.samples.load(Relaxed);
        gradient.failed(Duration::from_micros(1), now);
        assert_eq!(gradient.samples.load(Relaxed), samples);
        gradient.failed(Duration::from_secs(1), now);
        assert_eq!(gradient.samples.load(Relaxed), samples + 1);
    }
}
