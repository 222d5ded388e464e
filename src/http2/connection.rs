//! A connection of HTTP/2, from the preface to the last word: h2 frames, this decides. One task polls the socket and every
//! stream, so a request that is answered at once costs neither a task nor a wake.
//!
//! [`serve`] is the life, [`Connection::poll`] one wake of it, and every way to end is in sight there.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream, server};
use http::{Request, Response, request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

use super::ending::{self, Ending};
use super::frames::code;
use super::intake::Intake;
use super::request::{Asked, judge};
use super::stream::{Around, Line, Stream};
use super::streams::{Streams, Wakes};
use super::timer::Timer;
use super::wire::{Half, Tap, Wire};
use crate::body::{Body, Origin};
use crate::codec::Kind;
use crate::conn::{CloseReason, ConnReport, Http2Error, Live, RequestLine, State, Told};
use crate::error::{BoxError, Reason, Reject};
use crate::http1::Settings;
use crate::service::{Failed, catch};
use crate::upgrade::{Promise, Protocol};

/// How long a client that was told to go has for the answer that says it knows.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a connection to its end; `early` are bytes that were read before.
pub(crate) async fn serve<Io, S, B>(
    io: Io,
    early: Bytes,
    live: Arc<Live>,
    service: S,
    settings: Arc<Settings>,
) -> ConnReport
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    live.speak_http2();
    let wire = Wire::new(io, early, live.clone(), &settings.limits);
    let tap = Tap::new(wire);
    let ending = match shake(&tap, &live, &settings).await {
        Ok(h2) => {
            let mut connection = Connection::new(h2, &tap, live.clone(), service, settings.clone());
            poll_fn(|cx| connection.poll(cx)).await
        }
        Err(ending) => ending,
    };
    ending::end(tap, &live, ending, &settings.limits).await
}

type H2<Io> = server::Connection<Tap<Io>, Bytes>;

/// Sends this server's settings and reads the client's preface, under the deadline of a first head.
async fn shake<Io>(tap: &Tap<Io>, live: &Arc<Live>, settings: &Settings) -> Result<H2<Io>, Ending>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &settings.limits;
    let mut handshake = pin!(
        server::Builder::new()
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(limits.http2_header_list_bytes)
            .initial_window_size(limits.http2_stream_window)
            .initial_connection_window_size(limits.http2_connection_window)
            .max_send_buffer_size(limits.http2_write_bytes())
            // What the churn limit lets pass must not be too much for h2.
            .max_pending_accept_reset_streams(limits.http2_resets as usize)
            .max_local_error_reset_streams(Some(limits.http2_resets as usize))
            .max_concurrent_reset_streams(limits.http2_streams as usize)
            .enable_connect_protocol()
            .handshake(tap.clone())
    );
    let mut late = pin!(sleep_until(live.since() + limits.head_timeout));
    live.enter(State::Idle, Instant::now());
    poll_fn(|cx| {
        loop {
            match handshake.as_mut().poll(cx) {
                Poll::Ready(Ok(h2)) => return Poll::Ready(Ok(h2)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ending::before(tap))),
                Poll::Pending => {}
            }
            let mut wire = tap.lock();
            if wire.verdict().is_some() || wire.eof {
                drop(wire);
                return Poll::Ready(Err(ending::before(tap)));
            }
            if !wire.rest() {
                break;
            }
        }
        if live.watch(cx).0 >= Told::Drain {
            return Poll::Ready(Err(Ending::close(live.told_why())));
        }
        let got = live.bytes().0 as usize;
        late.as_mut()
            .poll(cx)
            .map(|()| Err(Ending::close(CloseReason::HeadTimeout { got })))
    })
    .await
}

/// A connection in the middle of its life.
struct Connection<'a, Io, S, B>
where
    S: Service<Request<Body>>,
{
    h2: H2<Io>,
    tap: &'a Tap<Io>,
    service: S,
    wakes: Arc<Wakes>,
    /// Wakes the connection, where h2 or the service does.
    waker: Waker,
    streams: Streams<Stream<S::Future, B>>,
    around: Around,
    /// Requests that the service has not been ready for yet.
    arrived: VecDeque<Arrived>,
    /// How many of the streams that were opened h2 has given, or never will.
    accepted: u64,
    service_failed: bool,
    told: Told,
    /// The client was told not to open further streams, and why.
    leaving: Option<CloseReason>,
    /// The client broke the rules, and h2 knows.
    condemned: bool,
    waits: Waits,
    timer: Timer,
}

type Arrived = (Request<RecvStream>, SendResponse<Bytes>);

/// Since when the connection waits for what; `None`: it doesn't.
#[derive(Default)]
struct Waits {
    idle: Option<Instant>,
    ready: Option<Instant>,
    farewell: Option<Instant>,
    /// For the rest of the frame or field block with this number.
    half: Option<(u64, Instant)>,
}

/// What has waited for too long.
#[derive(Clone, Copy)]
enum Late {
    Idle(Duration),
    Half,
    Content,
    Ready,
    Farewell,
    Stream,
    Writing,
}

enum Park {
    Wait,
    Again,
    End(Ending),
}

impl<'a, Io, S, B> Connection<'a, Io, S, B>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    fn new(
        h2: H2<Io>,
        tap: &'a Tap<Io>,
        live: Arc<Live>,
        service: S,
        settings: Arc<Settings>,
    ) -> Self {
        let wakes = Arc::<Wakes>::default();
        wakes.wake_connection();
        Self {
            h2,
            tap,
            service,
            waker: wakes.connection(),
            streams: Streams::new(wakes.clone()),
            wakes,
            around: Around {
                retires: live.since() + settings.lifetime(live.id()),
                settings,
                live,
                now: None,
                eof: false,
                half: None,
                retire: None,
                idle: None,
                soonest: None,
                mail: Vec::new(),
                sent: 0,
                breaks_off: false,
                state: State::Idle,
            },
            arrived: VecDeque::new(),
            accepted: 0,
            service_failed: false,
            told: Told::Nothing,
            leaving: None,
            condemned: false,
            waits: Waits::default(),
            timer: Timer::default(),
        }
    }

    /// One wake: goes round for as long as somebody was woken, and waits in one place.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        self.wakes.begin(cx.waker());
        (self.around.now, self.around.half) = (None, None);
        loop {
            if self.wakes.take_connection() {
                // All that came is read before any of it is handled, so one write answers all of it.
                if let Some(ending) = self.poll_h2() {
                    return Poll::Ready(ending);
                }
                self.poll_service();
                self.around.sent += 1;
                if std::mem::take(&mut self.around.breaks_off) {
                    self.streams.wake(Stream::breaks_off);
                }
            }
            let around = &mut self.around;
            while self.streams.poll_next(|cx, stream| stream.poll(cx, around)) {}
            if self.around.breaks_off {
                self.wakes.wake_connection();
            }
            if let Some(why) = self.around.retire.take() {
                self.leave(why);
            }
            if self.wakes.has_more() {
                continue;
            }
            match self.park(cx) {
                Park::Again => {}
                Park::End(ending) => return Poll::Ready(ending),
                Park::Wait if self.wakes.rest() => return Poll::Pending,
                Park::Wait => {}
            }
        }
    }

    /// Lets h2 read and write, and takes the requests that have come.
    fn poll_h2(&mut self) -> Option<Ending> {
        let mut cx = Context::from_waker(&self.waker);
        loop {
            match self.h2.poll_accept(&mut cx) {
                Poll::Pending => {
                    self.accepted = self.tap.lock().opened();
                    break;
                }
                Poll::Ready(Some(Ok(arrived))) => {
                    self.arrived.push_back(arrived);
                    self.accepted += 1;
                    // h2 has read and written all it could before it gave this one: to ask it in vain costs as much again.
                    if self.accepted == self.tap.lock().opened() {
                        break;
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    return Some(ending::failed(&error, self.tap, self.leaving.take()));
                }
                Poll::Ready(None) => return Some(ending::over(self.tap, self.leaving.take())),
            }
        }
        if !self.condemned
            && let Some(error) = self.tap.lock().verdict()
        {
            // The words of the goodbye that h2 says now are put in their place by the end.
            self.condemned = true;
            self.h2.abrupt_shutdown(error.code().into());
            self.wakes.wake_connection();
        }
        None
    }

    /// Gives requests to the service, for as long as it is ready.
    fn poll_service(&mut self) {
        while !self.arrived.is_empty() {
            if self.service_failed {
                for (_, mut respond) in self.arrived.drain(..) {
                    respond.send_reset(Code::REFUSED_STREAM);
                }
                return;
            }
            let mut cx = Context::from_waker(&self.waker);
            let failed = match catch(|| self.service.poll_ready(&mut cx)) {
                Ok(Poll::Pending) => return,
                Ok(Poll::Ready(Ok(()))) => None,
                Ok(Poll::Ready(Err(error))) => Some(Failed::Error(error.into())),
                Err(panicked) => Some(Failed::Panicked(panicked)),
            };
            self.waits.ready = None;
            let Some(arrived) = self.arrived.pop_front() else {
                return;
            };
            match failed {
                None => self.open(arrived),
                Some(failed) => self.fail(arrived, failed),
            }
        }
    }

    /// The service will never be ready again: this request is told, and the client is told to go.
    #[cold]
    fn fail(&mut self, (request, respond): Arrived, failed: Failed) {
        self.service_failed = true;
        self.around.retire.get_or_insert(match failed {
            Failed::Panicked(_) => CloseReason::Panicked,
            _ => CloseReason::ServiceFailed,
        });
        let response = self.around.settings.failure(failed);
        let (parts, _) = request.into_parts();
        self.answer(&parts, respond, response);
    }

    /// Calls the service, which is ready, with a request.
    fn open(&mut self, (request, respond): Arrived) {
        let (parts, recv) = request.into_parts();
        let limits = &self.around.settings.limits;
        let asked = match judge(&parts, recv.is_end_stream(), limits) {
            Ok(asked) => asked,
            Err(reason) => return self.refuse(&parts, respond, reason),
        };
        self.around.live.count_request();
        let number = self.around.live.requests();
        let none = Intake::none(limits);
        let mut line = Line::new(respond, none, asked.method, number, &parts, limits);
        let request = self.request(parts, &mut line, recv, &asked);
        match catch(|| self.service.call(request)) {
            Ok(call) => self.streams.add(Stream::called(line, call)),
            Err(panicked) => {
                let response = self.around.settings.failure(Failed::Panicked(panicked));
                self.add_answered(line, response);
            }
        }
    }

    /// What the handler gets.
    #[inline]
    fn request(
        &self,
        mut parts: request::Parts,
        line: &mut Line,
        recv: RecvStream,
        asked: &Asked,
    ) -> Request<Body> {
        let limits = &self.around.settings.limits;
        let origin = Origin {
            live: self.around.live.clone(),
            exchange: line.number,
        };
        if asked.method == Kind::Connect {
            let (sender, promise) = Promise::new();
            parts.extensions.insert(promise);
            if let Some(protocol) = parts.extensions.remove::<h2::ext::Protocol>() {
                parts.extensions.insert(Protocol::new(protocol.as_str()));
            }
            line.upgrade = Some(sender);
            line.intake = Intake::tunnel(recv, limits);
            return Request::from_parts(parts, Body::arrived(Bytes::new(), origin));
        }
        let (intake, body) = Intake::open(recv, asked, origin, limits);
        line.intake = intake;
        Request::from_parts(parts, body)
    }

    /// Answers a request that no handler sees.
    #[cold]
    fn refuse(&mut self, parts: &request::Parts, respond: SendResponse<Bytes>, reason: Reason) {
        let reject = Reject::new(reason);
        let settings = &self.around.settings;
        let response = settings.refusal(&reject);
        let line = RequestLine::of(parts);
        settings.tell_refused_request(&self.around.live, &reject, response.status(), line);
        self.answer(parts, respond, response);
    }

    fn answer(
        &mut self,
        parts: &request::Parts,
        respond: SendResponse<Bytes>,
        response: Response<Bytes>,
    ) {
        let method = match parts.method {
            http::Method::HEAD => Kind::Head,
            _ => Kind::Other,
        };
        let limits = &self.around.settings.limits;
        let none = Intake::none(limits);
        let line = Line::new(respond, none, method, u64::MAX, parts, limits);
        self.add_answered(line, response);
    }

    fn add_answered(&mut self, line: Line, response: Response<Bytes>) {
        if let Some(stream) = Stream::answered(line, response, &mut self.around) {
            self.streams.add(stream);
        }
    }

    /// No further streams are wanted: those that are on their way are still served (RFC 9113 section 6.8).
    fn leave(&mut self, why: CloseReason) {
        if self.leaving.is_none() {
            self.leaving = Some(why);
            self.h2.graceful_shutdown();
            self.wakes.wake_connection();
        }
    }

    /// The same at once, where no stream is under way.
    fn leave_now(&mut self, why: CloseReason) {
        self.leaving.get_or_insert(why);
        self.h2.abrupt_shutdown(Code::NO_ERROR);
        self.wakes.wake_connection();
    }

    /// Nothing is left to be done: what the server wants is looked at, and the clock.
    fn park(&mut self, cx: &mut Context<'_>) -> Park {
        let (told, has_mail) = self.around.live.watch(cx);
        if has_mail || !self.around.mail.is_empty() {
            self.deliver();
            return Park::Again;
        }
        if told != self.told {
            self.told = told;
            let why = self.around.live.told_why();
            if told >= Told::Cut {
                return Park::End(Ending::abort(why));
            }
            self.leave(why);
            // Those that have left HTTP are told too.
            self.streams.wake(Stream::is_handed_over);
            return Park::Again;
        }
        let (half, writing, gives_way) = {
            let mut wire = self.tap.lock();
            if wire.eof && !wire.tell_eof {
                let is_over = self.streams.is_empty() && self.arrived.is_empty();
                wire.tell_eof = is_over;
                if is_over {
                    self.wakes.wake_connection();
                    return Park::Again;
                }
                // A client that is answered though it has finished sends no more of any body.
                if !std::mem::replace(&mut self.around.eof, true) {
                    self.streams.wake(|_| true);
                    return Park::Again;
                }
            }
            (wire.half(), wire.writing.due(), wire.rest())
        };
        if gives_way {
            self.wakes.wake_connection_later(cx.waker());
        }
        self.show(half);
        match self.poll_late(cx, half, writing) {
            Poll::Pending => {
                self.around.live.look_last(false);
                Park::Wait
            }
            // As in HTTP/1: what has come in time is looked for once more.
            Poll::Ready(_) if !self.around.live.is_last_look() => {
                self.around.live.look_last(true);
                self.wakes.wake_connection_later(cx.waker());
                Park::Wait
            }
            Poll::Ready(late) => self.be_late(late),
        }
    }

    /// Gives interim responses to the streams that they are for; what is for none is too late.
    #[cold]
    fn deliver(&mut self) {
        let mut mail = self.around.live.take_mail();
        self.around.mail.append(&mut mail);
        let mail = &mut self.around.mail;
        self.streams.each(|stream| stream.tell(mail));
        self.around.mail.clear();
        // What was handed to h2 goes out.
        self.wakes.wake_connection();
    }

    fn show(&mut self, half: Half) {
        let state = match half {
            _ if !self.streams.is_empty() => self.around.state,
            _ if !self.arrived.is_empty() => State::Waiting,
            Half::Nothing => State::Idle,
            _ => State::ReadingHead,
        };
        if self.around.live.state() != state {
            let now = self.around.now();
            self.around.live.enter(state, now);
        }
    }

    /// Ready with what has waited for too long; otherwise the task is woken when something will have.
    fn poll_late(
        &mut self,
        cx: &mut Context<'_>,
        half: Half,
        writing: Option<Instant>,
    ) -> Poll<Late> {
        let settings = self.around.settings.clone();
        let limits = &settings.limits;
        let is_idle = self.streams.is_empty() && self.arrived.is_empty();
        let mut next: Option<(Instant, Late)> = None;
        let mut wait = |due: Option<Instant>, late| {
            if let Some(due) = due
                && next.is_none_or(|(soonest, _)| due < soonest)
            {
                next = Some((due, late));
            }
        };
        if is_idle {
            let since = *self.waits.idle.get_or_insert_with(|| self.around.now());
            let after = self.around.idle.unwrap_or(limits.idle_timeout);
            wait(Some(since + after), Late::Idle(after));
        } else {
            self.waits.idle = None;
        }
        self.waits.farewell = match self.waits.farewell {
            _ if !is_idle || self.leaving.is_none() => None,
            Some(since) => Some(since),
            None => Some(self.around.now()),
        };
        wait(
            self.waits.farewell.map(|since| since + FAREWELL),
            Late::Farewell,
        );
        if !self.arrived.is_empty() {
            let since = *self.waits.ready.get_or_insert_with(|| self.around.now());
            wait(Some(since + limits.ready_timeout), Late::Ready);
        }
        if let Half::Other(number) = half {
            let since = match self.waits.half {
                Some((before, since)) if before == number => since,
                // The first one has the time that a first head has.
                _ if number == 0 => self.around.live.since(),
                _ => self.around.now(),
            };
            self.waits.half = Some((number, since));
            wait(Some(since + limits.head_timeout), Late::Half);
        }
        if let Half::Content { .. } = half {
            let now = self.around.now();
            let mut wire = self.tap.lock();
            wire.arriving.wait(now);
            wait(wire.arriving.due(), Late::Content);
        }
        wait(self.around.soonest, Late::Stream);
        wait(writing, Late::Writing);
        match next {
            None => Poll::Pending,
            Some((due, late)) => self.timer.poll(due, cx).map(|()| late),
        }
    }

    #[cold]
    fn be_late(&mut self, late: Late) -> Park {
        self.around.now = None;
        let last_stream = self.tap.lock().last_stream();
        let goodbye = |why, code, what| {
            let error = Http2Error::new(code, what);
            Park::End(Ending::goodbye(why, last_stream, error))
        };
        let got = self.around.live.bytes().0 as usize;
        match late {
            Late::Writing => Park::End(Ending::abort(CloseReason::WriteTimeout)),
            Late::Half if !self.tap.lock().has_begun() => goodbye(
                CloseReason::HeadTimeout { got },
                code::SETTINGS_TIMEOUT,
                "the settings didn't come in time",
            ),
            Late::Half => goodbye(
                CloseReason::HeadTimeout { got },
                code::NO_ERROR,
                "the rest of a frame or field block didn't come in time",
            ),
            Late::Content => goodbye(
                CloseReason::BodyTimeout,
                code::NO_ERROR,
                "the rest of a frame came too slowly",
            ),
            Late::Idle(after) => {
                self.waits.idle = None;
                self.leave_now(CloseReason::Idle { after });
                Park::Again
            }
            Late::Farewell => {
                self.waits.farewell = None;
                self.leave_now(CloseReason::Shutdown);
                Park::Again
            }
            Late::Ready => {
                self.waits.ready = None;
                if let Some((request, respond)) = self.arrived.pop_front() {
                    let (parts, _) = request.into_parts();
                    self.refuse(&parts, respond, Reason::NotReady);
                }
                Park::Again
            }
            Late::Stream => {
                self.wake_late_streams();
                Park::Again
            }
        }
    }

    /// Wakes the streams whose time is over, once what has come of a frame has bought it.
    fn wake_late_streams(&mut self) {
        self.around.half = match self.tap.lock().half() {
            Half::Content { stream, got } => Some((stream, got)),
            _ => None,
        };
        let now = self.around.now();
        let dues = self.streams.iter().filter_map(Stream::due);
        self.around.soonest = dues.filter(|due| *due > now).min();
        self.streams
            .wake(|stream| stream.due().is_some_and(|due| due <= now));
    }
}
