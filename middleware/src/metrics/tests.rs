use std::convert::Infallible;
use std::future::{pending, ready};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::Method as HttpMethod;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::time::{sleep, timeout};
use tower::{ServiceExt, service_fn};
use wharf::BoxError;

use super::*;
use crate::mock::{Picky, honours_readiness};

const MS: Duration = Duration::from_millis(1);

fn request(method: &str) -> Request<Empty<Bytes>> {
    Request::builder()
        .method(method)
        .body(Empty::new())
        .unwrap()
}

/// The head after 30 ms, and the end after another 50.
async fn slowly(request: Request<Empty<Bytes>>) -> Result<Response<wharf::Body>, Infallible> {
    sleep(30 * MS).await;
    let body = futures_util::stream::unfold(false, |said| async move {
        if said {
            return None;
        }
        sleep(50 * MS).await;
        let frame = http_body::Frame::data(Bytes::from_static(b"hello"));
        Some((Ok::<_, Infallible>(frame), true))
    });
    let mut response = Response::new(wharf::Body::new(StreamBody::new(body)));
    if let Some(status) = request.headers().get("status") {
        *response.status_mut() = StatusCode::from_bytes(status.as_bytes()).unwrap();
    }
    Ok(response)
}

/// Sixteen microseconds may be said as sixteen and a half, and no more than that.
fn about(said: Option<Duration>, truth: Duration) {
    let said = said.expect("a value");
    assert!(
        said >= truth && said <= truth + truth / 32,
        "{truth:?} {said:?}"
    );
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    honours_readiness(Metrics::new().layer(inner), || request("GET")).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_is_counted_when_its_response_begins_and_timed_to_its_end() {
    let metrics = Metrics::new();
    let service = metrics.layer(service_fn(slowly));
    let call = tokio::spawn(service.oneshot(request("GET")));
    sleep(10 * MS).await;
    let now = metrics.snapshot();
    assert_eq!((now.requests(), now.in_flight()), (0, 1));

    let response = call.await.unwrap().unwrap();
    let now = metrics.snapshot();
    assert_eq!(
        (
            now.of_method(&HttpMethod::GET, StatusClass::Success),
            now.in_flight()
        ),
        (1, 1)
    );
    about(now.first_byte(0.5), 30 * MS);
    assert_eq!(now.duration(0.5), None);

    response.into_body().collect().await.unwrap();
    let now = metrics.snapshot();
    assert_eq!((now.requests(), now.in_flight(), now.broken()), (1, 0, 0));
    about(now.duration(0.5), 80 * MS);
    assert_eq!(
        (now.response_bytes().sum(), now.request_bytes().count()),
        (5, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn each_class_of_status_has_its_count_and_unknown_methods_are_one() {
    let metrics = Metrics::new();
    let service = metrics.layer(service_fn(slowly));
    for (status, class) in [
        ("101", StatusClass::Informational),
        ("204", StatusClass::Success),
        ("308", StatusClass::Redirection),
        ("499", StatusClass::ClientError),
        ("503", StatusClass::ServerError),
        ("999", StatusClass::ServerError),
    ] {
        let mut request = request("POST");
        request
            .headers_mut()
            .insert("status", status.parse().unwrap());
        let before = metrics.snapshot();
        service.clone().oneshot(request).await.unwrap();
        let window = &metrics.snapshot() - &before;
        assert_eq!(
            (window.of_class(class), window.requests()),
            (1, 1),
            "{status}"
        );
    }
    for method in ["PURGE", "get", "M-SEARCH"] {
        service.clone().oneshot(request(method)).await.unwrap();
    }
    let other = HttpMethod::from_bytes(b"BREW").unwrap();
    assert_eq!(
        metrics.snapshot().of_method(&other, StatusClass::Success),
        3
    );
}

#[tokio::test(start_paused = true)]
async fn what_never_has_a_response_is_counted_by_why() {
    let metrics = Metrics::new();
    let fails = service_fn(|request: Request<Empty<Bytes>>| async move {
        let error = if *request.method() == HttpMethod::PUT {
            BoxError::from(tower::load_shed::error::Overloaded::new())
        } else {
            BoxError::from("broken")
        };
        Err::<Response<Full<Bytes>>, _>(error)
    });
    // The status is the one that wharf makes of an error, and unknown where errors are of another type.
    for method in ["PUT", "GET"] {
        metrics
            .layer(fails)
            .oneshot(request(method))
            .await
            .unwrap_err();
    }
    assert_eq!(metrics.snapshot().of_class(StatusClass::ServerError), 2);
    let fails = service_fn(|_| ready(Err::<Response<Full<Bytes>>, _>("broken")));
    metrics
        .layer(fails)
        .oneshot(request("GET"))
        .await
        .unwrap_err();
    let panics = service_fn(
        |_| -> std::future::Ready<Result<Response<Full<Bytes>>, Infallible>> {
            panic!("on purpose")
        },
    );
    let call = metrics.layer(panics);
    tokio::spawn(async move { call.oneshot(request("GET")).await })
        .await
        .unwrap_err();
    assert_eq!(metrics.snapshot().of_class(StatusClass::Failed), 2);

    let hangs = service_fn(|_| pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let call = metrics.layer(hangs).oneshot(request("GET"));
    timeout(30 * MS, call).await.unwrap_err();
    let now = metrics.snapshot();
    assert_eq!((now.of_class(StatusClass::Aborted), now.requests()), (1, 5));
    assert_eq!((now.in_flight(), now.broken()), (0, 5));
    assert_eq!(now.durations().count(), 5);
    about(now.duration(1.0), 30 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_dropped_midway_is_over_and_broken() {
    let metrics = Metrics::new();
    let response = metrics
        .layer(service_fn(slowly))
        .oneshot(request("GET"))
        .await
        .unwrap();
    let mut body = response.into_body();
    timeout(10 * MS, body.frame()).await.unwrap_err();
    drop(body);
    let now = metrics.snapshot();
    assert_eq!(
        (
            now.of_class(StatusClass::Success),
            now.broken(),
            now.in_flight()
        ),
        (1, 1, 0)
    );
    assert_eq!(now.response_bytes().sum(), 0);
}

#[tokio::test]
async fn a_declared_request_size_is_counted() {
    let metrics = Metrics::new();
    let echo = service_fn(|request: Request<Full<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(request.into_body())))
    });
    let service = metrics.layer(echo);
    for size in [0, 7, 1_000] {
        let response = service
            .clone()
            .oneshot(Request::new(Full::from(vec![0; size])))
            .await;
        response.unwrap().into_body().collect().await.unwrap();
    }
    let now = metrics.snapshot();
    assert_eq!(
        (now.request_bytes().count(), now.request_bytes().sum()),
        (2, 1_007)
    );
    assert_eq!(
        (now.response_bytes().count(), now.response_bytes().sum()),
        (3, 1_007)
    );
    assert_eq!(now.request_bytes().quantile(0.5), Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_window_has_its_own_rate_and_percentiles() {
    let metrics = Metrics::new();
    let waits = service_fn(|request: Request<Empty<Bytes>>| async move {
        let long = request.uri().path() == "/long";
        sleep(if long { 500 * MS } else { 10 * MS }).await;
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let service = metrics.layer(waits);
    let get = |path| Request::get(path).body(Empty::new()).unwrap();
    for _ in 0..10 {
        service.clone().oneshot(get("/long")).await.unwrap();
    }
    about(metrics.snapshot().duration(0.5), 500 * MS);
    let earlier = metrics.snapshot();
    for _ in 0..99 {
        service.clone().oneshot(get("/")).await.unwrap();
    }
    service.clone().oneshot(get("/long")).await.unwrap();
    let window = &metrics.snapshot() - &earlier;
    assert_eq!((window.requests(), window.span()), (100, 1_490 * MS));
    assert!(
        (window.per_second() - 67.11).abs() < 0.01,
        "{}",
        window.per_second()
    );
    about(window.duration(0.5), 10 * MS);
    about(window.duration(0.99), 10 * MS);
    about(window.duration(0.999), 500 * MS);
    let empty = &earlier - &earlier;
    assert_eq!((empty.per_second(), empty.duration(0.5)), (0.0, None));
}

#[tokio::test]
async fn threads_add_up() {
    let metrics = Metrics::new();
    let threads: Vec<_> = (0..11)
        .map(|_| {
            let counts = metrics.counts.clone();
            std::thread::spawn(move || {
                for _ in 0..1_000 {
                    counts.begin(Some(1));
                    counts.request(Method::Get, StatusClass::Success);
                    counts.first_byte(MS);
                    counts.end(Ended::Complete, MS, 2);
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let now = metrics.snapshot();
    assert_eq!(
        (now.requests(), now.in_flight(), now.broken()),
        (11_000, 0, 0)
    );
    assert_eq!(
        (now.request_bytes().sum(), now.response_bytes().sum()),
        (11_000, 22_000)
    );
    assert_eq!(now.durations().sum(), 11_000 * 1_000_000);
}

#[test]
fn a_body_that_nobody_asked_for_is_not_counted() {
    let body = MeteredBody::<Full<Bytes>>::default();
    assert!(body.is_end_stream());
    assert_eq!(pin!(body).size_hint().exact(), Some(0));
}

#[cfg(feature = "metrics")]
mod facade {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use metrics::{
        Counter, Gauge, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;

    /// Remembers what it is told, by name and labels.
    #[derive(Default)]
    struct Remembers {
        numbers: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
        values: Mutex<BTreeMap<String, Arc<Values>>>,
    }

    #[derive(Default)]
    struct Values(Mutex<Vec<f64>>);

    impl HistogramFn for Values {
        fn record(&self, value: f64) {
            self.0.lock().unwrap().push(value);
        }
    }

    fn text(key: &Key) -> String {
        let labels = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()));
        format!("{}{}", key.name(), labels.collect::<String>())
    }

    impl Remembers {
        fn number(&self, key: &Key) -> Arc<AtomicU64> {
            self.numbers
                .lock()
                .unwrap()
                .entry(text(key))
                .or_default()
                .clone()
        }
    }

    impl Recorder for Remembers {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.number(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.number(key))
        }

        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
            let values = self
                .values
                .lock()
                .unwrap()
                .entry(text(key))
                .or_default()
                .clone();
            metrics::Histogram::from_arc(values)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_facade_is_told_the_same() {
        let recorder = Remembers::default();
        let metrics = metrics::with_local_recorder(&recorder, || Metrics::new().to_facade());
        let service = metrics.layer(service_fn(slowly));
        let response = service.clone().oneshot(request("GET")).await.unwrap();
        response.into_body().collect().await.unwrap();
        let response = service.oneshot(request("PURGE")).await.unwrap();

        let number = |name| f64::from_bits(recorder.numbers.lock().unwrap()[name].load(Relaxed));
        assert_eq!(number("http_requests_in_flight"), 1.0);
        drop(response);
        assert_eq!(number("http_requests_in_flight"), 0.0);
        let numbers = recorder.numbers.lock().unwrap();
        for (name, count) in [
            ("http_requests_total method=GET status=2xx", 1),
            ("http_requests_total method=other status=2xx", 1),
            ("http_requests_total method=POST status=5xx", 0),
            ("http_responses_total ended=complete", 1),
            ("http_responses_total ended=aborted", 1),
        ] {
            assert_eq!(numbers[name].load(Relaxed), count, "{name}");
        }
        let values = recorder.values.lock().unwrap();
        let of = |name| values[name].0.lock().unwrap().clone();
        assert_eq!(of("http_first_byte_seconds"), [0.03, 0.03]);
        assert_eq!(of("http_request_duration_seconds"), [0.08, 0.03]);
        assert_eq!(of("http_response_body_bytes"), [5.0, 0.0]);
        assert_eq!(of("http_request_body_bytes"), [0.0; 0]);
    }
}
