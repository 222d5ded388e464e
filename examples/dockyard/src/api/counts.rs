//! What the API has done so far: figures for the page and for `/metrics`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Figures that only grow; a clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    hits: AtomicU64,
    misses: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// The figures at one time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Blobs that were asked for and found.
    pub hits: u64,
    /// Blobs that were asked for and not there.
    pub misses: u64,
    /// Bytes of blobs that came in whole.
    pub received: u64,
    /// Bytes of blobs that went out.
    pub sent: u64,
}

impl Counts {
    /// What was counted so far.
    pub fn now(&self) -> Counted {
        Counted {
            hits: self.shared.hits.load(Relaxed),
            misses: self.shared.misses.load(Relaxed),
            received: self.shared.received.load(Relaxed),
            sent: self.shared.sent.load(Relaxed),
        }
    }

    pub(super) fn hit(&self) {
        self.shared.hits.fetch_add(1, Relaxed);
    }

    pub(super) fn missed(&self) {
        self.shared.misses.fetch_add(1, Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.shared.received.fetch_add(bytes, Relaxed);
    }

    /// Counts the bytes of a body as they go out.
    pub(super) fn sent<B>(&self, body: B) -> Sent<B> {
        let shared = self.shared.clone();
        Sent { body, shared }
    }
}

pin_project! {
    /// A body whose bytes are counted.
    pub(super) struct Sent<B> {
        #[pin]
        body: B,
        shared: Arc<Shared>,
    }
}

impl<B: Body<Data = Bytes, Error = io::Error>> Body for Sent<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(bytes) = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref())
        {
            this.shared.sent.fetch_add(bytes.len() as u64, Relaxed);
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
