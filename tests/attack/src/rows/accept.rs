//! Accepting when the kernel says no: M10 descriptors run out, M11 errors injected with strace, T6 what is logged of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Found;
use crate::Failure;
use crate::child::{Kind, Start, in_turn};
use crate::client::{Client, ask_once, crowd, get};
use crate::figures::{millis, seconds};
use crate::run::Plan;
use crate::verdict::Verdict;

struct Starved {
    cpu_percent: f64,
    answered: usize,
    recovered: f64,
    lines_a_second: f64,
}

/// M10: 64 descriptors, 150 connections that say nothing, and one that was there before and goes on.
pub(super) async fn emfile(plan: Plan) -> Found {
    const ASKED: usize = 40;
    const LEFT: [(&str, Option<usize>); 2] = [
        ("", None),
        ("; wharf with a limit it can't keep", Some(10_000)),
    ];
    let rounds = plan.of(3, 1);
    // wharf by default stops accepting before the descriptors run out; the second time it is made to run into it.
    let mut verdicts = Vec::new();
    for (form, most) in plan.of(&LEFT[..], &LEFT[1..]) {
        let (wharf, axum) = in_turn(async |kind| {
            let mut worst = starve(kind, *most, ASKED).await?;
            for _ in 1..rounds {
                let next = starve(kind, *most, ASKED).await?;
                worst.cpu_percent = worst.cpu_percent.max(next.cpu_percent);
                worst.answered = worst.answered.min(next.answered);
                worst.recovered = worst.recovered.max(next.recovered);
                worst.lines_a_second = worst.lines_a_second.max(next.lines_a_second);
            }
            Ok(worst)
        })
        .await?;
        let what = |text: &str| format!("no descriptors left: {text}{form}");
        verdicts.extend([
            Verdict::new("M10", what("processor time"), "%", wharf.cpu_percent)
                .axum(axum.cpu_percent)
                .at_most(2.0),
            Verdict::new(
                "M10",
                what("of 40 requests of an open connection, answered"),
                "",
                wharf.answered,
            )
            .axum(axum.answered)
            .at_least(ASKED as f64),
            Verdict::new(
                "M10",
                what("a newcomer is served after the others left in"),
                "s",
                wharf.recovered,
            )
            .axum(axum.recovered)
            .at_most(0.15),
            Verdict::new(
                "T6",
                what("lines logged a second"),
                "",
                wharf.lines_a_second,
            )
            .axum(axum.lines_a_second)
            .at_most(2.0),
        ]);
    }
    Ok(verdicts)
}

async fn starve(kind: Kind, most: Option<usize>, asked: usize) -> Result<Starved, Failure> {
    let mut start = Start::of(kind).with("files", 64);
    if let Some(most) = most {
        start = start.with("max-connections", most);
    }
    let child = start.start()?;
    let mut open = Client::connect(child.address).await?;
    open.ask(&get("/")).await?;
    let flood = crowd(150, async |number| {
        Client::connect_from(number, child.address).await
    })
    .await?;
    sleep(Duration::from_millis(200)).await;
    let (begun, cpu, lines) = (Instant::now(), child.cpu()?, child.said().len());
    let mut answered = 0;
    for _ in 0..asked {
        answered += usize::from(
            open.ask(&get("/"))
                .await
                .is_ok_and(|answer| answer.status == 200),
        );
        sleep(Duration::from_millis(50)).await;
    }
    let time = begun.elapsed();
    let cpu_percent = 100.0 * seconds(child.cpu()? - cpu) / seconds(time);
    let lines_a_second = (child.said().len() - lines) as f64 / seconds(time);
    drop(flood);
    let begun = Instant::now();
    ask_once(child.address, &get("/")).await?;
    Ok(Starved {
        cpu_percent,
        answered,
        recovered: seconds(begun.elapsed()),
        lines_a_second,
    })
}

/// M11: five errors of accept in a row while clients come every 20 ms: the longest that one of them waits.
pub(super) async fn injected(plan: Plan) -> Found {
    let errors: &[(&str, f64)] = plan.of(
        &[
            ("EMFILE", 0.2),
            ("ENFILE", 0.2),
            ("ENOBUFS", 0.2),
            ("ENOMEM", 0.2),
            ("EPERM", 0.02),
            ("ECONNABORTED", 0.02),
            ("EPROTO", 0.02),
            ("ENETDOWN", 0.02),
        ][..],
        &[("EMFILE", 0.2), ("ECONNABORTED", 0.02)][..],
    );
    let mut verdicts = Vec::new();
    for &(error, most) in errors {
        let (wharf, axum) = in_turn(async |kind| {
            let inject = format!("inject=accept4:error={error}:when=10..14");
            // On one thread, since strace counts each thread's calls.
            let start = Start::of(kind).with("threads", 1);
            let child = start
                .under(&[
                    "strace",
                    "-f",
                    "-qq",
                    "-e",
                    "trace=accept4",
                    "-e",
                    &inject,
                    "-o",
                    "/dev/null",
                ])
                .start()?;
            extra_wait(child.address).await
        })
        .await?;
        verdicts.push(
            Verdict::new(
                "M11",
                format!("five times {error} of accept: the longest extra wait"),
                "s",
                wharf,
            )
            .axum(axum)
            .at_most(most),
        );
    }
    Ok(verdicts)
}

/// How much longer than usual the slowest client waited, in seconds.
async fn extra_wait(address: SocketAddr) -> Result<f64, Failure> {
    let mut waits = Vec::new();
    for _ in 0..40 {
        let begun = Instant::now();
        ask_once(address, &get("/")).await?;
        waits.push(millis(begun.elapsed()));
        sleep(Duration::from_millis(20)).await;
    }
    let longest = waits.iter().copied().fold(0.0, f64::max);
    Ok((longest - crate::figures::median(&mut waits)) / 1e3)
}
