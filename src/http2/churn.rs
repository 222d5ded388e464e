//! How much work a client makes that comes to nothing: streams given up, and frames that carry neither fields nor content.
//! Counted in windows of ten seconds; what is too much ends the connection with ENHANCE_YOUR_CALM (RFC 9113 section
//! 10.5).

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{Head, code, kind};
use crate::conn::Http2Error;
use crate::limits::Limits;

const WINDOW: Duration = Duration::from_secs(10);
/// Content that buys one more frame without any: WINDOW_UPDATE and the PINGs that measure a path follow on content.
const BYTES_A_FRAME: u64 = 256;
/// The clock is looked at once for so many.
const LOOK: u32 = 32;

#[derive(Debug)]
pub(super) struct Churn {
    most_resets: u32,
    most_idle: u32,
    resets: u32,
    idle: u32,
    content: u64,
    since: Option<Instant>,
}

impl Churn {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            most_resets: limits.http2_resets,
            most_idle: limits.http2_idle_frames,
            resets: 0,
            idle: 0,
            content: 0,
            since: None,
        }
    }

    /// A frame came.
    #[inline]
    pub(super) fn came(&mut self, head: Head) -> Result<(), Http2Error> {
        match head.kind {
            kind::HEADERS => Ok(()),
            kind::DATA if head.len > 0 => {
                self.content += u64::from(head.len);
                // A byte a frame is as good as none.
                if head.len < 16 && !head.has(super::frames::END_STREAM) {
                    return self.count_idle();
                }
                Ok(())
            }
            kind::DATA if head.has(super::frames::END_STREAM) => Ok(()),
            kind::RST_STREAM => self.count_reset(),
            _ => self.count_idle(),
        }
    }

    /// A frame was sent.
    #[inline]
    pub(super) fn went(&mut self, head: Head) {
        if matches!(head.kind, kind::DATA | kind::HEADERS) {
            self.content += u64::from(head.len);
        }
    }

    /// A stream was reset with this code: by the client's doing, where it is about the protocol.
    pub(super) fn reset(&mut self, why: u32) -> Result<(), Http2Error> {
        match why {
            code::PROTOCOL_ERROR
            | code::FLOW_CONTROL_ERROR
            | code::STREAM_CLOSED
            | code::FRAME_SIZE_ERROR
            | code::REFUSED_STREAM => self.count_reset(),
            _ => Ok(()),
        }
    }

    fn count_reset(&mut self) -> Result<(), Http2Error> {
        self.resets += 1;
        self.begin();
        if self.resets <= self.most_resets {
            return Ok(());
        }
        if self.is_over() {
            self.resets = 1;
            return Ok(());
        }
        Err(Http2Error::new(
            code::ENHANCE_YOUR_CALM,
            "too many streams are given up",
        ))
    }

    fn count_idle(&mut self) -> Result<(), Http2Error> {
        self.idle += 1;
        if self.idle % LOOK == 1 {
            self.begin();
        }
        let bought = self.content / BYTES_A_FRAME;
        if u64::from(self.idle) <= u64::from(self.most_idle) + bought {
            return Ok(());
        }
        if self.is_over() {
            self.idle = 1;
            return Ok(());
        }
        Err(Http2Error::new(
            code::ENHANCE_YOUR_CALM,
            "too many frames that carry nothing",
        ))
    }

    fn begin(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    /// The window is over, and the next one begins.
    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let is_over = self.since.is_none_or(|since| now - since >= WINDOW);
        if is_over {
            (self.resets, self.idle, self.content) = (0, 0, 0);
            self.since = Some(now);
        }
        is_over
    }
}
