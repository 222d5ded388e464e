//! A service for the layers' tests that insists on the contract: `poll_ready` first, and on the instance that is
//! called; and a conversation with wharf.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tower_service::Service;

/// Ready at the second poll, once for each call; its clones start unready. Calling an unready one fails the test.
pub(crate) struct Picky<F> {
    answer: F,
    polled: u32,
}

impl<F> Picky<F> {
    pub(crate) fn new(answer: F) -> Self {
        Self { answer, polled: 0 }
    }
}

impl<F: Clone> Clone for Picky<F> {
    fn clone(&self) -> Self {
        Self::new(self.answer.clone())
    }
}

impl<F, B, R, E, Fut> Service<Request<B>> for Picky<F>
where
    F: FnMut(Request<B>) -> Fut,
    Fut: Future<Output = Result<R, E>>,
{
    type Response = R;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.polled += 1;
        if self.polled < 2 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Fut {
        assert!(self.polled >= 2, "called without being ready");
        self.polled = 0;
        (self.answer)(request)
    }
}

/// Checks that `service` is ready no sooner than its [`Picky`] and calls the instance that was; thrice, so that
/// whatever a call leaves behind is checked too.
pub(crate) async fn honours_readiness<S, B>(mut service: S, request: impl Fn() -> Request<B>)
where
    S: Service<Request<B>>,
{
    for _ in 0..3 {
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            service.poll_ready(cx).map(|ready| assert!(ready.is_ok()))
        })
        .await;
        assert_eq!(polls, 2, "ready when the inner service is, and not before");
        assert!(service.call(request()).await.is_ok());
    }
}

/// All that wharf with this service says to a client that sends `bytes` and then only listens.
pub(crate) async fn converse<S, R>(service: S, bytes: &[u8]) -> String
where
    S: Service<Request<wharf::Body>, Response = Response<R>, Error: Into<wharf::BoxError>>
        + Send
        + 'static,
    S::Future: Send,
    R: http_body::Body<Data: Send, Error: Into<wharf::BoxError>> + Send + 'static,
{
    let (mut client, server) = duplex(1 << 16);
    let connection = tokio::spawn(wharf::serve_connection(server, service));
    client.write_all(bytes).await.expect("the server reads");
    let mut said = Vec::new();
    let listen = client.read_to_end(&mut said);
    let heard = tokio::time::timeout(Duration::from_secs(600), listen).await;
    heard
        .expect("the connection ends")
        .expect("no error in memory");
    drop(client);
    connection.await.expect("no panic");
    String::from_utf8_lossy(&said).into_owned()
}
