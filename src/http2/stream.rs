//! One stream, from its request to the end of its response: a straight line, polled within the connection's task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason as Code, SendStream};
use http::{Response, request};
use pin_project_lite::pin_project;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::intake::Intake;
use super::meter::StreamMeter;
use super::reply::{self, Follows};
use super::tunnel::Tunnel;
use crate::codec::Kind;
use crate::conn::{CloseReason, Live, RequestLine, State};
use crate::date;
use crate::error::{BoxError, Reject};
use crate::http1::Settings;
use crate::interim::Message;
use crate::limits::Limits;
use crate::service::{Failed, catch};
use crate::upgrade::Upgraded;

/// What a stream sees of its connection, and says to it.
pub(super) struct Around {
    pub(super) settings: Arc<Settings>,
    pub(super) live: Arc<Live>,
    /// One reading of the clock a wake, and none if nobody asks.
    pub(super) now: Option<Instant>,
    /// When the connection has been kept for long enough.
    pub(super) retires: Instant,
    /// The client sends no more.
    pub(super) eof: bool,
    /// What has come of a frame of content: of which stream, and how much.
    pub(super) half: Option<(u32, u32)>,
    /// No further streams are wanted, and why.
    pub(super) retire: Option<CloseReason>,
    /// How long the connection may be idle, where a response said so.
    pub(super) idle: Option<Duration>,
    /// The earliest instant at which one of the streams waits no longer.
    pub(super) soonest: Option<Instant>,
    /// Interim responses that nobody has taken yet.
    pub(super) mail: Vec<Message>,
    /// How often h2 has sent what there was, and whether a stream waits for the next time.
    pub(super) sent: u64,
    pub(super) breaks_off: bool,
    /// What the stream does that waited last.
    pub(super) state: State,
}

impl Around {
    pub(super) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    pub(super) fn wait_until(&mut self, due: Option<Instant>) {
        if let Some(due) = due
            && self.soonest.is_none_or(|soonest| due < soonest)
        {
            self.soonest = Some(due);
        }
    }
}

pin_project! {
    /// A stream under way.
    pub(super) struct Stream<F, B> {
        #[pin]
        work: Work<F, B>,
        line: Line,
    }
}

pin_project! {
    #[project = WorkProjection]
    enum Work<F, B> {
        /// The handler works.
        Calling { #[pin] call: F },
        /// The body of its response is on its way.
        Sending { #[pin] body: B },
        /// A response of the container's own is on its way.
        Flushing,
        /// The response can't be finished: what there is of it is sent, and then the code.
        BreakingOff { code: Code, behind: u64 },
        /// The response is out, and somebody still reads the request's body.
        Settling,
        /// The stream is another protocol's.
        Handed { over: Pin<Box<dyn Future<Output = CloseReason> + Send>> },
    }
}

/// What a stream is beside its work.
pub(super) struct Line {
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    pub(super) intake: Intake,
    method: Kind,
    pub(super) number: u64,
    /// Method and path, until it has to be waited for: then they are shown to whoever looks.
    request: Option<RequestLine>,
    pub(super) upgrade: Option<oneshot::Sender<Upgraded>>,
    /// Content that is to be sent, and whether the stream ends with it.
    chunk: Bytes,
    is_last: bool,
    /// Content that was declared and has not been seen yet.
    left: Option<u64>,
    meter: StreamMeter,
    /// The code with which the response is to be broken off.
    broken: Option<Code>,
}

/// The stream is over, one way or the other.
struct Over;

impl Line {
    pub(super) fn new(
        respond: SendResponse<Bytes>,
        intake: Intake,
        method: Kind,
        number: u64,
        parts: &request::Parts,
        limits: &Limits,
    ) -> Self {
        Self {
            respond,
            send: None,
            intake,
            method,
            number,
            request: Some(RequestLine::of(parts)),
            upgrade: None,
            chunk: Bytes::new(),
            is_last: false,
            left: None,
            meter: StreamMeter::new(limits),
            broken: None,
        }
    }
}

impl<F, B, E> Stream<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: http_body::Body<Error: Into<BoxError>>,
{
    /// A request that its handler works on.
    pub(super) fn called(line: Line, call: F) -> Self {
        Self {
            work: Work::Calling { call },
            line,
        }
    }

    /// A request that the container answers; `None` if there is nothing left to be done for it.
    pub(super) fn answered(
        mut line: Line,
        response: Response<Bytes>,
        around: &mut Around,
    ) -> Option<Self> {
        line.answer(response, around).ok()?;
        Some(Self {
            work: Work::Flushing,
            line,
        })
    }

    pub(super) fn breaks_off(&self) -> bool {
        matches!(self.work, Work::BreakingOff { .. })
    }

    pub(super) fn is_handed_over(&self) -> bool {
        matches!(self.work, Work::Handed { .. })
    }

    /// When it waits no longer.
    pub(super) fn due(&self) -> Option<Instant> {
        let (reading, writing) = (self.line.intake.due(), self.line.meter.due());
        reading.into_iter().chain(writing).min()
    }

    /// Sends what its handler asked to be sent before the response, if that isn't too late.
    pub(super) fn tell(self: Pin<&mut Self>, mail: &mut Vec<Message>) {
        let this = self.project();
        if matches!(this.work.project(), WorkProjection::Calling { .. }) {
            this.line.tell(mail);
        }
    }

    /// Ready when it is over.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        around: &mut Around,
    ) -> Poll<()> {
        let this = self.project();
        let (line, mut work) = (this.line, this.work);
        loop {
            let next = match work.as_mut().project() {
                WorkProjection::Calling { call } => {
                    match ready!(line.poll_answer(cx, call, around)) {
                        Ok(answer) => line.begin(answer, around),
                        Err(Over) => break,
                    }
                }
                WorkProjection::Sending { body } => {
                    ready!(line.poll_send(cx, Some(body), around)).map(|()| Work::Settling)
                }
                WorkProjection::Flushing => {
                    ready!(line.poll_send::<B>(cx, None, around)).map(|()| Work::Settling)
                }
                WorkProjection::BreakingOff { code, behind } => {
                    if around.sent == *behind {
                        around.breaks_off = true;
                        return Poll::Pending;
                    }
                    line.reset(*code);
                    break;
                }
                WorkProjection::Settling => {
                    ready!(line.poll_settle(cx, around));
                    break;
                }
                WorkProjection::Handed { over } => {
                    ready!(over.as_mut().poll(cx));
                    break;
                }
            };
            match next {
                Ok(next) => work.set(next),
                Err(Over) => match line.broken.take() {
                    None => break,
                    Some(code) => work.set(Work::BreakingOff {
                        code,
                        behind: around.sent,
                    }),
                },
            }
        }
        line.hide(&around.live);
        Poll::Ready(())
    }
}

impl Line {
    /// Polls the handler and gives it of the body what it wants; over when the client gives the stream up.
    fn poll_answer<F, T, E>(
        &mut self,
        cx: &mut Context<'_>,
        mut call: Pin<&mut F>,
        around: &mut Around,
    ) -> Poll<Result<Result<T, Failed>, Over>>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        loop {
            match catch(|| call.as_mut().poll(cx)) {
                Ok(Poll::Ready(answer)) => {
                    return Poll::Ready(Ok(answer.map_err(|error| Failed::Error(error.into()))));
                }
                Err(panicked) => return Poll::Ready(Ok(Err(Failed::Panicked(panicked)))),
                Ok(Poll::Pending) => {}
            }
            if self
                .intake
                .poll_feed(cx, around, &mut self.respond)
                .is_ready()
            {
                continue;
            }
            // An error says that the connection is gone.
            if self.respond.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Over));
            }
            self.show(State::Handling, around);
            return Poll::Pending;
        }
    }

    /// Sends the head of what the handler answered.
    fn begin<F, B>(
        &mut self,
        answer: Result<Response<B>, Failed>,
        around: &mut Around,
    ) -> Result<Work<F, B>, Over>
    where
        B: http_body::Body,
    {
        if around.live.expects_mail() {
            around.mail.append(&mut around.live.take_mail());
            self.tell(&mut around.mail);
        }
        let failed = match answer {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                let length = body.size_hint().exact();
                let now = around.now();
                match reply::prepare(&mut head, self.method, length, || date::value(now)) {
                    Ok(said) => {
                        if said.close {
                            around.retire.get_or_insert(CloseReason::HandlerAsked);
                        }
                        if let Some(seconds) = said.keep_alive {
                            around.idle = Some(Duration::from_secs(u64::from(seconds) + 1));
                        }
                        let ends = match said.follows {
                            Follows::Nothing => true,
                            Follows::Content(length) => length.is_none() && body.is_end_stream(),
                            Follows::Tunnel => false,
                        };
                        self.send_head(Response::from_parts(head, ()), ends, around)?;
                        return match said.follows {
                            _ if ends => Ok(Work::Settling),
                            Follows::Tunnel => self.hand_over(around),
                            Follows::Content(length) => {
                                self.left = length;
                                Ok(Work::Sending { body })
                            }
                            Follows::Nothing => Ok(Work::Settling),
                        };
                    }
                    Err(error) => Failed::Unsendable(error),
                }
            }
            Err(failed) => failed,
        };
        self.answer(around.settings.failure(failed), around)?;
        Ok(Work::Flushing)
    }

    /// Begins a response of the container's own.
    fn answer(&mut self, response: Response<Bytes>, around: &mut Around) -> Result<(), Over> {
        let (mut head, content) = response.into_parts();
        let (length, now) = (content.len() as u64, around.now());
        let said = reply::prepare(&mut head, self.method, Some(length), || date::value(now));
        let Ok(said) = said else {
            // A hook's response that can't be sent leaves nothing to say.
            self.respond.send_reset(Code::INTERNAL_ERROR);
            return Err(Over);
        };
        let ends = said.follows == Follows::Nothing || content.is_empty();
        self.send_head(Response::from_parts(head, ()), ends, around)?;
        if !ends {
            (self.chunk, self.is_last) = (content, true);
        }
        Ok(())
    }

    fn send_head(
        &mut self,
        head: Response<()>,
        ends: bool,
        around: &mut Around,
    ) -> Result<(), Over> {
        self.intake.before_response(&mut self.respond);
        if around.now() >= around.retires {
            around.retire.get_or_insert(CloseReason::MaxAge);
        }
        self.is_last = ends;
        let sent = self.respond.send_response(head, ends);
        self.send = Some(sent.map_err(|_| Over)?);
        Ok(())
    }

    /// Gives the stream away, once the response that says so is on its way.
    fn hand_over<F, B>(&mut self, around: &mut Around) -> Result<Work<F, B>, Over> {
        let (Some(send), Some(taker)) = (self.send.take(), self.upgrade.take()) else {
            return Err(Over);
        };
        let tunnel = Tunnel::new(send, self.intake.take());
        let (upgraded, kept) = Upgraded::on_stream(tunnel, around.live.clone());
        if taker.send(upgraded).is_err() {
            return Err(Over);
        }
        let over = Box::pin(kept.closed());
        Ok(Work::Handed { over })
    }

    /// Polls the response's body and sends it as the client's windows allow; the request's body may still be read
    /// meanwhile. What is given to h2 is what may be sent, so that nothing is left to it when the stream is over here.
    fn poll_send<B>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Option<Pin<&mut B>>,
        around: &mut Around,
    ) -> Poll<Result<(), Over>>
    where
        B: http_body::Body<Error: Into<BoxError>>,
    {
        loop {
            if !self.chunk.is_empty() {
                ready!(self.poll_chunk(cx, around))?;
            }
            if self.is_last {
                return Poll::Ready(Ok(()));
            }
            let Some(body) = body.as_mut() else {
                return Poll::Ready(Ok(()));
            };
            match catch(|| body.as_mut().poll_frame(cx)) {
                Ok(Poll::Ready(Some(Ok(frame)))) => match frame.into_data() {
                    Ok(mut data) => {
                        self.chunk = data.copy_to_bytes(data.remaining());
                        self.count(self.chunk.len() as u64)?;
                        self.is_last = matches!(self.left, None | Some(0)) && body.is_end_stream();
                        if self.chunk.is_empty() && self.is_last {
                            return Poll::Ready(self.finish());
                        }
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Poll::Ready(self.finish_with(trailers));
                    }
                },
                Ok(Poll::Ready(None)) => return Poll::Ready(self.finish()),
                Ok(Poll::Ready(Some(Err(error)))) => {
                    return Poll::Ready(self.break_off(code_of(error)));
                }
                Err(_) => return Poll::Ready(self.break_off(Code::INTERNAL_ERROR)),
                Ok(Poll::Pending) => {
                    if self
                        .intake
                        .poll_feed(cx, around, &mut self.respond)
                        .is_ready()
                    {
                        continue;
                    }
                    let reset = self.send.as_mut().map(|send| send.poll_reset(cx));
                    if reset.is_none_or(|reset| reset.is_ready()) {
                        return Poll::Ready(Err(Over));
                    }
                    self.show(State::Sending, around);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends the chunk, as much at a time as may be sent.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, around: &mut Around) -> Poll<Result<(), Over>> {
        let Some(send) = &mut self.send else {
            return Poll::Ready(Err(Over));
        };
        let most = around.settings.limits.http2_write_bytes();
        while !self.chunk.is_empty() {
            send.reserve_capacity(self.chunk.len().min(most));
            let mut capacity = send.capacity();
            if capacity == 0 {
                match send.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(more))) => capacity = more,
                    Poll::Ready(_) => return Poll::Ready(Err(Over)),
                    Poll::Pending => {
                        let now = around.now();
                        self.meter.wait(now);
                        let due = self.meter.due();
                        if due.is_some_and(|due| due <= now) {
                            return Poll::Ready(self.break_off(Code::CANCEL));
                        }
                        around.wait_until(due);
                        // A reader of the request's body isn't held up by a client that doesn't read.
                        while self
                            .intake
                            .poll_feed(cx, around, &mut self.respond)
                            .is_ready()
                        {}
                        self.show(State::Sending, around);
                        return Poll::Pending;
                    }
                }
            }
            let piece = self.chunk.split_to(capacity.min(self.chunk.len()));
            if self.meter.is_waiting() {
                self.meter.rest(around.now());
            }
            self.meter.earn(piece.len());
            let ends = self.is_last && self.chunk.is_empty();
            send.send_data(piece, ends).map_err(|_| Over)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Content that was declared and has come.
    fn count(&mut self, bytes: u64) -> Result<(), Over> {
        if let Some(left) = self.left {
            self.left = left.checked_sub(bytes);
            if self.left.is_none() {
                return self.break_off(Code::INTERNAL_ERROR);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Over> {
        if self.left.is_some_and(|left| left > 0) {
            return self.break_off(Code::INTERNAL_ERROR);
        }
        self.is_last = true;
        let send = self.send.as_mut().ok_or(Over)?;
        send.send_data(Bytes::new(), true).map_err(|_| Over)
    }

    fn finish_with(&mut self, trailers: http::HeaderMap) -> Result<(), Over> {
        let Some(trailers) = reply::trailers(trailers).filter(|_| !matches!(self.left, Some(1..)))
        else {
            return self.break_off(Code::INTERNAL_ERROR);
        };
        if trailers.is_empty() {
            return self.finish();
        }
        self.is_last = true;
        let send = self.send.as_mut().ok_or(Over)?;
        send.send_trailers(trailers).map_err(|_| Over)
    }

    /// A response that can't be finished must not look complete.
    fn break_off(&mut self, code: Code) -> Result<(), Over> {
        self.broken = Some(code);
        Err(Over)
    }

    fn reset(&mut self, code: Code) {
        if let Some(send) = &mut self.send {
            send.send_reset(code);
        }
    }

    /// Feeds whoever still reads the request's body.
    fn poll_settle(&mut self, cx: &mut Context<'_>, around: &mut Around) -> Poll<()> {
        while self
            .intake
            .poll_feed(cx, around, &mut self.respond)
            .is_ready()
        {}
        if self.intake.is_held() && self.respond.poll_reset(cx).is_pending() {
            self.show(State::Draining, around);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn tell(&mut self, mail: &mut Vec<Message>) {
        let mine = mail.extract_if(.., |message| message.exchange == self.number);
        for message in mine {
            let response = reply::interim(message.status, message.fields);
            let sent = response.map(|response| self.respond.send_informational(response));
            if matches!(sent, Some(Ok(()))) {
                let _ = message.sent.send(());
            }
        }
    }

    /// It has to be waited for.
    fn show(&mut self, state: State, around: &mut Around) {
        if let Some(request) = self.request.take() {
            around.live.show(request);
        }
        around.state = state;
    }

    /// It is over.
    fn hide(&mut self, live: &Live) {
        if self.request.take().is_none() {
            live.hide();
        }
    }
}

/// With which code a response ends whose body failed: a request that was broken is the client's doing.
fn code_of(error: impl Into<BoxError>) -> Code {
    let error = error.into();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = next {
        if error.is::<Reject>() {
            return Code::PROTOCOL_ERROR;
        }
        next = error.source();
    }
    Code::INTERNAL_ERROR
}
