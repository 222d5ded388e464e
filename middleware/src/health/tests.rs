use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use tokio::sync::Notify;
use tokio::time::{advance, sleep};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::mock::Picky;

const SECOND: Duration = Duration::from_secs(1);

fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

fn get_json(path: &str) -> Request<()> {
    let request = Request::get(path).header("accept", "text/html, application/json;q=0.9");
    request.body(()).unwrap()
}

async fn ask(probe: &Probe, request: Request<()>) -> (u16, String) {
    let response = probe.clone().oneshot(request).await.unwrap();
    (response.status().as_u16(), response.into_body())
}

fn is(said: (u16, String), status: u16, text: &str) {
    assert_eq!(said, (status, text.to_owned()));
}

fn fine() -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
    ready(Ok(()))
}

#[tokio::test]
async fn who_has_no_checks_and_follows_nobody_is_ready_and_alive() {
    let health = Health::new();
    is(ask(&health.readiness(), get("/")).await, 200, "ready\n");
    is(ask(&health.liveness(), get("/")).await, 200, "alive\n");
    is(
        ask(&health.liveness(), get_json("/")).await,
        200,
        "{\"alive\":true,\"checks\":{}}\n",
    );
}

#[tokio::test]
async fn readiness_is_over_from_the_lame_duck_on_and_liveness_is_not() {
    let at = Arc::new(AtomicU8::new(0));
    let now = at.clone();
    let health = Health::new().phase(move || Phase::ALL[usize::from(now.load(Relaxed))]);
    for (index, phase) in Phase::ALL.iter().enumerate() {
        at.store(index as u8, Relaxed);
        let (status, text) = ask(&health.readiness(), get("/")).await;
        if *phase == Phase::Serving {
            assert_eq!((status, &*text), (200, "ready\n"));
        } else {
            assert_eq!((status, text), (503, format!("not ready: {phase}\n")));
        }
        assert_eq!(ask(&health.liveness(), get("/")).await.0, 200);
    }
    at.store(Phase::LameDuck as u8, Relaxed);
    is(
        ask(&health.readiness(), get_json("/")).await,
        503,
        "{\"ready\":false,\"phase\":\"lame duck\",\"checks\":{}}\n",
    );
}

#[tokio::test(start_paused = true)]
async fn the_answer_names_each_check_that_failed_and_not_why() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let health = Health::new()
        .check("store", SECOND, fine)
        .check("data\"base\n", SECOND, async || Err("no route to 10.0.0.7"))
        .check("cache", 2 * SECOND, pending::<Result<(), Infallible>>)
        .check(
            "disk",
            SECOND,
            || -> std::future::Ready<Result<(), Infallible>> { panic!("on purpose") },
        )
        .live_check("worker", SECOND, fine)
        .on_failure(move |name, failure| tell.lock().unwrap().push(format!("{name} {failure}")));
    is(
        ask(&health.readiness(), get("/")).await,
        503,
        "not ready: database failed, cache timed out, disk panicked\n",
    );
    is(
        ask(&health.readiness(), get_json("/")).await,
        503,
        "{\"ready\":false,\"checks\":{\"store\":\"ok\",\"database\":\"failed\",\"cache\":\"timed out\",\"disk\":\"panicked\"}}\n",
    );
    is(ask(&health.liveness(), get("/")).await, 200, "alive\n");
    // Once, although two have asked.
    assert_eq!(
        *told.lock().unwrap(),
        [
            "database failed: no route to 10.0.0.7",
            "cache said nothing for 2s",
            "disk panicked"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn checks_run_side_by_side_each_as_long_as_it_may() {
    let just = |time| {
        move || async move {
            sleep(time).await;
            Ok::<_, Infallible>(())
        }
    };
    let millisecond = Duration::from_millis(1);
    let health = Health::new()
        .check("in time", SECOND, just(SECOND - millisecond))
        .check("late", SECOND, just(SECOND + millisecond))
        .check("long", 3 * SECOND, just(2 * SECOND));
    let begun = tokio::time::Instant::now();
    is(
        ask(&health.readiness(), get("/")).await,
        503,
        "not ready: late timed out\n",
    );
    assert_eq!(begun.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_probes_costs_one_check() {
    let (asked, broken) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (count, is_broken) = (asked.clone(), broken.clone());
    let health = Health::new().check("database", SECOND, move || {
        count.fetch_add(1, Relaxed);
        let broken = is_broken.load(Relaxed);
        async move {
            sleep(SECOND / 2).await;
            if broken { Err("broken") } else { Ok(()) }
        }
    });
    // Those that come while it runs, and those that come for a second after it.
    let probes: Vec<_> = (0..1_000)
        .map(|_| tokio::spawn(health.readiness().oneshot(get("/"))))
        .collect();
    for probe in probes {
        assert_eq!(probe.await.unwrap().unwrap().status(), 200);
    }
    broken.store(true, Relaxed);
    advance(SECOND - Duration::from_millis(1)).await;
    for _ in 0..1_000 {
        assert_eq!(ask(&health.readiness(), get("/")).await.0, 200);
    }
    assert_eq!(asked.load(Relaxed), 1);
    advance(Duration::from_millis(1)).await;
    assert_eq!(ask(&health.readiness(), get("/")).await.0, 503);
    assert_eq!(asked.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_ends_its_run_and_the_next_begins_another() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let health = Health::new().check("first hangs", 10 * SECOND, move || {
        let first = count.fetch_add(1, Relaxed) == 0;
        async move {
            if first {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(())
        }
    });
    let hangs = tokio::spawn(health.readiness().oneshot(get("/")));
    sleep(SECOND).await;
    let waits = tokio::spawn(health.readiness().oneshot(get("/")));
    sleep(SECOND).await;
    assert!(!waits.is_finished());
    hangs.abort();
    assert_eq!(waits.await.unwrap().unwrap().status(), 200);
    assert_eq!(asked.load(Relaxed), 2);
}

#[tokio::test]
async fn a_probe_is_a_get_or_a_head_and_no_cache_keeps_its_answer() {
    let mut probe = Health::new().readiness();
    let head = Request::head("/").body(()).unwrap();
    let response = probe.call(head).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    let post = Request::post("/").body(()).unwrap();
    let response = probe.call(post).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, HEAD");
}

fn app()
-> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone
{
    service_fn(|_| ready(Ok(Response::new(Full::from("app")))))
}

async fn text<S, R>(service: S, request: Request<()>) -> String
where
    S: Service<Request<()>, Response = Response<R>, Error = Infallible>,
    R: Body<Data = Bytes, Error = Infallible>,
{
    let response = service.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

#[tokio::test]
async fn the_layer_answers_on_its_paths_and_on_no_other() {
    let service = Health::new().layer(app());
    assert_eq!(
        text(service.clone(), get("/readyz?verbose")).await,
        "ready\n"
    );
    assert_eq!(text(service.clone(), get("/livez")).await, "alive\n");
    for path in ["/", "/readyz/", "/readyz/x", "/Livez", "/a/livez"] {
        assert_eq!(text(service.clone(), get(path)).await, "app", "{path}");
    }
    let elsewhere = Health::new()
        .paths("/ready", String::from("/live"))
        .layer(app());
    assert_eq!(text(elsewhere.clone(), get("/ready")).await, "ready\n");
    assert_eq!(text(elsewhere.clone(), get("/live")).await, "alive\n");
    assert_eq!(text(elsewhere, get("/livez")).await, "app");
}

/// Ready when it is opened.
#[derive(Clone)]
struct Gate(Arc<Notify>, bool);

impl Service<Request<()>> for Gate {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !self.1 {
            ready!(std::pin::pin!(self.0.notified()).poll(cx));
            self.1 = true;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(mem::take(&mut self.1), "called without being ready");
        ready(Ok(Response::new(Full::from("app"))))
    }
}

#[tokio::test]
async fn a_probe_is_answered_while_the_inner_service_is_not_ready_and_others_wait() {
    let opened = Arc::new(Notify::new());
    let mut service = Health::new().layer(Gate(opened.clone(), false));
    let mut waiting = by_hand(text(service.clone(), get("/")));
    assert!(waiting.poll_now().is_none());
    assert_eq!(text(&mut service, get("/livez")).await, "alive\n");
    opened.notify_one();
    assert_eq!(waiting.poll_now().as_deref(), Some("app"));
}

/// A future that is polled by hand.
struct ByHand<F>(Pin<Box<F>>);

fn by_hand<F: Future>(future: F) -> ByHand<F> {
    ByHand(Box::pin(future))
}

impl<F: Future> ByHand<F> {
    fn poll_now(&mut self) -> Option<F::Output> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.0.as_mut().poll(&mut cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}

#[tokio::test]
async fn the_instance_that_was_ready_is_the_one_that_is_called() {
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))));
    let mut service = Health::new().layer(inner.clone());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for path in ["/", "/livez", "/", "/readyz", "/"] {
        // `Picky` is ready at the second poll: asked once it is waited for in the call, asked twice it is called at once.
        for polls in 1..3 {
            for _ in 0..polls {
                assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
            }
            assert_eq!(service.call(get(path)).await.unwrap().status(), 200);
        }
    }
}

#[tokio::test]
async fn the_services_are_always_ready() {
    let mut probe = Health::new().readiness();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Service::<Request<()>>::poll_ready(&mut probe, &mut cx).is_ready());
}

#[tokio::test]
async fn an_inner_service_that_fails_for_good_says_so() {
    #[derive(Clone)]
    struct Broken;
    impl Service<Request<()>> for Broken {
        type Response = Response<Full<Bytes>>;
        type Error = &'static str;
        type Future = std::future::Ready<Result<Self::Response, &'static str>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            Poll::Ready(Err("broken"))
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let service = Health::new().layer(Broken);
    assert_eq!(service.oneshot(get("/")).await.unwrap_err(), "broken");
}
