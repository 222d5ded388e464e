//! Time-outs of the handler, of the whole exchange, and of the gap between two frames of a response.
//!
//! tower's time-out ends when the response's head is there; what its body then does, nobody bounds. [`Timeout`] knows
//! three times, each off until it is set, each with an ending of its own:
//!
//! | time | from | to | what the client sees |
//! |---|---|---|---|
//! | [`handler`](Timeout::handler) | the call | the response's head | [a status](Timeout::handler_status), 503 by default |
//! | [`exchange`](Timeout::exchange) | the call | the end of the response's body | [a status](Timeout::exchange_status) before the head, a cut response after it |
//! | [`gap`](Timeout::gap) | the server asks for a frame | the frame is there | a cut response |
//!
//! A response is cut by an error out of its body ([`TimedOut`]): the server ends the connection or the stream without
//! the mark that would make the response look complete.
//!
//! The status is 503 (RFC 9110 section 15.6.4), as the container answers tower's `Elapsed`: this server can't answer
//! now. 504 is a gateway's word for its upstream's lateness (section 15.6.5); set it in a gateway. 408 would tell the
//! client that *it* was late, and browsers repeat a request after it. There is no `Retry-After`: how much of the work
//! was done is not known here.
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::Timeout;
//!
//! async fn dawdle(_: Request<String>) -> Result<Response<String>, Infallible> {
//!     tokio::time::sleep(Duration::from_secs(11)).await;
//!     Ok(Response::new("too late".to_owned()))
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Infallible> {
//! let app = ServiceBuilder::new()
//!     .layer(
//!         Timeout::new()
//!             .handler(Duration::from_secs(10))
//!             .exchange(Duration::from_secs(60))
//!             .gap(Duration::from_secs(15)),
//!     )
//!     .service(service_fn(dawdle));
//!
//! let response = app.oneshot(Request::new(String::new())).await?;
//! assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
//! # Ok(())
//! # }
//! ```
//!
//! With [`announce`](Timeout::announce) the times are also in the request's extensions, so that inner code can give
//! up in time or pass them on: [`Deadline::of`]. Nested layers only shorten it.
//!
//! Cost: a reading of the clock; one more for each frame if the exchange has a limit; a timer only for what had to be
//! waited for. No allocation, except for `announce`: the first extension of a request costs three.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;

/// The layer: which times are bounded, and what is answered. See [the module](self).
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Timeout {
    handler: Option<Duration>,
    exchange: Option<Duration>,
    gap: Option<Duration>,
    handler_status: StatusCode,
    exchange_status: StatusCode,
    announce: bool,
}

impl Default for Timeout {
    fn default() -> Self {
        Self {
            handler: None,
            exchange: None,
            gap: None,
            handler_status: StatusCode::SERVICE_UNAVAILABLE,
            exchange_status: StatusCode::SERVICE_UNAVAILABLE,
            announce: false,
        }
    }
}

impl Timeout {
    /// No time is bounded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// From the call to the response's head.
    pub fn handler(mut self, time: Duration) -> Self {
        self.handler = Some(time);
        self
    }

    /// From the call to the end of the response's body.
    ///
    /// A body is cut when the server asks it for more: while a client doesn't take what it was sent, that client's own
    /// deadline in the server ends it.
    pub fn exchange(mut self, time: Duration) -> Self {
        self.exchange = Some(time);
        self
    }

    /// How long a frame of the body may take, from the moment the server asks for it.
    ///
    /// Not the time between frames as the client sees them: a slow client is not the handler's fault.
    pub fn gap(mut self, time: Duration) -> Self {
        self.gap = Some(time);
        self
    }

    /// What is answered when the handler took too long; 503 by default.
    pub fn handler_status(mut self, status: StatusCode) -> Self {
        self.handler_status = status;
        self
    }

    /// What is answered when the exchange took too long and no response had begun; 503 by default.
    pub fn exchange_status(mut self, status: StatusCode) -> Self {
        self.exchange_status = status;
        self
    }

    /// Puts a [`Deadline`] into the request's extensions.
    ///
    /// Off by default: the first extension of a request costs three allocations.
    pub fn announce(mut self) -> Self {
        self.announce = true;
        self
    }

    /// When, and as what, an answer that hasn't begun is late.
    fn answer_by(&self, start: Instant) -> Option<(Instant, TimedOut)> {
        let handler = after(start, self.handler).map(|due| (due, TimedOut::Handler));
        let exchange = after(start, self.exchange).map(|due| (due, TimedOut::Exchange));
        first_due(handler, exchange)
    }

    fn status(&self, late: TimedOut) -> StatusCode {
        match late {
            TimedOut::Handler => self.handler_status,
            TimedOut::Exchange | TimedOut::Gap => self.exchange_status,
        }
    }
}

impl<S> Layer<S> for Timeout {
    type Service = WithTimeout<S>;

    fn layer(&self, inner: S) -> WithTimeout<S> {
        WithTimeout {
            inner,
            times: *self,
        }
    }
}

/// When a request is late: in its extensions if a [`Timeout`] around [announces](Timeout::announce) it.
///
/// ```
/// use http::{Request, Response};
/// use wharf_middleware::Deadline;
///
/// async fn query(request: Request<String>) -> Result<Response<String>, std::convert::Infallible> {
///     let left = Deadline::of(&request).and_then(Deadline::remaining);
///     let text = left.map_or("no hurry".to_owned(), |left| format!("SET timeout = {}ms", left.as_millis()));
///     Ok(Response::new(text))
/// }
/// # let _ = query;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    answer_by: Option<Instant>,
    end_by: Option<Instant>,
}

impl Deadline {
    /// The deadline of `request`, if a layer around announced one.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        request.extensions().get().copied()
    }

    /// When the response must have begun.
    pub fn answer_by(self) -> Option<Instant> {
        self.answer_by
    }

    /// When the response's body must have ended.
    pub fn end_by(self) -> Option<Instant> {
        self.end_by
    }

    /// The time left for beginning a response: zero if it is over, `None` if it isn't bounded.
    pub fn remaining(self) -> Option<Duration> {
        let due = self.answer_by?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Announces the earlier of this and what is announced already.
    fn announce<B>(self, request: &mut Request<B>) {
        // In place where there is one: inserting would allocate again.
        if let Some(outer) = request.extensions_mut().get_mut::<Self>() {
            outer.answer_by = earliest(outer.answer_by, self.answer_by);
            outer.end_by = earliest(outer.end_by, self.end_by);
        } else {
            request.extensions_mut().insert(self);
        }
    }
}

/// Which time was over: the error that cuts a body. Also in the extensions of a response that this layer answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimedOut {
    /// The handler's, before it answered.
    Handler,
    /// The whole exchange's.
    Exchange,
    /// The next frame's.
    Gap,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handler => "the handler did not answer in time",
            Self::Exchange => "the response did not end in time",
            Self::Gap => "the next frame of the response did not come in time",
        })
    }
}

impl std::error::Error for TimedOut {}

/// The service that [`Timeout`] makes.
#[derive(Debug, Clone)]
pub struct WithTimeout<S> {
    inner: S,
    times: Timeout,
}

impl<S, B, R> Service<Request<B>> for WithTimeout<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<TimeoutBody<R>>;
    type Error = S::Error;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let start = Instant::now();
        let answer_by = self.times.answer_by(start);
        let end_by = after(start, self.times.exchange);
        if self.times.announce {
            Deadline {
                answer_by: answer_by.map(|(due, _)| due),
                end_by,
            }
            .announce(&mut request);
        }
        TimeoutFuture {
            call: Some(self.inner.call(request)),
            times: self.times,
            answer_by,
            end_by,
            timer: Timer::default(),
        }
    }
}

pin_project! {
    /// The future of [`WithTimeout`].
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct TimeoutFuture<F> {
        // None once it is late: what the handler holds is given back before the answer is sent.
        #[pin]
        call: Option<F>,
        times: Timeout,
        answer_by: Option<(Instant, TimedOut)>,
        end_by: Option<Instant>,
        #[pin]
        timer: Timer,
    }
}

impl<F, R, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<TimeoutBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let call = this
            .call
            .as_mut()
            .as_pin_mut()
            .expect("polled after it was ready");
        if let Poll::Ready(answer) = call.poll(cx) {
            let (end_by, gap) = (*this.end_by, this.times.gap);
            return Poll::Ready(answer.map(|response| {
                response.map(|body| TimeoutBody {
                    body: Some(body),
                    end_by,
                    gap,
                    frame_by: None,
                    timer: Timer::default(),
                })
            }));
        }
        let Some((due, late)) = *this.answer_by else {
            return Poll::Pending;
        };
        ready!(this.timer.poll(due, cx));
        this.call.set(None);
        let mut response = Response::new(TimeoutBody::empty());
        *response.status_mut() = this.times.status(late);
        response.extensions_mut().insert(late);
        Poll::Ready(Ok(response))
    }
}

impl<F> fmt::Debug for TimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A response's body under the times of a [`Timeout`]; it ends with a [`TimedOut`] as its error when one is over.
    pub struct TimeoutBody<B> {
        // None for an empty body, and once it was cut.
        #[pin]
        body: Option<B>,
        end_by: Option<Instant>,
        gap: Option<Duration>,
        // When the frame that was asked for is late; None while none is waited for.
        frame_by: Option<Instant>,
        #[pin]
        timer: Timer,
    }
}

impl<B> TimeoutBody<B> {
    fn empty() -> Self {
        Self {
            body: None,
            end_by: None,
            gap: None,
            frame_by: None,
            timer: Timer::default(),
        }
    }
}

impl<B> Default for TimeoutBody<B> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // Asked first: a body that always has a frame ready would never get as far as the timer.
        let over = this.end_by.is_some_and(|due| due <= Instant::now());
        if !over && let Poll::Ready(frame) = body.poll_frame(cx) {
            *this.frame_by = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let late = if over {
            TimedOut::Exchange
        } else {
            if this.frame_by.is_none() {
                *this.frame_by = after(Instant::now(), *this.gap);
            }
            let end = this.end_by.map(|due| (due, TimedOut::Exchange));
            let frame = this.frame_by.map(|due| (due, TimedOut::Gap));
            let Some((due, late)) = first_due(end, frame) else {
                return Poll::Pending;
            };
            ready!(this.timer.poll(due, cx));
            late
        };
        this.body.set(None);
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: fmt::Debug> fmt::Debug for TimeoutBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutBody")
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// A timer that is made when something must first be waited for. What is due only ever gets later, so it is set anew
    /// when it has gone off too early, and not for each frame.
    #[derive(Default)]
    pub(crate) struct Timer {
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Timer {
    pub(crate) fn poll(self: Pin<&mut Self>, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.project().sleep;
        if sleep.is_none() {
            sleep.set(Some(sleep_until(due)));
        }
        loop {
            let Some(mut armed) = sleep.as_mut().as_pin_mut() else {
                return Poll::Pending;
            };
            ready!(armed.as_mut().poll(cx));
            // It may have been armed for an earlier frame, which came.
            if armed.deadline() >= due {
                return Poll::Ready(());
            }
            armed.reset(due);
        }
    }
}

/// `None` as well where the sum is beyond what a clock can show: that time is never over.
fn after(start: Instant, time: Option<Duration>) -> Option<Instant> {
    start.checked_add(time?)
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

/// The earlier of two, by the name it goes by.
fn first_due(
    one: Option<(Instant, TimedOut)>,
    other: Option<(Instant, TimedOut)>,
) -> Option<(Instant, TimedOut)> {
    let both = [one, other].into_iter().flatten();
    both.min_by_key(|(due, _)| *due)
}

#[cfg(test)]
mod tests;
