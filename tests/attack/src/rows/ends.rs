//! How connections end: M9 an answer to somebody who is still sending, M18 half-closed clients, M19 aborts.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::Found;
use crate::Failure;
use crate::child::{SOON, Start, in_turn};
use crate::client::{Client, ask_once, crowd, get, post};
use crate::run::Plan;
use crate::verdict::Verdict;

/// M9: 413 to a body that nobody reads, whose client sends all of it before it looks for an answer.
pub(super) async fn unread_body(plan: Plan) -> Found {
    let tries = plan.of(60, 20);
    let mut verdicts = Vec::new();
    for mebibytes in [1, 8] {
        let (wharf, axum) = in_turn(async |kind| {
            let child = Start::of(kind).start()?;
            let address = child.address;
            let send = move || {
                (0..tries)
                    .map(|_| send_then_read(address, mebibytes << 20))
                    .collect::<Vec<_>>()
            };
            let seen = tokio::task::spawn_blocking(send).await?;
            let broken = seen.iter().filter(|(sent, _)| sent.is_err()).count();
            let read = seen
                .iter()
                .filter(|(_, answer)| answer.starts_with(b"HTTP/1.1 413 "))
                .count();
            Ok((broken, read))
        })
        .await?;
        let scaled = |verdict| plan.scaled(verdict, 60, tries);
        verdicts.push(scaled(
            Verdict::new(
                "M9",
                format!("{mebibytes} MiB refused unread: senders broken off"),
                "",
                wharf.0,
            )
            .axum(axum.0)
            .at_most(0.0),
        ));
        verdicts.push(scaled(
            Verdict::new(
                "M9",
                format!("{mebibytes} MiB refused unread: 413 read"),
                "",
                wharf.1,
            )
            .axum(axum.1)
            .at_least(tries as f64),
        ));
    }
    Ok(verdicts)
}

/// Whether all could be sent, and what was answered.
fn send_then_read(address: SocketAddr, bytes: usize) -> (io::Result<()>, Vec<u8>) {
    let mut answer = Vec::new();
    let sent = TcpStream::connect(address).and_then(|mut client| {
        client.set_read_timeout(Some(SOON))?;
        client.set_write_timeout(Some(SOON))?;
        client.write_all(&post("/refuse", bytes))?;
        let sent = client.write_all(&vec![b'x'; bytes]);
        let mut piece = [0; 4096];
        while !answer.ends_with(b"\r\n\r\n") {
            match client.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
            }
        }
        sent
    });
    (sent, answer)
}

/// M18: a whole request, and then the end of the client's sending.
pub(super) async fn half_close(plan: Plan) -> Found {
    let (fast, slow) = (plan.of(200, 100), 10);
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        let answered = async |path: &str, count| {
            let one = async |_| {
                let mut client = Client::connect(child.address).await?;
                client.send(&get(path)).await?;
                client.stream.shutdown().await?;
                let answer = timeout(SOON, client.closed()).await?;
                io::Result::Ok(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"hello"))
            };
            let answers = crowd(count, one).await?;
            Ok::<_, Failure>(answers.into_iter().filter(|answered| *answered).count())
        };
        Ok((
            answered("/", fast).await?,
            answered("/sleep/300", slow).await?,
        ))
    })
    .await?;
    Ok(vec![
        Verdict::new(
            "M18",
            format!("of {fast} half-closed clients of a fast handler, answered"),
            "",
            wharf.0,
        )
        .axum(axum.0)
        .at_least(fast as f64),
        Verdict::new(
            "M18",
            format!("of {slow} half-closed clients of a handler of 300 ms, answered"),
            "",
            wharf.1,
        )
        .axum(axum.1)
        .at_least(slow as f64),
    ])
}

/// M19: clients that reset the connection while their handler works.
pub(super) async fn aborts(plan: Plan) -> Found {
    let count = plan.of(3_000, 1_000);
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        ask_once(child.address, &get("/")).await?;
        let base = child.descriptors()?;
        let clients = crowd(count, async |number| {
            let mut client = Client::connect_from(number, child.address).await?;
            client.send(&get("/sleep/20000")).await?;
            io::Result::Ok(client)
        })
        .await?;
        // One more request is needed to look: it asks on a connection that counts.
        let mut observer = Client::connect(child.address).await?;
        let mut live = async || {
            let answer = observer.ask(&get("/live")).await?;
            String::from_utf8_lossy(&answer.body)
                .parse::<usize>()
                .map_err(|_| io::Error::from(ErrorKind::InvalidData))
        };
        let begun = Instant::now();
        while live().await? < count {
            // Handlers that end by themselves are never all there.
            if begun.elapsed() > SOON / 2 {
                let begun = live().await?;
                return Err(format!("only {begun} of {count} handlers began").into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        clients.into_iter().try_for_each(Client::reset)?;
        sleep(Duration::from_millis(50)).await;
        let soon = (child.descriptors()?.saturating_sub(base + 1), live().await?);
        sleep(Duration::from_millis(950)).await;
        let later = (child.descriptors()?.saturating_sub(base + 1), live().await?);
        Ok((soon, later))
    })
    .await?;
    let what = |text: &str| format!("{count} resets during a handler: {text}");
    Ok(vec![
        Verdict::new("M19", what("descriptors left after 50 ms"), "", wharf.0.0)
            .axum(axum.0.0)
            .at_most(0.0),
        Verdict::new("M19", what("descriptors left after 1 s"), "", wharf.1.0)
            .axum(axum.1.0)
            .at_most(0.0),
        Verdict::new("T17", what("handlers left after 50 ms"), "", wharf.0.1)
            .axum(axum.0.1)
            .at_most(0.0),
        Verdict::new("T17", what("handlers left after 1 s"), "", wharf.1.1)
            .axum(axum.1.1)
            .at_most(0.0),
    ])
}
