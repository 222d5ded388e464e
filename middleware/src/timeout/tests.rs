use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::time::{advance, sleep};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::mock::{Picky, converse, honours_readiness};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);

/// Answers after `time`.
fn slow(
    time: Duration,
) -> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone
{
    service_fn(move |_| async move {
        sleep(time).await;
        Ok(Response::new(Full::from("done")))
    })
}

type Pieces = Result<Frame<Bytes>, Infallible>;

/// A response whose body's pieces come through a channel.
fn piecewise() -> (
    tokio::sync::mpsc::Sender<Pieces>,
    Response<impl Body<Data = Bytes, Error = Infallible>>,
) {
    let (send, mut receive) = tokio::sync::mpsc::channel(8);
    let stream = futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx));
    (send, Response::new(StreamBody::new(stream)))
}

async fn body_of<B: Body>(times: Timeout, response: Response<B>) -> Pin<Box<TimeoutBody<B>>> {
    let mut response = Some(response);
    let service = service_fn(move |_: Request<()>| {
        ready(Ok::<_, Infallible>(response.take().expect("one call")))
    });
    let answer = times.layer(service).oneshot(Request::new(())).await;
    Box::pin(answer.unwrap().into_body())
}

fn cut_by<T>(frame: Option<Result<T, BoxError>>) -> TimedOut {
    let error = frame.expect("not the end").err().expect("an error");
    *error.downcast::<TimedOut>().expect("a time-out")
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(()))));
    let service = Timeout::new().handler(SECOND).layer(inner);
    honours_readiness(service, || Request::new(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_just_in_time_is_heard_and_one_just_late_is_not() {
    for (time, status) in [(SECOND - TICK, 200), (SECOND + TICK, 503)] {
        let service = Timeout::new().handler(SECOND).layer(slow(time));
        let start = Instant::now();
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(Instant::now() - start, time.min(SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_late_handler_holds_is_given_back_before_the_answer_is_used() {
    let held = Arc::new(());
    let watched = held.clone();
    let inner = service_fn(move |_: Request<()>| {
        let hold = held.clone();
        async move {
            let _hold = hold;
            pending::<Result<Response<()>, Infallible>>().await
        }
    });
    let mut service = Timeout::new().handler(SECOND).layer(inner);
    let mut call = std::pin::pin!(service.call(Request::new(())));
    let response = call.as_mut().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(
        Arc::strong_count(&watched),
        2,
        "the service's and the test's"
    );
}

#[tokio::test(start_paused = true)]
async fn each_time_has_a_status_of_its_own() {
    let times = Timeout::new()
        .handler(2 * SECOND)
        .handler_status(StatusCode::GATEWAY_TIMEOUT)
        .exchange_status(StatusCode::INTERNAL_SERVER_ERROR);
    for (times, status, late) in [
        (times, 504, TimedOut::Handler),
        (times.exchange(SECOND), 500, TimedOut::Exchange),
        (times.exchange(3 * SECOND), 504, TimedOut::Handler),
    ] {
        let response = times.layer(slow(10 * SECOND)).oneshot(Request::new(()));
        let response = response.await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.extensions().get(), Some(&late));
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_does_not_come_cuts_the_body() {
    let (send, response) = piecewise();
    let mut body = body_of(Timeout::new().gap(SECOND), response).await;
    for _ in 0..3 {
        sleep(SECOND - TICK).await;
        send.send(Ok(Frame::data("x".into()))).await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
    }
    let start = Instant::now();
    assert_eq!(cut_by(body.frame().await), TimedOut::Gap);
    assert_eq!(Instant::now() - start, SECOND);
    assert!(body.frame().await.is_none(), "an error is the last thing");
    assert!(send.is_closed(), "the handler's body is dropped");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_measured_anew_for_each_frame_waited_for() {
    let (send, response) = piecewise();
    let mut body = body_of(Timeout::new().gap(SECOND), response).await;
    let pieces = tokio::spawn(async move {
        for _ in 0..20 {
            sleep(SECOND - TICK).await;
            send.send(Ok(Frame::data("x".into()))).await.unwrap();
        }
    });
    for _ in 0..20 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    pieces.await.unwrap();
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_not_the_handlers_fault() {
    let (send, response) = piecewise();
    let mut body = body_of(Timeout::new().gap(SECOND), response).await;
    send.send(Ok(Frame::data("x".into()))).await.unwrap();
    // Nobody asks for a frame meanwhile.
    advance(60 * SECOND).await;
    assert!(body.frame().await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_exchange_ends_in_time_however_busy_its_body_is() {
    // One body that waits and one that always has a frame.
    let (_send, response) = piecewise();
    let times = Timeout::new().exchange(SECOND).gap(5 * SECOND);
    let mut body = body_of(times, response).await;
    assert_eq!(cut_by(body.frame().await), TimedOut::Exchange);

    let endless = futures_util::stream::repeat_with(|| Pieces::Ok(Frame::data("x".into())));
    let mut body = body_of(times, Response::new(StreamBody::new(endless))).await;
    let start = Instant::now();
    while let Some(Ok(_)) = body.frame().await {
        advance(TICK).await;
        assert!(Instant::now() - start <= SECOND, "not cut");
    }
    assert_eq!(Instant::now() - start, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_cut_body_keeps_its_declared_length_and_so_never_looks_complete() {
    let endless = Full::new(Bytes::from_static(b"0123456789"));
    let mut body = body_of(Timeout::new().exchange(SECOND), Response::new(endless)).await;
    assert_eq!(body.size_hint().exact(), Some(10));
    advance(SECOND).await;
    assert_eq!(cut_by(body.frame().await), TimedOut::Exchange);
}

#[tokio::test(start_paused = true)]
async fn on_the_wire_a_cut_response_lacks_its_end() {
    let inner = service_fn(|_: Request<wharf::Body>| {
        let (send, response) = piecewise();
        send.try_send(Ok(Frame::data("some".into()))).expect("room");
        // Held for ever: the body waits for what never comes.
        std::mem::forget(send);
        ready(Ok::<_, Infallible>(response))
    });
    let service = Timeout::new().gap(SECOND).layer(inner);
    let start = Instant::now();
    let said = converse(service, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(Instant::now() - start, SECOND);
    assert!(said.contains("transfer-encoding: chunked"), "{said}");
    assert!(said.ends_with("4\r\nsome\r\n"), "{said}");
}

#[tokio::test]
async fn without_times_nothing_is_bounded() {
    let mut body = body_of(Timeout::new(), Response::new(Full::<Bytes>::from("all"))).await;
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "all"
    );
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn nested_layers_only_shorten_the_deadline() {
    let start = Instant::now();
    let read = service_fn(|request: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(Deadline::of(&request))))
    });
    let seen = |outer: u64, inner: u64| {
        let outer = Timeout::new().handler(SECOND * outer as u32).announce();
        let inner = Timeout::new().exchange(SECOND * inner as u32).announce();
        let stack = outer.layer(inner.layer(read));
        async move {
            let body = stack.oneshot(Request::new(())).await.unwrap().into_body();
            body.body.unwrap().body.unwrap().expect("announced")
        }
    };
    let longer_inside = seen(2, 5).await;
    assert_eq!(longer_inside.answer_by(), Some(start + 2 * SECOND));
    assert_eq!(longer_inside.end_by(), Some(start + 5 * SECOND));
    assert_eq!(longer_inside.remaining(), Some(2 * SECOND));
    let shorter_inside = seen(5, 2).await;
    assert_eq!(shorter_inside.answer_by(), Some(start + 2 * SECOND));
    advance(3 * SECOND).await;
    assert_eq!(shorter_inside.remaining(), Some(Duration::ZERO));
}

#[tokio::test]
async fn nothing_is_announced_unless_asked_for() {
    let read = service_fn(|request: Request<()>| {
        ready(Ok::<_, Infallible>(Response::new(
            request.extensions().is_empty(),
        )))
    });
    let service = Timeout::new().handler(SECOND).layer(read);
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(response.into_body().body, Some(true));
}

#[tokio::test]
async fn an_endless_time_is_no_time() {
    let service = Timeout::new().handler(Duration::MAX).layer(slow(TICK));
    assert_eq!(
        service.oneshot(Request::new(())).await.unwrap().status(),
        200
    );
}
