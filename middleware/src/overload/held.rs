//! The response body that may hold a place until it has ended.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::Place;

pin_project! {
    /// The body of a response that came through [`Overload`]: the inner service's, or empty for a refusal. It may hold
    /// the request's place.
    #[derive(Debug)]
    pub struct Held<B> {
        #[pin]
        body: Option<B>,
        place: Option<Place>,
    }
}

impl<B> Held<B> {
    pub(super) fn new(body: B, place: Option<Place>) -> Self {
        Self {
            body: Some(body),
            place,
        }
    }
}

impl<B> Default for Held<B> {
    fn default() -> Self {
        Self {
            body: None,
            place: None,
        }
    }
}

impl<B: Body> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(mut body) = this.body.as_pin_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            *this.place = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
