//! A connection, from top to bottom: the socket becomes a stream of requests, each handled by the service.
//!
//! HTTP/1 is sequential, so the program counter is the state machine. [`serve`] is the life, and in
//! [`Connection::exchanges`] every way to leave an exchange is in sight; what it knows is gone when the loop turns.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::Settings;
use super::deadline::Phase;
use super::exchange::{Ending, Exchange, Linger};
use super::intake::{Intake, Rest};
use super::sending::Begun;
use super::wire::{Park, Stop, Wire};
use crate::body::Body;
use crate::codec::{self, Codec, Head, Kind, Length};
use crate::conn::{CloseReason, Conn, ConnReport, State, Told};
use crate::error::BoxError;
use crate::fair;
use crate::interim::Message;
use crate::service::{Failed, Panicked, catch};
use crate::upgrade::Promise;

/// What all exchanges of a connection share.
pub(super) struct Connection<Io, C: Codec> {
    pub(super) wire: Wire<Io>,
    pub(super) codec: C,
    pub(super) intake: Intake<C::Decoder>,
    pub(super) settings: Arc<Settings>,
}

/// A head, or why none will come.
type Heard<C> = Result<Head<<C as Codec>::Decoder>, Ending>;

/// Serves a connection to its end.
///
/// What lives as long as the connection is made here and only borrowed below: an argument of an `async fn` is stored
/// twice. Its end is boxed, because it needs more room than all that comes before.
pub(super) fn serve<Io, C, S, B>(
    conn: Conn<Io>,
    codec: C,
    mut service: S,
    settings: Arc<Settings>,
) -> impl Future<Output = ConnReport>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C: Codec,
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let mut connection = Connection::new(conn, codec, settings);
    async move {
        let ending = loop {
            if let Err(ending) = connection.exchanges(&mut service, u64::MAX).await {
                break ending;
            }
        };
        Box::pin(connection.end(ending)).await
    }
}

impl<Io, C> Connection<Io, C>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    pub(super) fn new(conn: Conn<Io>, codec: C, settings: Arc<Settings>) -> Self {
        Self {
            wire: settings.wire(conn),
            codec,
            intake: Intake::new(&settings.limits),
            settings,
        }
    }

    /// Serves `most` exchanges, one after the other: each time a head is read, its request answered, the response
    /// written, the body settled.
    ///
    /// A future for each exchange would be nicer to look at, and cost 150 to 200 instructions a request to begin, to
    /// leave and to drop.
    #[expect(
        clippy::manual_async_fn,
        reason = "an argument of an `async fn` that its body moves is stored twice"
    )]
    pub(super) fn exchanges<S, B>(
        &mut self,
        service: &mut S,
        mut most: u64,
    ) -> impl Future<Output = Result<(), Ending>>
    where
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        async move {
            while most > 0 {
                most -= 1;
                if self.wire.owes_too_much() {
                    self.make_room().await?;
                }
                let head = self.until(|cx, this| this.poll_head(cx)).await??;
                let mut exchange = self.start(head.exchange);
                let body = (head.length, head.decoder);

                let ready = self
                    .until(|cx, this| this.poll_service(cx, service, &mut exchange))
                    .await;
                if let Err(failed) = ready.map_err(|stop| Ending::from(stop).of(&exchange))? {
                    return Err(self.service_failed(exchange, failed));
                }
                self.wire.leave_phase();

                // Neither request nor response are ever locals of this future, which would keep their bytes across
                // every wait, and the call isn't moved: a call that panics leaves nothing behind.
                let body = body;
                let sending = {
                    let mut call = pin!(None);
                    let _ = catch(|| call.set(Some(service.call(self.open(&mut exchange, body)))));
                    self.until(|cx, this| this.poll_answer(cx, call.as_mut(), &mut exchange))
                        .await?
                };
                {
                    let mut sending = pin!(sending?);
                    if let Some(mut sending) = sending.as_mut().as_pin_mut() {
                        self.until(|cx, this| this.poll_send(cx, sending.as_mut(), &mut exchange))
                            .await??;
                    }
                }

                if !matches!(self.intake.rest(&self.settings.limits), Rest::Nothing) {
                    self.settle(&mut exchange).await?;
                }
                self.intake.finish();
                self.finish(exchange)?;
                if self.wire.had_its_share() {
                    self.give_way().await?;
                }
            }
            Ok(())
        }
    }

    /// The one place that waits. `step` is polled until it is ready; each time it isn't, what is owed is sent, the
    /// deadlines are looked at, and only then the thread is given up.
    #[inline(always)]
    pub(super) fn until<T>(
        &mut self,
        mut step: impl FnMut(&mut Context<'_>, &mut Self) -> Poll<Result<T, Stop>>,
    ) -> impl Future<Output = Result<T, Stop>> {
        poll_fn(move |cx| {
            loop {
                if let Poll::Ready(ready) = step(cx, self) {
                    return Poll::Ready(ready);
                }
                match self.wire.park(cx) {
                    Park::Wait => return Poll::Pending,
                    Park::Again => {}
                    Park::Stop(stop) => return Poll::Ready(Err(stop)),
                }
            }
        })
    }

    /// Waits until no more is owed than may be.
    #[cold]
    pub(super) async fn make_room(&mut self) -> Result<(), Stop> {
        self.until(|cx, this| {
            let room = this.wire.poll_room(cx).map_err(Stop::from);
            if room.is_pending() {
                this.wire.show(State::Sending);
            }
            room
        })
        .await
    }

    /// Decodes the next head, reading what it takes.
    #[inline(always)]
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard<C>, Stop>> {
        if let Some(ahead) = self.intake.ahead.take() {
            return Poll::Ready(Ok(Ok(*ahead)));
        }
        loop {
            match self.decode_head() {
                Ok(Some(head)) => return Poll::Ready(Ok(Ok(head))),
                Ok(None) => {}
                Err(ending) => return Poll::Ready(Ok(Err(ending))),
            }
            if let ControlFlow::Break(why) = ready!(self.poll_more(cx))? {
                let linger = Linger::Not;
                return Poll::Ready(Ok(Err(Ending::Close { why, linger })));
            }
        }
    }

    /// Takes a head from what was read.
    #[inline]
    pub(super) fn decode_head(&mut self) -> Result<Option<Head<C::Decoder>>, Ending> {
        if !self.wire.has_input() {
            return Ok(None);
        }
        let desk = self.wire.desk();
        self.codec
            .decode_head(&mut desk.input, &mut desk.parts)
            .map_err(|reject| Ending::Refuse(reject, None))
    }

    /// Waits for more of a head, or for a reason to stop waiting.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ControlFlow<CloseReason>, Stop>> {
        let wire = &mut self.wire;
        // One write answers all the requests of a read.
        let _ = wire.poll_flush(cx)?;
        let idle = !wire.has_input();
        if wire.is_eof() {
            let why = if idle {
                CloseReason::ClientClosed
            } else {
                CloseReason::Truncated
            };
            return Poll::Ready(Ok(ControlFlow::Break(why)));
        }
        let read = wire.poll_fill(cx)?;
        if read.is_ready() {
            return Poll::Ready(Ok(ControlFlow::Continue(())));
        }
        // Only now: a request that has come already is still served.
        if idle && wire.told() >= Told::Drain {
            return Poll::Ready(Ok(ControlFlow::Break(wire.live().told_why())));
        }
        let limits = &self.settings.limits;
        if wire.live().requests() == 0 {
            wire.enter_until(Phase::Head, wire.live().since() + limits.head_timeout);
            wire.show(if idle {
                State::Idle
            } else {
                State::ReadingHead
            });
            // Nothing has come yet, and perhaps never will.
            wire.clear_desk();
        } else if idle {
            let timeout = wire.idle_timeout();
            wire.enter(Phase::Idle(timeout), timeout);
            wire.clear_desk();
        } else {
            wire.enter(Phase::Head, limits.head_timeout);
        }
        Poll::Pending
    }

    /// The exchange of a head that was just decoded.
    #[inline(always)]
    pub(super) fn start(&mut self, exchange: codec::Exchange) -> Exchange {
        self.wire.leave_phase();
        let live = self.wire.live();
        live.count_request();
        let number = live.requests();
        Exchange::new(exchange, number, &self.wire.desk().parts)
    }

    /// Waits for the service to have room, now that there is a request. Nothing is read meanwhile.
    #[inline]
    pub(super) fn poll_service<S, R>(
        &mut self,
        cx: &mut Context<'_>,
        service: &mut S,
        exchange: &mut Exchange,
    ) -> Poll<Result<Result<(), Failed>, Stop>>
    where
        S: Service<R, Error: Into<BoxError>>,
    {
        match catch(|| service.poll_ready(cx)) {
            Ok(Poll::Ready(ready)) => {
                Poll::Ready(Ok(ready.map_err(|error| Failed::Error(error.into()))))
            }
            Err(panicked) => Poll::Ready(Ok(Err(Failed::Panicked(panicked)))),
            Ok(Poll::Pending) => {
                exchange.show(self.wire.live());
                self.wire
                    .enter(Phase::Ready, self.settings.limits.ready_timeout);
                Poll::Pending
            }
        }
    }

    /// Makes the request of the head that was just decoded.
    #[inline(always)]
    pub(super) fn open(
        &mut self,
        exchange: &mut Exchange,
        (length, decoder): (Length, C::Decoder),
    ) -> Request<Body> {
        let body = self.intake.open(&mut self.wire, exchange, length, decoder);
        let mut request = Request::from_parts(self.wire.desk().take_parts(), body);
        let is_tunnel = exchange.codec.method == Kind::Connect && length == Length::Known(0);
        if exchange.codec.upgrade || is_tunnel {
            let (sender, promise) = Promise::new();
            exchange.upgrade = Some(Box::new(sender));
            #[cfg(feature = "hyper-upgrade")]
            crate::upgrade::hyper::promise(request.extensions_mut(), &promise);
            request.extensions_mut().insert(promise);
        }
        request
    }

    /// Polls the handler, gives it of the body what it wants, and notices when the client goes away. What it answers
    /// is begun at once.
    #[inline]
    fn poll_answer<F, B, E>(
        &mut self,
        cx: &mut Context<'_>,
        mut call: Pin<&mut Option<F>>,
        exchange: &mut Exchange,
    ) -> Poll<Result<Begun<B, C>, Stop>>
    where
        F: Future<Output = Result<Response<B>, E>>,
        E: Into<BoxError>,
        B: http_body::Body,
    {
        // Woken by the socket, most likely: to feed first spares one poll of the handler.
        if self.intake.is_starved() {
            let _ = self.poll_feed(cx, exchange)?;
        }
        loop {
            // A call that panicked isn't there.
            let Some(running) = call.as_mut().as_pin_mut() else {
                return Poll::Ready(Ok(self.fail(exchange, Failed::Panicked(Panicked))));
            };
            // Through a place of its own, because what `catch` returns is moved more than once.
            let mut answer = Poll::Pending;
            if catch(|| answer = running.poll(cx)).is_err() {
                call.set(None);
                continue;
            }
            if let Poll::Ready(answer) = answer {
                // It may still hold the request's body, and whether that is read decides how the response begins.
                call.set(None);
                return Poll::Ready(Ok(match answer {
                    Ok(response) => self.begin(exchange, response),
                    Err(error) => self.fail(exchange, Failed::Error(error.into())),
                }));
            }
            if self.wire.live().expects_mail() {
                let mail = self.wire.live().take_mail();
                self.send_interim(exchange, mail);
            }
            if self.poll_feed(cx, exchange)?.is_pending() {
                exchange.show(self.wire.live());
                self.wire.show(State::Handling);
                return self.poll_absent(cx);
            }
        }
    }

    /// Gives whoever reads the request's body what it waits for.
    pub(super) fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Result<(), Stop>> {
        self.intake
            .poll_feed(cx, &mut self.wire, &mut self.codec, exchange)
    }

    /// Nothing to do but to notice a client that goes away: pending, but for an abort.
    pub(super) fn poll_absent<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Stop>> {
        if self.intake.is_starved() {
            return Poll::Pending;
        }
        self.wire.poll_read_ahead(cx).map(|error| Err(error.into()))
    }

    /// Encodes what the handler asked to be sent before its response.
    pub(super) fn send_interim(&mut self, exchange: &Exchange, mail: Vec<Message>) {
        for Message {
            exchange: number,
            status,
            fields,
            sent,
        } in mail
        {
            let speaks = number == exchange.number && !exchange.codec.http10;
            let output = &mut self.wire.desk().output;
            if speaks && self.codec.encode_interim(status, &fields, output).is_ok() {
                let _ = sent.send(());
            }
        }
    }

    /// The response is out and the request's body isn't done: it is fed to whoever still reads it, and drained if that
    /// was promised.
    #[cold]
    async fn settle(&mut self, exchange: &mut Exchange) -> Result<(), Ending> {
        self.until(|cx, this| {
            while this.poll_feed(cx, exchange)?.is_ready() {}
            if matches!(this.intake.rest(&this.settings.limits), Rest::Held) {
                exchange.show(this.wire.live());
                this.wire.show(State::Draining);
                return this.poll_absent(cx);
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        match self.intake.rest(&self.settings.limits) {
            Rest::Drainable if exchange.codec.close.is_none() => {
                self.wire
                    .enter(Phase::Drain, self.settings.limits.drain_timeout);
                self.until(|cx, this| this.intake.poll_drain(cx, &mut this.wire, exchange))
                    .await?;
                self.wire.leave_phase();
            }
            Rest::Drainable | Rest::Unread => exchange.close(CloseReason::BodyUnread),
            Rest::Nothing | Rest::Held => {}
        }
        Ok(())
    }

    /// The exchange is over; an error ends the connection with it.
    #[inline]
    pub(super) fn finish(&mut self, mut exchange: Exchange) -> Result<(), Ending> {
        exchange.hide(self.wire.live());
        match exchange.closes() {
            None => Ok(()),
            Some(why) => Err(Ending::Close {
                linger: Linger::after(&why, self.wire.has_input()),
                why,
            }),
        }
    }

    /// Lets other tasks of the thread run.
    #[cold]
    pub(super) async fn give_way(&mut self) -> Result<(), Stop> {
        let mut gave_way = false;
        self.until(|cx, _| {
            if std::mem::replace(&mut gave_way, true) {
                return Poll::Ready(Ok(()));
            }
            fair::give_way(cx);
            Poll::Pending
        })
        .await
    }
}
