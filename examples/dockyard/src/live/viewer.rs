//! A page that watches: what was before it came, then the frames. It stays while the server drains, to show that, and is
//! gone when nobody but viewers is left to wait for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use wharf::Phase;
use wharf_middleware::sse::Subscription;

use super::Shared;

/// The events of one viewer.
pub(super) struct Viewer {
    shared: Arc<Shared>,
    hello: Option<Bytes>,
    frames: Pin<Box<Subscription>>,
}

impl Viewer {
    pub(super) fn new(shared: Arc<Shared>, hello: Bytes) -> Self {
        shared.viewers.fetch_add(1, Relaxed);
        let frames = Box::pin(shared.frames.subscribe(None));
        let hello = Some(hello);
        Self {
            shared,
            hello,
            frames,
        }
    }

    /// The drain waits for nobody but those who look at it.
    fn is_last(&self) -> bool {
        let handle = &self.shared.watched.handle;
        handle.phase() >= Phase::Draining && handle.open() <= self.shared.viewers.load(Relaxed)
    }
}

impl Stream for Viewer {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(Ok(hello)));
        }
        if self.is_last() {
            return Poll::Ready(None);
        }
        let frame = ready!(self.frames.as_mut().poll_next(cx));
        Poll::Ready(frame)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.shared.viewers.fetch_sub(1, Relaxed);
    }
}
