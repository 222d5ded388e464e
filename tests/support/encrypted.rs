//! A client's TLS around the server's end of a pipe: what the client sends in plain text, the server reads encrypted, and the
//! other way round. It has neither tasks nor time of its own; the server's reads and writes move it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, ServerConfig};

use super::pipe::Stream;
use super::tls::{Authority, server_name};

/// Plain text that goes into one record, at most.
const RECORD: usize = 16 * 1024;

/// Both ends' configurations, made once: the client trusts the server's certificate.
pub fn ends() -> &'static (Arc<ServerConfig>, Arc<ClientConfig>) {
    static ENDS: OnceLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = OnceLock::new();
    ENDS.get_or_init(|| {
        let authority = Authority::new();
        (authority.server("localhost"), authority.client(&[], None))
    })
}

/// A stream that is encrypted.
pub struct Encrypted {
    plain: Stream,
    session: ClientConnection,
    /// Encrypted, and not read by the server yet.
    sent: VecDeque<u8>,
    /// The client has finished, and has said so.
    finished: bool,
    /// The server has said that it has finished (`close_notify`).
    heard_end: bool,
    /// Bytes that a read of the server finds at most.
    piece: usize,
}

impl Encrypted {
    /// Each slice of the pipe is a record of its own.
    pub fn new(plain: Stream, piece: usize) -> Self {
        let session = ClientConnection::new(ends().1.clone(), server_name("localhost"));
        Self {
            plain,
            session: session.unwrap(),
            sent: VecDeque::new(),
            finished: false,
            heard_end: false,
            piece,
        }
    }

    /// Takes what the client says next.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut record = [0; RECORD];
        let mut record = ReadBuf::new(&mut record);
        ready!(Pin::new(&mut self.plain).poll_read(cx, &mut record))?;
        if record.filled().is_empty() {
            self.finished = true;
            self.session.send_close_notify();
        } else {
            self.session.writer().write_all(record.filled())?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            while this.session.wants_write() {
                this.session.write_tls(&mut this.sent)?;
            }
            if !this.sent.is_empty() {
                let count = this.piece.min(into.remaining()).min(this.sent.len());
                let piece: Vec<u8> = this.sent.drain(..count).collect();
                into.put_slice(&piece);
                return Poll::Ready(Ok(()));
            }
            if this.finished {
                return Poll::Ready(Ok(()));
            }
            // In a handshake it is the server's turn now; it reads again when it has written.
            if this.session.is_handshaking() {
                return Poll::Pending;
            }
            ready!(this.poll_client(cx))?;
        }
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut rest = from;
        while !rest.is_empty() {
            this.session.read_tls(&mut rest)?;
            let state = this.session.process_new_packets();
            let state = state.map_err(|error| io::Error::other(error.to_string()))?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            this.session.reader().read_exact(&mut plain)?;
            if !plain.is_empty() {
                let taken = ready!(Pin::new(&mut this.plain).poll_write(cx, &plain))?;
                assert_eq!(taken, plain.len(), "the client takes all");
            }
            this.heard_end |= state.peer_has_closed();
        }
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// An end that TLS hasn't announced is none: anybody on the way could have made it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.heard_end {
            return Pin::new(&mut self.plain).poll_shutdown(cx);
        }
        Poll::Ready(Ok(()))
    }
}
