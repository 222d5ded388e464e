//! Interim responses from a handler: `103 Early Hints`, `102 Processing`, sent while the final one is being made.

use std::fmt;

use http::{HeaderMap, Request, StatusCode};
use tokio::sync::oneshot;

use crate::body::{Body, Origin};

/// A handle that sends interim responses for `request` (RFC 9110 section 15.2).
///
/// Taken before the body is: the handle finds its connection through it. On a request that came on no connection
/// every message is refused with [`NotSent`].
///
/// ```
/// use http::{HeaderMap, HeaderValue, Request, Response, header};
/// use wharf::{Body, BoxError};
///
/// async fn page(request: Request<Body>) -> Result<Response<Body>, BoxError> {
///     let mut hints = HeaderMap::new();
///     hints.insert(header::LINK, HeaderValue::from_static("</style.css>; rel=preload; as=style"));
///     // A client of HTTP/1.0 gets none, which is no reason to fail.
///     let _ = wharf::interim(&request).early_hints(hints).await;
///     Ok(Response::new("<!doctype html>".into()))
/// }
/// # let _ = page;
/// ```
pub fn interim(request: &Request<Body>) -> Interim {
    if let Some(live) = request.body().live() {
        live.expect_mail();
    }
    Interim {
        origin: request.body().origin().cloned(),
    }
}

/// Sends interim responses; see [`interim`].
#[derive(Clone)]
pub struct Interim {
    origin: Option<Origin>,
}

impl Interim {
    /// Sends `103 Early Hints` with these fields (RFC 8297).
    ///
    /// # Errors
    ///
    /// As [`send`](Interim::send).
    pub async fn early_hints(&self, fields: HeaderMap) -> Result<(), NotSent> {
        self.send(StatusCode::EARLY_HINTS, fields).await
    }

    /// Sends an interim response. Resolves once it is in order before the final response; dropping the future
    /// doesn't take it back.
    ///
    /// # Errors
    ///
    /// [`NotSent`] when the client speaks HTTP/1.0, when the final response has begun or the connection has ended,
    /// and for a status that isn't 1xx or is 101.
    pub async fn send(&self, status: StatusCode, fields: HeaderMap) -> Result<(), NotSent> {
        let origin = self.origin.as_ref().ok_or(NotSent(()))?;
        let (sent, receipt) = oneshot::channel();
        origin.live.post(Message {
            exchange: origin.exchange,
            status,
            fields,
            sent,
        });
        receipt.await.map_err(|_| NotSent(()))
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").finish_non_exhaustive()
    }
}

/// The interim response was not sent: it was too late, or the client would not understand it.
#[derive(Debug)]
pub struct NotSent(());

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an interim response can only go to an HTTP/1.1 client, before the final response",
        )
    }
}

impl std::error::Error for NotSent {}

/// An interim response on its way to the connection.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) exchange: u64,
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    /// Dropped unanswered if it wasn't sent.
    pub(crate) sent: oneshot::Sender<()>,
}
