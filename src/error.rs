//! What can go wrong, each knowing the status it is answered with.

use std::fmt;

use http::StatusCode;

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The status with which a service's error is answered, unless [`Http::on_error`](crate::Http::on_error) says otherwise.
///
/// For layers that must know before the answer is made, as an access log does.
///
/// ```
/// let error = wharf::BoxError::from(tower::load_shed::error::Overloaded::new());
/// assert_eq!(wharf::error::status_of(&error), 503);
/// ```
pub fn status_of(error: &BoxError) -> StatusCode {
    crate::service::failure(error).status()
}

/// A request that is refused before any handler sees it (or, for a broken body, while one reads it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    reason: Reason,
    offset: usize,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The request line isn't `method SP target SP version` (RFC 9112 section 3).
    RequestLine,
    /// The method isn't a token (RFC 9110 section 9.1).
    Method,
    /// The request target has no valid form (RFC 9112 section 3.2).
    Target,
    /// The request target is longer than the limit.
    TargetTooLong,
    /// The version isn't `HTTP/` DIGIT `.` DIGIT (RFC 9112 section 2.3).
    Version,
    /// A major version that isn't 1.
    UnsupportedVersion,
    /// The preface of HTTP/2, which this port doesn't speak.
    Http2Preface,
    /// The first bytes of a TLS handshake, on a port that doesn't speak it.
    TlsHandshake,
    /// A field line that isn't `name ":" value` (RFC 9112 section 5).
    Field,
    /// A line ends with a bare LF or CR (RFC 9112 section 2.2).
    LineEnding,
    /// A field value is continued on the next line (RFC 9112 section 5.2).
    ObsoleteFolding,
    /// More bytes of head than the limit.
    HeadTooLarge,
    /// More fields than the limit.
    TooManyFields,
    /// `Host` is missing, repeated or malformed (RFC 9112 section 3.2).
    Host,
    /// `Content-Length` isn't one number (RFC 9112 section 6.3).
    ContentLength,
    /// `Transfer-Encoding` doesn't end in a single `chunked`, or comes in HTTP/1.0 (RFC 9112 section 6.1).
    TransferEncoding,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.3).
    LengthAndCoding,
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    Expectation,
    /// A chunk's size line or end is malformed (RFC 9112 section 7.1).
    Chunk,
    /// Chunk extensions and other overhead beyond the limit.
    ChunkOverhead,
    /// The trailer section is malformed or holds a field that must not be there (RFC 9110 section 6.5.1).
    Trailer,
    /// A trailer section beyond the limits.
    TrailersTooLarge,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The client stopped sending before the end of the body.
    BodyCut,
    /// The request is for an authority that isn't served here (only where a user asks for this check).
    Misdirected,
    /// The head didn't arrive in time.
    HeadTimeout,
    /// The body didn't arrive in time or fell below the data-rate floor.
    BodyTimeout,
    /// The service didn't become ready in time.
    NotReady,
}

impl Reject {
    /// A refusal for the given reason.
    pub fn new(reason: Reason) -> Self {
        Self { reason, offset: 0 }
    }

    /// The same, with the offset of the offending byte from the start of head or body.
    pub fn at(reason: Reason, offset: usize) -> Self {
        Self { reason, offset }
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Where, in bytes from the start of the head (of the chunk or trailer line, for a body); zero where no
    /// single place is to blame.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The status this is answered with.
    pub fn status(&self) -> StatusCode {
        self.reason.status()
    }

    /// One sentence that says what was expected.
    pub fn explain(&self) -> &'static str {
        self.reason.explain()
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.explain(), self.offset)
    }
}

impl std::error::Error for Reject {}

impl Reason {
    /// The status this is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::UnsupportedVersion | Self::Http2Preface => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// One sentence that says what was expected.
    pub fn explain(self) -> &'static str {
        match self {
            Self::RequestLine => {
                "the request line must be `method target version`, separated by single spaces"
            }
            Self::Method => "the method must be a token",
            Self::Target => {
                "the request target must be a path, an absolute URI, an authority with CONNECT, or `*` with OPTIONS"
            }
            Self::TargetTooLong => "the request target is longer than this server accepts",
            Self::Version => "the version must be `HTTP/1.1` or `HTTP/1.0`",
            Self::UnsupportedVersion => "only HTTP/1.1 and HTTP/1.0 are spoken here",
            Self::Http2Preface => "HTTP/2 is not spoken on this port",
            Self::TlsHandshake => "TLS is not spoken on this port, use http://",
            Self::Field => {
                "a field line must be `name: value`, with a token for a name and no control characters"
            }
            Self::LineEnding => "each line must end with CR LF",
            Self::ObsoleteFolding => "a field value must not be continued on the next line",
            Self::HeadTooLarge => "the request head is larger than this server accepts",
            Self::TooManyFields => "the request has more fields than this server accepts",
            Self::Host => "exactly one valid Host field is required",
            Self::ContentLength => "Content-Length must be one decimal number",
            Self::TransferEncoding => "Transfer-Encoding must be a single `chunked`, in HTTP/1.1",
            Self::UnknownCoding => "the only transfer coding spoken here is `chunked`",
            Self::LengthAndCoding => "Content-Length and Transfer-Encoding must not both be sent",
            Self::Expectation => "the only expectation met here is `100-continue`",
            Self::Chunk => "a chunk must be a hexadecimal size, CR LF, that many bytes, CR LF",
            Self::ChunkOverhead => "the chunks carry more extensions than this server accepts",
            Self::Trailer => "a trailer field is malformed or not allowed in a trailer section",
            Self::TrailersTooLarge => "the trailer section is larger than this server accepts",
            Self::BodyTooLarge => "the body is larger than this server accepts",
            Self::BodyCut => "the body ended before its declared length",
            Self::Misdirected => "this server doesn't answer for the requested authority",
            Self::HeadTimeout => "the request head didn't arrive in time",
            Self::BodyTimeout => "the request body didn't arrive in time",
            Self::NotReady => "the service is not ready, try again later",
        }
    }
}

/// What can go wrong when a server is set up or run.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
}

/// The kinds of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting has a value that can't work.
    Config,
    /// An address can't be bound.
    Bind,
    /// A service of the stack failed for good.
    Service,
}

impl Error {
    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Config,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn bind(message: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self {
            kind: ErrorKind::Bind,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    pub(crate) fn service(source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Self {
            kind: ErrorKind::Service,
            message: source.to_string(),
            source: Some(source),
        }
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
