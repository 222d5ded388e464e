//! Handlers that misbehave, and requests that mean two things: M15 panics, M16 lengths that lie, M17 ambiguity, T20 bodies
//! that break.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Found;
use crate::Failure;
use crate::child::{Kind, SOON, Start, in_turn};
use crate::client::{Client, crowd, get};
use crate::run::Plan;
use crate::verdict::Verdict;

/// M15, T18: panics, alone and among requests of others.
pub(super) async fn panics(plan: Plan) -> Found {
    let (panics, others) = (plan.of(1_000, 200), plan.of(10_000, 2_000));
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        let address = child.address;
        let mut good = JoinSet::new();
        for _ in 0..8 {
            good.spawn(async move {
                let mut client = Client::connect(address).await?;
                for _ in 0..others / 8 {
                    client.ask(&get("/")).await?;
                }
                io::Result::Ok(())
            });
        }
        let told = crowd(panics, async |_| {
            let mut client = Client::connect(address).await?;
            let answer = client.ask(&get("/panic")).await;
            io::Result::Ok(answer.is_ok_and(|answer| answer.status == 500 && answer.closes))
        })
        .await?;
        let lost = good
            .join_all()
            .await
            .into_iter()
            .filter(Result::is_err)
            .count();
        Ok((told.into_iter().filter(|told| *told).count(), lost))
    })
    .await?;
    Ok(vec![
        Verdict::new(
            "M15",
            format!("of {panics} panics, answered 500 and close"),
            "",
            wharf.0,
        )
        .axum(axum.0)
        .at_least(panics as f64),
        Verdict::new(
            "T18",
            format!("connections of others broken by {panics} panics"),
            "",
            wharf.1,
        )
        .axum(axum.1)
        .at_most(0.0),
    ])
}

/// M16, T21: what a client makes of a response whose handler declared another length than it wrote.
#[derive(Debug, Default)]
struct Read {
    /// Bytes of one response were taken for another, or the end of one was waited for in vain.
    desynchronized: usize,
    /// A response that was broken looked whole.
    passed_off: usize,
}

pub(super) async fn lies(_: Plan) -> Found {
    let paths = [
        "/lie/2/known",
        "/lie/20/known",
        "/lie/2/streamed",
        "/lie/20/streamed",
    ];
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        let mut read = Read::default();
        for path in paths {
            let mut client = Client::connect(child.address).await?;
            // The second request is on its way before the first is answered.
            client.send(&[get(path), get("/")].concat()).await?;
            let answers = timeout(Duration::from_secs(1), async {
                let first = client.answer().await?;
                // 500 is the container's own; else it has to be the connection that ends.
                let second = client.answer().await?;
                io::Result::Ok((first, second))
            });
            read.desynchronized += usize::from(match answers.await {
                Err(_) => true,
                Ok(Err(error)) => error.kind() == io::ErrorKind::InvalidData,
                Ok(Ok((_, second))) => second.status != 200 || second.body != b"hello",
            });
        }
        for version in ["1.1", "1.0"] {
            let mut client = Client::connect(child.address).await?;
            client
                .send(format!("GET /broken HTTP/{version}\r\nhost: a\r\n\r\n").as_bytes())
                .await?;
            let mut got = Vec::new();
            let end = timeout(SOON, client.stream.read_to_end(&mut got)).await?;
            let is_chunked = got
                .windows(7)
                .any(|bytes| bytes.eq_ignore_ascii_case(b"chunked"));
            let looks_whole = end.is_ok() && (!is_chunked || got.ends_with(b"\r\n0\r\n\r\n"));
            read.passed_off += usize::from(looks_whole && got.starts_with(b"HTTP/1.1 200"));
        }
        Ok::<_, Failure>(read)
    })
    .await?;
    Ok(vec![
        Verdict::new(
            "M16",
            "of 4 handlers that lie about their length, clients out of step",
            "",
            wharf.desynchronized,
        )
        .axum(axum.desynchronized)
        .at_most(0.0),
        Verdict::new(
            "T20",
            "of 2 bodies that break midway, taken for whole",
            "",
            wharf.passed_off,
        )
        .axum(axum.passed_off)
        .at_most(0.0),
    ])
}

/// M17, T25, T26: requests that two readers could read differently, or that aren't HTTP/1.1.
pub(super) async fn ambiguous(_: Plan) -> Found {
    let requests = ambiguous_requests();
    let (wharf, axum) = in_turn(async |kind| accepted(kind, &requests).await).await?;
    if !axum.is_empty() {
        eprintln!("ambiguous: axum accepts {}", axum.join(", "));
    }
    if !wharf.is_empty() {
        eprintln!("ambiguous: wharf accepts {}", wharf.join(", "));
    }
    Ok(vec![
        Verdict::new(
            "M17",
            format!(
                "of {} ambiguous or invalid requests, accepted",
                requests.len()
            ),
            "",
            wharf.len(),
        )
        .axum(axum.len())
        .at_most(0.0),
    ])
}

async fn accepted(
    kind: Kind,
    requests: &[(&'static str, Vec<u8>)],
) -> Result<Vec<&'static str>, Failure> {
    let child = Start::of(kind).start()?;
    let mut accepted = Vec::new();
    for (name, request) in requests {
        let mut client = Client::connect(child.address).await?;
        client.send(request).await?;
        let mut said = Vec::new();
        // Whoever waits for more of it hasn't accepted it.
        let _ = timeout(
            Duration::from_millis(300),
            client.stream.read_buf(&mut said),
        )
        .await;
        if said.starts_with(b"HTTP/1.1 2") || said.starts_with(b"HTTP/1.0 2") {
            accepted.push(*name);
        }
    }
    Ok(accepted)
}

fn ambiguous_requests() -> Vec<(&'static str, Vec<u8>)> {
    let post = |fields: &str, body: &str| {
        format!("POST /swallow HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}").into_bytes()
    };
    let chunked = |body: &str| post("transfer-encoding: chunked", body);
    let with = |field: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n").into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    vec![
        (
            "length and coding",
            post(
                "content-length: 5\r\ntransfer-encoding: chunked",
                "0\r\n\r\n",
            ),
        ),
        (
            "coding and length",
            post(
                "transfer-encoding: chunked\r\ncontent-length: 5",
                "0\r\n\r\n",
            ),
        ),
        (
            "two equal lengths",
            post("content-length: 5\r\ncontent-length: 5", "hello"),
        ),
        (
            "two lengths",
            post("content-length: 5\r\ncontent-length: 6", "hello!"),
        ),
        ("a list of lengths", post("content-length: 5, 5", "hello")),
        ("length +5", post("content-length: +5", "hello")),
        ("length -0", post("content-length: -0", "")),
        ("length 0x5", post("content-length: 0x5", "hello")),
        ("length 5a", post("content-length: 5a", "hello")),
        ("no length", post("content-length:", "")),
        ("length behind VT", post("content-length: \u{b}5", "hello")),
        (
            "length of 25 digits",
            post("content-length: 1000000000000000000000005", "hello"),
        ),
        (
            "coding xchunked",
            post("transfer-encoding: xchunked", "0\r\n\r\n"),
        ),
        (
            "chunked twice",
            post("transfer-encoding: chunked, chunked", "0\r\n\r\n"),
        ),
        (
            "chunked in two fields",
            post(
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
                "0\r\n\r\n",
            ),
        ),
        ("coding identity", post("transfer-encoding: identity", "")),
        ("coding gzip", post("transfer-encoding: gzip", "")),
        (
            "chunked isn't last",
            post("transfer-encoding: chunked, gzip", "0\r\n\r\n"),
        ),
        ("empty coding", post("transfer-encoding:", "")),
        (
            "chunked with VT",
            post("transfer-encoding: \u{b}chunked", "0\r\n\r\n"),
        ),
        (
            "coding in 1.0",
            raw("POST /swallow HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("folded line", with("x: y\r\n z")),
        ("bare LF", raw("GET / HTTP/1.1\nhost: a\n\n")),
        ("bare CR", with("x: y\rz: a")),
        ("NUL", with("x: y\0z")),
        ("no colon", with("x")),
        ("empty name", with(": y")),
        ("space before colon", with("x : y")),
        ("name with @", with("x@: y")),
        (
            "space before first field",
            raw("GET / HTTP/1.1\r\n x: y\r\nhost: a\r\n\r\n"),
        ),
        ("chunk size and space", chunked("5 \r\nhello\r\n0\r\n\r\n")),
        ("chunk size +5", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("chunk size 0x5", chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        (
            "chunk size of 17 digits",
            chunked("00000000000000005\r\nhello\r\n0\r\n\r\n"),
        ),
        ("chunk without CRLF", chunked("5\r\nhello0\r\n\r\n")),
        ("chunk lines end with LF", chunked("5\nhello\n0\n\n")),
        ("no Host", raw("GET / HTTP/1.1\r\n\r\n")),
        ("two Hosts", with("host: a")),
        (
            "Host with space",
            raw("GET / HTTP/1.1\r\nhost: a b\r\n\r\n"),
        ),
        ("Host with user", raw("GET / HTTP/1.1\r\nhost: u@a\r\n\r\n")),
        ("version 1.10", raw("GET / HTTP/1.10\r\nhost: a\r\n\r\n")),
        ("version 2.0", raw("GET / HTTP/2.0\r\nhost: a\r\n\r\n")),
        (
            "version in small letters",
            raw("GET / http/1.1\r\nhost: a\r\n\r\n"),
        ),
        ("two spaces", raw("GET  / HTTP/1.1\r\nhost: a\r\n\r\n")),
        ("tab for a space", raw("GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n")),
        ("no version", raw("GET /\r\nhost: a\r\n\r\n")),
        (
            "target without a slash",
            raw("GET a HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
    ]
}
