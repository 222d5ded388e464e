//! [`Http`] for services that aren't `Send`: the same connection, boxed without the promise that it may change threads.

use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_layer::Layer;
use tower_service::Service;

use super::{Http, Reported};
use crate::body::Body;
use crate::codec::{Codec, Strict};
use crate::conn::{Conn, ConnReport};
use crate::error::{BoxError, Error};
use crate::limits::Limits;

impl<M> Http<M> {
    /// The same layer for services that aren't `Send`, nor their futures and bodies, where a connection stays on its
    /// thread: [`Server::serve_per_core`](crate::Server::serve_per_core) and
    /// [`serve_local`](crate::Server::serve_local). Set everything else before.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, service_fn};
    /// use wharf::{Body, BoxError, Http};
    ///
    /// let greeting = Rc::new("hello".to_owned());
    /// let stack = ServiceBuilder::new().layer(Http::new().local()).service(service_fn(move |_: Request<Body>| {
    ///     let greeting = greeting.clone();
    ///     async move { Ok::<_, BoxError>(Response::new(greeting.to_string())) }
    /// }));
    /// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
    /// ```
    pub fn local(self) -> LocalHttp<M> {
        LocalHttp { http: self }
    }
}

/// The layer that [`Http::local`] makes.
#[derive(Debug, Clone)]
#[must_use]
pub struct LocalHttp<M = fn(&Limits) -> Strict> {
    http: Http<M>,
}

impl<S, M: Clone> Layer<S> for LocalHttp<M> {
    type Service = LocalHttp1<S, M>;

    fn layer(&self, service: S) -> Self::Service {
        LocalHttp1 {
            http: self.http.clone(),
            service,
        }
    }
}

/// The connection service that [`LocalHttp`] makes of a request service.
#[derive(Debug, Clone)]
pub struct LocalHttp1<S, M = fn(&Limits) -> Strict> {
    http: Http<M>,
    service: S,
}

impl<Io, S, M, C, B> Service<Conn<Io>> for LocalHttp1<S, M>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    M: Fn(&Limits) -> C + 'static,
    C: Codec + 'static,
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + Clone + 'static,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    type Response = ConnReport;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<ConnReport, Error>>>>;

    /// Fails, for good, when the [`Limits`] can't work. The request service's own readiness is asked for each
    /// request, when its head is there.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(self.http.settings.limits.check())
    }

    fn call(&mut self, conn: Conn<Io>) -> Self::Future {
        match self.http.connection(conn, self.service.clone()) {
            Ok(connection) => Box::pin(Reported { connection }),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}
