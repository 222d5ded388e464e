//! Why a connection of HTTP/2 was ended by one of its error codes. Only the vocabulary, of RFC 9113 section 7.

use std::fmt;

/// An error of a whole HTTP/2 connection: what was told to the peer in `GOAWAY`, or by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Error {
    code: u32,
    what: &'static str,
}

impl Http2Error {
    #[cfg(feature = "http2")]
    pub(crate) const fn new(code: u32, what: &'static str) -> Self {
        Self { code, what }
    }

    /// The error code (RFC 9113 section 7).
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The name of the error code; the number's own where RFC 9113 knows none.
    pub fn name(&self) -> &'static str {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        let name = usize::try_from(self.code).ok().and_then(|at| NAMES.get(at));
        name.copied().unwrap_or("an unknown error")
    }

    /// What was wrong, in words.
    pub fn explain(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for Http2Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.what)
    }
}

impl std::error::Error for Http2Error {}
