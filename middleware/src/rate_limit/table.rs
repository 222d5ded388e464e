//! What is remembered of each key: a tag and a time, in one atomic word. A table of fixed size, without locks.
//!
//! GCRA needs one time a key: when its budget will be full again (the *theoretical arrival time*). Eight words make a
//! set, one cache line; a key may be in either of two sets, chosen by its keyed hash. When both are full the key that is
//! nearest to a full budget is forgotten: that gives somebody more than their rate, never less.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Slots of a set; together a cache line.
const WAYS: usize = 8;

/// Sets of a page, which is allocated when it is first touched: 4 KiB.
const SETS: usize = 64;

/// A slot's low bits are the time, its high bits the tag. Zero is a slot that was never used.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

type Page = Box<[[AtomicU64; WAYS]; SETS]>;

/// How much each key has used lately.
pub(super) struct Table {
    pages: Box<[OnceLock<Page>]>,
    sets: u64,
    /// What a request costs, and what may be owed at most: in ticks, of which a cost has `TICKS`.
    most_owed: u64,
}

/// Ticks of the time that one request costs.
pub(super) const TICKS: u64 = 256;

/// The greatest burst: its time must be a small part of what a slot can tell.
pub(super) const MOST_BURST: u64 = 1 << 24;

/// The outcome of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Within the rate; so many more could come right now.
    Within { remaining: u64 },
    /// Too many; after so many ticks one will be within the rate.
    Beyond { ticks: u64 },
}

impl Table {
    /// Room for `keys` at a time, each with a burst of `burst`.
    pub(super) fn new(keys: usize, burst: u64) -> Self {
        // Three slots for two keys: then hardly any key finds sixteen others in its two sets.
        let sets = (keys as u64)
            .saturating_mul(3)
            .div_ceil(2 * WAYS as u64)
            .max(2);
        let pages = sets.div_ceil(SETS as u64) as usize;
        Self {
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
            sets,
            most_owed: burst.clamp(1, MOST_BURST) * TICKS,
        }
    }

    /// Counts one request of the key with this hash at this time.
    pub(super) fn count(&self, hash: u64, now: u64) -> Verdict {
        // A slot with tag zero would look unused.
        let tag = (hash >> TIME_BITS).max(1);
        let first = self.set(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let second = self.set(hash.wrapping_mul(0xd6e8_feb8_6659_fd93));
        loop {
            let slot = match find(first, tag).or_else(|| find(second, tag)) {
                Some(slot) => slot,
                None => self.free_slot(first, second, now),
            };
            let seen = slot.load(Relaxed);
            let owed = if seen >> TIME_BITS == tag {
                self.owed(seen, now)
            } else {
                0
            };
            if owed + TICKS > self.most_owed {
                return Verdict::Beyond {
                    ticks: owed + TICKS - self.most_owed,
                };
            }
            let word = (tag << TIME_BITS) | (now.wrapping_add(owed + TICKS) & TIME_MASK);
            if slot.compare_exchange(seen, word, Relaxed, Relaxed).is_ok() {
                return Verdict::Within {
                    remaining: (self.most_owed - owed - TICKS) / TICKS,
                };
            }
        }
    }

    /// The slot whose key loses least by being forgotten.
    fn free_slot<'a>(
        &self,
        first: &'a [AtomicU64; WAYS],
        second: &'a [AtomicU64; WAYS],
        now: u64,
    ) -> &'a AtomicU64 {
        let (mut best, mut least) = (&first[0], u64::MAX);
        // In turn from both, so that they fill evenly; an unused slot owes nothing either.
        for slot in first.iter().zip(second).flat_map(|(a, b)| [a, b]) {
            let owed = self.owed(slot.load(Relaxed), now);
            if owed == 0 {
                return slot;
            }
            if owed < least {
                (best, least) = (slot, owed);
            }
        }
        best
    }

    /// Until the key's budget is full again. Times wrap: one that lies impossibly far ahead is long past.
    fn owed(&self, word: u64, now: u64) -> u64 {
        let ahead = word.wrapping_sub(now) & TIME_MASK;
        if word == 0 || ahead > self.most_owed {
            0
        } else {
            ahead
        }
    }

    fn set(&self, hash: u64) -> &[AtomicU64; WAYS] {
        // The high half of the product spreads the hash over any number of sets.
        let set = ((u128::from(hash) * u128::from(self.sets)) >> 64) as usize;
        let page = self.pages[set / SETS]
            .get_or_init(|| Box::new([const { [const { AtomicU64::new(0) }; WAYS] }; SETS]));
        &page[set % SETS]
    }
}

fn find(set: &[AtomicU64; WAYS], tag: u64) -> Option<&AtomicU64> {
    set.iter()
        .find(|slot| slot.load(Relaxed) >> TIME_BITS == tag)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};
    use std::thread;

    use super::*;

    fn within(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Within { .. })
    }

    #[test]
    fn a_burst_and_then_one_per_interval() {
        let table = Table::new(100, 3);
        let verdicts: Vec<_> = (0..4).map(|_| table.count(7 << 40, 0)).collect();
        assert_eq!(
            verdicts,
            [
                Verdict::Within { remaining: 2 },
                Verdict::Within { remaining: 1 },
                Verdict::Within { remaining: 0 },
                Verdict::Beyond { ticks: TICKS },
            ]
        );
        assert_eq!(
            table.count(7 << 40, TICKS - 1),
            Verdict::Beyond { ticks: 1 }
        );
        assert_eq!(
            table.count(7 << 40, TICKS),
            Verdict::Within { remaining: 0 }
        );
        assert_eq!(
            table.count(7 << 40, TICKS * 100),
            Verdict::Within { remaining: 2 }
        );
    }

    #[test]
    fn time_may_wrap() {
        let table = Table::new(100, 2);
        let end = TIME_MASK - TICKS / 2;
        assert!(within(table.count(5 << 40, end)) && within(table.count(5 << 40, end)));
        assert!(!within(table.count(5 << 40, end)));
        assert!(within(table.count(5 << 40, end + TICKS)));
        assert!(!within(table.count(5 << 40, end + TICKS)));
    }

    #[test]
    fn keys_do_not_disturb_each_other_while_there_is_room() {
        let hasher = RandomState::new();
        let table = Table::new(20_000, 1);
        let keys: Vec<_> = (0..20_000).map(|key| hasher.hash_one(key)).collect();
        assert!(keys.iter().all(|&key| within(table.count(key, 0))));
        let forgotten = keys
            .iter()
            .filter(|&&key| within(table.count(key, 0)))
            .count();
        assert!(
            forgotten <= 20,
            "{forgotten} of 20,000 got a second request"
        );
    }

    #[test]
    fn a_full_table_forgets_whoever_owes_least() {
        let hasher = RandomState::new();
        let table = Table::new(10, 100);
        let heavy = hasher.hash_one("heavy");
        for _ in 0..100 {
            assert!(within(table.count(heavy, 0)));
        }
        for key in 0..10_000 {
            assert!(within(table.count(hasher.hash_one(key), 0)));
        }
        assert!(!within(table.count(heavy, 0)));
    }

    #[test]
    fn keys_that_owe_nothing_make_room() {
        let hasher = RandomState::new();
        let table = Table::new(100, 1);
        for round in 0..100 {
            let keys: Vec<_> = (0..100).map(|key| hasher.hash_one((round, key))).collect();
            assert!(
                keys.iter()
                    .all(|&key| within(table.count(key, round * TICKS)))
            );
            let again = keys
                .iter()
                .filter(|&&key| within(table.count(key, round * TICKS)));
            assert!(again.count() <= 2);
        }
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let table = Table::new(100, 1_000);
        let allowed = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        allowed.fetch_add(within(table.count(9 << 40, 0)).into(), Relaxed);
                    }
                });
            }
        });
        // Whoever is first may be counted twice, when two threads make room for the key at once.
        assert!((1_000..=1_003).contains(&allowed.into_inner()));
    }
}
