//! A body, or none: what a layer answers with that may answer in the handler's place.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A response's body, or nothing where a layer took its place.
    #[derive(Debug)]
    pub struct MaybeBody<B> {
        #[pin]
        body: Option<B>,
    }
}

impl<B> MaybeBody<B> {
    /// This body.
    pub fn some(body: B) -> Self {
        Self { body: Some(body) }
    }

    /// No content.
    pub fn none() -> Self {
        Self { body: None }
    }
}

impl<B> Default for MaybeBody<B> {
    fn default() -> Self {
        Self::none()
    }
}

impl<B: Body> Body for MaybeBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
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
