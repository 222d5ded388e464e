//! Server-sent events: a response that goes on, in the words of the WHATWG HTML standard, section "Server-sent events".
//!
//! There are three levels, each built of the one before:
//!
//! - [`Event`] is one event, encoded. No text can break out of its line, whoever wrote it.
//! - [`Sse`] is a response's body out of any stream of events, with a heartbeat while there are none.
//! - [`Hub`] publishes to any number of clients. An event is encoded once, whoever listens. A client that comes back says
//!   what it has seen (`Last-Event-ID`) and gets the rest, or is told how much it has missed. One that reads too slowly
//!   costs no memory, since all read from one ring of bounded size, and never holds up who publishes; what becomes of it
//!   is said by [`Lag`].
//!
//! ```
//! use std::time::Duration;
//!
//! use http::Request;
//! use http_body_util::BodyExt;
//! use wharf_middleware::sse::{Event, Hub};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), wharf_middleware::BoxError> {
//! let hub = Hub::builder().events(1_000).heartbeat(Duration::from_secs(20)).build();
//!
//! // In the handler:
//! let request = Request::get("/events").body(())?;
//! let response = hub.answer(&request);
//! assert_eq!(response.headers()["content-type"], "text/event-stream");
//!
//! // Anywhere:
//! hub.publish(Event::new("12.5").name("price")?);
//! # let mut body = std::pin::pin!(response.into_body());
//! # let frame = body.frame().await.unwrap()?.into_data().unwrap();
//! # assert!(frame.starts_with(b"data: 12.5\nevent: price\nid: "));
//! # Ok(())
//! # }
//! ```
//!
//! **Shutdown.** A stream of events has no end of its own. On wharf it ends when its connection is asked to close: in the
//! drain of a shutdown, by [`Handle::close`](wharf::Handle::close), or for want of room (behind layers that replace the
//! request's body: with [`wharf::ConnInfoLayer`] outside of them). The client comes back with its `Last-Event-ID`, to
//! whoever serves then. On any other server call [`Hub::close`] when it begins to shut down.
//!
//! A heartbeat finds out that a client has gone although its network never said so, and keeps proxies from closing what
//! they take for idle. Keep a time-out of the [exchange](crate::Timeout::exchange) away from these responses, and one of
//! the [gap](crate::Timeout::gap) longer than the heartbeat.

mod body;
mod event;
mod hub;
#[cfg(test)]
mod tests;

pub use body::Sse;
pub use event::{Event, InvalidEvent};
pub use hub::{Builder, Hub, Lag, Subscription};

use http::header::{HeaderMap, HeaderName};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The id of the last event that a client has seen, if it comes back and knows one.
pub fn last_event_id(fields: &HeaderMap) -> Option<&str> {
    let value = crate::conditional::only(fields, &LAST_EVENT_ID)?;
    // `HeaderValue::to_str` would refuse what isn't ASCII, and ids are UTF-8.
    let id = std::str::from_utf8(value.as_bytes()).ok()?;
    (!id.is_empty()).then_some(id)
}
