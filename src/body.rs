//! The body, in both directions: one concrete type, and the slot through which a request's content crosses from
//! the connection to whoever reads it. At most one frame is in flight, and only when it was asked for.
//!
//! Nothing here knows the socket or how bodies are framed.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

use crate::conn::Live;
use crate::error::{BoxError, Reason, Reject};

/// A request's or response's body.
///
/// A handler gets one with each request and may return one, built [`From`] bytes or text or, by
/// [`new`](Body::new), from any other `http_body::Body`. An error that comes out of a request's body is a
/// [`Reject`]: the bytes were malformed, too many or too late, or ended before their declared length. A short body
/// never looks complete.
///
/// ```
/// use wharf::Body;
///
/// let empty = Body::empty();
/// let text = Body::from("Hello, World!");
/// let wrapped = Body::new(http_body_util::Full::new(bytes::Bytes::from("bytes")));
/// # let _ = (empty, text, wrapped);
/// ```
#[derive(Default)]
pub struct Body {
    content: Content,
    /// The connection that a request came on; its facts ride here because an extension costs three allocations.
    origin: Option<Origin>,
}

/// Where a request came from.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) live: Arc<Live>,
    /// The number of its exchange on the connection, from 1.
    pub(crate) exchange: u64,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Whole(Bytes),
    Slot(Reader),
    /// The mutex is never locked for a poll: it only lends `Sync` to bodies that have none.
    Other(Mutex<BoxBody>),
}

type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

impl Body {
    /// A body without content.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Any other body. A `Body` is returned as it is, not boxed again.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(body) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return body.take().unwrap_or_default();
        }
        match body {
            Some(inner) => Self::of(Content::Other(Mutex::new(Box::pin(Erased { inner })))),
            None => Self::empty(),
        }
    }

    fn of(content: Content) -> Self {
        Self {
            content,
            origin: None,
        }
    }

    /// A whole request body that had arrived with its head.
    pub(crate) fn arrived(content: Bytes, origin: Origin) -> Self {
        let content = if content.is_empty() {
            Content::Empty
        } else {
            Content::Whole(content)
        };
        Self {
            content,
            origin: Some(origin),
        }
    }

    /// A request body that crosses through `slot`; `remaining` if its length was declared.
    pub(crate) fn crossing(slot: Arc<Slot>, remaining: Option<u64>, origin: Origin) -> Self {
        Self {
            content: Content::Slot(Reader { slot, remaining }),
            origin: Some(origin),
        }
    }

    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    pub(crate) fn live(&self) -> Option<&Arc<Live>> {
        self.origin.as_ref().map(|origin| &origin.live)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Slot(reader) => reader.poll_frame(cx),
            Content::Other(body) => body
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
                .poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Whole(_) => false,
            Content::Slot(reader) => reader.remaining == Some(0),
            Content::Other(body) => body
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Slot(reader) => reader
                .remaining
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Content::Other(body) => body
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = match &self.content {
            Content::Empty => "empty",
            Content::Whole(_) => "whole",
            Content::Slot(_) => "crossing",
            Content::Other(_) => "other",
        };
        f.debug_tuple("Body").field(&content).finish()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::of(if bytes.is_empty() {
            Content::Empty
        } else {
            Content::Whole(bytes)
        })
    }
}

macro_rules! from_bytes {
    ($($bytes:ty),*) => {$(
        impl From<$bytes> for Body {
            fn from(bytes: $bytes) -> Self {
                Bytes::from(bytes).into()
            }
        }
    )*};
}

from_bytes!(&'static str, &'static [u8], String, Vec<u8>, Box<[u8]>);

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

pin_project_lite::pin_project! {
    /// Any body as one of `Bytes` and `BoxError`.
    struct Erased<B> {
        #[pin]
        inner: B,
    }
}

impl<B> http_body::Body for Erased<B>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().inner.poll_frame(cx).map(|frame| {
            frame.map(|frame| match frame {
                Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
                Err(error) => Err(error.into()),
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The reader's end of a slot, inside a request's `Body`.
struct Reader {
    slot: Arc<Slot>,
    remaining: Option<u64>,
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(self.slot.poll_take(cx));
        if let (Some(Ok(frame)), Some(remaining)) = (&frame, &mut self.remaining) {
            *remaining =
                remaining.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.slot.leave();
    }
}

/// Where one frame at a time crosses from the connection to the reader of a request's body.
///
/// What changes is changed under the lock. What the connection asks again and again can be read without it: that leaves
/// three locks of eight for a body that comes in one piece behind its head.
#[derive(Default)]
pub(crate) struct Slot {
    reading: AtomicU8,
    /// The connection's waker is there.
    is_watched: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frame: Option<Frame<Bytes>>,
    end: End,
    /// Wakes the reader when a frame or the end has come.
    reader: Option<Waker>,
    /// Wakes the connection when a frame is wanted or the reader has left.
    feeder: Option<Waker>,
}

#[derive(Default)]
enum End {
    #[default]
    NotYet,
    Complete,
    Failed(Reject),
    /// The failure has been told; the stream is over.
    Told,
}

/// What the reader is doing, as the connection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reading {
    /// It holds the body and asked for nothing, or has not taken what it asked for.
    Holds = 0,
    /// It waits for a frame.
    Wants = 1,
    /// It has seen the end.
    Finished = 2,
    /// It has dropped the body before its end.
    Left = 3,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.lock();
        if let Some(frame) = state.frame.take() {
            if matches!(state.end, End::Complete) {
                self.set(Reading::Finished);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match std::mem::replace(&mut state.end, End::Told) {
            End::NotYet => state.end = End::NotYet,
            End::Complete | End::Told => {
                self.set(Reading::Finished);
                return Poll::Ready(None);
            }
            End::Failed(reject) => {
                self.set(Reading::Finished);
                return Poll::Ready(Some(Err(reject.into())));
            }
        }
        self.set(Reading::Wants);
        keep_waker(&mut state.reader, cx);
        // The connection looks at the slot after each poll of the handler, so only another task has to wake it.
        if state
            .feeder
            .as_ref()
            .is_some_and(|feeder| !feeder.will_wake(cx.waker()))
        {
            self.wake_feeder(state);
        }
        Poll::Pending
    }

    fn leave(&self) {
        if self.reading() == Reading::Finished {
            return;
        }
        let mut state = self.lock();
        self.set(Reading::Left);
        state.frame = None;
        self.wake_feeder(state);
    }

    /// Says that the waker is gone before it is used: a connection that doesn't see this yet is polled once more.
    fn wake_feeder(&self, mut state: MutexGuard<'_, State>) {
        self.is_watched.store(false, Relaxed);
        let feeder = state.feeder.take();
        drop(state);
        feeder.into_iter().for_each(Waker::wake);
    }

    /// What the reader is doing.
    pub(crate) fn reading(&self) -> Reading {
        match self.reading.load(Relaxed) {
            0 => Reading::Holds,
            1 => Reading::Wants,
            2 => Reading::Finished,
            _ => Reading::Left,
        }
    }

    fn set(&self, reading: Reading) {
        self.reading.store(reading as u8, Relaxed);
    }

    /// The same, and the task of `cx` will be woken when it changes; `stays` if that is the one of the last time.
    #[inline]
    pub(crate) fn watch(&self, cx: &Context<'_>, stays: bool) -> Reading {
        if !(stays && self.is_watched.load(Relaxed)) {
            self.watch_anew(cx);
        }
        self.reading()
    }

    #[cold]
    fn watch_anew(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        keep_waker(&mut state.feeder, cx);
        self.is_watched.store(true, Relaxed);
    }

    /// Gives the reader what it waits for; `last` if nothing will follow.
    pub(crate) fn give(&self, frame: Frame<Bytes>, last: bool, cx: &Context<'_>) {
        let mut state = self.lock();
        if self.reading() == Reading::Left {
            return;
        }
        state.frame = Some(frame);
        if last {
            state.end = End::Complete;
        }
        self.serve(state, cx);
    }

    /// Tells the reader that the body is complete, or why it never will be.
    pub(crate) fn end(&self, result: Result<(), Reject>, cx: &Context<'_>) {
        let mut state = self.lock();
        if self.reading() == Reading::Left {
            return;
        }
        state.end = result.map_or_else(End::Failed, |()| End::Complete);
        self.serve(state, cx);
    }

    /// Tells the reader of a body that isn't over that the rest will never come.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        if !matches!(state.end, End::NotYet) || self.reading() == Reading::Left {
            return;
        }
        state.end = End::Failed(Reject::new(Reason::BodyCut));
        self.set(Reading::Holds);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    fn serve(&self, mut state: MutexGuard<'_, State>, cx: &Context<'_>) {
        self.set(Reading::Holds);
        // A reader in the connection's own task is polled next anyway.
        let reader = state.reader.take_if(|reader| !reader.will_wake(cx.waker()));
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Makes a slot that nobody else holds any more ready for the next body of the connection.
    pub(crate) fn reuse(slot: &mut Arc<Self>) -> bool {
        let Some(slot) = Arc::get_mut(slot) else {
            return false;
        };
        *slot.reading.get_mut() = Reading::Holds as u8;
        let state = slot.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (state.frame, state.end, state.reader) = (None, End::NotYet, None);
        true
    }
}

fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    if !kept
        .as_ref()
        .is_some_and(|waker| waker.will_wake(cx.waker()))
    {
        *kept = Some(cx.waker().clone());
    }
}
