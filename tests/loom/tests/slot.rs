//! The slot through which a request's content crosses: the container's own file, with loom's locks and atomics under it.
//! A wake-up that is lost shows as a deadlock, which loom reports.

#[path = "../../../src/body/slot.rs"]
mod slot;

mod error {
    pub(crate) use wharf::{BoxError, Reason, Reject};
}

use std::future::poll_fn;
use std::sync::PoisonError;
use std::task::Poll;

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
