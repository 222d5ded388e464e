//! A client in memory: the same reads again and again, each pending once before it comes; writes are counted.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream of a client that sends the same again and again.
#[derive(Debug)]
pub struct Canned {
    reads: Vec<Vec<u8>>,
    next: usize,
    at: usize,
    rest: bool,
    rounds: u64,
    stays: bool,
    writes: Arc<AtomicU64>,
}

impl Canned {
    /// A client that sends `reads`, `rounds` times, and then ends.
    pub fn new(reads: Vec<Vec<u8>>, rounds: u64) -> Self {
        Self {
            reads,
            next: 0,
            at: 0,
            rest: false,
            rounds,
            stays: false,
            writes: Arc::default(),
        }
    }

    /// The same, but it doesn't end.
    #[must_use]
    pub fn and_stays(mut self) -> Self {
        self.stays = true;
        self
    }

    /// How often was written to it.
    pub fn writes(&self) -> Arc<AtomicU64> {
        self.writes.clone()
    }

    fn poll_next(&mut self, room: usize) -> Poll<&[u8]> {
        if std::mem::replace(&mut self.rest, false) {
            return Poll::Pending;
        }
        if self.rounds == 0 {
            return if self.stays {
                Poll::Pending
            } else {
                Poll::Ready(&[])
            };
        }
        let (read, from) = (self.next, self.at);
        let to = self.reads[read].len().min(from + room);
        self.at = to;
        if to == self.reads[read].len() {
            (self.at, self.rest) = (0, true);
            self.next = (read + 1) % self.reads.len();
            self.rounds -= u64::from(self.next == 0);
        }
        Poll::Ready(&self.reads[read][from..to])
    }
}

impl AsyncRead for Canned {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_next(buf.remaining()).map(|bytes| {
            buf.put_slice(bytes);
            Ok(())
        })
    }
}

impl AsyncWrite for Canned {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Relaxed);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.writes.fetch_add(1, Relaxed);
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The same stream under hyper's traits.
#[derive(Debug)]
pub(crate) struct Compat(pub(crate) Canned);

impl hyper::rt::Read for Compat {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_next(buf.remaining()).map(|bytes| {
            buf.put_slice(bytes);
            Ok(())
        })
    }
}

impl hyper::rt::Write for Compat {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
