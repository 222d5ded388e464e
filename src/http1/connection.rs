//! A connection, from top to bottom: the socket becomes a stream of requests, each handled by the service.
//!
//! HTTP/1 is sequential, so the program counter is the state machine. [`serve`] is the life, [`turn`] one exchange,
//! and every way to leave an exchange is in sight there; what an exchange knows is gone when its turn ends.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::Settings;
use super::deadline::Phase;
use super::exchange::{Ending, Exchange, Linger};
use super::intake::{Intake, Rest, say_continue};
use super::wire::{Stop, Wire, empty_parts};
use crate::body::Body;
use crate::codec::{self, Codec, EncodeBody, Head, Kind, Length, Reply};
use crate::conn::{CloseReason, Conn, ConnReport, State, Told};
use crate::date;
use crate::error::{BoxError, Reason, Reject};
use crate::interim::Message;
use crate::service::{Failed, Panicked, catch};
use crate::upgrade::{Promise, Upgraded};

/// How long a closing connection listens for what a client that may go on had sent already: a round trip, not more,
/// since a client that is done and keeps its socket open would hold up every shutdown.
const LINGER_BRIEFLY: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
///
/// The wire is made here and only borrowed below: an argument of an `async fn` is stored twice.
pub(super) fn serve<Io, C, S, B>(
    conn: Conn<Io>,
    mut codec: C,
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
    let mut wire = settings.wire(conn);
    let mut intake = Intake::default();
    async move {
        let ending = loop {
            if let Err(ending) =
                turn(&mut wire, &mut codec, &mut service, &mut intake, &settings).await
            {
                break ending;
            }
        };
        end(wire, &mut codec, ending, &settings).await
    }
}

/// One exchange: a head is read, its request answered, the response written, the body settled.
pub(super) async fn turn<Io, C, S, B>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    service: &mut S,
    intake: &mut Intake<C::Decoder>,
    settings: &Settings,
) -> Result<(), Ending>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    make_room(wire, settings).await?;
    let Head {
        exchange,
        length,
        decoder,
    } = next_head(wire, codec, intake, settings).await?;
    wire.leave_phase();
    wire.live().count_request();
    let number = wire.live().requests();
    let mut exchange = Exchange::new(exchange, number, &wire.desk().parts);

    let ready = wire
        .until(|cx, wire| poll_service(cx, wire, service, &mut exchange, settings))
        .await;
    if let Err(failed) = ready.map_err(|stop| Ending::from(stop).of(&exchange))? {
        return Err(service_failed(wire, codec, exchange, failed, settings));
    }
    wire.leave_phase();

    // The request is never a local of this future, which would keep its bytes across every wait.
    let answer = {
        let call = catch(|| service.call(open(wire, intake, &mut exchange, length, decoder)));
        match call {
            Ok(call) => {
                let mut call = pin!(call);
                wire.until(|cx, wire| {
                    poll_answer(cx, call.as_mut(), wire, codec, intake, &mut exchange)
                })
                .await?
            }
            Err(panicked) => Err(Failed::Panicked(panicked)),
        }
    };

    let mut sending = pin!(begin(wire, codec, intake, &mut exchange, settings, answer)?);
    if let Some(mut sending) = sending.as_mut().as_pin_mut() {
        wire.until(|cx, wire| {
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
    sending.set(None);

    if !matches!(intake.rest(&settings.limits), Rest::Nothing) {
        settle(wire, codec, intake, &mut exchange, settings).await?;
    }
    intake.finish();
    exchange.hide(wire.live());
    match exchange.closes() {
        None => Ok(wire.be_fair().await?),
        Some(why) => Err(Ending::Close {
            linger: Linger::after(&why, wire.has_input()),
            why,
        }),
    }
}

/// Waits until no more is owed than may be: a client that doesn't read is not served beyond it.
#[inline(always)]
pub(super) async fn make_room<Io>(wire: &mut Wire<Io>, settings: &Settings) -> Result<(), Stop>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let most = settings.limits.write_buffer_bytes;
    if wire.owed() < most {
        return Ok(());
    }
    wire.until(|cx, wire| wire.poll_room(cx, most).map_err(Stop::from))
        .await
}

/// Decodes the next head, reading what it takes.
#[inline(always)]
pub(super) async fn next_head<Io, C>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    intake: &mut Intake<C::Decoder>,
    settings: &Settings,
) -> Result<Head<C::Decoder>, Ending>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    if let Some(ahead) = intake.ahead.take() {
        return Ok(*ahead);
    }
    loop {
        if let Some(head) = decode_head(wire, codec)? {
            return Ok(head);
        }
        let more = wire.until(|cx, wire| poll_more(cx, wire, settings)).await?;
        if let ControlFlow::Break(why) = more {
            return Err(Ending::Close {
                why,
                linger: Linger::Not,
            });
        }
    }
}

/// Takes a head from what was read.
pub(super) fn decode_head<Io, C>(
    wire: &mut Wire<Io>,
    codec: &mut C,
) -> Result<Option<Head<C::Decoder>>, Ending>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    let desk = wire.desk();
    if desk.input.is_empty() {
        return Ok(None);
    }
    let head = codec
        .decode_head(&mut desk.input, &mut desk.parts)
        .map_err(|reject| Ending::Refuse(reject, None))?;
    if head.is_none() {
        desk.parts.headers.clear();
    }
    Ok(head)
}

/// Waits for more of a head, or for a reason to stop waiting.
pub(super) fn poll_more<Io>(
    cx: &mut Context<'_>,
    wire: &mut Wire<Io>,
    settings: &Settings,
) -> Poll<Result<ControlFlow<CloseReason>, Stop>>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    // One write answers all the requests of a read.
    let _ = wire.poll_flush(cx)?;
    let idle = !wire.has_input();
    if idle && wire.told() >= Told::Drain {
        return Poll::Ready(Ok(ControlFlow::Break(wire.live().told_why())));
    }
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
    let limits = &settings.limits;
    if wire.live().requests() == 0 {
        wire.enter_until(Phase::Head, wire.live().since() + limits.head_timeout);
        wire.show(if idle {
            State::Idle
        } else {
            State::ReadingHead
        });
    } else if idle {
        let timeout = wire.idle_timeout().unwrap_or(limits.idle_timeout);
        wire.enter(Phase::Idle(timeout), timeout);
        wire.clear_desk();
    } else {
        wire.enter(Phase::Head, limits.head_timeout);
    }
    Poll::Pending
}

/// Waits for the service to have room, now that there is a request. Nothing is read meanwhile.
pub(super) fn poll_service<Io, S, R>(
    cx: &mut Context<'_>,
    wire: &mut Wire<Io>,
    service: &mut S,
    exchange: &mut Exchange,
    settings: &Settings,
) -> Poll<Result<Result<(), Failed>, Stop>>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Service<R, Error: Into<BoxError>>,
{
    match catch(|| service.poll_ready(cx)) {
        Ok(Poll::Ready(ready)) => {
            Poll::Ready(Ok(ready.map_err(|error| Failed::Error(error.into()))))
        }
        Err(panicked) => Poll::Ready(Ok(Err(Failed::Panicked(panicked)))),
        Ok(Poll::Pending) => {
            exchange.show(wire.live());
            wire.enter(Phase::Ready, settings.limits.ready_timeout);
            Poll::Pending
        }
    }
}

/// Makes the request of the head that was just decoded.
pub(super) fn open<Io, D>(
    wire: &mut Wire<Io>,
    intake: &mut Intake<D>,
    exchange: &mut Exchange,
    length: Length,
    decoder: D,
) -> Request<Body>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    D: codec::DecodeBody,
{
    let body = intake.open(wire, exchange, length, decoder);
    let parts = std::mem::replace(&mut wire.desk().parts, empty_parts());
    let mut request = Request::from_parts(parts, body);
    let is_tunnel = exchange.codec.method == Kind::Connect && length == Length::Known(0);
    if exchange.codec.upgrade || is_tunnel {
        let (sender, promise) = Promise::new();
        exchange.upgrade = Some(sender);
        request.extensions_mut().insert(promise);
    }
    request
}

/// Polls the handler, gives it of the body what it wants, and notices when the client goes away.
fn poll_answer<Io, C, F, T, E>(
    cx: &mut Context<'_>,
    mut call: Pin<&mut F>,
    wire: &mut Wire<Io>,
    codec: &mut C,
    intake: &mut Intake<C::Decoder>,
    exchange: &mut Exchange,
) -> Poll<Result<Result<T, Failed>, Stop>>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    // Woken by the socket, most likely: to feed first spares one poll of the handler.
    if intake.is_starved() {
        let _ = intake.poll_feed(cx, wire, codec, exchange)?;
    }
    loop {
        match catch(|| call.as_mut().poll(cx)) {
            Ok(Poll::Ready(answer)) => {
                return Poll::Ready(Ok(answer.map_err(|error| Failed::Error(error.into()))));
            }
            Err(panicked) => return Poll::Ready(Ok(Err(Failed::Panicked(panicked)))),
            Ok(Poll::Pending) => {}
        }
        if wire.live().expects_mail() {
            let mail = wire.live().take_mail();
            send_interim(wire, codec, exchange, mail);
        }
        if intake.poll_feed(cx, wire, codec, exchange)?.is_pending() {
            exchange.show(wire.live());
            wire.show(State::Handling);
            return poll_absent(cx, wire, intake);
        }
    }
}

/// Nothing to do but to notice a client that goes away: pending, but for an abort.
pub(super) fn poll_absent<Io, D, T>(
    cx: &mut Context<'_>,
    wire: &mut Wire<Io>,
    intake: &Intake<D>,
) -> Poll<Result<T, Stop>>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    D: codec::DecodeBody,
{
    if intake.is_starved() {
        return Poll::Pending;
    }
    wire.poll_read_ahead(cx).map(|error| Err(error.into()))
}

/// Encodes what the handler asked to be sent before its response.
pub(super) fn send_interim<Io, C>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    exchange: &Exchange,
    mail: Vec<Message>,
) where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    for Message {
        exchange: number,
        status,
        fields,
        sent,
    } in mail
    {
        let speaks = number == exchange.number && !exchange.codec.http10;
        let output = &mut wire.desk().output;
        if speaks && codec.encode_interim(status, &fields, output).is_ok() {
            let _ = sent.send(());
        }
    }
}

pin_project! {
    /// A response on its way out.
    pub(super) struct Sending<B, E> {
        #[pin]
        body: B,
        encoder: E,
    }
}

/// Decides whether the connection can go on and encodes the response's head; what is left is its body, if it has
/// one that must be polled.
pub(super) fn begin<Io, C, B>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    intake: &Intake<C::Decoder>,
    exchange: &mut Exchange,
    settings: &Settings,
    answer: Result<Response<B>, Failed>,
) -> Result<Option<Sending<B, C::Encoder>>, Ending>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
    B: http_body::Body,
{
    if wire.live().expects_mail() {
        let mail = wire.live().take_last_mail(exchange.number);
        send_interim(wire, codec, exchange, mail);
    }
    match intake.rest(&settings.limits) {
        Rest::Nothing => {}
        // Somebody will still read the body, so the client must send it; after the final head it couldn't be told.
        Rest::Held if exchange.codec.expects_continue => say_continue(wire, codec, exchange),
        Rest::Held => {}
        // A client that still waits for 100 may or may not send the body now, and nobody could tell which.
        Rest::Drainable if exchange.codec.expects_continue => {
            exchange.close(CloseReason::BodyUnread)
        }
        Rest::Drainable => {}
        Rest::Unread => exchange.close(CloseReason::BodyUnread),
    }
    if wire.told() > Told::Nothing {
        exchange.close(wire.live().told_why());
    }
    if wire.now() >= wire.retires() {
        exchange.close(CloseReason::MaxAge);
    }

    let failed = match answer {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            let reply = Reply {
                head: &head,
                length: body.size_hint().exact(),
                date: &date::line(wire.now()),
            };
            match codec.encode_head(&mut exchange.codec, reply, &mut wire.desk().output) {
                Ok(encoder) => {
                    wire.keep_idle(exchange.codec.keep_alive);
                    keep_map(wire, &mut head.headers);
                    let leaves_http = head.status == StatusCode::SWITCHING_PROTOCOLS
                        || exchange.codec.method == Kind::Connect && head.status.is_success();
                    if leaves_http {
                        return Err(Ending::HandOver(exchange.upgrade.take()));
                    }
                    return Ok((!encoder.is_done()).then_some(Sending { body, encoder }));
                }
                Err(error) => Failed::Unsendable(error),
            }
        }
        Err(failed) => failed,
    };
    if let Failed::Panicked(_) = failed {
        exchange.close(CloseReason::Panicked);
    }
    encode_whole(wire, codec, exchange, settings.failure(failed));
    Ok(None)
}

/// The response's field map serves the next request, if it is larger than the one that is there and that isn't in use by
/// a head that was read ahead.
fn keep_map<Io>(wire: &mut Wire<Io>, fields: &mut http::HeaderMap)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    const MOST: usize = 128;
    let next = &mut wire.desk().parts.headers;
    if fields.capacity() > next.capacity() && fields.capacity() <= MOST && next.is_empty() {
        fields.clear();
        std::mem::swap(next, fields);
    }
}

/// Encodes a response of the container's own.
fn encode_whole<Io, C>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    exchange: &mut Exchange,
    response: Response<Bytes>,
) where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    let (head, body) = response.into_parts();
    let date = date::line(wire.now());
    let output = &mut wire.desk().output;
    let reply = Reply {
        head: &head,
        length: Some(body.len() as u64),
        date: &date,
    };
    let whole = codec
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
pub(super) fn poll_send<Io, C, B>(
    cx: &mut Context<'_>,
    sending: Pin<&mut Sending<B, C::Encoder>>,
    wire: &mut Wire<Io>,
    codec: &mut C,
    intake: &mut Intake<C::Decoder>,
    exchange: &mut Exchange,
    settings: &Settings,
) -> Poll<Result<Result<(), Ending>, Stop>>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
    B: http_body::Body,
{
    let mut sending = sending.project();
    let is_framed = sending.encoder.is_framed();
    let break_off = |why| Poll::Ready(Ok(Err(Ending::BreakOff { why, is_framed })));
    loop {
        if wire
            .poll_room(cx, settings.limits.write_buffer_bytes)?
            .is_pending()
        {
            exchange.show(wire.live());
            wire.show(State::Sending);
            // A reader of the request's body in another task isn't held up by a client that doesn't read.
            while intake.poll_feed(cx, wire, codec, exchange)?.is_ready() {}
            return Poll::Pending;
        }
        if wire.has_written_its_share() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // A body that has given all it declared, and doesn't say that it ends, is asked once more: it may go on, which
        // is an error of the handler.
        let is_written = sending.encoder.is_done();
        let mut is_over = is_written;
        let output = &mut wire.desk().output;
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
                if intake.poll_feed(cx, wire, codec, exchange)?.is_pending() {
                    exchange.show(wire.live());
                    wire.show(State::Sending);
                    return poll_absent(cx, wire, intake);
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

/// The response is out and the request's body isn't done: it is fed to whoever still reads it, and drained if that
/// was promised.
#[cold]
async fn settle<Io, C>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    intake: &mut Intake<C::Decoder>,
    exchange: &mut Exchange,
    settings: &Settings,
) -> Result<(), Ending>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    let limits = &settings.limits;
    wire.until(|cx, wire| {
        while intake.poll_feed(cx, wire, codec, exchange)?.is_ready() {}
        if matches!(intake.rest(limits), Rest::Held) {
            exchange.show(wire.live());
            wire.show(State::Draining);
            return poll_absent(cx, wire, intake);
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    match intake.rest(limits) {
        Rest::Drainable if exchange.codec.close.is_none() => {
            wire.enter(Phase::Drain, limits.drain_timeout);
            wire.until(|cx, wire| intake.poll_drain(cx, wire, exchange))
                .await?;
            wire.leave_phase();
        }
        Rest::Drainable | Rest::Unread => exchange.close(CloseReason::BodyUnread),
        Rest::Nothing | Rest::Held => {}
    }
    Ok(())
}

/// The service will never be ready again: this request is told, the connection ends.
#[cold]
pub(super) fn service_failed<Io, C>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    mut exchange: Exchange,
    failed: Failed,
    settings: &Settings,
) -> Ending
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    let why = if matches!(failed, Failed::Panicked(_)) {
        CloseReason::Panicked
    } else {
        CloseReason::ServiceFailed
    };
    exchange.close(why);
    encode_whole(wire, codec, &mut exchange, settings.failure(failed));
    let why = exchange.closes().unwrap_or(CloseReason::ServiceFailed);
    Ending::Close {
        why,
        linger: Linger::Long,
    }
}

/// The end of the connection, and the account of it.
#[cold]
pub(super) async fn end<Io, C>(
    mut wire: Wire<Io>,
    codec: &mut C,
    ending: Ending,
    settings: &Settings,
) -> ConnReport
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C: Codec,
{
    let live = wire.live().clone();
    wire.leave_phase();
    let (why, first_bytes) = match ending {
        Ending::Abort(why) => {
            live.abort();
            (why, Bytes::new())
        }
        Ending::Close { why, linger } => {
            close(&mut wire, linger, settings).await;
            (why, Bytes::new())
        }
        Ending::BreakOff {
            why,
            is_framed: true,
        } => {
            close(&mut wire, Linger::Long, settings).await;
            (why, Bytes::new())
        }
        Ending::BreakOff {
            why,
            is_framed: false,
        } => {
            let _ = wire
                .until(|cx, wire| wire.poll_flush(cx).map_err(Stop::from))
                .await;
            live.abort();
            (why, Bytes::new())
        }
        Ending::Refuse(reject, method) => {
            let (why, first_bytes) = refuse(&mut wire, codec, reject, method, settings);
            close(&mut wire, Linger::Long, settings).await;
            (why, first_bytes)
        }
        Ending::HandOver(taker) => (hand_over(wire, taker).await, Bytes::new()),
    };
    // Whoever still waits to send something is told that it is too late.
    drop(live.take_last_mail(u64::MAX));
    live.report(why, first_bytes)
}

/// Answers a request that no handler sees.
fn refuse<Io, C>(
    wire: &mut Wire<Io>,
    codec: &mut C,
    reject: Reject,
    method: Option<Kind>,
    settings: &Settings,
) -> (CloseReason, Bytes)
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    const SHOWN: usize = 64;
    let input = &wire.desk().input;
    let got = input.len();
    let first_bytes = Bytes::copy_from_slice(&input[..got.min(SHOWN)]);
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
        let answer = settings.refusal(&reject);
        let live = wire.live().clone();
        settings.tell_refused(&live, &reject, answer.status(), &wire.desk().input);
        encode_whole(wire, codec, &mut exchange, answer);
    }
    (why, first_bytes)
}

/// Sends what is owed, says that nothing follows, and listens for a while if the peer may still be sending: to close
/// a socket with unread bytes makes the kernel reset it, and a reset can destroy the answer on its way
/// (RFC 9112 section 9.6).
async fn close<Io>(wire: &mut Wire<Io>, linger: Linger, settings: &Settings)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &settings.limits;
    wire.enter(Phase::Linger, limits.linger_timeout);
    if wire
        .until(|cx, wire| wire.poll_shutdown(cx).map_err(Stop::from))
        .await
        .is_err()
    {
        wire.live().abort();
        return;
    }
    wire.leave_phase();
    let end = wire.now() + limits.linger_timeout;
    let mut left = limits.linger_bytes;
    let mut wait = match linger {
        Linger::Not => Duration::ZERO,
        Linger::Briefly => LINGER_BRIEFLY.min(limits.linger_idle_timeout),
        Linger::Long => limits.linger_idle_timeout,
    };
    while !wire.is_eof() && left > 0 {
        let read = wire.until(|cx, wire| {
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
        wire.leave_phase();
    }
}

/// Gives the socket away, once the response that says so is on the wire, and waits for its end: until then the
/// connection counts as open, and what it is told is passed on.
async fn hand_over<Io>(
    mut wire: Wire<Io>,
    taker: Option<tokio::sync::oneshot::Sender<Upgraded>>,
) -> CloseReason
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let live = wire.live().clone();
    let flushed = wire.until(|cx, wire| wire.poll_flush(cx).map_err(Stop::from));
    if flushed.await.is_err() {
        live.abort();
        return CloseReason::Upgraded;
    }
    wire.show(State::Upgraded);
    let (io, early) = wire.into_rest();
    let (upgraded, kept) = Upgraded::new(io, early, live);
    if taker.is_some_and(|taker| taker.send(upgraded).is_ok()) {
        return kept.closed().await;
    }
    CloseReason::Upgraded
}
