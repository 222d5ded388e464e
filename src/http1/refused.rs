//! A request that no handler saw: what is known of it when its answer goes out.

use std::time::Duration;

use http::StatusCode;

use crate::conn::{ConnInfo, Live, RequestLine};
use crate::error::Reject;

/// How much of a head that couldn't be read is shown.
const SHOWN: usize = 1024;

/// A request that is refused before any handler sees it; see [`Http::on_refused`](crate::Http::on_refused).
#[derive(Debug)]
pub struct Refused<'a> {
    live: &'a Live,
    reject: &'a Reject,
    status: StatusCode,
    request: Option<RequestLine>,
    first_bytes: &'a [u8],
}

impl<'a> Refused<'a> {
    pub(super) fn new(
        live: &'a Live,
        reject: &'a Reject,
        status: StatusCode,
        input: &'a [u8],
    ) -> Self {
        Self {
            live,
            reject,
            status,
            request: live.request(),
            first_bytes: &input[..input.len().min(SHOWN)],
        }
    }

    /// One whose head could be read.
    #[cfg(feature = "http2")]
    pub(super) fn of_request(
        live: &'a Live,
        reject: &'a Reject,
        status: StatusCode,
        request: RequestLine,
    ) -> Self {
        let mut refused = Self::new(live, reject, status, &[]);
        refused.request = Some(request);
        refused
    }

    /// The facts of its connection.
    pub fn info(&self) -> &ConnInfo {
        static NONE: std::sync::LazyLock<ConnInfo> = std::sync::LazyLock::new(ConnInfo::default);
        self.live.info().unwrap_or(&NONE)
    }

    /// Why.
    pub fn reject(&self) -> &Reject {
        self.reject
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its number on its connection, from 1.
    pub fn request_number(&self) -> u64 {
        // One whose head could be read has been counted.
        self.live.requests() + u64::from(self.request.is_none())
    }

    /// Method and path, where the head could be read: of one that the service didn't become ready for.
    pub fn request(&self) -> Option<&RequestLine> {
        self.request.as_ref()
    }

    /// What had come of a head that couldn't be read, at most its first 1,024 bytes.
    pub fn first_bytes(&self) -> &[u8] {
        if self.request.is_some() {
            return &[];
        }
        self.first_bytes
    }

    /// Since the connection's accept.
    pub fn connection_age(&self) -> Duration {
        self.live.since().elapsed()
    }
}
