//! Heads: the two parsers agree, or the strict one refuses; and neither cares how a head is cut.

use bytes::BytesMut;
use http::{Request, Uri, Version};
use wharf::codec::{Codec, Exchange, Httparse, Length, Strict};
use wharf::{Limits, Reject};

/// What a parser makes of bytes.
#[derive(Debug, PartialEq)]
enum Outcome {
    More,
    Refused(Reject),
    Head(Box<Understood>),
}

#[derive(Debug, PartialEq)]
struct Understood {
    method: http::Method,
    uri: Uri,
    version: Version,
    fields: Vec<(http::HeaderName, http::HeaderValue)>,
    exchange: Exchange,
    length: Length,
    /// What follows the head.
    left: Vec<u8>,
}

/// Decodes a head with both parsers, whole and cut.
pub fn request_head(data: &[u8]) {
    let (pieces, message) = crate::cut(data);
    let limits = Limits {
        head_bytes: 2048,
        request_line_bytes: 512,
        header_fields: 12,
        ..Limits::default()
    };
    let strict = decode(Strict::new(&limits), [message]);
    let httparse = decode(Httparse::new(&limits), [message]);
    match (&strict, &httparse) {
        (Outcome::Head(_), _) | (Outcome::More, _) => assert_eq!(strict, httparse),
        (Outcome::Refused(_), _) => {}
    }
    assert_eq!(
        decode(Strict::new(&limits), pieces.iter().copied()),
        strict,
        "cut"
    );
    assert_eq!(decode(Httparse::new(&limits), pieces), httparse, "cut");
}

fn decode<'a, C: Codec>(mut codec: C, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut input = BytesMut::new();
    let mut outcome = Outcome::More;
    for piece in pieces {
        input.extend_from_slice(piece);
        match &mut outcome {
            Outcome::Head(understood) => understood.left.extend_from_slice(piece),
            Outcome::Refused(_) => {}
            Outcome::More => outcome = one(&mut codec, &mut input),
        }
    }
    outcome
}

fn one<C: Codec>(codec: &mut C, input: &mut BytesMut) -> Outcome {
    let before = input.clone();
    let (mut parts, ()) = Request::new(()).into_parts();
    let head = match codec.decode_head(input, &mut parts) {
        Err(reject) => return Outcome::Refused(reject),
        Ok(None) => {
            assert_eq!(*input, before, "asked for more and took something");
            return Outcome::More;
        }
        Ok(Some(head)) => head,
    };
    assert!(
        before.ends_with(input),
        "took from elsewhere than the front"
    );
    Outcome::Head(Box::new(Understood {
        method: parts.method,
        uri: parts.uri,
        version: parts.version,
        fields: parts
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        exchange: head.exchange,
        length: head.length,
        left: input.to_vec(),
    }))
}
