//! M20, T33: a service that does eight things at a time, and is asked for more. wharf with `OverloadLayer` beside axum with
//! tower's own layers, and beside axum without any.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Found;
use crate::Failure;
use crate::child::{Kind, Start};
use crate::client::{Client, get};
use crate::figures::{median, seconds};
use crate::poisson::{Load, offer};
use crate::run::Plan;
use crate::serve::WORKERS;
use crate::verdict::Verdict;

/// What tower's layers are given room for: as many as the service works on and as wharf's queue holds.
const ROOM: usize = 3 * WORKERS;
/// An answer that takes longer isn't back to normal.
const USUAL: Duration = Duration::from_millis(60);

/// How long a load is offered, in full and in the quick form.
const LONG: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_secs(1);
const BURST: Duration = Duration::from_secs(1);

/// One way of shedding.
struct Shed {
    kind: Kind,
    option: Option<String>,
}

impl Shed {
    /// It takes its time to find its limit, and several rounds to say how well: only in the full form.
    fn is_adaptive(&self) -> bool {
        self.option.as_deref() == Some("adaptive")
    }
}

/// One round of it: at each multiple of the capacity.
struct Round {
    capacity: f64,
    loads: Vec<Load>,
    recovered: f64,
}

pub(super) async fn open_loop(plan: Plan) -> Found {
    let times: &[f64] = plan.of(&[0.5, 1.0, 2.0, 3.0, 4.0][..], &[3.0][..]);
    let shed = |kind, option: Option<&str>| Shed {
        kind,
        option: option.map(str::to_owned),
    };
    let fixed = WORKERS.to_string();
    let room = ROOM.to_string();
    let ways = [
        shed(Kind::Wharf, Some(&fixed)),
        shed(Kind::Wharf, Some("adaptive")),
        shed(Kind::Axum, Some(&room)),
        shed(Kind::Axum, None),
    ];
    let rounds = plan.of(3, 1);
    let mut found: Vec<Vec<Round>> = ways.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        // Of the service itself, which is the same for all: asked by as many as it works on.
        let capacity = capacity(Start::of(Kind::Wharf).start()?.address).await?;
        for (way, found) in ways.iter().zip(&mut found) {
            if plan.quick && way.is_adaptive() {
                continue;
            }
            found.push(round(way, times, capacity, plan).await?);
        }
    }
    let [limit, adaptive, tower, none] = &found[..] else {
        return Err("a way is missing".into());
    };
    let mut verdicts = Vec::new();
    for (at, multiple) in times.iter().enumerate() {
        let middle = |rounds: &[Round], figure: &dyn Fn(&Round, &Load) -> f64| {
            let mut figures: Vec<_> = rounds
                .iter()
                .map(|round| figure(round, &round.loads[at]))
                .collect();
            median(&mut figures)
        };
        let goodput = |rounds: &[Round]| {
            middle(rounds, &|round, load| {
                100.0 * load.goodput() / round.capacity
            })
        };
        let refusal = |rounds: &[Round]| middle(rounds, &|_, load| load.latency(503, 0.99));
        let unanswered = |rounds: &[Round]| middle(rounds, &|_, load| load.unanswered() as f64);
        let what = |text: &str| format!("offered {multiple} times its capacity: {text}");
        for (name, wharf) in [("a limit", limit), ("the adaptive limit", adaptive)] {
            if wharf.is_empty() {
                continue;
            }
            let good = Verdict::new(
                "M20",
                what(&format!("goodput of capacity, {name}; tower's layers")),
                "%",
                goodput(wharf),
            );
            let good = good.axum(goodput(tower));
            verdicts.push(if *multiple >= 2.0 {
                good.at_least(95.0)
            } else {
                good
            });
            if *multiple >= 2.0 {
                verdicts.push(
                    plan.timed(
                        Verdict::new(
                            "M20",
                            what(&format!("503 p99, {name}; tower's layers")),
                            "ms",
                            refusal(wharf),
                        )
                        .axum(refusal(tower))
                        .at_most_or_as_axum(10.0),
                    ),
                );
                verdicts.push(
                    Verdict::new(
                        "M20",
                        what(&format!("requests without an answer, {name}; no layer")),
                        "",
                        unanswered(wharf),
                    )
                    .axum(unanswered(none))
                    .at_most(0.0),
                );
            }
        }
        verdicts.push(
            Verdict::new(
                "M20",
                what("goodput of capacity, a limit; no layer"),
                "%",
                goodput(limit),
            )
            .axum(goodput(none)),
        );
    }
    let recovered = |rounds: &[Round]| {
        median(
            &mut rounds
                .iter()
                .map(|round| round.recovered)
                .collect::<Vec<_>>(),
        )
    };
    for (name, wharf, beside) in [
        ("a limit; tower's layers", limit, tower),
        ("the adaptive limit; no layer", adaptive, none),
    ] {
        if wharf.is_empty() {
            continue;
        }
        verdicts.push(
            Verdict::new(
                "T33",
                format!("after a burst of 3 times its capacity, back to normal: {name}"),
                "s",
                recovered(wharf),
            )
            .axum(recovered(beside))
            .at_most(2.0),
        );
    }
    Ok(verdicts
        .into_iter()
        .map(|verdict| plan.scaled(verdict, 3, rounds))
        .collect())
}

async fn round(way: &Shed, times: &[f64], capacity: f64, plan: Plan) -> Result<Round, Failure> {
    let start = || {
        let start = Start::of(way.kind);
        match &way.option {
            Some(option) => start.with("shed", option).start(),
            None => start.start(),
        }
    };
    let mut loads = Vec::new();
    for multiple in times {
        let child = start()?;
        // An adaptive limit finds its place first, and a server is rarely overloaded from its first request.
        let rest = [(0.8 * capacity, Duration::from_millis(500))];
        offer(child.address, "/work", &rest).await;
        let load = [(multiple * capacity, plan.of(LONG, SHORT))];
        loads.push(offer(child.address, "/work", &load).await);
    }
    let recovered = if plan.quick && way.option.is_none() {
        // It doesn't recover for long, and only the full form shows that.
        0.0
    } else {
        let child = start()?;
        recovered(child.address, capacity, plan).await
    };
    Ok(Round {
        capacity,
        loads,
        recovered,
    })
}

/// Seconds from the end of a burst until it goes as before.
async fn recovered(address: SocketAddr, capacity: f64, plan: Plan) -> f64 {
    let burst = [
        (3.0 * capacity, BURST),
        (0.5 * capacity, plan.of(LONG, SHORT)),
    ];
    let load = offer(address, "/work", &burst).await;
    seconds(load.settled(USUAL).saturating_sub(BURST))
}

/// Requests a second when there is always one more.
async fn capacity(address: SocketAddr) -> Result<f64, Failure> {
    const TIME: Duration = Duration::from_secs(1);
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..2 * WORKERS {
        clients.spawn(async move {
            let mut client = Client::connect(address).await?;
            let mut answered = 0;
            while begun.elapsed() < TIME {
                client.ask(&get("/work")).await?;
                answered += 1;
            }
            std::io::Result::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client??;
    }
    Ok(f64::from(answered) / seconds(begun.elapsed()))
}
