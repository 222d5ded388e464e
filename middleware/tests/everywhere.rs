//! Each layer runs unchanged under hyper and axum: one client, one answer.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tower::{ServiceBuilder, service_fn};
use wharf_middleware::{Next, from_fn};

#[tokio::test]
async fn from_fn_runs_under_hyper() {
    let hello = service_fn(async |_: Request<hyper::body::Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    });
    let app = ServiceBuilder::new().layer(from_fn(stamp)).service(hello);

    let (client, server) = duplex(4096);
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), TowerToHyperService::new(app)),
    );
    assert_eq!(ask(client).await, ("stamped".into(), "hello".into()));
}

#[tokio::test]
async fn from_fn_runs_under_axum() {
    let app = axum::Router::new()
        .route("/", axum::routing::get(|| async { "hello" }))
        .layer(from_fn(stamp));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = tokio::net::TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(client).await, ("stamped".into(), "hello".into()));
}

async fn stamp<S, B, R>(request: Request<B>, next: Next<S>) -> Result<Response<R>, S::Error>
where
    S: tower::Service<Request<B>, Response = Response<R>>,
{
    let mut response = next.call(request).await?;
    let stamp = HeaderValue::from_static("stamped");
    response.headers_mut().insert("x-stamp", stamp);
    Ok(response)
}

async fn ask(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> (String, Bytes) {
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "localhost")
        .body(Empty::<Bytes>::new());
    let response = client.send_request(request.unwrap()).await.unwrap();
    let stamp = response.headers()["x-stamp"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (stamp, body)
}
