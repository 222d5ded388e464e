//! The same numbers for the `metrics` facade, under the names of the page. Handles are made once, so that a request costs no
//! look-up.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::counts::{ByClass, ByMethod};
use super::labels::{ENDS, Method, StatusClass};
use crate::follow::Ended;

/// A handle for each series.
pub(super) struct Facade {
    requests: ByMethod<Counter>,
    refused: ByClass<Counter>,
    ended: [Counter; ENDS.len()],
    in_flight: Gauge,
    first_byte: Histogram,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl Facade {
    /// With the recorder that is installed now.
    pub(super) fn register() -> Self {
        Self {
            requests: Method::ALL.map(|method| {
                StatusClass::ALL.map(|class| {
                    counter!("http_requests_total", "method" => method.as_str(), "status" => class.as_str())
                })
            }),
            refused: StatusClass::ALL
                .map(|class| counter!("http_requests_refused_total", "status" => class.as_str())),
            ended: ENDS.map(|how| counter!("http_responses_total", "ended" => how.as_str())),
            in_flight: gauge!("http_requests_in_flight"),
            first_byte: histogram!("http_first_byte_seconds"),
            duration: histogram!("http_request_duration_seconds"),
            request_bytes: histogram!("http_request_body_bytes"),
            response_bytes: histogram!("http_response_body_bytes"),
        }
    }

    pub(super) fn begin(&self, size: Option<u64>) {
        self.in_flight.increment(1.0);
        if let Some(size) = size {
            self.request_bytes.record(size as f64);
        }
    }

    pub(super) fn request(&self, method: Method, class: StatusClass) {
        self.requests[method as usize][class as usize].increment(1);
    }

    pub(super) fn refused(&self, class: StatusClass) {
        self.refused[class as usize].increment(1);
    }

    pub(super) fn first_byte(&self, time: Duration) {
        self.first_byte.record(time);
    }

    pub(super) fn end(&self, how: Ended, time: Duration, bytes: u64) {
        self.in_flight.decrement(1.0);
        self.duration.record(time);
        self.response_bytes.record(bytes as f64);
        if let Some(index) = ENDS.iter().position(|end| *end == how) {
            self.ended[index].increment(1);
        }
    }
}
