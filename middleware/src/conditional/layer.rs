//! The layer: it keeps a request's conditions and holds the response against them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Validators, evaluate};
use crate::maybe::MaybeBody;

/// Makes each full response to GET and HEAD conditional. See [the module](super).
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditional;

impl<S> Layer<S> for Conditional {
    type Service = WithConditions<S>;

    fn layer(&self, inner: S) -> WithConditions<S> {
        WithConditions { inner }
    }
}

/// The service that [`Conditional`] makes.
#[derive(Debug, Clone)]
pub struct WithConditions<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for WithConditions<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<MaybeBody<R>>;
    type Error = S::Error;
    type Future = ConditionalFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let conditions = Conditions::of(&request);
        ConditionalFuture {
            call: self.inner.call(request),
            conditions,
        }
    }
}

/// What is kept of a request while it is handled.
#[derive(Debug)]
struct Conditions {
    method: Method,
    fields: HeaderMap,
}

impl Conditions {
    /// Those of a request that reads; `None` without any.
    fn of<B>(request: &Request<B>) -> Option<Self> {
        const CONDITIONS: [HeaderName; 4] = [
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
        ];
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return None;
        }
        let mut fields = HeaderMap::new();
        for name in &CONDITIONS {
            for value in request.headers().get_all(name) {
                fields.append(name, value.clone());
            }
        }
        (!fields.is_empty()).then(|| Self {
            method: request.method().clone(),
            fields,
        })
    }
}

pin_project! {
    /// The future of [`WithConditions`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct ConditionalFuture<F> {
        #[pin]
        call: F,
        conditions: Option<Conditions>,
    }
}

impl<F, R, E> Future for ConditionalFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<MaybeBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.call.poll(cx))?;
        // RFC 9110 section 13.2.1: conditions matter only where the request would have succeeded.
        let Some(conditions) = this
            .conditions
            .take()
            .filter(|_| response.status().is_success())
        else {
            return Poll::Ready(Ok(response.map(MaybeBody::some)));
        };
        let (mut head, body) = response.into_parts();
        let current = Validators::of(&head.headers);
        let decision = evaluate(&conditions.method, &conditions.fields, Some(&current));
        let body = if decision.apply(&mut head) {
            MaybeBody::none()
        } else {
            MaybeBody::some(body)
        };
        Poll::Ready(Ok(Response::from_parts(head, body)))
    }
}
