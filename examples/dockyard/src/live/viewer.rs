//! A page that watches: what was before it came, then the frames. It stays while the server drains, to show that, and is
//! gone when nobody but viewers is left to wait for. Its last word says so, since a drain may fit between two frames.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use wharf::Phase;
use wharf_middleware::sse::Subscription;

use super::{Shared, lock};

/// The server has stopped as it should: whoever hears nothing more without this has lost it.
const GOODBYE: Bytes = Bytes::from_static(b"event: stopped\ndata: stopped\n\n");

/// Who watches: how many pages on which connection. HTTP/2 carries several on one.
#[derive(Default)]
pub(super) struct Viewers {
    pages: Mutex<BTreeMap<u64, usize>>,
}

impl Viewers {
    pub(super) fn pages(&self) -> usize {
        lock(&self.pages).values().sum()
    }

    pub(super) fn connections(&self) -> usize {
        lock(&self.pages).len()
    }

    fn come(&self, connection: u64) {
        *lock(&self.pages).entry(connection).or_default() += 1;
    }

    fn leave(&self, connection: u64) {
        let mut pages = lock(&self.pages);
        let left = pages.get(&connection).map_or(0, |pages| pages - 1);
        match left {
            0 => pages.remove(&connection),
            left => pages.insert(connection, left),
        };
    }
}

/// The events of one viewer.
pub(super) struct Viewer {
    shared: Arc<Shared>,
    connection: u64,
    hello: Option<Bytes>,
    goodbye: Option<Bytes>,
    frames: Pin<Box<Subscription>>,
}

impl Viewer {
    pub(super) fn new(shared: Arc<Shared>, connection: u64, hello: Bytes) -> Self {
        shared.viewers.come(connection);
        let frames = Box::pin(shared.frames.subscribe(None));
        let hello = Some(hello);
        Self {
            shared,
            connection,
            hello,
            goodbye: Some(GOODBYE),
            frames,
        }
    }

    /// The drain waits for nobody but those who look at it.
    fn is_last(&self) -> bool {
        let handle = &self.shared.watched.handle;
        handle.phase() >= Phase::Draining && handle.open() <= self.shared.viewers.connections()
    }
}

impl Stream for Viewer {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(Ok(hello)));
        }
        let frame = match self.is_last() {
            true => None,
            false => ready!(self.frames.as_mut().poll_next(cx)),
        };
        Poll::Ready(frame.or_else(|| self.goodbye.take().map(Ok)))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.shared.viewers.leave(self.connection);
    }
}
