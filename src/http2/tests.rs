//! What only a socket can show that knows more than the runtime has heard of.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::service_fn;

use super::{PREFACE, serve};
use crate::body::Body;
use crate::conn::{CloseReason, Conn, Live};
use crate::error::BoxError;

/// A socket after a stop of the process: the timers ring, and that something has come is seen by a last look alone, as
/// [`Stream`](crate::Stream) takes it.
struct Stopped {
    heard: &'static [u8],
    unheard: &'static [u8],
    live: Arc<Live>,
}

impl AsyncRead for Stopped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard.is_empty() && self.live.is_last_look() {
            self.heard = std::mem::take(&mut self.unheard);
        }
        if self.heard.is_empty() {
            return Poll::Pending;
        }
        let (now, later) = self.heard.split_at(self.heard.len().min(buf.remaining()));
        buf.put_slice(now);
        self.heard = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stopped {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How a connection ends on which no more than that comes.
async fn ends(heard: &'static [u8], unheard: &'static [u8]) -> CloseReason {
    let ((), live) = Conn::from(()).seal();
    let io = Stopped {
        heard,
        unheard,
        live: live.clone(),
    };
    let service =
        service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::default())) });
    let report = serve(io, Bytes::new(), live, service, Arc::default()).await;
    report.reason
}

#[tokio::test(start_paused = true)]
async fn what_came_in_time_is_looked_for_once_more_before_a_deadline_is_believed() {
    const BEGIN: &[u8] = &concat_preface(*b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x06\0\0\0\0\x001234");
    const REST: &[u8] = b"5678";
    let late = ends(BEGIN, b"").await;
    assert!(matches!(late, CloseReason::HeadTimeout { .. }), "{late}");
    let after = Duration::from_secs(75);
    assert_eq!(ends(BEGIN, REST).await, CloseReason::Idle { after });
}

/// The preface, and what comes behind it: empty settings and half a PING.
const fn concat_preface(frames: [u8; 22]) -> [u8; 46] {
    let mut all = [0; 46];
    all.split_at_mut(24).0.copy_from_slice(PREFACE);
    all.split_at_mut(24).1.copy_from_slice(&frames);
    all
}
