//! Bugs of reading, writing and waking, as a stream around another.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Bug;

/// A stream with a bug around it.
#[derive(Debug)]
pub struct BuggedIo<Io> {
    io: Io,
    bug: Bug,
    /// A write had to wait.
    is_writing: bool,
    /// What was taken and isn't written.
    buffer: BytesMut,
}

impl<Io> BuggedIo<Io> {
    /// A stream with a bug around it.
    pub(super) fn new(io: Io, bug: Bug) -> Self {
        Self {
            io,
            bug,
            is_writing: false,
            buffer: BytesMut::new(),
        }
    }
}

impl<Io: AsyncWrite + Unpin> BuggedIo<Io> {
    fn buffers(&self) -> bool {
        matches!(self.bug, Bug::ShutdownWhileBuffered | Bug::UnboundedOutput)
    }

    fn poll_buffer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer))?;
            self.buffer.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for BuggedIo<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let loses = self.bug == Bug::LostWakeup && self.is_writing;
        let mut noop = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut self.io).poll_read(if loses { &mut noop } else { cx }, into);
        let is_eof = matches!(read, Poll::Ready(Ok(()))) && into.filled().len() == before;
        match self.bug {
            Bug::HalfCloseLoop if is_eof => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Bug::HalfCloseAbort if is_eof => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            _ => read,
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for BuggedIo<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffers() {
            self.buffer.extend_from_slice(from);
            if self.bug == Bug::ShutdownWhileBuffered {
                let _ = self.poll_buffer(cx)?;
            }
            return Poll::Ready(Ok(from.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, from);
        self.is_writing = written.is_pending();
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bug == Bug::FlushForgotten {
            return Poll::Ready(Ok(()));
        }
        let rest = self.poll_buffer(cx)?;
        // This is the bug: what must wait is left behind.
        if self.bug != Bug::ShutdownWhileBuffered {
            ready!(rest);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bug == Bug::EndUntold {
            return Poll::Ready(Ok(()));
        }
        let rest = self.poll_buffer(cx)?;
        if self.bug != Bug::ShutdownWhileBuffered {
            ready!(rest);
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
