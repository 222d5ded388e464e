//! What was counted, at one time or between two, for whoever shows it.

use std::collections::BTreeMap;
use std::ops::Sub;
use std::time::Duration;

use http::Method as HttpMethod;
use wharf::{Handle, Phase, State, Traffic};

use super::counts::{Counts, Sums};
use super::histogram::Distribution;
use super::labels::{ENDS, Method, StatusClass};
use crate::follow::Ended;

/// What was counted up to one moment; less an earlier one, what came between the two.
///
/// Of what comes and goes, such as requests in flight, the difference has the later one's. Each takes 60 KiB, for its four
/// histograms.
#[derive(Debug, Clone)]
pub struct Snapshot {
    span: Duration,
    in_flight: u64,
    pub(super) sums: Sums,
    pub(super) server: Option<ServerSnapshot>,
}

impl Snapshot {
    pub(super) fn take(counts: &Counts, server: Option<&Handle>) -> Self {
        let sums = counts.sums();
        let ended: u64 = sums.ended.iter().sum();
        Self {
            span: counts.since.elapsed(),
            in_flight: sums.begun.saturating_sub(ended),
            sums,
            server: server.map(ServerSnapshot::take),
        }
    }

    /// The time for which it was counted.
    pub fn span(&self) -> Duration {
        self.span
    }

    /// Requests whose response has begun, or will never.
    pub fn requests(&self) -> u64 {
        self.sums.requests.iter().flatten().sum()
    }

    /// The same, a second.
    pub fn per_second(&self) -> f64 {
        if self.span.is_zero() {
            return 0.0;
        }
        self.requests() as f64 / self.span.as_secs_f64()
    }

    /// Those with a status of this class.
    pub fn of_class(&self, class: StatusClass) -> u64 {
        let by_method = self.sums.requests.iter();
        by_method.map(|of| of[class as usize]).sum()
    }

    /// Those with this method, one that isn't a usual one together with all others of its kind, and a status of this class.
    pub fn of_method(&self, method: &HttpMethod, class: StatusClass) -> u64 {
        self.sums.requests[Method::of(method) as usize][class as usize]
    }

    /// Requests that were refused before any handler, if [somebody told](super::Metrics::refused).
    pub fn refused(&self) -> u64 {
        self.sums.refused.iter().sum()
    }

    /// Requests whose response hasn't ended.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Responses that are over, and weren't sent to their end: dropped, failed or panicked midway or before they began.
    pub fn broken(&self) -> u64 {
        let ends = ENDS.iter().zip(self.sums.ended);
        let broken = ends.filter(|(how, _)| **how != Ended::Complete);
        broken.map(|(_, count)| count).sum()
    }

    /// The time that a share of `q` of the requests, such as 0.99, did not exceed, from the call to the end of the response: at
    /// most 1/32 too long. `None` if none has ended.
    pub fn duration(&self, q: f64) -> Option<Duration> {
        self.sums.duration.quantile(q).map(Duration::from_nanos)
    }

    /// The same from the call to the response's head.
    pub fn first_byte(&self, q: f64) -> Option<Duration> {
        self.sums.first_byte.quantile(q).map(Duration::from_nanos)
    }

    /// All durations, in nanoseconds.
    pub fn durations(&self) -> &Distribution {
        &self.sums.duration
    }

    /// The times until the response's head, in nanoseconds.
    pub fn first_bytes(&self) -> &Distribution {
        &self.sums.first_byte
    }

    /// The sizes of requests' bodies that are declared and not empty, in bytes.
    pub fn request_bytes(&self) -> &Distribution {
        &self.sums.request_bytes
    }

    /// The sizes of responses' bodies, as far as they were sent, in bytes.
    pub fn response_bytes(&self) -> &Distribution {
        &self.sums.response_bytes
    }

    /// The server's side, if one is [followed](super::Metrics::follow).
    pub fn server(&self) -> Option<&ServerSnapshot> {
        self.server.as_ref()
    }
}

impl Sub for &Snapshot {
    type Output = Snapshot;

    fn sub(self, earlier: &Snapshot) -> Snapshot {
        let server = self.server.clone().map(|now| match &earlier.server {
            Some(then) => now.since(then),
            None => now,
        });
        Snapshot {
            span: self.span.saturating_sub(earlier.span),
            in_flight: self.in_flight,
            sums: self.sums.since(&earlier.sums),
            server,
        }
    }
}

/// What a server's connections were doing, and why they ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSnapshot {
    /// How far the server's life has come.
    pub phase: Phase,
    /// How many connections are doing what.
    pub connections: BTreeMap<State, usize>,
    /// How many may be open.
    pub max_connections: usize,
    /// Connections and requests that came, and bytes that crossed.
    pub traffic: Traffic,
    /// How many connections ended for which reason, in the words of the server's report.
    pub closed: BTreeMap<&'static str, u64>,
    /// Connections that could not be accepted.
    pub accept_errors: u64,
}

impl ServerSnapshot {
    fn take(server: &Handle) -> Self {
        let report = server.report();
        Self {
            phase: server.phase(),
            connections: server.counts(),
            max_connections: server.max_connections(),
            traffic: server.traffic(),
            closed: report.closed,
            accept_errors: report.accept_errors,
        }
    }

    fn since(mut self, earlier: &Self) -> Self {
        let (now, then) = (&mut self.traffic, &earlier.traffic);
        now.connections = now.connections.saturating_sub(then.connections);
        now.requests = now.requests.saturating_sub(then.requests);
        now.bytes_in = now.bytes_in.saturating_sub(then.bytes_in);
        now.bytes_out = now.bytes_out.saturating_sub(then.bytes_out);
        for (reason, count) in &mut self.closed {
            *count = count.saturating_sub(earlier.closed.get(reason).copied().unwrap_or_default());
        }
        self.closed.retain(|_, count| *count > 0);
        self.accept_errors = self.accept_errors.saturating_sub(earlier.accept_errors);
        self
    }
}
