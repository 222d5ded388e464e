//! One keep-alive connection in memory, wharf beside hyper: what valgrind's callgrind counts and what a clock on a
//! noisy machine can't. `memory SERVER WORKLOAD COUNT`; the cost of a request is the slope between two counts.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, server, workload, count] = args.as_slice() else {
        eprintln!(
            "usage: memory httparse|strict|hyper|hyper-flush tiny|browser|pipelined|post|split COUNT"
        );
        return ExitCode::from(2);
    };
    let (reads, echo) = match workload.as_str() {
        "tiny" => (vec![TINY.as_bytes().to_vec()], false),
        "browser" => (vec![BROWSER.as_bytes().to_vec()], false),
        "pipelined" => (vec![TINY.repeat(16).into_bytes()], false),
        "post" => (vec![[post_head().as_bytes(), &[b'x'; 1024]].concat()], true),
        "split" => (vec![post_head().into_bytes(), vec![b'x'; 1024]], true),
        other => {
            eprintln!("no workload is called {other}");
            return ExitCode::from(2);
        }
    };
    let Ok(count) = count.parse() else {
        eprintln!("COUNT must be a number, not {count}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _guard = runtime.enter();
    let wire = Canned {
        reads,
        next: 0,
        at: 0,
        rest: false,
        rounds: count,
        written: 0,
    };
    match server.as_str() {
        "httparse" => wharf(wire, wharf::codec::Httparse::new, echo),
        "strict" => wharf(wire, wharf::codec::Strict::new, echo),
        "hyper" => hyper(wire, false, echo),
        "hyper-flush" => hyper(wire, true, echo),
        other => {
            eprintln!("no server is called {other}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn post_head() -> String {
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\ncontent-length: 1024\r\n\r\n".to_owned()
}

async fn handler<B>(
    request: Request<B>,
    echo: bool,
) -> Result<Response<Full<Bytes>>, wharf::BoxError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<wharf::BoxError>,
{
    let content = if echo {
        let collected = request.into_body().collect().await.map_err(Into::into)?;
        collected.to_bytes()
    } else {
        Bytes::from_static(b"Hello, World!")
    };
    let mut response = Response::new(Full::new(content));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn wharf<C: wharf::codec::Codec>(wire: Canned, codec: fn(&wharf::Limits) -> C, echo: bool) {
    let service = tower::service_fn(move |request| handler(request, echo));
    let http = wharf::Http::new().codec(codec);
    let connection = http
        .connection(wharf::Conn::from(wire), service)
        .expect("the default limits work");
    let report = run(connection);
    println!("{report}");
}

fn hyper(wire: Canned, flush: bool, echo: bool) {
    let service = hyper::service::service_fn(move |request| handler(request, echo));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.pipeline_flush(flush);
    let connection = http.serve_connection(Compat(wire), service);
    println!("{:?}", run(connection));
}

/// Polls to the end, as a runtime would if every wake came at once.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

/// A client in memory: the same reads again and again, each pending once before it comes; what is written is counted.
struct Canned {
    reads: Vec<Vec<u8>>,
    next: usize,
    at: usize,
    rest: bool,
    rounds: u64,
    written: usize,
}

impl Canned {
    fn poll_next(&mut self, room: usize) -> Poll<&[u8]> {
        if std::mem::replace(&mut self.rest, false) {
            return Poll::Pending;
        }
        if self.rounds == 0 {
            return Poll::Ready(&[]);
        }
        let (read, from) = (self.next, self.at);
        let to = self.reads[read].len().min(from + room);
        self.at = to;
        if to == self.reads[read].len() {
            (self.at, self.rest) = (0, true);
            self.next = (read + 1) % self.reads.len();
            self.rounds -= u64::from(self.next == 0);
        }
        Poll::Ready(&self.reads[read][from..to])
    }
}

impl AsyncRead for Canned {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_next(buf.remaining()).map(|bytes| {
            buf.put_slice(bytes);
            Ok(())
        })
    }
}

impl AsyncWrite for Canned {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written += buf.len();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.written += bytes;
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The same stream under hyper's traits.
struct Compat(Canned);

impl hyper::rt::Read for Compat {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_next(buf.remaining()).map(|bytes| {
            buf.put_slice(bytes);
            Ok(())
        })
    }
}

impl hyper::rt::Write for Compat {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
