//! Stops under load: M13 requests lost, T34 how long they take, T37 what a second signal does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Found;
use crate::Failure;
use crate::child::{Child, SOON, Start, in_turn};
use crate::client::{Client, crowd, get};
use crate::figures::{median, seconds};
use crate::run::Plan;
use crate::verdict::{Seen, Verdict};

const BUSY: usize = 32;

/// M13: SIGTERM while 32 clients send request after request. Whoever is told `connection: close` connects again, until
/// nobody listens any more.
pub(super) async fn busy(plan: Plan) -> Found {
    let stops = plan.of(20, 5);
    let (mut wharf, mut axum) = in_turn(async |kind| {
        let (mut lost, mut times, mut asked) = (0, Vec::new(), 0);
        for _ in 0..stops {
            let mut child = Start::of(kind).start()?;
            let mut clients = JoinSet::new();
            (0..BUSY).for_each(|_| drop(clients.spawn(ask_on(child.address))));
            sleep(Duration::from_millis(200)).await;
            times.push(stopped(&mut child).await?);
            for client in timeout(SOON, clients.join_all()).await? {
                lost += client.lost;
                asked += client.answered;
            }
        }
        if asked < stops * BUSY {
            return Err("the clients weren't busy".into());
        }
        Ok((lost, times))
    })
    .await?;
    let (idle, unasked) = in_turn(async |kind| {
        let mut child = Start::of(kind).start()?;
        let address = child.address;
        let idle = crowd(BUSY, async |_| {
            let mut client = Client::connect(address).await?;
            client.ask(&get("/")).await.map(|_| client)
        })
        .await?;
        let time = stopped(&mut child).await?;
        drop(idle);
        Ok(time)
    })
    .await?;
    let (second, without) = in_turn(async |kind| {
        let mut child = Start::of(kind).start()?;
        let mut client = Client::connect(child.address).await?;
        client.send(&get("/sleep/60000")).await?;
        sleep(Duration::from_millis(100)).await;
        child.signal(Signal::TERM)?;
        sleep(Duration::from_millis(100)).await;
        child.signal(Signal::TERM)?;
        let begun = Instant::now();
        let ended = timeout(Duration::from_secs(3), child.end()).await;
        Ok(ended.map_or(Seen::Beyond(3.0), |_| seconds(begun.elapsed()).into()))
    })
    .await?;
    let scaled = |verdict| plan.scaled(verdict, 20, stops);
    Ok(vec![
        scaled(
            Verdict::new(
                "M13",
                format!("requests lost in {stops} stops under {BUSY} busy clients"),
                "",
                wharf.0,
            )
            .axum(axum.0)
            .at_most(0.0),
        ),
        scaled(
            Verdict::new(
                "T34",
                "a stop under busy clients takes",
                "s",
                median(&mut wharf.1),
            )
            .axum(median(&mut axum.1))
            .at_most(1.2),
        ),
        Verdict::new("T34", "a stop with idle clients only takes", "s", idle)
            .axum(unasked)
            .at_most(1.2),
        Verdict::new(
            "T37",
            "a second signal ends a running handler within",
            "s",
            second,
        )
        .axum(without)
        .at_most(0.5),
    ])
}

/// SIGTERM, and how many seconds until the process has ended, well.
async fn stopped(child: &mut Child) -> Result<f64, Failure> {
    child.signal(Signal::TERM)?;
    let begun = Instant::now();
    let status = child.end().await?;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    Ok(seconds(begun.elapsed()))
}

/// What a busy client has seen.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) answered: usize,
    /// Requests sent on a connection that was there, and not answered.
    pub(super) lost: usize,
}

/// One request after the other, on one connection for as long as it is kept, until no further one can be made.
async fn ask_on(address: SocketAddr) -> Asked {
    let mut asked = Asked::default();
    while let Ok(mut client) = Client::connect(address).await {
        loop {
            match client.ask(&get("/")).await {
                Ok(answer) => {
                    asked.answered += 1;
                    if answer.closes {
                        break;
                    }
                }
                Err(_) => {
                    asked.lost += 1;
                    break;
                }
            }
        }
    }
    asked
}
