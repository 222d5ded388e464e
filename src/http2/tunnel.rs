//! A stream of HTTP/2 as a stream of bytes: what a handler talks on after `CONNECT` (RFC 9113 section 8.5, RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No more than that is copied at once.
const PIECE: usize = 16 * 1024;

pub(super) struct Tunnel {
    send: SendStream<Bytes>,
    /// `None` once the client has ended its direction.
    recv: Option<RecvStream>,
    /// Came and isn't read yet.
    rest: Bytes,
}

impl Tunnel {
    pub(super) fn new(send: SendStream<Bytes>, recv: Option<RecvStream>) -> Self {
        Self {
            send,
            recv,
            rest: Bytes::new(),
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.rest.is_empty() {
            let Some(recv) = &mut this.recv else {
                return Poll::Ready(Ok(()));
            };
            match ready!(recv.poll_data(cx)) {
                None => this.recv = None,
                Some(data) => {
                    let data = data.map_err(broken)?;
                    recv.flow_control()
                        .release_capacity(data.len())
                        .map_err(broken)?;
                    this.rest = data;
                }
            }
        }
        let count = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest[..count]);
        this.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len().min(PIECE));
        let mut capacity = self.send.capacity();
        if capacity == 0 {
            let more = ready!(self.send.poll_capacity(cx));
            capacity = more.ok_or_else(gone)?.map_err(broken)?;
        }
        let count = capacity.min(buf.len()).min(PIECE);
        let piece = Bytes::copy_from_slice(&buf[..count]);
        self.send.send_data(piece, false).map_err(broken)?;
        Poll::Ready(Ok(count))
    }

    /// What was written is on its way as soon as the connection's task runs.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A stream that is gone has nothing left to be ended.
        let _ = self.send.send_data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}
