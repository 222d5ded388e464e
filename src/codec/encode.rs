//! The way back: response heads and bodies into bytes, by RFC 9112. The container frames; of what the handler says
//! about length, coding and connection only what is true goes out. Whatever can't be sent without harm to what
//! follows on the connection is an error, and leaves the output as it was.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};

use super::output::{Output, copy};
use super::{Close, Exchange, Kind, Reply};

mod body;

pub use body::BodyEncoder;

use body::State;

/// Why a response can't be sent as the handler gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A 1xx status where a final one is needed, or the reverse.
    Status,
    /// `101 Switching Protocols`, but the client offered no protocol or the response names none.
    Upgrade,
    /// A field value with a control character: CR, LF or NUL would let it write lines of its own.
    FieldValue,
    /// `Content-Length` is repeated or isn't one number.
    ContentLength,
    /// `Content-Length` isn't the length of the body.
    LengthMismatch {
        /// What the field says.
        declared: u64,
        /// What the body says.
        length: u64,
    },
    /// The body goes on beyond its declared length.
    TooLong,
    /// The body ends before its declared length.
    TooShort,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => "a final response must not have a 1xx status, an interim one must",
            Self::Upgrade => "101 must answer an offer to upgrade and name the protocol in Upgrade",
            Self::FieldValue => "a field value must not contain control characters",
            Self::ContentLength => "Content-Length must be one decimal number",
            Self::LengthMismatch { declared, length } => {
                return write!(
                    f,
                    "Content-Length says {declared}, but the body has {length} bytes"
                );
            }
            Self::TooLong => "the body is longer than its Content-Length",
            Self::TooShort => "the body is shorter than its Content-Length",
        })
    }
}

impl std::error::Error for EncodeError {}

/// Appends a final response head to `output` and returns what writes its body.
///
/// Sets [`Exchange::close`] if it isn't set and the response asks for it or can only be framed by it, and
/// [`Exchange::keep_alive`] to what the response advertises.
///
/// # Errors
///
/// When the head can't be sent; `exchange` and `output` are then as they were.
pub fn head(
    exchange: &mut Exchange,
    reply: Reply<'_>,
    output: &mut Output,
) -> Result<BodyEncoder, EncodeError> {
    let mark = output.mark();
    let before = (exchange.close, exchange.keep_alive);
    let encoder = try_head(exchange, reply, output);
    if encoder.is_err() {
        (exchange.close, exchange.keep_alive) = before;
        output.truncate(mark);
    }
    encoder
}

#[inline]
fn try_head(
    exchange: &mut Exchange,
    reply: Reply<'_>,
    output: &mut Output,
) -> Result<BodyEncoder, EncodeError> {
    let content = Content::of(reply.head.status, exchange)?;
    status_line(reply.head.status, output);
    let fields = fields(reply.head, exchange, output)?;
    if reply.head.status == StatusCode::SWITCHING_PROTOCOLS && !fields.upgrade {
        return Err(EncodeError::Upgrade);
    }
    let encoder = framing(content, &fields, reply.length, exchange, output)?;
    if !fields.date {
        output.put(reply.date);
    }
    connection(content, &fields, exchange, output)?;
    output.put(b"\r\n");
    Ok(encoder)
}

/// Appends an interim response head to `output`: 1xx, but not 101.
///
/// Fields that speak of framing or of the connection are left out.
///
/// # Errors
///
/// When `status` isn't interim or a value can't be sent; `output` is then as it was.
pub fn interim(
    status: StatusCode,
    fields: &HeaderMap,
    output: &mut Output,
) -> Result<(), EncodeError> {
    if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(EncodeError::Status);
    }
    let mark = output.mark();
    status_line(status, output);
    for (name, value) in fields {
        let is_kept = match Special::of(name.as_str()) {
            None | Some(Special::Date) => true,
            Some(_) => false,
        };
        if is_kept && let Err(error) = field(name, value, output) {
            output.truncate(mark);
            return Err(error);
        }
    }
    output.put(b"\r\n");
    Ok(())
}

/// Which content a response has before its fields are looked at (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Any.
    Full,
    /// None, but fields may describe what a GET would bring: HEAD and 304 (RFC 9110 section 8.6).
    Described {
        /// Answers HEAD, so that a length known here is that of a GET.
        head: bool,
    },
    /// None, and no field may speak of any: 204 (RFC 9110 section 8.6, RFC 9112 section 6.1).
    None,
    /// None, and its length says so: 205 (RFC 9110 section 15.3.6).
    Zero,
    /// None: the head is the last that is HTTP here. 101, and 2xx to CONNECT.
    Handover,
}

impl Content {
    #[inline(always)]
    fn of(status: StatusCode, exchange: &Exchange) -> Result<Self, EncodeError> {
        match status.as_u16() {
            200 if exchange.method == Kind::Other => Ok(Self::Full),
            101 if exchange.upgrade => Ok(Self::Handover),
            101 => Err(EncodeError::Upgrade),
            0..200 => Err(EncodeError::Status),
            200..300 if exchange.method == Kind::Connect => Ok(Self::Handover),
            204 => Ok(Self::None),
            205 => Ok(Self::Zero),
            304 => Ok(Self::Described {
                head: exchange.method == Kind::Head,
            }),
            _ if exchange.method == Kind::Head => Ok(Self::Described { head: true }),
            _ => Ok(Self::Full),
        }
    }
}

/// `HTTP/1.1`, to a 1.0 client too: the version says what this server is able to, not what the message uses
/// (RFC 9110 section 2.5).
#[inline(always)]
fn status_line(status: StatusCode, output: &mut Output) {
    if status == StatusCode::OK {
        output.put(b"HTTP/1.1 200 OK\r\n");
    } else {
        other_status_line(status, output);
    }
}

fn other_status_line(status: StatusCode, output: &mut Output) {
    output.put(b"HTTP/1.1 ");
    output.put(status.as_str().as_bytes());
    // The space is required even where no reason follows (RFC 9112 section 4).
    output.put(b" ");
    output.put(status.canonical_reason().unwrap_or("").as_bytes());
    output.put(b"\r\n");
}

/// What the fields said that isn't written as it came.
#[derive(Debug, Default)]
struct Fields<'a> {
    date: bool,
    upgrade: bool,
    length: Option<u64>,
    keep_alive: Option<&'a HeaderValue>,
}

/// The fields that the container has a word in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    Date,
    Upgrade,
    Connection,
    KeepAlive,
    ContentLength,
    TransferEncoding,
    ProxyConnection,
}

impl Special {
    /// By length first: most names are told apart from all of these without a comparison.
    #[inline(always)]
    pub(crate) fn of(name: &str) -> Option<Self> {
        let (special, text) = match name.len() {
            4 => (Self::Date, "date"),
            7 => (Self::Upgrade, "upgrade"),
            10 if name == "connection" => return Some(Self::Connection),
            10 => (Self::KeepAlive, "keep-alive"),
            14 => (Self::ContentLength, "content-length"),
            16 => (Self::ProxyConnection, "proxy-connection"),
            17 => (Self::TransferEncoding, "transfer-encoding"),
            _ => return None,
        };
        (name == text).then_some(special)
    }
}

/// Writes the handler's fields, but for those that the container answers for.
#[inline]
fn fields<'a>(
    head: &'a response::Parts,
    exchange: &mut Exchange,
    output: &mut Output,
) -> Result<Fields<'a>, EncodeError> {
    let mut seen = Fields::default();
    for (name, value) in &head.headers {
        let name = name.as_str();
        match Special::of(name) {
            None => {}
            Some(Special::Date) if seen.date => continue,
            Some(Special::Date) => seen.date = true,
            // Only where the status is about it: elsewhere it would need a `connection: upgrade` of its own
            // (RFC 9110 section 7.8).
            Some(Special::Upgrade) if matches!(head.status.as_u16(), 101 | 426) => {
                seen.upgrade = true;
            }
            Some(Special::ContentLength) => {
                let length = number(value.as_bytes()).ok_or(EncodeError::ContentLength)?;
                if seen.length.replace(length).is_some() {
                    return Err(EncodeError::ContentLength);
                }
                continue;
            }
            Some(Special::Connection) => {
                if asks_for_close(value) {
                    exchange.close.get_or_insert(Close::HandlerAsked);
                }
                continue;
            }
            Some(Special::KeepAlive) => {
                seen.keep_alive = Some(value);
                exchange.keep_alive = timeout(value);
                continue;
            }
            Some(Special::Upgrade | Special::TransferEncoding | Special::ProxyConnection) => {
                continue;
            }
        }
        line(name.as_bytes(), value.as_bytes(), output)?;
    }
    Ok(seen)
}

/// The `timeout` of a `Keep-Alive` field, in seconds.
pub(crate) fn timeout(value: &HeaderValue) -> Option<u32> {
    let parameters = value.to_str().ok()?.split(',');
    let mut timeouts = parameters.filter_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        is_timeout.then(|| number(seconds.trim().as_bytes()))?
    });
    u32::try_from(timeouts.next()?).ok()
}

/// Digits only: no sign, no list, no space (RFC 9110 section 8.6).
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cold]
pub(crate) fn asks_for_close(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Decides how the end of the content shows, and says so (RFC 9112 section 6.3).
#[inline]
fn framing(
    content: Content,
    fields: &Fields<'_>,
    length: Option<u64>,
    exchange: &mut Exchange,
    output: &mut Output,
) -> Result<BodyEncoder, EncodeError> {
    match content {
        Content::Full => {}
        Content::None | Content::Handover => return Ok(BodyEncoder::new(State::Silent)),
        Content::Zero => {
            output.put(b"content-length: 0\r\n");
            return Ok(BodyEncoder::new(State::Silent));
        }
        Content::Described { head } => {
            // A handler that answers HEAD often leaves the body out, so an empty one says nothing about a GET's.
            let known = length.filter(|&length| head && length > 0);
            if let Some(length) = fields.length.or(known) {
                content_length(length, output);
            }
            return Ok(BodyEncoder::new(State::Silent));
        }
    }
    if let (Some(declared), Some(length)) = (fields.length, length)
        && declared != length
    {
        return Err(EncodeError::LengthMismatch { declared, length });
    }
    if let Some(length) = length.or(fields.length) {
        content_length(length, output);
        return Ok(BodyEncoder::new(State::Known(length)));
    }
    if exchange.http10 {
        exchange.close.get_or_insert(Close::Unframed);
        return Ok(BodyEncoder::new(State::UntilClose));
    }
    output.put(b"transfer-encoding: chunked\r\n");
    Ok(BodyEncoder::new(State::Chunked))
}

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const CONTENT_LENGTH: &[u8; 16] = b"content-length: ";

#[inline(always)]
fn content_length(mut length: u64, output: &mut Output) {
    // From its end, so that name, digits and line end are one piece.
    const DIGITS: usize = u64::MAX.ilog10() as usize + 1;
    let mut line = [0; CONTENT_LENGTH.len() + DIGITS + 2];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        line[at] = b'0' + (length % 10) as u8;
        length /= 10;
        if length == 0 {
            break;
        }
    }
    at -= CONTENT_LENGTH.len();
    line[at..][..CONTENT_LENGTH.len()].copy_from_slice(CONTENT_LENGTH);
    output.put(&line[at..]);
}

/// Writes the one `connection` line, if there is something to say (RFC 9112 section 9.3).
#[inline]
fn connection(
    content: Content,
    fields: &Fields<'_>,
    exchange: &Exchange,
    output: &mut Output,
) -> Result<(), EncodeError> {
    if content == Content::Handover {
        if fields.upgrade {
            output.put(b"connection: upgrade\r\n");
        }
        return Ok(());
    }
    match (exchange.close, fields.upgrade) {
        (Some(_), true) => output.put(b"connection: upgrade, close\r\n"),
        (Some(_), false) => output.put(b"connection: close\r\n"),
        (None, upgrade) => {
            // `Keep-Alive` speaks of this connection only, so `Connection` has to name it (RFC 9110 section 7.6.1).
            let keep = exchange.http10 || fields.keep_alive.is_some();
            match (keep, upgrade) {
                (true, true) => output.put(b"connection: keep-alive, upgrade\r\n"),
                (true, false) => output.put(b"connection: keep-alive\r\n"),
                (false, true) => output.put(b"connection: upgrade\r\n"),
                (false, false) => {}
            }
            if let Some(value) = fields.keep_alive {
                field(&KEEP_ALIVE, value, output)?;
            }
        }
    }
    Ok(())
}

fn field(name: &HeaderName, value: &HeaderValue, output: &mut Output) -> Result<(), EncodeError> {
    line(name.as_str().as_bytes(), value.as_bytes(), output)
}

/// Writes `name: value` and CR LF. Names are valid by their type; values can be made unchecked, so they are looked at
/// while they are copied.
#[inline(always)]
fn line(name: &[u8], value: &[u8], output: &mut Output) -> Result<(), EncodeError> {
    let line = output.claim(name.len() + value.len() + 4);
    let (to_name, rest) = line.split_at_mut(name.len());
    copy(to_name, name);
    let (colon, rest) = rest.split_at_mut(2);
    colon.copy_from_slice(b": ");
    let (to_value, end) = rest.split_at_mut(value.len());
    end.copy_from_slice(b"\r\n");
    copy(to_value, value);
    if has_control(value) && value.iter().any(|&byte| byte < b' ' && byte != b'\t') {
        return Err(EncodeError::FieldValue);
    }
    Ok(())
}

/// Whether a byte is below a space, a tab included: eight at a time, which is exact for this question.
#[inline(always)]
fn has_control(value: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let below_space = |word: u64| word.wrapping_sub(ONES * 0x20) & !word & (ONES * 0x80) != 0;
    if let Some(last) = value.last_chunk::<8>() {
        let (words, _) = value.as_chunks::<8>();
        return below_space(u64::from_le_bytes(*last))
            || words
                .iter()
                .any(|word| below_space(u64::from_le_bytes(*word)));
    }
    value.iter().any(|&byte| byte < b' ')
}

#[cfg(test)]
mod tests;
