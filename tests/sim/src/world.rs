//! What service, bodies and tasks of one simulation share: the record of what they did, and the clock that they wait on.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::net::Shared;
use crate::script::Script;

/// What service, bodies and tasks share.
pub struct World {
    /// What happens.
    pub script: Arc<Script>,
    /// The stream, and the clock.
    pub net: Shared,
    /// Where each request begins in the client's stream: `(head, body, end)`.
    pub places: Vec<(usize, usize, usize)>,
    /// What became of each request.
    pub records: RefCell<Vec<Record>>,
    /// How many requests the service was called with.
    pub calls: Cell<usize>,
    /// How many of them in this poll of the connection.
    pub calls_in_poll: Cell<usize>,
    /// Futures, bodies and tasks that live.
    pub alive: Cell<isize>,
    /// Bytes of content that bodies gave.
    pub given: Cell<usize>,
    /// Whatever changes anything counts here.
    pub progress: Cell<u64>,
    /// Tasks that nobody polls yet.
    pub spawned: RefCell<Vec<Task>>,
    timers: RefCell<Vec<(u64, u64, Waker)>>,
    timer_id: Cell<u64>,
}

/// A task beside the connection.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What became of a request.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The service was called with it.
    pub called: bool,
    /// Bytes of its body that were read.
    pub read: usize,
    /// Nobody will read more of its body.
    pub left: bool,
    /// Content of its answer that was given.
    pub given: usize,
}

/// A panic that the script planned.
#[derive(Debug)]
pub struct Planned;

impl World {
    /// Nothing has happened yet.
    pub fn new(script: Arc<Script>, net: Shared, places: Vec<(usize, usize, usize)>) -> Rc<Self> {
        Rc::new(Self {
            records: RefCell::new(vec![Record::default(); script.asked.len()]),
            script,
            net,
            places,
            calls: Cell::new(0),
            calls_in_poll: Cell::new(0),
            alive: Cell::new(0),
            given: Cell::new(0),
            progress: Cell::new(0),
            spawned: RefCell::default(),
            timers: RefCell::default(),
            timer_id: Cell::new(0),
        })
    }

    /// The first thing that is wrong is kept.
    pub fn fail(&self, wrong: impl std::fmt::Display) {
        self.net.lock().fail(wrong);
    }

    /// Writes a line of the trace.
    pub(crate) fn tell(&self, at: usize, what: std::fmt::Arguments<'_>) {
        let mut net = self.net.lock();
        if net.trace.is_some() {
            net.tell(&format!("handler {at}"), what);
        }
    }

    /// Something has changed.
    pub(crate) fn moved(&self) {
        self.progress.set(self.progress.get() + 1);
    }

    /// Changes the record of a request.
    pub(crate) fn record<T>(&self, at: usize, change: impl FnOnce(&mut Record) -> T) -> T {
        change(&mut self.records.borrow_mut()[at])
    }

    /// When the next timer is due.
    pub fn due(&self) -> Option<u64> {
        self.timers.borrow().iter().map(|(due, ..)| *due).min()
    }

    /// Wakes whoever waits for a time that has come.
    pub fn fire(&self, now: u64) {
        let mut timers = self.timers.borrow_mut();
        let mut at = 0;
        while at < timers.len() {
            if timers[at].0 <= now {
                timers.remove(at).2.wake();
            } else {
                at += 1;
            }
        }
    }

    /// A wait of so many milliseconds.
    pub(crate) fn sleep(self: &Rc<Self>, millis: u64) -> Sleep {
        Sleep {
            world: self.clone(),
            millis,
            until: None,
            id: 0,
        }
    }

    /// A task beside the connection begins.
    pub(crate) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let token = Token::new(self);
        self.spawned.borrow_mut().push(Box::pin(async move {
            task.await;
            drop(token);
        }));
    }
}

/// Counts while it lives.
pub(crate) struct Token(Rc<World>);

impl Token {
    pub(crate) fn new(world: &Rc<World>) -> Self {
        world.alive.set(world.alive.get() + 1);
        Self(world.clone())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

/// A wait on the clock of the simulation.
pub(crate) struct Sleep {
    world: Rc<World>,
    millis: u64,
    until: Option<u64>,
    id: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.millis == 0 {
            return Poll::Ready(());
        }
        let now = self.world.net.lock().now;
        let until = now + self.millis;
        let until = *self.until.get_or_insert(until);
        if now >= until {
            self.world.moved();
            return Poll::Ready(());
        }
        let world = self.world.clone();
        let mut timers = world.timers.borrow_mut();
        if self.id == 0 {
            self.id = world.timer_id.get() + 1;
            world.timer_id.set(self.id);
        }
        match timers.iter_mut().find(|(_, id, _)| *id == self.id) {
            Some((_, _, waker)) => waker.clone_from(cx.waker()),
            None => timers.push((until, self.id, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.id != 0 {
            self.world
                .timers
                .borrow_mut()
                .retain(|(_, id, _)| *id != self.id);
        }
    }
}
