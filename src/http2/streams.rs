//! The streams under way, each polled when it was woken, within the connection's own task: no task a stream, and none for
//! what is answered at once. Knows nothing of HTTP.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::fair;

/// Who was woken. The task itself is only woken while it doesn't run.
#[derive(Default)]
pub(super) struct Wakes {
    woken: Mutex<Woken>,
}

#[derive(Default)]
struct Woken {
    streams: Vec<u32>,
    connection: bool,
    is_running: bool,
    is_deferred: bool,
    task: Option<Waker>,
}

/// The place of the connection itself among those that can be woken.
const CONNECTION: u32 = u32::MAX;

impl Wakes {
    fn lock(&self) -> MutexGuard<'_, Woken> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task runs.
    pub(super) fn begin(&self, task: &Waker) {
        let mut woken = self.lock();
        woken.is_running = true;
        woken.connection |= std::mem::take(&mut woken.is_deferred);
        if !woken.task.as_ref().is_some_and(|one| one.will_wake(task)) {
            woken.task = Some(task.clone());
        }
    }

    /// Somebody was woken.
    pub(super) fn has_more(&self) -> bool {
        let woken = self.lock();
        woken.connection || !woken.streams.is_empty()
    }

    /// The connection is to be polled after others have had the thread.
    pub(super) fn wake_connection_later(&self, task: &Waker) {
        self.lock().is_deferred = true;
        fair::give_way(&mut Context::from_waker(task));
    }

    /// The task is about to wait; `false`: somebody was woken.
    pub(super) fn rest(&self) -> bool {
        let mut woken = self.lock();
        woken.is_running = woken.connection || !woken.streams.is_empty();
        !woken.is_running
    }

    /// The connection is to be polled.
    pub(super) fn wake_connection(&self) {
        self.lock().connection = true;
    }

    /// The connection was woken, which is told once.
    pub(super) fn take_connection(&self) -> bool {
        std::mem::take(&mut self.lock().connection)
    }

    /// The next stream that was woken.
    fn next(&self) -> Option<u32> {
        self.lock().streams.pop()
    }

    /// What wakes the connection.
    pub(super) fn connection(self: &Arc<Self>) -> Waker {
        Arc::new(One::new(self, CONNECTION)).into()
    }
}

/// What one waker wakes.
struct One {
    wakes: Arc<Wakes>,
    place: u32,
    is_queued: AtomicBool,
}

impl One {
    fn new(wakes: &Arc<Wakes>, place: u32) -> Self {
        Self {
            wakes: wakes.clone(),
            place,
            is_queued: AtomicBool::new(false),
        }
    }
}

impl Wake for One {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.place != CONNECTION && self.is_queued.swap(true, AcqRel) {
            return;
        }
        let mut woken = self.wakes.lock();
        match self.place {
            CONNECTION => woken.connection = true,
            stream => woken.streams.push(stream),
        }
        let task = (!woken.is_running).then(|| woken.task.clone()).flatten();
        drop(woken);
        task.into_iter().for_each(Waker::wake);
    }
}

/// Streams under way; the place of one that is over, and its memory, are for the next.
pub(super) struct Streams<T> {
    wakes: Arc<Wakes>,
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    stream: Pin<Box<Option<T>>>,
    one: Arc<One>,
    waker: Waker,
}

impl<T> Streams<T> {
    pub(super) fn new(wakes: Arc<Wakes>) -> Self {
        Self {
            wakes,
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a stream, which is to be polled.
    pub(super) fn add(&mut self, stream: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            let one = Arc::new(One::new(&self.wakes, self.places.len() as u32));
            self.places.push(Place {
                stream: Box::pin(None),
                waker: one.clone().into(),
                one,
            });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[place as usize];
        place.stream.set(Some(stream));
        place.waker.wake_by_ref();
    }

    /// Polls one that was woken with `poll`, which says when it is over; `false`: none was.
    pub(super) fn poll_next(
        &mut self,
        poll: impl FnOnce(&mut Context<'_>, Pin<&mut T>) -> Poll<()>,
    ) -> bool {
        let Some(index) = self.wakes.next() else {
            return false;
        };
        let place = &mut self.places[index as usize];
        place
            .one
            .is_queued
            .store(false, std::sync::atomic::Ordering::Release);
        // One that is over may have been woken for the last time.
        let Some(stream) = place.stream.as_mut().as_pin_mut() else {
            return true;
        };
        if poll(&mut Context::from_waker(&place.waker), stream).is_ready() {
            place.stream.set(None);
            self.free.push(index);
        }
        true
    }

    /// Wakes those of which this holds.
    pub(super) fn wake(&self, which: impl Fn(&T) -> bool) {
        for place in &self.places {
            if place.stream.as_ref().get_ref().as_ref().is_some_and(&which) {
                place.waker.wake_by_ref();
            }
        }
    }

    /// Those under way.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let streams = self.places.iter();
        streams.filter_map(|place| place.stream.as_ref().get_ref().as_ref())
    }

    /// Does something with each.
    pub(super) fn each(&mut self, mut what: impl FnMut(Pin<&mut T>)) {
        for place in &mut self.places {
            if let Some(stream) = place.stream.as_mut().as_pin_mut() {
                what(stream);
            }
        }
    }
}
