//! Middleware from a function.
//!
//! Most middleware is a few lines around a call: look at the request, pass it on, look at the response. Written as a
//! [`Layer`] by hand that takes a service, a future and the care to call the instance that was made ready. [`from_fn`]
//! takes the few lines. What the function gets as `next` is the rest of the stack, ready to be called once.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{HeaderValue, Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::from_fn;
//!
//! async fn hello(_: Request<String>) -> Result<Response<&'static str>, Infallible> {
//!     Ok(Response::new("hello"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let app = ServiceBuilder::new()
//!     .layer(from_fn(|request, next| async move {
//!         let mut response = next.call(request).await?;
//!         let deny = HeaderValue::from_static("DENY");
//!         response.headers_mut().insert("x-frame-options", deny);
//!         Ok(response)
//!     }))
//!     .service(service_fn(hello));
//!
//! let response = app.oneshot(Request::new(String::new())).await?;
//! assert_eq!(response.headers()["x-frame-options"], "DENY");
//! # Ok(())
//! # }
//! ```
//!
//! A named function says what it wants of the stack: here, a response body that has a default, so that it can answer
//! without calling.
//!
//! ```
//! # use std::convert::Infallible;
//! use http::{Method, Request, Response, StatusCode};
//! # use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_service::Service;
//! use wharf_middleware::{Next, from_fn};
//!
//! async fn no_trace<S, B, R>(request: Request<B>, next: Next<S>) -> Result<Response<R>, S::Error>
//! where
//!     S: Service<Request<B>, Response = Response<R>>,
//!     R: Default,
//! {
//!     if request.method() == Method::TRACE {
//!         let mut refusal = Response::new(R::default());
//!         *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
//!         return Ok(refusal);
//!     }
//!     next.call(request).await
//! }
//! # async fn hello(_: Request<String>) -> Result<Response<&'static str>, Infallible> {
//! #     Ok(Response::new("hello"))
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! # let app = ServiceBuilder::new().layer(from_fn(no_trace)).service(service_fn(hello));
//! # let trace = Request::trace("/").body(String::new()).unwrap();
//! # assert_eq!(app.clone().oneshot(trace).await?.status(), 405);
//! # assert_eq!(app.oneshot(Request::new(String::new())).await?.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is boxed: the layer's future is the function's own. The response's body may be replaced by one of another
//! type; the request's may not, the inner service must take the body that the function takes.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// A layer that runs `function` around each call of the inner service.
///
/// `function` is called with the request and with [`Next`], the inner service; what it returns is the response.
pub fn from_fn<F, S, B, R, E, Fut>(function: F) -> FromFnLayer<F>
where
    F: FnMut(Request<B>, Next<S>) -> Fut,
    Fut: Future<Output = Result<Response<R>, E>>,
{
    FromFnLayer { function }
}

/// The layer that [`from_fn`] makes.
#[derive(Clone, Copy)]
pub struct FromFnLayer<F> {
    function: F,
}

impl<S, F: Clone> Layer<S> for FromFnLayer<F> {
    type Service = FromFn<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        FromFn {
            inner,
            function: self.function.clone(),
        }
    }
}

impl<F> fmt::Debug for FromFnLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFnLayer").finish_non_exhaustive()
    }
}

/// A service with a function around it, made by [`from_fn`].
#[derive(Clone, Copy)]
pub struct FromFn<S, F> {
    inner: S,
    function: F,
}

impl<S, F, B, R, E, Fut> Service<Request<B>> for FromFn<S, F>
where
    S: Service<Request<B>, Error = E> + Clone,
    F: FnMut(Request<B>, Next<S>) -> Fut,
    Fut: Future<Output = Result<Response<R>, E>>,
{
    type Response = Response<R>;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Fut {
        // The function gets the instance that was made ready; a clone of it may not be.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        (self.function)(request, Next { ready })
    }
}

impl<S: fmt::Debug, F> fmt::Debug for FromFn<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// The rest of the stack, ready to be called once.
///
/// Dropping it instead is how middleware answers by itself; what it reserved (a place in a concurrency limit, say) is
/// given back.
#[derive(Debug)]
pub struct Next<S> {
    ready: S,
}

impl<S> Next<S> {
    /// Calls the rest of the stack.
    pub fn call<B, R, E>(mut self, request: Request<B>) -> Call<S::Future>
    where
        S: Service<Request<B>, Response = Response<R>, Error = E>,
    {
        Call {
            call: self.ready.call(request),
        }
    }
}

pin_project! {
    /// The future of [`Next::call`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Call<F> {
        #[pin]
        call: F,
    }
}

// Not simply `F::Output`: this says that a response comes out before the compiler knows which service is called,
// and lets a closure use it without naming types.
impl<F, R, E> Future for Call<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::rc::Rc;

    use http::StatusCode;
    use tower::ServiceExt;

    use super::*;

    /// Ready at the second poll; says which of its clones was called, and fails the test if that one was not ready.
    struct Picky {
        name: u32,
        clones: Rc<Cell<u32>>,
        polled: u32,
    }

    impl Picky {
        fn new() -> Self {
            Self {
                name: 0,
                clones: Rc::new(Cell::new(0)),
                polled: 0,
            }
        }
    }

    impl Clone for Picky {
        fn clone(&self) -> Self {
            self.clones.set(self.clones.get() + 1);
            Self {
                name: self.clones.get(),
                clones: self.clones.clone(),
                polled: 0,
            }
        }
    }

    impl Service<Request<()>> for Picky {
        type Response = Response<u32>;
        type Error = Infallible;
        type Future = Ready<Result<Response<u32>, Infallible>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.polled += 1;
            if self.polled < 2 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(self.polled >= 2, "called without being ready");
            self.polled = 0;
            ready(Ok(Response::new(self.name)))
        }
    }

    #[tokio::test]
    async fn the_instance_that_was_made_ready_is_the_one_that_is_called() {
        let mut service = from_fn(|request, next| next.call(request)).layer(Picky::new());
        let mut called = Vec::new();
        for _ in 0..3 {
            let response = service.ready().await.unwrap().call(Request::new(())).await;
            called.push(*response.unwrap().body());
        }
        assert_eq!(called, [0, 1, 2], "each call leaves a fresh clone behind");
    }

    #[tokio::test]
    async fn it_is_not_ready_before_the_inner_service_is() {
        let mut service = from_fn(|request, next| next.call(request)).layer(Picky::new());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_pending());
        assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
    }

    #[tokio::test]
    async fn it_may_answer_without_calling() {
        let refuse = from_fn(|_: Request<()>, next: Next<Picky>| async move {
            drop(next);
            let mut response = Response::new(7);
            *response.status_mut() = StatusCode::FORBIDDEN;
            Ok(response)
        });
        let response = refuse.layer(Picky::new()).oneshot(Request::new(())).await;
        assert_eq!(response.unwrap().status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn it_may_answer_with_another_body() {
        let name = from_fn(|request, next: Next<Picky>| async move {
            let response = next.call(request).await?;
            Ok(response.map(|name| format!("clone {name}")))
        });
        let response = name.layer(Picky::new()).oneshot(Request::new(())).await;
        assert_eq!(response.unwrap().body(), "clone 0");
    }
}
