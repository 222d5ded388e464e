//! The client: says a payload, half-closes, and reads until the server has ended the connection.
//!
//! The half-close is what ends the reading where the server doesn't: one that wants more of a request finds out that there is no
//! more. Whoever would take it for an abort is told not to: hyper by `half_close`, Node by `httpAllowHalfOpen`, nginx by
//! `proxy_ignore_client_abort`. HAProxy has no such word, and may drop a pipelined request that it hasn't begun when the client's end
//! comes, be it a smuggled one. So the half-close waits until there are as many answers as there can be.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Failure;

/// Nobody needs longer for a payload; whoever does fails the run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// A server that leaves requests unanswered for that long waits for more of them.
const SILENCE: Duration = Duration::from_secs(1);

/// Says `bytes`, and half-closes once there are so many final answers; all that came back. A reset ends the reading like any other
/// end.
pub(crate) async fn talk<Io>(io: Io, bytes: &[u8], most: usize) -> Result<Vec<u8>, Failure>
where
    Io: AsyncRead + AsyncWrite,
{
    let (mut reader, mut writer) = tokio::io::split(io);
    let (tell, answered) = oneshot::channel::<()>();
    let say = async {
        // A server that refuses may stop listening before all is said.
        if writer.write_all(bytes).await.is_ok() {
            let _ = timeout(SILENCE, answered).await;
            let _ = writer.shutdown().await;
        }
    };
    let hear = async {
        let (mut answers, mut tell) = (Vec::new(), Some(tell));
        while reader
            .read_buf(&mut answers)
            .await
            .is_ok_and(|read| read > 0)
        {
            if statuses(&answers).len() >= most {
                drop(tell.take());
            }
        }
        answers
    };
    let both = async { tokio::join!(say, hear) };
    let (_, answers): ((), Vec<u8>) = timeout(PATIENCE, both)
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
