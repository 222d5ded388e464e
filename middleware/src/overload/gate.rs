//! The gate: how many are inside, who waits at it, who is sent away. It knows nothing of HTTP or of why its limit moves.
//!
//! Who is inside and how many wait are one atomic word, so that a request that finds room takes no lock.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A counting gate with a bounded queue, first come, first served.
pub(super) struct Gate {
    counts: AtomicU64,
    limit: AtomicUsize,
    /// `None`: twice the limit, as it is at the time.
    places: Option<usize>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    next_ticket: u64,
    /// Sorted by ticket; those let in already come first.
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    ticket: u64,
    let_in: bool,
    waker: Option<Waker>,
}

/// What the gate says to somebody who comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Come in; counted until [`Gate::leave`].
    Inside,
    /// Wait with this ticket, until [`Gate::poll_turn`] or [`Gate::give_up`].
    Ticket(u64),
    /// The queue is full.
    Full,
}

/// The two counts, as one word.
#[derive(Clone, Copy)]
struct Counts {
    inside: u32,
    waiting: u32,
}

impl From<u64> for Counts {
    fn from(word: u64) -> Self {
        Self {
            inside: (word >> 32) as u32,
            waiting: word as u32,
        }
    }
}

impl From<Counts> for u64 {
    fn from(counts: Counts) -> Self {
        (u64::from(counts.inside) << 32) | u64::from(counts.waiting)
    }
}

impl Gate {
    pub(super) fn new(limit: usize, places: Option<usize>) -> Self {
        Self {
            counts: AtomicU64::new(0),
            limit: AtomicUsize::new(limit),
            places,
            queue: Mutex::default(),
        }
    }

    pub(super) fn inside(&self) -> usize {
        self.read().inside as usize
    }

    pub(super) fn waiting(&self) -> usize {
        self.read().waiting as usize
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Comes to the gate. Nobody overtakes those who wait already.
    pub(super) fn enter(&self) -> Entry {
        if self.step_in() {
            return Entry::Inside;
        }
        let places = self.places.unwrap_or_else(|| self.limit() * 2);
        let mut queue = self.lock();
        // Under the lock, for only here does the number of those who wait grow.
        if self.step_in() {
            return Entry::Inside;
        }
        if self.waiting() >= places {
            return Entry::Full;
        }
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back(Waiter {
            ticket,
            let_in: false,
            waker: None,
        });
        self.change(|counts| {
            Some(Counts {
                waiting: counts.waiting + 1,
                ..counts
            })
        });
        drop(queue);
        // Whoever left between the look and the change saw nobody waiting.
        self.let_in();
        Entry::Ticket(ticket)
    }

    /// Whether this ticket's turn has come; then its holder is inside.
    pub(super) fn poll_turn(&self, ticket: u64, waker: &Waker) -> Poll<()> {
        let mut queue = self.lock();
        let Some(at) = queue.find(ticket) else {
            return Poll::Ready(());
        };
        if queue.waiting[at].let_in {
            queue.waiting.remove(at);
            return Poll::Ready(());
        }
        let known = &mut queue.waiting[at].waker;
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        Poll::Pending
    }

    /// Leaves the queue before, or just when, the turn came.
    pub(super) fn give_up(&self, ticket: u64) {
        let mut queue = self.lock();
        let Some(waiter) = queue.find(ticket).and_then(|at| queue.waiting.remove(at)) else {
            return;
        };
        if !waiter.let_in {
            self.change(|counts| {
                Some(Counts {
                    waiting: counts.waiting.saturating_sub(1),
                    ..counts
                })
            });
        }
        drop(queue);
        if waiter.let_in {
            self.leave();
        }
    }

    /// Goes out; the next in the queue comes in.
    pub(super) fn leave(&self) {
        let before = self.change(|counts| {
            Some(Counts {
                inside: counts.inside.saturating_sub(1),
                ..counts
            })
        });
        if before.is_some_and(|before| before.waiting > 0) {
            self.let_in();
        }
    }

    /// Moves the limit. Those inside stay; there may be more of them than the new limit for a while.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, SeqCst);
        if self.waiting() > 0 {
            self.let_in();
        }
    }

    /// Takes a free place, if there is one and nobody waits for it.
    fn step_in(&self) -> bool {
        let limit = self.limit();
        self.change(|counts| {
            let free = counts.waiting == 0 && (counts.inside as usize) < limit;
            free.then(|| Counts {
                inside: counts.inside + 1,
                ..counts
            })
        })
        .is_some()
    }

    /// Lets in from the front of the queue as many as there is room for.
    fn let_in(&self) {
        loop {
            let mut queue = self.lock();
            let Some(next) = queue.waiting.iter_mut().find(|waiter| !waiter.let_in) else {
                return;
            };
            let limit = self.limit();
            let moved = self.change(|counts| {
                let room = counts.waiting > 0 && (counts.inside as usize) < limit;
                room.then(|| Counts {
                    inside: counts.inside + 1,
                    waiting: counts.waiting - 1,
                })
            });
            if moved.is_none() {
                return;
            }
            next.let_in = true;
            let waker = next.waker.take();
            drop(queue);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The counts before the change; `None` if `change` declined.
    fn change(&self, change: impl Fn(Counts) -> Option<Counts>) -> Option<Counts> {
        self.counts
            .fetch_update(SeqCst, SeqCst, |word| change(word.into()).map(u64::from))
            .ok()
            .map(Counts::from)
    }

    fn read(&self) -> Counts {
        self.counts.load(SeqCst).into()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn find(&self, ticket: u64) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .ok()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("inside", &self.inside())
            .field("waiting", &self.waiting())
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn turn(gate: &Gate, ticket: u64) -> bool {
        gate.poll_turn(ticket, Waker::noop()).is_ready()
    }

    #[test]
    fn the_limit_comes_in_twice_as_many_wait_and_the_next_is_sent_away() {
        let gate = Gate::new(2, None);
        let entries: Vec<_> = (0..7).map(|_| gate.enter()).collect();
        assert_eq!(
            entries,
            [
                Entry::Inside,
                Entry::Inside,
                Entry::Ticket(0),
                Entry::Ticket(1),
                Entry::Ticket(2),
                Entry::Ticket(3),
                Entry::Full,
            ]
        );
        assert_eq!((gate.inside(), gate.waiting()), (2, 4));
    }

    #[test]
    fn first_come_first_served() {
        let gate = Gate::new(1, None);
        assert_eq!(gate.enter(), Entry::Inside);
        assert_eq!(gate.enter(), Entry::Ticket(0));
        assert_eq!(gate.enter(), Entry::Ticket(1));
        gate.leave();
        assert!(!turn(&gate, 1));
        assert!(turn(&gate, 0));
        assert_eq!((gate.inside(), gate.waiting()), (1, 1));
    }

    #[test]
    fn who_gives_up_leaves_no_trace() {
        let gate = Gate::new(1, None);
        assert_eq!(gate.enter(), Entry::Inside);
        for ticket in 0..3 {
            let _ = gate.enter();
            gate.give_up(ticket);
        }
        assert_eq!((gate.inside(), gate.waiting()), (1, 0));
        assert!(gate.lock().waiting.is_empty());
    }

    #[test]
    fn who_gives_up_when_the_turn_had_come_passes_it_on() {
        let gate = Gate::new(1, None);
        assert_eq!(gate.enter(), Entry::Inside);
        assert_eq!(gate.enter(), Entry::Ticket(0));
        assert_eq!(gate.enter(), Entry::Ticket(1));
        gate.leave();
        gate.give_up(0);
        assert!(turn(&gate, 1));
        assert_eq!((gate.inside(), gate.waiting()), (1, 0));
    }

    #[test]
    fn a_higher_limit_lets_in_and_a_lower_one_waits_for_the_leavers() {
        let gate = Gate::new(1, Some(4));
        let _ = (gate.enter(), gate.enter(), gate.enter());
        gate.set_limit(3);
        assert!(turn(&gate, 0) && turn(&gate, 1));
        gate.set_limit(1);
        assert_eq!(gate.enter(), Entry::Ticket(2));
        gate.leave();
        gate.leave();
        assert!(!turn(&gate, 2), "one is inside, and one is the limit");
        gate.leave();
        assert!(turn(&gate, 2));
    }

    #[test]
    fn threads_that_come_and_go_leave_it_empty() {
        let gate = Arc::new(Gate::new(3, Some(2)));
        let most = Arc::new(AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                let (gate, most) = (gate.clone(), most.clone());
                scope.spawn(move || {
                    for round in 0..5_000 {
                        match gate.enter() {
                            Entry::Inside => {}
                            Entry::Ticket(ticket) if round % 3 == 0 => {
                                gate.give_up(ticket);
                                continue;
                            }
                            Entry::Ticket(ticket) => {
                                while !turn(&gate, ticket) {
                                    thread::yield_now();
                                }
                            }
                            Entry::Full => continue,
                        }
                        most.fetch_max(gate.inside(), Relaxed);
                        gate.leave();
                    }
                });
            }
        });
        assert_eq!((gate.inside(), gate.waiting()), (0, 0));
        assert!(gate.lock().waiting.is_empty());
        assert!((1..=3).contains(&most.load(Relaxed)));
    }
}
