use std::convert::Infallible;
use std::future::{pending, ready};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::{sleep, timeout};
use tower::layer::layer_fn;
use tower::util::MapResponseLayer;
use tower::{ServiceBuilder, ServiceExt, service_fn};

use super::*;
use crate::from_fn;
use crate::mock::{Picky, honours_readiness};

const MS: Duration = Duration::from_millis(1);

fn slow(
    time: Duration,
) -> impl Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone
{
    service_fn(move |_| async move {
        sleep(time).await;
        Ok(Response::new(Full::from("hello")))
    })
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(()))));
    let timed = Timings::new().timed("nothing", tower_layer::Identity::new());
    honours_readiness(timed.layer(inner), || Request::new(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_layers_share_is_what_it_takes_around_its_inner_service() {
    let timings = Timings::new();
    // A closure of each one's own: they stand around services of different types.
    macro_rules! around {
        ($before:expr, $after:expr) => {
            from_fn(|request: Request<()>, next| async move {
                sleep($before).await;
                let response = next.call(request).await;
                sleep($after).await;
                response
            })
        };
    }
    let stack = ServiceBuilder::new()
        .layer(timings.timed("outer", around!(2 * MS, 3 * MS)))
        .layer(timings.timed("inner", around!(7 * MS, 11 * MS)))
        .service(slow(100 * MS));
    for _ in 0..4 {
        stack.clone().oneshot(Request::new(())).await.unwrap();
    }
    let expected = [("outer", 5, 118), ("inner", 18, 100)];
    for (layer, (name, own, inside)) in timings.snapshot().layers.iter().zip(expected) {
        assert_eq!((&*layer.name, layer.calls, layer.passed_on), (name, 4, 4));
        assert_eq!((layer.own, layer.inside), (4 * own * MS, 4 * inside * MS));
        assert_eq!(layer.own_per_call(), own * MS);
        assert_eq!(layer.longest, (own + inside) * MS);
    }
    let table = timings.snapshot().to_string();
    assert!(
        table.contains("outer                 4           4     5000.0µs 123000.0µs    4.1 %"),
        "{table}"
    );
    assert!(
        table.ends_with("inside of them                                                81.3 %"),
        "{table}"
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_to_be_ready_is_the_layers_share() {
    /// Ready half a second after it is first asked.
    struct Dozes<S>(S, Pin<Box<tokio::time::Sleep>>);
    impl<S: Service<Request<()>>> Service<Request<()>> for Dozes<S> {
        type Response = S::Response;
        type Error = S::Error;
        type Future = S::Future;
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
            std::task::ready!(self.1.as_mut().poll(cx));
            self.0.poll_ready(cx)
        }
        fn call(&mut self, request: Request<()>) -> S::Future {
            self.0.call(request)
        }
    }
    let timings = Timings::new();
    let dozes = layer_fn(|inner| Dozes(inner, Box::pin(sleep(500 * MS))));
    let stack = timings.timed("dozes", dozes).layer(slow(100 * MS));
    stack.oneshot(Request::new(())).await.unwrap();
    let layer = &timings.snapshot().layers[0];
    assert_eq!((layer.own, layer.inside), (500 * MS, 100 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_not_waited_for_what_the_original_waits_for() {
    let timings = Timings::new();
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(()))));
    let mut service = timings
        .timed("nothing", tower_layer::Identity::new())
        .layer(inner);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_pending());
    let mut clone = service.clone();
    tokio::time::advance(30 * MS).await;
    assert!(Service::<Request<()>>::poll_ready(&mut clone, &mut cx).is_pending());
    assert!(Service::<Request<()>>::poll_ready(&mut clone, &mut cx).is_ready());
    assert_eq!(timings.snapshot().layers[0].inside, Duration::ZERO);
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
    assert_eq!(timings.snapshot().layers[0].inside, 30 * MS);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_counts_up_to_there_and_what_is_answered_is_not_passed_on() {
    let timings = Timings::new();
    let hangs = service_fn(|_: Request<()>| pending::<Result<Response<()>, Infallible>>());
    let stack = timings
        .timed("nothing", tower_layer::Identity::new())
        .layer(hangs);
    let call = timeout(30 * MS, stack.oneshot(Request::new(())));
    assert!(call.await.is_err());
    let answers = from_fn(|_: Request<()>, _| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let stack = timings.timed("answers", answers).layer(slow(MS));
    stack.oneshot(Request::new(())).await.unwrap();

    let layers = timings.snapshot().layers;
    assert_eq!(
        (layers[0].calls, layers[0].inside, layers[0].own),
        (1, 30 * MS, Duration::ZERO)
    );
    assert_eq!((layers[1].calls, layers[1].passed_on), (1, 0));
}

#[tokio::test]
async fn making_frames_is_measured_and_waiting_for_the_client_is_not() {
    /// Takes its time for each frame, on the thread.
    #[derive(Clone)]
    struct Works<B>(B, Duration);
    impl<B: Body<Data = Bytes, Error = Infallible> + Unpin> Body for Works<B> {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            std::thread::sleep(self.1);
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
    let timings = Timings::new();
    let works = MapResponseLayer::new(|response: Response<MeasuredBody<Works<Full<Bytes>>>>| {
        response.map(|body| Works(body, 5 * MS))
    });
    let inner = Works(Full::<Bytes>::from("hello"), 20 * MS);
    let inner = service_fn(move |_| ready(Ok::<_, Infallible>(Response::new(inner.clone()))));
    let stack = timings.timed("works", works).layer(inner);

    let start = Instant::now();
    let response = stack.oneshot(Request::new(())).await.unwrap();
    let taken = start.elapsed();
    std::thread::sleep(50 * MS);
    let start = Instant::now();
    let body = response.into_body().collect().await.unwrap();
    let taken = taken + start.elapsed();
    assert_eq!(body.to_bytes(), "hello");
    let layer = &timings.snapshot().layers[0];
    // A frame and the end; the sum leaves room neither for the pause nor for counting a time twice.
    assert!(layer.own >= 10 * MS && layer.inside >= 40 * MS, "{layer:?}");
    assert!(layer.own + layer.inside <= taken, "{layer:?} {taken:?}");
}

#[tokio::test]
async fn threads_add_up() {
    let timings = Timings::new();
    let timed = timings.timed("nothing", tower_layer::Identity::new());
    let threads = (0..SHARDS + 3).map(|_| {
        let gauge = Gauge::new(&timed.entry, Side::Whole);
        std::thread::spawn(move || (0..100).for_each(|_| gauge.add(MS, 1)))
    });
    threads
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let layer = &timings.snapshot().layers[0];
    let calls = 100 * (SHARDS as u64 + 3);
    assert_eq!(
        (layer.calls, layer.own, layer.longest),
        (calls, MS * calls as u32, MS)
    );
}
