//! The way a body is read: by a declared length, or by the chunked coding (RFC 9112 section 7.1), without copies and
//! without a socket. After a refusal the end of the body can't be known, and nothing may be read behind it.
//!
//! Decided strictly:
//! - A size is 1 to 16 hexadecimal digits, then CR LF or `;`. The white space that RFC 9112 section 7.1.1 wants
//!   tolerated there is refused directly behind the size, where readers were found to differ.
//! - Extensions must have the grammar of section 7.1.1, but nobody is told of them. A quoted value can't hold CR or LF.
//! - A trailer that says how to frame, route, authenticate, process or decode the message, or that belongs to the
//!   connection, is refused (RFC 9110 section 6.5.1), not dropped. `content-digest` may come (RFC 9530 section 2).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::field::{self, Line, Span};
use super::{DecodeBody, Length, Piece};
use crate::error::{Reason, Reject};
use crate::limits::Limits;

/// What the decoders of bodies keep of [`Limits`].
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub(super) body_bytes: u64,
    overhead_bytes: u64,
    line_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        // Offsets are kept in 32 bits; `Limits::check` stays far below.
        const MOST: usize = 1 << 30;
        Self {
            body_bytes: limits.body_bytes,
            overhead_bytes: limits.chunk_overhead_bytes,
            line_bytes: limits.chunk_line_bytes.min(MOST),
            trailer_bytes: limits.trailer_bytes.min(MOST),
            trailer_fields: limits.trailer_fields,
        }
    }
}

/// Reads one request body, whatever its length.
#[derive(Debug)]
pub enum BodyDecoder {
    /// That many bytes are still to come.
    Known(u64),
    /// The chunked coding; boxed, so that a request without it stays small.
    Chunked(Box<Chunked>),
}

impl BodyDecoder {
    /// The decoder of a body of this length.
    pub fn new(length: Length, bounds: Bounds) -> Self {
        match length {
            Length::Known(bytes) => Self::Known(bytes),
            Length::Chunked => Self::Chunked(Box::new(Chunked::new(bounds))),
        }
    }
}

impl DecodeBody for BodyDecoder {
    #[inline]
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Reject> {
        match self {
            Self::Known(0) => Ok(Some(Piece::End)),
            Self::Known(left) => {
                if input.is_empty() {
                    return Ok(None);
                }
                let data = take(input, *left);
                *left -= data.len() as u64;
                Ok(Some(Piece::Data(data)))
            }
            Self::Chunked(chunked) => chunked.decode(input),
        }
    }

    fn remaining(&self) -> Option<u64> {
        match self {
            Self::Known(left) => Some(*left),
            Self::Chunked(_) => None,
        }
    }
}

/// Reads the chunked coding.
///
/// Unlike a head, what was understood leaves the input even where more is asked for.
#[derive(Debug)]
pub struct Chunked {
    bounds: Bounds,
    state: State,
    /// Content of all chunks whose size was read.
    declared: u64,
    /// Framing beyond what its content excuses.
    overhead: u64,
    /// Bytes at the front of the input, of a line under way, that hold no line feed.
    looked: usize,
    trailers: HeaderMap,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A size line comes.
    Size,
    /// That much content comes, above zero.
    Data(u64),
    /// The line end behind the content comes.
    DataEnd,
    Trailers,
    End,
}

/// Content below this is moved together with its neighbours; above it isn't worth a copy.
const SMALL: usize = 1024;
/// Content that is moved together at most.
const TOGETHER: usize = 16 * 1024;

impl Chunked {
    /// A decoder that awaits the first chunk.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: State::Size,
            declared: 0,
            overhead: 0,
            looked: 0,
            trailers: HeaderMap::new(),
            trailer_bytes: 0,
        }
    }

    /// See [`DecodeBody::decode`].
    ///
    /// # Errors
    ///
    /// See [`DecodeBody::decode`].
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Reject> {
        // Small chunks are moved together in the buffer itself: content to the front, framing overwritten.
        let mut read = 0;
        let mut kept = 0;
        let stopped = loop {
            let rest = input.get(read..).unwrap_or_default();
            match self.state {
                State::Size => match self.size_line(rest) {
                    Ok(Some((line, size))) => {
                        if let Err(reject) = self.begin_chunk(line, size) {
                            break Err(reject);
                        }
                        read += line;
                    }
                    Ok(None) => break Ok(()),
                    Err(reject) => break Err(reject),
                },
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    if here == 0 || (kept > 0 && (here >= SMALL || kept + here > TOGETHER)) {
                        break Ok(());
                    }
                    self.state = match left - here as u64 {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                    if here >= SMALL {
                        input.advance(read);
                        return Ok(Some(Piece::Data(input.split_to(here).freeze())));
                    }
                    input.copy_within(read..read + here, kept);
                    kept += here;
                    read += here;
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.state = State::Size;
                        read += 2;
                    }
                    [] | [b'\r'] => break Ok(()),
                    _ => break Err(Reject::new(Reason::Chunk)),
                },
                State::Trailers | State::End => break Ok(()),
            }
        };
        // An error waits until the content before it was handed out, and is then found again: so the content
        // doesn't depend on how the bytes were sliced.
        if kept > 0 {
            let data = input.split_to(kept).freeze();
            input.advance(read - kept);
            return Ok(Some(Piece::Data(data)));
        }
        input.advance(read);
        stopped?;
        match self.state {
            State::Trailers => self.trailers(input),
            State::End => Ok(Some(Piece::End)),
            _ => Ok(None),
        }
    }

    /// The length of the size line at the front, and the size; `None` if it isn't whole.
    #[inline]
    fn size_line(&mut self, rest: &[u8]) -> Result<Option<(usize, u64)>, Reject> {
        // Nearly every line is just a few digits.
        let (size, digits) = hexadecimal(rest);
        if let Some([b'\r', b'\n', ..]) = rest.get(digits..)
            && (1..=16).contains(&digits)
            && digits + 2 <= self.bounds.line_bytes
        {
            self.looked = 0;
            return Ok(Some((digits + 2, size)));
        }
        self.unusual_size_line(rest)
    }

    #[cold]
    fn unusual_size_line(&mut self, rest: &[u8]) -> Result<Option<(usize, u64)>, Reject> {
        let window = rest.get(..self.bounds.line_bytes).unwrap_or(rest);
        let looked = self.looked.min(window.len());
        let Some(line_feed) = window.get(looked..).and_then(|fresh| memchr(b'\n', fresh)) else {
            if window.len() >= self.bounds.line_bytes {
                return Err(Reject::at(Reason::ChunkOverhead, window.len()));
            }
            self.looked = window.len();
            return Ok(None);
        };
        let line_feed = looked + line_feed;
        let [line @ .., b'\r'] = window.get(..line_feed).unwrap_or_default() else {
            return Err(Reject::at(Reason::Chunk, line_feed));
        };
        let (size, digits) = hexadecimal(line);
        let extensions = line.get(digits..).unwrap_or_default();
        if !(1..=16).contains(&digits) || !are_extensions(extensions) {
            return Err(Reject::at(Reason::Chunk, digits));
        }
        self.looked = 0;
        Ok(Some((line_feed + 1, size)))
    }

    /// Accounts for a chunk. What a chunk doesn't use of its allowance is lost: it can't be saved up for an attack.
    fn begin_chunk(&mut self, line: usize, size: u64) -> Result<(), Reject> {
        let declared = self.declared.checked_add(size);
        let declared = declared.filter(|&declared| declared <= self.bounds.body_bytes);
        let declared = declared.ok_or(Reject::new(Reason::BodyTooLarge))?;
        let allowance = size.saturating_mul(2).saturating_add(16);
        let overhead = self
            .overhead
            .saturating_add(line as u64)
            .saturating_sub(allowance);
        if overhead > self.bounds.overhead_bytes {
            return Err(Reject::new(Reason::ChunkOverhead));
        }
        self.declared = declared;
        self.overhead = overhead;
        self.state = match size {
            0 => State::Trailers,
            size => State::Data(size),
        };
        Ok(())
    }

    /// Takes trailer lines from the front, each as soon as it is whole.
    fn trailers(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Reject> {
        loop {
            let room = self.bounds.trailer_bytes.saturating_sub(self.trailer_bytes);
            let window = input.get(..room).unwrap_or(input);
            let fresh = window.get(self.looked..).unwrap_or_default();
            let line = if memchr(b'\n', fresh).is_none() {
                Line::Incomplete
            } else {
                field::line(window, 0).map_err(|_| Reject::new(Reason::Trailer))?
            };
            let (span, len) = match line {
                Line::Field(span, len) => (span, len),
                Line::Empty(len) => {
                    input.advance(len);
                    self.state = State::End;
                    return Ok(Some(match self.trailers.is_empty() {
                        true => Piece::End,
                        false => Piece::Trailers(std::mem::take(&mut self.trailers)),
                    }));
                }
                Line::Incomplete if window.len() >= room => {
                    return Err(Reject::at(Reason::TrailersTooLarge, room));
                }
                Line::Incomplete => {
                    self.looked = window.len();
                    return Ok(None);
                }
            };
            if self.trailers.len() >= self.bounds.trailer_fields {
                return Err(Reject::new(Reason::TrailersTooLarge));
            }
            self.looked = 0;
            self.trailer_bytes += len;
            let line = input.split_to(len).freeze();
            trailer(&mut self.trailers, &line, span).ok_or(Reject::new(Reason::Trailer))?;
        }
    }
}

/// As much of `left` bytes as is there.
fn take(input: &mut BytesMut, left: u64) -> Bytes {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    input.split_to(here).freeze()
}

/// The value of the hexadecimal digits at the front, and how many there are: 17 stand for more than 16.
#[inline]
fn hexadecimal(line: &[u8]) -> (u64, usize) {
    let mut value = 0_u64;
    let mut digits = 0;
    for &byte in line.iter().take(17) {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => break,
        };
        value = value << 4 | u64::from(digit);
        digits += 1;
    }
    (value, digits)
}

/// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`, but no white space at the very start.
fn are_extensions(extensions: &[u8]) -> bool {
    let mut rest = extensions;
    if matches!(rest, [b' ' | b'\t', ..]) {
        return false;
    }
    while let [b';', after @ ..] = rest {
        let Some(after) = after_token(skip_space(after)) else {
            return false;
        };
        rest = skip_space(after);
        if let [b'=', value @ ..] = rest {
            let value = skip_space(value);
            let after = match value {
                [b'"', quoted @ ..] => after_quoted(quoted),
                _ => after_token(value),
            };
            let Some(after) = after else {
                return false;
            };
            rest = skip_space(after);
        }
        if rest.is_empty() && matches!(extensions.last(), Some(b' ' | b'\t')) {
            return false;
        }
    }
    rest.is_empty()
}

fn skip_space(rest: &[u8]) -> &[u8] {
    let spaces = rest
        .iter()
        .take_while(|&&b| matches!(b, b' ' | b'\t'))
        .count();
    rest.get(spaces..).unwrap_or_default()
}

fn after_token(rest: &[u8]) -> Option<&[u8]> {
    let len = rest.iter().take_while(|&&b| field::is_tchar(b)).count();
    if len == 0 { None } else { rest.get(len..) }
}

/// What follows a quoted string whose first quote was taken (RFC 9110 section 5.6.4).
fn after_quoted(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', escaped, after @ ..] if is_text(*escaped) => after,
            // A backslash before anything else, too: what is behind it is refused next.
            [byte, after @ ..] if is_text(*byte) => after,
            _ => return None,
        };
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Adds one trailer field, if it is valid and may come in a trailer section.
fn trailer(trailers: &mut HeaderMap, line: &Bytes, span: Span) -> Option<()> {
    let name = match span.known {
        Some(known) => known.name.clone(),
        None => HeaderName::from_bytes(line.get(span.name as usize..span.colon as usize)?).ok()?,
    };
    if is_forbidden_in_trailers(&name) {
        return None;
    }
    let value = line.slice(span.value as usize..span.value_end as usize);
    let value = HeaderValue::from_maybe_shared(value).ok()?;
    trailers.try_append(name, value).ok().map(|_| ())
}

/// Fields that a recipient must know before the content, or that a trailer section must not change (RFC 9110
/// section 6.5.1).
pub fn is_forbidden_in_trailers(name: &HeaderName) -> bool {
    match name.as_str() {
        // Framing and what belongs to the connection (RFC 9110 section 7.6.1).
        "transfer-encoding" | "content-length" | "trailer" | "connection" | "keep-alive"
        | "proxy-connection" | "te" | "upgrade" | "http2-settings" => true,
        // Routing.
        "host" | "forwarded" | "via" | "max-forwards" | "x-real-ip" | "true-client-ip" => true,
        // Authentication and cookies.
        "authorization"
        | "proxy-authorization"
        | "proxy-authenticate"
        | "www-authenticate"
        | "cookie"
        | "set-cookie" => true,
        // How to process the request, and how to control a response.
        "expect"
        | "range"
        | "cache-control"
        | "pragma"
        | "age"
        | "date"
        | "expires"
        | "location"
        | "retry-after"
        | "vary"
        | "warning"
        | "origin"
        | "early-data"
        | "x-http-method-override" => true,
        // How to process the content.
        "content-digest" => false,
        name => [
            "content-",
            "if-",
            "x-forwarded-",
            "sec-",
            "access-control-",
            "accept",
        ]
        .iter()
        .any(|start| name.starts_with(start)),
    }
}

#[cfg(test)]
mod tests;
