//! Each layer runs unchanged on wharf, under hyper and under axum: one client, one answer.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::ConnectInfo;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tower::{Layer, Service, service_fn};
use tower_http::decompression::RequestDecompressionLayer;
use tower_layer::Identity;
use wharf_middleware::metrics::StatusClass;
use wharf_middleware::range::{self, RangeBody};
use wharf_middleware::sse::{Event, Hub, Sse, Subscription};
use wharf_middleware::{
    AccessLog, ClientAddress, Conditional, Deadline, DecompressionGuard, Detach, Health, KeepAlive,
    Metrics, Next, OverloadLayer, RateLimitLayer, Timeout, Timings, TrustedProxies, from_fn,
};

/// What a client heard: the answer's head and its body, which is what the innermost service knew of the request.
struct Heard {
    status: StatusCode,
    fields: HeaderMap,
    body: String,
}

/// One test for each server that asks through `$layer` and hands what was heard to `$check`.
macro_rules! everywhere {
    ($name:ident, || $layer:expr, $check:expr) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn on_wharf() {
                let app = $layer.layer(service_fn(known::<wharf::Body>));
                let (client, server) = duplex(4096);
                tokio::spawn(wharf::serve_connection(server, app));
                let check = $check;
                check(ask(client).await).await;
            }

            #[tokio::test]
            async fn under_hyper() {
                let app = $layer.layer(service_fn(known::<hyper::body::Incoming>));
                let (client, server) = duplex(4096);
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(server), TowerToHyperService::new(app)),
                );
                let check = $check;
                check(ask(client).await).await;
            }

            #[tokio::test]
            async fn under_axum() {
                let app = axum::Router::new()
                    .route_service("/", service_fn(known::<axum::body::Body>))
                    .layer($layer);
                let app = app.into_make_service_with_connect_info::<SocketAddr>();
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                tokio::spawn(async move { axum::serve(listener, app).await });
                let client = tokio::net::TcpStream::connect(address).await.unwrap();
                let check = $check;
                check(ask(client).await).await;
            }
        }
    };
}

/// One test for each server that sends `$request` to `$service`, where that is more than a layer around a service that
/// takes any body, and hands what was heard to `$check`.
macro_rules! served_everywhere {
    ($name:ident, || $service:expr, || $request:expr, $check:expr) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn on_wharf() {
                let (client, server) = duplex(4096);
                tokio::spawn(wharf::serve_connection(server, $service));
                let check = $check;
                check(send(client, $request).await).await;
            }

            #[tokio::test]
            async fn under_hyper() {
                let (client, server) = duplex(4096);
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(server), TowerToHyperService::new($service)),
                );
                let check = $check;
                check(send(client, $request).await).await;
            }

            #[tokio::test]
            async fn under_axum() {
                let app = axum::Router::new().route_service("/", $service);
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                tokio::spawn(async move { axum::serve(listener, app).await });
                let client = tokio::net::TcpStream::connect(address).await.unwrap();
                let check = $check;
                check(send(client, $request).await).await;
            }
        }
    };
}

everywhere!(a_function, || from_fn(stamp), async |heard: Heard| {
    assert_eq!(heard.fields["x-stamp"], "stamped");
});

everywhere!(detach, || Detach, async |heard: Heard| {
    assert_eq!(heard.body, "nothing");
});

everywhere!(
    overload,
    || {
        let layer = OverloadLayer::limit(1).queue(0);
        OVERLOAD.with(|place| *place.borrow_mut() = Some(layer.clone()));
        layer
    },
    async |heard: Heard| {
        assert_eq!(heard.body, "nothing");
        let load = OVERLOAD.with(|place| place.borrow().as_ref().map(OverloadLayer::load));
        let load = load.expect("the layer");
        assert_eq!((load.in_flight, load.refused), (0, 0));
    }
);

everywhere!(
    rate_limit,
    || RateLimitLayer::new(2, MINUTE),
    async |heard: Heard| {
        assert_eq!(heard.fields["ratelimit"], r#""default";r=1;t=30"#);
    }
);

everywhere!(
    time_outs,
    || Timeout::new()
        .handler(MINUTE)
        .exchange(MINUTE)
        .gap(MINUTE)
        .announce(),
    async |heard: Heard| assert_eq!(heard.body, "deadline")
);

everywhere!(
    keep_alive,
    || KeepAlive::new().idle(MINUTE),
    async |heard: Heard| {
        assert_eq!(heard.fields["keep-alive"], "timeout=59");
    }
);

everywhere!(
    trusted_proxies,
    || TrustedProxies::forwarded()
        .trust(["127.0.0.1"])
        .unwrap()
        .peer_from(|extensions| {
            let axums = extensions.get::<ConnectInfo<SocketAddr>>();
            // The streams in memory have no peer.
            Some(axums.map_or(([127, 0, 0, 1], 80).into(), |connect| connect.0))
        }),
    async |heard: Heard| assert_eq!(heard.body, "203.0.113.7")
);

everywhere!(
    health,
    || Health::new().paths("/", "/livez"),
    async |heard: Heard| assert_eq!(heard.body, "ready\n")
);

everywhere!(
    metrics,
    || METRICS.with(Metrics::clone),
    async |heard: Heard| {
        assert_eq!(heard.body, "nothing");
        let counted = METRICS.with(Metrics::snapshot);
        assert_eq!(counted.of_class(StatusClass::Success), 1);
    }
);

everywhere!(
    access_log,
    || {
        let written = Arc::new(Mutex::new(Vec::new()));
        WRITTEN.with(|place| *place.borrow_mut() = written.clone());
        AccessLog::json().to_writer(Shared(written))
    },
    async |heard: Heard| {
        assert_eq!(heard.body, "nothing");
        let written = WRITTEN.with(|place| place.borrow().clone());
        let whole_line = async {
            while !written.lock().unwrap().ends_with(b"\n") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(MINUTE, whole_line)
            .await
            .expect("a line");
        let line = written.lock().unwrap();
        let line: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &7.into()));
        assert_eq!(line["ended"], "complete");
    }
);

everywhere!(
    timed,
    || TIMINGS.with(|timings| timings.timed("nothing", Identity::new())),
    async |heard: Heard| {
        assert_eq!(heard.body, "nothing");
        let layer = &TIMINGS.with(Timings::snapshot).layers[0];
        assert_eq!((layer.calls, layer.passed_on), (1, 1));
    }
);

everywhere!(conditional, || Conditional, async |heard: Heard| {
    assert_eq!((heard.status.as_u16(), heard.body.as_str()), (304, ""));
    assert_eq!(heard.fields["etag"], KNOWN);
});

served_everywhere!(
    decompression_guard,
    || DecompressionGuard::around(RequestDecompressionLayer::new()).layer(service_fn(swallow)),
    || {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::copy(&mut std::io::repeat(0).take(9 << 20), &mut gzip).unwrap();
        let request = Request::post("/").header("content-encoding", "gzip");
        request.body(Full::from(gzip.finish().unwrap())).unwrap()
    },
    async |heard: Heard| assert_eq!(heard.status, 413)
);

served_everywhere!(
    ranges,
    || service_fn(digits),
    || {
        let request = Request::get("/").header("range", "bytes=4-");
        request.body(Full::default()).unwrap()
    },
    async |heard: Heard| {
        assert_eq!(
            (heard.status.as_u16(), heard.body.as_str()),
            (206, "456789")
        );
        assert_eq!(heard.fields["content-length"], "6");
    }
);

served_everywhere!(
    server_sent_events,
    || service_fn(tell),
    || Request::get("/").body(Full::default()).unwrap(),
    async |heard: Heard| {
        assert_eq!(heard.fields["content-type"], "text/event-stream");
        assert!(heard.body.starts_with("data: news\nid: "), "{}", heard.body);
        assert!(heard.body.ends_with("-1\n\n"));
    }
);

const MINUTE: Duration = Duration::from_secs(60);

// Each test has a thread of its own.
thread_local! {
    static METRICS: Metrics = Metrics::new();
    static WRITTEN: std::cell::RefCell<Arc<Mutex<Vec<u8>>>> = std::cell::RefCell::default();
    static TIMINGS: Timings = Timings::new();
    static OVERLOAD: std::cell::RefCell<Option<OverloadLayer>> = std::cell::RefCell::default();
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Says what the layers told of the request.
async fn known<B: 'static>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let known = match (ClientAddress::of(&request), Deadline::of(&request)) {
        (Some(client), _) if client.is_forwarded() => client.ip().to_string(),
        (_, Some(_)) => "deadline".to_owned(),
        _ => "nothing".to_owned(),
    };
    let mut response = Response::new(Full::from(known));
    let etag = HeaderValue::from_static(KNOWN);
    response.headers_mut().insert("etag", etag);
    Ok(response)
}

/// The tag of that; the client has it.
const KNOWN: &str = r#""known""#;

/// Reads its request, and fails if that can't be read.
async fn swallow<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
where
    B: Body<Error: std::fmt::Debug>,
{
    let whole = request.into_body().collect().await;
    let status = if whole.is_ok() { 200 } else { 500 };
    let response = Response::builder().status(status);
    Ok(response.body(Full::default()).unwrap())
}

/// Ten digits, or a part of them.
async fn digits<B>(request: Request<B>) -> Result<Response<RangeBody<Bytes>>, Infallible> {
    let full = Response::new(Bytes::from_static(b"0123456789"));
    Ok(range::respond(request.method(), request.headers(), full))
}

/// One event, and the end.
async fn tell<B: 'static>(request: Request<B>) -> Result<Response<Sse<Subscription>>, Infallible> {
    let hub = Hub::new();
    let response = hub.answer(&request);
    hub.publish(Event::new("news"));
    Ok(response)
}

async fn stamp<S, B, R>(request: Request<B>, next: Next<S>) -> Result<Response<R>, S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    let mut response = next.call(request).await?;
    let stamp = HeaderValue::from_static("stamped");
    response.headers_mut().insert("x-stamp", stamp);
    Ok(response)
}

async fn ask(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Heard {
    let request = Request::get("/")
        .header("forwarded", "for=203.0.113.7")
        .header("if-none-match", KNOWN);
    send(io, request.body(Full::default()).unwrap()).await
}

async fn send(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Full<Bytes>>,
) -> Heard {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(io));
    let (mut client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let host = HeaderValue::from_static("localhost");
    request.headers_mut().insert("host", host);
    let response = client.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Heard {
        status: parts.status,
        fields: parts.headers,
        body: String::from_utf8(body.into()).unwrap(),
    }
}

/// Modules without a row.
const NO_LAYER: [&str; 1] = ["guide"];

/// Rows that are not called as their module, which would hide it.
const OTHERWISE: [(&str, &str); 4] = [
    ("from_fn", "a_function"),
    ("timeout", "time_outs"),
    ("range", "ranges"),
    ("sse", "server_sent_events"),
];

#[test]
fn no_layer_is_forgotten() {
    let modules = include_str!("../src/lib.rs").lines();
    let modules = modules.filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let rows: String = include_str!("everywhere.rs").split_whitespace().collect();
    let mut layers = 0;
    for module in modules.filter(|module| !NO_LAYER.contains(module)) {
        let other = OTHERWISE.iter().find(|(name, _)| *name == module);
        let row = other.map_or(module, |(_, row)| *row);
        assert!(rows.contains(&format!("everywhere!({row},")), "{module}");
        layers += 1;
    }
    assert!(layers >= 11, "only {layers}");
}
