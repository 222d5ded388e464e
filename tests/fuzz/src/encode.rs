//! Responses: what the encoder accepts reads back as what was meant, by a strict reader, by httparse and by hyper's client; what it
//! can't say without harm it refuses, and leaves no byte of.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::Instant;
use wharf::codec::{Codec, EncodeBody, Exchange, Kind, Output, Reply, Strict};
use wharf::{Limits, date};

use crate::answer::Answer;
use crate::runtime::block_on;

const NAMES: [&str; 12] = [
    "server",
    "etag",
    "content-length",
    "transfer-encoding",
    "connection",
    "date",
    "upgrade",
    "keep-alive",
    "trailer",
    "x-frame-options",
    "set-cookie",
    "content-type",
];

/// A response that a handler might return.
struct Meant {
    exchange: Exchange,
    method: &'static str,
    head: response::Parts,
    length: Option<u64>,
    frames: Vec<Vec<u8>>,
    trailers: Option<HeaderMap>,
}

/// Encodes a response and reads it back three times.
pub fn response_encode(data: &[u8]) {
    let Ok(meant) = meant(&mut Unstructured::new(data)) else {
        return;
    };
    let (sent, said) = block_on(async { encode(&meant) });
    let Some((answer, len)) = Answer::read(&sent, meant.method) else {
        assert!(
            said == Said::Cut || meant.exchange.http10,
            "whole, and can't be read: {sent:?}"
        );
        return;
    };
    assert_ne!(said, Said::Cut, "cut, and looks whole");
    assert_eq!(len, sent.len(), "bytes behind the answer");
    assert_eq!(answer.status, meant.head.status.as_u16());
    let content = meant.frames.concat();
    match said {
        Said::Whole => assert_eq!(answer.body, content),
        Said::TooLong => assert!(content.starts_with(&answer.body)),
        Said::Unasked | Said::Cut => assert!(answer.body.is_empty()),
    }
    assert_eq!(custom(&answer), wanted(&meant.head.headers));
    by_httparse(&sent, &answer);
    if meant.method != "CONNECT" && answer.status >= 200 {
        block_on(by_hyper(&sent, meant.method, &answer));
    }
}

fn meant(u: &mut Unstructured<'_>) -> Result<Meant> {
    let (kind, method) = *u.choose(&[
        (Kind::Other, "GET"),
        (Kind::Head, "HEAD"),
        (Kind::Connect, "CONNECT"),
    ])?;
    let exchange = Exchange {
        http10: u.arbitrary()?,
        close: None,
        upgrade: u.arbitrary()?,
        ..Exchange::last(kind)
    };
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::from_u16(u.int_in_range(100..=599)?).unwrap_or_default();
    head.headers = fields(u)?;
    let frames: Vec<Vec<u8>> = u.arbitrary()?;
    let declared = u.int_in_range(0..=3)?;
    let len = frames.iter().map(Vec::len).sum::<usize>() as u64;
    let length = match declared {
        0 | 1 => None,
        2 => Some(len),
        _ => Some(u.int_in_range(0..=64)?),
    };
    let trailers = if u.arbitrary()? {
        Some(fields(u)?)
    } else {
        None
    };
    Ok(Meant {
        exchange,
        method,
        head,
        length,
        frames,
        trailers,
    })
}

fn fields(u: &mut Unstructured<'_>) -> Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    for _ in 0..u.int_in_range(0..=4)? {
        let name = HeaderName::from_static(u.choose(&NAMES)?);
        let bytes: &[u8] = u.arbitrary()?;
        // The strict reader takes a head for text.
        match HeaderValue::from_bytes(bytes) {
            Ok(value) if value.to_str().is_ok() => drop(fields.append(name, value)),
            _ => {}
        }
    }
    Ok(fields)
}

/// What the encoder says of the response that it wrote.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Whole,
    /// The body isn't even asked: the response has none, or says that it is empty.
    Unasked,
    /// As much of it as was declared, and the connection ends.
    TooLong,
    /// Less than was declared, or nothing at all.
    Cut,
}

fn encode(meant: &Meant) -> (Vec<u8>, Said) {
    let mut output = Output::default();
    let mut exchange = meant.exchange.clone();
    let date = date::line(Instant::now());
    let reply = Reply {
        head: &meant.head,
        length: meant.length,
        date: &date,
    };
    let Ok(mut encoder) =
        Strict::new(&Limits::default()).encode_head(&mut exchange, reply, &mut output)
    else {
        assert!(output.is_empty(), "refused, and wrote something");
        return (Vec::new(), Said::Cut);
    };
    let said = if encoder.is_done() {
        Said::Unasked
    } else {
        write(meant, &mut encoder, &mut output)
    };
    let mut sent = Vec::new();
    while !output.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let count = output.slices(&mut slices);
        let before = sent.len();
        slices[..count]
            .iter()
            .for_each(|slice| sent.extend_from_slice(slice));
        let taken = sent.len() - before;
        output.advance(taken);
    }
    (sent, said)
}

fn write(meant: &Meant, encoder: &mut impl EncodeBody, output: &mut Output) -> Said {
    for frame in &meant.frames {
        if encoder.data(Bytes::from(frame.clone()), output).is_err() {
            return Said::TooLong;
        }
    }
    let ended = match &meant.trailers {
        Some(trailers) => encoder.trailers(trailers, output),
        None => encoder.end(output),
    };
    ended.map_or(Said::Cut, |()| Said::Whole)
}

/// The fields that are the handler's alone, with their values as they are on the wire.
fn custom(answer: &Answer) -> Vec<(String, String)> {
    let fields = answer.fields.iter().filter(|(name, _)| is_own(name));
    fields
        .map(|(name, value)| (name.clone(), value.trim_matches([' ', '\t']).to_owned()))
        .collect()
}

fn wanted(fields: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| {
        String::from_utf8_lossy(value.as_bytes())
            .trim_matches([' ', '\t'])
            .to_owned()
    };
    fields
        .iter()
        .filter(|(name, _)| is_own(name.as_str()))
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

fn is_own(name: &str) -> bool {
    matches!(
        name,
        "server" | "etag" | "x-frame-options" | "set-cookie" | "content-type"
    )
}

fn by_httparse(sent: &[u8], answer: &Answer) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(sent);
    assert!(
        parsed.is_ok_and(|status| status.is_complete()),
        "httparse: {parsed:?}"
    );
    assert_eq!(response.code, Some(answer.status));
    assert_eq!(response.headers.len(), answer.fields.len());
}

async fn by_hyper(sent: &[u8], method: &str, answer: &Answer) {
    let (client, mut server) = duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
        .await
        .expect("a handshake");
    let request = http::Request::builder()
        .method(method)
        .uri("/")
        .header("host", "a");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let serve = async {
        let mut head = [0; 256];
        let _ = server.read(&mut head).await;
        server.write_all(sent).await.expect("room for it");
        drop(server);
    };
    let ask = async {
        let response = sender.send_request(request).await.expect("hyper reads it");
        assert_eq!(response.status(), answer.status);
        let body = response
            .into_body()
            .collect()
            .await
            .expect("hyper reads its body")
            .to_bytes();
        assert_eq!(body, answer.body);
    };
    tokio::join!(serve, ask, async {
        let _ = connection.await;
    });
}
