//! For responses without an end: that their connection waits for one.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use http::Request;

use super::{Live, Told};
use crate::body::Body;

/// Says whether a connection waits for the end of the response under way, so that it can close.
///
/// A response that goes on for as long as somebody listens would hold up a shutdown until it is cut. Its body asks each
/// time it is polled, and ends if so; the connection polls it again when the answer changes.
///
/// ```
/// use std::convert::Infallible;
/// use std::pin::Pin;
/// use std::task::{Context, Poll};
///
/// use bytes::Bytes;
/// use http_body::Frame;
/// use wharf::Closing;
///
/// /// Says nothing for as long as it may.
/// struct Endless {
///     closing: Option<Closing>,
/// }
///
/// impl http_body::Body for Endless {
///     type Data = Bytes;
///     type Error = Infallible;
///
///     fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
///         match &self.closing {
///             Some(closing) if closing.is_asked() => Poll::Ready(None),
///             _ => Poll::Pending,
///         }
///     }
/// }
///
/// fn handler(request: http::Request<wharf::Body>) -> http::Response<Endless> {
///     http::Response::new(Endless { closing: Closing::find(&request) })
/// }
/// # let _ = handler;
/// ```
#[derive(Clone)]
pub struct Closing {
    live: Arc<Live>,
}

impl Closing {
    /// That of the connection that `request` came on: from its extensions, where [`ConnInfoLayer`](crate::ConnInfoLayer)
    /// puts it, else from its body if that is a [`Body`].
    pub fn find<B: 'static>(request: &Request<B>) -> Option<Self> {
        let own = || (request.body() as &dyn Any).downcast_ref::<Body>();
        let extension = request.extensions().get::<Self>().cloned();
        extension.or_else(|| own()?.live().map(|live| Self { live: live.clone() }))
    }

    /// The connection was asked to close once the response under way has ended: by the drain of a shutdown, by
    /// [`Handle::close`](crate::Handle::close), or because the server needs its place.
    pub fn is_asked(&self) -> bool {
        self.live.told() >= Told::Drain
    }
}

impl fmt::Debug for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Closing").field(&self.is_asked()).finish()
    }
}
