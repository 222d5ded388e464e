//! A connection while it lives: written by its own task, read by anybody, told to stop by the server.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::task::{Context, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::{CloseReason, ConnInfo, ConnReport};
use crate::interim::Message;

/// How a connection is going: written by its own task alone, read by anybody, told to stop by the server.
///
/// Counters have a single writer, so a relaxed load and store will do; no lock is shared between connections.
#[derive(Debug)]
pub(crate) struct Live {
    info: OnceLock<ConnInfo>,
    since: Instant,
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    told: AtomicU8,
    /// The stream is to be reset when it is dropped, so that a cut response can't look complete.
    aborted: AtomicBool,
    /// Somebody may send interim responses; without that nobody looks for mail.
    expects_mail: AtomicBool,
    inbox: Mutex<Inbox>,
}

/// What reaches a connection's task from others.
#[derive(Debug, Default)]
struct Inbox {
    waker: Option<Waker>,
    mail: Vec<Message>,
    /// The last exchange whose final response has begun: nothing can be sent before it any more.
    answered: u64,
}

/// What a connection is told by its server; each includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Told {
    /// Go on.
    #[default]
    Nothing = 0,
    /// Close after the response under way or the next one; stay open while idle.
    LastCall = 1,
    /// Close after the response under way, at once if idle.
    Drain = 2,
    /// End now.
    Cut = 3,
    /// The connection's service isn't asked any more: the server drops it.
    Abort = 4,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            info: OnceLock::new(),
            since: Instant::now(),
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            told: AtomicU8::new(Told::Nothing as u8),
            aborted: AtomicBool::new(false),
            expects_mail: AtomicBool::new(false),
            inbox: Mutex::default(),
        }
    }

    /// The facts, which can't change from here on.
    pub(super) fn settle(&self, info: ConnInfo) {
        let _ = self.info.set(info);
    }

    /// The facts, once they can't change any more.
    pub(crate) fn info(&self) -> Option<&ConnInfo> {
        self.info.get()
    }

    /// When the connection was accepted.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// The connection's id, once its facts are sealed.
    pub(crate) fn id(&self) -> u64 {
        self.info.get().map_or(0, |info| info.id)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn count_request(&self) {
        bump(&self.requests, 1);
    }

    pub(crate) fn count_in(&self, bytes: usize) {
        bump(&self.bytes_in, bytes as u64);
    }

    pub(crate) fn count_out(&self, bytes: usize) {
        bump(&self.bytes_out, bytes as u64);
    }

    pub(crate) fn told(&self) -> Told {
        match self.told.load(Relaxed) {
            0 => Told::Nothing,
            1 => Told::LastCall,
            2 => Told::Drain,
            3 => Told::Cut,
            _ => Told::Abort,
        }
    }

    /// Tells the connection's task; what was told can only grow.
    pub(crate) fn tell(&self, told: Told) {
        self.told.fetch_max(told as u8, Relaxed);
        // The lock orders the store before any later `watch`, so that a task about to wait sees it.
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks for the task of `cx` to be woken by what is told or posted; returns what was told so far, and whether
    /// there is mail.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> (Told, bool) {
        let mut inbox = self.lock();
        if !inbox
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            inbox.waker = Some(cx.waker().clone());
        }
        let has_mail = !inbox.mail.is_empty();
        drop(inbox);
        (self.told(), has_mail)
    }

    /// From now on interim responses may be posted.
    pub(crate) fn expect_mail(&self) {
        self.expects_mail.store(true, Relaxed);
    }

    pub(crate) fn expects_mail(&self) -> bool {
        self.expects_mail.load(Relaxed)
    }

    /// Leaves an interim response for the connection to send; dropped if that is too late.
    pub(crate) fn post(&self, message: Message) {
        let mut inbox = self.lock();
        if message.exchange <= inbox.answered {
            return;
        }
        inbox.mail.push(message);
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn take_mail(&self) -> Vec<Message> {
        std::mem::take(&mut self.lock().mail)
    }

    /// The last mail that can go out before the final response of this exchange, which begins now.
    pub(crate) fn take_last_mail(&self, exchange: u64) -> Vec<Message> {
        let mut inbox = self.lock();
        inbox.answered = exchange;
        std::mem::take(&mut inbox.mail)
    }

    /// From now on dropping the stream resets it.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Relaxed);
    }

    /// Dropping the stream is to reset it.
    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The account of a connection that ended now.
    pub(crate) fn report(&self, reason: CloseReason, first_bytes: Bytes) -> ConnReport {
        ConnReport {
            info: self.info.get().cloned().unwrap_or_default(),
            requests: self.requests(),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            age: self.since.elapsed(),
            reason,
            first_bytes,
        }
    }
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}
