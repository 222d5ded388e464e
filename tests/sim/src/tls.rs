//! TLS below HTTP, for both ends: what the server is configured with, the client's session, and the stream that counts
//! the plain text above it. Records, ciphers and state machines are rustls's; chance and the costly arithmetic of a
//! handshake are replaced by `cheap`, so that a simulation is repeated to the last encrypted byte.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, ServerConfig};
use wharf::Tls;

use crate::net::Shared;

mod cheap;

/// Milliseconds that a handshake may take.
pub const PATIENCE: u64 = 10_000;

/// Bytes that rustls keeps for a slow reader.
pub const BUFFER: usize = 64 * 1024;

static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let builder = ServerConfig::builder_with_provider(cheap::provider())
        .with_protocol_versions(&[&TLS13])
        .expect("a version");
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(cheap::certified())));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.into()
});

static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let builder = ClientConfig::builder_with_provider(cheap::provider())
        .with_protocol_versions(&[&TLS13])
        .expect("a version");
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(cheap::Credulous))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.into()
});

/// The layer of the server.
pub fn layer() -> Tls {
    Tls::new(SERVER.clone())
}

/// The client's half: plain text in and out, records to and from the wire.
#[derive(Debug)]
pub struct Session {
    tls: ClientConnection,
    /// Said before the handshake was over.
    early: Vec<u8>,
    /// Nothing more will be said.
    finishes: bool,
    /// Ends its direction without `close_notify`, as many clients do.
    is_curt: bool,
    /// Bytes of plain text that went out.
    pub sent: usize,
    /// All that was to be said is on the wire, and that nothing follows.
    pub has_finished: bool,
    /// The server said `close_notify`.
    pub is_told: bool,
}

impl Session {
    /// Says its first word to the wire.
    pub fn new(is_curt: bool, wire: &mut VecDeque<u8>) -> Self {
        let name = ServerName::try_from("wharf.test").expect("a name");
        let mut tls = ClientConnection::new(CLIENT.clone(), name).expect("a client");
        tls.set_buffer_limit(None);
        let mut session = Self {
            tls,
            early: Vec::new(),
            finishes: false,
            is_curt,
            sent: 0,
            has_finished: false,
            is_told: false,
        };
        session.speak(wire);
        session
    }

    /// The server has shaken hands, as far as the client knows.
    pub fn is_ready(&self) -> bool {
        !self.tls.is_handshaking()
    }

    /// Says this, as soon as the handshake is over.
    pub fn send(&mut self, plain: &[u8], wire: &mut VecDeque<u8>) {
        self.early.extend_from_slice(plain);
        self.speak(wire);
    }

    /// Says no more.
    pub fn finish(&mut self, wire: &mut VecDeque<u8>) {
        self.finishes = true;
        self.speak(wire);
    }

    /// Takes what came off the wire, answers if the protocol wants that, and gives the plain text.
    pub fn take(&mut self, mut bytes: &[u8], wire: &mut VecDeque<u8>) -> Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            if self.is_told {
                return Err(format!("{} bytes behind close_notify", bytes.len()));
            }
            let read = self.tls.read_tls(&mut bytes);
            read.map_err(|error| format!("TLS: {error}"))?;
            let state = self.tls.process_new_packets();
            let state = state.map_err(|error| format!("TLS: {error}"))?;
            let before = plain.len();
            plain.resize(before + state.plaintext_bytes_to_read(), 0);
            let rest = self.tls.reader().read_exact(&mut plain[before..]);
            rest.map_err(|error| format!("TLS: {error}"))?;
            self.is_told = state.peer_has_closed();
        }
        self.speak(wire);
        Ok(plain)
    }

    fn speak(&mut self, wire: &mut VecDeque<u8>) {
        let all = "a buffer without a bound";
        if self.is_ready() {
            self.tls.writer().write_all(&self.early).expect(all);
            self.sent += self.early.len();
            self.early.clear();
            if self.finishes && !self.has_finished {
                self.has_finished = true;
                if !self.is_curt {
                    self.tls.send_close_notify();
                }
            }
        }
        while self.tls.wants_write() {
            self.tls.write_tls(wire).expect(all);
        }
    }
}

/// The server's stream above TLS, which tells the net how much plain text crosses it.
#[derive(Debug)]
pub struct Counted<Io> {
    io: Io,
    net: Shared,
}

impl<Io> Counted<Io> {
    /// The handshake is over.
    pub fn new(io: Io, net: Shared) -> Self {
        net.lock().secured();
        Self { io, net }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.net.lock().wrote(count);
        }
        written
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Counted<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, into))?;
        self.net.lock().heard(into.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Counted<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, from);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, from);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
