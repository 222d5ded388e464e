//! The layers between connections and requests, whatever they speak: the connection service that all of them make, the one
//! for services that aren't `Send`, and the one for services that are made anew for each connection.

use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use crate::conn::{Conn, ConnInfo, ConnReport};
use crate::error::{BoxError, Error};

pub(crate) type Connecting = Pin<Box<dyn Future<Output = Result<ConnReport, Error>> + Send>>;
pub(crate) type ConnectingHere = Pin<Box<dyn Future<Output = Result<ConnReport, Error>>>>;

mod sealed {
    /// A layer that knows whether it can work.
    pub trait Checked {
        fn is_right(&self) -> Result<(), super::Error>;
    }
}
pub(crate) use sealed::Checked;

/// A layer that serves connections over `Io` with the request service `S`, both `Send`: [`Http`](crate::Http) and what its
/// methods make of it. Nothing else can be one.
pub trait Speak<Io, S>: sealed::Checked {
    #[doc(hidden)]
    fn speak(&self, conn: Conn<Io>, service: S) -> Result<Connecting, Error>;
}

/// The same where neither service nor futures need to be `Send`.
pub trait SpeakLocal<Io, S>: sealed::Checked {
    #[doc(hidden)]
    fn speak_local(&self, conn: Conn<Io>, service: S) -> Result<ConnectingHere, Error>;
}

/// Makes a type that has `check` and `connection` a layer, in each of the three ways.
macro_rules! layer {
    ($layer:ident) => {
        impl<M> $layer<M> {
            /// The same layer for services that aren't `Send`, nor their futures and bodies; see [`Local`](crate::Local). Set
            /// everything else before.
            pub fn local(self) -> $crate::Local<Self> {
                $crate::Local { layer: self }
            }

            /// A service made anew for each connection, by a make-service that is given `target` of the connection's
            /// facts; see [`PerConnection`](crate::PerConnection). Set everything else before.
            pub fn per_connection<F, T>(self, target: F) -> $crate::PerConnection<Self, F>
            where
                F: Fn(&$crate::ConnInfo) -> T,
            {
                $crate::PerConnection {
                    layer: self,
                    target,
                }
            }
        }

        impl<M: Clone, S> tower_layer::Layer<S> for $layer<M> {
            type Service = $crate::Connections<Self, S>;

            fn layer(&self, service: S) -> Self::Service {
                $crate::Connections {
                    layer: self.clone(),
                    service,
                }
            }
        }

        impl<M> $crate::layer::Checked for $layer<M> {
            fn is_right(&self) -> Result<(), $crate::Error> {
                self.check()
            }
        }

        impl<Io, S, B, M, C> $crate::layer::Speak<Io, S> for $layer<M>
        where
            Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
            M: Fn(&$crate::Limits) -> C + 'static,
            C: $crate::codec::Codec<Decoder: Send, Encoder: Send> + Send + 'static,
            S: tower_service::Service<
                    http::Request<$crate::Body>,
                    Response = http::Response<B>,
                    Error: Into<$crate::BoxError>,
                    Future: Send,
                > + Send
                + 'static,
            B: http_body::Body<Data: Send, Error: Into<$crate::BoxError>> + Send + 'static,
        {
            fn speak(
                &self,
                conn: $crate::Conn<Io>,
                service: S,
            ) -> Result<$crate::layer::Connecting, $crate::Error> {
                let connection = self.connection(conn, service)?;
                Ok(Box::pin($crate::layer::Reported { connection }))
            }
        }

        impl<Io, S, B, M, C> $crate::layer::SpeakLocal<Io, S> for $layer<M>
        where
            Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
            M: Fn(&$crate::Limits) -> C + 'static,
            C: $crate::codec::Codec + 'static,
            S: tower_service::Service<
                    http::Request<$crate::Body>,
                    Response = http::Response<B>,
                    Error: Into<$crate::BoxError>,
                > + 'static,
            B: http_body::Body<Error: Into<$crate::BoxError>> + 'static,
        {
            fn speak_local(
                &self,
                conn: $crate::Conn<Io>,
                service: S,
            ) -> Result<$crate::layer::ConnectingHere, $crate::Error> {
                let connection = self.connection(conn, service)?;
                Ok(Box::pin($crate::layer::Reported { connection }))
            }
        }
    };
}
pub(crate) use layer;

/// The connection service that a layer makes of a request service. Each connection calls its own clone of the service.
#[derive(Debug, Clone)]
pub struct Connections<L, S> {
    pub(crate) layer: L,
    pub(crate) service: S,
}

impl<Io, L, S> Service<Conn<Io>> for Connections<L, S>
where
    L: Speak<Io, S>,
    S: Clone,
{
    type Response = ConnReport;
    type Error = Error;
    type Future = Connecting;

    /// Fails, for good, when the [`Limits`](crate::Limits) can't work. The request service's own readiness is asked for each
    /// request, when its head is there.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(self.layer.is_right())
    }

    fn call(&mut self, conn: Conn<Io>) -> Self::Future {
        let connection = self.layer.speak(conn, self.service.clone());
        connection.unwrap_or_else(|error| Box::pin(ready(Err(error))))
    }
}

/// A layer for services that aren't `Send`, nor their futures and bodies, where a connection stays on its thread:
/// [`Server::serve_per_core`](crate::Server::serve_per_core) and [`serve_local`](crate::Server::serve_local).
/// [`Http::local`](crate::Http::local) makes it, and the method of that name of every other layer of protocols.
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
#[derive(Debug, Clone)]
#[must_use]
pub struct Local<L> {
    pub(crate) layer: L,
}

impl<L: Clone, S> Layer<S> for Local<L> {
    type Service = LocalConnections<L, S>;

    fn layer(&self, service: S) -> Self::Service {
        LocalConnections {
            layer: self.layer.clone(),
            service,
        }
    }
}

/// The connection service that [`Local`] makes of a request service.
#[derive(Debug, Clone)]
pub struct LocalConnections<L, S> {
    layer: L,
    service: S,
}

impl<Io, L, S> Service<Conn<Io>> for LocalConnections<L, S>
where
    L: SpeakLocal<Io, S>,
    S: Clone,
{
    type Response = ConnReport;
    type Error = Error;
    type Future = ConnectingHere;

    /// Fails, for good, when the [`Limits`](crate::Limits) can't work.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(self.layer.is_right())
    }

    fn call(&mut self, conn: Conn<Io>) -> Self::Future {
        let connection = self.layer.speak_local(conn, self.service.clone());
        connection.unwrap_or_else(|error| Box::pin(ready(Err(error))))
    }
}

/// A layer for a service made anew for each connection. [`Http::per_connection`](crate::Http::per_connection) makes it, and
/// the method of that name of every other layer of protocols.
///
/// ```
/// use std::net::SocketAddr;
/// use wharf::{ConnInfo, Http};
///
/// let peer = |info: &ConnInfo| info.peer.socket().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
/// let http = Http::new().per_connection(peer);
/// // http.layer(router.into_make_service_with_connect_info::<SocketAddr>())
/// # let _ = http;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct PerConnection<L, F> {
    pub(crate) layer: L,
    pub(crate) target: F,
}

impl<L: Clone, F: Clone, Make> Layer<Make> for PerConnection<L, F> {
    type Service = MadeConnections<L, F, Make>;

    fn layer(&self, make: Make) -> Self::Service {
        MadeConnections {
            layer: self.layer.clone(),
            target: self.target.clone(),
            make,
        }
    }
}

/// The connection service that [`PerConnection`] makes of a make-service.
#[derive(Debug, Clone)]
pub struct MadeConnections<L, F, Make> {
    layer: L,
    target: F,
    make: Make,
}

impl<Io, L, F, T, Make, S> Service<Conn<Io>> for MadeConnections<L, F, Make>
where
    Io: Send + 'static,
    L: Speak<Io, S> + Clone + Send + 'static,
    F: Fn(&ConnInfo) -> T,
    Make: Service<T, Response = S, Error: Into<BoxError>, Future: Send + 'static>,
    S: 'static,
{
    type Response = ConnReport;
    type Error = Error;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.layer.is_right()?;
        self.make.poll_ready(cx).map_err(Error::service)
    }

    fn call(&mut self, conn: Conn<Io>) -> Self::Future {
        let making = self.make.call((self.target)(conn.info()));
        let layer = self.layer.clone();
        Box::pin(async move {
            let service = making.await.map_err(Error::service)?;
            let connection = layer.speak(conn, service)?;
            drop(layer);
            connection.await
        })
    }
}

pin_project_lite::pin_project! {
    /// `async { Ok(connection.await) }`, which would keep the connection twice.
    pub(crate) struct Reported<F> {
        #[pin]
        pub(crate) connection: F,
    }
}

impl<F: Future<Output = ConnReport>> Future for Reported<F> {
    type Output = Result<ConnReport, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().connection.poll(cx).map(Ok)
    }
}
