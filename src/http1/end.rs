//! The end of a connection, and the account of it: five ways to say goodbye, each once.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::connection::Connection;
use super::deadline::Phase;
use super::exchange::{Ending, Exchange, Linger};
use super::wire::Stop;
use crate::codec::{Codec, Kind};
use crate::conn::{CloseReason, ConnReport, State};
use crate::error::{Reason, Reject};
use crate::service::Failed;
use crate::upgrade::Upgraded;

/// How long a closing connection listens for what a client that may go on had sent already: a round trip, not more,
/// since a client that is done and keeps its socket open would hold up every shutdown.
const LINGER_BRIEFLY: Duration = Duration::from_secs(1);

impl<Io, C> Connection<Io, C>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    /// The service will never be ready again: this request is told, the connection ends.
    #[cold]
    pub(super) fn service_failed(&mut self, mut exchange: Exchange, failed: Failed) -> Ending {
        exchange.close(if matches!(failed, Failed::Panicked(_)) {
            CloseReason::Panicked
        } else {
            CloseReason::ServiceFailed
        });
        self.encode_whole(&mut exchange, self.settings.failure(failed));
        Ending::Close {
            why: exchange.closes().unwrap_or(CloseReason::ServiceFailed),
            linger: Linger::Long,
        }
    }

    /// Ends the connection.
    pub(super) async fn end(mut self, ending: Ending) -> ConnReport
    where
        Io: Send + 'static,
    {
        let live = self.wire.live().clone();
        self.wire.leave_phase();
        let mut first_bytes = Bytes::new();
        let why = match ending {
            Ending::Abort(why) => {
                live.abort();
                why
            }
            Ending::Close { why, linger } => {
                self.close(linger).await;
                why
            }
            Ending::BreakOff {
                why,
                is_framed: true,
            } => {
                self.close(Linger::Long).await;
                why
            }
            Ending::BreakOff {
                why,
                is_framed: false,
            } => {
                let _ = self.flush().await;
                live.abort();
                why
            }
            Ending::Refuse(reject, method) => {
                let why = self.refuse(reject, method, &mut first_bytes);
                self.close(Linger::Long).await;
                why
            }
            Ending::HandOver(taker) => self.hand_over(taker).await,
        };
        // Whoever still waits to send something is told that it is too late.
        drop(live.take_last_mail(u64::MAX));
        live.report(why, first_bytes)
    }

    /// Answers a request that no handler sees.
    fn refuse(
        &mut self,
        reject: Reject,
        method: Option<Kind>,
        first_bytes: &mut Bytes,
    ) -> CloseReason {
        const SHOWN: usize = 64;
        let input = &self.wire.desk().input;
        let got = input.len();
        *first_bytes = Bytes::copy_from_slice(&input[..got.min(SHOWN)]);
        // Where no head could be decoded, its first word still shows that no content is wanted.
        let method = method.unwrap_or(if first_bytes.trim_ascii_start().starts_with(b"HEAD ") {
            Kind::Head
        } else {
            Kind::Other
        });
        let why = match reject.reason() {
            Reason::HeadTimeout => CloseReason::HeadTimeout { got },
            Reason::NotReady => CloseReason::ReadyTimeout,
            Reason::BodyTimeout => CloseReason::BodyTimeout,
            _ => CloseReason::Refused(reject.clone()),
        };
        // A client that never said anything isn't told either: it may not even speak HTTP.
        if reject.reason() != Reason::HeadTimeout || got > 0 {
            let mut exchange = Exchange::last(method);
            let answer = self.settings.refusal(&reject);
            let live = self.wire.live().clone();
            let input = &self.wire.desk().input;
            self.settings
                .tell_refused(&live, &reject, answer.status(), input);
            self.encode_whole(&mut exchange, answer);
        }
        why
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        self.until(|cx, this| this.wire.poll_flush(cx).map_err(Stop::from))
            .await
    }

    /// Sends what is owed, says that nothing follows, and listens for a while if the peer may still be sending: to close
    /// a socket with unread bytes makes the kernel reset it, and a reset can destroy the answer on its way
    /// (RFC 9112 section 9.6).
    async fn close(&mut self, linger: Linger) {
        let settings = self.settings.clone();
        let limits = &settings.limits;
        self.wire.enter(Phase::Linger, limits.linger_timeout);
        let shut = self.until(|cx, this| this.wire.poll_shutdown(cx).map_err(Stop::from));
        if shut.await.is_err() {
            self.wire.live().abort();
            return;
        }
        self.wire.leave_phase();
        let end = self.wire.now() + limits.linger_timeout;
        let mut left = limits.linger_bytes;
        let mut wait = match linger {
            Linger::Not => Duration::ZERO,
            Linger::Briefly => LINGER_BRIEFLY.min(limits.linger_idle_timeout),
            Linger::Long => limits.linger_idle_timeout,
        };
        while !self.wire.is_eof() && left > 0 {
            let read = self.until(|cx, this| {
                let wire = &mut this.wire;
                wire.desk().input.clear();
                match wire.poll_fill(cx)? {
                    Poll::Ready(read) => Poll::Ready(Ok(read)),
                    Poll::Pending if wait.is_zero() => Poll::Ready(Ok(0)),
                    Poll::Pending => {
                        let left = end.saturating_duration_since(wire.now());
                        wire.enter(Phase::Linger, wait.min(left));
                        Poll::Pending
                    }
                }
            });
            match read.await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read as u64),
            }
            wait = limits.linger_idle_timeout;
            self.wire.leave_phase();
        }
    }

    /// Gives the socket away, once the response that says so is on the wire, and waits for its end: until then the
    /// connection counts as open, and what it is told is passed on.
    async fn hand_over(mut self, taker: Option<Box<oneshot::Sender<Upgraded>>>) -> CloseReason
    where
        Io: Send + 'static,
    {
        let live = self.wire.live().clone();
        if self.flush().await.is_err() {
            live.abort();
            return CloseReason::Upgraded;
        }
        self.wire.show(State::Upgraded);
        let (io, early) = self.wire.into_rest();
        let (upgraded, kept) = Upgraded::new(io, early, live);
        if taker.is_some_and(|taker| taker.send(upgraded).is_ok()) {
            return kept.closed().await;
        }
        CloseReason::Upgraded
    }
}
