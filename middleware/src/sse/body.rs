//! The body: what a stream gives, a sign of life while it gives nothing, and the end when the connection wants one.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use wharf::Closing;

use super::Event;
use crate::BoxError;
use crate::timeout::Timer;

/// A comment without text: the shortest thing that isn't an event.
const SIGN_OF_LIFE: Bytes = Bytes::from_static(b":\n\n");

/// nginx passes on what comes instead of collecting it.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pin_project! {
    /// A response's body out of a stream of events; see [the module](super).
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    ///
    /// use http::{Request, Response};
    /// use wharf_middleware::sse::{Event, Sse};
    ///
    /// async fn countdown(request: Request<wharf::Body>) -> Result<Response<wharf::Body>, Infallible> {
    ///     let numbers = futures_util::stream::iter((0..10).rev());
    ///     let events = futures_util::StreamExt::map(numbers, |n| Ok::<_, Infallible>(Event::new(n.to_string())));
    ///     let sse = Sse::new(events).heartbeat(Duration::from_secs(20)).until_closing(&request);
    ///     Ok(sse.into_response().map(wharf::Body::new))
    /// }
    /// # let _ = countdown;
    /// ```
    pub struct Sse<St> {
        #[pin]
        stream: St,
        ended: bool,
        closing: Option<Closing>,
        retry: Option<Bytes>,
        every: Option<Duration>,
        // When the next sign of life is due; None while nothing is waited for.
        due: Option<Instant>,
        #[pin]
        timer: Timer,
    }
}

impl<St> Sse<St> {
    /// What `stream` gives, an [`Event`] or one that is encoded already, and its end. An error of the stream's breaks the
    /// response off.
    pub fn new<T, E>(stream: St) -> Self
    where
        St: Stream<Item = Result<T, E>>,
        T: Into<Bytes>,
        E: Into<BoxError>,
    {
        Self {
            stream,
            ended: false,
            closing: None,
            retry: None,
            every: None,
            due: None,
            timer: Timer::default(),
        }
    }

    /// A comment whenever nothing has been there to send for so long. Off by default.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.every = Some(every.max(Duration::from_millis(1)));
        self
    }

    /// Tells the client first how long it is to wait before it comes back, when this has ended or broken.
    #[must_use]
    pub fn retry(mut self, time: Duration) -> Self {
        self.retry = Some(Event::retry(time).into_bytes());
        self
    }

    /// Ends when the connection that `request` came on waits for that, where it is wharf's.
    #[must_use]
    pub fn until_closing<B: 'static>(mut self, request: &Request<B>) -> Self {
        self.closing = Closing::find(request);
        self
    }

    /// As a response that no cache keeps and no proxy holds back.
    pub fn into_response(self) -> Response<Self> {
        let mut response = Response::new(self);
        let fields = response.headers_mut();
        let mut say = |name, value| fields.insert(name, HeaderValue::from_static(value));
        say(header::CONTENT_TYPE, "text/event-stream");
        say(header::CACHE_CONTROL, "no-cache");
        say(X_ACCEL_BUFFERING, "no");
        response
    }
}

impl<St, T, E> Body for Sse<St>
where
    St: Stream<Item = Result<T, E>>,
    T: Into<Bytes>,
    E: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let data = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        // Whatever is left is for the client to ask for when it comes back.
        if *this.ended || this.closing.as_ref().is_some_and(Closing::is_asked) {
            *this.ended = true;
            return Poll::Ready(None);
        }
        if let Some(retry) = this.retry.take() {
            return data(retry);
        }
        match this.stream.poll_next(cx) {
            Poll::Ready(Some(Ok(event))) => {
                *this.due = None;
                data(event.into())
            }
            Poll::Ready(end) => {
                *this.ended = true;
                Poll::Ready(end.and_then(Result::err).map(|error| Err(error.into())))
            }
            Poll::Pending => {
                let Some(every) = *this.every else {
                    return Poll::Pending;
                };
                let due = *this.due.get_or_insert_with(|| Instant::now() + every);
                ready!(this.timer.poll(due, cx));
                *this.due = None;
                data(SIGN_OF_LIFE)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl<St> fmt::Debug for Sse<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sse")
            .field("heartbeat", &self.every)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
