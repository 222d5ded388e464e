//! What the ecosystem offers, on wharf, unchanged: sessions, gRPC-web, GraphQL, OpenTelemetry. Nothing here adapts anything. A
//! package of its own, because these crates bring a hundred others.

mod support;

use std::convert::Infallible;
use std::task::{Context, Poll};

use async_graphql::{EmptyMutation, EmptySubscription, Object, Schema};
use async_graphql_axum::GraphQL;
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::trace::SpanKind;
use opentelemetry_instrumentation_tower::http::server;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tonic::Status;
use tonic_web::GrpcWebLayer;
use tower::{Service, ServiceBuilder, service_fn};
use tower_sessions::{MemoryStore, Session, SessionManagerLayer};
use wharf::test::{Client, connect};
use wharf::{Body, BoxError, Http};

use support::Raw;

async fn post(client: &mut Client, path: &str, kind: &str, body: &[u8]) -> Response<Bytes> {
    let request = Request::post(path).header("content-type", kind);
    client
        .request(request.body(Bytes::copy_from_slice(body)).unwrap())
        .await
}

#[tokio::test]
async fn tower_sessions_counts_a_visitor() {
    async fn count(session: Session) -> String {
        let visits: usize = session.get("visits").await.unwrap().unwrap_or_default();
        session.insert("visits", visits + 1).await.unwrap();
        visits.to_string()
    }
    let sessions = SessionManagerLayer::new(MemoryStore::default()).with_secure(false);
    let app = Router::new().route("/", get(count)).layer(sessions);
    let mut client = connect(Http::new(), app);
    let first = client.get("/").await;
    assert_eq!(first.body(), "0");
    let cookie = first.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap();
    for visits in ["1", "2"] {
        let again = Request::get("/").header("cookie", cookie).body("").unwrap();
        assert_eq!(client.request(again).await.body(), visits);
    }
    assert_eq!(client.get("/").await.body(), "0");
}

struct Query;

#[Object]
impl Query {
    async fn sum(&self, a: i32, b: i32) -> i32 {
        a + b
    }
}

#[tokio::test]
async fn async_graphql_answers_as_a_service() {
    let schema = Schema::new(Query, EmptyMutation, EmptySubscription);
    let mut client = connect(Http::new(), GraphQL::new(schema));
    let query = br#"{"query":"{ sum(a: 2, b: 3) }"}"#;
    let response = post(&mut client, "/", "application/json", query).await;
    assert_eq!(response.body(), r#"{"data":{"sum":5}}"#);
}

/// What tonic generates for a service with one method: it says its message twice.
#[derive(Clone)]
struct Twice;

impl Service<Request<tonic::body::Body>> for Twice {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let twice = service_fn(|request: tonic::Request<Bytes>| async move {
            let message = request.into_inner();
            Ok::<_, Status>(tonic::Response::new(
                [&message[..], &message[..]].concat().into(),
            ))
        });
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).unary(twice, request).await) })
    }
}

fn framed(flags: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flags], &length[..], message].concat()
}

#[tokio::test]
async fn tonic_web_speaks_grpc_web_over_http_1() {
    let app = ServiceBuilder::new()
        .layer(GrpcWebLayer::new())
        .service(Twice);
    let mut client = connect(Http::new(), app);
    let kind = "application/grpc-web+proto";
    let response = post(&mut client, "/echo.Echo/Twice", kind, &framed(0, b"ahoy")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], kind);
    let (message, trailers) = response.body().split_at(5 + 8);
    assert_eq!(message, framed(0, b"ahoyahoy"));
    assert_eq!(trailers[0], 0x80);
    let trailers = String::from_utf8_lossy(&trailers[5..]);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn opentelemetry_makes_a_span_of_each_request() {
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(spans.clone())
        .build();
    opentelemetry::global::set_tracer_provider(provider);
    let app = ServiceBuilder::new()
        .layer(server::Layer::new())
        .service_fn(|_: Request<Body>| async {
            Ok::<_, BoxError>(Response::new(Body::from("traced")))
        });
    let mut client = connect(Http::new(), app);
    assert_eq!(client.get("/where?secret=no").await.body(), "traced");
    let spans = spans.get_finished_spans().unwrap();
    let [span] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(span.span_kind, SpanKind::Server);
    let attribute = |name: &str| {
        let mut all = span.attributes.iter();
        all.find(|one| one.key.as_str() == name)
            .unwrap()
            .value
            .to_string()
    };
    assert_eq!(attribute("http.request.method"), "GET");
    assert_eq!(attribute("url.path"), "/where");
    assert_eq!(attribute("http.response.status_code"), "200");
}
