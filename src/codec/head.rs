//! The head parser over `httparse`, with a strict pass behind it: `httparse` reads, the names are checked by `http`,
//! and what is lenient in both is refused here. A head that isn't whole, or isn't right, goes to the scan, which
//! knows why.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, request};
use httparse::{Header, Status};
use memchr::memchr_iter;

use super::chunked::BodyDecoder;
use super::encode::{self, BodyEncoder, EncodeError};
use super::framing::{Field, Framing, Request};
use super::scan::{self, Bounds, Scan, put_back};
use super::target::{self, Form};
use super::{Codec, Exchange, Head, Length, Output, Reply, names, strict};
use crate::error::{Reason, Reject};
use crate::limits::Limits;

/// The head parser over `httparse`.
///
/// Accepts and refuses exactly what [`Strict`](super::Strict) does, with the same reasons.
#[derive(Debug)]
pub struct Httparse {
    bounds: Bounds,
    /// A head that came in pieces. Boxed, since most heads don't.
    begun: Option<Box<Scan>>,
}

impl Httparse {
    /// A parser with these limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            bounds: limits.into(),
            begun: None,
        }
    }

    /// The length of the head, once it is whole.
    fn head_len(&mut self, input: &[u8]) -> Result<Option<usize>, Reject> {
        if self.begun.is_none()
            && let Some(len) = whole_head(input, &self.bounds)
        {
            return Ok(Some(len));
        }
        if let Some(scan) = &mut self.begun
            && scan.still_waits(input, &self.bounds)
        {
            return Ok(None);
        }
        let mut scan = self.begun.take().unwrap_or_default();
        let len = scan.judge(input, &self.bounds)?;
        if len.is_none() {
            self.begun = Some(scan);
        }
        Ok(len)
    }

    /// Why a whole head is refused: the first error in byte order, as the scan sees it.
    #[cold]
    fn why(&self, head: &[u8], reason: Reason) -> Reject {
        let judged = Scan::default().judge(head, &self.bounds);
        debug_assert!(
            judged.is_err(),
            "only refused by httparse ({reason:?}): {:?}",
            head.escape_ascii()
        );
        judged.err().unwrap_or(Reject::new(reason))
    }
}

impl Codec for Httparse {
    type Decoder = BodyDecoder;
    type Encoder = BodyEncoder;

    fn decode_head(
        &mut self,
        input: &mut BytesMut,
        parts: &mut request::Parts,
    ) -> Result<Option<Head<BodyDecoder>>, Reject> {
        if input.is_empty() {
            return Ok(None);
        }
        let Some(len) = self.head_len(input)? else {
            return Ok(None);
        };
        let mut head = input.split_to(len);
        serve_as_1_1(&mut head);
        let head = head.freeze();
        match fill(&head, &self.bounds, parts) {
            Ok((exchange, length)) => Ok(Some(Head {
                exchange,
                length,
                decoder: BodyDecoder::new(length, self.bounds.body),
            })),
            Err(reason) => {
                put_back(input, &head);
                Err(self.why(&head, reason))
            }
        }
    }

    fn encode_head(
        &mut self,
        exchange: &mut Exchange,
        reply: Reply<'_>,
        output: &mut Output,
    ) -> Result<BodyEncoder, EncodeError> {
        encode::head(exchange, reply, output)
    }

    fn encode_interim(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
        output: &mut Output,
    ) -> Result<(), EncodeError> {
        encode::interim(status, fields, output)
    }
}

/// The length of a head that is whole, within the limits, and has no bare line feed, which `httparse` lets through.
fn whole_head(input: &[u8], bounds: &Bounds) -> Option<usize> {
    let mut start = 0;
    while input.get(start..)?.starts_with(b"\r\n") {
        start += 2;
    }
    if start > bounds.leading_bytes {
        return None;
    }
    let head = input.get(start..)?;
    let mut line = 0;
    for line_feed in memchr_iter(b'\n', head) {
        let next = line_feed + 1;
        let ends_well = head.get(line..line_feed)?.last() == Some(&b'\r');
        let limit = if line == 0 {
            bounds.request_line_bytes
        } else {
            bounds.head_bytes
        };
        if !ends_well || next > limit {
            return None;
        }
        if next - line == 2 {
            return Some(start + next);
        }
        line = next;
    }
    None
}

/// A higher minor version is served as 1.1 (RFC 9110 section 2.5), but `httparse` doesn't know it.
fn serve_as_1_1(head: &mut [u8]) {
    let start = head.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let line_feed = memchr::memchr(b'\n', head.get(start..).unwrap_or_default());
    let Some(line) = line_feed.and_then(|at| head.get_mut(start..start + at)) else {
        return;
    };
    if let [
        ..,
        b' ',
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor @ b'2'..=b'9',
        b'\r',
    ] = line
    {
        *minor = b'1';
    }
}

/// Fields for which there is room on the stack.
const FEW: usize = 128;

fn fill(
    head: &Bytes,
    bounds: &Bounds,
    parts: &mut request::Parts,
) -> Result<(Exchange, Length), Reason> {
    // Room that isn't initialised costs nothing, and needs no `unsafe` here: only `httparse` looks into it.
    if bounds.header_fields <= FEW {
        let mut room = [const { MaybeUninit::uninit() }; FEW];
        fill_with(&mut room[..bounds.header_fields], head, bounds, parts)
    } else {
        let mut room = vec![MaybeUninit::uninit(); bounds.header_fields];
        fill_with(&mut room, head, bounds, parts)
    }
}

fn fill_with<'h>(
    room: &mut [MaybeUninit<Header<'h>>],
    head: &'h Bytes,
    bounds: &Bounds,
    parts: &mut request::Parts,
) -> Result<(Exchange, Length), Reason> {
    let mut read = httparse::Request::new(&mut []);
    match read.parse_with_uninit_headers(head, room) {
        Ok(Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(Reason::LineEnding),
        Err(httparse::Error::TooManyHeaders) => return Err(Reason::TooManyFields),
        Err(_) => return Err(Reason::RequestLine),
    }
    let (Some(method), Some(path), Some(minor)) = (read.method, read.path, read.version) else {
        return Err(Reason::RequestLine);
    };
    let target = head.slice_ref(path.as_bytes());
    let form = target::check(method.as_bytes(), &target)?;
    let request = Request {
        http10: minor == 0,
        method: scan::kind(method.as_bytes()),
        form,
    };
    let framing = fill_fields(read.headers, head, &mut parts.headers)?;
    let decision = framing.decide(request, bounds.body.body_bytes)?;
    if form == Form::Absolute {
        strict::override_host(&mut parts.headers, &target)?;
    }
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| Reason::Method)?;
    parts.uri = target::uri(form, target)?;
    parts.version = if request.http10 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    Ok(decision)
}

fn fill_fields(
    read: &[Header<'_>],
    head: &Bytes,
    fields: &mut HeaderMap,
) -> Result<Framing, Reason> {
    let mut framing = Framing::default();
    fields
        .try_reserve(read.len())
        .map_err(|_| Reason::TooManyFields)?;
    for field in read {
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| Reason::Field)?;
        // Most names are well known, and then need neither a check nor a copy: 2,300 of a browser's 17,000
        // instructions and three allocations.
        let start = field.name.as_ptr().addr() - head.as_ptr().addr();
        let added = match names::find(head, start, start + field.name.len()) {
            Some(known) => {
                if known.field != Field::Other {
                    framing.field(known.field, field.value)?;
                }
                fields.try_append(&known.name, value)
            }
            None => {
                let name = HeaderName::from_bytes(field.name.as_bytes());
                fields.try_append(name.map_err(|_| Reason::Field)?, value)
            }
        };
        added.map_err(|_| Reason::TooManyFields)?;
    }
    Ok(framing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_head_is_measured_and_one_that_is_not_usual_is_left_to_the_scan() {
        let limits = Limits {
            request_line_bytes: 16,
            head_bytes: 64,
            ..Limits::default()
        };
        let bounds = Bounds::from(&limits);
        let head = "GET / HTTP/1.1\r\nA: b\r\n\r\n";
        let behind = format!("{head}more\r\n");
        assert_eq!(whole_head(behind.as_bytes(), &bounds), Some(head.len()));
        let before = format!("\r\n{head}");
        assert_eq!(whole_head(before.as_bytes(), &bounds), Some(before.len()));
        for other in [
            "GET / HTTP/1.1\r\nA: b\r\n",
            "GET / HTTP/1.1\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\r\n\r\n",
        ] {
            assert_eq!(whole_head(other.as_bytes(), &bounds), None, "{other:?}");
        }
        for (lines, is_found) in [(3, true), (4, true), (5, false)] {
            assert_eq!(bounds.leading_bytes, 8);
            let head = format!("{}{head}", "\r\n".repeat(lines));
            assert_eq!(whole_head(head.as_bytes(), &bounds).is_some(), is_found);
        }
        for (len, is_found) in [(63, true), (64, true), (65, false)] {
            let head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(len - 23));
            assert_eq!(head.len(), len);
            assert_eq!(whole_head(head.as_bytes(), &bounds).is_some(), is_found);
        }
    }
}
