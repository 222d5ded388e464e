//! T41: ten minutes of everything at once, good clients among bad ones, over a network that fails. What is watched: every
//! body by its hash, memory by its slope, descriptors by their number afterwards.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Found;
use crate::Failure;
use crate::child::{Child, Kind, Start, side_by_side};
use crate::client::{Client, get, post};
use crate::proxy::{Event, Fault, Proxy};
use crate::run::Plan;
use crate::serve::hex;
use crate::verdict::Verdict;

/// What the good clients have seen.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    right: usize,
    /// Another hash than that of what was sent.
    wrong: usize,
    /// No answer, where the network gave no reason.
    lost: usize,
}

pub(super) async fn soak(plan: Plan) -> Found {
    let time = Duration::from_secs(plan.of(600, 5));
    let (wharf, axum) = side_by_side(async |kind| run(kind, time).await).await?;
    let scaled = |verdict: Verdict| Verdict {
        scale: plan
            .quick
            .then(|| format!("{time:.0?} instead of 10 minutes")),
        ..verdict
    };
    let what = |text: &str| format!("{} good requests among bad ones: {text}", wharf.seen.right);
    // Seconds say nothing about a slope.
    let grows = |text: &str, of: fn(&Slopes) -> f64| {
        let slope = Verdict::new("T41", what(text), "MiB/min", of(&wharf.slopes));
        let slope = slope.axum(of(&axum.slopes));
        scaled(if plan.quick {
            slope
        } else {
            slope.at_most(0.1)
        })
    };
    Ok(vec![
        scaled(
            Verdict::new("T41", what("wrong bodies"), "", wharf.seen.wrong)
                .axum(axum.seen.wrong)
                .at_most(0.0),
        ),
        scaled(
            Verdict::new("T41", what("lost"), "", wharf.seen.lost)
                .axum(axum.seen.lost)
                .at_most(0.0),
        ),
        grows("resident memory grows by", |slopes| slopes.resident),
        grows("heap in use grows by", |slopes| slopes.in_use),
        scaled(
            Verdict::new(
                "T41",
                what("descriptors left afterwards"),
                "",
                wharf.descriptors,
            )
            .axum(axum.descriptors)
            .at_most(0.0),
        ),
        scaled(
            Verdict::new("T41", what("handlers left afterwards"), "", wharf.handlers)
                .axum(axum.handlers)
                .at_most(0.0),
        ),
    ])
}

struct Outcome {
    seen: Seen,
    slopes: Slopes,
    descriptors: usize,
    handlers: usize,
}

async fn run(kind: Kind, time: Duration) -> Result<Outcome, Failure> {
    let child = Start::of(kind).start()?;
    let address = child.address;
    crate::client::ask_once(address, &get("/")).await?;
    let files = child.descriptors()?;
    let end = Instant::now() + time;
    let slow = Fault {
        delay: Duration::from_millis(1),
        slice: 700,
        after: None,
    };
    let bytewise = Fault {
        slice: 1,
        ..Fault::default()
    };
    let after = |bytes, event| Fault {
        after: Some((bytes, event)),
        ..Fault::default()
    };
    let good_networks = [Fault::default(), slow, bytewise];
    let bad_networks = [
        after(5_000, Event::Reset),
        after(3_000, Event::HalfClose),
        after(20, Event::Reset),
        after(2_000, Event::Stall),
    ];
    let mut proxies = Vec::new();
    let mut good = JoinSet::new();
    let mut bad = JoinSet::new();
    for (number, fault) in good_networks.into_iter().enumerate() {
        let proxy = Proxy::start(0, address, fault).await?;
        for half in 0..2 {
            good.spawn(hashed(proxy.address, number as u64 * 2 + half, end));
        }
        proxies.push(proxy);
    }
    for fault in bad_networks {
        let proxy = Proxy::start(0, address, fault).await?;
        bad.spawn(cut_off(proxy.address, end));
        proxies.push(proxy);
    }
    bad.spawn(abort(address, end));
    bad.spawn(panic(address, end));
    bad.spawn(pipeline(address, end));
    let slopes = watch(&child, end).await?;
    let mut seen = Seen::default();
    while let Some(one) = good.join_next().await {
        let one = one?;
        seen.right += one.right;
        seen.wrong += one.wrong;
        seen.lost += one.lost;
    }
    while let Some(one) = bad.join_next().await {
        seen.wrong += one?;
    }
    drop(proxies);
    child
        .descriptors_fall_to(files, Duration::from_secs(8))
        .await?;
    let descriptors = child.descriptors()?.saturating_sub(files);
    let live = crate::client::ask_once(address, &get("/live")).await?;
    Ok(Outcome {
        seen,
        slopes,
        descriptors,
        handlers: String::from_utf8_lossy(&live.body).parse()?,
    })
}

/// How memory grows, MiB a minute. What is in use is what the server holds; what is resident is that, the allocator's
/// holes, which come and go in steps of a megabyte, and the program.
#[derive(Debug, Clone, Copy)]
struct Slopes {
    resident: f64,
    in_use: f64,
}

/// Samples the memory until the end, after a fifth of the time for warming up.
async fn watch(child: &Child, end: Instant) -> Result<Slopes, Failure> {
    let begun = Instant::now();
    let warm = (end - begun) / 5;
    let (mut resident, mut in_use) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        sleep(Duration::from_millis(500)).await;
        if begun.elapsed() > warm {
            let minutes = begun.elapsed().as_secs_f64() / 60.0;
            let heap = crate::client::ask_once(child.address, &get("/heap")).await?;
            let heap: f64 = String::from_utf8_lossy(&heap.body).parse()?;
            resident.push((minutes, child.memory_kib()? / 1024.0));
            in_use.push((minutes, heap / f64::from(1 << 20)));
        }
    }
    Ok(Slopes {
        resident: slope(&resident),
        in_use: slope(&in_use),
    })
}

/// By least squares.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let both: f64 = samples.iter().map(|(at, mib)| (at - x) * (mib - y)).sum();
    let spread: f64 = samples.iter().map(|(at, _)| (at - x).powi(2)).sum();
    both / spread
}

/// Bytes that differ for each seed.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn ask_hash(client: &mut Client, body: &[u8]) -> io::Result<bool> {
    client.send(&post("/hash", body.len())).await?;
    client.send(body).await?;
    let answer = client.answer().await?;
    Ok(answer.status != 200 || answer.body == hex(&Sha256::digest(body)).as_bytes())
}

/// One body after the other, each with its hash checked.
async fn hashed(address: SocketAddr, seed: u64, end: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut client = None;
    let mut number = seed << 32;
    while Instant::now() < end {
        number += 1;
        let body = content(number, (number as usize * 7919) % 4_000);
        let mut open = match client.take() {
            Some(open) => open,
            None => match Client::connect(address).await {
                Ok(open) => open,
                Err(_) => continue,
            },
        };
        match timeout(crate::child::SOON, ask_hash(&mut open, &body)).await {
            Ok(Ok(true)) => {
                seen.right += 1;
                client = Some(open);
            }
            Ok(Ok(false)) => seen.wrong += 1,
            Ok(Err(_)) | Err(_) => seen.lost += 1,
        }
    }
    seen
}

/// Bodies that don't arrive whole: no answer is fine, one with another hash is not.
async fn cut_off(address: SocketAddr, end: Instant) -> usize {
    let mut wrong = 0;
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        let body = content(number, 10_000);
        if let Ok(mut client) = Client::connect(address).await {
            let answer = timeout(Duration::from_millis(300), ask_hash(&mut client, &body)).await;
            wrong += usize::from(matches!(answer, Ok(Ok(false))));
        }
    }
    wrong
}

async fn abort(address: SocketAddr, end: Instant) -> usize {
    while Instant::now() < end {
        if let Ok(mut client) = Client::connect(address).await {
            let _ = client.send(&get("/sleep/10000")).await;
            sleep(Duration::from_millis(5)).await;
            let _ = client.reset();
        }
    }
    0
}

async fn panic(address: SocketAddr, end: Instant) -> usize {
    while Instant::now() < end {
        let _ = crate::client::ask_once(address, &get("/panic")).await;
        sleep(Duration::from_millis(5)).await;
    }
    0
}

/// Sixteen at a time: how many answers were not those of the requests.
async fn pipeline(address: SocketAddr, end: Instant) -> usize {
    let mut wrong = 0;
    while Instant::now() < end {
        let Ok(mut client) = Client::connect(address).await else {
            continue;
        };
        let requests: Vec<u8> = (1..=16)
            .flat_map(|bytes| get(&format!("/big/{bytes}")))
            .collect();
        let _ = client.send(&requests).await;
        for bytes in 1..=16 {
            if let Ok(Ok(answer)) = timeout(crate::child::SOON, client.answer()).await {
                wrong += usize::from(answer.body.len() != bytes);
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    wrong
}
