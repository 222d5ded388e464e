//! HTTP/1.1 and 1.0 as a layer: below it are connections, above it requests.
//!
//! [`Http`] is the [`tower_layer::Layer`] and the settings, `connection` the life of one connection from top to bottom.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use crate::body::Body;
use crate::codec::{Codec, Strict};
use crate::conn::{Conn, ConnReport, Live};
use crate::error::{BoxError, Error, Reject};
use crate::layer::layer;
use crate::limits::Limits;
use crate::service::{Failed, catch, failure, internal, refusal};

#[cfg(feature = "http2")]
pub(crate) mod auto;
mod connection;
mod deadline;
mod end;
mod exchange;
mod intake;
mod pipeline;
mod refused;
mod sending;
mod wire;

use wire::Wire;

pub use pipeline::ConcurrentPipelining;
pub use refused::Refused;

/// HTTP/1 between the connection plane and the request plane.
///
/// As a layer it turns a service of requests into a service of connections, whose future is a connection's life.
/// Each connection calls its own clone of the service.
///
/// ```
/// use tower::ServiceBuilder;
/// use wharf::{Body, Http, Limits};
///
/// let stack = ServiceBuilder::new()
///     .concurrency_limit(10_000) // connections: the next one waits unaccepted
///     .layer(Http::new().limits(Limits { header_fields: 64, ..Limits::default() }))
///     .concurrency_limit(512) // requests
///     .service_fn(|_: http::Request<Body>| async { Ok::<_, wharf::BoxError>(http::Response::new(Body::from("hello"))) });
/// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
/// ```
#[derive(Clone)]
#[must_use]
pub struct Http<M = fn(&Limits) -> Strict> {
    settings: Arc<Settings>,
    codec: M,
}

/// What every connection of an [`Http`] shares.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    on_reject: Option<Answer<Reject>>,
    on_error: Option<Answer<BoxError>>,
    on_refused: Option<Arc<OnRefused>>,
}

type OnRefused = dyn Fn(&Refused<'_>) + Send + Sync;
type Answer<E> = Arc<dyn Fn(&E) -> Response<Bytes> + Send + Sync>;

impl Http {
    /// The default codec, the default limits, and error responses in plain text.
    pub fn new() -> Self {
        Self {
            settings: Arc::default(),
            codec: Strict::new,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Http<M> {
    /// Other bounds and deadlines. What can't work is an error of the server's start, not a panic here.
    pub fn limits(mut self, limits: Limits) -> Self {
        Arc::make_mut(&mut self.settings).limits = limits;
        self
    }

    /// Another codec, made anew for each connection, in the place of [`Strict`].
    ///
    /// ```
    /// use wharf::{Http, codec::Httparse};
    ///
    /// let http = Http::new().codec(Httparse::new);
    /// # let _ = http;
    /// ```
    pub fn codec<N, C>(self, codec: N) -> Http<N>
    where
        N: Fn(&Limits) -> C,
        C: Codec,
    {
        Http {
            settings: self.settings,
            codec,
        }
    }

    /// Your own words for a request that is refused before any handler sees it. The container adds
    /// `connection: close` and the framing; status and fields are yours.
    ///
    /// ```
    /// use http::Response;
    /// use wharf::{Http, Reject};
    ///
    /// let http = Http::new().on_reject(|reject: &Reject| {
    ///     let body = format!(r#"{{"error":"{}"}}"#, reject.explain());
    ///     let response = Response::builder().status(reject.status()).header("content-type", "application/json");
    ///     response.body(body).unwrap_or_default()
    /// });
    /// # let _ = http;
    /// ```
    pub fn on_reject<F, T>(mut self, answer: F) -> Self
    where
        F: Fn(&Reject) -> Response<T> + Send + Sync + 'static,
        T: Into<Bytes>,
    {
        Arc::make_mut(&mut self.settings).on_reject =
            Some(Arc::new(move |reject| answer(reject).map(Into::into)));
        self
    }

    /// Calls `tell` with each request that is refused before any handler sees it, as its answer is sent: for the access
    /// log, which no such request would reach.
    ///
    /// It runs in the task of the connection and must not block.
    ///
    /// ```
    /// use wharf::{Http, Refused};
    ///
    /// let http = Http::new().on_refused(|refused: &Refused| {
    ///     eprintln!("{} {} {}", refused.info().peer, refused.status(), refused.reject());
    /// });
    /// # let _ = http;
    /// ```
    pub fn on_refused(mut self, tell: impl Fn(&Refused<'_>) + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.settings).on_refused = Some(Arc::new(tell));
        self
    }

    /// Your own answer to an error that a service returned. By default tower's `Overloaded` and `Elapsed` are
    /// 503, a request body's [`Reject`] has its own status, and anything else is 500.
    pub fn on_error<F, T>(mut self, answer: F) -> Self
    where
        F: Fn(&BoxError) -> Response<T> + Send + Sync + 'static,
        T: Into<Bytes>,
    {
        Arc::make_mut(&mut self.settings).on_error =
            Some(Arc::new(move |error| answer(error).map(Into::into)));
        self
    }

    /// Handles up to `most` pipelined requests of a connection at the same time; see [`ConcurrentPipelining`].
    ///
    /// ```
    /// use tower::ServiceBuilder;
    /// use wharf::{Body, Http};
    ///
    /// let stack = ServiceBuilder::new()
    ///     .layer(Http::new().concurrent_pipelining(8))
    ///     .service_fn(|_: http::Request<Body>| async { Ok::<_, wharf::BoxError>(http::Response::new(Body::from("hello"))) });
    /// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
    /// ```
    pub fn concurrent_pipelining(self, most: usize) -> ConcurrentPipelining<M> {
        ConcurrentPipelining { http: self, most }
    }

    /// Serves one connection over any stream, to its end: for tests, benchmarks and embedding.
    ///
    /// Dropping the future drops the connection and whatever handler runs on it.
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
        let codec = (self.codec)(&self.settings.limits);
        Ok(connection::serve(
            conn,
            codec,
            service,
            self.settings.clone(),
        ))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.settings.limits.check()
    }
}

#[cfg(feature = "http2")]
impl<M> Http<M> {
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.clone()
    }

    pub(crate) fn new_codec<C>(&self) -> C
    where
        M: Fn(&Limits) -> C,
    {
        (self.codec)(&self.settings.limits)
    }
}

impl<M> fmt::Debug for Http<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("limits", &self.settings.limits)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// The socket of a connection, ready for its life.
    fn wire<Io>(self: &Arc<Self>, conn: Conn<Io>) -> Wire<Io>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let (io, live) = conn.seal();
        let retires = live.since() + self.lifetime(live.id());
        Wire::new(io, live, retires, self.clone())
    }

    /// How long the connection with this id is kept: the limit give or take a tenth, so that connections made
    /// together don't end together.
    pub(crate) fn lifetime(&self, id: u64) -> Duration {
        let spread = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / (1u64 << 24) as f64;
        self.limits.max_age.mul_f64(0.9 + 0.2 * spread)
    }

    /// The answer to a refused request. A hook that panics is replaced by the default.
    pub(crate) fn refusal(&self, reject: &Reject) -> Response<Bytes> {
        let own = self
            .on_reject
            .as_ref()
            .map(|answer| catch(|| answer(reject)));
        own.and_then(Result::ok).unwrap_or_else(|| refusal(reject))
    }

    /// Tells of a request that was refused; `input` begins with its head. A hook that panics is not asked again for it.
    fn tell_refused(&self, live: &Live, reject: &Reject, status: StatusCode, input: &[u8]) {
        if let Some(tell) = &self.on_refused {
            let _ = catch(|| tell(&Refused::new(live, reject, status, input)));
        }
    }

    /// Tells of a request that was refused though its head could be read.
    #[cfg(feature = "http2")]
    pub(crate) fn tell_refused_request(
        &self,
        live: &Live,
        reject: &Reject,
        status: StatusCode,
        request: crate::conn::RequestLine,
    ) {
        if let Some(tell) = &self.on_refused {
            let _ = catch(|| tell(&Refused::of_request(live, reject, status, request)));
        }
    }

    /// The answer where the handler has none that can be sent.
    pub(crate) fn failure(&self, failed: Failed) -> Response<Bytes> {
        let error: BoxError = match failed {
            Failed::Panicked(_) => return internal(),
            Failed::Error(error) => error,
            Failed::Unsendable(error) => error.into(),
        };
        let own = self
            .on_error
            .as_ref()
            .map(|answer| catch(|| answer(&error)));
        own.and_then(Result::ok).unwrap_or_else(|| failure(&error))
    }
}

layer!(Http);

/// Serves one connection over any stream with the default [`Http`], to its end.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tower::service_fn;
/// use wharf::Body;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (mut client, server) = tokio::io::duplex(1024);
/// let echo = service_fn(|request: Request<Body>| async { Ok::<_, wharf::BoxError>(Response::new(request.into_body())) });
/// let connection = tokio::spawn(wharf::serve_connection(server, echo));
///
/// client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await.unwrap();
/// assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"));
/// assert_eq!(connection.await.unwrap().reason, wharf::CloseReason::ClientAsked);
/// # }
/// ```
pub fn serve_connection<Io, S, B>(io: Io, service: S) -> impl Future<Output = ConnReport>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let settings = Arc::<Settings>::default();
    connection::serve(io.into(), Strict::new(&settings.limits), service, settings)
}
