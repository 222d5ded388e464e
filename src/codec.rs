//! The codec seam: bytes on one side, `http` types on the other.
//!
//! Nothing here knows a socket, a clock, a waker or tower. A codec that lacks bytes says so by returning
//! `None` and leaves its input as it was; a codec that refuses says why with a [`Reject`].
//!
//! Two head parsers ship: [`Strict`], the default, and [`Httparse`], for whoever would rather trust a parser that many
//! servers share. What must not differ between them is written once: [`framing`] (which body a request has),
//! [`target`] (request target and `Host`), [`chunked`] (the chunked coding) and [`encode`] (the way back).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode, request, response};

use crate::error::Reject;

pub mod chunked;
pub mod encode;
mod field;
pub mod framing;
mod head;
mod lines;
mod names;
mod output;
mod scan;
mod strict;
pub mod target;
mod usual;

pub use chunked::BodyDecoder;
pub use encode::EncodeError;
pub use head::Httparse;
pub use output::{Mark, Output};
pub use strict::Strict;

/// Turns bytes into request heads, and response heads into bytes.
pub trait Codec {
    /// Reads the body of the request whose head was just decoded.
    type Decoder: DecodeBody;
    /// Writes the body of the response whose head was just encoded.
    type Encoder: EncodeBody;

    /// Takes one whole request head from the front of `input` and fills `parts` with it.
    ///
    /// `parts` comes as that of a new `Request`, though its map may have capacity left from an earlier exchange: what
    /// is so by default, as a GET of `/` is, needs no word.
    ///
    /// `Ok(None)` asks for more bytes and leaves `input` and `parts` untouched. The codec may remember how far it
    /// looked, so that a head which arrives a byte at a time costs linear time; it may rely on being called again
    /// with the same bytes and more behind them.
    ///
    /// # Errors
    ///
    /// A [`Reject`] ends the connection: after it nothing in `input` can be trusted, though the refused head is still
    /// there, to be shown; `parts` is unspecified.
    fn decode_head(
        &mut self,
        input: &mut BytesMut,
        parts: &mut request::Parts,
    ) -> Result<Option<Head<Self::Decoder>>, Reject>;

    /// Appends a final response head to `output` and returns what writes its body.
    ///
    /// May set [`Exchange::close`] when the response asks for it or its body can only end with the connection.
    ///
    /// # Errors
    ///
    /// When the response can't be sent without harm to what follows on the connection; `output` is then as it was.
    fn encode_head(
        &mut self,
        exchange: &mut Exchange,
        reply: Reply<'_>,
        output: &mut Output,
    ) -> Result<Self::Encoder, EncodeError>;

    /// Appends an interim (1xx, not 101) response head to `output`.
    ///
    /// # Errors
    ///
    /// When `status` isn't interim; `output` is then as it was.
    fn encode_interim(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
        output: &mut Output,
    ) -> Result<(), EncodeError>;
}

/// What a decoded head says beside the `request::Parts` it filled.
#[derive(Debug)]
pub struct Head<D> {
    /// What the response needs to know of the request.
    pub exchange: Exchange,
    /// What follows the head.
    pub length: Length,
    /// Reads what follows.
    pub decoder: D,
}

/// How long a request's body is, by RFC 9112 section 6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// That many bytes, zero where the request has no body.
    Known(u64),
    /// The chunked coding says when it ends.
    Chunked,
}

/// One request and its response, as far as the codec is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The client speaks HTTP/1.0: no chunks, no interim responses, `keep-alive` only where it was asked for.
    pub http10: bool,
    /// The method, where it changes what a response looks like.
    pub method: Kind,
    /// The connection ends after this exchange, and why. `None`: it is kept.
    pub close: Option<Close>,
    /// The client waits for `100 Continue` before it sends the body (HTTP/1.1 only).
    pub expects_continue: bool,
    /// The client offers to switch protocols: `Upgrade`, named by `Connection`, in HTTP/1.1 and without a body.
    pub upgrade: bool,
    /// What the response's `Keep-Alive` advertised: the seconds for which an idle connection is kept.
    pub keep_alive: Option<u32>,
}

impl Exchange {
    /// An exchange that ends its connection, for an error that is answered without a whole request.
    pub fn last(method: Kind) -> Self {
        Self {
            http10: false,
            method,
            close: Some(Close::Connection),
            expects_continue: false,
            upgrade: false,
            keep_alive: None,
        }
    }
}

/// The methods whose responses are framed in their own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The response has no content, whatever its fields say.
    Head,
    /// A successful response turns the connection into a tunnel.
    Connect,
    /// Any other method.
    Other,
}

/// Why an exchange is the last of its connection, where request or response decide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// `Connection: close`, or HTTP/1.0 without `keep-alive`.
    ClientAsked,
    /// The response said `Connection: close`.
    HandlerAsked,
    /// The length of the response is only shown by the end of the connection (HTTP/1.0).
    Unframed,
    /// Decided by the connection itself.
    Connection,
}

/// A final response head, with what the codec can't know.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Status and fields.
    pub head: &'a response::Parts,
    /// The exact length of the body, if it says so.
    pub length: Option<u64>,
    /// A whole `date` field line, from [`date::line`](crate::date::line).
    pub date: &'a [u8; crate::date::LINE],
}

/// Reads one request body.
pub trait DecodeBody {
    /// Takes the next piece from the front of `input`; `Ok(None)` asks for more bytes.
    ///
    /// Not called again after [`Piece::End`].
    ///
    /// # Errors
    ///
    /// A [`Reject`] means that the end of this body can't be known any more, so the connection ends with it.
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Reject>;

    /// What the client declared and has not been decoded yet; `None` where only the coding knows.
    fn remaining(&self) -> Option<u64>;
}

/// A piece of a request body.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Content, never empty.
    Data(Bytes),
    /// The trailer section, with which the body is complete: at most [`Piece::End`] follows, and takes nothing.
    Trailers(HeaderMap),
    /// The body is complete.
    End,
}

/// Writes one response body.
pub trait EncodeBody {
    /// Nothing more is to be written: the body need not be polled (again).
    fn is_done(&self) -> bool;

    /// The framing shows where the body ends; `false`: only the end of the connection does.
    fn is_framed(&self) -> bool;

    /// Appends content.
    ///
    /// # Errors
    ///
    /// When there is more content than was declared: as much as was declared is written, the rest is not.
    fn data<B: Buf>(&mut self, data: B, output: &mut Output) -> Result<(), EncodeError>;

    /// Appends the trailer section, where the framing has one, and ends the body.
    ///
    /// # Errors
    ///
    /// As [`end`](EncodeBody::end).
    fn trailers(&mut self, trailers: &HeaderMap, output: &mut Output) -> Result<(), EncodeError>;

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// When there was less content than declared; the connection must then end without a clean finish.
    fn end(&mut self, output: &mut Output) -> Result<(), EncodeError>;
}

#[cfg(test)]
mod tests;
