//! One keep-alive connection in memory, wharf beside hyper: what valgrind's callgrind and a counting allocator count, and
//! what a clock on a noisy machine can't. The same handler behind the same service on both; the client is a stream that
//! is pending once before each of its reads, as a socket is between requests.

use std::future::Future;
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};

mod canned;

pub use canned::Canned;

/// What a client sends, again and again, and what the handler does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// A GET of 26 bytes.
    Tiny,
    /// What a browser sends: twelve fields, about 700 bytes.
    Browser,
    /// Sixteen tiny requests in one read.
    Pipelined,
    /// 1 KiB, echoed; head and body in one read.
    Post,
    /// The same in two reads.
    Split,
    /// 64 KiB, taken and counted.
    Upload,
    /// 1 MiB in frames of 16 KiB.
    Download,
}

const TINY: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const BROWSER: &str = "GET /static/css/main.3f2a.css?v=1 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/a/page/with/a/path\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; _ga=GA1.2.1234567890.1234567890\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Cache-Control: max-age=0\r\n\r\n";
const KIB: usize = 1024;
const PIPELINED: usize = 16;

impl Workload {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 7] = [
        Self::Tiny,
        Self::Browser,
        Self::Pipelined,
        Self::Post,
        Self::Split,
        Self::Upload,
        Self::Download,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Browser => "browser",
            Self::Pipelined => "pipelined",
            Self::Post => "post",
            Self::Split => "split",
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }

    /// Requests in a round.
    pub fn requests(self) -> u64 {
        match self {
            Self::Pipelined => PIPELINED as u64,
            _ => 1,
        }
    }

    /// The reads of a round.
    pub fn reads(self) -> Vec<Vec<u8>> {
        match self {
            Self::Tiny | Self::Download => vec![TINY.into()],
            Self::Browser => vec![BROWSER.into()],
            Self::Pipelined => vec![TINY.repeat(PIPELINED).into()],
            Self::Post => vec![[post_head(KIB), vec![b'x'; KIB]].concat()],
            Self::Split => vec![post_head(KIB), vec![b'x'; KIB]],
            Self::Upload => vec![[post_head(64 * KIB), vec![b'x'; 64 * KIB]].concat()],
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = Self::ALL.into_iter();
        all.clone()
            .find(|workload| workload.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = all.map(Self::name).collect();
                format!("no workload is called {name}, but {}", names.join(", "))
            })
    }
}

fn post_head(length: usize) -> Vec<u8> {
    format!(
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    )
    .into()
}

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// hyper with its default settings.
    Hyper,
    /// hyper with `pipeline_flush(true)`.
    HyperFlush,
    /// wharf over `httparse`.
    Httparse,
    /// wharf with its default codec.
    Strict,
    /// The same with every limit and deadline at its largest.
    Unlimited,
}

impl Server {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 5] = [
        Self::Hyper,
        Self::HyperFlush,
        Self::Httparse,
        Self::Strict,
        Self::Unlimited,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hyper => "hyper",
            Self::HyperFlush => "hyper-flush",
            Self::Httparse => "httparse",
            Self::Strict => "strict",
            Self::Unlimited => "unlimited",
        }
    }

    /// A connection over `wire`: its future, and the size of that before it was boxed.
    pub fn connection(self, wire: Canned, workload: Workload) -> (Connection, usize) {
        self.with(Boxed, wire, workload)
    }

    fn with<T: Take>(self, take: T, wire: Canned, workload: Workload) -> T::Output {
        match workload {
            Workload::Upload | Workload::Download => {
                let upload = workload == Workload::Upload;
                self.serve(
                    take,
                    wire,
                    move |request| large(request, upload),
                    move |request| large(request, upload),
                )
            }
            _ => {
                let echo = matches!(workload, Workload::Post | Workload::Split);
                self.serve(
                    take,
                    wire,
                    move |request| small(request, echo),
                    move |request| small(request, echo),
                )
            }
        }
    }

    /// The same handler twice, as the request's body has another type on either.
    fn serve<T, F, G, R, H, B>(self, take: T, wire: Canned, wharf: F, hyper: G) -> T::Output
    where
        T: Take,
        F: Fn(Request<wharf::Body>) -> R + 'static,
        G: Fn(Request<hyper::body::Incoming>) -> H + 'static,
        R: Future<Output = Answer<B>> + 'static,
        H: Future<Output = Answer<B>> + 'static,
        B: Body<Data = Bytes, Error: Into<wharf::BoxError>> + 'static,
    {
        let http = wharf::Http::new();
        let service = tower::service_fn(wharf);
        match self {
            Self::Hyper => take.take(on_hyper(wire, hyper, false)),
            Self::HyperFlush => take.take(on_hyper(wire, hyper, true)),
            Self::Httparse => take.take(on_wharf(
                http.codec(wharf::codec::Httparse::new),
                wire,
                service,
            )),
            Self::Strict => take.take(on_wharf(http, wire, service)),
            Self::Unlimited => take.take(on_wharf(http.limits(largest()), wire, service)),
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = Self::ALL.into_iter();
        all.clone()
            .find(|server| server.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = all.map(Self::name).collect();
                format!("no server is called {name}, but {}", names.join(", "))
            })
    }
}

/// A connection to its end.
pub type Connection = Pin<Box<dyn Future<Output = ()>>>;

/// What becomes of a connection, whatever its type.
trait Take {
    type Output;

    fn take<F: Future<Output = ()> + 'static>(self, connection: F) -> Self::Output;
}

/// It is boxed.
struct Boxed;

impl Take for Boxed {
    type Output = (Connection, usize);

    fn take<F: Future<Output = ()> + 'static>(self, connection: F) -> Self::Output {
        let size = size_of_val(&connection);
        (Box::pin(connection), size)
    }
}

/// It is polled to its end where it is, as a runtime would if every wake came at once.
struct Polled;

impl Take for Polled {
    type Output = ();

    fn take<F: Future<Output = ()> + 'static>(self, connection: F) {
        let mut connection = pin!(connection);
        let mut cx = Context::from_waker(Waker::noop());
        while connection.as_mut().poll(&mut cx).is_pending() {}
    }
}

fn on_wharf<M, C, S, B>(
    http: wharf::Http<M>,
    wire: Canned,
    service: S,
) -> impl Future<Output = ()> + use<M, C, S, B>
where
    M: Fn(&wharf::Limits) -> C,
    C: wharf::codec::Codec,
    S: tower::Service<Request<wharf::Body>, Response = Response<B>, Error = wharf::BoxError>,
    B: Body<Error: Into<wharf::BoxError>>,
{
    let connection = http
        .connection(wharf::Conn::from(wire), service)
        .expect("limits that work");
    Quiet { connection }
}

fn on_hyper<G, T, B>(wire: Canned, handler: G, flush: bool) -> impl Future<Output = ()>
where
    G: Fn(Request<hyper::body::Incoming>) -> T + 'static,
    T: Future<Output = Answer<B>> + 'static,
    B: Body<Data = Bytes, Error: Into<wharf::BoxError>> + 'static,
{
    let mut http = hyper::server::conn::http1::Builder::new();
    http.pipeline_flush(flush);
    let service = hyper::service::service_fn(handler);
    let connection = http.serve_connection(canned::Compat(wire), service);
    Quiet { connection }
}

/// What switches deadlines and limits off as far as they can be.
fn largest() -> wharf::Limits {
    let ever = Duration::from_secs(365 * 24 * 3600);
    wharf::Limits {
        head_timeout: ever,
        idle_timeout: ever,
        ready_timeout: ever,
        stall_timeout: ever,
        rate_grace: ever,
        rate_floor: 0,
        drain_timeout: ever,
        linger_timeout: ever,
        linger_idle_timeout: ever,
        max_age: ever,
        ..wharf::Limits::default()
    }
}

pin_project_lite::pin_project! {
    /// A connection whose outcome doesn't matter.
    struct Quiet<F> {
        #[pin]
        connection: F,
    }
}

impl<F: Future> Future for Quiet<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().connection.poll(cx).map(drop)
    }
}

type Answer<B> = Result<Response<B>, wharf::BoxError>;

/// The handler of the workloads with small bodies.
async fn small<B>(request: Request<B>, echo: bool) -> Answer<Full<Bytes>>
where
    B: Body<Data = Bytes, Error: Into<wharf::BoxError>>,
{
    let content = if echo {
        let collected = request.into_body().collect().await.map_err(Into::into)?;
        collected.to_bytes()
    } else {
        Bytes::from_static(b"Hello, World!")
    };
    Ok(plain_text(Full::new(content)))
}

/// The handler of the others.
async fn large<B>(request: Request<B>, upload: bool) -> Answer<Content>
where
    B: Body<Data = Bytes, Error: Into<wharf::BoxError>> + Unpin,
{
    if !upload {
        return Ok(plain_text(Content::of(&[b'x'; 16 * KIB], 64)));
    }
    let (mut body, mut count) = (request.into_body(), 0);
    while let Some(frame) = body.frame().await {
        count += frame.map_err(Into::into)?.data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(count, 64 * KIB);
    Ok(plain_text(Content::of(b"65536", 1)))
}

fn plain_text<B>(content: B) -> Response<B> {
    let mut response = Response::new(content);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The same bytes a number of times; a length is declared where that is once.
struct Content {
    bytes: Bytes,
    frames: usize,
    is_whole: bool,
}

impl Content {
    fn of(bytes: &'static [u8], frames: usize) -> Self {
        Self {
            bytes: Bytes::from_static(bytes),
            frames,
            is_whole: frames == 1,
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(left) = self.frames.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.frames = left;
        let bytes = if left == 0 {
            std::mem::take(&mut self.bytes)
        } else {
            self.bytes.clone()
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_whole {
            SizeHint::with_exact((self.bytes.len() * self.frames) as u64)
        } else {
            SizeHint::default()
        }
    }
}

/// Serves `rounds` of a workload on a connection of its own.
pub fn run(server: Server, workload: Workload, rounds: u64) {
    let wire = Canned::new(workload.reads(), rounds);
    server.with(Polled, wire, workload);
}

/// The size of the future of the handler for small bodies, which a connection of wharf holds in its own.
pub fn small_handler_bytes() -> usize {
    size_of_val(&small(Request::new(wharf::Body::empty()), false))
}

/// A runtime whose clock and timers can be used.
///
/// # Panics
///
/// If there is none to be had.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}
