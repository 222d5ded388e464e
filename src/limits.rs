//! Every bound and every deadline, with safe defaults. There is no "unset": each phase a client can stall has a
//! deadline and each buffer a bound, and no option switches another off.

use std::time::Duration;

use crate::error::Error;

/// The room for one read of a body once reads have been filling it, as large uploads do.
pub(crate) const READ_MOST: u32 = 64 * 1024;

/// So much of responses is gathered for one write at first, and for each stream of HTTP/2; never more than
/// [`Limits::write_buffer_bytes`].
pub(crate) const WRITE_LEAST: usize = 64 * 1024;

/// What a connection may cost. `Limits::default()` is meant for the open internet.
///
/// ```
/// use std::time::Duration;
/// use wharf::Limits;
///
/// let limits = Limits { header_fields: 64, idle_timeout: Duration::from_secs(20), ..Limits::default() };
/// assert!(limits.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Bytes of a request head, its request line and the empty line included. Default 32 KiB; beyond: 431.
    pub head_bytes: usize,
    /// Bytes of a request line, its CR LF included. Default 8 KiB (RFC 9112 section 3 asks for 8,000); beyond: 414.
    pub request_line_bytes: usize,
    /// Fields of a request head. Default 100; beyond: 431.
    pub header_fields: usize,
    /// Bytes of CR LF ignored before a request line (RFC 9112 section 2.2). Default 8; beyond: 400.
    pub leading_bytes: usize,
    /// Bytes of a request body. Default `u64::MAX` (bodies are streamed, and a handler knows better); beyond: 413.
    pub body_bytes: u64,
    /// Bytes of one chunk's size line. Default 4 KiB; beyond: 400.
    pub chunk_line_bytes: usize,
    /// Bytes of chunk framing in one body beyond 16 a chunk and two a byte of content. Default 16 KiB; beyond: 400.
    pub chunk_overhead_bytes: u64,
    /// Bytes of a trailer section. Default 4 KiB; beyond: 431.
    pub trailer_bytes: usize,
    /// Fields of a trailer section. Default 32; beyond: 431.
    pub trailer_fields: usize,
    /// Owed bytes of responses above which nothing more is read, polled or answered. Default 512 KiB.
    ///
    /// So much is only gathered for readers that keep up: above 64 KiB it is doubled each time the peer's kernel has taken
    /// all, and falls back as soon as it hasn't. For each stream of HTTP/2 it is 64 KiB at most.
    pub write_buffer_bytes: usize,
    /// Declared bytes of an unread body that are drained so that the connection can be kept. Default 256 KiB.
    pub drain_bytes: u64,
    /// Bytes discarded by a lingering close before it gives up. Default 16 MiB.
    pub linger_bytes: u64,

    /// HTTP/2: streams open at a time. Default 100; beyond: `REFUSED_STREAM`.
    pub http2_streams: u32,
    /// HTTP/2: bytes of a decoded field section, 32 for each field included (RFC 9113 section 6.5.2). Default 16 KiB; beyond:
    /// 431.
    pub http2_header_list_bytes: u32,
    /// HTTP/2: bytes of content that may come unread, for each stream. Default 64 KiB.
    pub http2_stream_window: u32,
    /// HTTP/2: the same for all streams of a connection. Default 1 MiB.
    pub http2_connection_window: u32,
    /// HTTP/2: streams that a client may give up, or get reset by what it does wrong, in ten seconds. Default 200; beyond:
    /// `ENHANCE_YOUR_CALM`.
    pub http2_resets: u32,
    /// HTTP/2: frames in ten seconds that carry neither fields nor content (`PING`, `SETTINGS`, empty `DATA` …), beyond one
    /// for each 256 bytes of content. Default 1,000; beyond: `ENHANCE_YOUR_CALM`.
    pub http2_idle_frames: u32,

    /// From accept, and then from the first byte of each head, to the end of that head. Default 10 s; then 408.
    pub head_timeout: Duration,
    /// From the end of an exchange to the first byte of the next head. Default 75 s.
    pub idle_timeout: Duration,
    /// How long the service may take to become ready for a request. Default 30 s; then 503.
    pub ready_timeout: Duration,
    /// How long a peer may stand still, at most, while its body is wanted or its response is owed. Default 30 s.
    ///
    /// What counts of a reader is what its kernel has confirmed, to 4 KiB, whatever this server's kernel holds. A kernel that
    /// has been full says so again only when a step of its buffer is free (on Linux a sixteenth, and a packet at least), and
    /// that step has to be read in this time: 8 KiB of the usual 128 KiB, 64 KiB on loopback, but 400 KiB where a reader
    /// that was fast made it grow to 6 MiB.
    pub stall_timeout: Duration,
    /// How long a peer may stay below [`rate_floor`](Limits::rate_floor) at first. Default 5 s.
    pub rate_grace: Duration,
    /// Bytes a second, either way, below which a peer uses up its grace. Default 240.
    pub rate_floor: u32,
    /// How long an unread body is drained so that the connection can be kept. Default 2 s.
    pub drain_timeout: Duration,
    /// How long a lingering close waits for the next byte. Default 5 s.
    pub linger_idle_timeout: Duration,
    /// How long a lingering close takes in all. Default 30 s.
    pub linger_timeout: Duration,
    /// How long a connection is kept for further requests, give or take a tenth. Default 1 h.
    pub max_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 * 1024,
            request_line_bytes: 8 * 1024,
            header_fields: 100,
            leading_bytes: 8,
            body_bytes: u64::MAX,
            chunk_line_bytes: 4 * 1024,
            chunk_overhead_bytes: 16 * 1024,
            trailer_bytes: 4 * 1024,
            trailer_fields: 32,
            write_buffer_bytes: 512 * 1024,
            drain_bytes: 256 * 1024,
            linger_bytes: 16 * 1024 * 1024,
            http2_streams: 100,
            http2_header_list_bytes: 16 * 1024,
            http2_stream_window: 64 * 1024,
            http2_connection_window: 1024 * 1024,
            http2_resets: 200,
            http2_idle_frames: 1_000,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            ready_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            rate_grace: Duration::from_secs(5),
            rate_floor: 240,
            drain_timeout: Duration::from_secs(2),
            linger_idle_timeout: Duration::from_secs(5),
            linger_timeout: Duration::from_secs(30),
            max_age: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    /// The most bytes that HTTP/1 holds for one connection at a time, whatever its peer does:
    ///
    /// | bytes | what for |
    /// |---|---|
    /// | 8 KiB | the connection, its facts and its timer; half of it is used, and all that a silent or idle one holds |
    /// | 2 × `head_bytes` | the head, in a buffer that doubles; the request's fields are slices of it |
    /// | 160 × `header_fields` | the map of its fields |
    /// | 128 KiB | of the request's body the piece that is read into and the one that waits for the handler, 64 KiB each, once a fast upload fills them; 4 KiB each until then |
    /// | `write_buffer_bytes` | responses that are owed |
    ///
    /// With the defaults 728 KiB, and 600 KiB where no body is sent; 152 KiB where besides nobody is quick to read the first
    /// megabytes of an answer and then stops, because only for quick readers more than 64 KiB are gathered. What connections hold on average under attack is far
    /// less, because no peer can be in all phases at once. Times `max_connections`, it is what HTTP/1 needs at most. To be
    /// added is what isn't HTTP's: what handlers hold, the one piece of a response body by which `write_buffer_bytes` may be
    /// exceeded, TLS, and the kernel's own buffers. For HTTP/2 it is `http2_connection_window` and `http2_streams` ×
    /// (`http2_header_list_bytes` + `write_buffer_bytes`, of which 64 KiB count at most) instead of the rest.
    ///
    /// ```
    /// use wharf::Limits;
    ///
    /// let limits = Limits { head_bytes: 8 * 1024, write_buffer_bytes: 16 * 1024, ..Limits::default() };
    /// assert!(limits.connection_bytes() < 184 * 1024);
    /// ```
    pub fn connection_bytes(&self) -> usize {
        const FIXED: usize = 8 * 1024;
        const FIELD: usize = 160;
        FIXED
            + 2 * self.head_bytes
            + FIELD * self.header_fields
            + 2 * READ_MOST as usize
            + self.write_buffer_bytes
    }

    /// What is gathered of responses for each stream of HTTP/2.
    #[cfg(feature = "http2")]
    pub(crate) fn http2_write_bytes(&self) -> usize {
        self.write_buffer_bytes.min(WRITE_LEAST)
    }

    /// Says whether a server can work with these values. [`Http`](crate::Http) asks this before it serves.
    ///
    /// # Errors
    ///
    /// A sentence about the first value that can't work.
    pub fn check(&self) -> Result<(), Error> {
        let sizes = [
            ("head_bytes", self.head_bytes, 64, 16 << 20),
            ("request_line_bytes", self.request_line_bytes, 16, 65_534),
            ("header_fields", self.header_fields, 1, 24_576),
            ("leading_bytes", self.leading_bytes, 0, 1 << 10),
            ("chunk_line_bytes", self.chunk_line_bytes, 3, 1 << 20),
            ("trailer_bytes", self.trailer_bytes, 2, 1 << 20),
            ("trailer_fields", self.trailer_fields, 0, 24_576),
            (
                "write_buffer_bytes",
                self.write_buffer_bytes,
                1 << 10,
                1 << 30,
            ),
        ];
        for (name, value, least, most) in sizes {
            if !(least..=most).contains(&value) {
                return Err(Error::config(format!(
                    "limits: {name} must be {least} to {most}, not {value}"
                )));
            }
        }
        const LARGEST_WINDOW: u32 = (1 << 31) - 1;
        let counts = [
            ("http2_streams", self.http2_streams, 1, 1 << 20),
            (
                "http2_header_list_bytes",
                self.http2_header_list_bytes,
                256,
                16 << 20,
            ),
            (
                "http2_stream_window",
                self.http2_stream_window,
                1,
                LARGEST_WINDOW,
            ),
            (
                "http2_connection_window",
                self.http2_connection_window,
                65_535,
                LARGEST_WINDOW,
            ),
            ("http2_resets", self.http2_resets, 1, u32::MAX),
            ("http2_idle_frames", self.http2_idle_frames, 16, u32::MAX),
        ];
        for (name, value, least, most) in counts {
            if !(least..=most).contains(&value) {
                return Err(Error::config(format!(
                    "limits: {name} must be {least} to {most}, not {value}"
                )));
            }
        }
        if self.request_line_bytes > self.head_bytes {
            return Err(Error::config(
                "limits: request_line_bytes must not be above head_bytes",
            ));
        }
        let times = [
            ("head_timeout", self.head_timeout),
            ("idle_timeout", self.idle_timeout),
            ("ready_timeout", self.ready_timeout),
            ("stall_timeout", self.stall_timeout),
            ("rate_grace", self.rate_grace),
            ("drain_timeout", self.drain_timeout),
            ("linger_idle_timeout", self.linger_idle_timeout),
            ("linger_timeout", self.linger_timeout),
            ("max_age", self.max_age),
        ];
        // A century bounds what is added to an `Instant`, which overflows far later.
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        for (name, value) in times {
            if value.is_zero() || value > CENTURY {
                return Err(Error::config(format!(
                    "limits: {name} must be above zero and at most a century, not {value:?}"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
