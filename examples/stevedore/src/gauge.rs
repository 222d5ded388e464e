//! What a thread tells while it works: counters that it alone writes and anybody reads, without a lock. They are for
//! looking at and for the timeline; each is right by itself, together they may be a request apart.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::fault::FaultKind;
use crate::grid::{self, STEPS};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    Connecting,
    Idle,
    Waiting,
    Receiving,
}

/// One thread's counters.
#[derive(Debug)]
pub(crate) struct Gauge {
    answered: AtomicU64,
    received: AtomicU64,
    connects: AtomicU64,
    late: AtomicU64,
    states: [AtomicU64; 4],
    classes: [AtomicU64; 5],
    faults: [AtomicU64; FaultKind::ALL.len()],
    grid: [AtomicU64; STEPS],
}

/// The counters of all threads at one time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) answered: u64,
    pub(crate) received: u64,
    pub(crate) connects: u64,
    pub(crate) late: u64,
    /// Connecting, idle, waiting, receiving.
    pub(crate) states: [u64; 4],
    /// Statuses of 100, 200, 300, 400 and 500.
    pub(crate) classes: [u64; 5],
    pub(crate) faults: [u64; FaultKind::ALL.len()],
    pub(crate) grid: Box<[u64]>,
}

/// One writer: load and store are cheaper than a locked addition.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

impl Gauge {
    pub(crate) fn new() -> Self {
        Self {
            answered: AtomicU64::new(0),
            received: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            late: AtomicU64::new(0),
            states: zeros(),
            classes: zeros(),
            faults: zeros(),
            grid: zeros(),
        }
    }

    pub(crate) fn answered(&self, status: u16, latency_nanos: u64) {
        add(&self.answered, 1);
        add(&self.classes[usize::from(status / 100 - 1).min(4)], 1);
        add(&self.grid[grid::step_of(latency_nanos)], 1);
    }

    pub(crate) fn failed(&self, kind: FaultKind, requests: u64) {
        add(&self.faults[kind as usize], requests);
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.received, bytes as u64);
    }

    pub(crate) fn connected(&self) {
        add(&self.connects, 1);
    }

    pub(crate) fn late(&self, requests: u64) {
        add(&self.late, requests);
    }

    /// A connection goes from what it did to what it does.
    pub(crate) fn moves(&self, from: &mut State, to: State) {
        if *from != to {
            if let Some(left) = (*from as usize).checked_sub(1) {
                add(&self.states[left], u64::MAX);
            }
            if let Some(entered) = (to as usize).checked_sub(1) {
                add(&self.states[entered], 1);
            }
            *from = to;
        }
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            answered: 0,
            received: 0,
            connects: 0,
            late: 0,
            states: [0; 4],
            classes: [0; 5],
            faults: [0; FaultKind::ALL.len()],
            grid: vec![0; STEPS].into_boxed_slice(),
        }
    }
}

impl Reading {
    pub(crate) fn of<'a>(gauges: impl IntoIterator<Item = &'a Gauge>) -> Self {
        let mut sum = Self::default();
        let read = |into: &mut [u64], from: &[AtomicU64]| {
            for (into, from) in into.iter_mut().zip(from) {
                *into += from.load(Relaxed);
            }
        };
        for gauge in gauges {
            sum.answered += gauge.answered.load(Relaxed);
            sum.received += gauge.received.load(Relaxed);
            sum.connects += gauge.connects.load(Relaxed);
            sum.late += gauge.late.load(Relaxed);
            read(&mut sum.states, &gauge.states);
            read(&mut sum.classes, &gauge.classes);
            read(&mut sum.faults, &gauge.faults);
            read(&mut sum.grid, &gauge.grid);
        }
        sum
    }

    pub(crate) fn failed(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// What happened between an earlier reading and this one; the states are those of now.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut gone = self.clone();
        let less = |from: &mut [u64], by: &[u64]| {
            for (from, by) in from.iter_mut().zip(by) {
                *from = from.saturating_sub(*by);
            }
        };
        gone.answered -= earlier.answered;
        gone.received -= earlier.received;
        gone.connects -= earlier.connects;
        gone.late -= earlier.late;
        less(&mut gone.classes, &earlier.classes);
        less(&mut gone.faults, &earlier.faults);
        less(&mut gone.grid, &earlier.grid);
        gone
    }
}
