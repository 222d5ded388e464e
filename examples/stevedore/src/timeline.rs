//! How a run went over time: slices of equal length, of which there are never more than 600. When they are full, two
//! and two become one, so an hour costs no more than a minute.

use std::time::Duration;

use crate::gauge::Reading;

/// How long a slice is at first, and so how often the gauges are read.
pub(crate) const TICK: Duration = Duration::from_millis(100);

const MOST: usize = 600;

/// What happened between two times of a run.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) events: Reading,
}

/// All slices of a run so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    slices: Vec<Slice>,
    /// Ticks a slice.
    ticks: u32,
    /// Ticks in the last slice.
    within: u32,
    last: Reading,
}

impl Timeline {
    pub(crate) fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// The counters as they were read last.
    pub(crate) fn last(&self) -> &Reading {
        &self.last
    }

    /// Takes a reading at a time since the run's start.
    pub(crate) fn push(&mut self, at: Duration, reading: Reading) {
        let events = reading.since(&self.last);
        let from = self.slices.last().map_or(Duration::ZERO, |last| last.to);
        self.last = reading;
        match self.slices.last_mut() {
            Some(last) if self.within < self.ticks => {
                last.join(&Slice {
                    from,
                    to: at,
                    events,
                });
                self.within += 1;
            }
            _ => {
                self.slices.push(Slice {
                    from,
                    to: at,
                    events,
                });
                self.within = 1;
                self.ticks = self.ticks.max(1);
            }
        }
        if self.slices.len() > MOST {
            self.halve();
        }
    }

    /// Takes the last reading. What is too short for a rate of its own becomes a part of the slice before it.
    pub(crate) fn finish(&mut self, at: Duration, reading: Reading) {
        match self.slices.last_mut() {
            Some(last) if at < last.to + TICK / 2 => {
                last.join(&Slice {
                    from: last.to,
                    to: at.max(last.to),
                    events: reading.since(&self.last),
                });
                self.last = reading;
            }
            _ => self.push(at.max(Duration::from_micros(1)), reading),
        }
    }

    fn halve(&mut self) {
        let alone = self.slices.len() % 2 == 1;
        self.slices = self
            .slices
            .chunks(2)
            .map(|pair| {
                let mut first = pair[0].clone();
                if let Some(second) = pair.get(1) {
                    first.join(second);
                }
                first
            })
            .collect();
        self.within = if alone { self.within } else { self.ticks * 2 };
        self.ticks *= 2;
    }
}

impl Slice {
    /// Takes a later slice into this one.
    pub(crate) fn join(&mut self, later: &Self) {
        self.to = later.to;
        let (into, from) = (&mut self.events, &later.events);
        into.answered += from.answered;
        into.received += from.received;
        into.connects += from.connects;
        into.late += from.late;
        into.states = from.states;
        let add = |into: &mut [u64], from: &[u64]| {
            for (into, from) in into.iter_mut().zip(from) {
                *into += from;
            }
        };
        add(&mut into.classes, &from.classes);
        add(&mut into.faults, &from.faults);
        add(&mut into.grid, &from.grid);
    }

    pub(crate) fn seconds(&self) -> f64 {
        (self.to - self.from).as_secs_f64()
    }

    /// Faults, and answers with a status of 400 and above.
    pub(crate) fn errors(&self) -> u64 {
        self.events.failed() + self.events.classes[3] + self.events.classes[4]
    }

    pub(crate) fn rate(&self) -> f64 {
        self.events.answered as f64 / self.seconds().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{MOST, TICK, Timeline};
    use crate::gauge::Reading;

    fn run(ticks: u32) -> Timeline {
        let mut timeline = Timeline::default();
        for tick in 1..=ticks {
            let reading = Reading {
                answered: u64::from(tick) * 10,
                ..Reading::default()
            };
            timeline.push(TICK * tick, reading);
        }
        timeline
    }

    #[test]
    fn a_long_run_has_few_slices_and_loses_nothing() {
        for ticks in [1, 599, 600, 601, 1_202, 5_000, 12_345] {
            let timeline = run(ticks);
            let slices = timeline.slices();
            assert!(slices.len() <= MOST, "{ticks}: {}", slices.len());
            let answered: u64 = slices.iter().map(|slice| slice.events.answered).sum();
            assert_eq!(answered, u64::from(ticks) * 10);
            assert!(slices.windows(2).all(|two| two[0].to == two[1].from));
            assert_eq!(slices.last().map(|last| last.to), Some(TICK * ticks));
        }
    }

    #[test]
    fn slices_but_the_last_have_one_length() {
        let timeline = run(1_999);
        let (last, full) = timeline.slices().split_last().unwrap();
        assert!(
            full.iter().all(|slice| slice.to - slice.from == TICK * 4),
            "{last:?}"
        );
    }

    #[test]
    fn a_leftover_becomes_a_part_of_the_slice_before_it() {
        let reading = |answered| Reading {
            answered,
            ..Reading::default()
        };
        for (over, slices) in [(0, 3), (49, 3), (50, 4), (51, 4)] {
            let mut timeline = run(3);
            let at = TICK * 3 + Duration::from_millis(over);
            timeline.finish(at, reading(31));
            assert_eq!(timeline.slices().len(), slices, "{over} ms");
            assert_eq!(timeline.slices().last().map(|last| last.to), Some(at));
            let answered = timeline.slices().iter().map(|slice| slice.events.answered);
            assert_eq!(answered.sum::<u64>(), 31);
        }
        let mut timeline = Timeline::default();
        timeline.finish(Duration::ZERO, reading(1));
        assert_eq!(timeline.slices().len(), 1);
    }
}
