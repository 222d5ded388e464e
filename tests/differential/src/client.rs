//! The client: says a payload, half-closes, and reads until the server has ended the connection.
//!
//! The half-close is what ends the reading without waiting for a deadline: a server that wants more of a request finds out that there
//! is no more. Whoever would take it for an abort is told not to: hyper by `half_close`, Node by `httpAllowHalfOpen`, nginx by
//! `proxy_ignore_client_abort`; HAProxy answers half-closed clients unless `abortonclose` is set.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::Failure;

/// Nobody needs longer for a payload; whoever does fails the run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// Says `bytes` and half-closes; all that came back. A reset ends the reading like any other end.
pub(crate) async fn talk<Io>(io: Io, bytes: &[u8]) -> Result<Vec<u8>, Failure>
where
    Io: AsyncRead + AsyncWrite,
{
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut answers = Vec::new();
    let say = async {
        // A server that refuses may stop listening before all is said.
        if writer.write_all(bytes).await.is_ok() {
            let _ = writer.shutdown().await;
        }
    };
    let hear = async {
        let _ = reader.read_to_end(&mut answers).await;
    };
    let both = async { tokio::join!(say, hear) };
    timeout(PATIENCE, both)
        .await
        .map_err(|_| format!("the connection wasn't ended within {PATIENCE:?}"))?;
    Ok(answers)
}

/// The final statuses among the answers. Those of the servers here never have such a line in their content.
pub(crate) fn statuses(answers: &[u8]) -> Vec<u16> {
    let status = |window: &[u8]| {
        let line = std::str::from_utf8(window).ok()?;
        let rest = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))?;
        rest.parse().ok()
    };
    answers
        .windows("HTTP/1.1 200".len())
        .filter_map(status)
        .filter(|status| *status >= 200)
        .collect()
}
