//! What the limits allocate: nothing a request, and a bounded amount in all.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::Ipv4Addr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::Empty;
use tower::{Layer, Service};
use wharf_middleware::{OverloadLayer, RateLimitLayer};

const WARM_UP: u64 = 200;
const COUNTED: u64 = 1_000;

#[test]
fn a_million_keys_take_at_most_16_mib() {
    let _runtime = runtime();
    let mut granted = 0;
    let memory = measure(|| {
        let layer = RateLimitLayer::new(1, Duration::from_secs(86_400))
            .by_key(|request: &Request<Ipv4Addr>| Some(*request.body()));
        let mut service = layer.layer(tower::service_fn(|_| {
            ready(Ok::<_, Infallible>(Response::new(String::new())))
        }));
        for _ in 0..2 {
            for address in 0..1_000_000 {
                let answer = run(service.call(Request::new(Ipv4Addr::from_bits(address))));
                granted += u64::from(answer.status() == 200);
            }
        }
        drop((layer, service));
    });
    println!(
        "{} bytes at most, {granted} of 2,000,000 requests granted",
        memory.bytes_max
    );
    assert!(memory.bytes_max > 8 << 20, "nothing was counted");
    assert!(memory.bytes_max <= 16 << 20, "{memory:?}");
    // Each key has one request a day; who was forgotten in between got a second one.
    assert!(granted <= 1_001_000, "{granted}");
}

#[test]
fn a_request_within_its_rate_allocates_nothing() {
    let limit = || RateLimitLayer::new(1_000_000, Duration::from_secs(1));
    assert_eq!(allocations(limit().without_fields()), 0);
    // The fields' values are kept and shared; the response here has room for them.
    let kept = RateLimitLayer::new(1_000_000, Duration::from_secs(1)).burst(1_000);
    assert!(
        allocations(kept) <= COUNTED / 10,
        "some values are made for the first time"
    );
}

#[test]
fn a_request_that_is_let_in_allocates_nothing() {
    assert_eq!(allocations(OverloadLayer::limit(10)), 0);
    assert_eq!(allocations(OverloadLayer::limit(10).until_body_end()), 0);
    assert_eq!(allocations(OverloadLayer::adaptive()), 0);
}

/// How often `COUNTED` requests through `layer` allocate, service and response head apart.
fn allocations<L, R>(layer: L) -> u64
where
    L: Layer<Hello>,
    L::Service: Service<Request<Empty<&'static [u8]>>, Response = Response<R>, Error = Infallible>,
    R: Body,
{
    let _runtime = runtime();
    let mut service = layer.layer(Hello);
    let mut serve = |requests| {
        for _ in 0..requests {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = service.poll_ready(&mut cx);
            let response = run(service.call(Request::new(Empty::new())));
            assert_eq!(response.status(), 200);
        }
    };
    serve(WARM_UP);
    let AllocationInfo { count_total, .. } = measure(|| serve(COUNTED));
    // The response's own head is one, see `Hello`.
    count_total.saturating_sub(HEAD * COUNTED)
}

/// What it costs to make a header map with room.
const HEAD: u64 = 2;

/// Answers at once, with room for some fields in the head.
#[derive(Clone)]
struct Hello;

impl Service<Request<Empty<&'static [u8]>>> for Hello {
    type Response = Response<Empty<&'static [u8]>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Empty<&'static [u8]>>) -> Self::Future {
        let mut response = Response::new(Empty::new());
        *response.headers_mut() = HeaderMap::with_capacity(8);
        ready(Ok(response))
    }
}

#[test]
fn the_head_costs_what_is_taken_off() {
    let counted = measure(|| {
        let _ = run(Hello.call(Request::new(Empty::new())));
    });
    assert_eq!(counted.count_total, HEAD);
}

fn run<F, T>(future: F) -> T
where
    F: Future<Output = Result<T, Infallible>>,
{
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(Ok(output)) => output,
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => panic!("it should answer at once"),
    }
}

/// Timers need one, though none of them is ever waited for.
fn runtime() -> (tokio::runtime::EnterGuard<'static>,) {
    static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    });
    (RUNTIME.enter(),)
}
