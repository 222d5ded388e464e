//! The request body on its way in: decoded when its reader asks for it, and what becomes of the rest when nobody
//! does. Reads through the wire, hands over through the slot, and never waits by itself.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite};

use super::exchange::Exchange;
use super::wire::{Stop, Wire};
use crate::body::{Body, Origin, Reading, Slot};
use crate::codec::{Codec, DecodeBody, Head, Length, Piece};
use crate::conn::CloseReason;
use crate::error::{Reason, Reject};
use crate::limits::Limits;

/// The body of the request under way, if the connection still has to do with it.
pub(super) struct Intake<D> {
    /// A head that was read before its turn.
    pub(super) ahead: Option<Box<Head<D>>>,
    body: Option<Incoming<D>>,
    /// The slot of the last body, for the next one.
    spare: Option<Arc<Slot>>,
    /// The reader waits for the socket.
    starved: bool,
    /// What may be left unread of a body.
    drain_bytes: u64,
}

struct Incoming<D> {
    decoder: D,
    slot: Arc<Slot>,
    declared: Length,
    /// Its end has been decoded, or it has failed.
    over: bool,
}

/// What is left of a request body when its response is ready.
pub(super) enum Rest {
    /// Nothing that concerns the connection.
    Nothing,
    /// Somebody holds the body and may go on reading.
    Held,
    /// Nobody reads it, and it is short enough to be drained.
    Drainable,
    /// Nobody reads it.
    Unread,
}

impl<D: DecodeBody> Intake<D> {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            ahead: None,
            body: None,
            spare: None,
            starved: false,
            drain_bytes: limits.drain_bytes,
        }
    }

    /// Begins the body of a request whose head was just decoded.
    #[inline(always)]
    pub(super) fn open<Io>(
        &mut self,
        wire: &mut Wire<Io>,
        exchange: &Exchange,
        length: Length,
        decoder: D,
    ) -> Body
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let origin = Origin {
            live: wire.live().clone(),
            exchange: exchange.number,
        };
        if length == Length::Known(0) {
            return Body::arrived(Bytes::new(), origin);
        }
        self.open_content(wire, exchange, length, decoder, origin)
    }

    fn open_content<Io>(
        &mut self,
        wire: &mut Wire<Io>,
        exchange: &Exchange,
        length: Length,
        decoder: D,
        origin: Origin,
    ) -> Body
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let remaining = match length {
            Length::Known(length) => {
                let input = &mut wire.desk().input;
                let whole = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= input.len());
                // What is all there needs no slot. A client that expects 100 does: whether the body was asked for
                // decides what it is told, and must not depend on how early the body came. So does a body that
                // closes the connection when it is left unread.
                let is_free = !exchange.codec.expects_continue && length <= self.drain_bytes;
                if let Some(length) = whole.filter(|_| is_free) {
                    return Body::arrived(input.split_to(length).freeze(), origin);
                }
                Some(length)
            }
            Length::Chunked => None,
        };
        wire.restart_reading();
        let slot = self.spare.take().unwrap_or_default();
        self.body = Some(Incoming {
            decoder,
            slot: slot.clone(),
            declared: length,
            over: false,
        });
        Body::crossing(slot, remaining, origin)
    }

    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Gives the reader what it waits for. Ready when the reader got something and should be polled; pending when
    /// it wants nothing, or the socket has nothing.
    pub(super) fn poll_feed<Io, C>(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire<Io>,
        codec: &mut C,
        exchange: &mut Exchange,
    ) -> Poll<Result<(), Stop>>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
        C: Codec<Decoder = D>,
    {
        let Some(body) = self.body.as_mut().filter(|body| !body.over) else {
            return Poll::Pending;
        };
        if body.slot.watch(cx, wire.stays(cx)) != Reading::Wants {
            wire.stop_waiting_for_body();
            self.starved = false;
            return Poll::Pending;
        }
        loop {
            match body.decoder.decode(&mut wire.desk().input) {
                Ok(Some(piece)) => {
                    exchange.codec.expects_continue = false;
                    if let Piece::Data(data) = &piece {
                        wire.got_of_body(data.len());
                    }
                    body.give(piece, cx);
                    break;
                }
                Ok(None) => {}
                Err(reject) => {
                    body.fail(reject, exchange, cx);
                    break;
                }
            }
            if wire.is_eof() {
                body.fail(Reject::new(Reason::BodyCut), exchange, cx);
                break;
            }
            if wire.body_is_late() {
                body.fail(Reject::new(Reason::BodyTimeout), exchange, cx);
                break;
            }
            if exchange.codec.expects_continue && !wire.has_input() {
                say_continue(wire, codec, exchange);
            }
            match wire.poll_fill_body(cx, body.decoder.remaining())? {
                Poll::Ready(_) => wire.stop_waiting_for_body(),
                Poll::Pending => {
                    wire.wait_for_body();
                    self.starved = true;
                    return Poll::Pending;
                }
            }
        }
        wire.stop_waiting_for_body();
        self.starved = false;
        Poll::Ready(Ok(()))
    }

    /// What is left to be done for the body, judged by what the client declared and by what the reader did, never
    /// by how the bytes came.
    pub(super) fn rest(&self, limits: &Limits) -> Rest {
        let Some(body) = &self.body else {
            return Rest::Nothing;
        };
        match body.slot.reading() {
            Reading::Finished => Rest::Nothing,
            Reading::Holds | Reading::Wants if body.over => Rest::Nothing,
            Reading::Holds | Reading::Wants => Rest::Held,
            Reading::Left => match body.declared {
                Length::Known(declared) if declared <= limits.drain_bytes => Rest::Drainable,
                _ => Rest::Unread,
            },
        }
    }

    /// Decodes and discards what nobody reads; ready at its end.
    pub(super) fn poll_drain<Io>(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire<Io>,
        exchange: &mut Exchange,
    ) -> Poll<Result<(), Stop>>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(body) = self.body.as_mut().filter(|body| !body.over) else {
            return Poll::Ready(Ok(()));
        };
        loop {
            match body.decoder.decode(&mut wire.desk().input) {
                Ok(Some(Piece::End)) => break,
                Ok(Some(_)) if body.decoder.remaining() == Some(0) => break,
                Ok(Some(_)) => continue,
                Ok(None) if wire.is_eof() => {
                    exchange.close(CloseReason::Truncated);
                    break;
                }
                Ok(None) => {}
                Err(reject) => {
                    exchange.close(CloseReason::Refused(reject));
                    break;
                }
            }
            ready!(wire.poll_fill_body(cx, body.decoder.remaining()))?;
        }
        body.over = true;
        Poll::Ready(Ok(()))
    }

    /// The exchange is over; what can be used again is kept.
    #[inline]
    pub(super) fn finish(&mut self) {
        if let Some(Incoming { mut slot, .. }) = self.body.take() {
            self.starved = false;
            if Slot::reuse(&mut slot) {
                self.spare = Some(slot);
            }
        }
    }
}

impl<D> Drop for Intake<D> {
    /// The connection is gone: whoever still reads a body in another task waits for nothing.
    fn drop(&mut self) {
        if let Some(body) = &self.body {
            body.slot.abandon();
        }
    }
}

impl<D: DecodeBody> Incoming<D> {
    fn give(&mut self, piece: Piece, cx: &Context<'_>) {
        match piece {
            Piece::Data(data) => {
                // Only a declared length shows the end together with the last byte. The chunked coding needs its
                // last chunk, and whether that is there yet must not be seen.
                self.over = self.decoder.remaining() == Some(0);
                self.slot.give(Frame::data(data), self.over, cx);
            }
            Piece::Trailers(fields) => {
                self.over = true;
                self.slot.give(Frame::trailers(fields), true, cx);
            }
            Piece::End => {
                self.over = true;
                self.slot.end(Ok(()), cx);
            }
        }
    }

    fn fail(&mut self, reject: Reject, exchange: &mut Exchange, cx: &Context<'_>) {
        self.over = true;
        exchange.close(match reject.reason() {
            Reason::BodyCut => CloseReason::Truncated,
            Reason::BodyTimeout => CloseReason::BodyTimeout,
            _ => CloseReason::Refused(reject.clone()),
        });
        self.slot.end(Err(reject), cx);
    }
}

/// Says `100 Continue`, once (RFC 9110 section 10.1.1).
pub(super) fn say_continue<Io, C>(wire: &mut Wire<Io>, codec: &mut C, exchange: &mut Exchange)
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    exchange.codec.expects_continue = false;
    // It can't fail: 100 is an interim status.
    let _ = codec.encode_interim(
        StatusCode::CONTINUE,
        &HeaderMap::new(),
        &mut wire.desk().output,
    );
}
