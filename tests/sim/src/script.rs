//! What happens in a simulation, as plain data that can be shown, changed and made smaller. Nothing here runs.

use std::time::Duration;

use wharf::Limits;

mod show;
mod wire;

pub use wire::{MOST, TRAILER, replied, sent};

/// All that is decided before a simulation begins, but for its [`Timing`](crate::timing::Timing).
#[derive(Debug, Clone)]
pub struct Script {
    /// What is known of its answers.
    pub kind: Kind,
    /// The requests, in their order.
    pub asked: Vec<Asked>,
    /// What the client does, in its order.
    pub steps: Vec<Step>,
    /// How the server is set up.
    pub house: House,
    /// What happens to the connection, and when.
    pub happenings: Vec<Happening>,
}

/// What is known of a script's answers before it is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All, and they must not depend on timing: nothing in it fails, stalls for long or is told to stop.
    Steady,
    /// All, but where they stop: the server is told to stop, politely.
    Gentle,
    /// Only what must never happen.
    Rough,
}

/// A request, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Empty lines before it, which are to be ignored (RFC 9112 section 2.2).
    pub empty_lines: usize,
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

impl Asked {
    /// A flaw of the head, if it has one.
    pub fn head_flaw(&self) -> Option<HeadFlaw> {
        match self.flaw {
            Some(Flaw::Head(flaw)) => Some(flaw),
            _ => None,
        }
    }

    /// Its handler never comes to an end.
    pub fn is_endless(&self) -> bool {
        match &self.plan.answer {
            Answer::Never => true,
            Answer::Response(response) => response.end == End::Never,
            _ => false,
        }
    }

    /// A flaw of the body, if it has one.
    pub fn body_flaw(&self) -> Option<BodyFlaw> {
        match self.flaw {
            Some(Flaw::Body(flaw)) => Some(flaw),
            _ => None,
        }
    }
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
