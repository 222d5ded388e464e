//! Bugs of heads, bodies and framing, as a codec around the stock one.

use std::rc::Rc;

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header, request};
use wharf::codec::{
    Codec, DecodeBody, EncodeBody, EncodeError, Exchange, Head, Kind, Length, Output, Piece, Reply,
    Strict,
};
use wharf::{Reason, Reject};

use super::Bug;
use crate::script::TRAILER;
use crate::world::World;

/// The codec, with a bug around it.
pub struct BuggedCodec {
    inner: Strict,
    bug: Bug,
    world: Rc<World>,
    last: Kind,
}

impl BuggedCodec {
    /// The stock codec with a bug around it.
    pub(super) fn new(inner: Strict, bug: Bug, world: Rc<World>) -> Self {
        Self {
            inner,
            bug,
            world,
            last: Kind::Other,
        }
    }
}

impl Codec for BuggedCodec {
    type Decoder = BuggedDecoder;
    type Encoder = BuggedEncoder;

    fn decode_head(
        &mut self,
        input: &mut BytesMut,
        parts: &mut request::Parts,
    ) -> Result<Option<Head<BuggedDecoder>>, Reject> {
        let Some(mut head) = self.inner.decode_head(input, parts)? else {
            return Ok(None);
        };
        self.last = head.exchange.method;
        match self.bug {
            Bug::EarlyUpgradeBytes if head.exchange.upgrade => input.clear(),
            Bug::ServesAfterClose => head.exchange.close = None,
            _ => {}
        }
        let lenient = match self.bug {
            Bug::ChunkOverflow | Bug::TrailingCrlf | Bug::BareLfChunk
                if head.length == Length::Chunked =>
            {
                Some(Lenient {
                    bug: self.bug,
                    state: Chunk::Size,
                    trailers: HeaderMap::new(),
                })
            }
            _ => None,
        };
        let at = parts
            .headers
            .get("x-id")
            .and_then(|id| id.to_str().ok()?.parse().ok());
        let undrained = at
            .filter(|_| self.bug == Bug::UndrainedBody)
            .map(|at| (self.world.clone(), at));
        let decoder = BuggedDecoder {
            inner: head.decoder,
            undrained,
            lenient,
        };
        Ok(Some(Head {
            exchange: head.exchange,
            length: head.length,
            decoder,
        }))
    }

    fn encode_head(
        &mut self,
        exchange: &mut Exchange,
        reply: Reply<'_>,
        output: &mut Output,
    ) -> Result<BuggedEncoder, EncodeError> {
        let before = (exchange.method, exchange.http10);
        match self.bug {
            Bug::HeadWithBody => exchange.method = Kind::Other,
            Bug::LastMethodWins => exchange.method = self.last,
            Bug::ChunksToHttp10 => exchange.http10 = false,
            _ => {}
        }
        let declared = reply
            .head
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let believed = declared
            .or(reply.length)
            .filter(|_| self.bug == Bug::LengthTrust);
        let reply = Reply {
            length: believed.or(reply.length),
            ..reply
        };
        let inner = self.inner.encode_head(exchange, reply, output);
        (exchange.method, exchange.http10) = before;
        let inner = inner?;
        let believes = believed.is_some() && !inner.is_done();
        Ok(BuggedEncoder { inner, believes })
    }

    fn encode_interim(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
        output: &mut Output,
    ) -> Result<(), EncodeError> {
        if self.bug == Bug::ContinueTwice && status == StatusCode::CONTINUE {
            self.inner.encode_interim(status, fields, output)?;
        }
        self.inner.encode_interim(status, fields, output)
    }
}

/// Reads a request's body.
pub struct BuggedDecoder {
    inner: <Strict as Codec>::Decoder,
    undrained: Option<(Rc<World>, usize)>,
    lenient: Option<Lenient>,
}

impl DecodeBody for BuggedDecoder {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Reject> {
        if let Some((world, at)) = &self.undrained
            && world.records.borrow()[*at].left
        {
            return Ok(Some(Piece::End));
        }
        match &mut self.lenient {
            Some(lenient) => lenient.decode(input),
            None => self.inner.decode(input),
        }
    }

    fn remaining(&self) -> Option<u64> {
        self.inner.remaining()
    }
}

/// A chunked coding as it was read in less careful times.
struct Lenient {
    bug: Bug,
    state: Chunk,
    trailers: HeaderMap,
}

#[derive(Clone, Copy)]
enum Chunk {
    Size,
    Data(u64),
    End,
    Trailers,
    Over,
}

impl Lenient {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Reject> {
        loop {
            match self.state {
                Chunk::Data(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let count = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - count as u64;
                    self.state = if left == 0 {
                        Chunk::End
                    } else {
                        Chunk::Data(left)
                    };
                    return Ok(Some(Piece::Data(input.split_to(count).freeze())));
                }
                Chunk::End => {
                    if input.len() < 2 {
                        return Ok(None);
                    }
                    if !input.starts_with(b"\r\n") {
                        return Err(Reject::new(Reason::Chunk));
                    }
                    input.advance(2);
                    self.state = Chunk::Size;
                }
                Chunk::Size => {
                    let Some(line) = self.line(input)? else {
                        return Ok(None);
                    };
                    let digits: Vec<u8> = line
                        .iter()
                        .copied()
                        .take_while(|&byte| byte != b';')
                        .collect();
                    let size = self.size(&digits).ok_or(Reject::new(Reason::Chunk))?;
                    self.state = if size == 0 {
                        Chunk::Trailers
                    } else {
                        Chunk::Data(size)
                    };
                    if size == 0 && self.bug == Bug::TrailingCrlf {
                        return Ok(Some(Piece::End));
                    }
                }
                Chunk::Trailers => {
                    let Some(line) = self.line(input)? else {
                        return Ok(None);
                    };
                    if line.is_empty() {
                        self.state = Chunk::Over;
                        if !self.trailers.is_empty() {
                            return Ok(Some(Piece::Trailers(std::mem::take(&mut self.trailers))));
                        }
                        continue;
                    }
                    let (name, value) = TRAILER;
                    if line != format!("{name}: {value}") {
                        return Err(Reject::new(Reason::Trailer));
                    }
                    self.trailers.insert(name, HeaderValue::from_static(value));
                }
                Chunk::Over => return Ok(Some(Piece::End)),
            }
        }
    }

    fn size(&self, digits: &[u8]) -> Option<u64> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(u64::from);
        let add = |size: u64, byte: &u8| match self.bug {
            Bug::ChunkOverflow => Some(size.wrapping_mul(16).wrapping_add(digit(*byte)?)),
            _ => size.checked_mul(16)?.checked_add(digit(*byte)?),
        };
        if digits.is_empty() {
            None
        } else {
            digits.iter().try_fold(0, add)
        }
    }

    fn line(&self, input: &mut BytesMut) -> Result<Option<BytesMut>, Reject> {
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let mut line = input.split_to(end + 1);
        line.truncate(end);
        match line.last() {
            Some(b'\r') => line.truncate(end - 1),
            _ if self.bug == Bug::BareLfChunk => {}
            _ => return Err(Reject::new(Reason::LineEnding)),
        }
        Ok(Some(line))
    }
}

/// Writes a response's body.
#[derive(Debug)]
pub struct BuggedEncoder {
    inner: <Strict as Codec>::Encoder,
    believes: bool,
}

impl EncodeBody for BuggedEncoder {
    fn is_done(&self) -> bool {
        !self.believes && self.inner.is_done()
    }

    fn is_framed(&self) -> bool {
        self.inner.is_framed()
    }

    fn data<B: Buf>(&mut self, data: B, output: &mut Output) -> Result<(), EncodeError> {
        if !self.believes {
            return self.inner.data(data, output);
        }
        output.put_buf(data);
        Ok(())
    }

    fn trailers(&mut self, trailers: &HeaderMap, output: &mut Output) -> Result<(), EncodeError> {
        if !self.believes {
            return self.inner.trailers(trailers, output);
        }
        self.end(output)
    }

    fn end(&mut self, output: &mut Output) -> Result<(), EncodeError> {
        if !self.believes {
            return self.inner.end(output);
        }
        self.believes = false;
        let _ = self.inner.end(output);
        Ok(())
    }
}
