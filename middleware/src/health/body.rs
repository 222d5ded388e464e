//! The body of a response that came through the layer: the inner service's, or the layer's own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The inner service's body, or the answer to a probe.
    #[derive(Debug)]
    #[project = Project]
    pub struct HealthBody<B> {
        #[pin]
        content: Content<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = ContentProject]
    enum Content<B> {
        Inner { #[pin] body: B },
        Own { answer: Bytes },
    }
}

impl<B> HealthBody<B> {
    pub(super) fn inner(body: B) -> Self {
        Self {
            content: Content::Inner { body },
        }
    }

    pub(super) fn own(answer: impl Into<Bytes>) -> Self {
        let answer = answer.into();
        Self {
            content: Content::Own { answer },
        }
    }
}

impl<B> Default for HealthBody<B> {
    /// An empty one.
    fn default() -> Self {
        Self::own(Bytes::new())
    }
}

impl<B: Body<Data = Bytes>> Body for HealthBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().content.project() {
            ContentProject::Inner { body } => body.poll_frame(cx),
            ContentProject::Own { answer } => {
                let answer = std::mem::take(answer);
                Poll::Ready((!answer.is_empty()).then(|| Ok(Frame::data(answer))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Inner { body } => body.is_end_stream(),
            Content::Own { answer } => answer.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Inner { body } => body.size_hint(),
            Content::Own { answer } => SizeHint::with_exact(answer.len() as u64),
        }
    }
}
