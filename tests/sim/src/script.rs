//! What happens in a simulation, as plain data that can be shown, changed and made smaller. Nothing here runs.

use std::sync::LazyLock;
use std::time::Duration;

use wharf::Limits;

/// All that is decided before a simulation begins, but for its [`Timing`](crate::timing::Timing).
#[derive(Debug, Clone)]
pub struct Script {
    /// Its answers must not depend on timing: nothing in it fails, stalls for long or is told to stop.
    pub is_steady: bool,
    /// The requests, in their order.
    pub asked: Vec<Asked>,
    /// What the client does, in its order.
    pub steps: Vec<Step>,
    /// How the server is set up.
    pub house: House,
    /// What happens to the connection, and when.
    pub happenings: Vec<Happening>,
}

/// A request, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: &'static str,
    /// HTTP/1.0.
    pub is_http10: bool,
    /// The value of `Connection`.
    pub connection: Option<&'static str>,
    /// Its content.
    pub content: Content,
    /// `Expect: 100-continue`.
    pub expects: bool,
    /// Offers to switch to another protocol.
    pub offers_upgrade: bool,
    /// What is wrong with it.
    pub flaw: Option<Flaw>,
    /// What its handler does.
    pub plan: Plan,
}

/// The content of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// None.
    None,
    /// Of a declared length.
    Length(usize),
    /// In chunks of these sizes.
    Chunked {
        /// The sizes.
        sizes: Vec<usize>,
        /// With an extension each.
        extended: bool,
        /// With a trailer.
        trailer: bool,
    },
}

impl Content {
    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Length(bytes) => *bytes,
            Self::Chunked { sizes, .. } => sizes.iter().sum(),
        }
    }
}

/// What can be wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// In the head: it is refused with this status.
    Head(HeadFlaw),
    /// In the chunked body, behind its chunks.
    Body(BodyFlaw),
}

/// What can be wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is spelled out where it is written")]
pub enum HeadFlaw {
    BothFramings,
    TwoLengths,
    SignedLength,
    CodingTwice,
    UnknownCoding,
    NoHost,
    TwoHosts,
    BareLf,
    Folded,
    SpaceBeforeColon,
    NoColon,
    Nul,
    Version2,
    TwoSpaces,
    OtherExpectation,
    Garbage,
}

impl HeadFlaw {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::BothFramings,
        Self::TwoLengths,
        Self::SignedLength,
        Self::CodingTwice,
        Self::UnknownCoding,
        Self::NoHost,
        Self::TwoHosts,
        Self::BareLf,
        Self::Folded,
        Self::SpaceBeforeColon,
        Self::NoColon,
        Self::Nul,
        Self::Version2,
        Self::TwoSpaces,
        Self::OtherExpectation,
        Self::Garbage,
    ];

    /// The status it is refused with.
    pub fn status(self) -> u16 {
        match self {
            Self::UnknownCoding => 501,
            Self::Version2 => 505,
            Self::OtherExpectation => 417,
            _ => 400,
        }
    }
}

/// What can be wrong with a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is spelled out where it is written")]
pub enum BodyFlaw {
    NoSize,
    Overflow,
    SpaceBehindSize,
    LongData,
    BareLf,
    FramingTrailer,
}

impl BodyFlaw {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NoSize,
        Self::Overflow,
        Self::SpaceBehindSize,
        Self::LongData,
        Self::BareLf,
        Self::FramingTrailer,
    ];
}

/// What the handler of a request does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What `poll_ready` says before it.
    pub ready: Ready,
    /// Where it panics, if anywhere.
    pub panics: Option<Site>,
    /// How many interim responses it sends.
    pub hints: usize,
    /// Milliseconds before it looks at the body.
    pub wait: u64,
    /// What it does with the body.
    pub read: Read,
    /// An error of the body is its answer; otherwise it answers in spite of it.
    pub passes_errors: bool,
    /// Milliseconds behind that, before it answers.
    pub then: u64,
    /// What it answers.
    pub answer: Answer,
}

/// When the service is ready for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// At once.
    Now,
    /// After so many milliseconds.
    Later(u64),
    /// Never again: an error.
    Fails,
}

/// Where user code panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// `poll_ready`
    Ready,
    /// `call`
    Call,
    /// The future, before it reads.
    Future,
    /// The future, after it has read.
    Late,
    /// The drop of the response's body.
    Drop,
}

/// What a handler does with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Drops it unread.
    Drop,
    /// Reads it to its end.
    All,
    /// Reads at least so many bytes, then drops it.
    Some(usize),
    /// Keeps it until the response's body is dropped.
    Hold,
    /// Has another task read it, which waits so many milliseconds before each frame.
    Task(u64),
    /// Answers with it.
    Echo,
}

/// What a handler answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A response.
    Response(Response),
    /// An error.
    Error,
    /// Nothing, ever.
    Never,
    /// It takes the socket, if it is offered.
    Upgrade,
}

/// A response as the handler makes it.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The sizes of its frames.
    pub frames: Vec<usize>,
    /// Milliseconds before each frame.
    pub wait: u64,
    /// The exact length that the body claims to have.
    pub hint: Option<usize>,
    /// The length that the head claims.
    pub declared: Option<usize>,
    /// How the body ends.
    pub end: End,
    /// `Connection: close`
    pub closes: bool,
    /// Ends with a trailer.
    pub trailer: bool,
}

/// How the body of a response ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// As it should.
    #[default]
    Clean,
    /// With an error.
    Error,
    /// With a panic.
    Panic,
    /// Not at all.
    Never,
}

/// What the client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Sends a request.
    Send(usize),
    /// Sends the head of a request.
    Head(usize),
    /// Sends the body of a request.
    Body(usize),
    /// Sends only the first bytes of a request.
    Part(usize, usize),
    /// Sends so many bytes of another protocol.
    Tunnel(usize),
    /// Waits so many milliseconds.
    Pause(u64),
    /// Waits until so many final responses are there.
    Answers(usize),
    /// Waits for `100 Continue` or what comes instead of it, for this request. Without it the body isn't sent.
    Continue(usize),
    /// Takes only so many more bytes.
    TakeOnly(usize),
    /// Takes all that comes.
    TakeAll,
    /// Sends no more.
    Finish,
    /// Gives the connection up.
    Reset,
}

/// Something that happens to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happening {
    /// What.
    pub what: What,
    /// When: before this poll of the connection, or with this byte of the stream.
    pub at: usize,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The server is a lame duck.
    LameDuck,
    /// The server drains.
    Drain,
    /// The server cuts.
    Cut,
    /// The connection is dropped.
    Drop,
    /// A read fails.
    ReadFails(std::io::ErrorKind),
    /// A write fails.
    WriteFails(std::io::ErrorKind),
    /// A write takes nothing.
    WriteZero,
}

/// How the server is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct House {
    /// `Limits::write_buffer_bytes`
    pub write_buffer: usize,
    /// `Limits::drain_bytes`
    pub drain: usize,
    /// Bounds of the head are this small.
    pub head: Option<usize>,
    /// Deadlines are this many milliseconds.
    pub deadline: Option<u64>,
    /// Requests that the service handles at a time.
    pub at_once: usize,
    /// Milliseconds before tower's timeout fires.
    pub timeout: Option<u64>,
}

impl House {
    /// The limits of the container.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits {
            write_buffer_bytes: self.write_buffer,
            drain_bytes: self.drain as u64,
            ..Limits::default()
        };
        if let Some(head) = self.head {
            limits.head_bytes = head;
            limits.request_line_bytes = head / 2;
            limits.header_fields = head / 16;
            limits.body_bytes = head as u64 * 4;
            limits.chunk_line_bytes = head / 8;
            limits.chunk_overhead_bytes = head as u64 / 2;
            limits.trailer_bytes = head / 8;
            limits.trailer_fields = 1;
            limits.linger_bytes = head as u64;
        }
        if let Some(deadline) = self.deadline.map(Duration::from_millis) {
            limits.head_timeout = deadline;
            limits.idle_timeout = deadline * 2;
            limits.ready_timeout = deadline;
            limits.stall_timeout = deadline * 2;
            limits.rate_grace = deadline;
            limits.drain_timeout = deadline;
            limits.linger_idle_timeout = deadline;
            limits.linger_timeout = deadline * 3;
            limits.max_age = deadline * 8;
        }
        limits
    }

    /// The longest time that may pass without anything happening, in milliseconds, until the connection ends by itself.
    pub fn patience(&self) -> u64 {
        let limits = self.limits();
        let waits = limits.head_timeout
            + limits.idle_timeout
            + limits.ready_timeout
            + limits.stall_timeout * 2
            + limits.drain_timeout
            + limits.linger_timeout * 2
            + limits.linger_idle_timeout;
        waits.as_millis() as u64 + 5_000
    }
}

/// The value of `Keep-Alive`'s trailers and fields that only simulations send.
pub const TRAILER: (&str, &str) = ("x-checksum", "5d41");

/// What requests carry: more requests, for whoever loses the place.
pub fn sent(request: usize) -> &'static [u8] {
    static TEXT: LazyLock<&'static [u8]> = LazyLock::new(|| {
        repeated("GET /smuggled HTTP/1.1\r\nhost: evil\r\nx-smuggled: 1\r\n\r\n0\r\n\r\n")
    });
    &TEXT[(request * 37) % 997..]
}

/// What responses carry: more responses, for whoever loses the place.
pub fn replied(request: usize) -> &'static [u8] {
    static TEXT: LazyLock<&'static [u8]> = LazyLock::new(|| {
        repeated("HTTP/1.1 200 OK\r\nx-id: 99\r\ncontent-length: 0\r\n\r\n0\r\n\r\n")
    });
    &TEXT[(request * 41) % 997..]
}

/// No content is longer.
pub const MOST: usize = 256 * 1024;

fn repeated(text: &str) -> &'static [u8] {
    Vec::leak(text.repeat((MOST + 1000) / text.len() + 1).into_bytes())
}

impl Asked {
    /// A flaw of the head, if it has one.
    pub fn head_flaw(&self) -> Option<HeadFlaw> {
        match self.flaw {
            Some(Flaw::Head(flaw)) => Some(flaw),
            _ => None,
        }
    }

    /// A flaw of the body, if it has one.
    pub fn body_flaw(&self) -> Option<BodyFlaw> {
        match self.flaw {
            Some(Flaw::Body(flaw)) => Some(flaw),
            _ => None,
        }
    }

    /// Writes the request, the `at`th of its connection; returns the length of its head.
    pub fn write(&self, at: usize, bytes: &mut Vec<u8>) -> usize {
        let begin = bytes.len();
        self.write_head(at, bytes);
        let head = bytes.len() - begin;
        let content = sent(at);
        match &self.content {
            Content::None => {}
            Content::Length(length) => bytes.extend_from_slice(&content[..*length]),
            Content::Chunked {
                sizes,
                extended,
                trailer,
            } => {
                let mut from = 0;
                for size in sizes {
                    let extension = if *extended { ";a=\"b;c\"" } else { "" };
                    put(bytes, &format!("{size:x}{extension}\r\n"));
                    bytes.extend_from_slice(&content[from..from + size]);
                    put(bytes, "\r\n");
                    from += size;
                }
                match self.body_flaw() {
                    None if *trailer => {
                        put(bytes, &format!("0\r\n{}: {}\r\n\r\n", TRAILER.0, TRAILER.1));
                    }
                    None => put(bytes, "0\r\n\r\n"),
                    Some(BodyFlaw::NoSize) => put(bytes, "xyz\r\nabc\r\n0\r\n\r\n"),
                    Some(BodyFlaw::Overflow) => {
                        put(bytes, "10000000000000003\r\nabc\r\n0\r\n\r\n");
                    }
                    Some(BodyFlaw::SpaceBehindSize) => put(bytes, "3 \r\nabc\r\n0\r\n\r\n"),
                    Some(BodyFlaw::LongData) => {
                        put(bytes, "3\r\n");
                        bytes.extend_from_slice(&content[from..from + 5]);
                        put(bytes, "\r\n0\r\n\r\n");
                    }
                    Some(BodyFlaw::BareLf) => put(bytes, "3\nabc\r\n0\r\n\r\n"),
                    Some(BodyFlaw::FramingTrailer) => put(bytes, "0\r\ncontent-length: 3\r\n\r\n"),
                }
            }
        }
        head
    }

    fn write_head(&self, at: usize, bytes: &mut Vec<u8>) {
        let flaw = self.head_flaw();
        if flaw == Some(HeadFlaw::Garbage) {
            return put(bytes, "\x16\x03\x01\x02\r\n\r\n");
        }
        put(bytes, self.method);
        put(
            bytes,
            if flaw == Some(HeadFlaw::TwoSpaces) {
                "  "
            } else {
                " "
            },
        );
        if self.method == "CONNECT" {
            put(bytes, "a.example:443");
        } else {
            put(bytes, &format!("/{at}?q"));
        }
        put(
            bytes,
            match flaw {
                Some(HeadFlaw::Version2) => " HTTP/2.0",
                _ if self.is_http10 => " HTTP/1.0",
                _ => " HTTP/1.1",
            },
        );
        put(
            bytes,
            if flaw == Some(HeadFlaw::BareLf) {
                "\n"
            } else {
                "\r\n"
            },
        );
        if flaw != Some(HeadFlaw::NoHost) {
            put(
                bytes,
                if self.method == "CONNECT" {
                    "host: a.example:443\r\n"
                } else {
                    "host: a\r\n"
                },
            );
        }
        put(bytes, &format!("x-id: {at}\r\n"));
        match &self.content {
            Content::None => {}
            Content::Length(length) => put(bytes, &format!("content-length: {length}\r\n")),
            Content::Chunked { .. } => put(bytes, "transfer-encoding: chunked\r\n"),
        }
        if self.expects {
            put(bytes, "expect: 100-continue\r\n");
        }
        if self.offers_upgrade {
            put(bytes, "upgrade: echo\r\nconnection: upgrade\r\n");
        }
        if let Some(value) = self.connection {
            put(bytes, &format!("connection: {value}\r\n"));
        }
        put(
            bytes,
            match flaw {
                Some(HeadFlaw::BothFramings) => {
                    "content-length: 3\r\ntransfer-encoding: chunked\r\n"
                }
                Some(HeadFlaw::TwoLengths) => "content-length: 3\r\ncontent-length: 3\r\n",
                Some(HeadFlaw::SignedLength) => "content-length: +3\r\n",
                Some(HeadFlaw::CodingTwice) => "transfer-encoding: chunked, chunked\r\n",
                Some(HeadFlaw::UnknownCoding) => "transfer-encoding: gzip, chunked\r\n",
                Some(HeadFlaw::TwoHosts) => "host: a\r\n",
                Some(HeadFlaw::Folded) => "x-folded: a\r\n b\r\n",
                Some(HeadFlaw::SpaceBeforeColon) => "x-space : a\r\n",
                Some(HeadFlaw::NoColon) => "x-nothing\r\n",
                Some(HeadFlaw::Nul) => "x-nul: a\0b\r\n",
                Some(HeadFlaw::OtherExpectation) => "expect: the-unexpected\r\n",
                _ => "",
            },
        );
        put(bytes, "\r\n");
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(text.as_bytes());
}
