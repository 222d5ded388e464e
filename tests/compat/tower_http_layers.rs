//! tower-http 0.7's layers, seventeen of them in one stack, and its static files.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, ORIGIN, RANGE, SERVER, SET_COOKIE,
};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{ServiceBuilder, service_fn};
use tower_http::ServiceBuilderExt;
use tower_http::add_extension::AddExtensionLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::metrics::InFlightRequestsLayer;
use tower_http::normalize_path::NormalizePathLayer;
use tower_http::propagate_header::PropagateHeaderLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::{
    SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer,
};
use tower_http::services::ServeDir;
use tower_http::set_header::{SetRequestHeaderLayer, SetResponseHeaderLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use wharf::{Body, BoxError};

use crate::{Answer, Client, get, post};

#[derive(Clone)]
struct Ship(&'static str);

/// The innermost service: it tells what it sees of the layers around it.
async fn handle<B>(request: Request<B>) -> Result<Response<Body>, BoxError>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    let text = match head.uri.path() {
        "/panic" => panic!("this is the test that panics"),
        "/never" => std::future::pending().await,
        "/ship" => head
            .extensions
            .get::<Ship>()
            .map_or("none", |ship| ship.0)
            .to_owned(),
        "/secret" => head.headers[AUTHORIZATION].is_sensitive().to_string(),
        "/set" => head.headers["x-set"].to_str()?.to_owned(),
        "/long" => "a line that compresses well\n".repeat(1_000),
        "/length" => body
            .collect()
            .await
            .map_err(Into::into)?
            .to_bytes()
            .len()
            .to_string(),
        path => path.to_owned(),
    };
    let mut response = Response::new(Body::from(text));
    let cookie = HeaderValue::from_static("a=b");
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

macro_rules! stack {
    () => {{
        let (in_flight, _counter) = InFlightRequestsLayer::pair();
        ServiceBuilder::new()
            .layer(NormalizePathLayer::trim_trailing_slash())
            .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(TraceLayer::new_for_http())
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(SetSensitiveResponseHeadersLayer::new([SET_COOKIE]))
            .layer(CatchPanicLayer::new())
            .layer(in_flight)
            .layer(TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                Duration::from_secs(5),
            ))
            .layer(CorsLayer::permissive())
            .layer(SetResponseHeaderLayer::if_not_present(
                SERVER,
                HeaderValue::from_static("pier"),
            ))
            .layer(PropagateHeaderLayer::new(HeaderName::from_static("x-trip")))
            .layer(CompressionLayer::new())
            .layer(RequestDecompressionLayer::new())
            .layer(RequestBodyLimitLayer::new(100_000))
            .layer(AddExtensionLayer::new(Ship("Argo")))
            .layer(SetRequestHeaderLayer::overriding(
                HeaderName::from_static("x-set"),
                HeaderValue::from_static("by a layer"),
            ))
            .map_response_body(Body::new)
            .service(service_fn(handle))
    }};
}

#[tokio::test]
async fn each_of_the_layers_does_its_work() {
    for mut client in Client::both(stack!()).await {
        let plain = client.get("/path/").await;
        assert_eq!(plain.text(), "/path", "normalize-path");
        assert_eq!(plain.field("server"), Some("pier"), "set-header");
        assert_eq!(
            plain.field("access-control-allow-origin"),
            Some("*"),
            "cors"
        );
        assert!(
            plain.field("x-request-id").is_some_and(|id| id.len() == 36),
            "request-id"
        );

        let with = |path, name, value: &'static str| {
            let mut request = get(path);
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
            request
        };
        let trip = HeaderName::from_static("x-trip");
        let back = client.send(with("/", trip, "home")).await;
        assert_eq!(back.field("x-trip"), Some("home"), "propagate-header");
        let secret = client
            .send(with("/secret", AUTHORIZATION, "Basic YTpi"))
            .await;
        assert_eq!(secret.text(), "true", "sensitive-headers");

        assert_eq!(client.get("/ship").await.text(), "Argo", "add-extension");
        assert_eq!(
            client.get("/set").await.text(),
            "by a layer",
            "set-request-header"
        );
    }
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_cors_layer() {
    for mut client in Client::both(stack!()).await {
        let preflight = Request::options("/")
            .header(ORIGIN, "http://elsewhere.example")
            .header("access-control-request-method", "PUT")
            .body(Body::empty());
        let answer = client.send(preflight.unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.field("access-control-allow-methods"), Some("*"));
    }
}

#[tokio::test]
async fn a_panic_is_caught_by_the_layer_and_the_connection_goes_on() {
    for mut client in Client::both(stack!()).await {
        let caught = client.get("/panic").await;
        assert_eq!(caught.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(client.get("/after").await.text(), "/after");
    }
}

#[tokio::test]
async fn responses_are_compressed_for_whoever_asks() {
    for mut client in Client::both(stack!()).await {
        let mut request = get("/long");
        let gzip = HeaderValue::from_static("gzip");
        request.headers_mut().insert(ACCEPT_ENCODING, gzip);
        let answer = client.send(request).await;
        assert_eq!(answer.field("content-encoding"), Some("gzip"));
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
        assert!(answer.body.len() < 1_000, "{} bytes", answer.body.len());
        assert_eq!(
            unzip(&answer),
            "a line that compresses well\n".repeat(1_000)
        );
        assert_eq!(client.get("/long").await.body.len(), 28_000);
    }
}

#[tokio::test]
async fn requests_are_decompressed_and_their_size_is_limited() {
    for mut client in Client::both(stack!()).await {
        let answer = client.send(zipped("/length", &[b'.'; 50_000])).await;
        assert_eq!(answer.text(), "50000");
        // It declares its length, and the layer that limits it needs no byte of it.
        let answer = client.send(post("/length", vec![b'.'; 100_001])).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_out_has_the_status_it_was_given() {
    let mut client = Client::in_memory(stack!()).await;
    assert_eq!(
        client.get("/never").await.status,
        StatusCode::GATEWAY_TIMEOUT
    );
    assert_eq!(client.get("/after").await.text(), "/after");
}

#[tokio::test]
async fn static_files_whole_in_part_and_unchanged() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let source = std::fs::read(format!("{folder}/echo.rs")).unwrap();
    for mut client in Client::both(ServeDir::new(folder)).await {
        let whole = client.get("/echo.rs").await;
        assert_eq!(whole.body, source);

        let mut part = get("/echo.rs");
        let range = HeaderValue::from_static("bytes=2-5");
        part.headers_mut().insert(RANGE, range);
        let part = client.send(part).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.body, source[2..=5]);

        let mut unchanged = get("/echo.rs");
        let modified = whole.fields["last-modified"].clone();
        unchanged
            .headers_mut()
            .insert("if-modified-since", modified);
        let unchanged = client.send(unchanged).await;
        assert_eq!(
            (unchanged.status, unchanged.text()),
            (StatusCode::NOT_MODIFIED, "")
        );
        assert_eq!(client.get("/missing").await.status, StatusCode::NOT_FOUND);
    }
}

fn zipped(path: &str, content: &[u8]) -> Request<Body> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    let mut request = post(path, Bytes::from(encoder.finish().unwrap()));
    let gzip = HeaderValue::from_static("gzip");
    request.headers_mut().insert(CONTENT_ENCODING, gzip);
    request
}

fn unzip(answer: &Answer) -> String {
    let mut text = String::new();
    GzDecoder::new(&answer.body[..])
        .read_to_string(&mut text)
        .unwrap();
    text
}
