//! The page: a service that writes what was counted.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, header};
use tower_service::Service;
use wharf::{Phase, State};

use super::labels::{ENDS, Method, StatusClass};
use super::snapshot::{ServerSnapshot, Snapshot};
use super::text::Text;
use super::{Metrics, Read};
use crate::get::only_get;

/// The media type of the text format, with its version.
const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Nanoseconds in a second, which is what times are told in.
const NANOS: f64 = 1e9;

/// Shows the metrics in Prometheus' text format 0.0.4; made by [`Metrics::page`].
///
/// On whatever path it is mounted, to `GET` and `HEAD`. Never an error, always ready.
#[derive(Debug, Clone)]
pub struct Page {
    metrics: Metrics,
}

impl Page {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    fn text(&self) -> String {
        let mut text = Text::default();
        let snapshot = self.metrics.snapshot();
        requests(&mut text, &snapshot);
        if let Some(server) = snapshot.server() {
            connections(&mut text, server);
        }
        for more in &self.metrics.more {
            // A family that is there twice would make the whole page unreadable.
            if text.has(&more.name) {
                continue;
            }
            match &more.read {
                Read::Counter(read) => {
                    text.counter(&more.name, &more.help).sample(&[], read());
                }
                Read::Gauge(read) => text.gauge(&more.name, &more.help).number(read()),
            }
        }
        text.finish()
    }
}

impl<B> Service<Request<B>> for Page {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(only_get(&request).unwrap_or_else(|| {
            let mut response = Response::new(self.text());
            let fields = response.headers_mut();
            fields.insert(header::CONTENT_TYPE, CONTENT_TYPE);
            fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        })))
    }
}

/// All series are there from the first, so that the first error is a change of one and not its beginning.
fn requests(text: &mut Text, snapshot: &Snapshot) {
    let sums = &snapshot.sums;
    let mut family = text.counter(
        "http_requests_total",
        "Requests whose response has begun or will never, by method and class of status.",
    );
    for method in Method::ALL {
        for class in StatusClass::ALL {
            let count = sums.requests[method as usize][class as usize];
            let labels = [("method", method.as_str()), ("status", class.as_str())];
            family.sample(&labels, count);
        }
    }
    let mut family = text.counter(
        "http_requests_refused_total",
        "Requests that no handler saw, by class of status.",
    );
    for class in [StatusClass::ClientError, StatusClass::ServerError] {
        family.sample(&[("status", class.as_str())], sums.refused[class as usize]);
    }
    let mut family = text.counter("http_responses_total", "Responses by how they ended.");
    for (how, count) in ENDS.iter().zip(sums.ended) {
        family.sample(&[("ended", how.as_str())], count);
    }
    text.gauge(
        "http_requests_in_flight",
        "Requests whose response has not ended.",
    )
    .sample(&[], snapshot.in_flight());
    // From 131 microseconds to 69 seconds, and from 256 bytes to 4 GiB.
    let (times, sizes) = (17..=36, (8..=32).step_by(2));
    text.histogram(
        "http_request_duration_seconds",
        "Time from the call to the end of the response.",
        &sums.duration,
        NANOS,
        times.clone(),
    );
    text.histogram(
        "http_first_byte_seconds",
        "Time from the call to the head of the response.",
        &sums.first_byte,
        NANOS,
        times,
    );
    text.histogram(
        "http_request_body_bytes",
        "Sizes of request bodies that are declared and not empty.",
        &sums.request_bytes,
        1.0,
        sizes.clone(),
    );
    text.histogram(
        "http_response_body_bytes",
        "Sizes of response bodies, as far as they were sent.",
        &sums.response_bytes,
        1.0,
        sizes,
    );
}

fn connections(text: &mut Text, server: &ServerSnapshot) {
    let mut family = text.gauge("wharf_phase", "How far the life of the server has come.");
    for phase in Phase::ALL {
        let is = u8::from(server.phase == *phase);
        family.sample(&[("phase", &phase.to_string())], is);
    }
    let mut family = text.gauge("wharf_connections", "Open connections by what they do.");
    for state in State::ALL {
        let count = server.connections.get(state).copied().unwrap_or_default();
        family.sample(&[("state", &state.to_string())], count);
    }
    text.gauge("wharf_connections_max", "How many connections may be open.")
        .sample(&[], server.max_connections);
    let mut family = text.counter(
        "wharf_connections_closed_total",
        "Connections that ended, by reason.",
    );
    for (reason, count) in &server.closed {
        family.sample(&[("reason", reason)], count);
    }
    let traffic = server.traffic;
    for (name, help, value) in [
        (
            "wharf_connections_accepted_total",
            "Connections accepted.",
            traffic.connections,
        ),
        (
            "wharf_accept_errors_total",
            "Connections that could not be accepted.",
            server.accept_errors,
        ),
        (
            "wharf_requests_total",
            "Requests whose head was complete.",
            traffic.requests,
        ),
        (
            "wharf_received_bytes_total",
            "Bytes read from connections.",
            traffic.bytes_in,
        ),
        (
            "wharf_sent_bytes_total",
            "Bytes written to connections.",
            traffic.bytes_out,
        ),
    ] {
        text.counter(name, help).sample(&[], value);
    }
}
