//! Parts of a representation (RFC 9110 section 14): resumed downloads, seeking in a video, all of it in one function.
//!
//! Write the response as if all were asked for, with a [`Source`] as its body and its `ETag`, `Last-Modified` and
//! `Content-Type`; [`respond`] makes of it what this request gets: 200, 206 with one part or several, 304, 412 or 416.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use wharf_middleware::range;
//!
//! let request = Request::get("/").header("range", "bytes=4-").body(()).unwrap();
//! let full = Response::builder().header("etag", r#""v1""#).body(Bytes::from("0123456789")).unwrap();
//!
//! let response = range::respond(request.method(), request.headers(), full);
//! assert_eq!(response.status(), 206);
//! assert_eq!(response.headers()["content-range"], "bytes 4-9/10");
//! assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(6));
//! ```
//!
//! Bytes in memory are a source, and so is an open [`FileSource`]; anything else that can be read from any place can be
//! one. A source is read as the client takes it, never ahead.
//!
//! What is done where the standard leaves a choice:
//!
//! | request | answer |
//! |---|---|
//! | more than [`MAX_RANGES`] ranges, or any two that overlap | the whole, 200: it is less work than was asked for |
//! | a malformed `Range`, a unit other than `bytes`, or the field twice | the whole, 200 |
//! | several ranges, one of them within the content | that one, as a single part |
//! | nothing of what is asked for exists | 416, which says how much there is |
//! | a suffix of an empty representation | the whole of it, 200: no `Content-Range` could name it |
//! | `Range` with another method than GET | the whole |
//! | a response that says `Accept-Ranges: none`, or isn't a 200 | as it is |

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::conditional::{Validators, evaluate, only, without_content};

mod file;
mod select;
#[cfg(test)]
mod tests;

pub use file::FileSource;
pub use select::{MAX_RANGES, Selection, select};

/// What can be read from any place, and knows its length.
///
/// ```
/// use std::{io, ops::Range, pin::Pin, task::{Context, Poll}};
/// use bytes::Bytes;
/// use wharf_middleware::range::Source;
///
/// /// The alphabet, over and over.
/// struct Letters;
///
/// impl Source for Letters {
///     fn length(&self) -> u64 {
///         1 << 40
///     }
///
///     fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, range: Range<u64>) -> Poll<io::Result<Bytes>> {
///         let some = range.take(4096).map(|place| b'a' + (place % 26) as u8);
///         Poll::Ready(Ok(some.collect()))
///     }
/// }
/// ```
pub trait Source {
    /// How many bytes there are.
    fn length(&self) -> u64;

    /// The first bytes of `range`, at least one; the rest is asked for afterwards. Pending, it is asked for the same
    /// range again.
    ///
    /// # Errors
    ///
    /// They end the response, which then never looks complete; so does an empty read.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        range: Range<u64>,
    ) -> Poll<io::Result<Bytes>>;
}

impl Source for Bytes {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        range: Range<u64>,
    ) -> Poll<io::Result<Bytes>> {
        let end = range.end.min(self.length()) as usize;
        let start = end.min(range.start as usize);
        Poll::Ready(Ok(self.slice(start..end)))
    }
}

/// Makes of a full response what a request with this method and these fields gets.
///
/// Conditions come first, in the order of RFC 9110 section 13.2.2, judged by the response's own `ETag` and
/// `Last-Modified`; then `If-Range` and `Range`. A response that isn't a 200 is sent as it is.
pub fn respond<S: Source>(
    method: &Method,
    fields: &HeaderMap,
    full: Response<S>,
) -> Response<RangeBody<S>> {
    let (mut head, source) = full.into_parts();
    let length = source.length();
    if head.status != StatusCode::OK {
        return Response::from_parts(head, RangeBody::whole(source));
    }
    let current = Validators::of(&head.headers);
    if evaluate(method, fields, Some(&current)).apply(&mut head) {
        return Response::from_parts(head, RangeBody::empty());
    }
    let selection = match only(&head.headers, &header::ACCEPT_RANGES) {
        Some(unit) if unit == "none" => Selection::Whole,
        _ => {
            let bytes = HeaderValue::from_static("bytes");
            head.headers.insert(header::ACCEPT_RANGES, bytes);
            select(method, fields, &current, length)
        }
    };
    let body = match selection {
        // The length that a GET would have, of which nothing is read.
        Selection::Whole if method == Method::HEAD => {
            head.headers.insert(header::CONTENT_LENGTH, length.into());
            return Response::from_parts(head, RangeBody::empty());
        }
        Selection::Whole => RangeBody::whole(source),
        Selection::One(range) => {
            head.status = StatusCode::PARTIAL_CONTENT;
            let value = content_range(&range, length);
            head.headers.insert(header::CONTENT_RANGE, value);
            RangeBody::part(source, range)
        }
        Selection::Many(ranges) => {
            head.status = StatusCode::PARTIAL_CONTENT;
            multipart(&mut head.headers, source, ranges)
        }
        Selection::Unsatisfiable => {
            head.status = StatusCode::RANGE_NOT_SATISFIABLE;
            without_content(&mut head.headers);
            let value = value(format!("bytes */{length}"));
            head.headers.insert(header::CONTENT_RANGE, value);
            RangeBody::empty()
        }
    };
    let length = HeaderValue::from(body.left);
    head.headers.insert(header::CONTENT_LENGTH, length);
    Response::from_parts(head, body)
}

fn content_range(range: &Range<u64>, length: u64) -> HeaderValue {
    let Range { start, end } = range;
    value(format!("bytes {start}-{}/{length}", end - 1))
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("ASCII")
}

/// Several parts in one body (RFC 9110 section 14.6). The type of each is the whole's, whose place the multipart takes.
fn multipart<S: Source>(
    fields: &mut HeaderMap,
    source: S,
    ranges: Vec<Range<u64>>,
) -> RangeBody<S> {
    let boundary = boundary();
    let kind = value(format!("multipart/byteranges; boundary={boundary}"));
    let part_kind = fields.insert(header::CONTENT_TYPE, kind);
    let length = source.length();
    let mut pieces = Vec::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        let mut head = Vec::with_capacity(160);
        head.extend_from_slice(if pieces.is_empty() { b"--" } else { b"\r\n--" });
        head.extend_from_slice(boundary.as_bytes());
        if let Some(kind) = &part_kind {
            head.extend_from_slice(b"\r\nContent-Type: ");
            head.extend_from_slice(kind.as_bytes());
        }
        head.extend_from_slice(b"\r\nContent-Range: ");
        head.extend_from_slice(content_range(&range, length).as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        pieces.push(Piece::Text(head.into()));
        pieces.push(Piece::Part(range));
    }
    pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    RangeBody::new(Some(source), pieces)
}

/// Nobody who writes content can know it beforehand, and so imitate it.
fn boundary() -> String {
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1))
}

pin_project! {
    /// The body of a response that [`respond`] made: all of a source, parts of it, or nothing.
    #[derive(Debug)]
    pub struct RangeBody<S> {
        #[pin]
        source: Option<S>,
        piece: Piece,
        rest: vec::IntoIter<Piece>,
        left: u64,
    }
}

#[derive(Debug)]
enum Piece {
    /// Between the parts of a multipart.
    Text(Bytes),
    /// What is left of a part.
    Part(Range<u64>),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Part(range) => range.end - range.start,
        }
    }
}

impl<S> RangeBody<S> {
    fn new(source: Option<S>, pieces: Vec<Piece>) -> Self {
        let left = pieces.iter().map(Piece::length).sum();
        Self {
            source,
            piece: Piece::Text(Bytes::new()),
            rest: pieces.into_iter(),
            left,
        }
    }

    fn empty() -> Self {
        Self::new(None, Vec::new())
    }

    fn part(source: S, range: Range<u64>) -> Self {
        let mut body = Self::new(Some(source), Vec::new());
        body.left = range.end - range.start;
        body.piece = Piece::Part(range);
        body
    }
}

impl<S: Source> RangeBody<S> {
    fn whole(source: S) -> Self {
        let length = source.length();
        Self::part(source, 0..length)
    }
}

impl<S> Default for RangeBody<S> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<S: Source> Body for RangeBody<S> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut this = self.project();
        while this.piece.length() == 0 {
            match this.rest.next() {
                Some(piece) => *this.piece = piece,
                None => return Poll::Ready(None),
            }
        }
        let data = match this.piece {
            Piece::Text(text) => std::mem::take(text),
            Piece::Part(range) => {
                let source = this.source.as_mut().as_pin_mut();
                let source = source.expect("whoever has parts has a source");
                let mut data = ready!(source.poll_read(cx, range.clone()))?;
                if data.is_empty() {
                    return Poll::Ready(Some(Err(shorter())));
                }
                data.truncate(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
                range.start += data.len() as u64;
                data
            }
        };
        *this.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cold]
fn shorter() -> io::Error {
    let why = "the source is shorter than it said it was";
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}
