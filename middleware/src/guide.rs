//! How to write a layer of one's own.
//!
//! # First: does it need to be one?
//!
//! Look at tower and tower-http before you write anything: what they have runs here unchanged. Then try
//! [`from_fn`](mod@crate::from_fn): a function that gets the request and the rest of the stack is all that most middleware
//! needs to be, and nothing in it is boxed.
//!
//! ```
//! use http::{HeaderValue, Request, Response};
//! use tower_service::Service;
//! use wharf_middleware::Next;
//!
//! /// Says which instance answered.
//! async fn served_by<S, B, R>(request: Request<B>, next: Next<S>) -> Result<Response<R>, S::Error>
//! where
//!     S: Service<Request<B>, Response = Response<R>>,
//! {
//!     let mut response = next.call(request).await?;
//!     response.headers_mut().insert("x-served-by", HeaderValue::from_static("pod-7"));
//!     Ok(response)
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), std::convert::Infallible> {
//! # let inner = tower::service_fn(|_: Request<()>| std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(()))));
//! # let stack = tower::ServiceBuilder::new().layer(wharf_middleware::from_fn(served_by)).service(inner);
//! # let response = tower::ServiceExt::oneshot(stack, Request::new(())).await?;
//! # assert_eq!(response.headers()["x-served-by"], "pod-7");
//! # Ok(())
//! # }
//! ```
//!
//! By hand it is written where that doesn't reach: where the inner service must not have to be `Clone`, where something is
//! decided in `poll_ready`, where the future or the body needs a name, or where a layer is published for others.
//!
//! # The parts
//!
//! Three types. A *layer* holds the settings and makes services. A *service* wraps the inner one and is called once a
//! request. A *future* carries what has to be remembered until the response. Here all three count the requests under way.
//!
//! ```
//! use std::pin::Pin;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
//! use std::task::{Context, Poll};
//!
//! use http::{Request, Response};
//! use pin_project_lite::pin_project;
//! use tower_layer::Layer;
//! use tower_service::Service;
//!
//! /// The layer. What all its services share is behind an `Arc`: on wharf each connection has a clone of the service.
//! #[derive(Debug, Clone, Default)]
//! pub struct InFlight {
//!     count: Arc<AtomicUsize>,
//! }
//!
//! impl InFlight {
//!     pub fn now(&self) -> usize {
//!         self.count.load(Relaxed)
//!     }
//! }
//!
//! impl<S> Layer<S> for InFlight {
//!     type Service = Counted<S>;
//!
//!     fn layer(&self, inner: S) -> Counted<S> {
//!         Counted { inner, count: self.count.clone() }
//!     }
//! }
//!
//! /// The service. No bounds here: they belong to the `impl` that needs them.
//! #[derive(Debug, Clone)]
//! pub struct Counted<S> {
//!     inner: S,
//!     count: Arc<AtomicUsize>,
//! }
//!
//! // Generic over both bodies, `B` and `R`: so it runs on wharf, under hyper and under axum.
//! impl<S, B, R> Service<Request<B>> for Counted<S>
//! where
//!     S: Service<Request<B>, Response = Response<R>>,
//! {
//!     type Response = Response<R>;
//!     type Error = S::Error;
//!     type Future = CountedFuture<S::Future>;
//!
//!     // Back-pressure is passed on: whoever calls waits, and on wharf so does the socket.
//!     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
//!         self.inner.poll_ready(cx)
//!     }
//!
//!     fn call(&mut self, request: Request<B>) -> Self::Future {
//!         self.count.fetch_add(1, Relaxed);
//!         let _one = One(self.count.clone());
//!         CountedFuture { call: self.inner.call(request), _one }
//!     }
//! }
//!
//! pin_project! {
//!     /// The future. The inner one is pinned in place; what is named with `#[pin]` is polled, the rest is plain data.
//!     pub struct CountedFuture<F> {
//!         #[pin]
//!         call: F,
//!         _one: One,
//!     }
//! }
//!
//! impl<F: Future> Future for CountedFuture<F> {
//!     type Output = F::Output;
//!
//!     fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
//!         self.project().call.poll(cx)
//!     }
//! }
//!
//! /// Given back when it is dropped: after the response, after an error, after a panic, and when the client goes away.
//! #[derive(Debug)]
//! struct One(Arc<AtomicUsize>);
//!
//! impl Drop for One {
//!     fn drop(&mut self) {
//!         self.0.fetch_sub(1, Relaxed);
//!     }
//! }
//! # let layer = InFlight::default();
//! # let mut service = layer.layer(tower::service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(())) }));
//! # let call = service.call(Request::new(()));
//! # assert_eq!(layer.now(), 1);
//! # drop(call);
//! # assert_eq!(layer.now(), 0);
//! ```
//!
//! The last type is the one that is most often forgotten. A client that goes away has its future dropped wherever it stands;
//! code behind an `.await` is then never run, a `Drop` always is.
//!
//! # `poll_ready`, and the clone that wasn't ready
//!
//! `poll_ready` reserves something for the next `call` of *this instance*: a place in a concurrency limit, a connection.
//! A clone has reserved nothing. So this, which looks natural wherever a future needs the service, is a mistake, and one
//! that shows only with layers that have something to reserve (`ConcurrencyLimit` panics):
//!
//! ```should_panic
//! # use std::task::{Context, Poll, Waker};
//! # use http::{Request, Response};
//! # use tower::{ServiceExt, limit::ConcurrencyLimit, service_fn};
//! # use tower_service::Service;
//! # let inner = service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(())) });
//! # let mut inner = ConcurrencyLimit::new(inner, 1);
//! # let mut cx = Context::from_waker(Waker::noop());
//! # assert!(Service::<Request<()>>::poll_ready(&mut inner, &mut cx).is_ready());
//! # let request = Request::new(());
//! let mut inner = inner.clone(); // not the one that was polled
//! let future = async move { inner.call(request).await };
//! # assert!(std::pin::pin!(future).poll(&mut cx).is_ready());
//! ```
//!
//! Best is not to need a clone: call `self.inner` at once and keep its future, as above. Where something has to be awaited
//! before the call, leave the clone behind and take the instance that is ready:
//!
//! ```
//! # use http::{Request, Response};
//! # use tower_service::Service;
//! # fn call<S: Service<Request<()>, Response = Response<()>> + Clone>(inner: &mut S, request: Request<()>) -> impl Future {
//! let clone = inner.clone();
//! let mut ready = std::mem::replace(inner, clone);
//! let future = async move { ready.call(request).await };
//! # future }
//! ```
//!
//! A layer that answers without calling (a cache, a limit) leaves a reservation behind that the next call uses. That is fine
//! as long as the instance stays; drop it, and the reservation is given back.
//!
//! # Bodies
//!
//! The response's future ends with the head. To see or change what follows, wrap the body: a type with the inner one pinned,
//! and three functions to pass on. `size_hint` and `is_end_stream` matter as much as `poll_frame`: a server makes
//! `Content-Length` of the first and stops asking after the second, so a body that changes its length must not pass them on.
//!
//! ```
//! # use std::pin::Pin;
//! # use std::task::{Context, Poll, ready};
//! use bytes::Buf;
//! use http_body::{Body, Frame, SizeHint};
//! # use pin_project_lite::pin_project;
//!
//! pin_project! {
//!     /// Counts what passes; says so when it is dropped, at its end or before.
//!     pub struct CountedBody<B> {
//!         #[pin]
//!         body: B,
//!         tally: Tally,
//!     }
//! }
//!
//! impl<B: Body> Body for CountedBody<B> {
//!     type Data = B::Data;
//!     type Error = B::Error;
//!
//!     fn poll_frame(
//!         self: Pin<&mut Self>,
//!         cx: &mut Context<'_>,
//!     ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
//!         let this = self.project();
//!         let frame = ready!(this.body.poll_frame(cx));
//!         // A frame may be trailers; errors and the end pass as they are.
//!         if let Some(Ok(frame)) = &frame && let Some(data) = frame.data_ref() {
//!             this.tally.bytes += data.remaining() as u64;
//!         }
//!         Poll::Ready(frame)
//!     }
//!
//!     fn is_end_stream(&self) -> bool {
//!         self.body.is_end_stream()
//!     }
//!
//!     fn size_hint(&self) -> SizeHint {
//!         self.body.size_hint()
//!     }
//! }
//!
//! pub struct Tally {
//!     bytes: u64,
//! }
//!
//! impl Drop for Tally {
//!     fn drop(&mut self) {
//!         println!("{} bytes", self.bytes);
//!     }
//! }
//! # let mut body = CountedBody { body: http_body_util::Full::new(bytes::Bytes::from("hello")), tally: Tally { bytes: 0 } };
//! # assert_eq!(body.size_hint().exact(), Some(5));
//! # let frame = Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
//! # assert!(frame.is_ready());
//! # assert_eq!(body.tally.bytes, 5);
//! ```
//!
//! - A server need not ask for the end: what is at its declared length is over, and the answer to `HEAD` is never asked at
//!   all. Only `Drop` is certain to come.
//! - To cut a response, return an error. `None` would make it look complete.
//! - A layer that answers by itself needs a body of the inner type. `R: Default` is the easy bound, and most bodies have it;
//!   a body of your own that holds an `Option` of the inner one (as [`TimeoutBody`](crate::timeout::TimeoutBody) does) needs none.
//! - Derive or write `Default` for the body if the inner one has it: several tower-http layers ask for it.
//! - To replace a *request's* body, the inner service must take the new type. On wharf the facts of the connection ride in the
//!   body, so code further in then needs [`wharf::ConnInfoLayer`] further out.
//!
//! # Errors
//!
//! Pass the inner service's error on as it is, and answer with a response of your own where you can: then no bound on
//! the error is needed, and a stack whose error is `Infallible` (axum's) stays one. Where a layer must fail, its error type
//! is [`BoxError`](crate::BoxError) with `S::Error: Into<BoxError>`, and the error it returns is a type of its own, so that
//! others can look for it; wharf answers it with 500 unless `Http::on_error` says otherwise.
//!
//! # What the request brings along
//!
//! Facts of the connection: [`ConnInfo::find`](wharf::ConnInfo::find), for any type of body that is `'static`; `None` on
//! other servers. The client's address: [`ClientAddress::of`](crate::ClientAddress::of). How long there is left:
//! [`Deadline::of`](crate::Deadline::of). An extension of your own costs an allocation, and a request's first one three.
//!
//! # Tests
//!
//! A layer is tested against a service that the test holds in its hand. tower-test has one; what is wanted of it fits into a
//! few lines too. It must insist on `poll_ready`, and its clones must start unready, or the test can't see the mistake above.
//!
//! ```
//! use std::convert::Infallible;
//! use std::future::{Ready, ready};
//! use std::task::{Context, Poll};
//!
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_service::Service;
//!
//! #[derive(Default)]
//! struct Picky {
//!     ready: bool,
//! }
//!
//! impl Clone for Picky {
//!     fn clone(&self) -> Self {
//!         Self::default()
//!     }
//! }
//!
//! impl Service<Request<()>> for Picky {
//!     type Response = Response<()>;
//!     type Error = Infallible;
//!     type Future = Ready<Result<Response<()>, Infallible>>;
//!
//!     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
//!         if std::mem::replace(&mut self.ready, true) {
//!             return Poll::Ready(Ok(()));
//!         }
//!         cx.waker().wake_by_ref();
//!         Poll::Pending
//!     }
//!
//!     fn call(&mut self, _: Request<()>) -> Self::Future {
//!         assert!(std::mem::take(&mut self.ready), "called without being ready");
//!         ready(Ok(Response::new(())))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let layer = wharf_middleware::from_fn(|request, next| async move { next.call(request).await });
//! let mut service = ServiceBuilder::new().layer(layer).service(Picky::default());
//! for _ in 0..3 {
//!     service.ready().await?.call(Request::new(())).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - Time is tokio's: `#[tokio::test(start_paused = true)]` makes a test of a time-out take no time and be exact.
//! - Drop the future half-way, and the body half-way, and look at what is left.
//! - Give the body an error, trailers, and a length that isn't known.
//! - What costs nothing without a layer should cost little with it: this crate's `tests/allocations.rs` counts.
