//! Handlers that finish although their client is gone.
//!
//! A server drops the handler of a client that went away, which is right for almost all work: nobody waits for it. Where it isn't
//! right, because a payment half done is worse than one that nobody hears of, this layer runs the call as a task of
//! its own. The task goes on to the response's head; a body that is made while it is sent still ends with its client.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::Detach;
//!
//! async fn pay(_: Request<String>) -> Result<Response<&'static str>, Infallible> {
//!     // Two steps that belong together.
//!     Ok(Response::new("paid"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Infallible> {
//! let app = ServiceBuilder::new().layer(Detach).service(service_fn(pay));
//! let response = app.oneshot(Request::new(String::new())).await?;
//! assert_eq!(*response.body(), "paid");
//! # Ok(())
//! # }
//! ```
//!
//! Each call allocates its task. A shutdown doesn't wait for tasks whose connection is gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tower_layer::Layer;
use tower_service::Service;

/// Runs each call of the inner service as a task of its own, which a client that goes away doesn't end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Detach;

impl<S> Layer<S> for Detach {
    type Service = Detached<S>;

    fn layer(&self, inner: S) -> Detached<S> {
        Detached { inner }
    }
}

/// The service that [`Detach`] makes.
#[derive(Debug, Clone)]
pub struct Detached<S> {
    inner: S,
}

impl<S, R, T, E> Service<R> for Detached<S>
where
    S: Service<R, Response = T, Error = E, Future: Send + 'static>,
    T: Send + 'static,
    E: Send + 'static,
{
    type Response = T;
    type Error = E;
    type Future = DetachedFuture<T, E>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.inner.poll_ready(cx)
    }

    /// # Panics
    ///
    /// Outside a tokio runtime.
    fn call(&mut self, request: R) -> Self::Future {
        DetachedFuture {
            task: tokio::spawn(self.inner.call(request)),
        }
    }
}

/// Waits for a task of [`Detached`]; dropped, it leaves the task to itself.
#[derive(Debug)]
pub struct DetachedFuture<T, E> {
    task: JoinHandle<Result<T, E>>,
}

impl<T, E> Future for DetachedFuture<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.task).poll(cx) {
            Poll::Ready(Ok(answer)) => Poll::Ready(answer),
            // A panic stays this call's, wherever it happened.
            Poll::Ready(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and this call with it.
                Err(_) => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use http::{Request, Response};
    use tokio::time::{sleep, timeout};
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::mock::{Picky, honours_readiness};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_is_finished_without_its_caller() {
        let finished = Arc::new(AtomicBool::new(false));
        let finish = finished.clone();
        let slow = service_fn(move |()| {
            let finish = finish.clone();
            async move {
                sleep(2 * SECOND).await;
                finish.store(true, Ordering::Relaxed);
                Ok::<_, Infallible>(())
            }
        });
        let call = Detach.layer(slow).oneshot(());
        assert!(timeout(SECOND, call).await.is_err());
        sleep(2 * SECOND).await;
        assert!(finished.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn answers_errors_and_panics_are_the_callers() {
        let service = Detach.layer(service_fn(|n: u32| async move {
            assert!(n < 2, "as asked");
            if n == 0 { Ok(n) } else { Err(n) }
        }));
        assert_eq!(service.clone().oneshot(0).await, Ok(0));
        assert_eq!(service.clone().oneshot(1).await, Err(1));
        let panicked = tokio::spawn(service.oneshot(2)).await;
        assert!(panicked.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn the_inner_service_is_called_when_it_is_ready() {
        let inner = Picky::new(|_| std::future::ready(Ok::<_, Infallible>(Response::new(()))));
        honours_readiness(Detach.layer(inner), || Request::new(())).await;
    }
}
