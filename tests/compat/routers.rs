//! An axum 0.8 `Router`: its routes, extractors, state, bodies and events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get as on_get, post as on_post};
use axum::{Extension, Form, Json, Router};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::ServiceBuilder;
use wharf::{Body, BoxError, ConnInfo, ConnInfoLayer, Http, Serve};

use crate::{Client, get, post};

#[tokio::test]
async fn routes_state_and_extractors() {
    #[derive(Deserialize)]
    struct Page {
        page: u32,
    }
    async fn list(
        Path(shelf): Path<String>,
        Query(Page { page }): Query<Page>,
        State(visits): State<Arc<AtomicU32>>,
        method: Method,
    ) -> String {
        let visit = visits.fetch_add(1, Relaxed) + 1;
        format!("{method} {shelf}, page {page}, visit {visit}")
    }
    let app = Router::new()
        .nest("/shelves", Router::new().route("/{shelf}", on_get(list)))
        .with_state(Arc::new(AtomicU32::new(0)));

    for (mut client, visit) in Client::both(app).await.into_iter().zip(1..) {
        let answer = client.get("/shelves/sea%20tales?page=7").await;
        assert_eq!(
            answer.text(),
            format!("GET sea tales, page 7, visit {visit}")
        );
        assert_eq!(
            answer.field("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(
            client.get("/shelves/a?page=x").await.status,
            StatusCode::BAD_REQUEST
        );
    }
}

#[tokio::test]
async fn a_router_answers_what_is_missing_forbidden_moved_or_only_asked_about() {
    let app = Router::new()
        .route("/", on_get(|| async { "hello" }))
        .route("/old", on_get(|| async { Redirect::permanent("/") }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "nothing here") });

    for mut client in Client::both(app).await {
        let missing = client.get("/missing").await;
        assert_eq!(
            (missing.status, missing.text()),
            (StatusCode::NOT_FOUND, "nothing here")
        );

        let forbidden = client.send(post("/", "x")).await;
        assert_eq!(forbidden.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(forbidden.field("allow"), Some("GET,HEAD"));

        let moved = client.get("/old").await;
        assert_eq!(moved.status, StatusCode::PERMANENT_REDIRECT);
        assert_eq!(moved.field("location"), Some("/"));

        let head = Request::head("/").body(Body::empty()).unwrap();
        let asked = client.send(head).await;
        assert_eq!((asked.status, asked.text()), (StatusCode::OK, ""));
        assert_eq!(asked.field("content-length"), Some("5"));
    }
}

#[tokio::test]
async fn body_extractors() {
    #[derive(Deserialize, Serialize)]
    struct Crate {
        label: String,
        weight: u32,
    }
    async fn heavier(Json(mut cargo): Json<Crate>) -> Json<Crate> {
        cargo.weight += 1;
        Json(cargo)
    }
    let app = Router::new()
        .route("/json", on_post(heavier))
        .route(
            "/form",
            on_post(|Form(cargo): Form<Crate>| async { cargo.label }),
        )
        .route(
            "/text",
            on_post(|text: String| async move { text.to_uppercase() }),
        )
        .route(
            "/bytes",
            on_post(|bytes: Bytes| async move { bytes.len().to_string() }),
        );

    for mut client in Client::both(app).await {
        let json = |text: &'static str| {
            let mut request = post("/json", text);
            let kind = http::HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, kind);
            request
        };
        let good = client.send(json(r#"{"label":"tea","weight":1}"#)).await;
        assert_eq!(good.text(), r#"{"label":"tea","weight":2}"#);
        assert_eq!(client.send(json("{")).await.status, StatusCode::BAD_REQUEST);
        let untyped = client.send(post("/json", "{}")).await;
        assert_eq!(untyped.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);

        let mut form = post("/form", "label=tea&weight=1");
        let kind = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        form.headers_mut().insert(CONTENT_TYPE, kind);
        assert_eq!(client.send(form).await.text(), "tea");

        assert_eq!(client.send(post("/text", "tea")).await.text(), "TEA");
        let large = vec![b'.'; 1_500_000];
        assert_eq!(client.send(post("/bytes", large)).await.text(), "1500000");
    }
}

#[tokio::test]
async fn a_body_above_axums_limit_is_refused_and_the_client_learns_it() {
    let app = Router::new()
        .route(
            "/",
            on_post(|bytes: Bytes| async move { bytes.len().to_string() }),
        )
        .layer(DefaultBodyLimit::max(1_000));

    for mut client in Client::both(app).await {
        let answer = client.send(post("/", vec![b'.'; 2_000_000])).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    async fn louder(body: axum::body::Body) -> axum::body::Body {
        axum::body::Body::from_stream(
            body.into_data_stream()
                .map(|data| data.map(|data| Bytes::from(data.to_ascii_uppercase()))),
        )
    }
    let app = Router::new().route("/", on_post(louder));

    for mut client in Client::both(app).await {
        let (mut upload, body) = Channel::<Bytes, BoxError>::new(1);
        upload.send_data(Bytes::from("first")).await.unwrap();
        let mut response = client.begin(post("/", Body::new(body))).await.into_body();
        assert_eq!(next(&mut response).await, "FIRST");

        // The second piece is only sent when the first has come back.
        upload.send_data(Bytes::from("second")).await.unwrap();
        assert_eq!(next(&mut response).await, "SECOND");
        drop(upload);
        assert!(response.frame().await.is_none());
    }
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    type Events = Arc<tokio::sync::Mutex<mpsc::Receiver<&'static str>>>;
    async fn watch(State(events): State<Events>) -> impl IntoResponse {
        let stream = unfold(events, async |events| {
            let text = events.lock().await.recv().await?;
            Some((Ok::<_, BoxError>(Event::default().data(text)), events))
        });
        Sse::new(stream).keep_alive(KeepAlive::default())
    }
    for over_tcp in [true, false] {
        let (send, receive) = mpsc::channel(1);
        let receive = Arc::new(tokio::sync::Mutex::new(receive));
        let app = Router::new().route("/", on_get(watch)).with_state(receive);
        let mut client = match over_tcp {
            true => Client::over_tcp(app).await,
            false => Client::in_memory(app).await,
        };
        let response = client.begin(get("/")).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        let mut events = response.into_body();
        for text in ["one", "two"] {
            send.send(text).await.unwrap();
            assert_eq!(next(&mut events).await, format!("data: {text}\n\n"));
        }
        drop(send);
        assert!(events.frame().await.is_none());
    }
}

#[tokio::test]
async fn axums_own_middleware_and_the_connections_facts() {
    async fn number(Extension(info): Extension<ConnInfo>) -> String {
        info.peer.to_string()
    }
    let router = Router::new()
        .route("/", on_get(number))
        .layer(axum::middleware::from_fn(
            async |request: axum::extract::Request, next: axum::middleware::Next| {
                let mut response = next.run(request).await;
                let seen = http::HeaderValue::from_static("yes");
                response.headers_mut().insert("x-seen", seen);
                response
            },
        ));
    let app = ServiceBuilder::new().layer(ConnInfoLayer).service(router);

    let [mut tcp, mut memory] = Client::both(app).await;
    let answer = tcp.get("/").await;
    assert!(answer.text().starts_with("127.0.0.1:"), "{}", answer.text());
    assert_eq!(answer.field("x-seen"), Some("yes"));
    assert_eq!(memory.get("/").await.text(), "unnamed");
}

async fn next(body: &mut hyper::body::Incoming) -> Bytes {
    let frame = body.frame().await.expect("a frame").expect("no error");
    frame.into_data().expect("data")
}

#[tokio::test]
async fn connect_info_comes_by_axums_own_make_service() {
    use axum::extract::ConnectInfo;
    use tower::Layer;

    async fn who(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
        peer.to_string()
    }
    let make = Router::new()
        .route("/", on_get(who))
        .into_make_service_with_connect_info::<SocketAddr>();
    let peer = |info: &ConnInfo| {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        info.peer.socket().unwrap_or(unknown)
    };
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let serve = Serve::over(socket, Http::new().per_connection(peer).layer(make))
        .with_graceful_shutdown(std::future::pending());
    tokio::spawn(async move { serve.await.unwrap() });

    let stream = TcpStream::connect(address).await.unwrap();
    let own = stream.local_addr().unwrap();
    let mut client = Client::over(stream).await;
    assert_eq!(client.get("/").await.text(), own.to_string());
}
