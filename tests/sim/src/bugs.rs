//! Bugs that other servers had, to be switched on: the checks are worth what they find. Each is a wrapper around a part
//! of the container that its user may replace too (codec, stream, service, body, limits), so the container itself
//! holds no switch.

use std::fmt;
use std::mem::forget;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tower_service::Service;
use wharf::codec::Strict;
use wharf::{Body, BoxError, Limits};

use crate::actor::{Actor, Answering};
use crate::reply::ReplyBody;
use crate::world::World;

mod codec;
mod stream;

pub use codec::BuggedCodec;
pub use stream::BuggedIo;

/// A bug of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The rest of a body that nobody read is the next request (RUSTSEC-2025-0037).
    UndrainedBody,
    /// What comes behind an offer to upgrade leaves HTTP before `101` is sent (RUSTSEC-2026-0033).
    EarlyUpgradeBytes,
    /// The sending direction is ended while bytes are buffered (hyper#4018).
    ShutdownWhileBuffered,
    /// A read waits for a write and nobody is told (hyper#3952).
    LostWakeup,
    /// A half-closed stream is polled again and again (hyper#4086).
    HalfCloseLoop,
    /// A half-closed stream is taken for an aborted one (hyper and others).
    HalfCloseAbort,
    /// A handler's Content-Length is believed (hyper in release builds, Node).
    LengthTrust,
    /// A chunk's size overflows (RUSTSEC-2021-0079).
    ChunkOverflow,
    /// The line end behind the last chunk stays (RUSTSEC-2021-0078's family).
    TrailingCrlf,
    /// A bare LF ends a chunk's size (CVE-2025-22871).
    BareLfChunk,
    /// `100 Continue` is said twice.
    ContinueTwice,
    /// HEAD is answered with content.
    HeadWithBody,
    /// The last chunk is sent though the body failed.
    TerminatorAfterError,
    /// A request behind `close` is served.
    ServesAfterClose,
    /// A body that the client cut looks complete (actix-web#3067).
    ShortBody,
    /// Chunks go to HTTP/1.0.
    ChunksToHttp10,
    /// A pipelined HEAD decides about the answer before it.
    LastMethodWins,
    /// What is owed grows without bound (hyper's `pipeline_flush`).
    UnboundedOutput,
    /// A slow client has no deadline (axum::serve 0.8).
    NoDeadline,
    /// A handler whose client is gone is never dropped.
    ForgottenHandler,
    /// TLS isn't told of the end, so a cut looks like it.
    EndUntold,
    /// TLS isn't told to send what it has taken.
    FlushForgotten,
}

impl Bug {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 22] = [
        ("undrained-body", Self::UndrainedBody),
        ("early-upgrade-bytes", Self::EarlyUpgradeBytes),
        ("shutdown-while-buffered", Self::ShutdownWhileBuffered),
        ("lost-wakeup", Self::LostWakeup),
        ("half-close-loop", Self::HalfCloseLoop),
        ("half-close-abort", Self::HalfCloseAbort),
        ("length-trust", Self::LengthTrust),
        ("chunk-overflow", Self::ChunkOverflow),
        ("trailing-crlf", Self::TrailingCrlf),
        ("bare-lf-chunk", Self::BareLfChunk),
        ("continue-twice", Self::ContinueTwice),
        ("head-with-body", Self::HeadWithBody),
        ("terminator-after-error", Self::TerminatorAfterError),
        ("serves-after-close", Self::ServesAfterClose),
        ("short-body", Self::ShortBody),
        ("chunks-to-http10", Self::ChunksToHttp10),
        ("last-method-wins", Self::LastMethodWins),
        ("unbounded-output", Self::UnboundedOutput),
        ("no-deadline", Self::NoDeadline),
        ("forgotten-handler", Self::ForgottenHandler),
        ("end-untold", Self::EndUntold),
        ("flush-forgotten", Self::FlushForgotten),
    ];

    /// It is one of speaking TLS.
    pub fn is_of_tls(self) -> bool {
        matches!(self, Self::EndUntold | Self::FlushForgotten)
    }

    /// The bug of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, bug)| *bug)
    }

    /// The limits with the bug.
    pub fn limits(self, limits: Limits) -> Limits {
        if self != Self::NoDeadline {
            return limits;
        }
        let century = Duration::from_secs(3_000_000_000);
        Limits {
            head_timeout: century,
            idle_timeout: century,
            stall_timeout: century,
            rate_grace: century,
            ..limits
        }
    }

    /// The codec with the bug.
    pub fn codec(self, world: &Rc<World>) -> impl Fn(&Limits) -> BuggedCodec + use<> {
        let world = world.clone();
        move |limits| BuggedCodec::new(Strict::new(limits), self, world.clone())
    }

    /// The stream with the bug.
    pub fn stream<Io>(self, io: Io) -> BuggedIo<Io> {
        BuggedIo::new(io, self)
    }
}

/// The actor, with a bug around it perhaps.
pub struct Bugged {
    actor: Actor,
    bug: Option<Bug>,
}

impl Bugged {
    /// With this bug, if any.
    pub fn new(actor: Actor, bug: Option<Bug>) -> Self {
        Self { actor, bug }
    }
}

impl Service<Request<Body>> for Bugged {
    type Response = Response<BuggedReply>;
    type Error = BoxError;
    type Future = BuggedFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.actor.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> BuggedFuture {
        let request = match self.bug {
            Some(Bug::ShortBody) => request.map(|inner| Body::new(Trusting { inner })),
            _ => request,
        };
        BuggedFuture {
            inner: Some(self.actor.call(request)),
            bug: self.bug,
        }
    }
}

/// The answer that the actor works on.
pub struct BuggedFuture {
    inner: Option<Answering>,
    bug: Option<Bug>,
}

impl Future for BuggedFuture {
    type Output = Result<Response<BuggedReply>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let bug = self.bug;
        let Some(inner) = &mut self.inner else {
            return Poll::Pending;
        };
        let answer = ready!(inner.as_mut().poll(cx));
        self.inner = None;
        Poll::Ready(answer.map(|response| response.map(|inner| BuggedReply { inner, bug })))
    }
}

impl Drop for BuggedFuture {
    fn drop(&mut self) {
        if self.bug == Some(Bug::ForgottenHandler) {
            forget(self.inner.take());
        }
    }
}

/// The body of a response.
pub struct BuggedReply {
    inner: ReplyBody,
    bug: Option<Bug>,
}

impl http_body::Body for BuggedReply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let hides = self.bug == Some(Bug::TerminatorAfterError);
        Poll::Ready(frame.filter(|frame| frame.is_ok() || !hides))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body whose errors are its end.
struct Trusting {
    inner: Body,
}

impl http_body::Body for Trusting {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.filter(Result::is_ok))
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(_, bug)| bug == self)
            .map_or("", |(name, _)| name);
        f.write_str(name)
    }
}
