//! Bugs that other servers had, to be switched on: the checks are worth what they find. Each is a wrapper around a part
//! of the container that its user may replace too (codec, stream, service, body, limits), so the container itself
//! holds no switch.

use std::fmt;
use std::io;
use std::mem::forget;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header, request};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;
use wharf::codec::{
    Codec, DecodeBody, EncodeBody, EncodeError, Exchange, Head, Kind, Length, Output, Piece, Reply,
    Strict,
};
use wharf::{Body, BoxError, Limits, Reason, Reject};

use crate::actor::{Actor, Answering, ReplyBody, World};

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
}

impl Bug {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 20] = [
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
    ];

    /// The bug of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, bug)| *bug)
    }

    /// The service with the bug.
    pub fn service(self, actor: Actor) -> Bugged {
        Bugged {
            actor,
            bug: Some(self),
        }
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
        move |limits| BuggedCodec {
            inner: Strict::new(limits),
            bug: self,
            world: world.clone(),
            last: Kind::Other,
        }
    }

    /// The stream with the bug.
    pub fn stream<Io>(self, io: Io) -> BuggedIo<Io> {
        BuggedIo {
            io,
            bug: self,
            is_writing: false,
            buffer: BytesMut::new(),
        }
    }
}

/// The actor, with a bug around it perhaps.
pub struct Bugged {
    actor: Actor,
    bug: Option<Bug>,
}

impl Bugged {
    /// Without a bug.
    pub fn none(actor: Actor) -> Self {
        Self { actor, bug: None }
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

/// The codec, with a bug around it.
pub struct BuggedCodec {
    inner: Strict,
    bug: Bug,
    world: Rc<World>,
    last: Kind,
}

impl Codec for BuggedCodec {
    type Decoder = BuggedDecoder;
    type Encoder = BuggedEncoder;

    fn decode_head(
        &mut self,
        input: &mut BytesMut,
        parts: &mut request::Parts,
    ) -> Result<Option<Head<BuggedDecoder>>, Reject> {
        let Some(mut head) = self.inner.decode_head(input, parts)? else {
            return Ok(None);
        };
        self.last = head.exchange.method;
        match self.bug {
            Bug::EarlyUpgradeBytes if head.exchange.upgrade => input.clear(),
            Bug::ServesAfterClose => head.exchange.close = None,
            _ => {}
        }
        let lenient = match self.bug {
            Bug::ChunkOverflow | Bug::TrailingCrlf | Bug::BareLfChunk
                if head.length == Length::Chunked =>
            {
                Some(Lenient {
                    bug: self.bug,
                    state: Chunk::Size,
                })
            }
            _ => None,
        };
        let at = parts
            .headers
            .get("x-id")
            .and_then(|id| id.to_str().ok()?.parse().ok());
        let undrained = at
            .filter(|_| self.bug == Bug::UndrainedBody)
            .map(|at| (self.world.clone(), at));
        let decoder = BuggedDecoder {
            inner: head.decoder,
            undrained,
            lenient,
        };
        Ok(Some(Head {
            exchange: head.exchange,
            length: head.length,
            decoder,
        }))
    }

    fn encode_head(
        &mut self,
        exchange: &mut Exchange,
        reply: Reply<'_>,
        output: &mut Output,
    ) -> Result<BuggedEncoder, EncodeError> {
        let before = (exchange.method, exchange.http10);
        match self.bug {
            Bug::HeadWithBody => exchange.method = Kind::Other,
            Bug::LastMethodWins => exchange.method = self.last,
            Bug::ChunksToHttp10 => exchange.http10 = false,
            _ => {}
        }
        let declared = reply
            .head
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let believed = declared
            .or(reply.length)
            .filter(|_| self.bug == Bug::LengthTrust);
        let reply = Reply {
            length: believed.or(reply.length),
            ..reply
        };
        let inner = self.inner.encode_head(exchange, reply, output);
        (exchange.method, exchange.http10) = before;
        let inner = inner?;
        let believes = believed.is_some() && !inner.is_done();
        Ok(BuggedEncoder { inner, believes })
    }

    fn encode_interim(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
        output: &mut Output,
    ) -> Result<(), EncodeError> {
        if self.bug == Bug::ContinueTwice && status == StatusCode::CONTINUE {
            self.inner.encode_interim(status, fields, output)?;
        }
        self.inner.encode_interim(status, fields, output)
    }
}

/// Reads a request's body.
pub struct BuggedDecoder {
    inner: <Strict as Codec>::Decoder,
    undrained: Option<(Rc<World>, usize)>,
    lenient: Option<Lenient>,
}

impl DecodeBody for BuggedDecoder {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Reject> {
        if let Some((world, at)) = &self.undrained
            && world.records.borrow()[*at].left
        {
            return Ok(Some(Piece::End));
        }
        match &mut self.lenient {
            Some(lenient) => lenient.decode(input),
            None => self.inner.decode(input),
        }
    }

    fn remaining(&self) -> Option<u64> {
        self.inner.remaining()
    }
}

/// A chunked coding as it was read in less careful times.
struct Lenient {
    bug: Bug,
    state: Chunk,
}

#[derive(Clone, Copy)]
enum Chunk {
    Size,
    Data(u64),
    End,
    Trailers,
}

impl Lenient {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Reject> {
        loop {
            match self.state {
                Chunk::Data(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let count = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - count as u64;
                    self.state = if left == 0 {
                        Chunk::End
                    } else {
                        Chunk::Data(left)
                    };
                    return Ok(Some(Piece::Data(input.split_to(count).freeze())));
                }
                Chunk::End => {
                    if input.len() < 2 {
                        return Ok(None);
                    }
                    if !input.starts_with(b"\r\n") {
                        return Err(Reject::new(Reason::Chunk));
                    }
                    input.advance(2);
                    self.state = Chunk::Size;
                }
                Chunk::Size => {
                    let Some(line) = self.line(input)? else {
                        return Ok(None);
                    };
                    let digits: Vec<u8> = line
                        .iter()
                        .copied()
                        .take_while(|&byte| byte != b';')
                        .collect();
                    let size = self.size(&digits).ok_or(Reject::new(Reason::Chunk))?;
                    self.state = if size == 0 {
                        Chunk::Trailers
                    } else {
                        Chunk::Data(size)
                    };
                    if size == 0 && self.bug == Bug::TrailingCrlf {
                        return Ok(Some(Piece::End));
                    }
                }
                Chunk::Trailers => {
                    let Some(line) = self.line(input)? else {
                        return Ok(None);
                    };
                    if line.is_empty() {
                        return Ok(Some(Piece::End));
                    }
                }
            }
        }
    }

    fn size(&self, digits: &[u8]) -> Option<u64> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(u64::from);
        let add = |size: u64, byte: &u8| match self.bug {
            Bug::ChunkOverflow => Some(size.wrapping_mul(16).wrapping_add(digit(*byte)?)),
            _ => size.checked_mul(16)?.checked_add(digit(*byte)?),
        };
        if digits.is_empty() {
            None
        } else {
            digits.iter().try_fold(0, add)
        }
    }

    fn line(&self, input: &mut BytesMut) -> Result<Option<BytesMut>, Reject> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let mut line = input.split_to(end + 1);
        line.truncate(end);
        match line.last() {
            Some(b'\r') => line.truncate(end - 1),
            _ if self.bug == Bug::BareLfChunk => {}
            _ => return Err(Reject::new(Reason::LineEnding)),
        }
        Ok(Some(line))
    }
}

/// Writes a response's body.
#[derive(Debug)]
pub struct BuggedEncoder {
    inner: <Strict as Codec>::Encoder,
    believes: bool,
}

impl EncodeBody for BuggedEncoder {
    fn is_done(&self) -> bool {
        !self.believes && self.inner.is_done()
    }

    fn is_framed(&self) -> bool {
        self.inner.is_framed()
    }

    fn data<B: Buf>(&mut self, data: B, output: &mut Output) -> Result<(), EncodeError> {
        if !self.believes {
            return self.inner.data(data, output);
        }
        output.put_buf(data);
        Ok(())
    }

    fn trailers(&mut self, trailers: &HeaderMap, output: &mut Output) -> Result<(), EncodeError> {
        if !self.believes {
            return self.inner.trailers(trailers, output);
        }
        self.end(output)
    }

    fn end(&mut self, output: &mut Output) -> Result<(), EncodeError> {
        if !self.believes {
            return self.inner.end(output);
        }
        self.believes = false;
        let _ = self.inner.end(output);
        Ok(())
    }
}

/// A stream with a bug around it.
#[derive(Debug)]
pub struct BuggedIo<Io> {
    io: Io,
    bug: Bug,
    /// A write had to wait.
    is_writing: bool,
    /// What was taken and isn't written.
    buffer: BytesMut,
}

impl<Io: AsyncWrite + Unpin> BuggedIo<Io> {
    fn buffers(&self) -> bool {
        matches!(self.bug, Bug::ShutdownWhileBuffered | Bug::UnboundedOutput)
    }

    fn poll_buffer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer))?;
            self.buffer.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for BuggedIo<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let loses = self.bug == Bug::LostWakeup && self.is_writing;
        let mut noop = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut self.io).poll_read(if loses { &mut noop } else { cx }, into);
        let is_eof = matches!(read, Poll::Ready(Ok(()))) && into.filled().len() == before;
        match self.bug {
            Bug::HalfCloseLoop if is_eof => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Bug::HalfCloseAbort if is_eof => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            _ => read,
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for BuggedIo<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffers() {
            self.buffer.extend_from_slice(from);
            let _ = self.poll_buffer(cx)?;
            return Poll::Ready(Ok(from.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, from);
        self.is_writing = written.is_pending();
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = self.poll_buffer(cx)?;
        // This is the bug: what must wait is left behind.
        if self.bug != Bug::ShutdownWhileBuffered {
            ready!(rest);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = self.poll_buffer(cx)?;
        if self.bug != Bug::ShutdownWhileBuffered {
            ready!(rest);
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
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
