//! A connection while it lives: written by its own task, read by anybody, told to stop by the server.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, request};
use tokio::time::Instant;

use super::{CloseReason, ConnInfo, ConnReport};
use crate::interim::Message;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum State {
    /// Accepted; a service of the connection plane below HTTP has it.
    BeforeHttp = 0,
    /// Between two requests, or before the first byte of the first one.
    Idle = 1,
    /// A part of a request head has come.
    ReadingHead = 2,
    /// There is a request, and the service isn't ready for it.
    Waiting = 3,
    /// The handler works.
    Handling = 4,
    /// The response is on its way.
    Sending = 5,
    /// The response is out and the rest of the request's body is awaited.
    Draining = 6,
    /// All is said, and the client's end is awaited.
    Closing = 7,
    /// The socket was handed over to another protocol.
    Upgraded = 8,
}

impl State {
    /// All of them, in the order of a request.
    pub const ALL: &[Self] = &[
        Self::BeforeHttp,
        Self::Idle,
        Self::ReadingHead,
        Self::Waiting,
        Self::Handling,
        Self::Sending,
        Self::Draining,
        Self::Closing,
        Self::Upgraded,
    ];

    /// The state in the lowest byte of `doing`.
    fn of(doing: u64) -> Self {
        let state = Self::ALL.get((doing & 0xFF) as usize);
        state.copied().unwrap_or(Self::Closing)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BeforeHttp => "before HTTP",
            Self::Idle => "idle",
            Self::ReadingHead => "reading a head",
            Self::Waiting => "waiting for the service",
            Self::Handling => "handling",
            Self::Sending => "sending",
            Self::Draining => "draining a body",
            Self::Closing => "closing",
            Self::Upgraded => "upgraded",
        })
    }
}

/// Method and path of a request, for whoever looks at a connection from outside. The query isn't shown: it may hold
/// what is nobody's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLine {
    method: Method,
    /// `None` for a target without a path (`CONNECT`).
    target: Option<PathAndQuery>,
}

impl RequestLine {
    #[inline(always)]
    pub(crate) fn of(parts: &request::Parts) -> Self {
        Self {
            method: parts.method.clone(),
            target: parts.uri.path_and_query().cloned(),
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path, without the query; empty for `CONNECT`.
    pub fn path(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::path)
    }
}

impl fmt::Display for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path())
    }
}

/// How a connection is going.
///
/// Counters have a single writer, so a relaxed load and store will do; no lock is shared between connections.
#[derive(Debug)]
pub(crate) struct Live {
    info: OnceLock<ConnInfo>,
    since: Instant,
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// What it is doing, in the lowest byte, and since how many milliseconds after `since`: one value, so that
    /// the two always belong together. Written when the connection begins to wait.
    doing: AtomicU64,
    is_http2: AtomicBool,
    told: AtomicU8,
    by: AtomicU8,
    /// The stream is to be reset when it is dropped, so that a cut response can't look complete.
    aborted: AtomicBool,
    /// A deadline has passed, and is believed if nothing has come by now.
    is_last_look: AtomicBool,
    /// The waker in the inbox is the HTTP connection's.
    is_watched: AtomicBool,
    /// Somebody may send interim responses; without that nobody looks for mail.
    expects_mail: AtomicBool,
    inbox: Mutex<Inbox>,
}

/// What passes between a connection's task and others.
#[derive(Debug, Default)]
struct Inbox {
    waker: Option<Waker>,
    mail: Vec<Message>,
    /// The last exchange whose final response has begun: nothing can be sent before it any more.
    answered: u64,
    /// The request under way, if it had to be waited for.
    request: Option<RequestLine>,
}

impl Inbox {
    fn watch(&mut self, cx: &Context<'_>) {
        let waker = &self.waker;
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.waker = Some(cx.waker().clone());
        }
    }
}

/// What a connection is told; each includes those before it.
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

/// Who tells a connection to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum By {
    /// The server, which is shutting down.
    Shutdown = 0,
    /// The server, which is nearly full.
    Room = 1,
    /// Somebody with a handle of the server.
    Operator = 2,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            info: OnceLock::new(),
            since: Instant::now(),
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            doing: AtomicU64::new(State::BeforeHttp as u64),
            is_http2: AtomicBool::new(false),
            told: AtomicU8::new(Told::Nothing as u8),
            by: AtomicU8::new(By::Shutdown as u8),
            aborted: AtomicBool::new(false),
            is_last_look: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
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

    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed))
    }

    /// The peer has taken more than a kernel takes for somebody who doesn't read: 128 KiB is usual, 416 KiB what a Linux
    /// client may ask for.
    pub(crate) fn is_read(&self) -> bool {
        self.bytes_out.load(Relaxed) >= 512 * 1024
    }

    /// From `now` on it is doing that.
    #[inline]
    pub(crate) fn enter(&self, state: State, now: Instant) {
        let since = now.saturating_duration_since(self.since);
        let millis = since.as_secs() * 1000 + u64::from(since.subsec_millis());
        self.doing.store(millis << 8 | state as u64, Relaxed);
    }

    /// What it is doing, and since when.
    pub(crate) fn doing(&self) -> (State, Instant) {
        let doing = self.doing.load(Relaxed);
        (
            State::of(doing),
            self.since + Duration::from_millis(doing >> 8),
        )
    }

    pub(crate) fn state(&self) -> State {
        State::of(self.doing.load(Relaxed))
    }

    /// From here on it speaks HTTP/2.
    #[cfg(feature = "http2")]
    pub(crate) fn speak_http2(&self) {
        self.is_http2.store(true, Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// Shows the request under way to whoever looks.
    pub(crate) fn show(&self, request: RequestLine) {
        self.lock().request = Some(request);
    }

    /// There is no request under way any more.
    pub(crate) fn hide(&self) {
        self.lock().request = None;
    }

    /// The request under way, if it had to be waited for.
    pub(crate) fn request(&self) -> Option<RequestLine> {
        self.lock().request.clone()
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
    pub(crate) fn tell(&self, told: Told, by: By) {
        let mut inbox = self.lock();
        let before = self.told();
        if told > before {
            // Who tells first is the reason, unless it comes to a cut.
            if before == Told::Nothing || told >= Told::Cut {
                self.by.store(by as u8, Relaxed);
            }
            self.told.store(told as u8, Relaxed);
        }
        // The lock orders the store before any later `watch`, so that a task about to wait sees it.
        let waker = self.take_waker(&mut inbox);
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Why the connection ends, when it ends because it was told to.
    pub(crate) fn told_why(&self) -> CloseReason {
        match self.by.load(Relaxed) {
            by if by == By::Room as u8 => CloseReason::Evicted,
            by if by == By::Operator as u8 => CloseReason::Operator,
            _ if self.told() >= Told::Cut => CloseReason::Cut,
            _ => CloseReason::Shutdown,
        }
    }

    /// Asks for the task of `cx` to be woken by what is told or posted; returns what was told so far, and whether
    /// there is mail.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> (Told, bool) {
        let mut inbox = self.lock();
        self.is_watched.store(false, Relaxed);
        inbox.watch(cx);
        (self.told(), !inbox.mail.is_empty())
    }

    /// The same for the HTTP connection, which waits often; `stays` if it is in the task of the last time.
    ///
    /// Where its waker is still there, that takes no lock, which saves 40 instructions a wait: whoever uses the waker up,
    /// or puts another in its place, says so before. A task that doesn't see this yet is about to be polled once more.
    #[inline]
    pub(crate) fn watch_on(&self, cx: &Context<'_>, stays: bool) -> (Told, bool) {
        let has_mail = !(stays && self.is_watched.load(Relaxed)) && self.watch_anew(cx);
        (self.told(), has_mail)
    }

    #[cold]
    fn watch_anew(&self, cx: &Context<'_>) -> bool {
        let mut inbox = self.lock();
        self.is_watched.store(true, Relaxed);
        inbox.watch(cx);
        !inbox.mail.is_empty()
    }

    fn take_waker(&self, inbox: &mut Inbox) -> Option<Waker> {
        self.is_watched.store(false, Relaxed);
        inbox.waker.take()
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
        let waker = self.take_waker(&mut inbox);
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

    /// Whether from now on the stream asks the kernel itself, because a deadline has passed.
    #[inline]
    pub(crate) fn look_last(&self, last: bool) {
        self.is_last_look.store(last, Relaxed);
    }

    /// The stream is to ask the kernel for what the runtime hasn't heard of.
    #[inline]
    pub(crate) fn is_last_look(&self) -> bool {
        self.is_last_look.load(Relaxed)
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
            state: self.state(),
            request: self.request(),
            first_bytes,
        }
    }
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}
