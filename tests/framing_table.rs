//! Every pair of `Transfer-Encoding` and `Content-Length`, in both versions and under both codecs, through a whole
//! connection. What must come of each pair is computed here anew, from RFC 9112 section 6.3 and the strict choices;
//! nothing of the container's own framing is used for it.

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tower::service_fn;
use wharf::codec::{Codec, Httparse, Strict};
use wharf::{Body, BoxError, Conn, Http, Limits};

/// Field lines, each `|` a line of its own; empty: no such field.
const CODINGS: [&str; 20] = [
    "",
    "chunked",
    "Chunked",
    "CHUNKED",
    "chunked ",
    "gzip, chunked",
    "gzip",
    "identity",
    "chunked, chunked",
    "chunked|chunked",
    "chunked, gzip",
    "xchunked",
    "chunkedx",
    "chunked;a=b",
    ",chunked",
    "chunked,",
    "|chunked",
    "gzip|chunked",
    "\"chunked\"",
    "chunked, identity",
];
const LENGTHS: [&str; 20] = [
    "",
    "5",
    "05",
    "0",
    "+5",
    "-5",
    "5 ",
    "0x5",
    "5,5",
    "5, 5",
    "5|5",
    "5|6",
    "5;",
    "5.0",
    "five",
    "18446744073709551616",
    "99999999999999999999999",
    "5 5",
    "|5",
    "\t5",
];

/// What must come of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is answered with the content that the handler saw.
    Content(&'static str),
    /// It is refused, and the connection closed.
    Status(u16),
}

fn expected(coding: &str, length: &str, is_1_0: bool) -> Outcome {
    let coding: Option<Vec<&str>> =
        (!coding.is_empty()).then(|| coding.split('|').map(str::trim).collect());
    let length: Option<Vec<&str>> =
        (!length.is_empty()).then(|| length.split('|').map(str::trim).collect());
    // A length that isn't one number is wrong on its own account (rule 5), whatever else is there.
    let number = match &length {
        None => None,
        Some(lines) => match lines[..] {
            [line] if !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()) => {
                match line.parse::<u64>() {
                    Ok(number) => Some(number),
                    Err(_) => return Outcome::Status(400),
                }
            }
            _ => return Outcome::Status(400),
        },
    };
    if let Some(lines) = coding {
        // Rule 3: both together are an attack or an error, and 1.0 knows no codings.
        if is_1_0 || number.is_some() {
            return Outcome::Status(400);
        }
        let names: Vec<_> = lines
            .iter()
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .collect();
        let is_token =
            |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !names.iter().all(is_token) {
            return Outcome::Status(400);
        }
        let is_chunked: Vec<_> = names
            .iter()
            .map(|name| name.eq_ignore_ascii_case("chunked"))
            .collect();
        // Rule 4, and section 6.1: chunked is last and there once; other codings are known to exist, but not here.
        return match is_chunked[..] {
            [true] => Outcome::Content("hello"),
            [.., true] if is_chunked.iter().filter(|is| **is).count() == 1 => Outcome::Status(501),
            _ if !is_chunked.contains(&true) => Outcome::Status(501),
            _ => Outcome::Status(400),
        };
    }
    match number {
        Some(5) => Outcome::Content("hello"),
        _ => Outcome::Content(""),
    }
}

async fn outcome<C: Codec + 'static>(
    codec: fn(&Limits) -> C,
    coding: &str,
    length: &str,
    is_1_0: bool,
) -> (u16, String, bool) {
    let lines = |name: &str, values: &str| -> String {
        let values = values.split('|').filter(|_| !values.is_empty());
        values.map(|value| format!("{name}: {value}\r\n")).collect()
    };
    let version = if is_1_0 { "1.0" } else { "1.1" };
    let body = match (coding.is_empty(), length.trim()) {
        (false, _) => "5\r\nhello\r\n0\r\n\r\n",
        (true, "5" | "05") => "hello",
        _ => "",
    };
    let request = format!(
        "POST / HTTP/{version}\r\nhost: a\r\nconnection: keep-alive\r\n{}{}\r\n{body}",
        lines("transfer-encoding", coding),
        lines("content-length", length)
    );
    let (mut client, server) = duplex(4096);
    let echo = service_fn(|request: Request<Body>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, BoxError>(Response::new(Body::from(body)))
    });
    let http = Http::new().codec(codec);
    let connection = http.connection(Conn::from(server), echo).unwrap();
    let talk = async move {
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (answer, _) = tokio::join!(talk, connection);
    let (head, content) = answer.split_once("\r\n\r\n").expect("one whole answer");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    (
        status,
        content.to_owned(),
        head.contains("\r\nconnection: close"),
    )
}

async fn every_pair<C: Codec + 'static>(codec: fn(&Limits) -> C) {
    for coding in CODINGS {
        for length in LENGTHS {
            for is_1_0 in [false, true] {
                let (status, content, closes) = outcome(codec, coding, length, is_1_0).await;
                let got = match status {
                    200 if content == "hello" => Outcome::Content("hello"),
                    200 if content.is_empty() => Outcome::Content(""),
                    status => Outcome::Status(status),
                };
                let what = format!(
                    "transfer-encoding {coding:?}, content-length {length:?}, 1.0: {is_1_0}"
                );
                assert_eq!(got, expected(coding, length, is_1_0), "{what}: {content}");
                assert_eq!(closes, status != 200, "{what}: only a refusal closes");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_pair_of_coding_and_length_is_judged_by_the_rfc_with_httparse() {
    every_pair(Httparse::new).await;
}

#[tokio::test(start_paused = true)]
async fn every_pair_of_coding_and_length_is_judged_by_the_rfc_with_strict() {
    every_pair(Strict::new).await;
}
