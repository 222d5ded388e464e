//! Concurrent pipelining: safe requests that came behind each other are handled at the same time and answered in the
//! order in which they came (RFC 9112 section 9.3.2). Off unless it is asked for.
//!
//! Whatever isn't safe, has a body or offers to leave HTTP is a barrier: it waits until all before it are answered,
//! and then has a turn of its own.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::connection::Connection;
use super::exchange::{Ending, Exchange};
use super::wire::Stop;
use super::{Http, Settings};
use crate::body::Body;
use crate::codec::{Codec, Head, Length};
use crate::conn::{CloseReason, Conn, ConnReport, State};
use crate::error::{BoxError, Error};
use crate::layer::layer;
use crate::limits::Limits;
use crate::service::{Failed, catch};

/// Handles pipelined requests concurrently; [`Http::concurrent_pipelining`] makes it. Off by default.
///
/// Answers leave in the order of the requests. Only safe requests without a body share (RFC 9110 section 9.2.1, RFC 9112 section
/// 9.3.2); any other waits until those before it are answered, and is handled alone. Each takes a readiness of the service of
/// its own and a boxed future. An interim response is sent only while its request is the next to be answered.
///
/// It is about HTTP/1 alone: the streams of HTTP/2 are concurrent anyway, so `with_http2` doesn't know it.
#[derive(Debug, Clone)]
#[must_use]
pub struct ConcurrentPipelining<M> {
    pub(super) http: Http<M>,
    pub(super) most: usize,
}

impl<M> ConcurrentPipelining<M> {
    /// Serves one connection over any stream, to its end; see [`Http::connection`].
    ///
    /// # Errors
    ///
    /// When the [`Limits`] can't work, or nothing may be handled.
    pub fn connection<Io, S, B, C>(
        &self,
        conn: Conn<Io>,
        service: S,
    ) -> Result<impl Future<Output = ConnReport> + use<Io, S, B, C, M>, Error>
    where
        M: Fn(&Limits) -> C,
        C: Codec,
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        self.check()?;
        let settings = self.http.settings.clone();
        let codec = (self.http.codec)(&settings.limits);
        Ok(serve(conn, codec, service, settings, self.most))
    }

    fn check(&self) -> Result<(), Error> {
        if !(1..=MOST).contains(&self.most) {
            let most = self.most;
            return Err(Error::config(format!(
                "concurrent_pipelining must be 1 to {MOST}, not {most}"
            )));
        }
        self.http.check()
    }
}

/// Nobody pipelines more in one go, but who wants to do harm.
const MOST: usize = 256;

layer!(ConcurrentPipelining);

/// Serves a connection to its end, up to `most` of its pipelined requests at a time.
pub(super) fn serve<Io, C, S, B>(
    conn: Conn<Io>,
    codec: C,
    mut service: S,
    settings: Arc<Settings>,
    most: usize,
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
            if let Err(ending) = connection.turn_shared(&mut service, most).await {
                break ending;
            }
        };
        Box::pin(connection.end(ending)).await
    }
}

/// Whether the request may be handled beside others: nobody can tell in which order that happened
/// (RFC 9110 section 9.2.1), and nothing has to be read for it.
fn may_share<D>(head: &Head<D>, method: &Method) -> bool {
    method.is_safe() && head.length == Length::Known(0) && !head.exchange.upgrade
}

impl<Io, C> Connection<Io, C>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    /// The turn of one request, or of several.
    async fn turn_shared<S, B>(&mut self, service: &mut S, most: usize) -> Result<(), Ending>
    where
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        if self.wire.owes_too_much() {
            self.make_room().await?;
        }
        let head = self.until(|cx, this| this.poll_head(cx)).await??;
        if may_share(&head, &self.wire.desk().parts.method) {
            return self.share(service, most, head).await;
        }
        self.intake.ahead = Some(Box::new(head));
        self.exchanges(service, 1).await
    }

    /// Answers a request, and those that come behind it and may share its turn.
    async fn share<S, B>(
        &mut self,
        service: &mut S,
        most: usize,
        first: Head<C::Decoder>,
    ) -> Result<(), Ending>
    where
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        let mut exchange = self.start(first.exchange);
        let ready = self
            .until(|cx, this| this.poll_service(cx, service, &mut exchange))
            .await;
        if let Err(failed) = ready.map_err(|stop| Ending::from(stop).of(&exchange))? {
            return Err(self.service_failed(exchange, failed));
        }
        self.wire.leave_phase();

        let mut line = Line::new(most);
        line.call(self, service, exchange, first.decoder);
        loop {
            if self.wire.owes_too_much() {
                self.make_room().await?;
            }
            let (mut exchange, answer) = self
                .until(|cx, this| line.poll_front(cx, this, service))
                .await?;
            let mut sending = pin!(match answer {
                Ok(response) => self.begin(&mut exchange, response)?,
                Err(failed) => self.fail(&mut exchange, failed)?,
            });
            if let Some(mut sending) = sending.as_mut().as_pin_mut() {
                self.until(|cx, this| {
                    line.poll_calls(cx);
                    this.poll_send(cx, sending.as_mut(), &mut exchange)
                })
                .await??;
            }
            self.finish(exchange)?;
            if self.wire.had_its_share() {
                self.give_way().await?;
            }
            if line.places.is_empty() {
                return line.refused.map_or(Ok(()), Err);
            }
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

type Answered<B> = (Exchange, Result<Response<B>, Failed>);

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
    fn call<Io, C, S>(
        &mut self,
        connection: &mut Connection<Io, C>,
        service: &mut S,
        mut exchange: Exchange,
        decoder: C::Decoder,
    ) where
        Io: AsyncRead + AsyncWrite + Unpin,
        C: Codec,
        S: Service<Request<Body>, Future = F, Error = E, Response = Response<B>>,
    {
        // Nothing behind a request that asked for close is served (RFC 9112 section 9.6).
        self.is_closed |= exchange.codec.close.is_some();
        let none = Length::Known(0);
        let call = catch(|| service.call(connection.open(&mut exchange, (none, decoder))));
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
        connection: &mut Connection<Io, C>,
        service: &mut S,
    ) -> Poll<Result<Answered<B>, Stop>>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
        C: Codec,
        S: Service<Request<Body>, Future = F, Error = E, Response = Response<B>>,
    {
        loop {
            while self.has_room() && self.join(cx, connection, service) {}
            self.poll_calls(cx);
            if let Some(answered) = self.take_front() {
                return Poll::Ready(Ok(answered));
            }
            let Some(front) = self.places.front_mut() else {
                return Poll::Pending;
            };
            if connection.wire.live().expects_mail() {
                let mail = connection.wire.live().take_mail();
                connection.send_interim(&front.exchange, mail);
            }
            front.exchange.show(connection.wire.live());
            connection.wire.show(State::Handling);
            if !self.has_room() || connection.wire.is_eof() {
                return connection.poll_absent(cx);
            }
            if connection.wire.poll_fill(cx)?.is_pending() {
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
        connection: &mut Connection<Io, C>,
        service: &mut S,
    ) -> bool
    where
        Io: AsyncRead + AsyncWrite + Unpin,
        C: Codec,
        S: Service<Request<Body>, Future = F, Error = E, Response = Response<B>>,
    {
        let head = match connection.decode_head() {
            Ok(None) => return false,
            Ok(Some(head)) => head,
            Err(refused) => {
                self.is_closed = true;
                self.refused = Some(refused);
                return false;
            }
        };
        let ready = if may_share(&head, &connection.wire.desk().parts.method) {
            catch(|| service.poll_ready(cx))
        } else {
            Ok(Poll::Pending)
        };
        if let Ok(Poll::Pending) = ready {
            self.is_closed = true;
            connection.intake.ahead = Some(Box::new(head));
            return false;
        }
        let mut exchange = connection.start(head.exchange);
        let failed = match ready {
            Ok(Poll::Ready(Err(error))) => Failed::Error(error.into()),
            Err(panicked) => Failed::Panicked(panicked),
            Ok(_) => {
                self.call(connection, service, exchange, head.decoder);
                return true;
            }
        };
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

    fn take_front(&mut self) -> Option<Answered<B>> {
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
