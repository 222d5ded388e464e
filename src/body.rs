//! The body, in both directions: one concrete type, whose content is there, comes through the `slot`, or is any other body.
//!
//! Nothing here knows the socket or how bodies are framed.

mod slot;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

use crate::conn::Live;
use crate::error::BoxError;

pub(crate) use slot::{Reading, Slot};

/// A request's or response's body.
///
/// A handler gets one with each request and may return one, built [`From`] bytes or text or, by
/// [`new`](Body::new), from any other `http_body::Body`. An error that comes out of a request's body is a
/// [`Reject`](crate::error::Reject): the bytes were malformed, too many or too late, or ended before their declared length. A short body
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
