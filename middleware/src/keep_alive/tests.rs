use std::convert::Infallible;
use std::future::ready;

use http::request::Builder;
use tower::{ServiceExt, service_fn};
use wharf::Body;

use super::*;
use crate::mock::{Picky, converse, honours_readiness};

const SECOND: Duration = Duration::from_secs(1);
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ok() -> Response<Body> {
    Response::new(Body::empty())
}

/// The fields of the answer to `request`, where the handler's own is `response`.
async fn fields(layer: &KeepAlive, request: Builder, response: Response<Body>) -> HeaderMap {
    let mut response = Some(response);
    let inner = service_fn(move |_: Request<()>| {
        ready(Ok::<_, Infallible>(response.take().expect("one call")))
    });
    let answer = layer.layer(inner).oneshot(request.body(()).unwrap()).await;
    answer.unwrap().into_parts().0.headers
}

fn values(fields: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let values = fields.get_all(name).into_iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

/// All that wharf says to `requests` through the layer.
async fn on_wharf(layer: KeepAlive, requests: &str) -> String {
    let inner = service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(ok())));
    converse(layer.layer(inner), requests.as_bytes()).await
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(ok())));
    honours_readiness(KeepAlive::new().idle(SECOND).layer(inner), || {
        Request::new(())
    })
    .await;
}

#[tokio::test]
async fn a_second_less_is_advertised_than_is_meant() {
    for (idle, advertised) in [
        (secs(75), "timeout=74"),
        (secs(2), "timeout=1"),
        (secs(1), "timeout=0"),
        (Duration::ZERO, "timeout=0"),
        (Duration::from_millis(2_900), "timeout=1"),
        (Duration::MAX, "timeout=4294967294"),
    ] {
        let fields = fields(&KeepAlive::new().idle(idle), Request::get("/"), ok()).await;
        assert_eq!(values(&fields, KEEP_ALIVE), [advertised], "{idle:?}");
        assert_eq!(values(&fields, CONNECTION), ["keep-alive"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_container_enforces_what_is_meant() {
    let start = Instant::now();
    let said = on_wharf(KeepAlive::new().idle(secs(7)), GET).await;
    assert!(said.contains("\r\nkeep-alive: timeout=6\r\n"), "{said}");
    assert_eq!(start.elapsed(), secs(7));
}

#[tokio::test]
async fn the_last_of_so_many_requests_is_told_so() {
    for most in 1..4 {
        let said = on_wharf(KeepAlive::new().max_requests(most), &GET.repeat(5)).await;
        assert_eq!(said.matches("HTTP/1.1 200").count() as u64, most, "{said}");
        assert_eq!(said.matches("connection: close").count(), 1, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_response_at_the_greatest_age_is_the_last() {
    let slow = service_fn(|_: Request<Body>| async {
        tokio::time::sleep(secs(2)).await;
        Ok::<_, Infallible>(ok())
    });
    // Responses begin when the connection is 2, 4 and 6 seconds old.
    for (age, answers) in [(3, 2), (4, 2), (5, 3)] {
        let layer = KeepAlive::new().max_age(secs(age)).idle(secs(3));
        let said = converse(layer.layer(slow), GET.repeat(4).as_bytes()).await;
        assert_eq!(
            said.matches("HTTP/1.1 200").count(),
            answers,
            "{age}: {said}"
        );
        assert!(said.contains("connection: close"), "{age}: {said}");
    }
    // An idle connection isn't kept beyond its greatest age either.
    let layer = KeepAlive::new().max_age(secs(5)).idle(secs(60));
    let start = Instant::now();
    let said = converse(layer.layer(slow), GET.as_bytes()).await;
    assert!(said.contains("keep-alive: timeout=2"), "{said}");
    assert_eq!(start.elapsed(), secs(5));
}

#[test]
fn jitter_spreads_both_ways_and_is_always_the_same_for_a_connection() {
    let layer = KeepAlive::new().max_requests(1_000).jitter(0.1);
    let last = |id| (1..2_000).find(|n| layer.by_the_rules(id, Some(*n), None) == Verdict::Close);
    let all: Vec<u64> = (1..200).filter_map(last).collect();
    assert_eq!(all.len(), 199);
    assert!(all.iter().all(|n| (900..=1_100).contains(n)), "{all:?}");
    assert!(
        all.iter().any(|n| *n < 940) && all.iter().any(|n| *n > 1_060),
        "{all:?}"
    );
    assert_eq!(all, (1..200).filter_map(last).collect::<Vec<_>>());

    for (share, within) in [(f32::NAN, 0.0), (-1.0, 0.0), (7.0, 1.0)] {
        assert_eq!(KeepAlive::new().jitter(share).jitter, within);
    }
}

#[tokio::test]
async fn when_it_is_crowded_idle_connections_are_kept_for_a_shorter_time() {
    for (fullness, advertised) in [(0.89, "timeout=29"), (0.9, "timeout=4"), (1.0, "timeout=4")] {
        let layer = KeepAlive::new()
            .idle(secs(30))
            .crowded(0.9, secs(5), move || fullness);
        let fields = fields(&layer, Request::get("/"), ok()).await;
        assert_eq!(values(&fields, KEEP_ALIVE), [advertised]);
    }
    // Never longer, and only then if nothing is said otherwise.
    let layer = KeepAlive::new().idle(secs(3)).crowded(0.9, secs(5), || 1.0);
    assert_eq!(
        values(&fields(&layer, Request::get("/"), ok()).await, KEEP_ALIVE),
        ["timeout=2"]
    );
    let layer = KeepAlive::new().crowded(0.9, secs(5), || 0.0);
    assert!(fields(&layer, Request::get("/"), ok()).await.is_empty());
}

#[tokio::test]
async fn behind_a_balancer_connections_are_kept_for_longer_than_it_keeps_them() {
    let fields = fields(&KeepAlive::behind_balancer(), Request::get("/"), ok()).await;
    assert_eq!(values(&fields, KEEP_ALIVE), ["timeout=74"]);
}

#[tokio::test]
async fn nothing_is_said_where_the_fields_mean_nothing() {
    let layer = KeepAlive::new()
        .idle(secs(30))
        .policy(|_| Decision::KeepIdle(secs(9)));
    for request in [
        Request::get("/").version(Version::HTTP_2),
        Request::get("/").version(Version::HTTP_3),
        Request::get("/").version(Version::HTTP_10),
        Request::get("/").header(CONNECTION, "x, Close"),
        Request::connect("a:1"),
    ] {
        assert!(fields(&layer, request, ok()).await.is_empty());
    }
    let old = Request::get("/")
        .version(Version::HTTP_10)
        .header(CONNECTION, "Keep-Alive");
    assert_eq!(
        values(&fields(&layer, old, ok()).await, KEEP_ALIVE),
        ["timeout=8"]
    );
}

#[tokio::test]
async fn the_handlers_word_stands() {
    let layer = KeepAlive::new().idle(secs(30));
    let said = |name, value| {
        let mut response = ok();
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        response
    };
    let closed = fields(&layer, Request::get("/"), said(CONNECTION, "close")).await;
    assert_eq!(
        (values(&closed, CONNECTION), values(&closed, KEEP_ALIVE)),
        (vec!["close"], vec![])
    );
    let own = fields(&layer, Request::get("/"), said(KEEP_ALIVE, "timeout=3")).await;
    assert_eq!(values(&own, KEEP_ALIVE), ["timeout=3"]);
    // But a connection that is closed can't be promised to be kept.
    let layer = KeepAlive::new().policy(|_| Decision::Close);
    let closed = fields(&layer, Request::get("/"), said(KEEP_ALIVE, "timeout=3")).await;
    assert_eq!(
        (values(&closed, CONNECTION), values(&closed, KEEP_ALIVE)),
        (vec!["close"], vec![])
    );

    let mut upgrade = said(CONNECTION, "upgrade");
    *upgrade.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = fields(&layer, Request::get("/"), upgrade).await;
    assert_eq!(values(&upgrade, CONNECTION), ["upgrade"]);
}

#[tokio::test]
async fn a_policy_goes_before_the_rules_and_knows_all_three() {
    let layer = KeepAlive::new()
        .max_requests(3)
        .idle(secs(30))
        .policy(|facts| {
            assert!(facts.connection.is_some() && facts.age.is_some());
            assert_eq!((facts.method, facts.status), (&Method::GET, StatusCode::OK));
            match (facts.uri.path(), facts.request_number) {
                ("/rules", Some(1)) => Decision::ByTheRules,
                ("/idle", Some(2)) => Decision::KeepIdle(secs(10)),
                ("/keep", Some(3)) => Decision::Keep,
                ("/close", Some(4)) => Decision::Close,
                other => panic!("{other:?}"),
            }
        });
    let requests = ["/rules", "/idle", "/keep", "/close", "/never"];
    let requests = requests.map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let said = on_wharf(layer, &requests.concat()).await;
    let lines = said
        .lines()
        .filter(|line| line.contains("timeout=") || line.contains("close"));
    let lines: Vec<_> = lines.collect();
    let expected = [
        "keep-alive: timeout=29",
        "keep-alive: timeout=9",
        "keep-alive: timeout=29",
        "connection: close",
    ];
    assert_eq!(lines, expected, "{said}");
}
