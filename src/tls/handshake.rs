//! One handshake, from the accept to its end: who may begin, who is too late, and what a client in plain text is told.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::StartHandshake;
use tokio_rustls::rustls::ProtocolVersion;
use tokio_rustls::rustls::server::{Accepted, Acceptor};

use super::shared::{Shared, Waiting};
use crate::conn::{TlsError, TlsInfo, TlsVersion};

pub(super) type Shaken<Io> = tokio_rustls::server::TlsStream<Io>;

/// Bytes read at once of a client's first message.
const CHUNK: usize = 2 * 1024;
/// How long a handshake may take that others wait for.
const CROWDED: Duration = Duration::from_secs(2);
/// How long, and for how much, a client in plain text is listened to, lest a reset destroys its answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 54\r\n\
    connection: close\r\n\r\n\
    this port speaks TLS: use https:// instead of http://\n";

/// Shakes hands until `deadline`.
pub(super) async fn shake<Io>(
    mut io: Io,
    shared: Arc<Shared>,
    deadline: Instant,
) -> Result<Shaken<Io>, TlsError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut got = 0;
    let hello = timeout_at(deadline, hello(&mut io, &mut got)).await;
    let late = TlsError::Late { got };
    match hello {
        Err(_) => Err(late),
        Ok(Err(TlsError::PlainHttp)) => {
            let _ = timeout(LINGER, answer(&mut io)).await;
            Err(TlsError::PlainHttp)
        }
        Ok(Err(error)) => Err(error),
        Ok(Ok(accepted)) => {
            let rest = rest(accepted, io, &shared, got);
            timeout_at(deadline, rest).await.unwrap_or(Err(late))
        }
    }
}

/// Reads the client's first message. It costs next to nothing, so it needs no place among those that are worked on.
async fn hello<Io>(io: &mut Io, got: &mut usize) -> Result<Accepted, TlsError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    loop {
        let mut chunk = [0; CHUNK];
        let read = io.read(&mut chunk).await.map_err(failed)?;
        let mut chunk = &chunk[..read];
        if chunk.is_empty() {
            return Err(TlsError::Truncated);
        }
        // A handshake begins with the byte 22, a request with the first letter of its method.
        if *got == 0 && chunk[0].is_ascii_uppercase() {
            return Err(TlsError::PlainHttp);
        }
        *got += read;
        while !chunk.is_empty() {
            acceptor.read_tls(&mut chunk).map_err(failed)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(accepted),
                Err((error, mut alert)) => {
                    let mut last_words = Vec::new();
                    let _ = alert.write_all(&mut last_words);
                    let _ = io.write_all(&last_words).await;
                    let _ = io.shutdown().await;
                    return Err(TlsError::Failed(error.to_string().into()));
                }
            }
        }
    }
}

/// All that follows on the first message, once there is a place for it.
async fn rest<Io>(
    accepted: Accepted,
    io: Io,
    shared: &Arc<Shared>,
    got: usize,
) -> Result<Shaken<Io>, TlsError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let waiting = Waiting::of(shared);
    let Ok(_place) = shared.places.acquire().await else {
        return Err(TlsError::Truncated); // It is never closed.
    };
    drop(waiting);
    shared.look().await;
    let shaking = StartHandshake::from_parts(accepted, io).into_stream(shared.config());
    tokio::select! {
        biased;
        shaken = shaking => shaken.map_err(failed),
        () = crowded(shared) => Err(TlsError::Late { got }),
    }
}

/// Over once it is time to make room for others.
async fn crowded(shared: &Shared) {
    loop {
        sleep(CROWDED).await;
        if shared.waiting.load(Relaxed) > 0 {
            return;
        }
    }
}

fn failed(error: io::Error) -> TlsError {
    match error.kind() {
        ErrorKind::UnexpectedEof => TlsError::Truncated,
        _ => TlsError::Failed(error.to_string().into()),
    }
}

/// Tells a client in plain text where it is.
async fn answer<Io>(io: &mut Io) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    io.write_all(PLAIN).await?;
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}

impl TlsInfo {
    /// What a handshake agreed upon.
    pub(super) fn of<Io>(shaken: &Shaken<Io>) -> Self {
        let (_, session) = shaken.get_ref();
        let suite = session.negotiated_cipher_suite();
        let chain = session.peer_certificates().unwrap_or_default();
        Self {
            server_name: session.server_name().map(str::to_owned),
            alpn: session.alpn_protocol().map(Bytes::copy_from_slice),
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
                _ => TlsVersion::Tls13,
            },
            cipher_suite: suite.and_then(|suite| suite.suite().as_str()).unwrap_or(""),
            peer_certificates: chain
                .iter()
                .map(|one| Bytes::copy_from_slice(one))
                .collect(),
        }
    }
}
