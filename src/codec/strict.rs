//! The fused head parser: the scan finds and judges everything, then the head leaves the buffer as one shared slice
//! and each field goes from there into the map. No copy, and no allocation beyond what `http` makes.

use std::cell::Cell;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request};

use super::chunked::BodyDecoder;
use super::encode::{self, BodyEncoder, EncodeError};
use super::field::Span;
use super::lines::Lines;
use super::scan::{Bounds, RequestLine, Scan, put_back};
use super::target::{self, Form};
use super::usual::{self, Found};
use super::{Codec, Exchange, Head, Output, Reply};
use crate::error::{Reason, Reject};
use crate::limits::Limits;

/// The head parser in one pass.
///
/// Accepts and refuses exactly what [`Httparse`](super::Httparse) does, with the same reasons.
#[derive(Debug)]
pub struct Strict {
    bounds: Bounds,
    /// A head that came in pieces. Boxed, since most heads don't.
    begun: Option<Box<Scan>>,
}

thread_local! {
    static DESK: Cell<Option<Box<Desk>>> = const { Cell::new(None) };
}

/// What the parsers of a thread share.
#[derive(Debug, Default)]
struct Desk {
    /// The fields of the head under way.
    fields: Vec<Found>,
    lines: Lines,
}

/// Fields for which room is kept.
const ROOM: usize = 128;

impl Strict {
    /// A parser with these limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            bounds: limits.into(),
            begun: None,
        }
    }

    /// Decodes a head that is there as a whole and as it should be, which nearly all are.
    #[inline]
    fn usual(&self, input: &mut BytesMut, parts: &mut request::Parts) -> Option<Head<BodyDecoder>> {
        let mut desk = DESK.take().unwrap_or_default();
        let head = desk.decode(input, &self.bounds, parts);
        desk.fields.clear();
        if desk.fields.capacity() > ROOM {
            desk.fields.shrink_to(0);
        }
        DESK.set(Some(desk));
        head
    }

    /// Decodes any head, in as many pieces as it comes, or says why it is refused.
    #[cold]
    fn judged(
        &mut self,
        input: &mut BytesMut,
        parts: &mut request::Parts,
    ) -> Result<Option<Head<BodyDecoder>>, Reject> {
        let mut scan = self.begun.take().unwrap_or_default();
        let Some(len) = scan.judge(input, &self.bounds)? else {
            self.begun = Some(scan);
            return Ok(None);
        };
        let (exchange, length) = scan
            .request
            .decide(&scan.framing, &self.bounds)
            .map_err(Reject::new)?;
        let head = input.split_to(len).freeze();
        let filled = reserve(&mut parts.headers, scan.fields.len()).and_then(|()| {
            for span in &scan.fields {
                append(&mut parts.headers, span, &head)?;
            }
            request_line(&scan.request, &head, parts)
        });
        if let Err(reason) = filled {
            put_back(input, &head);
            return Err(Reject::new(reason));
        }
        Ok(Some(Head {
            exchange,
            length,
            decoder: BodyDecoder::new(length, self.bounds.body),
        }))
    }
}

impl Codec for Strict {
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
        match &mut self.begun {
            None => {
                if let Some(head) = self.usual(input, parts) {
                    return Ok(Some(head));
                }
            }
            Some(scan) => {
                if scan.still_waits(input, &self.bounds) {
                    return Ok(None);
                }
            }
        }
        self.judged(input, parts)
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

impl Desk {
    #[inline(always)]
    fn decode(
        &mut self,
        input: &mut BytesMut,
        bounds: &Bounds,
        parts: &mut request::Parts,
    ) -> Option<Head<BodyDecoder>> {
        let found = usual::find(input, bounds, &self.lines, &mut self.fields)?;
        let (exchange, length) = found.request.decide(&found.framing, bounds).ok()?;
        reserve(&mut parts.headers, self.fields.len()).ok()?;
        // What is kept needs no share of the buffer, which costs 60 instructions to take and to give back.
        let head = if found.is_kept {
            input.advance(found.len);
            Bytes::new()
        } else {
            input.split_to(found.len).freeze()
        };
        if self.fill(&found.request, &head, parts).is_err() {
            put_back(input, &head);
            parts.headers.clear();
            return None;
        }
        Some(Head {
            exchange,
            length,
            decoder: BodyDecoder::new(length, bounds.body),
        })
    }

    #[inline(always)]
    fn fill(
        &mut self,
        request: &RequestLine,
        head: &Bytes,
        parts: &mut request::Parts,
    ) -> Result<(), Reason> {
        let Self { fields, lines } = self;
        let map = &mut parts.headers;
        for found in fields {
            match found {
                Found::Kept(slot) => {
                    if let Some(line) = lines.at(*slot) {
                        map.try_append(&line.known.name, line.value.clone())
                            .map_err(|_| Reason::TooManyFields)?;
                    }
                }
                Found::Fresh(fresh) => {
                    append(map, &fresh.span, head)?;
                    if let Some(known) = fresh.span.known {
                        lines.note(known, fresh, head);
                    }
                }
            }
        }
        request_line(request, head, parts)
    }
}

fn reserve(map: &mut HeaderMap, fields: usize) -> Result<(), Reason> {
    if map.capacity() < fields {
        map.try_reserve(fields).map_err(|_| Reason::TooManyFields)?;
    }
    Ok(())
}

/// Adds a field. Fails where its value is bad, which only `http` looks for.
#[inline(always)]
fn append(map: &mut HeaderMap, span: &Span, head: &Bytes) -> Result<(), Reason> {
    let value = head.slice(span.value as usize..span.value_end as usize);
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| Reason::Field)?;
    let added = match span.known {
        Some(known) => map.try_append(&known.name, value),
        None => {
            let name = &head[span.name as usize..span.colon as usize];
            let name = HeaderName::from_bytes(name).map_err(|_| Reason::Field)?;
            map.try_append(name, value)
        }
    };
    added.map(drop).map_err(|_| Reason::TooManyFields)
}

/// Fills in what the request line said, where that isn't so by default; the fields are there.
#[inline(always)]
fn request_line(
    request: &RequestLine,
    head: &Bytes,
    parts: &mut request::Parts,
) -> Result<(), Reason> {
    if request.http10 {
        parts.version = Version::HTTP_10;
    }
    if request.is_plain {
        return Ok(());
    }
    match &head[request.method..request.target - 1] {
        b"GET" => {}
        b"POST" => parts.method = Method::POST,
        other => parts.method = Method::from_bytes(other).map_err(|_| Reason::Method)?,
    }
    let is_root = request.form == Form::Origin && request.target_end - request.target == 1;
    if !is_root {
        let target = head.slice(request.target..request.target_end);
        if request.form == Form::Absolute {
            override_host(&mut parts.headers, &target)?;
        }
        parts.uri = target::uri(request.form, target)?;
    }
    Ok(())
}

/// The authority of an absolute target stands in the place of whatever `Host` said (RFC 9112 section 3.2.2).
#[cold]
pub(super) fn override_host(fields: &mut HeaderMap, target: &Bytes) -> Result<(), Reason> {
    let place = target::authority(target).ok_or(Reason::Target)?;
    if let Some(host) = fields.get_mut(header::HOST) {
        *host = HeaderValue::from_maybe_shared(target.slice(place)).map_err(|_| Reason::Target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_head_takes_the_short_way() {
        let codec = Strict::new(&Limits::default());
        let mut parts = http::Request::new(()).into_parts().0;
        let mut input = BytesMut::from(&b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nmore"[..]);
        assert!(codec.usual(&mut input, &mut parts).is_some());
        assert_eq!((parts.uri.path(), &input[..]), ("/a", &b"more"[..]));
    }

    #[test]
    fn a_thread_keeps_room_for_as_many_fields_as_are_usual() {
        let limits = Limits {
            header_fields: 2 * ROOM,
            ..Limits::default()
        };
        let codec = Strict::new(&limits);
        for (count, kept) in [(ROOM, ROOM), (ROOM + 1, 0), (ROOM, ROOM)] {
            let fields = "A: bcde\r\n".repeat(count);
            let head = format!("GET / HTTP/1.0\r\n{fields}\r\n");
            let mut parts = http::Request::new(()).into_parts().0;
            let mut input = BytesMut::from(head.as_str());
            assert!(codec.usual(&mut input, &mut parts).is_some());
            let desk = DESK.take().unwrap();
            assert_eq!(desk.fields.capacity(), kept, "{count}");
            DESK.set(Some(desk));
        }
    }
}
