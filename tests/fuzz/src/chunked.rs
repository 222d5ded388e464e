//! The chunked coding: cut anyhow it means the same, and what is accepted means what a plain reading of RFC 9112 section 7.1 says.

use bytes::BytesMut;
use http::HeaderMap;
use wharf::codec::chunked::{BodyDecoder, Bounds};
use wharf::codec::{DecodeBody, Length, Piece};
use wharf::{Limits, Reject};

#[derive(Debug, Default, PartialEq)]
struct Decoded {
    content: Vec<u8>,
    trailers: Option<HeaderMap>,
    end: Option<Result<Vec<u8>, Reject>>,
}

/// Decodes a chunked body whole and cut, and beside a reading of its own.
pub fn chunked_decoder(data: &[u8]) {
    let (pieces, message) = crate::cut(data);
    let whole = decode([message]);
    let cut = decode(pieces);
    assert_eq!(whole.end, cut.end);
    if !matches!(whole.end, Some(Err(_))) {
        assert_eq!(whole, cut);
    }
    if let Some(Ok(left)) = &whole.end {
        let (content, trailer) = plain(message).expect("what is complete has a plain reading");
        assert_eq!(whole.content, content);
        assert_eq!(*left, trailer);
    }
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let limits = Limits {
        chunk_line_bytes: 64,
        chunk_overhead_bytes: 256,
        trailer_bytes: 128,
        trailer_fields: 3,
        ..Limits::default()
    };
    let mut decoder = BodyDecoder::new(Length::Chunked, Bounds::from(&limits));
    let mut decoded = Decoded::default();
    let mut input = BytesMut::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        while decoded.end.is_none() {
            match decoder.decode(&mut input) {
                Ok(None) => break,
                Ok(Some(Piece::Data(data))) => {
                    assert!(!data.is_empty());
                    decoded.content.extend(data);
                }
                Ok(Some(Piece::Trailers(trailers))) => decoded.trailers = Some(trailers),
                Ok(Some(Piece::End)) => decoded.end = Some(Ok(Vec::new())),
                Err(reject) => decoded.end = Some(Err(reject)),
            }
        }
    }
    if let Some(Ok(left)) = &mut decoded.end {
        *left = input.to_vec();
    }
    decoded
}

/// The content, and what follows the body: without limits, and without a look at extensions and trailers.
fn plain(mut rest: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut content = Vec::new();
    loop {
        let line = line(&mut rest)?;
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let size = std::str::from_utf8(&line[..digits]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        content.extend(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    while !line(&mut rest)?.is_empty() {}
    Some((content, rest.to_vec()))
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
