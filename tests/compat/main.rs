//! Compatibility: what the ecosystem offers runs on wharf unchanged. Nothing here adapts anything; where an adapter would
//! be needed, the container is wrong.
//!
//! Each application is asked twice, over a real socket and over a pipe in memory, by hyper's client.

mod routers;
mod tower_http_layers;
mod tower_layers;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tokio::net::{TcpListener, TcpStream};
use tower::Service;
use wharf::{Body, BoxError};

/// One connection to an application.
struct Client {
    sender: SendRequest<Body>,
}

/// A whole response.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    body: Bytes,
}

impl Client {
    /// Over a socket of the loopback.
    async fn over_tcp<S, B>(app: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let serve = wharf::serve(listener, app).with_graceful_shutdown(std::future::pending());
        tokio::spawn(async move { serve.await.expect("the server runs") });
        let stream = TcpStream::connect(address)
            .await
            .expect("the server listens");
        Self::over(stream).await
    }

    /// Over a pipe, where a test may pause the clock.
    async fn in_memory<S, B>(app: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (client, server) = duplex(64 * 1024);
        tokio::spawn(wharf::serve_connection(server, app));
        Self::over(client).await
    }

    /// Both.
    async fn both<S, B>(app: S) -> [Self; 2]
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        [
            Self::over_tcp(app.clone()).await,
            Self::in_memory(app).await,
        ]
    }

    async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = handshake(TokioIo::new(io)).await.expect("a handshake");
        tokio::spawn(connection);
        Self { sender }
    }

    /// The response as soon as its head is here.
    async fn begin(&mut self, mut request: Request<Body>) -> Response<Incoming> {
        let host = http::HeaderValue::from_static("localhost");
        request.headers_mut().insert(http::header::HOST, host);
        self.sender.ready().await.expect("the connection is kept");
        self.sender.send_request(request).await.expect("a response")
    }

    async fn send(&mut self, request: Request<Body>) -> Answer {
        let (head, body) = self.begin(request).await.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer {
            status: head.status,
            fields: head.headers,
            body,
        }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send(get(path)).await
    }
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).expect("a request")
}
