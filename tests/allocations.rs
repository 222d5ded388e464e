//! How often a request allocates. The same service on wharf and on hyper, one keep-alive connection, a stream in memory
//! that hands out one whole request at a time and is pending in between, polled by hand so that nothing else runs.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Requests that let buffers and caches reach their size, and then those that are counted.
const WARM_UP: u64 = 100;
const COUNTED: u64 = 1_000;

/// Once a second the `Date` line is renewed, which may allocate; a run takes well under a minute.
const FOR_THE_DATE: u64 = 60;

const TINY: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_tiny_get_allocates_no_more_often_than_on_hyper() {
    let (hyper, wharf) = (on_hyper(TINY), on_wharf(TINY));
    print("hyper", &hyper);
    print("wharf", &wharf);
    assert!(
        hyper.count_total >= COUNTED,
        "nothing was counted: {hyper:?}"
    );
    assert!(
        wharf.count_total <= hyper.count_total,
        "wharf {wharf:?}, hyper {hyper:?}"
    );
}

#[test]
fn a_tiny_get_allocates_at_most_twice() {
    let wharf = on_wharf(TINY);
    print("wharf", &wharf);
    assert!(wharf.count_total <= 2 * COUNTED + FOR_THE_DATE, "{wharf:?}");
}

#[test]
fn a_connection_that_goes_on_keeps_no_memory_for_what_is_over() {
    let wharf = on_wharf(TINY);
    assert!(wharf.bytes_current <= 4096, "{wharf:?}");
}

async fn hello<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(
        b"Hello, World!",
    ))))
}

fn on_wharf(request: &'static [u8]) -> AllocationInfo {
    count(request, |stream| {
        wharf::serve_connection(stream, tower::service_fn(hello))
    })
}

fn on_hyper(request: &'static [u8]) -> AllocationInfo {
    count(request, |stream| {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), hyper::service::service_fn(hello))
    })
}

/// Serves `WARM_UP` requests, then `COUNTED` more, and says what those allocated.
fn count<F: Future>(request: &'static [u8], serve: impl FnOnce(Canned) -> F) -> AllocationInfo {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let _timers = runtime.enter();

    let canned = Canned::new(request);
    let mut connection = pin!(serve(canned.clone()));
    let mut exchange = || {
        let answered = canned.answered.load(Relaxed);
        canned.granted.store(true, Relaxed);
        // Once for the request; a connection may yield in order to be fair, and is then polled again.
        for _ in 0..4 {
            let poll = connection
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending(), "the connection ended");
        }
        assert!(!canned.granted.load(Relaxed), "the request was not read");
        assert_eq!(
            canned.answered.load(Relaxed),
            answered + 1,
            "one request, one answer"
        );
    };
    (0..WARM_UP).for_each(|_| exchange());
    measure(|| (0..COUNTED).for_each(|_| exchange()))
}

/// A stream that holds one request whenever it is granted one, and counts the answers written to it.
#[derive(Clone)]
struct Canned {
    request: &'static [u8],
    granted: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Canned {
    fn new(request: &'static [u8]) -> Self {
        Self {
            request,
            granted: Arc::default(),
            answered: Arc::default(),
        }
    }
}

impl AsyncRead for Canned {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nobody is woken: the test polls by itself.
        if !self.granted.load(Relaxed) || buffer.remaining() < self.request.len() {
            return Poll::Pending;
        }
        self.granted.store(false, Relaxed);
        buffer.put_slice(self.request);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Canned {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let heads = bytes
            .windows(12)
            .filter(|window| *window == b"HTTP/1.1 200")
            .count();
        self.answered.fetch_add(heads as u64, Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn print(server: &str, info: &AllocationInfo) {
    let per_request = |figure: u64| figure as f64 / COUNTED as f64;
    println!(
        "{server}: {:.2} allocations, {:.0} bytes a request",
        per_request(info.count_total),
        per_request(info.bytes_total)
    );
}
