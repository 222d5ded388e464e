//! A request's body on its way in: taken from h2 when its reader asks for it, and handed over through the slot. What is
//! taken is what the client may send again.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::StatusCode;
use http_body::Frame;
use tokio::time::Instant;

use super::request::{Asked, judge_trailers};
use super::stream::Around;
use crate::body::{Body, Origin, Reading, Slot};
use crate::codec::Length;
use crate::error::{Reason, Reject};
use crate::limits::Limits;
use crate::meter::StreamMeter;

/// The body of one request, as long as it crosses.
pub(super) struct Intake {
    recv: Option<RecvStream>,
    slot: Option<Arc<Slot>>,
    /// Content that was taken from h2 before anybody wanted it.
    early: Bytes,
    expects_continue: bool,
    got: u64,
    patience: Patience,
}

/// How long the client is still waited for.
struct Patience {
    meter: StreamMeter,
    /// Bytes of the frame under way that have bought time already.
    credited: u32,
}

impl Intake {
    /// Begins with the body of a request, and makes what its handler gets.
    pub(super) fn open(
        mut recv: RecvStream,
        asked: &Asked,
        origin: Origin,
        limits: &Limits,
    ) -> (Self, Body) {
        let mut intake = Self::none(limits);
        intake.expects_continue = asked.expects_continue;
        let remaining = match asked.length() {
            Length::Known(0) if recv.is_end_stream() => {
                return (intake, Body::arrived(Bytes::new(), origin));
            }
            Length::Known(length) => Some(length),
            Length::Chunked => None,
        };
        // A small body has come with its head, more often than not. One whose client asks first is looked at as late as
        // its reader asks, whatever has come.
        if let Some(length) = remaining.filter(|_| !intake.expects_continue)
            && let Some(data) = intake.take_early(&mut recv)
        {
            if data.len() as u64 == length && recv.is_end_stream() {
                return (intake, Body::arrived(data, origin));
            }
            intake.early = data;
        }
        let slot = Arc::new(Slot::default());
        (intake.recv, intake.slot) = (Some(recv), Some(slot.clone()));
        (intake, Body::crossing(slot, remaining, origin))
    }

    /// A request without a body that anybody reads.
    pub(super) fn none(limits: &Limits) -> Self {
        Self {
            recv: None,
            slot: None,
            early: Bytes::new(),
            expects_continue: false,
            got: 0,
            patience: Patience {
                meter: StreamMeter::new(limits),
                credited: 0,
            },
        }
    }

    /// Content that is there already.
    fn take_early(&mut self, recv: &mut RecvStream) -> Option<Bytes> {
        let mut nobody = Context::from_waker(Waker::noop());
        match recv.poll_data(&mut nobody) {
            Poll::Ready(Some(Ok(data))) => {
                let _ = recv.flow_control().release_capacity(data.len());
                self.got = data.len() as u64;
                Some(data)
            }
            _ => None,
        }
    }

    /// What a handler may take as a tunnel.
    pub(super) fn tunnel(recv: RecvStream, limits: &Limits) -> Self {
        Self {
            recv: Some(recv),
            ..Self::none(limits)
        }
    }

    /// When the client is late with what is waited for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.patience.meter.due()
    }

    /// Somebody reads the body, or may go on to.
    pub(super) fn is_held(&self) -> bool {
        let reading = self.slot.as_ref().map(|slot| slot.reading());
        self.recv.is_some() && matches!(reading, Some(Reading::Holds | Reading::Wants))
    }

    /// What still comes is the handler's, whole.
    pub(super) fn take(&mut self) -> Option<RecvStream> {
        self.recv.take()
    }

    /// Gives the reader what it waits for. Ready when the reader got something and should be polled; pending when it
    /// wants nothing, or nothing has come.
    pub(super) fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        around: &mut Around,
        respond: &mut SendResponse<Bytes>,
    ) -> Poll<()> {
        let (Some(recv), Some(slot)) = (&mut self.recv, &self.slot) else {
            return Poll::Pending;
        };
        if slot.watch(cx, false) != Reading::Wants {
            self.patience.rest(around);
            return Poll::Pending;
        }
        if std::mem::take(&mut self.expects_continue) {
            say_continue(respond);
        }
        if !self.early.is_empty() {
            slot.give(Frame::data(std::mem::take(&mut self.early)), false, cx);
            return Poll::Ready(());
        }
        loop {
            let end = match recv.poll_data(cx) {
                Poll::Pending if around.eof => Err(Reason::BodyCut),
                Poll::Pending => match self.patience.poll_late(recv, around) {
                    Poll::Ready(()) => Err(Reason::BodyTimeout),
                    Poll::Pending => return Poll::Pending,
                },
                Poll::Ready(Some(Err(_))) => Err(Reason::BodyCut),
                Poll::Ready(Some(Ok(data))) => {
                    // It can't fail: so much has come.
                    let _ = recv.flow_control().release_capacity(data.len());
                    if data.is_empty() {
                        continue;
                    }
                    self.patience.got(data.len(), around);
                    self.got += data.len() as u64;
                    if self.got > around.settings.limits.body_bytes {
                        Err(Reason::BodyTooLarge)
                    } else {
                        let is_last = recv.is_end_stream();
                        slot.give(Frame::data(data), is_last, cx);
                        if is_last {
                            self.recv = None;
                        }
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(None) => match recv.poll_trailers(cx) {
                    Poll::Pending if around.eof => Err(Reason::BodyCut),
                    Poll::Pending => match self.patience.poll_late(recv, around) {
                        Poll::Ready(()) => Err(Reason::BodyTimeout),
                        Poll::Pending => return Poll::Pending,
                    },
                    Poll::Ready(Err(_)) => Err(Reason::BodyCut),
                    Poll::Ready(Ok(None)) => Ok(None),
                    Poll::Ready(Ok(Some(trailers))) => {
                        judge_trailers(&trailers, &around.settings.limits).map(|()| Some(trailers))
                    }
                },
            };
            match end {
                Ok(Some(trailers)) => slot.give(Frame::trailers(trailers), true, cx),
                Ok(None) => slot.end(Ok(()), cx),
                Err(reason) => slot.end(Err(Reject::new(reason)), cx),
            }
            self.patience.rest(around);
            self.recv = None;
            return Poll::Ready(());
        }
    }

    /// Before the final response: whoever still reads the body needs it to be sent.
    pub(super) fn before_response(&mut self, respond: &mut SendResponse<Bytes>) {
        if self.expects_continue && self.is_held() {
            say_continue(respond);
        }
        self.expects_continue = false;
    }
}

impl Patience {
    /// The client isn't waited for.
    fn rest(&mut self, around: &mut Around) {
        if self.meter.is_waiting() {
            self.meter.rest(around.now());
        }
    }

    /// A frame of content is whole.
    fn got(&mut self, bytes: usize, around: &mut Around) {
        self.rest(around);
        let credited = std::mem::take(&mut self.credited) as usize;
        self.meter.earn(bytes.saturating_sub(credited));
    }

    /// Waits for the client; ready when that has been too long.
    fn poll_late(&mut self, recv: &RecvStream, around: &mut Around) -> Poll<()> {
        let now = around.now();
        self.meter.wait(now);
        if let Some((stream, got)) = around.half
            && recv.stream_id().as_u32() == stream
            && got > self.credited
        {
            self.meter.rest(now);
            self.meter.earn((got - self.credited) as usize);
            self.meter.wait(now);
            self.credited = got;
        }
        match self.meter.due() {
            Some(due) if due <= now => Poll::Ready(()),
            due => {
                around.wait_until(due);
                Poll::Pending
            }
        }
    }
}

/// Says `100 Continue`, once (RFC 9110 section 10.1.1).
fn say_continue(respond: &mut SendResponse<Bytes>) {
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    // A stream that is gone needs none.
    let _ = respond.send_informational(response);
}
