//! When requests are due in an open loop: a sequence of instants that no answer can delay, computed one by one, so a
//! server that falls behind costs no memory here. And the pacer, which wakes at an instant and not a millisecond later.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::random::Random;

/// How requests are spread over a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arrivals {
    /// At random, as from many clients that know nothing of each other.
    Poisson,
    /// At equal distances.
    Even,
}

/// The due times of one thread.
pub(crate) struct Schedule {
    start: Instant,
    arrivals: Arrivals,
    /// Seconds between two requests of this thread.
    gap: f64,
    /// Seconds from the start to the next one.
    at: f64,
    random: Random,
    left: Option<u64>,
    end: Option<Instant>,
    next: Option<Instant>,
}

impl Schedule {
    /// `rate` is this thread's; `offset` is its first request's place among the threads, from 0 to 1.
    pub(crate) fn new(arrivals: Arrivals, rate: f64, offset: f64, seed: u64) -> Self {
        let gap = 1.0 / rate;
        let mut random = Random::new(seed);
        let at = match arrivals {
            Arrivals::Even => gap * offset,
            Arrivals::Poisson => -(1.0 - random.unit()).ln() * gap,
        };
        let start = Instant::now();
        Self {
            start,
            arrivals,
            gap,
            at,
            random,
            left: None,
            end: None,
            next: None,
        }
    }

    /// From now on; the last one is the `requests`th or the last before `end`.
    pub(crate) fn begin(&mut self, start: Instant, requests: Option<u64>, end: Option<Instant>) {
        (self.start, self.left, self.end) = (start, requests, end);
        self.advance();
    }

    /// The next one that nobody took; `None` behind the last.
    pub(crate) fn peek(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn take(&mut self) {
        self.at += match self.arrivals {
            Arrivals::Even => self.gap,
            Arrivals::Poisson => -(1.0 - self.random.unit()).ln() * self.gap,
        };
        self.advance();
    }

    fn advance(&mut self) {
        let due = self.start + Duration::from_secs_f64(self.at);
        let goes_on = self.left != Some(0) && self.end.is_none_or(|end| due < end);
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.next = goes_on.then_some(due);
    }

    /// Nothing is due any more.
    pub(crate) fn cut(&mut self) {
        self.next = None;
        self.left = Some(0);
    }

    /// Takes all that was due by then.
    pub(crate) fn take_due(&mut self, by: Instant) -> u64 {
        let mut taken = 0;
        while self.next.is_some_and(|next| next <= by) {
            self.take();
            taken += 1;
        }
        taken
    }
}

/// Waits for instants. tokio's timer counts in milliseconds, so the last stretch is left to one of the kernel's.
pub(crate) struct Pacer {
    #[cfg(target_os = "linux")]
    fine: Option<fine::Timer>,
}

impl Pacer {
    /// Exact to some microseconds on Linux, to a millisecond elsewhere.
    pub(crate) fn exact() -> io::Result<Self> {
        Ok(Self {
            #[cfg(target_os = "linux")]
            fine: Some(fine::Timer::new()?),
        })
    }

    /// By tokio's clock alone, which a test can pause.
    pub(crate) fn coarse() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            fine: None,
        }
    }

    pub(crate) async fn until(&mut self, due: Instant) {
        #[cfg(target_os = "linux")]
        if let Some(fine) = &mut self.fine {
            let left = due.saturating_duration_since(Instant::now());
            if !left.is_zero() && fine.sleep(left).await.is_ok() {
                return;
            }
        }
        sleep_until(due).await;
    }
}

#[cfg(target_os = "linux")]
mod fine {
    use std::io;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::pipe;

    /// A timer of the kernel's, as a descriptor of which eight bytes can be read when it has fired. To the runtime it is
    /// the reading end of a pipe: that is all a pipe's reader needs to be.
    pub(super) struct Timer(pipe::Receiver);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            pipe::Receiver::from_owned_fd_unchecked(timer).map(Self)
        }

        pub(super) async fn sleep(&mut self, time: Duration) -> io::Result<()> {
            let once = Itimerspec {
                it_interval: Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: Timespec {
                    tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: time.subsec_nanos().into(),
                },
            };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            let mut expirations = [0; 8];
            self.0.read_exact(&mut expirations).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Arrivals, Schedule};

    fn dues(mut schedule: Schedule, requests: Option<u64>, end: Option<Duration>) -> Vec<f64> {
        let start = Instant::now();
        schedule.begin(start, requests, end.map(|end| start + end));
        let mut dues = Vec::new();
        while let Some(due) = schedule.peek() {
            dues.push((due - start).as_secs_f64());
            schedule.take();
        }
        dues
    }

    #[test]
    fn even_arrivals_of_two_threads_interleave() {
        let first = dues(Schedule::new(Arrivals::Even, 50.0, 0.0, 1), Some(3), None);
        let second = dues(Schedule::new(Arrivals::Even, 50.0, 0.5, 2), Some(3), None);
        let near = |dues: &[f64], wanted: &[f64]| {
            dues.len() == wanted.len() && dues.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6)
        };
        assert!(near(&first, &[0.00, 0.02, 0.04]), "{first:?}");
        assert!(near(&second, &[0.01, 0.03, 0.05]), "{second:?}");
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_spread() {
        let dues = dues(
            Schedule::new(Arrivals::Poisson, 1000.0, 0.0, 7),
            None,
            Some(Duration::from_secs(100)),
        );
        let count = dues.len() as f64;
        assert!((count - 100_000.0).abs() < 1_000.0, "{count}");
        // Exponential gaps: the standard deviation is the mean.
        let gaps: Vec<f64> = dues.windows(2).map(|two| two[1] - two[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((spread.sqrt() / mean - 1.0).abs() < 0.02);
    }

    #[test]
    fn none_is_due_at_the_end_or_behind_it() {
        let dues = dues(
            Schedule::new(Arrivals::Even, 10.0, 0.0, 1),
            None,
            Some(Duration::from_secs(1)),
        );
        assert_eq!(dues.len(), 10);
    }
}
