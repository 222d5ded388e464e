//! HTTP/2 (RFC 9113) between the connection plane and the request plane, with the same bodies, limits, reasons and reports as
//! HTTP/1. The `h2` crate frames; what is decided about a connection is decided here.
//!
//! [`WithHttp2`] and [`OnlyHttp2`] are the layers, `connection` is the life of one connection.

use std::fmt;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use crate::body::Body;
use crate::codec::{Codec, Strict};
use crate::conn::{Conn, ConnReport};
use crate::error::{BoxError, Error};
use crate::http1::{self, Http};
use crate::layer::layer;
use crate::limits::Limits;

mod churn;
mod connection;
mod ending;
mod frames;
mod hpack;
mod intake;
mod meter;
mod reply;
mod request;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod timer;
mod tunnel;
mod wire;

pub(crate) use connection::serve;
pub(crate) use wire::PREFACE;

impl<M> Http<M> {
    /// Speaks HTTP/2 too (with the feature `http2`): with clients that agreed to it in their TLS handshake (ALPN `h2`, which
    /// `Tls::with_http2` offers), and with those that begin with its preface without asking (prior knowledge). Set everything
    /// else before.
    ///
    /// ```
    /// use tower::ServiceBuilder;
    /// use wharf::{Body, Http};
    ///
    /// let stack = ServiceBuilder::new()
    ///     .layer(Http::new().with_http2())
    ///     .service_fn(|_: http::Request<Body>| async { Ok::<_, wharf::BoxError>(http::Response::new(Body::from("hello"))) });
    /// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
    /// ```
    pub fn with_http2(self) -> WithHttp2<M> {
        WithHttp2 { http: self }
    }

    /// Speaks HTTP/2 and nothing else, from the first byte on: behind a balancer that does so, say.
    ///
    /// ```
    /// use tower::ServiceBuilder;
    /// use wharf::{Body, Http};
    ///
    /// let stack = ServiceBuilder::new()
    ///     .layer(Http::new().only_http2())
    ///     .service_fn(|_: http::Request<Body>| async { Ok::<_, wharf::BoxError>(http::Response::new(Body::from("hello"))) });
    /// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
    /// ```
    pub fn only_http2(self) -> OnlyHttp2<M> {
        OnlyHttp2 { http: self }
    }
}

/// HTTP/1 and HTTP/2 on the same port; [`Http::with_http2`] makes it.
///
/// - What TLS agreed upon (ALPN) is spoken; without that, a connection that begins with the preface of HTTP/2 is one
///   (RFC 9113 section 3.3). A client that says nothing is closed as in HTTP/1, by
///   [`head_timeout`](Limits::head_timeout).
/// - A request's `Uri` holds scheme and authority; [`authority`](crate::authority) finds the latter in any request.
/// - `Connection: close` in a response tells the client to go (`GOAWAY`), as do [`max_age`](Limits::max_age), a shutdown and
///   an operator: streams that are on their way are still served. `Keep-Alive: timeout=N` sets for how long the connection may
///   be without a stream. Neither field is sent.
/// - A response that can't be finished ends with `RST_STREAM`, and no other stream is touched by it. A panic costs its
///   stream.
/// - `CONNECT`, with a [`Protocol`](crate::upgrade::Protocol) or without, leaves HTTP as in HTTP/1: [`upgrade::on`](crate::upgrade::on).
/// - Nothing is pushed.
/// - Streams are handled concurrently; [`concurrent_pipelining`](Http::concurrent_pipelining) is about HTTP/1 and can't be
///   combined with this.
///
/// What can't be otherwise as long as h2 frames: a request whose fields exceed
/// [`http2_header_list_bytes`](Limits::http2_header_list_bytes) is answered by h2 itself, with a 431 without content, of which neither
/// `on_reject` nor `on_refused` hears. A forbidden byte in a field and a `WINDOW_UPDATE` of 0 on a stream
/// end the connection and not just the stream, as RFC 9113 section 5.4.1 allows.
#[derive(Debug, Clone)]
#[must_use]
pub struct WithHttp2<M = fn(&Limits) -> Strict> {
    http: Http<M>,
}

impl<M> WithHttp2<M> {
    /// Serves one connection over any stream, to its end; see [`Http::connection`].
    ///
    /// # Errors
    ///
    /// When the [`Limits`] can't work.
    pub fn connection<Io, S, B, C>(
        &self,
        conn: Conn<Io>,
        service: S,
    ) -> Result<impl Future<Output = ConnReport> + use<Io, S, B, C, M>, Error>
    where
        M: Fn(&Limits) -> C,
        C: Codec,
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        self.check()?;
        let codec = self.http.new_codec();
        Ok(http1::auto::serve(
            conn,
            codec,
            service,
            self.http.settings(),
        ))
    }

    fn check(&self) -> Result<(), Error> {
        self.http.check()
    }
}

layer!(WithHttp2);

/// HTTP/2 alone; [`Http::only_http2`] makes it. See [`WithHttp2`] for how it is spoken.
#[derive(Clone)]
#[must_use]
pub struct OnlyHttp2<M = fn(&Limits) -> Strict> {
    http: Http<M>,
}

impl<M> fmt::Debug for OnlyHttp2<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnlyHttp2").field(&self.http).finish()
    }
}

impl<M> OnlyHttp2<M> {
    /// Serves one connection over any stream, to its end; see [`Http::connection`].
    ///
    /// # Errors
    ///
    /// When the [`Limits`] can't work.
    pub fn connection<Io, S, B>(
        &self,
        conn: Conn<Io>,
        service: S,
    ) -> Result<impl Future<Output = ConnReport> + use<Io, S, B, M>, Error>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        self.check()?;
        let (io, live) = conn.seal();
        let settings = self.http.settings();
        Ok(serve(io, bytes::Bytes::new(), live, service, settings))
    }

    fn check(&self) -> Result<(), Error> {
        self.http.check()
    }
}

layer!(OnlyHttp2);
