//! Clients that take their time: T1 heads, T2 bodies, T3 readers, and T4, the honest ones who must not be taken for them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Interval, interval, interval_at, sleep, timeout};

use super::Found;
use crate::Failure;
use crate::child::{Kind, Start, in_turn, side_by_side};
use crate::client::{Client, ask_once, crowd, each, get, post};
use crate::figures::{quantile, seconds};
use crate::run::Plan;
use crate::verdict::{Seen, Verdict};

/// Sends `drip` again and again, once a second of the usual deadlines, until the server ends the connection: when that
/// was, and what it said.
pub(super) async fn until_closed(
    mut client: Client,
    drip: Option<u8>,
    plan: Plan,
    patience: Duration,
) -> (Option<Duration>, Vec<u8>) {
    let since = client.since;
    let mut beat = beat(since, plan.patience(1.0));
    let mut said = Vec::new();
    let closed = timeout(patience, async {
        loop {
            tokio::select! {
                read = client.stream.read_buf(&mut said) => {
                    if matches!(read, Ok(0) | Err(_)) {
                        return;
                    }
                }
                _ = beat.tick() => {
                    if let Some(drip) = drip && client.stream.write_all(&[drip]).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let is_closed = closed.await.is_ok();
    (is_closed.then(|| since.elapsed()), said)
}

/// Every `period` since then, from the next time on: thousands of clients that began one after the other don't send all at
/// once, which nobody but a test does.
fn beat(since: Instant, period: Duration) -> Interval {
    let beats = since.elapsed().div_duration_f64(period) as u32 + 1;
    interval_at((since + period * beats).into(), period)
}

/// The connection whose end was farthest from `target`; none may stay open.
pub(super) fn farthest(
    ends: &[(Option<Duration>, Vec<u8>)],
    target: f64,
    patience: Duration,
) -> Seen {
    let mut farthest = target;
    for (end, _) in ends {
        let Some(end) = end.map(seconds) else {
            return Seen::Beyond(seconds(patience));
        };
        if (end - target).abs() > (farthest - target).abs() {
            farthest = end;
        }
    }
    farthest.into()
}

fn answered(ends: &[(Option<Duration>, Vec<u8>)], status: &str) -> usize {
    let line = format!("HTTP/1.1 {status}");
    ends.iter()
        .filter(|(_, said)| said.starts_with(line.as_bytes()))
        .count()
}

/// Requests of somebody who means well, each on a connection of its own: how long they took, and how many failed.
async fn polite(address: SocketAddr, count: usize, pause: Duration) -> (Vec<Duration>, usize) {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        if ask_once(address, &get("/"))
            .await
            .is_ok_and(|answer| answer.status == 200)
        {
            times.push(begun.elapsed());
        }
        sleep(pause).await;
    }
    let failed = count - times.len();
    (times, failed)
}

/// What became of attackers, and of the others: how much longer they took, and how many failed.
struct Siege {
    ends: Vec<(Option<Duration>, Vec<u8>)>,
    ratio: f64,
    refused: usize,
}

/// So many clients send a byte a second of a head that never ends, while others want to be served.
async fn siege(
    kind: Kind,
    attackers: usize,
    plan: Plan,
    patience: Duration,
) -> Result<Siege, Failure> {
    let pause = Duration::from_millis(2);
    let asked = plan.of(1_500, 300);
    let start = Start::of(kind);
    let child = match kind {
        Kind::Bare => start.start()?,
        _ => start.with("hurry", plan.hurry()).start()?,
    };
    let address = child.address;
    let (mut before, _) = polite(address, asked, pause).await;
    let clients = crowd(attackers, async |number| {
        let mut client = Client::connect_from(number, address).await?;
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx: ").await?;
        io::Result::Ok(client)
    })
    .await?;
    // On a thread of its own: what the attackers cost this process must not count.
    let during = tokio::spawn(polite(address, asked, pause));
    let ends = each(clients, async |client| {
        until_closed(client, Some(b'x'), plan, patience).await
    })
    .await;
    let (mut during, refused) = during.await?;
    let ratio = seconds(quantile(&mut during, 0.99)) / seconds(quantile(&mut before, 0.99));
    Ok(Siege {
        ends,
        ratio,
        refused,
    })
}

/// T1.
pub(super) async fn heads(plan: Plan) -> Found {
    let attackers = plan.of(5_000, 500);
    let (target, patience) = (plan.deadline(10.0), plan.patience(15.0));
    let (wharf, axum) = in_turn(async |kind| siege(kind, attackers, plan, patience).await).await?;
    // What the same clients do to a server that is next to nothing.
    let machine = siege(Kind::Bare, attackers, plan, plan.patience(6.0)).await?;
    let closed = |ends: &[_]| farthest(ends, target, patience);
    Ok(vec![
        plan.hurried(
            Verdict::new(
                "T1",
                format!("slow head: {attackers} at 1 B/s are closed after"),
                "s",
                closed(&wharf.ends),
            )
            .axum(closed(&axum.ends))
            .between(target - 0.5, target + 0.5),
        ),
        Verdict::new(
            "T1",
            "slow head: answered 408",
            "",
            answered(&wharf.ends, "408"),
        )
        .axum(answered(&axum.ends, "408"))
        .at_least(attackers as f64),
        plan.timed(
            Verdict::new(
                "T1",
                "slow head: p99 of others beside them, times that without",
                "",
                wharf.ratio,
            )
            .axum(axum.ratio)
            .at_most_or_as_axum(2.0),
        ),
        Verdict::new(
            "T1",
            "slow head: the same where a bare accept loop of tokio stands for wharf",
            "",
            machine.ratio,
        ),
        Verdict::new("T1", "slow head: others refused", "", wharf.refused)
            .axum(axum.refused)
            .at_most(0.0),
    ])
}

/// T2: bodies that come at a byte a second, or stop coming.
pub(super) async fn bodies(plan: Plan) -> Found {
    let clients = 20;
    let sent = vec![b'x'; 64 * 1024];
    let (trickle, stall) = (plan.patience(15.0), plan.patience(40.0));
    let (wharf, axum) = side_by_side(async |kind| {
        let child = Start::of(kind).with("hurry", plan.hurry()).start()?;
        let begin = async |bytes: &[u8]| {
            let mut client = Client::connect(child.address).await?;
            client.send(&post("/swallow", 1 << 20)).await?;
            client.send(bytes).await?;
            io::Result::Ok(client)
        };
        let slow = crowd(clients, async |_| begin(b"").await).await?;
        let stalled = crowd(clients, async |_| begin(&sent).await).await?;
        Ok(tokio::join!(
            each(slow, async |client| until_closed(
                client,
                Some(b'x'),
                plan,
                trickle
            )
            .await),
            each(stalled, async |client| until_closed(
                client, None, plan, stall
            )
            .await),
        ))
    })
    .await?;
    let latest = |ends: &[_], patience| farthest(ends, 0.0, patience);
    Ok(vec![
        plan.hurried(
            Verdict::new(
                "T2",
                "slow body: 1 B/s is closed after",
                "s",
                latest(&wharf.0, trickle),
            )
            .axum(latest(&axum.0, trickle))
            .at_most(plan.deadline(11.0)),
        ),
        plan.hurried(
            Verdict::new(
                "T2",
                "slow body: a stall after 64 KiB is closed after",
                "s",
                latest(&wharf.1, stall),
            )
            .axum(latest(&axum.1, stall))
            .at_most(plan.deadline(30.5)),
        ),
        Verdict::new(
            "T2",
            "slow body: answered 408",
            "",
            answered(&wharf.0, "408"),
        )
        .axum(answered(&axum.0, "408"))
        .at_least(clients as f64),
    ])
}

/// T3: readers of a large answer who don't read, or a byte ten times a second.
pub(super) async fn readers(plan: Plan) -> Found {
    const CLIENTS: usize = 20;
    let patience = plan.patience(45.0);
    let (wharf, axum) = side_by_side(async |kind| {
        let child = Start::of(kind).with("hurry", plan.hurry()).start()?;
        ask_once(child.address, &get("/")).await?;
        sleep(plan.patience(1.0)).await;
        let (files, memory) = (child.descriptors()?, child.memory_kib()?);
        let begin = async |_| {
            let mut client = Client::connect_narrow(child.address, 2048).await?;
            client.send(&get("/big/1073741824")).await?;
            io::Result::Ok(client)
        };
        let begun = Instant::now();
        let silent = crowd(CLIENTS, begin).await?;
        let slow = crowd(CLIENTS, begin).await?;
        let released = async {
            sleep(plan.patience(3.0)).await;
            let held = (child.memory_kib()? - memory) / (2 * CLIENTS) as f64;
            let fell = child.descriptors_fall_to(files, patience).await?;
            Ok::<_, crate::Failure>((held, fell.map(|_| begun.elapsed())))
        };
        let drip = each(slow, async |mut client: Client| {
            let mut byte = [0];
            while client.stream.read_exact(&mut byte).await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
        });
        let outcome = tokio::select! {
            outcome = released => outcome,
            _ = async { drip.await; std::future::pending().await } => unreachable!("it never ends"),
        };
        drop(silent);
        outcome
    })
    .await?;
    let released = |time: Option<Duration>| {
        time.map_or(Seen::Beyond(seconds(patience)), |time| seconds(time).into())
    };
    Ok(vec![
        plan.hurried(
            Verdict::new(
                "T3",
                "slow readers (none, 10 B/s): all let go after",
                "s",
                released(wharf.1),
            )
            .axum(released(axum.1))
            .at_most(plan.deadline(35.0)),
        ),
        Verdict::new("T3", "slow readers: memory held for each", "KiB", wharf.0)
            .axum(axum.0)
            .at_most(128.0),
    ])
}

/// T4: honest clients at 2 kB/s, up and down, for a minute.
pub(super) async fn honest(plan: Plan) -> Found {
    const CLIENTS: usize = 100;
    const BYTES: usize = 200;
    let beat = plan.patience(0.1);
    // In any case for longer than a stall may last.
    let beats = plan.of(600, 400);
    let (wharf, axum) = side_by_side(async |kind| {
        let child = Start::of(kind).with("hurry", plan.hurry()).start()?;
        let address = child.address;
        let up = crowd(CLIENTS, async |_| Client::connect(address).await).await?;
        let down = crowd(CLIENTS, async |_| {
            Client::connect_narrow(address, 4096).await
        })
        .await?;
        let uploads = each(up, async |mut client: Client| {
            let mut beat = interval(beat);
            client.send(&post("/swallow", beats * BYTES)).await?;
            for _ in 0..beats {
                beat.tick().await;
                client.send(&[b'x'; BYTES]).await?;
            }
            let answer = client.answer().await?;
            let bytes = (beats * BYTES).to_string();
            io::Result::Ok(answer.status == 200 && answer.body == bytes.as_bytes())
        });
        let downloads = each(down, async |mut client: Client| {
            let mut beat = interval(beat);
            client.send(&get("/big/1073741824")).await?;
            let mut bytes = [0; BYTES];
            for _ in 0..beats {
                beat.tick().await;
                client.stream.read_exact(&mut bytes).await?;
            }
            // What has come so far may be in the kernel's buffers only; more than they hold comes from a server.
            let mut more = vec![0; 1 << 20];
            client.stream.read_exact(&mut more).await?;
            io::Result::Ok(true)
        });
        let (uploads, downloads) = tokio::join!(uploads, downloads);
        let cut = |all: Vec<io::Result<bool>>| {
            all.into_iter()
                .filter(|one| !matches!(one, Ok(true)))
                .count()
        };
        Ok((cut(uploads), cut(downloads)))
    })
    .await?;
    let rate = 2 * plan.hurry();
    let verdict = |what: &str, wharf: usize, axum: usize| {
        let what = format!(
            "honest at {rate} kB/s for {:.0?}: {CLIENTS} {what}, cut",
            beat * beats as u32
        );
        plan.hurried(Verdict::new("T4", what, "", wharf).axum(axum).at_most(0.0))
    };
    Ok(vec![
        verdict("uploads", wharf.0, axum.0),
        verdict("downloads", wharf.1, axum.1),
    ])
}
