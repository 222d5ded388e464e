//! A connection from accept to its end: the stream with its facts, how it is going, and why it ended.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::Body;
use crate::codec::Close;
use crate::error::Reject;
use crate::interim::Message;

/// An accepted stream with its facts: what the connection plane's services are called with.
#[derive(Debug)]
pub struct Conn<Io> {
    io: Io,
    info: ConnInfo,
    live: Arc<Live>,
}

impl<Io> From<Io> for Conn<Io> {
    /// A connection without an address.
    fn from(io: Io) -> Self {
        Self::new(io, ConnInfo::default())
    }
}

impl<Io> Conn<Io> {
    /// A connection over any stream, with facts of one's own.
    pub fn new(io: Io, info: ConnInfo) -> Self {
        Self {
            io,
            info,
            live: Arc::new(Live::new()),
        }
    }

    /// A connection whose stream knows how it is going.
    pub(crate) fn accepted(io: Io, info: ConnInfo, live: Arc<Live>) -> Self {
        Self { io, info, live }
    }

    /// The facts known so far.
    pub fn info(&self) -> &ConnInfo {
        &self.info
    }

    /// The facts, for a layer that learns more (a real peer behind a balancer, say).
    pub fn info_mut(&mut self) -> &mut ConnInfo {
        &mut self.info
    }

    /// The stream, for a layer that looks at it before HTTP does.
    pub fn io_mut(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Wraps the stream, as TLS or a byte counter does; facts and identity stay.
    pub fn map_io<T>(self, wrap: impl FnOnce(Io) -> T) -> Conn<T> {
        Conn {
            io: wrap(self.io),
            info: self.info,
            live: self.live,
        }
    }

    /// How this connection is told to stop, and watched; shared with the server that accepted it.
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// From here on the facts can't change: they are shared with every request of the connection.
    pub(crate) fn seal(self) -> (Io, Arc<Live>) {
        let _ = self.live.info.set(self.info);
        (self.io, self.live)
    }
}

/// The facts of a connection.
///
/// A handler finds them with [`ConnInfo::of`]; [`ConnInfoLayer`] puts them into each
/// request's extensions for code that can't see the body's type.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConnInfo {
    /// Counts up from 1 within a server; 0 for a connection that no server accepted.
    pub id: u64,
    /// Who is at the other end.
    pub peer: Address,
    /// The address it was accepted on.
    pub local: Address,
    /// The name of the listener that accepted it; empty unless it was given one.
    pub listener: Arc<str>,
}

impl ConnInfo {
    /// The facts of the connection that `request` came on.
    ///
    /// `None` once a layer has replaced the body with one of its own, and for requests that came on no connection.
    pub fn of(request: &Request<Body>) -> Option<&Self> {
        request.body().live().and_then(|live| live.info.get())
    }
}

/// Puts [`ConnInfo`] into the extensions of each request, for code that can't see the body's type: handlers and
/// extractors of a framework, layers that are generic over bodies.
///
/// Not done by default: the first extension of a request costs three allocations.
///
/// ```
/// use tower::ServiceBuilder;
/// use wharf::{Body, ConnInfo, ConnInfoLayer, Http};
///
/// let stack = ServiceBuilder::new().layer(Http::new()).layer(ConnInfoLayer).service_fn(
///     |request: http::Request<Body>| async move {
///         let peer = request.extensions().get::<ConnInfo>().map(|info| info.peer.to_string());
///         Ok::<_, wharf::BoxError>(http::Response::new(Body::from(peer.unwrap_or_default())))
///     },
/// );
/// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnInfoLayer;

impl<S> Layer<S> for ConnInfoLayer {
    type Service = WithConnInfo<S>;

    fn layer(&self, service: S) -> WithConnInfo<S> {
        WithConnInfo { service }
    }
}

/// The service that [`ConnInfoLayer`] makes.
#[derive(Debug, Clone)]
pub struct WithConnInfo<S> {
    service: S,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for WithConnInfo<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        if let Some(info) = ConnInfo::of(&request).cloned() {
            request.extensions_mut().insert(info);
        }
        self.service.call(request)
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// No address: an unnamed Unix socket, or a stream in memory.
    #[default]
    Unnamed,
}

impl Address {
    /// IP address and port, if it has one.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Unnamed => f.write_str("unnamed"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

/// What a connection was, told once, when it has ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnReport {
    /// The facts of the connection.
    pub info: ConnInfo,
    /// Requests whose head was complete, refused ones not included.
    pub requests: u64,
    /// Bytes read from the peer.
    pub bytes_in: u64,
    /// Bytes written to the peer.
    pub bytes_out: u64,
    /// From accept to end.
    pub age: Duration,
    /// Why it ended.
    pub reason: CloseReason,
    /// For a refused request: the first bytes, at most 64, of what could not be read.
    pub first_bytes: Bytes,
}

impl fmt::Display for ConnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connection {} from {}: {} requests, {} bytes in, {} out, {:.1?}; {}",
            self.info.id,
            self.info.peer,
            self.requests,
            self.bytes_in,
            self.bytes_out,
            self.age,
            self.reason
        )
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed between two requests, or without ever sending one.
    ClientClosed,
    /// The client asked for it: `Connection: close`, or HTTP/1.0 without `keep-alive`.
    ClientAsked,
    /// The handler asked for it: `Connection: close` in its response.
    HandlerAsked,
    /// Only the end of the connection could show the end of a response (HTTP/1.0).
    Unframed,
    /// No further request came in time.
    Idle {
        /// The time that was allowed.
        after: Duration,
    },
    /// The connection was kept for as long as it may be.
    MaxAge,
    /// A request head didn't arrive in time.
    HeadTimeout {
        /// How many bytes of it had come.
        got: usize,
    },
    /// A request body stood still or came too slowly.
    BodyTimeout,
    /// The client didn't take its response, or took it too slowly.
    WriteTimeout,
    /// The service didn't become ready in time.
    ReadyTimeout,
    /// A request was refused.
    Refused(Reject),
    /// More of an unread request body was declared than is worth draining.
    BodyUnread,
    /// The client closed in the middle of a head or body.
    Truncated,
    /// The client reset the connection, or the network failed.
    Io(std::io::ErrorKind),
    /// The response's body failed after its head was sent.
    ResponseFailed,
    /// The response's body was longer or shorter than its head declared.
    ResponseLength,
    /// User code panicked.
    Panicked,
    /// The service failed for good (`poll_ready` returned an error).
    ServiceFailed,
    /// The server is shutting down.
    Shutdown,
    /// The server was shutting down and the time for finishing was over.
    Cut,
    /// The connection left HTTP: its socket was handed to the handler after `101` or a `CONNECT`.
    Upgraded,
    /// A service of the connection plane ended it before it spoke HTTP.
    BeforeHttp,
}

impl CloseReason {
    /// One sentence for whoever reads the log.
    pub fn explain(&self) -> String {
        let fixed = match self {
            Self::Idle { after } => return format!("no further request came within {after:?}"),
            Self::HeadTimeout { got } => {
                return format!("the request head took too long, {got} bytes of it had come");
            }
            Self::Refused(reject) => {
                return format!("refused with {}: {reject}", reject.status().as_u16());
            }
            Self::Io(kind) => return format!("the connection failed: {kind}"),
            Self::ClientClosed => "closed by the client",
            Self::ClientAsked => "the client asked for it",
            Self::HandlerAsked => "the handler asked for it",
            Self::Unframed => "the end of the connection was the end of an HTTP/1.0 response",
            Self::MaxAge => "it reached its greatest age",
            Self::BodyTimeout => "the request body stood still or came too slowly",
            Self::WriteTimeout => "the client took its response too slowly or not at all",
            Self::ReadyTimeout => "the service did not become ready in time",
            Self::BodyUnread => {
                "the handler left more of a request body unread than is worth draining"
            }
            Self::Truncated => "the client closed in the middle of a request",
            Self::ResponseFailed => "the response body failed midway",
            Self::ResponseLength => "the response body was not as long as declared",
            Self::Panicked => "user code panicked",
            Self::ServiceFailed => "the service failed for good",
            Self::Shutdown => "the server is shutting down",
            Self::Cut => "cut at the end of the shutdown's time",
            Self::Upgraded => "handed over to another protocol",
            Self::BeforeHttp => "ended before it spoke HTTP",
        };
        fixed.to_owned()
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.explain())
    }
}

impl From<Close> for CloseReason {
    fn from(close: Close) -> Self {
        match close {
            Close::ClientAsked => Self::ClientAsked,
            Close::HandlerAsked => Self::HandlerAsked,
            Close::Unframed => Self::Unframed,
            Close::Connection => Self::BodyUnread,
        }
    }
}

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
