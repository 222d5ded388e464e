//! Which requests a thread's connections send next: as many as are left, or those that are due. Nobody else decides it.

use std::cell::{Cell, RefCell};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::plan::{Load, Plan, Share};
use crate::schedule::{Pacer, Schedule};

/// A thread's supply of requests.
pub(crate) enum Source {
    /// `None`: without end.
    Closed { left: Cell<Option<u64>> },
    Open {
        schedule: RefCell<Schedule>,
        /// A request is due and an idle connection should take it.
        due: Notify,
        /// Somebody took what was due.
        taken: Notify,
    },
}

impl Source {
    pub(crate) fn new(plan: &Plan, share: &Share) -> Self {
        match plan.load {
            Load::Closed => Self::Closed {
                left: Cell::new(share.requests),
            },
            Load::Open { rate, arrivals } => {
                let place = share.thread as f64 / plan.threads as f64;
                let seed = plan.seed.wrapping_add(share.thread as u64);
                let rate = rate / plan.threads as f64;
                Self::Open {
                    schedule: RefCell::new(Schedule::new(arrivals, rate, place, seed)),
                    due: Notify::new(),
                    taken: Notify::new(),
                }
            }
        }
    }

    pub(crate) fn begin(&self, start: Instant, requests: Option<u64>, end: Option<Instant>) {
        if let Self::Open { schedule, .. } = self {
            schedule.borrow_mut().begin(start, requests, end);
        }
    }

    /// Puts at least one and at most so many due times into `dues`, as soon as it can; `false` when there will be none.
    /// In a closed loop a request is due when the answer before it was whole, at `now`. `idle` is called before a wait.
    pub(crate) async fn take(
        &self,
        most: usize,
        now: Instant,
        dues: &mut Vec<Instant>,
        mut idle: impl FnMut(),
    ) -> bool {
        match self {
            Self::Closed { left } => {
                let most = most as u64;
                let taken = left.get().map_or(most, |left| left.min(most));
                left.set(left.get().map(|left| left - taken));
                dues.extend((0..taken).map(|_| now));
                taken > 0
            }
            Self::Open {
                schedule,
                due,
                taken,
            } => loop {
                {
                    let (mut schedule, now) = (schedule.borrow_mut(), Instant::now());
                    while let Some(next) = schedule
                        .peek()
                        .filter(|next| *next <= now && dues.len() < most)
                    {
                        dues.push(next);
                        schedule.take();
                    }
                    if !dues.is_empty() {
                        taken.notify_one();
                        return true;
                    }
                    if schedule.peek().is_none() {
                        return false;
                    }
                }
                idle();
                due.notified().await;
            },
        }
    }

    /// Wakes an idle connection whenever a request is due, until none will be. A closed loop needs no waking.
    pub(crate) async fn pace(&self, mut pacer: Pacer) {
        let Self::Open {
            schedule,
            due,
            taken,
        } = self
        else {
            return;
        };
        loop {
            let Some(next) = schedule.borrow().peek() else {
                break;
            };
            pacer.until(next).await;
            if schedule.borrow().peek() == Some(next) {
                due.notify_one();
                taken.notified().await;
            }
        }
        due.notify_waiters();
        taken.notify_one();
    }

    /// Nothing more is due. Says how many requests were due and nobody could take.
    pub(crate) fn cut(&self) -> u64 {
        match self {
            Self::Closed { left } => {
                left.set(Some(0));
                0
            }
            Self::Open {
                schedule,
                due,
                taken,
            } => {
                let mut schedule = schedule.borrow_mut();
                let untaken = schedule.take_due(Instant::now());
                schedule.cut();
                due.notify_waiters();
                taken.notify_one();
                untaken
            }
        }
    }
}
