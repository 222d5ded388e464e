//! The socket below h2, watched: frames that break the rules never reach h2, floods are counted, what stands still in the
//! middle is seen, and the last `GOAWAY` is said by the connection and not by h2. The only thing here that touches the
//! socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::churn::Churn;
use super::frames::{Cut, Cutter, HEAD, Head, Rules, code, kind};
use super::hpack;
use super::meter::StreamMeter;
use crate::conn::{Http2Error, Live};
use crate::fair;
use crate::limits::Limits;

/// The first bytes of a client (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// After so many frames in one go a connection lets others have the thread: those without a request cost a tenth of one that
/// has it.
const FAIR_FRAMES: u32 = 256;

/// What has come of a frame or a field block that isn't whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// Nothing: the last frame is whole.
    Nothing,
    /// Content of this stream, so many bytes of it so far.
    Content { stream: u32, got: u32 },
    /// Anything else, with its number among all that began.
    Other(u64),
}

pub(super) struct Wire<Io> {
    pub(super) io: Io,
    live: Arc<Live>,
    /// Read, and kept for the next turn; at first, read by whoever found out that this is HTTP/2.
    early: Bytes,
    /// Bytes of the preface that have come.
    preface: usize,
    coming: Cutter,
    rules: Rules,
    churn: Churn,
    /// Bytes of the payload under way that have come.
    got: u32,
    /// The field block that came last.
    block: Vec<u8>,
    most_block: usize,
    /// How many frames or field blocks have begun.
    begun: u64,
    going: Cutter,
    /// What the client did wrong.
    verdict: Option<Http2Error>,
    /// The client's own last words.
    pub(super) farewell: Option<u32>,
    farewell_got: [u8; 8],
    /// The last stream, and the error code, of the `GOAWAY` with which h2 gave up; nothing is sent behind it.
    pub(super) gave_up: Option<(u32, u32)>,
    /// The peer has finished sending, and whether h2 may know.
    pub(super) eof: bool,
    pub(super) tell_eof: bool,
    pub(super) failed: Option<io::ErrorKind>,
    /// What was read and written in one go, and how many streams had been opened before.
    read: usize,
    written: usize,
    frames: u32,
    opened_before: u64,
    pub(super) arriving: StreamMeter,
    pub(super) writing: StreamMeter,
}

impl<Io> Wire<Io> {
    pub(super) fn new(io: Io, early: Bytes, live: Arc<Live>, limits: &Limits) -> Self {
        Self {
            io,
            live,
            early,
            preface: 0,
            coming: Cutter::default(),
            rules: Rules::default(),
            churn: Churn::new(limits),
            got: 0,
            block: Vec::new(),
            most_block: limits.http2_header_list_bytes as usize * 2,
            begun: 0,
            going: Cutter::default(),
            verdict: None,
            farewell: None,
            farewell_got: [0; 8],
            gave_up: None,
            eof: false,
            tell_eof: false,
            failed: None,
            read: 0,
            written: 0,
            frames: 0,
            opened_before: 0,
            arriving: StreamMeter::new(limits),
            writing: StreamMeter::new(limits),
        }
    }

    /// What the client did wrong, if it did.
    pub(super) fn verdict(&self) -> Option<Http2Error> {
        self.verdict
    }

    /// What h2 gave up for, in the words of the RFC.
    pub(super) fn blame(&self) -> Option<Http2Error> {
        let (_, said) = self.gave_up?;
        if let Some(verdict) = self.verdict {
            return Some(verdict);
        }
        let what = match said {
            // A frame that is as it should be, with a block that isn't: h2 has one code for all of it.
            code::PROTOCOL_ERROR if self.is_block_last() && !hpack::has_bad_field(&self.block) => {
                return Some(Http2Error::new(
                    code::COMPRESSION_ERROR,
                    "a field block can't be decoded",
                ));
            }
            code::PROTOCOL_ERROR => "a frame or a field that the protocol doesn't allow there",
            code::FLOW_CONTROL_ERROR => {
                "more was sent than the window allows, or a window overflowed"
            }
            code::STREAM_CLOSED => "a frame on a closed stream",
            code::ENHANCE_YOUR_CALM => "too much of what carries nothing",
            code::COMPRESSION_ERROR => "a field block can't be decoded",
            _ => "the connection can't go on",
        };
        Some(Http2Error::new(said, what))
    }

    /// The last whole frame ended a field block.
    fn is_block_last(&self) -> bool {
        !self.block.is_empty() && !self.rules.in_block()
    }

    pub(super) fn has_begun(&self) -> bool {
        self.rules.has_begun()
    }

    /// Not a byte has come.
    pub(super) fn is_silent(&self) -> bool {
        self.preface == 0
    }

    /// How many streams the client has opened.
    pub(super) fn opened(&self) -> u64 {
        self.rules.count()
    }

    /// The last stream that the client opened.
    pub(super) fn last_stream(&self) -> u32 {
        self.rules.last_stream()
    }

    /// What isn't whole.
    pub(super) fn half(&self) -> Half {
        if self.preface < PREFACE.len() || !self.rules.has_begun() || self.rules.in_block() {
            return Half::Other(self.begun);
        }
        match self.coming.half() {
            None => Half::Nothing,
            Some(Some(head)) if head.kind == kind::DATA => Half::Content {
                stream: head.stream,
                got: self.got,
            },
            Some(_) => Half::Other(self.begun),
        }
    }

    /// The thread is given up: what was read and written in one go is forgotten. `true` if there may be more to read or
    /// write.
    pub(super) fn rest(&mut self) -> bool {
        let had_its_share = self.has_read_its_share() || self.has_written_its_share();
        (self.read, self.written, self.frames) = (0, 0, 0);
        self.opened_before = self.rules.count();
        had_its_share
    }

    fn has_read_its_share(&self) -> bool {
        self.read >= fair::READ as usize
            || self.frames >= FAIR_FRAMES
            || self.rules.count() - self.opened_before >= u64::from(fair::REQUESTS)
    }

    fn has_written_its_share(&self) -> bool {
        self.written >= fair::WRITTEN as usize
    }

    /// Looks at what came: how many bytes of it h2 may have now, which are those before what offends or is left to the next
    /// turn.
    fn watch(&mut self, bytes: &[u8]) -> usize {
        match self.watch_turn(bytes) {
            Ok(count) => count,
            Err((error, count)) => {
                self.verdict = Some(error);
                count
            }
        }
    }

    fn watch_turn(&mut self, bytes: &[u8]) -> Result<usize, (Http2Error, usize)> {
        let mut rest = self.watch_preface(bytes)?;
        loop {
            let at = bytes.len() - rest.len();
            // Between two frames.
            if self.has_read_its_share() && self.coming.half().is_none() {
                return Ok(at);
            }
            let judged = match self.coming.next(&mut rest) {
                None => return Ok(bytes.len()),
                Some(Cut::Head(head)) => self.watch_head(head),
                Some(Cut::Payload(head, piece)) => self.watch_payload(head, piece),
            };
            judged.map_err(|error| (error, at))?;
        }
    }

    fn watch_preface<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], (Http2Error, usize)> {
        let wanted = &PREFACE[self.preface..];
        let len = wanted.len().min(bytes.len());
        if bytes[..len] != wanted[..len] {
            let what = "a connection must begin with the preface of HTTP/2";
            return Err((Http2Error::new(code::PROTOCOL_ERROR, what), 0));
        }
        self.preface += len;
        Ok(&bytes[len..])
    }

    fn watch_head(&mut self, head: Head) -> Result<(), Http2Error> {
        self.got = 0;
        self.frames += 1;
        if !self.rules.in_block() {
            self.begun += 1;
            self.block.clear();
        }
        self.rules.head(head)?;
        if matches!(head.kind, kind::HEADERS | kind::CONTINUATION)
            && self.block.len() + head.len as usize > self.most_block
        {
            let what = "a field block is larger than all that is accepted";
            return Err(Http2Error::new(code::ENHANCE_YOUR_CALM, what));
        }
        self.churn.came(head)
    }

    fn watch_payload(&mut self, head: Head, piece: &[u8]) -> Result<(), Http2Error> {
        let before = self.got;
        self.got += piece.len() as u32;
        if let (0, Some(first)) = (before, piece.first()) {
            self.rules.padding(head, *first)?;
        }
        match head.kind {
            kind::HEADERS | kind::CONTINUATION => {
                hpack::keep(&mut self.block, head, before, piece);
                let is_whole = self.got == head.len && !self.rules.in_block();
                if is_whole && self.rules.is_trailers() && hpack::has_pseudo_field(&self.block) {
                    let what = "a trailer section has no pseudo-fields";
                    return Err(Http2Error::new(code::PROTOCOL_ERROR, what));
                }
                Ok(())
            }
            kind::SETTINGS => self.rules.settings(piece),
            kind::GOAWAY => {
                for (at, byte) in (before as usize..8).zip(piece) {
                    self.farewell_got[at] = *byte;
                }
                if self.got >= 8 {
                    let [.., a, b, c, d] = self.farewell_got;
                    self.farewell = Some(u32::from_be_bytes([a, b, c, d]));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// How many bytes may be sent: all, or those before the `GOAWAY` with which h2 gives up.
    fn until_giving_up(&self, slices: &[IoSlice<'_>]) -> (usize, Option<(u32, u32)>) {
        let mut probe = self.going.clone();
        let mut sent = 0;
        for slice in slices {
            let mut rest: &[u8] = slice;
            loop {
                let at = slice.len() - rest.len();
                match probe.next(&mut rest) {
                    None => break,
                    Some(Cut::Head(head)) if head.kind == kind::GOAWAY => {
                        if let Some([a, b, c, d, e, f, g, h]) = rest.first_chunk()
                            && [*e, *f, *g, *h] != [0; 4]
                        {
                            let last = u32::from_be_bytes([*a, *b, *c, *d]);
                            let why = u32::from_be_bytes([*e, *f, *g, *h]);
                            return (sent + at, Some((last, why)));
                        }
                    }
                    Some(_) => {}
                }
            }
            sent += slice.len();
        }
        (sent, None)
    }

    /// So many bytes of these were sent.
    fn went(&mut self, slices: &[IoSlice<'_>], mut count: usize) {
        for slice in slices {
            let len = slice.len().min(count);
            count -= len;
            let mut rest = &slice[..len];
            while let Some(cut) = self.going.next(&mut rest) {
                match cut {
                    Cut::Head(head) => self.churn.went(head),
                    Cut::Payload(head, piece) if head.kind == kind::RST_STREAM => {
                        if let Ok(why) = piece.try_into()
                            && let Err(error) = self.churn.reset(u32::from_be_bytes(why))
                        {
                            self.verdict.get_or_insert(error);
                        }
                    }
                    Cut::Payload(..) => {}
                }
            }
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Wire<Io> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.tell_eof {
            return Poll::Ready(Ok(()));
        }
        if self.verdict.is_some() || self.eof || self.has_read_its_share() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if self.early.is_empty() {
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
            read.inspect_err(|error| self.failed = Some(error.kind()))?;
            let came = buf.filled().len() - before;
            self.live.count_in(came);
            self.eof = came == 0;
            let count = self.watch(&buf.filled()[before..]);
            if count < came {
                self.early = Bytes::copy_from_slice(&buf.filled()[before + count..]);
                buf.set_filled(before + count);
            }
        } else {
            let early = self.early.slice(..self.early.len().min(buf.remaining()));
            let count = self.watch(&early);
            buf.put_slice(&early[..count]);
            self.early.advance(count);
        }
        let read = buf.filled().len() - before;
        // No bytes would be taken for the end.
        if read == 0 {
            return Poll::Pending;
        }
        self.read += read;
        if self.arriving.is_waiting() {
            self.arriving.rest(Instant::now());
            self.arriving.earn(read);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        if self.gave_up.is_some() {
            return Poll::Ready(Ok(all));
        }
        if self.has_written_its_share() {
            return Poll::Pending;
        }
        let (allowed, gives_up) = self.until_giving_up(slices);
        if allowed == 0 && gives_up.is_some() {
            self.gave_up = gives_up;
            return Poll::Ready(Ok(all));
        }
        let io = Pin::new(&mut self.io);
        let written = match slices {
            [one] => io.poll_write(cx, &one[..allowed]),
            _ if allowed == all => io.poll_write_vectored(cx, slices),
            [first, ..] => io.poll_write(cx, &first[..allowed.min(first.len())]),
            [] => return Poll::Ready(Ok(0)),
        };
        match written {
            Poll::Pending => {
                self.writing.wait(Instant::now());
                Poll::Pending
            }
            Poll::Ready(Err(error)) => {
                self.failed = Some(error.kind());
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(count)) => {
                self.written += count;
                self.live.count_out(count);
                if self.writing.is_waiting() {
                    self.writing.rest(Instant::now());
                    if count == all {
                        self.writing.forgive();
                    }
                }
                self.writing.earn(count);
                self.went(slices, count);
                Poll::Ready(Ok(count))
            }
        }
    }
}

/// h2's hand on the wire.
pub(super) struct Tap<Io>(Arc<Mutex<Wire<Io>>>);

impl<Io> Tap<Io> {
    pub(super) fn new(wire: Wire<Io>) -> Self {
        Self(Arc::new(Mutex::new(wire)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Wire<Io>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Io> Clone for Tap<Io> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tap<Io> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.lock().poll_read(cx, buf)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tap<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_flush(cx)
    }

    /// The end is the connection's to say, behind its last words.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// A `GOAWAY` frame; the debug data says in words what the code doesn't.
pub(super) fn goaway(last_stream: u32, error: Http2Error) -> Vec<u8> {
    let words = error.explain().as_bytes();
    let mut frame = Vec::with_capacity(HEAD + 8 + words.len());
    frame.extend_from_slice(&(8 + words.len() as u32).to_be_bytes()[1..]);
    frame.extend_from_slice(&[kind::GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&error.code().to_be_bytes());
    frame.extend_from_slice(words);
    frame
}
