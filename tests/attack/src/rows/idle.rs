//! A house full of connections that do nothing: T5, and what each costs (M1 to M3).

use std::io;
use std::time::{Duration, Instant};

use super::Found;
use crate::Failure;
use crate::child::{Child, Kind, SOON, Start, in_turn};
use crate::client::{Client, ask_once, crowd, get};
use crate::figures::{millis, quantile};
use crate::run::Plan;
use crate::verdict::Verdict;

struct House {
    silent: f64,
    partial: f64,
    kept: f64,
    newcomers: Vec<Duration>,
    refused: usize,
}

/// T5: so many idle connections are held, just below the number where wharf begins to make room, and others come.
pub(super) async fn house(plan: Plan) -> Found {
    let guests = plan.of(15_000, 2_000);
    let partial = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(1000));
    let partial = partial.as_bytes();
    let (mut wharf, mut axum) = in_turn(async |kind| {
        let (_, _, silent) = fill(kind, guests, b"", false).await?;
        let (_, _, held) = fill(kind, guests.min(5_000), partial, false).await?;
        let (child, kept_open, kept) = fill(kind, guests, &get("/"), true).await?;
        let mut newcomers = Vec::new();
        let mut refused = 0;
        for _ in 0..200 {
            let begun = Instant::now();
            match ask_once(child.address, &get("/")).await {
                Ok(answer) if answer.status == 200 => newcomers.push(begun.elapsed()),
                _ => refused += 1,
            }
        }
        drop(kept_open);
        Ok(House {
            silent,
            partial: held,
            kept,
            newcomers,
            refused,
        })
    })
    .await?;
    let slowest = |house: &mut House| millis(quantile(&mut house.newcomers, 1.0));
    let held = |verdict| plan.scaled(verdict, 15_000, guests);
    Ok(vec![
        held(
            plan.timed(
                Verdict::new(
                    "T5",
                    format!("{guests} idle: the slowest of 200 newcomers is served in"),
                    "ms",
                    slowest(&mut wharf),
                )
                .axum(slowest(&mut axum))
                .at_most(50.0),
            ),
        ),
        Verdict::new("T5", "full house: newcomers refused", "", wharf.refused)
            .axum(axum.refused)
            .at_most(0.0),
        held(
            Verdict::new(
                "M1",
                "memory for a silent new connection",
                "KiB",
                wharf.silent,
            )
            .axum(axum.silent)
            .at_most(4.0),
        ),
        held(
            Verdict::new(
                "M2",
                "memory for one idle after a request",
                "KiB",
                wharf.kept,
            )
            .axum(axum.kept)
            .at_most(6.0),
        ),
        Verdict::new(
            "M3",
            "memory for one with 1 KiB of a head",
            "KiB",
            wharf.partial,
        )
        .axum(axum.partial)
        .at_most(10.0),
    ])
}

/// A server with that many connections which have said `bytes`: it, they, and what each takes of its memory, in KiB.
async fn fill(
    kind: Kind,
    guests: usize,
    bytes: &[u8],
    answered: bool,
) -> Result<(Child, Vec<Client>, f64), Failure> {
    // Room is made above nine tenths of this.
    let most = guests * 10 / 9 + 40;
    let child = Start::of(kind).with("max-connections", most).start()?;
    let files = child.descriptors()?;
    crowd(50, async |_| ask_once(child.address, &get("/")).await).await?;
    child.descriptors_fall_to(files, SOON).await?;
    let memory = child.memory_kib()?;
    let clients = crowd(guests, async |number| {
        let mut client = Client::connect_from(number, child.address).await?;
        if answered {
            client.ask(bytes).await?;
        } else {
            client.send(bytes).await?;
            // A queue that overflows forgets whom its cookies let in, and who says nothing never learns of it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        io::Result::Ok(client)
    })
    .await?;
    // Until all of them have been accepted.
    let begun = Instant::now();
    let mut held = 0;
    while held < guests && begun.elapsed() < Duration::from_secs(6) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        held = child.descriptors()? - files;
    }
    // wharf has to hold them all. axum's shorter queue may have lost some; what each costs can be said all the same.
    let least = if kind == Kind::Wharf {
        guests
    } else {
        guests / 2
    };
    if held < least {
        return Err(format!("{} holds {held} of {guests} connections", kind.name()).into());
    }
    let memory = (child.memory_kib()? - memory) / held as f64;
    Ok((child, clients, memory))
}
