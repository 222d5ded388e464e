//! What both head parsers must do, and do alike: one test body, two codecs, every way to slice.

use bytes::BytesMut;
use http::{Method, Request, Version, request};

use super::{Codec, DecodeBody, Exchange, Head, Httparse, Length, Strict};
use crate::error::Reason;
use crate::limits::Limits;

mod corpus;
mod limits;

/// What came of some bytes; two outcomes are equal only if nothing that a handler can see differs.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Incomplete,
    Refused(Reason, usize),
    Head(Box<Decoded>),
}

#[derive(Debug, Clone, PartialEq)]
struct Decoded {
    consumed: usize,
    method: Method,
    uri: String,
    uri_parts: (Option<String>, Option<String>, Option<String>),
    version: Version,
    fields: Vec<(String, Vec<u8>)>,
    exchange: Exchange,
    length: Length,
}

fn blank() -> request::Parts {
    Request::new(()).into_parts().0
}

/// Feeds `bytes` in pieces that end at each of `cuts`, until something is decided.
fn decode_cut<C>(mut codec: C, bytes: &[u8], cuts: &[usize]) -> Outcome
where
    C: Codec,
    C::Decoder: DecodeBody,
{
    let mut input = BytesMut::new();
    let mut from = 0;
    for &to in cuts.iter().chain(&[bytes.len()]) {
        input.extend_from_slice(&bytes[from..to]);
        from = to;
        let mut parts = blank();
        match codec.decode_head(&mut input, &mut parts) {
            Ok(Some(head)) => return decoded(to - input.len(), parts, &head),
            Ok(None) => assert_eq!(input, bytes[..to], "untouched where more is asked for"),
            Err(reject) => return Outcome::Refused(reject.reason(), reject.offset()),
        }
    }
    Outcome::Incomplete
}

fn decoded<D>(consumed: usize, parts: request::Parts, head: &Head<D>) -> Outcome {
    let uri = &parts.uri;
    Outcome::Head(Box::new(Decoded {
        consumed,
        uri: uri.to_string(),
        uri_parts: (
            uri.scheme_str().map(String::from),
            uri.authority().map(|authority| authority.to_string()),
            uri.path_and_query().map(|path| path.as_str().to_owned()),
        ),
        method: parts.method,
        version: parts.version,
        fields: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect(),
        exchange: head.exchange.clone(),
        length: head.length,
    }))
}

/// The one outcome of `bytes` under both codecs: whole, cut anywhere once, and a byte at a time.
fn outcome_within(limits: &Limits, bytes: &[u8]) -> Outcome {
    let whole = decode_cut(Strict::new(limits), bytes, &[]);
    let shown = bytes.escape_ascii();
    assert_eq!(
        decode_cut(Httparse::new(limits), bytes, &[]),
        whole,
        "httparse: {shown}"
    );
    let mut each = Vec::new();
    for cut in 1..bytes.len() {
        let strict = decode_cut(Strict::new(limits), bytes, &[cut]);
        let httparse = decode_cut(Httparse::new(limits), bytes, &[cut]);
        assert_eq!(strict, whole, "strict cut at {cut}: {shown}");
        assert_eq!(httparse, whole, "httparse cut at {cut}: {shown}");
        each.push(cut);
    }
    assert_eq!(
        decode_cut(Strict::new(limits), bytes, &each),
        whole,
        "strict in bytes: {shown}"
    );
    assert_eq!(
        decode_cut(Httparse::new(limits), bytes, &each),
        whole,
        "httparse in bytes: {shown}"
    );
    whole
}

fn outcome(bytes: &[u8]) -> Outcome {
    outcome_within(&Limits::default(), bytes)
}

fn refused(bytes: &[u8]) -> Option<Reason> {
    match outcome(bytes) {
        Outcome::Refused(reason, _) => Some(reason),
        _ => None,
    }
}

fn accepted(bytes: &[u8]) -> Decoded {
    match outcome(bytes) {
        Outcome::Head(decoded) => *decoded,
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}
