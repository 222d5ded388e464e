//! gRPC over HTTP/2: tonic's server on wharf, and tonic's client over hyper's.

mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::codegen::BoxFuture;
use tonic::codegen::tokio_stream::{Stream, StreamExt, iter};
use tonic::{Code, Status, Streaming};
use tower::{Service, service_fn};
use wharf::{Conn, Http};

use support::Raw;

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// What tonic generates for a service with a method of each kind.
#[derive(Clone)]
struct Echo;

impl Service<Request<wharf::Body>> for Echo {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<wharf::Body>) -> Self::Future {
        let request = request.map(tonic::body::Body::new);
        let mut grpc = tonic::server::Grpc::new(Raw);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/echo.Echo/Once" => {
                    let once = service_fn(|request: tonic::Request<Bytes>| async move {
                        match request.into_inner() {
                            message if message == "refuse" => {
                                Err(Status::failed_precondition("as asked"))
                            }
                            message => Ok(tonic::Response::new(message)),
                        }
                    });
                    grpc.unary(once, request).await
                }
                _ => {
                    let all = service_fn(|request: tonic::Request<Streaming<Bytes>>| async move {
                        let messages: Messages = Box::pin(request.into_inner());
                        Ok::<_, Status>(tonic::Response::new(messages))
                    });
                    grpc.streaming(all, request).await
                }
            })
        })
    }
}

/// A client of the service, over a connection in memory.
async fn client() -> tonic::client::Grpc<
    impl Service<
        Request<tonic::body::Body>,
        Response = Response<hyper::body::Incoming>,
        Error = hyper::Error,
        Future: Send,
    > + Clone,
> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connection = Http::new().only_http2().connection(Conn::from(far), Echo);
    tokio::spawn(connection.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
    let (sender, driver) = handshake.await.unwrap();
    tokio::spawn(driver);
    let send = service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    tonic::client::Grpc::with_origin(send, "http://echo.example".parse().unwrap())
}

#[tokio::test]
async fn a_message_comes_back_and_a_status_in_the_trailers() {
    let mut client = client().await;
    let path = PathAndQuery::from_static("/echo.Echo/Once");
    client.ready().await.unwrap();
    let request = tonic::Request::new(Bytes::from_static(b"ahoy"));
    let answer = client.unary(request, path.clone(), Raw).await.unwrap();
    assert_eq!(answer.into_inner(), "ahoy");

    let request = tonic::Request::new(Bytes::from_static(b"refuse"));
    let status = client.unary(request, path, Raw).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::FailedPrecondition, "as asked")
    );
}

#[tokio::test]
async fn messages_stream_both_ways_at_the_same_time() {
    let mut client = client().await;
    let path = PathAndQuery::from_static("/echo.Echo/All");
    client.ready().await.unwrap();
    let large = Bytes::from(vec![b'.'; 100_000]);
    let messages: Vec<Bytes> = (0..50).map(|at| large.slice(..at * 2_000)).collect();
    let request = tonic::Request::new(iter(messages.clone()));
    let answer = client.streaming(request, path, Raw).await.unwrap();
    let mut answers = answer.into_inner();
    for message in messages {
        assert_eq!(answers.next().await.unwrap().unwrap(), message);
    }
    assert!(answers.next().await.is_none());
    let trailers = answers.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
}
