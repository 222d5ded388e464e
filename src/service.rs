//! What the container does with what services return: errors and panics become responses here.

use std::any::Any;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::codec::EncodeError;
use crate::error::{BoxError, Reject};

/// The answer to a request that is refused before any handler sees it.
pub(crate) fn refusal(reject: &Reject) -> Response<Bytes> {
    plain(reject.status(), reject.explain())
}

/// The answer to a request whose service returned an error.
///
/// The first error of the chain that says more decides: tower's `Overloaded` is 503 with `Retry-After` and its
/// `Elapsed` 503; a [`Reject`] that came out of the request's body keeps its own status, and so does a request that isn't the
/// WebSocket handshake it should be; anything else is 500.
pub(crate) fn failure(error: &BoxError) -> Response<Bytes> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error.as_ref());
    while let Some(error) = next {
        if let Some(reject) = error.downcast_ref::<Reject>() {
            return refusal(reject);
        }
        #[cfg(feature = "websocket")]
        if let Some(error) = error.downcast_ref::<crate::upgrade::NotWebSocket>() {
            return error.response();
        }
        if error.is::<tower::load_shed::error::Overloaded>() {
            return plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is at its limit, try again later",
            );
        }
        if error.is::<tower::timeout::error::Elapsed>() {
            return plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the request took too long, try again later",
            );
        }
        next = error.source();
    }
    internal()
}

/// The answer to a request whose handler panicked, or whose response can't be sent as it is.
pub(crate) fn internal() -> Response<Bytes> {
    plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the server failed to answer this request",
    )
}

pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::SERVICE_UNAVAILABLE {
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Why there is no response of the handler's own.
pub(crate) enum Failed {
    /// Its service returned an error.
    Error(BoxError),
    /// It panicked.
    Panicked(Panicked),
    /// Its response can't be sent without harm.
    Unsendable(EncodeError),
}

/// User code panicked; the panic hook has reported it.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Runs user code. A panic costs the request, not the thread; what the code left half done is dropped with it.
#[inline]
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        drop_quietly(payload);
        Panicked
    })
}

/// A payload whose own drop panics must not take the thread with it.
#[cold]
fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}
