//! How often a layer allocates for a request: not at all, unless it is named here with its reason. Counted on wharf, over
//! one connection in memory that is polled by hand, as the difference to the same service without the layer. What the
//! limits take in all is in `allocations_limits.rs`.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};
use tower::{Layer, Service, service_fn};
use tower_layer::Identity;
use wharf::{Address, Body, BoxError, Conn, ConnInfo, Http};
use wharf_middleware::keep_alive::Decision;
use wharf_middleware::sse::{Event, Hub};
use wharf_middleware::{
    AccessLog, Conditional, DecompressionGuard, Detach, Health, KeepAlive, Metrics, Next,
    OverloadLayer, RateLimitLayer, Timeout, Timings, TrustedProxies, from_fn,
};

/// Requests that let buffers and caches reach their size, and then those that are counted.
const WARM_UP: u64 = 200;
const COUNTED: u64 = 1_000;

/// The `Date` line is renewed now and then, and a buffer may grow once more.
const SLACK: u64 = 40;

/// The first extension of a request allocates its map, the map its table, and the value's box.
const FIRST_EXTENSION: u64 = 3;

/// The text, and the fields' map with its table.
const PROBE: u64 = 3;

const TIME: Duration = Duration::from_secs(60);

const REQUEST: &[u8] =
    b"GET /path?token=x HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nReferer: http://c/\r\n\
    X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Host: a.example\r\n\r\n";

/// One that is told what its client has, and one with a body in a coding.
const CONDITIONAL: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\n";
const CODED: &[u8] =
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: x\r\nContent-Length: 1\r\n\r\nx";

type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// The innermost service: its response has a field, so that the map is there.
#[derive(Debug, Clone, Copy)]
struct Hello;

/// One whose response has no field.
#[derive(Debug, Clone, Copy)]
struct Bare;

impl Service<Request<Body>> for Bare {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Ready<Answer> {
        let hello = Full::new(Bytes::from_static(b"hello"));
        ready(Ok(Response::new(hello)))
    }
}

impl<B> Service<Request<B>> for Hello {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Ready<Answer> {
        let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
        let value = HeaderValue::from_static("x");
        response.headers_mut().insert("x-field", value);
        ready(Ok(response))
    }
}

/// Pending once, as a handler is that waits for something.
#[derive(Clone, Copy)]
struct Late;

impl Service<Request<Body>> for Late {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Later;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Later {
        Later(Some(Hello.call(request)))
    }
}

struct Later(Option<Ready<Answer>>);

impl Future for Later {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        // Whoever polls by hand comes again without being woken.
        match self.0.take() {
            Some(answer) => {
                *self = Self(None);
                HELD.with(|held| held.set(Some(answer)));
                Poll::Pending
            }
            None => {
                let answer = HELD.with(|held| held.take()).expect("polled before");
                pin!(answer).poll(cx)
            }
        }
    }
}

thread_local! {
    static HELD: std::cell::Cell<Option<Ready<Answer>>> = const { std::cell::Cell::new(None) };
}

#[test]
fn layers_do_not_allocate() {
    let timings = Timings::new();
    expect("from_fn", 0, from_fn(pass).layer(Hello));
    expect("Timeout", 0, all_times().layer(Hello));
    expect(
        "AccessLog::common",
        0,
        AccessLog::common().to_writer(io::sink()).layer(Hello),
    );
    expect(
        "AccessLog::combined",
        0,
        AccessLog::combined().to_writer(io::sink()).layer(Hello),
    );
    expect(
        "AccessLog::json",
        0,
        AccessLog::json().to_writer(io::sink()).layer(Hello),
    );
    expect("Conditional", 0, Conditional.layer(Hello));
    expect(
        "DecompressionGuard",
        0,
        DecompressionGuard::around(Identity::new()).layer(Hello),
    );
    expect("KeepAlive", 0, keep_alive().layer(Hello));
    let policy = keep_alive().policy(|_| Decision::ByTheRules);
    expect("KeepAlive with a policy", 0, policy.layer(Hello));
    expect(
        "Timed",
        0,
        timings.timed("nothing", Identity::new()).layer(Hello),
    );
    expect("Metrics", 0, Metrics::new().layer(Hello));
    let many = RateLimitLayer::new(1_000_000, Duration::from_secs(1));
    expect("RateLimit", 0, many.without_fields().layer(Hello));
    expect("Overload", 0, OverloadLayer::adaptive().layer(Hello));
    let asked = Health::new().check("store", TIME, async || Ok::<_, Infallible>(()));
    expect("Health, for what is no probe", 0, asked.layer(Hello));
}

#[test]
fn a_time_out_that_has_to_wait_does_not_allocate_either() {
    let bare = allocations(Late);
    assert_eq!(allocations(all_times().layer(Late)).saturating_sub(bare), 0);
}

#[test]
fn metrics_take_half_a_mib_and_no_more() {
    let mut kept = None;
    let memory = measure(|| {
        let metrics = Metrics::new();
        drop(metrics.layer(Bare).call(Request::new(Body::empty())));
        kept = Some(metrics);
    });
    println!("Metrics: {} bytes", memory.bytes_current);
    assert!(
        (400 << 10..=512 << 10).contains(&memory.bytes_current),
        "{memory:?}"
    );
    drop(kept);
}

#[test]
fn a_probe_in_a_storm_is_a_text_and_its_fields() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let health = Health::new()
        .keep(TIME)
        .check("store", TIME, async || Ok::<_, Infallible>(()));
    let mut probe = health.readiness();
    let counted = repeated(|| {
        let response = runtime.block_on(async { probe.call(Request::new(())).await });
        assert!(response.is_ok_and(|response| response.status() == 200));
    });
    println!(
        "Health, for a probe: {:.2} allocations",
        counted as f64 / COUNTED as f64
    );
    assert!(counted <= PROBE * COUNTED, "{counted}");
}

#[test]
fn a_detached_call_is_one_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let (mut bare, mut detached) = (Hello, Detach.layer(Hello));
    let runtime = &runtime;
    let without = repeated(|| drop(runtime.block_on(async { bare.call(Request::new(())).await })));
    let with = repeated(|| drop(runtime.block_on(async { detached.call(Request::new(())).await })));
    println!("Detach: {} allocations", with - without);
    assert!(
        (COUNTED..=COUNTED + SLACK).contains(&(with - without)),
        "{with} {without}"
    );
}

#[test]
fn the_first_fields_of_a_response_cost_nothing_on_wharf() {
    // Their map is the next request's: the connection keeps it. Elsewhere it is two allocations.
    let (bare, said) = (allocations(Bare), allocations(keep_alive().layer(Bare)));
    assert!(said <= bare + SLACK, "{said}, and {bare} without the layer");
}

#[test]
fn these_do_and_why() {
    expect(
        "Timeout that announces: an extension",
        FIRST_EXTENSION,
        all_times().announce().layer(Hello),
    );
    let proxies = TrustedProxies::x_forwarded_for()
        .trust(["10.0.0.0/8"])
        .expect("a network");
    expect(
        "TrustedProxies: an extension",
        FIRST_EXTENSION,
        proxies.clone().layer(Hello),
    );
    let with_host = proxies.x_forwarded_host().layer(Hello);
    expect(
        "TrustedProxies: and the host",
        FIRST_EXTENSION + 1,
        with_host,
    );
    let field = http::HeaderName::from_static("x-forwarded-for");
    let log = AccessLog::json().field(field).to_writer(io::sink());
    expect("AccessLog with fields: a list of them", 1, log.layer(Hello));
}

#[test]
fn these_do_for_some_requests_and_why() {
    let conditional = Conditional.layer(Hello);
    expect_for(
        CONDITIONAL,
        "Conditional: a map of the conditions",
        2,
        conditional,
    );
    let guard = DecompressionGuard::around(Identity::new()).layer(Hello);
    expect_for(
        CODED,
        "DecompressionGuard: a count, and an extension",
        1 + FIRST_EXTENSION,
        guard,
    );
}

#[test]
fn an_event_allocates_as_often_for_a_hundred_listeners_as_for_one() {
    let events = |listeners: usize| {
        let hub = Hub::new();
        let mut all: Vec<_> = (0..listeners)
            .map(|_| Box::pin(hub.subscribe(None)))
            .collect();
        let mut cx = Context::from_waker(Waker::noop());
        let mut publish = || {
            hub.publish(Event::new("news"));
            for one in &mut all {
                assert!(one.as_mut().poll_next(&mut cx).is_ready());
                assert!(one.as_mut().poll_next(&mut cx).is_pending());
            }
        };
        (0..WARM_UP).for_each(|_| publish());
        measure(|| (0..COUNTED).for_each(|_| publish())).count_total
    };
    let (one, hundred) = (events(1), events(100));
    println!("{:.2} allocations an event", one as f64 / COUNTED as f64);
    assert_eq!(one, hundred);
    assert!(one <= 2 * COUNTED + SLACK, "{one}");
}

#[test]
fn what_is_counted_is_what_is_allocated() {
    let allocates = service_fn(|request: Request<Body>| {
        std::hint::black_box(Box::new(request.version()));
        Hello.call(request)
    });
    expect("a box", 1, allocates);
}

/// What `COUNTED` calls allocate.
fn repeated(mut call: impl FnMut()) -> u64 {
    (0..WARM_UP).for_each(|_| call());
    measure(|| (0..COUNTED).for_each(|_| call())).count_total
}

fn all_times() -> Timeout {
    let time = TIME;
    Timeout::new().handler(time).exchange(time).gap(time)
}

fn keep_alive() -> KeepAlive {
    let time = TIME;
    let bounded = KeepAlive::new().max_requests(u64::MAX).max_age(100 * time);
    bounded
        .jitter(0.1)
        .idle(time)
        .crowded(0.9, time / 2, || 1.0)
}

async fn pass<S, B, R>(request: Request<B>, next: Next<S>) -> Result<Response<R>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    next.call(request).await
}

/// `service`, a layer around [`Hello`], allocates so often for each request, and no more.
fn expect<S, R>(what: &str, allowed: u64, service: S)
where
    S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    R: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    expect_for(REQUEST, what, allowed, service);
}

fn expect_for<S, R>(request: &[u8], what: &str, allowed: u64, service: S)
where
    S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    R: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let counted = allocations_for(request, service).saturating_sub(allocations_for(request, Hello));
    println!(
        "{what}: {:.2} allocations a request",
        counted as f64 / COUNTED as f64
    );
    assert!(counted <= allowed * COUNTED + SLACK, "{what}: {counted}");
    assert!(
        counted + SLACK >= allowed * COUNTED,
        "{what}: only {counted}"
    );
}

/// What `COUNTED` requests allocate.
fn allocations<S, R>(service: S) -> u64
where
    S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    R: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    allocations_for(REQUEST, service)
}

fn allocations_for<S, R>(request: &[u8], service: S) -> u64
where
    S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    R: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let _timers = runtime.enter();

    let (client, server) = duplex(1 << 14);
    let mut info = ConnInfo::default();
    info.peer = Address::Socket(SocketAddr::from(([10, 0, 0, 1], 4711)));
    let mut connections = Http::new().layer(service);
    let mut connection = pin!(connections.call(Conn::new(server, info)));
    let mut client = pin!(client);
    let mut cx = Context::from_waker(Waker::noop());
    let mut exchange = || {
        let sent = client.as_mut().poll_write(&mut cx, request);
        assert!(matches!(sent, Poll::Ready(Ok(count)) if count == request.len()));
        // Once for the request, and again where something was pending or the connection yields to be fair.
        for _ in 0..4 {
            assert!(
                connection.as_mut().poll(&mut cx).is_pending(),
                "the connection ended"
            );
        }
        let mut space = [0; 4096];
        let mut buffer = ReadBuf::new(&mut space);
        let heard = client.as_mut().poll_read(&mut cx, &mut buffer);
        assert!(heard.is_ready() && buffer.filled().starts_with(b"HTTP/1.1 200"));
        assert!(buffer.filled().ends_with(b"hello"));
    };
    (0..WARM_UP).for_each(|_| exchange());
    measure(|| (0..COUNTED).for_each(|_| exchange())).count_total
}
