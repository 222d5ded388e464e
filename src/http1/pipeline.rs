//! Concurrent pipelining: safe requests that came behind each other are handled at the same time and answered in the
//! order in which they came (RFC 9112 section 9.3.2). Off unless it is asked for.
//!
//! Whatever isn't safe, has a body or offers to leave HTTP is a barrier: it waits until all before it are answered,
//! and then has a turn of its own.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::Settings;
use super::connection::{
    begin, decode_head, make_room, open, poll_absent, poll_send, send_interim,
};
use super::exchange::{Ending, Exchange, Linger};
use super::intake::Intake;
use super::wire::{Stop, Wire};
use crate::body::Body;
use crate::codec::{Codec, Head, Length};
use crate::conn::{CloseReason, State};
use crate::error::BoxError;
use crate::service::{Failed, catch};

/// Whether the request may be handled beside others: nobody can tell in which order that happened
/// (RFC 9110 section 9.2.1), and nothing has to be read for it.
pub(super) fn may_share(exchange: &Exchange, method: &Method, length: Length) -> bool {
    method.is_safe() && length == Length::Known(0) && !exchange.codec.upgrade
}

/// Answers a request for which the service is ready, and those that come behind it and may share its turn.
pub(super) async fn answer<Io, C, S, B>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    service: &mut S,
    intake: &mut Intake<C::Decoder>,
    settings: &Settings,
    first: (Exchange, C::Decoder),
) -> Result<(), Ending>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let mut line = Line::new(settings.pipelined);
    line.call(wire, service, intake, first);
    loop {
        make_room(wire, settings).await?;
        let (mut exchange, answer) = wire
            .until(|cx, wire| line.poll_front(cx, wire, codec, service, intake))
            .await?;
        let mut sending = pin!(begin(wire, codec, intake, &mut exchange, settings, answer)?);
        if let Some(mut sending) = sending.as_mut().as_pin_mut() {
            wire.until(|cx, wire| {
                line.poll_calls(cx);
                poll_send(
                    cx,
                    sending.as_mut(),
                    wire,
                    codec,
                    intake,
                    &mut exchange,
                    settings,
                )
            })
            .await??;
        }
        exchange.hide(wire.live());
        if let Some(why) = exchange.closes() {
            return Err(Ending::Close {
                linger: Linger::after(&why, wire.has_input()),
                why,
            });
        }
        wire.be_fair().await?;
        if line.places.is_empty() {
            return line.refused.map_or(Ok(()), Err);
        }
    }
}

/// Requests under way, in the order of their answers.
struct Line<F, B> {
    places: VecDeque<Place<F, B>>,
    most: usize,
    /// A head that can't be read: refused once all before it are answered.
    refused: Option<Ending>,
    /// Nothing joins behind a barrier.
    is_closed: bool,
}

struct Place<F, B> {
    exchange: Exchange,
    call: Call<F, B>,
}

enum Call<F, B> {
    Running(Pin<Box<F>>),
    Done(Result<Response<B>, Failed>),
}

impl<F, B, E> Line<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    fn new(most: usize) -> Self {
        Self {
            places: VecDeque::new(),
            most,
            refused: None,
            is_closed: false,
        }
    }

    /// Calls the service, which is ready, with the request whose head was decoded last.
    fn call<Io, D, S>(
        &mut self,
        wire: &mut Wire<Io>,
        service: &mut S,
        intake: &mut Intake<D>,
        (mut exchange, decoder): (Exchange, D),
    ) where
        Io: AsyncRead + AsyncWrite + Unpin,
        D: crate::codec::DecodeBody,
        S: Service<Request<Body>, Future = F, Error = E, Response = Response<B>>,
    {
        let none = Length::Known(0);
        let call = catch(|| service.call(open(wire, intake, &mut exchange, none, decoder)));
        let call = match call {
            Ok(call) => Call::Running(Box::pin(call)),
            Err(panicked) => Call::Done(Err(Failed::Panicked(panicked))),
        };
        self.places.push_back(Place { exchange, call });
    }

    /// The first answer, once it is there. More requests join while it isn't.
    fn poll_front<Io, C, S>(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire<Io>,
        codec: &mut C,
        service: &mut S,
        intake: &mut Intake<C::Decoder>,
    ) -> Poll<Result<(Exchange, Result<Response<B>, Failed>), Stop>>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
        C: Codec,
        S: Service<Request<Body>, Future = F, Error = E, Response = Response<B>>,
    {
        loop {
            while self.has_room() && self.join(cx, wire, codec, service, intake) {}
            self.poll_calls(cx);
            if let Some((exchange, answer)) = self.take_front() {
                return Poll::Ready(Ok((exchange, answer)));
            }
            let Some(front) = self.places.front_mut() else {
                return Poll::Pending;
            };
            if wire.live().expects_mail() {
                let mail = wire.live().take_mail();
                send_interim(wire, codec, &front.exchange, mail);
            }
            front.exchange.show(wire.live());
            wire.show(State::Handling);
            if !self.has_room() || wire.is_eof() {
                return poll_absent(cx, wire, intake);
            }
            if wire.poll_fill(cx)?.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn has_room(&self) -> bool {
        !self.is_closed && self.places.len() < self.most
    }

    /// Lets the next request join, if there is one, it may, and the service is ready for it.
    fn join<Io, C, S>(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire<Io>,
        codec: &mut C,
        service: &mut S,
        intake: &mut Intake<C::Decoder>,
    ) -> bool
    where
        Io: AsyncRead + AsyncWrite + Unpin,
        C: Codec,
        S: Service<Request<Body>, Future = F, Error = E, Response = Response<B>>,
    {
        let head = match decode_head(wire, codec) {
            Ok(None) => return false,
            Ok(Some(head)) => head,
            Err(refused) => {
                self.is_closed = true;
                self.refused = Some(refused);
                return false;
            }
        };
        let number = wire.live().requests() + 1;
        let parts = &wire.desk().parts;
        let mut exchange = Exchange::new(head.exchange.clone(), number, parts);
        let ready = if may_share(&exchange, &parts.method, head.length) {
            catch(|| service.poll_ready(cx))
        } else {
            Ok(Poll::Pending)
        };
        let failed = match ready {
            Ok(Poll::Ready(Ok(()))) => {
                wire.live().count_request();
                let Head { decoder, .. } = head;
                self.call(wire, service, intake, (exchange, decoder));
                return true;
            }
            Ok(Poll::Pending) => {
                self.is_closed = true;
                intake.ahead = Some(Box::new(head));
                return false;
            }
            Ok(Poll::Ready(Err(error))) => Failed::Error(error.into()),
            Err(panicked) => Failed::Panicked(panicked),
        };
        wire.live().count_request();
        self.is_closed = true;
        exchange.close(CloseReason::ServiceFailed);
        let call = Call::Done(Err(failed));
        self.places.push_back(Place { exchange, call });
        false
    }

    fn poll_calls(&mut self, cx: &mut Context<'_>) {
        for place in &mut self.places {
            let Call::Running(call) = &mut place.call else {
                continue;
            };
            match catch(|| call.as_mut().poll(cx)) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(answer)) => {
                    place.call = Call::Done(answer.map_err(|error| Failed::Error(error.into())));
                }
                Err(panicked) => place.call = Call::Done(Err(Failed::Panicked(panicked))),
            }
        }
    }

    fn take_front(&mut self) -> Option<(Exchange, Result<Response<B>, Failed>)> {
        let Place { exchange, call } = self.places.pop_front()?;
        match call {
            Call::Done(answer) => Some((exchange, answer)),
            call => {
                self.places.push_front(Place { exchange, call });
                None
            }
        }
    }
}
