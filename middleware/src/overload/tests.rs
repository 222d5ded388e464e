use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::*;

/// Answers when told to; not ready before it was opened; fails the test if an instance is called that was not ready.
struct Inner {
    shared: Rc<Shared>,
    ready: bool,
}

#[derive(Default)]
struct Shared {
    shut: Cell<bool>,
    called: Cell<usize>,
    reserved: Cell<isize>,
    answer: Notify,
}

impl Inner {
    fn new() -> (Self, Rc<Shared>) {
        let shared = Rc::<Shared>::default();
        let inner = Self {
            shared: shared.clone(),
            ready: false,
        };
        (inner, shared)
    }
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            ready: false,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.unreserve();
    }
}

impl Inner {
    fn unreserve(&mut self) {
        if mem::take(&mut self.ready) {
            self.shared.reserved.set(self.shared.reserved.get() - 1);
        }
    }
}

impl Service<Request<()>> for Inner {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.shared.shut.get() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !mem::replace(&mut self.ready, true) {
            self.shared.reserved.set(self.shared.reserved.get() + 1);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.ready, "called without being ready");
        self.unreserve();
        let shared = self.shared.clone();
        shared.called.set(shared.called.get() + 1);
        Box::pin(async move {
            shared.answer.notified().await;
            Ok(Response::new(Full::from("done")))
        })
    }
}

type Answer = Pin<Box<Admission<Inner, ()>>>;

fn ask(service: &mut Overload<Inner>) -> Answer {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    Box::pin(service.call(Request::new(())))
}

fn poll(answer: &mut Answer) -> Option<Response<Held<Full<Bytes>>>> {
    let mut cx = Context::from_waker(Waker::noop());
    match answer.as_mut().poll(&mut cx) {
        Poll::Ready(Ok(response)) => Some(response),
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_limit_and_queue_the_answer_is_503_with_retry_after() {
    let (inner, shared) = Inner::new();
    let layer = OverloadLayer::limit(1).retry_after(Duration::from_millis(1_500));
    let mut service = layer.layer(inner);
    let mut answers: Vec<_> = (0..4).map(|_| ask(&mut service)).collect();
    let refusal = poll(&mut answers[3]).expect("an answer at once");
    assert_eq!(refusal.status(), 503);
    assert_eq!(refusal.headers()["retry-after"], "2");
    assert!(refusal.into_body().is_end_stream());
    assert!(answers[..3].iter_mut().all(|answer| poll(answer).is_none()));
    assert_eq!(shared.called.get(), 1);
    let load = layer.load();
    assert_eq!(
        (load.limit, load.in_flight, load.waiting, load.refused),
        (1, 1, 2, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_waited_is_called_in_its_turn() {
    let (inner, shared) = Inner::new();
    let mut service = OverloadLayer::limit(1).layer(inner);
    let (mut first, mut second) = (ask(&mut service), ask(&mut service));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    shared.answer.notify_waiters();
    assert_eq!(poll(&mut first).expect("the answer").status(), 200);
    assert!(poll(&mut second).is_none());
    assert_eq!(shared.called.get(), 2);
    shared.answer.notify_waiters();
    let body = poll(&mut second).expect("the answer").into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "done");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_longest_wait() {
    let (inner, shared) = Inner::new();
    let mut service = OverloadLayer::limit(1).layer(inner);
    let (mut first, second) = (ask(&mut service), ask(&mut service));
    assert!(poll(&mut first).is_none());
    let asked = Instant::now();
    assert_eq!(second.await.unwrap().status(), 503);
    assert_eq!(asked.elapsed(), Duration::from_millis(100));
    assert_eq!(shared.called.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_service_that_is_not_ready_is_waiting_too() {
    let (inner, shared) = Inner::new();
    shared.shut.set(true);
    let layer = OverloadLayer::limit(1);
    let mut service = layer.layer(inner);
    let mut stuck = ask(&mut service);
    assert!(poll(&mut stuck).is_none());
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!(poll(&mut stuck).expect("a refusal").status(), 503);
    assert_eq!(layer.load().in_flight, 0);
    assert_eq!(shared.called.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_or_is_refused_holds_no_reservation_of_the_inner_service() {
    let (inner, shared) = Inner::new();
    let mut service = OverloadLayer::limit(1).queue(1).layer(inner);
    let answers: Vec<_> = (0..3).map(|_| ask(&mut service)).collect();
    assert_eq!(shared.reserved.get(), 0);
    drop(answers);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_gives_its_place_to_the_next() {
    let (inner, shared) = Inner::new();
    let layer = OverloadLayer::limit(1);
    let mut service = layer.layer(inner);
    let (first, mut second) = (ask(&mut service), ask(&mut service));
    assert!(poll(&mut second).is_none());
    drop(first);
    assert!(poll(&mut second).is_none());
    assert_eq!(shared.called.get(), 2);
    drop(second);
    assert_eq!(layer.load().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn exempt_requests_are_neither_counted_nor_refused() {
    let (inner, shared) = Inner::new();
    let layer = OverloadLayer::limit(1)
        .queue(0)
        .exempt(|method, uri| method == Method::GET && uri.path() == "/");
    let mut service = layer.layer(inner);
    let mut answers: Vec<_> = (0..3).map(|_| ask(&mut service)).collect();
    assert!(answers.iter_mut().all(|answer| poll(answer).is_none()));
    assert_eq!(shared.called.get(), 3);
    assert_eq!(layer.load().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_held_until_the_head_or_if_asked_until_the_body_ended() {
    for (until_body_end, held) in [(false, 0), (true, 1)] {
        let (inner, shared) = Inner::new();
        let mut layer = OverloadLayer::limit(1);
        if until_body_end {
            layer = layer.until_body_end();
        }
        let mut service = layer.layer(inner);
        let mut answer = ask(&mut service);
        assert!(poll(&mut answer).is_none());
        shared.answer.notify_waiters();
        let response = poll(&mut answer).expect("the answer");
        assert_eq!(layer.load().in_flight, held);
        let mut body = response.into_body();
        let _ = body.frame().await;
        assert_eq!(layer.load().in_flight, 0, "given back with the last frame");
    }
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_its_limit() {
    let (inner, _shared) = Inner::new();
    let layer = OverloadLayer::limit(1).queue(0);
    let mut one = layer.layer(inner.clone());
    let mut other = layer.clone().layer(inner);
    let mut first = ask(&mut one);
    assert!(poll(&mut first).is_none());
    assert_eq!(
        other
            .ready()
            .await
            .unwrap()
            .call(Request::new(()))
            .await
            .unwrap()
            .status(),
        503
    );
}
