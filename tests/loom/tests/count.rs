//! The counter that a drain waits for: the container's own file, with loom's atomics under it and a notification that promises
//! less than tokio's (it misses what happens between `notified` and `enable`).

#[expect(dead_code, reason = "`closed` is nothing but the notification")]
#[path = "../../../src/server/open/count.rs"]
mod count;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use count::Count;
use loom::future::block_on;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

#[derive(Default)]
struct Notify(Mutex<Waiters>);

#[derive(Default)]
struct Waiters {
    told: usize,
    wakers: Vec<Waker>,
}

impl Notify {
    fn notify_waiters(&self) {
        let mut waiters = self.0.lock().unwrap();
        waiters.told += 1;
        let wakers = std::mem::take(&mut waiters.wakers);
        drop(waiters);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            since: None,
        }
    }
}

struct Notified<'a> {
    notify: &'a Notify,
    since: Option<usize>,
}

impl Notified<'_> {
    fn enable(mut self: Pin<&mut Self>) {
        let told = self.notify.0.lock().unwrap().told;
        self.since.get_or_insert(told);
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiters = self.notify.0.lock().unwrap();
        if waiters.told > self.since.unwrap_or(waiters.told) {
            return Poll::Ready(());
        }
        waiters.wakers.push(cx.waker().clone());
        let told = waiters.told;
        drop(waiters);
        self.since.get_or_insert(told);
        Poll::Pending
    }
}

/// Two connections close on threads of their own, each by `close`, while the server waits for them.
fn drains(close: fn(&Mutex<usize>, &Count)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let open = loom::sync::Arc::new((Mutex::new(2), Count::default()));
        open.1.set(2);
        let closing: Vec<_> = (0..2)
            .map(|_| {
                let open = open.clone();
                thread::spawn(move || close(&open.0, &open.1))
            })
            .collect();
        block_on(open.1.emptied());
        assert_eq!(
            *open.0.lock().unwrap(),
            0,
            "none is open once it has emptied"
        );
        for one in closing {
            one.join().unwrap();
        }
    });
}

#[test]
fn a_drain_ends_after_the_last_close_and_never_before() {
    drains(|table, count| {
        let mut table = table.lock().unwrap();
        *table -= 1;
        count.set(*table);
        drop(table);
        count.tell_closed();
    });
}

#[test]
fn who_waits_for_room_is_told_of_a_close() {
    loom::model(|| {
        let count = loom::sync::Arc::new(Count::default());
        count.set(1);
        let closing = thread::spawn({
            let count = count.clone();
            move || {
                count.set(0);
                count.tell_closed();
            }
        });
        // As the accept loop does, but without its clock: it looks again before it waits again.
        block_on(count.emptied());
        closing.join().unwrap();
        assert_eq!(count.now(), 0);
    });
}

/// Whether any interleaving leaves a waiter asleep that saw a connection open before its close, by `close`.
fn misses_a_close(close: fn(&Count)) -> bool {
    let missed = Arc::new(AtomicBool::new(false));
    let told = missed.clone();
    loom::model(move || {
        let count = loom::sync::Arc::new(Count::default());
        count.set(1);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let closing = thread::spawn({
            let count = count.clone();
            move || close(&count)
        });
        let is_pending = {
            let mut emptied = pin!(count.emptied());
            let is_pending = emptied
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending();
            closing.join().unwrap();
            is_pending
        };
        if is_pending && !woken.0.load(SeqCst) {
            told.store(true, SeqCst);
        }
    });
    missed.load(SeqCst)
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn no_close_is_missed_and_one_that_is_told_before_it_is_counted_would_be() {
    assert!(!misses_a_close(|count| {
        count.set(0);
        count.tell_closed();
    }));
    assert!(misses_a_close(|count| {
        count.tell_closed();
        count.set(0);
    }));
}
