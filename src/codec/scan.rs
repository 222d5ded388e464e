//! The law of refusal: one pass over a request head, line by line as they become whole, that knows where everything
//! is and which error comes first. It makes nothing; what it found is filled into `http` types elsewhere.
//!
//! A line is judged once it is whole, a limit when the byte that breaks it is there, and nothing else decides. So the
//! first error in byte order wins, and how the bytes were sliced can't be seen in the answer. Before a line is
//! whole, only this is refused: a byte that can't begin a method, the preface of HTTP/2, more than a limit.

use bytes::BytesMut;
use memchr::{memchr, memrchr};

use super::chunked;
use super::field::{self, Line, Span};
use super::framing::{Field, Framing, Request};
use super::target::{self, Form};
use super::{Exchange, Kind, Length};
use crate::error::{Reason, Reject};
use crate::limits::Limits;

/// What a codec keeps of [`Limits`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) head_bytes: usize,
    pub(super) request_line_bytes: usize,
    pub(super) header_fields: usize,
    pub(super) leading_bytes: usize,
    pub(super) body: chunked::Bounds,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        // Offsets are kept in 32 bits; `Limits::check` stays far below.
        const MOST: usize = 1 << 30;
        Self {
            head_bytes: limits.head_bytes.min(MOST),
            request_line_bytes: limits.request_line_bytes.min(limits.head_bytes).min(MOST),
            header_fields: limits.header_fields,
            leading_bytes: limits.leading_bytes.min(MOST),
            body: limits.into(),
        }
    }
}

/// Puts a refused head back in front of what follows it.
#[cold]
pub(super) fn put_back(input: &mut BytesMut, head: &[u8]) {
    let rest = input.split();
    input.extend_from_slice(head);
    input.extend_from_slice(&rest);
}

/// A head, as far as it was looked through. All offsets count from the start of the input.
#[derive(Debug)]
pub(super) struct Scan {
    at: At,
    /// The first byte of the request line.
    start: usize,
    /// The first byte of the line under way.
    line: usize,
    /// No line feed between `line` and here.
    looked: usize,
    /// Fields before this have no bad value.
    checked: usize,
    pub(super) request: RequestLine,
    pub(super) framing: Framing,
    pub(super) fields: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    RequestLine,
    Fields,
}

/// The parts of the request line.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLine {
    pub(super) kind: Kind,
    pub(super) method: usize,
    pub(super) target: usize,
    pub(super) target_end: usize,
    pub(super) form: Form,
    pub(super) http10: bool,
    /// Known to be a GET of `/`, as a new `Request` is.
    pub(super) is_plain: bool,
}

impl Default for Scan {
    /// The scan of a new head.
    fn default() -> Self {
        Self {
            at: At::RequestLine,
            start: 0,
            line: 0,
            looked: 0,
            checked: 0,
            request: RequestLine {
                kind: Kind::Other,
                method: 0,
                target: 0,
                target_end: 0,
                form: Form::Origin,
                http10: false,
                is_plain: false,
            },
            framing: Framing::default(),
            fields: Vec::new(),
        }
    }
}

impl Scan {
    /// Goes on, and tells the length of the head if it is whole. Values are not looked into.
    fn advance(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<usize>, Reject> {
        if self.at == At::RequestLine && !self.request_line(input, bounds)? {
            return Ok(None);
        }
        self.fields(input, bounds)
    }

    /// Whether what came since the last look decides nothing: neither a line end nor a limit is among it.
    #[inline]
    pub(super) fn still_waits(&mut self, input: &[u8], bounds: &Bounds) -> bool {
        let (is_begun, limit) = match self.at {
            At::RequestLine => (
                self.looked > self.start + PREFACE.len(),
                bounds.request_line_bytes,
            ),
            At::Fields => (true, bounds.head_bytes),
        };
        let fresh = input.get(self.looked..).unwrap_or_default();
        let waits = is_begun && input.len() < self.start + limit && !fresh.contains(&b'\n');
        if waits {
            self.looked = input.len();
        }
        waits
    }

    /// [`advance`](Self::advance), with everything looked into: `Some` here is a head that is right in all respects.
    pub(super) fn judge(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<usize>, Reject> {
        let whole = match self.advance(input, bounds) {
            Ok(whole) => whole,
            Err(reject) => return Err(self.first_error(input, reject)),
        };
        self.check_values(input)?;
        if whole.is_some() {
            self.request
                .decide(&self.framing, bounds)
                .map_err(Reject::new)?;
        }
        Ok(whole)
    }

    /// `reject`, unless a field before it has a bad value.
    #[cold]
    fn first_error(&mut self, input: &[u8], reject: Reject) -> Reject {
        self.check_values(input).err().unwrap_or(reject)
    }

    /// Looks into the values of all fields that weren't checked yet.
    fn check_values(&mut self, input: &[u8]) -> Result<(), Reject> {
        for span in self.fields.get(self.checked..).unwrap_or_default() {
            let value = input.get(span.value as usize..span.value_end as usize);
            if let Some((at, reason)) = field::bad_value(value.unwrap_or_default()) {
                return Err(Reject::at(reason, span.value as usize + at));
            }
        }
        self.checked = self.fields.len();
        Ok(())
    }

    /// Whether the request line is whole.
    fn request_line(&mut self, input: &[u8], bounds: &Bounds) -> Result<bool, Reject> {
        if !self.leading(input, bounds)? {
            return Ok(false);
        }
        let limit = self.start + bounds.request_line_bytes;
        let window = input.get(..limit).unwrap_or(input);
        let fresh = window.get(self.looked..).unwrap_or_default();
        let Some(line_feed) = memchr(b'\n', fresh).map(|at| self.looked + at) else {
            self.looked = window.len();
            return self.half_a_request_line(window, limit).map(|()| false);
        };
        let line = &window[self.start..line_feed];
        self.request = match request_line(line) {
            Ok(request) => request.shifted(self.start),
            Err((reason, at)) => return Err(Reject::at(reason, self.start + at)),
        };
        self.at = At::Fields;
        self.line = line_feed + 1;
        self.looked = self.line;
        Ok(true)
    }

    /// Skips empty lines (RFC 9112 section 2.2); whether the request line has begun, with a byte that may begin it.
    #[inline]
    fn leading(&mut self, input: &[u8], bounds: &Bounds) -> Result<bool, Reject> {
        loop {
            match input.get(self.start) {
                None => return Ok(false),
                Some(&byte) if field::is_tchar(byte) => return Ok(true),
                Some(b'\r') if self.start + 2 <= bounds.leading_bytes => {
                    match input.get(self.start + 1) {
                        None => return Ok(false),
                        Some(b'\n') => {
                            self.start += 2;
                            self.looked = self.start;
                        }
                        Some(_) => return Err(Reject::at(Reason::LineEnding, self.start)),
                    }
                }
                Some(b'\r') => return Err(Reject::at(Reason::RequestLine, self.start)),
                Some(b'\n') => return Err(Reject::at(Reason::LineEnding, self.start)),
                // The content type of a handshake record (RFC 8446 section 5.1); no byte after it can change that.
                Some(0x16) => return Err(Reject::at(Reason::TlsHandshake, self.start)),
                Some(_) => return Err(Reject::at(Reason::Method, self.start)),
            }
        }
    }

    #[cold]
    fn half_a_request_line(&self, window: &[u8], limit: usize) -> Result<(), Reject> {
        let line = window.get(self.start..).unwrap_or_default();
        if line.starts_with(PREFACE) {
            return Err(Reject::at(Reason::Http2Preface, self.start));
        }
        if window.len() < limit {
            return Ok(());
        }
        let method = line.iter().take_while(|&&b| field::is_tchar(b)).count();
        let reason = match line.get(method) {
            Some(b' ') => Reason::TargetTooLong,
            _ => Reason::Method,
        };
        Err(Reject::at(reason, self.start + method))
    }

    fn fields(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<usize>, Reject> {
        let limit = self.start + bounds.head_bytes;
        let window = input.get(..limit).unwrap_or(input);
        if memchr(b'\n', window.get(self.looked..).unwrap_or_default()).is_none() {
            return self.half_a_field(window, limit);
        }
        let mut at = self.line;
        loop {
            match field::line(window, at) {
                Ok(Line::Field(span, next)) => {
                    if self.fields.len() >= bounds.header_fields {
                        return Err(Reject::at(Reason::TooManyFields, at));
                    }
                    if let Some(known) = span.known
                        && known.field != Field::Other
                    {
                        let value = window.get(span.value as usize..span.value_end as usize);
                        self.framing
                            .field(known.field, value.unwrap_or_default())
                            .map_err(|reason| Reject::at(reason, span.value as usize))?;
                    }
                    self.fields.push(span);
                    at = next;
                }
                Ok(Line::Empty(next)) => return Ok(Some(next)),
                Ok(Line::Incomplete) => {
                    self.line = at;
                    return self.half_a_field(window, limit);
                }
                Err(reason) => return Err(Reject::at(reason, at)),
            }
        }
    }

    #[cold]
    fn half_a_field(&mut self, window: &[u8], limit: usize) -> Result<Option<usize>, Reject> {
        if window.len() >= limit {
            return Err(Reject::at(Reason::HeadTooLarge, limit));
        }
        self.looked = window.len();
        Ok(None)
    }
}

impl RequestLine {
    /// What a whole head says, whose fields said `framing`.
    #[inline]
    pub(super) fn decide(
        &self,
        framing: &Framing,
        bounds: &Bounds,
    ) -> Result<(Exchange, Length), Reason> {
        let request = Request {
            http10: self.http10,
            method: self.kind,
            form: self.form,
        };
        framing.decide(request, bounds.body.body_bytes)
    }

    fn shifted(self, by: usize) -> Self {
        Self {
            method: self.method + by,
            target: self.target + by,
            target_end: self.target_end + by,
            ..self
        }
    }
}

/// What HTTP/2 begins with (RFC 9113 section 3.4), as far as it can't be anything else.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// `method SP request-target SP HTTP-version CR`, without the line feed; an error has its offset.
fn request_line(line: &[u8]) -> Result<RequestLine, (Reason, usize)> {
    if line.starts_with(PREFACE) {
        return Err((Reason::Http2Preface, 0));
    }
    let method = line.iter().take_while(|&&b| field::is_tchar(b)).count();
    if line.get(method) != Some(&b' ') {
        return Err((Reason::Method, method));
    }
    let [line @ .., b'\r'] = line else {
        return Err((Reason::LineEnding, line.len()));
    };
    let target = method + 1;
    // Every version has eight bytes, so the last space is where it is looked for first.
    let target_end = match line.len().checked_sub(9) {
        Some(at) if at > method && line.get(at) == Some(&b' ') => at,
        _ => memrchr(b' ', line).unwrap_or(method),
    };
    if target_end <= target {
        return Err((Reason::RequestLine, target));
    }
    let form = target::check(&line[..method], &line[target..target_end])
        .map_err(|reason| (reason, target))?;
    let http10 = version(&line[target_end + 1..]).map_err(|reason| (reason, target_end + 1))?;
    Ok(RequestLine {
        kind: kind(&line[..method]),
        method: 0,
        target,
        target_end,
        form,
        http10,
        is_plain: false,
    })
}

/// Whether it is 1.0; a higher minor version is served as 1.1 (RFC 9110 section 2.5).
fn version(version: &[u8]) -> Result<bool, Reason> {
    match version {
        b"HTTP/1.0" => Ok(true),
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            major @ b'0'..=b'9',
            b'.',
            b'0'..=b'9',
        ] => match major {
            b'1' => Ok(false),
            _ => Err(Reason::UnsupportedVersion),
        },
        _ => Err(Reason::Version),
    }
}

pub(super) fn kind(method: &[u8]) -> Kind {
    match method {
        b"HEAD" => Kind::Head,
        b"CONNECT" => Kind::Connect,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_frame_their_responses_are_known_in_their_case_alone() {
        assert_eq!(kind(b"HEAD"), Kind::Head);
        assert_eq!(kind(b"CONNECT"), Kind::Connect);
        for method in [&b"GET"[..], b"head", b"connect", b"HEADS", b""] {
            assert_eq!(kind(method), Kind::Other);
        }
    }

    #[test]
    fn only_a_line_end_or_a_limit_ends_the_wait() {
        let limits = Limits {
            head_bytes: 64,
            request_line_bytes: 32,
            ..Limits::default()
        };
        let bounds = Bounds::from(&limits);
        for (begin, limit) in [
            ("GET /aaaaaaaaaaaaaaaaaaaaa", 32),
            ("GET / HTTP/1.1\r\nA:", 64),
        ] {
            let after = |more: &str| {
                let mut scan = Scan::default();
                assert_eq!(scan.judge(begin.as_bytes(), &bounds), Ok(None));
                scan.still_waits([begin, more].concat().as_bytes(), &bounds)
            };
            assert!(after("b"), "{begin}");
            assert!(!after("b\n"), "{begin}");
            assert!(after(&"b".repeat(limit - 1 - begin.len())), "{begin}");
            assert!(!after(&"b".repeat(limit - begin.len())), "{begin}");
        }
    }

    /// A byte that comes is looked at for a line end once, and a line is read once when it is whole.
    #[test]
    fn a_head_in_bytes_costs_linear_work() {
        let bounds = Bounds::from(&Limits::default());
        let head = format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\nX: {}",
            "a".repeat(4000),
            "b".repeat(20_000)
        );
        let mut scan = Scan::default();
        for len in 1..=head.len() {
            let bytes = &head.as_bytes()[..len];
            assert_eq!(scan.judge(bytes, &bounds), Ok(None));
            let line = bytes
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |at| at + 1);
            assert_eq!(scan.looked, len, "all was looked at");
            assert_eq!(scan.line, line, "no line is read again");
        }
    }
}
