//! The fused head parser: the scan finds and judges everything, then the head leaves the buffer as one shared slice
//! and each field goes from there into the map. No copy, and no allocation beyond what `http` makes.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request};

use super::chunked::BodyDecoder;
use super::encode::{self, BodyEncoder, EncodeError};
use super::field::Span;
use super::scan::{Bounds, Scan, put_back};
use super::target::{self, Form};
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
    /// Room for the fields of the head under way, kept from the last one: empty, but with capacity.
    static ROOM: Cell<Vec<Span>> = const { Cell::new(Vec::new()) };
}

/// Fields for which room is kept.
const KEPT: usize = 128;

impl Strict {
    /// A parser with these limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            bounds: limits.into(),
            begun: None,
        }
    }

    /// Goes on with a head of which a part was seen before.
    #[cold]
    fn resume(
        &mut self,
        input: &mut BytesMut,
        parts: &mut request::Parts,
    ) -> Result<Option<Head<BodyDecoder>>, Reject> {
        let Some(mut scan) = self.begun.take() else {
            return Ok(None);
        };
        match scan.judge(input, &self.bounds)? {
            None => {
                self.begun = Some(scan);
                Ok(None)
            }
            Some(len) => take(&mut scan, input, len, &self.bounds, parts),
        }
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
        if let Some(scan) = &mut self.begun {
            if scan.still_waits(input, &self.bounds) {
                return Ok(None);
            }
            return self.resume(input, parts);
        }
        let mut scan = Scan::new(ROOM.take());
        match scan.advance(input, &self.bounds) {
            Ok(Some(len)) => take(&mut scan, input, len, &self.bounds, parts),
            Ok(None) => {
                scan.check_values(input)?;
                self.begun = Some(Box::new(scan));
                Ok(None)
            }
            Err(reject) => Err(scan.first_error(input, reject)),
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

/// Takes a whole head that was scanned from the input; one that is refused stays there.
#[inline]
fn take(
    scan: &mut Scan,
    input: &mut BytesMut,
    len: usize,
    bounds: &Bounds,
    parts: &mut request::Parts,
) -> Result<Option<Head<BodyDecoder>>, Reject> {
    let head = input.split_to(len).freeze();
    match fill(scan, &head, bounds, parts) {
        Ok(filled) => Ok(Some(filled)),
        Err(reject) => {
            put_back(input, &head);
            Err(reject)
        }
    }
}

/// Makes `http` types of a whole head.
#[inline]
fn fill(
    scan: &mut Scan,
    head: &Bytes,
    bounds: &Bounds,
    parts: &mut request::Parts,
) -> Result<Head<BodyDecoder>, Reject> {
    let (exchange, length) = match scan.decide(head, bounds) {
        Ok(decision) => decision,
        Err(reject) => return Err(scan.first_error(head, reject)),
    };
    if let Err(reason) = fill_parts(scan, head, parts) {
        return Err(scan.first_error(head, Reject::new(reason)));
    }
    if scan.fields.capacity() <= KEPT {
        scan.fields.clear();
        ROOM.set(std::mem::take(&mut scan.fields));
    }
    Ok(Head {
        exchange,
        length,
        decoder: BodyDecoder::new(length, bounds.body),
    })
}

#[inline]
fn fill_parts(scan: &Scan, head: &Bytes, parts: &mut request::Parts) -> Result<(), Reason> {
    let request = &scan.request;
    parts.method = Method::from_bytes(&head[request.method..request.target - 1])
        .map_err(|_| Reason::Method)?;
    parts.version = if request.http10 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    let fields = &mut parts.headers;
    if fields.capacity() < scan.fields.len() {
        fields
            .try_reserve(scan.fields.len())
            .map_err(|_| Reason::TooManyFields)?;
    }
    for span in &scan.fields {
        let name = match span.known {
            Some(known) => known.name.clone(),
            None => HeaderName::from_bytes(&head[span.name as usize..span.colon as usize])
                .map_err(|_| Reason::Field)?,
        };
        let value = head.slice(span.value as usize..span.value_end as usize);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Reason::Field)?;
        fields
            .try_append(name, value)
            .map_err(|_| Reason::TooManyFields)?;
    }
    // The root is asked for most often, and needs no share of the head.
    parts.uri = if request.form == Form::Origin && request.target_end - request.target == 1 {
        Uri::default()
    } else {
        let target = head.slice(request.target..request.target_end);
        if request.form == Form::Absolute {
            override_host(fields, &target)?;
        }
        target::uri(request.form, target)?
    };
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
