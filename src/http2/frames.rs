//! What a server may be sent, judged by the nine bytes before each frame and by the settings: the rules of RFC 9113
//! sections 3.4, 4 and 6 that h2 answers with another error code, or not at all. No sockets, clocks or wakers.

use crate::conn::Http2Error;

/// Error codes (RFC 9113 section 7).
pub(super) mod code {
    pub(in crate::http2) const NO_ERROR: u32 = 0;
    pub(in crate::http2) const PROTOCOL_ERROR: u32 = 1;
    pub(in crate::http2) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(in crate::http2) const SETTINGS_TIMEOUT: u32 = 4;
    pub(in crate::http2) const STREAM_CLOSED: u32 = 5;
    pub(in crate::http2) const FRAME_SIZE_ERROR: u32 = 6;
    pub(in crate::http2) const REFUSED_STREAM: u32 = 7;
    pub(in crate::http2) const COMPRESSION_ERROR: u32 = 9;
    pub(in crate::http2) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Types of frames (RFC 9113 section 6).
pub(super) mod kind {
    pub(in crate::http2) const DATA: u8 = 0;
    pub(in crate::http2) const HEADERS: u8 = 1;
    pub(in crate::http2) const PRIORITY: u8 = 2;
    pub(in crate::http2) const RST_STREAM: u8 = 3;
    pub(in crate::http2) const SETTINGS: u8 = 4;
    pub(in crate::http2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::http2) const PING: u8 = 6;
    pub(in crate::http2) const GOAWAY: u8 = 7;
    pub(in crate::http2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::http2) const CONTINUATION: u8 = 9;
}

const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Bytes before each frame's payload.
pub(super) const HEAD: usize = 9;
/// The largest payload that this server takes: the least that it may (RFC 9113 section 4.2).
const LARGEST: u32 = 16_384;
/// Streams that are remembered after they were opened, so that a closed one is told from one that never was.
const REMEMBERED: usize = 128;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn of(bytes: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = *bytes;
        Self {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff,
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Cuts a stream of bytes into frames, by their heads alone.
#[derive(Debug, Clone, Default)]
pub(super) struct Cutter {
    head: [u8; HEAD],
    got: u8,
    /// The frame under way, once its head is whole, and how much of its payload is to come.
    under_way: Option<(Head, u32)>,
}

/// What comes next in a stream of frames.
pub(super) enum Cut<'a> {
    /// A frame begins.
    Head(Head),
    /// Some of a frame's payload. A frame without payload has one empty piece.
    Payload(Head, &'a [u8]),
}

impl Cutter {
    /// Takes the next cut from the front of `bytes`; `None` needs more.
    #[inline]
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Cut<'a>> {
        if let Some((head, left)) = self.under_way {
            if bytes.is_empty() && left > 0 {
                return None;
            }
            let len = bytes.len().min(left as usize);
            let (piece, rest) = bytes.split_at(len);
            *bytes = rest;
            let left = left - len as u32;
            self.under_way = (left > 0).then_some((head, left));
            return Some(Cut::Payload(head, piece));
        }
        let got = usize::from(self.got);
        let len = bytes.len().min(HEAD - got);
        let (piece, rest) = bytes.split_at(len);
        *bytes = rest;
        self.head[got..got + len].copy_from_slice(piece);
        self.got += len as u8;
        if usize::from(self.got) < HEAD {
            return None;
        }
        self.got = 0;
        let head = Head::of(&self.head);
        self.under_way = Some((head, head.len));
        Some(Cut::Head(head))
    }

    /// The frame that has begun and isn't whole; `Some(None)` within its head.
    pub(super) fn half(&self) -> Option<Option<Head>> {
        match self.under_way {
            Some((head, _)) => Some(Some(head)),
            None => (self.got > 0).then_some(None),
        }
    }
}

/// What is known of the frames that came so far.
#[derive(Debug, Default)]
pub(super) struct Rules {
    settings_seen: bool,
    /// The stream whose field block is open.
    block: Option<u32>,
    setting: [u8; 6],
    setting_got: u8,
    last_stream: u32,
    trailers: bool,
    /// How many streams were opened.
    count: u64,
    /// The streams opened last, and whether the client has ended them.
    opened: Vec<(u32, bool)>,
    next: usize,
}

type Rule = Result<(), Http2Error>;

const fn broken(code: u32, what: &'static str) -> Rule {
    Err(Http2Error::new(code, what))
}

impl Rules {
    /// The client's settings have come, its first frame.
    pub(super) fn has_begun(&self) -> bool {
        self.settings_seen
    }

    /// A field block is open: only `CONTINUATION` may follow.
    pub(super) fn in_block(&self) -> bool {
        self.block.is_some()
    }

    /// How many streams the client has opened.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Judges a frame by its head.
    pub(super) fn head(&mut self, head: Head) -> Rule {
        if !self.settings_seen {
            if head.kind != kind::SETTINGS || head.has(ACK) {
                return broken(code::PROTOCOL_ERROR, "the first frame must be SETTINGS");
            }
            self.settings_seen = true;
        }
        if head.len > LARGEST {
            return broken(
                code::FRAME_SIZE_ERROR,
                "a frame must not be longer than 16384 bytes",
            );
        }
        self.order(head)?;
        whose(head)?;
        size(head)?;
        match head.kind {
            kind::PUSH_PROMISE => broken(code::PROTOCOL_ERROR, "a client must not push"),
            kind::HEADERS => self.open(head),
            kind::DATA => self.content(head),
            _ => Ok(()),
        }
    }

    /// A field block is followed by nothing but its continuation (RFC 9113 section 4.3).
    fn order(&mut self, head: Head) -> Rule {
        match (self.block, head.kind) {
            (None, kind::CONTINUATION) => {
                return broken(code::PROTOCOL_ERROR, "CONTINUATION without a field block");
            }
            (Some(stream), kind) if kind != kind::CONTINUATION || head.stream != stream => {
                return broken(code::PROTOCOL_ERROR, "a frame within a field block");
            }
            _ => {}
        }
        if matches!(head.kind, kind::HEADERS | kind::CONTINUATION) {
            self.block = (!head.has(END_HEADERS)).then_some(head.stream);
        }
        Ok(())
    }

    /// A stream's identifier is used once, and in order (RFC 9113 section 5.1.1).
    fn open(&mut self, head: Head) -> Rule {
        self.trailers = head.stream <= self.last_stream;
        if head.stream > self.last_stream {
            if head.stream.is_multiple_of(2) {
                return broken(code::PROTOCOL_ERROR, "a client's streams have odd numbers");
            }
            self.last_stream = head.stream;
            self.count += 1;
            let opened = (head.stream, head.has(END_STREAM));
            if self.opened.len() < REMEMBERED {
                self.opened.push(opened);
            } else {
                self.opened[self.next] = opened;
            }
            self.next = (self.next + 1) % REMEMBERED;
            return Ok(());
        }
        let is_all = self.opened.len() < REMEMBERED;
        let known = self.opened.iter_mut().find(|one| one.0 == head.stream);
        match known {
            Some((_, true)) => broken(
                code::STREAM_CLOSED,
                "HEADERS on a stream that the client has ended",
            ),
            Some((_, ended)) => {
                *ended = head.has(END_STREAM);
                Ok(())
            }
            None if is_all => broken(
                code::PROTOCOL_ERROR,
                "a stream must have a higher number than those before it",
            ),
            // It may have been one that is forgotten: h2 knows.
            None => Ok(()),
        }
    }

    /// Nothing follows on a stream's end (RFC 9113 section 5.1).
    fn content(&mut self, head: Head) -> Rule {
        // The streams that are open are most likely among the last.
        let known = self.opened.iter_mut().rev();
        match known.into_iter().find(|one| one.0 == head.stream) {
            Some((_, true)) => broken(
                code::STREAM_CLOSED,
                "DATA on a stream that the client has ended",
            ),
            Some((_, ended)) => {
                *ended = head.has(END_STREAM);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The field block under way, or that came last, is a trailer section.
    pub(super) fn is_trailers(&self) -> bool {
        self.trailers
    }

    /// Judges the length of the padding, a frame's first byte (RFC 9113 sections 6.1 and 6.2).
    pub(super) fn padding(&self, head: Head, first: u8) -> Rule {
        let least = match head.kind {
            kind::DATA => 1,
            kind::HEADERS if head.has(PRIORITY) => 6,
            kind::HEADERS => 1,
            _ => return Ok(()),
        };
        if head.has(PADDED) && u32::from(first) + least > head.len {
            return broken(
                code::PROTOCOL_ERROR,
                "padding must be shorter than its frame",
            );
        }
        Ok(())
    }

    /// Judges the settings as they come (RFC 9113 section 6.5.2, RFC 8441 section 3).
    pub(super) fn settings(&mut self, payload: &[u8]) -> Rule {
        for byte in payload {
            self.setting[usize::from(self.setting_got)] = *byte;
            self.setting_got += 1;
            if self.setting_got == 6 {
                self.setting_got = 0;
                let [a, b, c, d, e, f] = self.setting;
                setting(u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))?;
            }
        }
        Ok(())
    }
}

fn setting(name: u16, value: u32) -> Rule {
    match (name, value) {
        (2, 2..) => broken(code::PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is 0 or 1"),
        (4, 0x8000_0000..) => broken(
            code::FLOW_CONTROL_ERROR,
            "SETTINGS_INITIAL_WINDOW_SIZE is at most 2147483647",
        ),
        (5, ..16_384 | 0x100_0000..) => broken(
            code::PROTOCOL_ERROR,
            "SETTINGS_MAX_FRAME_SIZE is from 16384 to 16777215",
        ),
        (8, 2..) => broken(
            code::PROTOCOL_ERROR,
            "SETTINGS_ENABLE_CONNECT_PROTOCOL is 0 or 1",
        ),
        _ => Ok(()),
    }
}

/// Which frames speak of a stream, and which of the connection.
fn whose(head: Head) -> Rule {
    match (head.kind, head.stream) {
        (
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::CONTINUATION,
            0,
        ) => broken(code::PROTOCOL_ERROR, "a frame that needs a stream has none"),
        (kind::SETTINGS | kind::PING | kind::GOAWAY, 1..) => broken(
            code::PROTOCOL_ERROR,
            "a frame of the connection has a stream",
        ),
        _ => Ok(()),
    }
}

/// How long a frame is by its type.
fn size(head: Head) -> Rule {
    let padding = u32::from(head.has(PADDED));
    let priority = if head.has(PRIORITY) { 5 } else { 0 };
    let is_right = match head.kind {
        kind::DATA => head.len >= padding,
        kind::HEADERS => head.len >= padding + priority,
        kind::PRIORITY => head.len == 5,
        kind::RST_STREAM | kind::WINDOW_UPDATE => head.len == 4,
        kind::SETTINGS if head.has(ACK) => head.len == 0,
        kind::SETTINGS => head.len.is_multiple_of(6),
        kind::PING => head.len == 8,
        kind::GOAWAY => head.len >= 8,
        _ => true,
    };
    if is_right {
        return Ok(());
    }
    broken(
        code::FRAME_SIZE_ERROR,
        "a frame has not the length that its type has",
    )
}
