//! How a connection of HTTP/2 ends: why, with which last words, and the account of it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use super::frames::code;
use super::wire::{Half, Tap, goaway};
use crate::conn::{CloseReason, ConnReport, Http2Error, Live, State};
use crate::fair;
use crate::limits::Limits;

/// How long a client is listened to that was told goodbye: a round trip, not more.
const LINGER: Duration = Duration::from_secs(1);

/// The end of a connection.
pub(super) struct Ending {
    pub(super) why: CloseReason,
    how: How,
}

enum How {
    /// All is said.
    Close,
    /// These are the last words: the last stream that was looked at, and the error.
    GoAway(u32, Http2Error),
    /// Nothing more can be sent, or is worth it.
    Abort,
}

impl Ending {
    pub(super) fn close(why: CloseReason) -> Self {
        Self {
            why,
            how: How::Close,
        }
    }

    pub(super) fn abort(why: CloseReason) -> Self {
        Self {
            why,
            how: How::Abort,
        }
    }

    /// Says to the client that the connection ends, with this code.
    pub(super) fn goodbye(why: CloseReason, last_stream: u32, error: Http2Error) -> Self {
        Self {
            why,
            how: How::GoAway(last_stream, error),
        }
    }

    fn error(last_stream: u32, error: Http2Error) -> Self {
        Self::goodbye(CloseReason::Http2(error), last_stream, error)
    }
}

/// It was over before it had begun.
pub(super) fn before<Io>(tap: &Tap<Io>) -> Ending {
    let wire = tap.lock();
    match (wire.verdict(), wire.failed) {
        (Some(error), _) => Ending::error(0, error),
        (None, Some(kind)) => Ending::abort(CloseReason::Io(kind)),
        (None, None) if wire.is_silent() => Ending::close(CloseReason::ClientClosed),
        (None, None) => Ending::close(CloseReason::Truncated),
    }
}

/// h2 says that it is over; `leaving` is why the client was told to go.
pub(super) fn over<Io>(tap: &Tap<Io>, leaving: Option<CloseReason>) -> Ending {
    let wire = tap.lock();
    if let (Some(error), Some((last_stream, _))) = (wire.blame(), wire.gave_up) {
        return Ending::error(last_stream, error);
    }
    if wire.eof && wire.half() != Half::Nothing {
        return Ending::close(CloseReason::Truncated);
    }
    Ending::close(match (leaving, wire.farewell) {
        (Some(why), _) => why,
        (None, None) => CloseReason::ClientClosed,
        (None, Some(code::NO_ERROR)) => CloseReason::ClientAsked,
        (None, Some(said)) => CloseReason::Http2(Http2Error::new(said, "the client gave up")),
    })
}

/// h2 failed.
pub(super) fn failed<Io>(error: &h2::Error, tap: &Tap<Io>, leaving: Option<CloseReason>) -> Ending {
    let kind = tap.lock().failed;
    let kind = kind.or_else(|| error.get_io().map(io::Error::kind));
    match kind {
        Some(kind) => Ending::abort(CloseReason::Io(kind)),
        None => over(tap, leaving),
    }
}

/// Says the last words, listens for a moment lest a reset destroys them, and gives the account.
pub(super) async fn end<Io>(
    tap: Tap<Io>,
    live: &Live,
    Ending { why, how }: Ending,
    limits: &Limits,
) -> ConnReport
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let words = match how {
        How::Close => Some(Vec::new()),
        How::GoAway(last_stream, error) => Some(goaway(last_stream, error)),
        How::Abort => None,
    };
    match words {
        Some(words) => {
            live.enter(State::Closing, Instant::now());
            let goodbye = goodbye(&tap, live, &words);
            let said = timeout(limits.linger_timeout, goodbye).await;
            if !matches!(said, Ok(Ok(()))) {
                live.abort();
            } else if !tap.lock().eof {
                let listening = poll_fn(|cx| poll_listen(cx, &tap, live));
                let _ = timeout(LINGER.min(limits.linger_idle_timeout), listening).await;
            }
        }
        None => live.abort(),
    }
    // Whoever still waits to send something is told that it is too late.
    drop(live.take_last_mail(u64::MAX));
    live.report(why, Bytes::new())
}

async fn goodbye<Io>(tap: &Tap<Io>, live: &Live, mut words: &[u8]) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| {
        let io = &mut tap.lock().io;
        while !words.is_empty() {
            let count = ready!(Pin::new(&mut *io).poll_write(cx, words))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            live.count_out(count);
            words = &words[count..];
        }
        Pin::new(io).poll_shutdown(cx)
    })
    .await
}

/// Ready when the client has finished.
fn poll_listen<Io>(cx: &mut Context<'_>, tap: &Tap<Io>, live: &Live) -> Poll<()>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    /// Enough for one go.
    const TURNS: usize = 16;
    let io = &mut tap.lock().io;
    for _ in 0..TURNS {
        let mut discarded = [0; 4096];
        let mut into = ReadBuf::new(&mut discarded);
        match ready!(pin!(&mut *io).poll_read(cx, &mut into)) {
            Ok(()) if !into.filled().is_empty() => live.count_in(into.filled().len()),
            _ => return Poll::Ready(()),
        }
    }
    fair::give_way(cx);
    Poll::Pending
}
