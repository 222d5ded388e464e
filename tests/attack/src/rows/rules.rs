//! What must not depend on chance or on the handler: T14 bodies that nobody reads, T19 a service that is never ready, T23
//! interim responses, T30 lines of a log.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};

use super::Found;
use super::slow::until_closed;
use crate::child::{SOON, Start, side_by_side};
use crate::client::{Client, get, post};
use crate::figures::seconds;
use crate::run::Plan;
use crate::verdict::{Seen, Verdict};

/// What came, once nothing has for a while or the connection has ended.
async fn heard(client: &mut Client) -> String {
    let mut said = Vec::new();
    let quiet = Duration::from_millis(500);
    while let Ok(Ok(1..)) = timeout(quiet, client.stream.read_buf(&mut said)).await {}
    String::from_utf8_lossy(&said).into_owned()
}

/// The status lines of some responses.
fn statuses(said: &str) -> Vec<&str> {
    let lines = said.split("HTTP/1.").skip(1);
    lines.filter_map(|line| line.get(2..5)).collect()
}

/// T14: the same bytes in one piece, with a pause before the body, and in many pieces.
pub(super) async fn unread(_: Plan) -> Found {
    const LENGTHS: [usize; 2] = [100_000, 300_000];
    let (wharf, axum) = side_by_side(async |kind| {
        let child = Start::of(kind).start()?;
        let mut different = [0; 2];
        for (count, length) in different.iter_mut().zip(LENGTHS) {
            let head = post("/refuse", length);
            // The last request ends the connection, so that nobody has to guess whether more comes.
            let last = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let bytes = [&head[..], &vec![b'x'; length], last].concat();
            let mut seen = Vec::new();
            for pieces in [bytes.len(), head.len(), 997, 20_011] {
                let mut client = Client::connect(child.address).await?;
                for piece in bytes.chunks(pieces.max(bytes.len() / 100)) {
                    // Whoever is not listened to any more can't send the rest.
                    let _ = client.send(piece).await;
                    if pieces != bytes.len() {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
                let said = timeout(SOON, client.closed()).await?;
                let said = String::from_utf8_lossy(&said);
                let answers = statuses(&said).join(" ");
                seen.push((answers, said.matches("connection: close").count()));
            }
            seen.sort();
            seen.dedup();
            *count = seen.len();
        }
        Ok(different)
    })
    .await?;
    let verdicts = LENGTHS.iter().zip(wharf).zip(axum);
    Ok(verdicts
        .map(|((length, wharf), axum)| {
            let what = format!("an unread body of {length} bytes, sliced in 4 ways: answers");
            Verdict::new("T14", what, "", wharf).axum(axum).at_most(1.0)
        })
        .collect())
}

/// T19: 503 at the end of the patience, with word of when to come again.
pub(super) async fn never_ready(plan: Plan) -> Found {
    let (target, patience) = (plan.deadline(30.0), plan.patience(40.0));
    let (wharf, axum) = side_by_side(async |kind| {
        let child = Start::of(kind)
            .with("hurry", plan.hurry())
            .with("never-ready", true)
            .start()?;
        let mut client = Client::connect(child.address).await?;
        client.send(&get("/")).await?;
        let (end, said) = until_closed(client, None, plan, patience).await;
        let said = String::from_utf8_lossy(&said);
        let is_right = said.starts_with("HTTP/1.1 503") && said.contains("retry-after: ");
        let end = end.map_or(Seen::Beyond(seconds(patience)), |end| seconds(end).into());
        Ok((end, usize::from(is_right)))
    })
    .await?;
    Ok(vec![
        plan.hurried(
            Verdict::new(
                "T19",
                "a service that is never ready: over after",
                "s",
                wharf.0,
            )
            .axum(axum.0)
            .between(target - 0.5, target + 2.5),
        ),
        Verdict::new(
            "T19",
            "a service that is never ready: answered 503 and Retry-After",
            "",
            wharf.1,
        )
        .axum(axum.1)
        .at_least(1.0),
    ])
}

/// A request without its body, then the body; what came before and after that.
async fn expecting(address: SocketAddr, path: &str, version: &str) -> io::Result<(String, String)> {
    let mut client = Client::connect(address).await?;
    let head = format!(
        "POST {path} {version}\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    );
    client.send(head.as_bytes()).await?;
    let before = heard(&mut client).await;
    let _ = client.send(b"hello").await;
    Ok((before, heard(&mut client).await))
}

/// T23: `100 Continue` exactly when the body is asked for, never to HTTP/1.0, and no 101 that nobody asked for.
pub(super) async fn interim(_: Plan) -> Found {
    let (wharf, axum) = side_by_side(async |kind| {
        let child = Start::of(kind).start()?;
        let read = expecting(child.address, "/swallow", "HTTP/1.1").await?;
        let unread = expecting(child.address, "/refuse", "HTTP/1.1").await?;
        let old = expecting(child.address, "/swallow", "HTTP/1.0").await?;
        let mut client = Client::connect(child.address).await?;
        client.send(&get("/switch")).await?;
        let switch = heard(&mut client).await;
        let right = [
            (statuses(&read.0), statuses(&read.1)) == (vec!["100"], vec!["200"]),
            statuses(&unread.0) == ["413"] && !unread.1.contains(" 100 "),
            (statuses(&old.0), statuses(&old.1)) == (vec![], vec!["200"]),
            statuses(&switch) == ["500"],
        ];
        Ok(right.iter().filter(|right| !**right).count())
    })
    .await?;
    let what = "100 Continue to who waits, to who needn't, to HTTP/1.0; 101 to nobody: wrong of 4";
    Ok(vec![
        Verdict::new("T23", what, "", wharf).axum(axum).at_most(0.0),
    ])
}

/// T30: requests with whatever bytes their targets and fields may have, and some that they may not.
pub(super) async fn log(_: Plan) -> Found {
    let (wharf, axum) = side_by_side(async |kind| {
        let child = Start::of(kind).with("log", true).start()?;
        let mut asked = 0;
        for byte in 0..=255_u8 {
            for (before, after) in [
                ("/", ""),
                ("/ HTTP/1.1\r\nhost: a\r\nuser-agent: ", "\r\n\r\n"),
            ] {
                let tail = match after {
                    "" => " HTTP/1.1\r\nhost: a\r\n\r\n",
                    tail => tail,
                };
                let request = [
                    b"GET ",
                    before.as_bytes(),
                    b"a",
                    &[byte],
                    b"b\xe2\x80\xa8",
                    tail.as_bytes(),
                ];
                let mut client = Client::connect(child.address).await?;
                client.send(&request.concat()).await?;
                // An answer of any kind, or the end of the connection.
                let mut said = [0; 64];
                let _ = timeout(SOON, client.stream.read(&mut said)).await?;
                asked += 1;
            }
        }
        let begun = Instant::now();
        while child.said().len() < asked && begun.elapsed() < Duration::from_secs(2) {
            sleep(Duration::from_millis(20)).await;
        }
        let said = child.said();
        let is_json = |line: &String| {
            serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object())
        };
        let broken = said.iter().filter(|line| !is_json(line)).count();
        Ok((broken, said.len().abs_diff(asked)))
    })
    .await?;
    let what = |text: &str| format!("512 requests with any byte in target and agent: {text}");
    Ok(vec![
        Verdict::new("T30", what("lines that aren't JSON"), "", wharf.0)
            .axum(axum.0)
            .at_most(0.0),
        Verdict::new("T30", what("lines too many or too few"), "", wharf.1)
            .axum(axum.1)
            .at_most(0.0),
    ])
}
