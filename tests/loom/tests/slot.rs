//! The slot through which a request's content crosses: the container's own file, with loom's locks and atomics under it.
//! A wake-up that is lost shows as a deadlock, which loom reports.

#![allow(
    clippy::duplicate_mod,
    reason = "the second one stands above other atomics"
)]

#[path = "../../../src/body/slot.rs"]
mod slot;

mod error {
    pub(crate) use wharf::{BoxError, Reason, Reject};
}

use std::future::poll_fn;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::Frame;
use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;
use slot::{Reading, Slot};
use wharf::{Reason, Reject};

/// All interleavings with up to three preemptions.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// What the reader got: content, or the refusal it ended with.
async fn read(slot: &Slot) -> Result<Option<Bytes>, Reason> {
    match poll_fn(|cx| slot.poll_take(cx)).await {
        Some(Ok(frame)) => Ok(frame.into_data().ok()),
        None => Ok(None),
        Some(Err(error)) => Err(error.downcast::<Reject>().expect("a refusal").reason()),
    }
}

/// The connection: gives as many frames as asked for, up to `frames`, and says whether it ended because all were given.
fn feed(slot: &Slot, frames: u8, last_says_so: bool) -> bool {
    let mut given = 0;
    let mut stays = false;
    block_on(poll_fn(|cx| {
        loop {
            let reading = slot.watch(cx, stays);
            stays = true;
            match reading {
                Reading::Holds => return Poll::Pending,
                Reading::Left | Reading::Finished => return Poll::Ready(false),
                Reading::Wants if given < frames => {
                    given += 1;
                    let frame = Frame::data(Bytes::copy_from_slice(&[given]));
                    slot.give(frame, last_says_so && given == frames, cx);
                    if last_says_so && given == frames {
                        return Poll::Ready(true);
                    }
                }
                Reading::Wants => {
                    slot.end(Ok(()), cx);
                    return Poll::Ready(true);
                }
            }
        }
    }))
}

fn all_frames_arrive(frames: u8, last_says_so: bool) {
    explore(move || {
        let slot = Arc::new(Slot::default());
        let reader = thread::spawn({
            let slot = slot.clone();
            move || {
                block_on(async {
                    for expected in 1..=frames {
                        assert_eq!(
                            read(&slot).await,
                            Ok(Some(Bytes::copy_from_slice(&[expected])))
                        );
                    }
                    assert_eq!(read(&slot).await, Ok(None));
                });
                slot.leave();
            }
        });
        assert!(feed(&slot, frames, last_says_so));
        reader.join().unwrap();
        assert_eq!(slot.reading(), Reading::Finished);
    });
}

#[test]
fn frames_cross_in_order_and_the_last_one_says_so() {
    all_frames_arrive(2, true);
}

#[test]
fn frames_cross_in_order_and_the_end_follows() {
    all_frames_arrive(1, false);
}

#[test]
fn a_reader_that_leaves_wakes_the_connection() {
    explore(|| {
        let slot = Arc::new(Slot::default());
        let reader = thread::spawn({
            let slot = slot.clone();
            move || {
                assert_eq!(block_on(read(&slot)), Ok(Some(Bytes::from_static(&[1]))));
                slot.leave();
            }
        });
        assert!(!feed(&slot, 9, true));
        reader.join().unwrap();
        assert_eq!(slot.reading(), Reading::Left);
    });
}

#[test]
fn a_body_that_is_dropped_unread_wakes_the_connection() {
    explore(|| {
        let slot = Arc::new(Slot::default());
        let reader = thread::spawn({
            let slot = slot.clone();
            move || slot.leave()
        });
        assert!(!feed(&slot, 1, true));
        reader.join().unwrap();
    });
}

#[test]
fn a_cut_body_never_looks_complete() {
    explore(|| {
        let slot = Arc::new(Slot::default());
        let reader = thread::spawn({
            let slot = slot.clone();
            move || assert_eq!(block_on(read(&slot)), Err(Reason::BodyCut))
        });
        slot.abandon();
        reader.join().unwrap();
    });
}

#[test]
fn a_refusal_reaches_the_reader_once() {
    explore(|| {
        let slot = Arc::new(Slot::default());
        let reader = thread::spawn({
            let slot = slot.clone();
            move || {
                assert_eq!(block_on(read(&slot)), Err(Reason::Chunk));
                assert_eq!(block_on(read(&slot)), Ok(None));
            }
        });
        block_on(poll_fn(|cx| match slot.watch(cx, false) {
            Reading::Wants => {
                slot.end(Err(Reject::new(Reason::Chunk)), cx);
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }));
        reader.join().unwrap();
    });
}

#[test]
fn a_slot_is_reused_by_its_only_owner_and_forgets_the_last_body() {
    explore(|| {
        let mut slot = Arc::new(Slot::default());
        let reader = thread::spawn({
            let slot = slot.clone();
            move || slot.leave()
        });
        // Refused or granted, whatever the reader has got to; granted for certain once it is gone.
        if Slot::reuse(&mut slot) {
            assert_eq!(slot.reading(), Reading::Holds);
        }
        reader.join().unwrap();
        assert!(Slot::reuse(&mut slot));
        assert_eq!(slot.reading(), Reading::Holds);
    });
}

/// Whether in any interleaving the connection saw its reader there, and wasn't woken when it left.
fn misses_the_leave<S: Default + Send + Sync + 'static>(
    reader: fn(&S),
    has_seen_it_leave: fn(&S, &Context<'_>, &Woken) -> bool,
) -> bool {
    let missed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = missed.clone();
    explore(move || {
        let slot = Arc::new(S::default());
        let woken = std::sync::Arc::new(Woken(Mutex::new(false)));
        let waker = Waker::from(woken.clone());
        let reader = thread::spawn({
            let slot = slot.clone();
            move || reader(&slot)
        });
        let has_seen = has_seen_it_leave(&slot, &Context::from_waker(&waker), &woken);
        reader.join().unwrap();
        if !has_seen && !*woken.0.lock().unwrap() {
            told.store(true, SeqCst);
        }
    });
    missed.load(SeqCst)
}

/// As an executor does, who is polled after a wake-up sees what was done before it.
struct Woken(Mutex<bool>);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        *self.0.lock().unwrap() = true;
    }
}

/// A reader that asks and then leaves, and a connection that is polled twice.
macro_rules! two_polls {
    () => {
        pub(crate) fn asks_and_leaves(slot: &Slot) {
            let _ = slot.poll_take(&mut Context::from_waker(Waker::noop()));
            slot.leave();
        }

        pub(crate) fn watches_twice(slot: &Slot, cx: &Context<'_>, woken: &Woken) -> bool {
            let first = slot.watch(cx, false);
            *woken.0.lock().unwrap() = false;
            first == Reading::Left || slot.watch(cx, true) == Reading::Left
        }
    };
}

two_polls!();

#[test]
fn no_leave_is_missed_and_one_would_be_that_is_looked_for_before_it_is_watched() {
    assert!(!misses_the_leave(asks_and_leaves, |slot, cx, _| {
        slot.watch(cx, false) == Reading::Left
    }));
    assert!(misses_the_leave(asks_and_leaves, |slot, cx, _| {
        let reading = slot.reading();
        slot.watch(cx, false);
        reading == Reading::Left
    }));
}

#[test]
fn no_leave_is_missed_and_one_would_be_if_a_used_waker_were_not_replaced() {
    assert!(!misses_the_leave(asks_and_leaves, watches_twice));
    assert!(misses_the_leave(
        forgetful::asks_and_leaves,
        forgetful::watches_twice
    ));
}

/// The same file above an atomic that forgets that the waker is gone.
#[path = "."]
mod forgetful {
    #[expect(dead_code, reason = "two polls need but a part of it")]
    #[path = "../../../src/body/slot.rs"]
    mod slot;

    use std::sync::PoisonError;
    use std::task::{Context, Waker};

    use loom::sync::atomic::{AtomicU8, Ordering, Ordering::Relaxed};
    use loom::sync::{Arc, Mutex, MutexGuard};
    use slot::Reading;
    pub(crate) use slot::Slot;

    use super::Woken;

    #[derive(Default)]
    struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        fn load(&self, ordering: Ordering) -> bool {
            self.0.load(ordering)
        }

        fn store(&self, value: bool, ordering: Ordering) {
            if value {
                self.0.store(value, ordering);
            }
        }
    }

    two_polls!();
}
