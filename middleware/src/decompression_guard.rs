//! A bound on what a compressed request may become.
//!
//! Ten megabytes of gzip can be ten gigabytes of zeros. A limit below the decompression never sees them and one above
//! it can't tell a bomb from an upload; [`DecompressionGuard`] is wrapped *around* the decompression, counts on both
//! sides, and so can't be put in the wrong place. tower-http's layer does the work, unchanged:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_http::decompression::{DecompressionBody, RequestDecompressionLayer};
//! use wharf_middleware::decompression_guard::{CompressedBody, DecompressedBody};
//! use wharf_middleware::{BoxError, DecompressionGuard};
//!
//! type Body = DecompressedBody<DecompressionBody<CompressedBody<Full<Bytes>>>>;
//!
//! async fn count(request: Request<Body>) -> Result<Response<String>, BoxError> {
//!     let bytes = request.into_body().collect().await?.to_bytes();
//!     Ok(Response::new(format!("{} bytes", bytes.len())))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let app = ServiceBuilder::new()
//!     .layer(DecompressionGuard::around(RequestDecompressionLayer::new()))
//!     .service(service_fn(count));
//!
//! # let gzip = |bytes: &[u8]| {
//! #     use std::io::Write;
//! #     let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
//! #     gzip.write_all(bytes).and_then(|()| gzip.finish()).map(Bytes::from)
//! # };
//! let zeros = gzip(&vec![0; 1 << 20])?; // about a thousand bytes
//! let bomb = Request::post("/").header("content-encoding", "gzip").body(Full::new(zeros))?;
//! assert_eq!(app.oneshot(bomb).await?.status(), 413);
//! # Ok(())
//! # }
//! ```
//!
//! What a body may become is the smaller of [`max_bytes`](DecompressionGuard::max_bytes) (8 MiB) and
//! [`max_ratio`](DecompressionGuard::max_ratio) (100) times what has come of it, of which the first 64 KiB are free: a
//! short text may well be all spaces. It is looked at before each frame is passed on. The frame that would go beyond it
//! is an error instead, [`TooLarge`], the decompressor is dropped, and the request is answered with a 413 (RFC 9110
//! section 15.5.14), whatever the handler makes of the error; only a 413 of its own words is left as it is. A response
//! that had begun goes on; how it ends is the handler's business.
//!
//! - Only requests with a `Content-Encoding` are looked at, and of those the ones that have none further in: what is
//!   passed on as it came isn't decompressed, so the limits of the server hold for it. A decompression that leaves the
//!   field there (tower-http's removes it) isn't guarded.
//! - How many compressed bytes may come, and how fast, is the server's business, as with any body.
//!
//! Cost: nothing for a request without `Content-Encoding`; with it, one count on the heap and an extension.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::{Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use wharf::{Reason, Reject};

use crate::BoxError;
use crate::maybe::MaybeBody;

#[cfg(test)]
mod tests;

/// So much is free of the ratio.
const FREE: u64 = 64 * 1024;

/// The layer: a decompression, and what it may make of a request's body. See [the module](self).
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct DecompressionGuard<L> {
    decompression: L,
    bounds: Bounds,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    bytes: u64,
    ratio: u64,
}

impl Bounds {
    /// What so many compressed bytes may have become.
    fn allow(self, compressed: u64) -> u64 {
        let by_ratio = compressed.saturating_mul(self.ratio).max(FREE);
        self.bytes.min(by_ratio)
    }
}

impl<L> DecompressionGuard<L> {
    /// Guards what this layer makes of request bodies: at most 8 MiB, and at most a hundred times what has come once that is
    /// more than 64 KiB.
    pub fn around(decompression: L) -> Self {
        let bounds = Bounds {
            bytes: 8 << 20,
            ratio: 100,
        };
        Self {
            decompression,
            bounds,
        }
    }

    /// At most so many bytes come out. Default 8 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.bytes = bytes;
        self
    }

    /// At most so many times what has come in, once it is more than 64 KiB. Default 100.
    ///
    /// Text seldom gets beyond 20, logs and tables beyond 50.
    pub fn max_ratio(mut self, ratio: u64) -> Self {
        self.bounds.ratio = ratio;
        self
    }
}

impl<S, L> Layer<S> for DecompressionGuard<L>
where
    L: Layer<Inside<S>>,
{
    type Service = Guarded<L::Service>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded {
            inner: self.decompression.layer(Inside { inner }),
            bounds: self.bounds,
        }
    }
}

/// One request's body on both sides of its decompression.
#[derive(Debug)]
struct Account {
    bounds: Bounds,
    compressed: AtomicU64,
    exceeded: AtomicBool,
}

/// The account's way through the decompression.
#[derive(Debug, Clone)]
struct Passport(Arc<Account>);

/// The service that [`DecompressionGuard`] makes: outside of the decompression.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
    bounds: Bounds,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<CompressedBody<B>>, Response = Response<R>>,
{
    type Response = Response<MaybeBody<R>>;
    type Error = S::Error;
    type Future = GuardedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let is_compressed = request.headers().contains_key(header::CONTENT_ENCODING);
        let account = is_compressed.then(|| {
            Arc::new(Account {
                bounds: self.bounds,
                compressed: AtomicU64::new(0),
                exceeded: AtomicBool::new(false),
            })
        });
        if let Some(account) = &account {
            request.extensions_mut().insert(Passport(account.clone()));
        }
        let counter = account.clone();
        GuardedFuture {
            call: self.inner.call(request.map(|body| CompressedBody {
                body,
                account: counter,
            })),
            account,
        }
    }
}

pin_project! {
    /// The future of [`Guarded`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct GuardedFuture<F> {
        #[pin]
        call: F,
        account: Option<Arc<Account>>,
    }
}

impl<F, R, E> Future for GuardedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<MaybeBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.call.poll(cx));
        let account = this.account.as_ref();
        if !account.is_some_and(|account| account.exceeded.load(Relaxed)) {
            return Poll::Ready(answer.map(|response| response.map(MaybeBody::some)));
        }
        match answer {
            Ok(own) if own.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Poll::Ready(Ok(own.map(MaybeBody::some)))
            }
            _ => {
                let mut refusal = Response::new(MaybeBody::none());
                *refusal.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                Poll::Ready(Ok(refusal))
            }
        }
    }
}

pin_project! {
    /// A request's body below its decompression, counted.
    #[derive(Debug)]
    pub struct CompressedBody<B> {
        #[pin]
        body: B,
        account: Option<Arc<Account>>,
    }
}

impl<B: Body> Body for CompressedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let (Some(account), Some(Ok(frame))) = (this.account, &frame) {
            account.compressed.fetch_add(length(frame), Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The handler's side of a [`DecompressionGuard`]: inside of the decompression.
#[derive(Debug, Clone)]
pub struct Inside<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Inside<S>
where
    S: Service<Request<DecompressedBody<B>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let passport = request.extensions_mut().remove::<Passport>();
        // Still encoded: it was passed on as it came.
        let passed_on = request.headers().contains_key(header::CONTENT_ENCODING);
        let account = passport.filter(|_| !passed_on).map(|passport| passport.0);
        self.inner.call(request.map(|body| DecompressedBody {
            body: Some(body),
            account,
            decompressed: 0,
        }))
    }
}

pin_project! {
    /// A request's body above its decompression, held against the bounds. It ends with [`TooLarge`] as its error where
    /// it would go beyond them.
    #[derive(Debug)]
    pub struct DecompressedBody<B> {
        // None once it was too large: the decompressor's memory is given back at once.
        #[pin]
        body: Option<B>,
        account: Option<Arc<Account>>,
        decompressed: u64,
    }
}

impl<B> Body for DecompressedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(body.poll_frame(cx)).map(|frame| frame.map_err(Into::into));
        if let (Some(account), Some(Ok(frame))) = (this.account, &frame) {
            *this.decompressed += length(frame);
            let compressed = account.compressed.load(Relaxed);
            let allowed = account.bounds.allow(compressed);
            if *this.decompressed > allowed {
                account.exceeded.store(true, Relaxed);
                this.body.set(None);
                let error = TooLarge {
                    allowed,
                    compressed,
                    reject: Reject::new(Reason::BodyTooLarge),
                };
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

fn length<D: Buf>(frame: &Frame<D>) -> u64 {
    frame.data_ref().map_or(0, |data| data.remaining() as u64)
}

/// A request's body decompresses to more than it may: what a handler gets that reads on.
///
/// Its source is a [`wharf::Reject`], so that wharf answers a handler's error that has this one in its chain with 413.
#[derive(Debug)]
pub struct TooLarge {
    allowed: u64,
    compressed: u64,
    reject: Reject,
}

impl TooLarge {
    /// How many bytes it may have become, by what had come of it.
    pub fn allowed(&self) -> u64 {
        self.allowed
    }

    /// How many compressed bytes had come.
    pub fn compressed(&self) -> u64 {
        self.compressed
    }

    /// What it is answered with: 413.
    pub fn status(&self) -> StatusCode {
        self.reject.status()
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            allowed,
            compressed,
            ..
        } = self;
        write!(
            f,
            "the body must not decompress to more than {allowed} bytes, {compressed} of it having come"
        )
    }
}

impl StdError for TooLarge {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.reject)
    }
}
