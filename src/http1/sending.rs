//! The response on its way out: the one place that decides whether the connection goes on, and the body behind the
//! head, as there is room for it. Knows no framing (the codec's) and no waiting (the connection's).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Connection;
use super::exchange::{Ending, Exchange};
use super::intake::{Rest, say_continue};
use super::wire::Stop;
use crate::codec::{Codec, EncodeBody, Kind, Reply};
use crate::conn::{CloseReason, State, Told};
use crate::date;
use crate::fair;
use crate::service::{Failed, Panicked, catch};

pin_project! {
    /// A response on its way out.
    pub(super) struct Sending<B, E> {
        #[pin]
        body: B,
        encoder: E,
    }
}

/// What is left of a response once its head is encoded, if anything is.
pub(super) type Begun<B, C> = Result<Option<Sending<B, <C as Codec>::Encoder>>, Ending>;

impl<Io, C> Connection<Io, C>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    /// Decides whether the connection can go on and encodes the response's head; what is left is its body, if it has
    /// one that must be polled.
    #[inline(always)]
    pub(super) fn begin<B>(&mut self, exchange: &mut Exchange, response: Response<B>) -> Begun<B, C>
    where
        B: http_body::Body,
    {
        self.decide(exchange);
        let (head, body) = response.into_parts();
        let reply = Reply {
            head: &head,
            length: body.size_hint().exact(),
            date: &date::line(self.wire.now()),
        };
        let output = &mut self.wire.desk().output;
        let encoder = match self.codec.encode_head(&mut exchange.codec, reply, output) {
            Ok(encoder) => encoder,
            Err(error) => return self.fail(exchange, Failed::Unsendable(error)),
        };
        self.wire.keep_idle(exchange.codec.keep_alive);
        let leaves_http = head.status == StatusCode::SWITCHING_PROTOCOLS
            || exchange.codec.method == Kind::Connect && head.status.is_success();
        self.wire.desk().keep_fields(head.headers);
        if leaves_http {
            return Err(Ending::HandOver(exchange.upgrade.take()));
        }
        Ok((!encoder.is_done()).then_some(Sending { body, encoder }))
    }

    /// The same, where the handler has no response that can be sent.
    #[cold]
    pub(super) fn fail<B>(&mut self, exchange: &mut Exchange, failed: Failed) -> Begun<B, C> {
        self.decide(exchange);
        if let Failed::Panicked(_) = failed {
            exchange.close(CloseReason::Panicked);
        }
        self.encode_whole(exchange, self.settings.failure(failed));
        Ok(None)
    }

    /// Whether the connection can go on after this exchange; the head is about to say so.
    #[inline(always)]
    fn decide(&mut self, exchange: &mut Exchange) {
        if self.wire.live().expects_mail() {
            let mail = self.wire.live().take_last_mail(exchange.number);
            self.send_interim(exchange, mail);
        }
        match self.intake.rest(&self.settings.limits) {
            Rest::Nothing => {}
            // Somebody will still read the body, so the client must send it; after the final head it couldn't be told.
            Rest::Held if exchange.codec.expects_continue => {
                say_continue(&mut self.wire, &mut self.codec, exchange)
            }
            Rest::Held => {}
            // A client that still waits for 100 may or may not send the body now, and nobody could tell which.
            Rest::Drainable if exchange.codec.expects_continue => {
                exchange.close(CloseReason::BodyUnread)
            }
            Rest::Drainable => {}
            Rest::Unread => exchange.close(CloseReason::BodyUnread),
        }
        if self.wire.told() > Told::Nothing {
            exchange.close(self.wire.live().told_why());
        }
        if self.wire.now() >= self.wire.retires() {
            exchange.close(CloseReason::MaxAge);
        }
    }

    /// Encodes a response of the container's own.
    #[cold]
    pub(super) fn encode_whole(&mut self, exchange: &mut Exchange, response: Response<Bytes>) {
        let (head, body) = response.into_parts();
        let date = date::line(self.wire.now());
        let output = &mut self.wire.desk().output;
        let reply = Reply {
            head: &head,
            length: Some(body.len() as u64),
            date: &date,
        };
        let whole = self
            .codec
            .encode_head(&mut exchange.codec, reply, output)
            .and_then(|mut encoder| {
                if !encoder.is_done() {
                    encoder.data(body, output)?;
                    encoder.end(output)?;
                }
                Ok(())
            });
        // A hook's response that can't be sent leaves nothing to say.
        if whole.is_err() {
            exchange.close(CloseReason::ResponseFailed);
        }
    }

    /// Polls the response's body and encodes it as there is room; the request's body may still be read meanwhile.
    #[inline(always)]
    pub(super) fn poll_send<B>(
        &mut self,
        cx: &mut Context<'_>,
        sending: Pin<&mut Sending<B, C::Encoder>>,
        exchange: &mut Exchange,
    ) -> Poll<Result<Result<(), Ending>, Stop>>
    where
        B: http_body::Body,
    {
        let mut sending = sending.project();
        let is_framed = sending.encoder.is_framed();
        let break_off = |why| Poll::Ready(Ok(Err(Ending::BreakOff { why, is_framed })));
        loop {
            if self.wire.poll_room(cx)?.is_pending() {
                exchange.show(self.wire.live());
                self.wire.show(State::Sending);
                // A reader of the request's body in another task isn't held up by a client that doesn't read.
                while self.poll_feed(cx, exchange)?.is_ready() {}
                return Poll::Pending;
            }
            if self.wire.has_written_its_share() {
                fair::give_way(cx);
                return Poll::Pending;
            }
            // A body that has given all it declared, and doesn't say that it ends, is asked once more: it may go on,
            // which is an error of the handler.
            let is_written = sending.encoder.is_done();
            let mut is_over = is_written;
            let output = &mut self.wire.desk().output;
            let encoded = match catch(|| sending.body.as_mut().poll_frame(cx)) {
                Ok(Poll::Ready(Some(Ok(frame)))) => match frame.into_data() {
                    Ok(data) => sending.encoder.data(data, output),
                    Err(frame) => {
                        is_over = true;
                        let trailers = frame.into_trailers().unwrap_or_default();
                        sending.encoder.trailers(&trailers, output)
                    }
                },
                Ok(Poll::Ready(None)) => {
                    is_over = true;
                    sending.encoder.end(output)
                }
                _ if is_written => Ok(()),
                Ok(Poll::Ready(Some(Err(_)))) => return break_off(CloseReason::ResponseFailed),
                Err(Panicked) => return break_off(CloseReason::Panicked),
                Ok(Poll::Pending) => {
                    if self.poll_feed(cx, exchange)?.is_pending() {
                        exchange.show(self.wire.live());
                        self.wire.show(State::Sending);
                        return self.poll_absent(cx);
                    }
                    continue;
                }
            };
            if encoded.is_err() {
                return break_off(CloseReason::ResponseLength);
            }
            if sending.encoder.is_done() && (is_over || sending.body.is_end_stream()) {
                return Poll::Ready(Ok(Ok(())));
            }
        }
    }
}
