//! Tests through the real codec: a client in memory, connected to a stack as a socket would be, on the test's clock.
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use tower::service_fn;
//! use wharf::{Body, BoxError, CloseReason, Http};
//!
//! async fn hello(_: Request<Body>) -> Result<Response<Body>, BoxError> {
//!     Ok(Response::new(Body::from("hello")))
//! }
//!
//! // In a test: #[tokio::test(start_paused = true)]
//! async fn a_slow_head_gets_408() {
//!     let mut client = wharf::test::connect(Http::new(), service_fn(hello));
//!     assert_eq!(client.get("/").await.body(), "hello");
//!
//!     client.send("GET / HT").await;
//!     tokio::time::advance(Duration::from_secs(11)).await;
//!     assert_eq!(client.response().await.status(), 408);
//!     assert_eq!(client.closed().await.reason, CloseReason::HeadTimeout { got: 8 });
//! }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() { a_slow_head_gets_408().await }
//! ```
//!
//! **One task.** The connection runs while a method of its [`Client`] is awaited, within it, and at no other time: a test
//! does the same whenever it is run, and nothing need be `Send`. Each method first lets the connection do what
//! it can, so a deadline that passed meanwhile has fired before the client's next byte arrives. While the test waits for
//! something else, [`Client::during`] keeps the connection going; what the stack spawned runs on the runtime as ever.
//!
//! **Any clock.** With tokio's clock paused no wait takes time. With a running clock it is the same, in real time.
//!
//! **Nothing hangs.** A method gives up after a day on a paused clock and after ten seconds on a running one
//! ([`Client::patience`] changes that).
//!
//! **It panics**, because it is for tests: whenever what was waited for can't come any more or isn't HTTP, with a sentence
//! that says where in the test, what was waited for, and what came instead. A panic in the stack itself is the test's,
//! too.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use crate::body::Body;
use crate::codec::Codec;
use crate::conn::{By, CloseReason, Conn, ConnInfo, ConnReport, Live, Told};
use crate::error::BoxError;
use crate::http1::Http;
use crate::limits::Limits;
use crate::listener::Stream;

mod control;
mod pipe;
mod response;

pub use control::Control;
pub(crate) use pipe::Pipe;
use pipe::{End, State};
use response::Head;

/// The trailers of a response, in its extensions.
///
/// ```
/// # let response = http::Response::new(());
/// let trailers = response.extensions().get::<wharf::test::Trailers>();
/// let checksum = trailers.and_then(|trailers| trailers.0.get("checksum"));
/// # assert!(checksum.is_none());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailers(pub HeaderMap);

/// Connects a client to a service of requests.
///
/// # Panics
///
/// When the [`Limits`] can't work.
pub fn connect<M, C, S, B>(http: Http<M>, service: S) -> Client
where
    M: Fn(&Limits) -> C + 'static,
    C: Codec + 'static,
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(ConnInfo::default(), |conn| {
        match http.connection(conn, service) {
            Ok(connection) => Box::pin(connection),
            Err(error) => panic!("{error}"),
        }
    })
}

/// Connects a client to a stack as [`Server::serve`](crate::Server::serve) takes it: what is below HTTP is tested too.
///
/// The stack is asked whether it is ready before it is called, and an error of its call is
/// [`CloseReason::BeforeHttp`], as with a server. For several connections to one stack, connect clones of it.
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use wharf::{Body, BoxError, Http};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let stack = ServiceBuilder::new()
///     .concurrency_limit(1)
///     .layer(Http::new())
///     .service(service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::from("hello"))) }));
/// let mut first = wharf::test::connect_to(stack.clone());
/// assert_eq!(first.get("/").await.body(), "hello");
///
/// let mut second = wharf::test::connect_to(stack);
/// second.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
/// assert_eq!(second.received().await, "", "it waits until the first one closes");
/// first.close().await;
/// assert_eq!(second.response().await.status(), 200);
/// # }
/// ```
pub fn connect_to<S>(stack: S) -> Client
where
    S: Service<Conn<Stream>, Response = ConnReport> + 'static,
    S::Error: Into<BoxError>,
{
    connect_as(ConnInfo::default(), stack)
}

/// Connects a client to a stack, with the facts of one's own: an address for a list of trusted peers, say.
///
/// ```
/// use std::net::SocketAddr;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, service_fn};
/// use wharf::{Body, BoxError, ConnInfo, Http};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let stack = ServiceBuilder::new().layer(Http::new()).service(service_fn(|request: Request<Body>| async move {
///     let peer = ConnInfo::of(&request).map(|info| info.peer.to_string());
///     Ok::<_, BoxError>(Response::new(Body::from(peer.unwrap_or_default())))
/// }));
/// let mut info = ConnInfo::default();
/// info.peer = SocketAddr::from(([10, 0, 0, 1], 5000)).into();
/// let mut client = wharf::test::connect_as(info, stack);
/// assert_eq!(client.get("/").await.body(), "10.0.0.1:5000");
/// # }
/// ```
pub fn connect_as<S>(info: ConnInfo, mut stack: S) -> Client
where
    S: Service<Conn<Stream>, Response = ConnReport> + 'static,
    S::Error: Into<BoxError>,
{
    Client::new(info.clone(), |conn| {
        let live = conn.live().clone();
        Box::pin(async move {
            if let Err(error) = poll_fn(|cx| stack.poll_ready(cx)).await {
                panic!("the stack failed in poll_ready: {}", error.into());
            }
            match stack.call(conn).await {
                Ok(report) => report,
                Err(error) => {
                    let mut report = live.report(CloseReason::before_http(error), Bytes::new());
                    report.info = live.info().cloned().unwrap_or(info);
                    report
                }
            }
        })
    })
}

/// The bytes of a request, as [`Client::request`] sends them: for pipelining, or to be sent in pieces.
///
/// The target is in origin form, `Host` is the URI's authority or `localhost`, and a body gets a `content-length`; a
/// request that brings `host`, `content-length` or `transfer-encoding: chunked` keeps its own.
///
/// ```
/// use http::Request;
///
/// let request = Request::post("http://a.example/submit?x").body("hello").unwrap();
/// assert_eq!(
///     wharf::test::encode(request),
///     "POST /submit?x HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhello"
/// );
/// ```
///
/// # Panics
///
/// For a version other than HTTP/1.1 and HTTP/1.0.
#[must_use]
pub fn encode(request: Request<impl Into<Bytes>>) -> Bytes {
    response::encode(request.map(Into::into))
}

/// A client in memory; [`connect`] makes it. Dropping it drops the connection.
///
/// A method that is dropped before it is done has taken nothing of what came.
///
/// As `AsyncRead` and `AsyncWrite` it is a plain stream, for whatever is spoken after an upgrade: those know no patience.
pub struct Client {
    pipe: Pipe,
    live: Arc<Live>,
    /// `None` once it has ended.
    connection: Option<Connection>,
    report: Option<ConnReport>,
    woken: Arc<Woken>,
    patience: Option<Duration>,
    responses: u64,
}

type Connection = Pin<Box<dyn Future<Output = ConnReport>>>;

/// Received and not taken by the test: beyond that the stack sends without end.
const MOST: usize = 64 << 20;

/// How often in a row the runtime is given its turn without a wake, before all is taken to be done.
const QUIET: u32 = 4;

impl Client {
    fn new(info: ConnInfo, serve: impl FnOnce(Conn<Stream>) -> Connection) -> Self {
        let (pipe, live) = (Pipe::new(), Arc::new(Live::new()));
        let io = Stream::memory(pipe.clone(), live.clone());
        Self {
            connection: Some(serve(Conn::accepted(io, info, live.clone()))),
            pipe,
            live,
            report: None,
            woken: Arc::default(),
            patience: None,
            responses: 0,
        }
    }

    /// How long each method waits for what it wants, in the runtime's time.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    // What the client does.

    /// Sends bytes, which arrive as one read, and lets the connection do all it can with them in no time.
    ///
    /// Never waits for the server to read them; see [`unread`](Self::unread).
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.settle().await;
        self.put(bytes);
        self.settle().await;
    }

    /// Sends bytes without letting the connection run: they wait in its socket, as when a process is stopped for a while,
    /// and are there before any deadline that passes meanwhile is seen.
    pub fn put(&mut self, bytes: impl AsRef<[u8]>) {
        self.pipe.send(Bytes::copy_from_slice(bytes.as_ref()));
    }

    /// Sends bytes one at a time; after each the connection does all it can.
    pub async fn dribble(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]).await;
        }
    }

    /// Sends a request and waits for its response; interim ones before it are passed over. See [`encode`].
    ///
    /// # Panics
    ///
    /// As [`response`](Self::response).
    #[track_caller]
    pub fn request(
        &mut self,
        request: Request<impl Into<Bytes>>,
    ) -> impl Future<Output = Response<Bytes>> {
        let at = Location::caller();
        let method = request.method().clone();
        let bytes = encode(request);
        async move {
            self.send(bytes).await;
            self.wait_for_response(at, method).await
        }
    }

    /// Sends a GET and waits for its response.
    ///
    /// # Panics
    ///
    /// When `target` isn't one, and as [`response`](Self::response).
    #[track_caller]
    pub fn get(&mut self, target: &str) -> impl Future<Output = Response<Bytes>> {
        match Request::get(target).body(Bytes::new()) {
            Ok(request) => self.request(request),
            Err(error) => panic!("`{target}` is no target of a request: {error}"),
        }
    }

    /// Sends no more (FIN), and still reads. The connection does all it can with that in no time.
    pub async fn finish(&mut self) {
        self.leave(End::Finished).await;
    }

    /// Gives the connection up (RST).
    pub async fn reset(&mut self) {
        self.leave(End::Reset).await;
    }

    /// Takes only so many more bytes, as a client does that reads slowly; `usize::MAX` for all that come.
    pub async fn take_only(&mut self, bytes: usize) {
        self.settle().await;
        self.pipe.take_only(bytes);
        self.settle().await;
    }

    // What the client sees.

    /// The next response, to any request but HEAD or CONNECT; interim ones before it are passed over, and
    /// [`Trailers`] are in its extensions.
    ///
    /// # Panics
    ///
    /// When it doesn't come whole, isn't HTTP, or doesn't come in time.
    #[track_caller]
    pub fn response(&mut self) -> impl Future<Output = Response<Bytes>> {
        self.wait_for_response(Location::caller(), Method::GET)
    }

    /// The next response, to a request with this method: one to HEAD has no content whatever it declares.
    ///
    /// # Panics
    ///
    /// As [`response`](Self::response).
    #[track_caller]
    pub fn response_to(&mut self, method: Method) -> impl Future<Output = Response<Bytes>> {
        self.wait_for_response(Location::caller(), method)
    }

    /// The next interim response: 100, 102 or 103.
    ///
    /// # Panics
    ///
    /// When something else comes, or nothing in time.
    #[track_caller]
    pub fn interim(&mut self) -> impl Future<Output = Response<()>> {
        let at = Location::caller();
        self.wait_for_bytes(at, "an interim response".to_owned(), |state| {
            let Some(head) = Head::read(&state.received)? else {
                return Ok(None);
            };
            if !head.is_interim() {
                return Err(format!("a final one came, {}", head.response.status()));
            }
            state.received.advance(head.length);
            Ok(Some(head.response))
        })
    }

    /// Takes what has come so far and was in no response taken before, once the connection has done all it can.
    pub async fn received(&mut self) -> Bytes {
        self.settle().await;
        self.pipe.lock().received.split().freeze()
    }

    /// Takes exactly so many bytes: of another protocol after an upgrade, say.
    ///
    /// # Panics
    ///
    /// When the connection ends before, or they don't come in time.
    #[track_caller]
    pub fn receive(&mut self, bytes: usize) -> impl Future<Output = Bytes> {
        let at = Location::caller();
        self.wait_for_bytes(at, format!("{bytes} bytes"), move |state| {
            let is_there = state.received.len() >= bytes;
            Ok(is_there.then(|| state.received.split_to(bytes).freeze()))
        })
    }

    /// Takes all that still comes, until the server finishes or [resets](Self::is_reset) the connection.
    ///
    /// # Panics
    ///
    /// When it doesn't do so in time.
    #[track_caller]
    pub fn receive_to_end(&mut self) -> impl Future<Output = Bytes> {
        let at = Location::caller();
        self.wait_for_bytes(at, "the end of what is sent".to_owned(), |state| {
            let is_over = state.server() != End::Open;
            Ok(is_over.then(|| state.received.split().freeze()))
        })
    }

    /// The connection was reset instead of being closed, so what came can't look complete.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.pipe.lock().server() == End::Reset
    }

    /// How many of the bytes that were sent the server has not read.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.pipe.lock().unread()
    }

    // The connection's end.

    /// Waits until the server ends the connection, which the client then closes too. What came stays to be
    /// [received](Self::received).
    ///
    /// # Panics
    ///
    /// When it doesn't end in time.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = ConnReport> {
        let at = Location::caller();
        self.wait(at, "the connection's end".to_owned(), |client| {
            if client.pipe.lock().server() != End::Open {
                client.pipe.leave(End::Closed);
            }
            Ok(client.report.clone())
        })
    }

    /// Closes, as a client does that has had enough, and waits for the connection's end.
    ///
    /// # Panics
    ///
    /// When it doesn't end in time.
    #[track_caller]
    pub fn close(&mut self) -> impl Future<Output = ConnReport> {
        let at = Location::caller();
        async move {
            self.leave(End::Closed).await;
            self.wait(at, "the end of a closed connection".to_owned(), |client| {
                Ok(client.report.clone())
            })
            .await
        }
    }

    /// How the connection ended, if it was seen to end.
    #[must_use]
    pub fn report(&self) -> Option<&ConnReport> {
        self.report.as_ref()
    }

    // Time, and the server.

    /// Runs the connection while the test waits for something else: a time, a channel, another client's response.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use http::{Request, Response};
    /// # use tower::service_fn;
    /// # use wharf::{Body, BoxError, Http};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let slow = service_fn(|_: Request<Body>| async {
    ///     tokio::time::sleep(Duration::from_secs(5)).await;
    ///     Ok::<_, BoxError>(Response::new(Body::from("late")))
    /// });
    /// let mut client = wharf::test::connect(Http::new(), slow);
    /// client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    /// client.during(tokio::time::sleep(Duration::from_secs(4))).await;
    /// assert_eq!(client.received().await, "");
    /// client.during(tokio::time::sleep(Duration::from_secs(2))).await;
    /// assert_eq!(client.response().await.body(), "late");
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// When it isn't over in time.
    #[track_caller]
    pub fn during<F: Future>(&mut self, future: F) -> impl Future<Output = F::Output> {
        let at = Location::caller();
        async move {
            let mut future = pin!(future);
            let mut patience = pin!(run_out(self.patience));
            let outcome = poll_fn(|cx| {
                self.poll_connection(cx);
                if let Poll::Ready(done) = future.as_mut().poll(cx) {
                    return Poll::Ready(Ok(done));
                }
                patience.as_mut().poll(cx).map(Err)
            });
            match outcome.await {
                Ok(done) => done,
                Err(waited) => self.fail(at, "what `during` was given", &timed_out(waited)),
            }
        }
    }

    /// Tells the connection what a server tells all of its connections while it is a lame duck: to close after the
    /// response under way or the next one.
    pub async fn lame_duck(&mut self) {
        self.tell(Told::LastCall).await;
    }

    /// Tells the connection what a server tells when it drains: to close after the response under way, at once if idle.
    pub async fn drain(&mut self) {
        self.tell(Told::Drain).await;
    }

    /// Tells the connection what a server tells when the time for finishing is over.
    pub async fn cut(&mut self) {
        self.tell(Told::Cut).await;
    }

    async fn tell(&mut self, told: Told) {
        self.settle().await;
        self.live.tell(told, By::Shutdown);
        self.settle().await;
    }

    async fn leave(&mut self, end: End) {
        self.settle().await;
        self.pipe.leave(end);
        self.settle().await;
    }

    async fn wait_for_response(&mut self, at: At, method: Method) -> Response<Bytes> {
        let what = format!("response {}, to {method}", self.responses + 1);
        let look = |state: &mut State| {
            while let Some(head) = Head::read(&state.received)?
                && head.is_interim()
            {
                state.received.advance(head.length);
            }
            let read = response::read(&state.received, &method, state.server())?;
            Ok(read.map(|(response, length)| {
                state.received.advance(length);
                response
            }))
        };
        let response = self.wait_for_bytes(at, what, look).await;
        self.responses += 1;
        response
    }

    /// Waits for something to be received. Once nothing more can be, the client closes, to learn why.
    async fn wait_for_bytes<T>(
        &mut self,
        at: At,
        what: String,
        mut look: impl FnMut(&mut State) -> Result<Option<T>, String>,
    ) -> T {
        let look = |client: &mut Self| {
            let mut state = client.pipe.lock();
            let found = look(&mut state)?;
            if found.is_some() || state.server() == End::Open {
                return Ok(found);
            }
            drop(state);
            client.pipe.leave(End::Closed);
            match client.report {
                Some(_) => Err("it can't come any more".to_owned()),
                None => Ok(None),
            }
        };
        self.wait(at, what, look).await
    }

    /// The one place that waits: runs the connection until `look` finds something, or a sentence that says why it never
    /// will.
    async fn wait<T>(
        &mut self,
        at: At,
        what: String,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>, String>,
    ) -> T {
        let mut patience = pin!(run_out(self.patience));
        let outcome = poll_fn(|cx| {
            self.poll_connection(cx);
            match look(self) {
                Ok(Some(found)) => return Poll::Ready(Ok(found)),
                Err(why) => return Poll::Ready(Err(why)),
                Ok(None) => {}
            }
            let patience = patience.as_mut().poll(cx);
            patience.map(|waited| Err(timed_out(waited)))
        });
        match outcome.await {
            Ok(found) => found,
            Err(why) => self.fail(at, &what, &why),
        }
    }

    /// Lets the connection, and what it spawned, do all they can without any time passing.
    async fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < QUIET {
            let woken = poll_fn(|cx| Poll::Ready(self.poll_connection(cx))).await;
            quiet = if woken { 0 } else { quiet + 1 };
            tokio::task::yield_now().await;
        }
    }

    /// Polls the connection if it was woken: one that forgets to ask for that hangs here as it would hang a server.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> bool {
        self.woken.passes_on_to(cx.waker());
        self.pipe.watch(cx);
        let Some(connection) = &mut self.connection else {
            return false;
        };
        if !self.woken.take() {
            return false;
        }
        let waker = Waker::from(self.woken.clone());
        if let Poll::Ready(report) = connection.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.connection = None;
            self.report = Some(report);
        }
        let received = self.pipe.lock().received.len();
        assert!(
            received <= MOST,
            "the server has sent {received} bytes that the test hasn't taken, and doesn't stop; \
             `take_only` makes a client that reads slowly"
        );
        true
    }

    #[cold]
    fn fail(&self, at: At, what: &str, why: &str) -> ! {
        const SHOWN: usize = 2048;
        let state = self.pipe.lock();
        let received = &state.received[..];
        let (shown, more) = match received.split_at_checked(SHOWN) {
            Some((shown, rest)) => (shown, format!(" and {} bytes more", rest.len())),
            None => (received, String::new()),
        };
        let connection = match &self.report {
            Some(report) => format!("the connection has ended: {}", report.reason),
            None if state.server() != End::Open => "the server has finished sending".to_owned(),
            None if state.client() != End::Open => "the client has finished sending".to_owned(),
            None => format!(
                "the connection is open (requests: {})",
                self.live.requests()
            ),
        };
        let shown = shown.escape_ascii().to_string();
        drop(state);
        panic!("{at}: waited for {what}: {why}; {connection}; what came is \"{shown}\"{more}");
    }
}

/// Where in the test.
type At = &'static Location<'static>;

/// Waits for as long as a test should, and says how long that was.
async fn run_out(patience: Option<Duration>) -> Duration {
    const REAL: Duration = Duration::from_secs(10);
    const PAUSED: Duration = Duration::from_secs(24 * 3600);
    if let Some(patience) = patience {
        tokio::time::sleep(patience).await;
        return patience;
    }
    let begun = std::time::Instant::now();
    tokio::time::sleep(REAL).await;
    // Only a paused clock gets here in less time than it says.
    if begun.elapsed() >= REAL / 2 {
        return REAL;
    }
    tokio::time::sleep(PAUSED - REAL).await;
    PAUSED
}

fn timed_out(waited: Duration) -> String {
    format!("it did not come within {waited:?}")
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("responses", &self.responses)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_connection(cx);
        let mut state = self.pipe.lock();
        if state.received.is_empty() {
            return match state.server() {
                End::Open => Poll::Pending,
                End::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                End::Finished | End::Closed => Poll::Ready(Ok(())),
            };
        }
        let fits = state.received.len().min(into.remaining());
        into.put_slice(&state.received.split_to(fits));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.pipe.lock().client() != End::Open || self.report.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.pipe.send(Bytes::copy_from_slice(bytes));
        self.poll_connection(cx);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_connection(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.leave(End::Finished);
        self.poll_connection(cx);
        Poll::Ready(Ok(()))
    }
}

/// The connection's waker: notes that it is to be polled, and wakes whatever task the client is used in.
struct Woken {
    is_woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Default for Woken {
    /// A connection is polled once before anything wakes it.
    fn default() -> Self {
        Self {
            is_woken: AtomicBool::new(true),
            task: Mutex::default(),
        }
    }
}

impl Woken {
    fn passes_on_to(&self, waker: &Waker) {
        let mut task = self.lock();
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    fn take(&self) -> bool {
        self.is_woken.swap(false, SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, SeqCst);
        // Not under the lock: a waker may run anything.
        let task = self.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}
