//! tower's own layers on the request plane. Their errors need no adapter, and what `poll_ready` holds back is held back.
//!
//! The clock is paused: a sleep ends when nothing else can happen any more, so it is proof and not hope.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{ServiceBuilder, service_fn};
use wharf::{Body, BoxError};

use crate::{Client, post};

/// A handler that says when it was called and answers when it is let go.
#[derive(Clone)]
struct Gate {
    called: mpsc::UnboundedSender<()>,
    go: Arc<Semaphore>,
}

impl Gate {
    fn new() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (called, calls) = mpsc::unbounded_channel();
        let go = Arc::new(Semaphore::new(0));
        (Self { called, go }, calls)
    }

    async fn handle(self, _: Request<Body>) -> Result<Response<Body>, Infallible> {
        self.called.send(()).expect("the test listens");
        self.go.acquire().await.expect("the gate stays").forget();
        Ok(Response::new(Body::from("through")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_holds_back_the_next_request_and_not_an_idle_connection() {
    let (gate, mut calls) = Gate::new();
    let go = gate.go.clone();
    let app = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(service_fn(move |request| gate.clone().handle(request)));
    let mut first = Client::in_memory(app.clone()).await;
    let mut second = Client::in_memory(app).await;

    let first = tokio::spawn(async move { (first.get("/").await, first) });
    calls.recv().await.unwrap();
    let second = tokio::spawn(async move { second.get("/").await });
    sleep(Duration::from_secs(1)).await;
    assert!(
        calls.try_recv().is_err(),
        "the second request was let through"
    );

    go.add_permits(1);
    let (answer, idle) = first.await.unwrap();
    assert_eq!(answer.text(), "through");
    calls
        .recv()
        .await
        .expect("the idle connection holds no place");
    go.add_permits(1);
    assert_eq!(second.await.unwrap().text(), "through");
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_become_ready_is_503_with_retry_after() {
    let full = Arc::new(Semaphore::new(0));
    let app = ServiceBuilder::new()
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(full))
        .service(service_fn(hello));
    let mut client = Client::in_memory(app).await;

    let began = Instant::now();
    let answer = client.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    assert!(began.elapsed() >= wharf::Limits::default().ready_timeout);
}

#[tokio::test(start_paused = true)]
async fn what_load_shed_turns_away_is_503_with_retry_after() {
    let (gate, mut calls) = Gate::new();
    let go = gate.go.clone();
    let app = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .service(service_fn(move |request| gate.clone().handle(request)));
    let mut first = Client::in_memory(app.clone()).await;
    let mut second = Client::in_memory(app).await;

    let first = tokio::spawn(async move { first.get("/").await });
    calls.recv().await.unwrap();
    let turned_away = second.get("/").await;
    assert_eq!(turned_away.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        turned_away.field("retry-after").is_some(),
        "{turned_away:?}"
    );

    go.add_permits(2);
    assert_eq!(first.await.unwrap().text(), "through");
    assert_eq!(
        second.get("/").await.text(),
        "through",
        "its connection was kept"
    );
}

#[tokio::test(start_paused = true)]
async fn what_times_out_is_503() {
    let app = ServiceBuilder::new()
        .timeout(Duration::from_secs(10))
        .service(service_fn(async |_: Request<Body>| {
            std::future::pending::<()>().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
    let mut client = Client::in_memory(app).await;

    let began = Instant::now();
    assert_eq!(
        client.get("/").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_buffer_needs_no_clone_of_the_handler() {
    struct NoClone(u32);
    let mut handler = NoClone(0);
    let counting = service_fn(move |_: Request<Body>| {
        handler.0 += 1;
        let count = handler.0;
        async move { Ok::<_, BoxError>(Response::new(Body::from(count.to_string()))) }
    });
    let app = ServiceBuilder::new().buffer(4).service(counting);

    let [mut tcp, mut memory] = Client::both(app).await;
    assert_eq!(tcp.get("/").await.text(), "1");
    assert_eq!(memory.get("/").await.text(), "2");
    assert_eq!(tcp.get("/").await.text(), "3");
}

#[tokio::test]
async fn a_handlers_error_is_500_and_the_connection_goes_on() {
    let app = service_fn(async |request: Request<Body>| match request.uri().path() {
        "/good" => Ok(Response::new(Body::from("good"))),
        _ => Err::<_, BoxError>("this went wrong, and only the log may know".into()),
    });
    for mut client in Client::both(app).await {
        let wrong = client.send(post("/", "x")).await;
        assert_eq!(wrong.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!wrong.text().contains("only the log"), "{wrong:?}");
        assert_eq!(client.get("/good").await.text(), "good");
    }
}

async fn hello(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from("hello")))
}
