//! The parts of a run. Servers are measured one after the other in each round, so what disturbs the machine for a while
//! disturbs all of them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use crate::rows::{Rows, median};
use crate::servers::{self, Server};
use crate::workloads::{self, Workload};
use crate::{BoxError, Places, load};

/// How much of everything; a full part takes a minute or less.
pub struct Plan {
    rounds: usize,
    burst: Duration,
    open_loop: Duration,
    idle: usize,
}

pub const FULL: Plan = Plan {
    rounds: 7,
    burst: Duration::from_millis(500),
    open_loop: Duration::from_secs(3),
    idle: 9_000,
};

pub const QUICK: Plan = Plan {
    rounds: 3,
    burst: Duration::from_millis(120),
    open_loop: Duration::from_millis(600),
    idle: 1_000,
};

/// The core of a server with one thread. The load has another: `run.sh` sees to that.
const CORE: &str = "0";
const LATENCY_ROUNDS: usize = 5;

pub fn parts() -> impl Iterator<Item = &'static str> {
    workloads::NAMES
        .into_iter()
        .chain(["latency", "idle", "calls", "workers"])
}

pub fn part(places: &Places, part: &str, plan: &Plan) -> Result<(), BoxError> {
    if !parts().any(|known| known == part) {
        return Err(format!("no part is called {part}; `drive parts` lists them").into());
    }
    fs::create_dir_all(&places.measured)?;
    let path = places.measured.join(format!("{part}.tsv"));
    if path.exists() {
        println!("{part}: measured already ({})", path.display());
        return Ok(());
    }
    println!("{part}");
    let mut rows = Rows(Vec::new());
    match part {
        "latency" => latency(places, plan, &mut rows)?,
        "idle" => idle(places, plan, &mut rows)?,
        "calls" => calls(places, &mut rows)?,
        "workers" => workers(places, plan, &mut rows)?,
        workload => cpu(places, plan, &named(workload)?, &mut rows)?,
    }
    rows.write(&path)
}

fn named(name: &str) -> Result<Rc<Workload>, BoxError> {
    let found = workloads::find(name).map(Rc::new);
    found.ok_or_else(|| format!("no workload is called {name}").into())
}

/// CPU a request of every server that can serve the workload.
fn cpu(
    places: &Places,
    plan: &Plan,
    workload: &Rc<Workload>,
    rows: &mut Rows,
) -> Result<(), BoxError> {
    let mut running = Vec::new();
    for (name, _) in servers::NAMES {
        if !servers::serves(name, workload.name) {
            continue;
        }
        match Server::start(places, name, CORE, 1)? {
            Some(server) => running.push((name, server)),
            None => println!("  {name}: not here, left out"),
        }
    }
    for round in 0..plan.rounds {
        let first = round % running.len();
        let mut failed = Vec::new();
        for (name, server) in running[first..].iter().chain(&running[..first]) {
            match load::burst(server.address, workload, plan.burst, u64::MAX, || {
                server.cpu()
            }) {
                Ok(burst) if burst.answers > 0 => {
                    let answers = burst.answers as f64;
                    rows.add(
                        workload.name,
                        name,
                        round,
                        "cpu",
                        burst.cpu.as_secs_f64() * 1e6 / answers,
                    );
                    rows.add(
                        workload.name,
                        name,
                        round,
                        "rate",
                        answers / burst.took.as_secs_f64(),
                    );
                }
                Ok(_) => failed.push((*name, "no answer".to_owned())),
                Err(error) => failed.push((*name, error.to_string())),
            }
        }
        for (name, error) in failed {
            println!("  {name}: {error}; left out");
            running.retain(|(running, _)| *running != name);
            rows.0.retain(|row| row.server != name);
        }
    }
    for (name, _) in &running {
        let ratio = rows
            .ratio(workload.name, name, "hyper", "cpu")
            .unwrap_or(f64::NAN);
        let cpu = rows.median(workload.name, name, "cpu").unwrap_or(f64::NAN);
        println!("  {name:16} {ratio:6.2} {cpu:10.2} µs");
    }
    Ok(())
}

/// The 99th hundredth at half of what hyper answers at best.
fn latency(places: &Places, plan: &Plan, rows: &mut Rows) -> Result<(), BoxError> {
    let plain = named("plain")?;
    let mut running = Vec::new();
    for name in ["hyper", "wharf", "axum", "wharf-axum"] {
        running.extend(Server::start(places, name, CORE, 1)?.map(|server| (name, server)));
    }
    let (_, hyper) = running.first().ok_or("peer-tokio isn't built")?;
    let mut best = 0.0f64;
    for _ in 0..3 {
        let burst = load::burst(hyper.address, &plain, plan.burst, u64::MAX, || hyper.cpu())?;
        best = best.max(burst.answers as f64 / burst.took.as_secs_f64());
    }
    rows.add("latency", "hyper", 0, "best", best);
    for round in 0..LATENCY_ROUNDS {
        for turn in 0..running.len() {
            let (name, server) = &running[(round + turn) % running.len()];
            let mut took = load::open_loop(server.address, &plain, plan.open_loop, best / 2.0)?;
            took.sort();
            for (figure, share) in [("p50", 50), ("p99", 99)] {
                let at = took.get(took.len() * share / 100).ok_or("no answer")?;
                rows.add("latency", name, round, figure, at.as_secs_f64() * 1e6);
            }
        }
    }
    for (name, _) in &running {
        println!(
            "  {name:16} p99 {:8.0} µs",
            rows.median("latency", name, "p99").unwrap_or(f64::NAN)
        );
    }
    Ok(())
}

/// What an idle connection costs after one request: resident memory with all of them less that with a few.
fn idle(places: &Places, plan: &Plan, rows: &mut Rows) -> Result<(), BoxError> {
    let plain = named("plain")?;
    for (name, _) in servers::NAMES
        .into_iter()
        .filter(|(name, _)| !name.contains("bare"))
    {
        let Some(server) = Server::start(places, name, CORE, 1)? else {
            continue;
        };
        let before = load::idle(server.address, &plain, 16, || server.resident())?;
        match load::idle(server.address, &plain, plan.idle, || server.resident()) {
            Ok(after) => {
                let each = after.saturating_sub(before) as f64 / (plan.idle - 16) as f64;
                rows.add("idle", name, 0, "connections", plan.idle as f64);
                rows.add("idle", name, 0, "bytes", each);
                println!("  {name:16} {each:8.0} bytes");
            }
            Err(error) => println!("  {name}: {error}"),
        }
    }
    Ok(())
}

/// System calls a request, by `strace`: the slope between two counts, so that connections and attaching cancel out.
fn calls(places: &Places, rows: &mut Rows) -> Result<(), BoxError> {
    const FEW: u64 = 1_024;
    const MANY: u64 = 5_120;
    if Command::new("strace").arg("-V").output().is_err() {
        println!("  strace isn't installed: left out");
        return Ok(());
    }
    for workload in ["plain", "pipelined", "post", "connection"] {
        let workload = named(workload)?;
        for name in ["hyper", "wharf", "axum", "wharf-axum"] {
            let Some(server) = Server::start(places, name, CORE, 1)? else {
                continue;
            };
            let few = traced(places, &server, &workload, FEW)?;
            let many = traced(places, &server, &workload, MANY)?;
            let each = (many.0 - few.0) / (many.1 - few.1);
            // Sixteen requests that come at once are one batch.
            let each = each * workload.answers as f64;
            rows.add("calls", name, 0, workload.name, each);
            println!("  {:12} {name:12} {each:6.2}", workload.name);
        }
    }
    Ok(())
}

/// Calls and answers of one burst.
fn traced(
    places: &Places,
    server: &Server,
    workload: &Rc<Workload>,
    count: u64,
) -> Result<(f64, f64), BoxError> {
    let summary = places.measured.join(format!("strace-{}", server.id()));
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-p", &server.id().to_string(), "-o"])
        .arg(&summary)
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = strace.stderr.take().ok_or("strace has no stderr")?;
    let mut said = String::new();
    BufReader::new(stderr).read_line(&mut said)?;
    let burst = match said.contains("attached") {
        true => load::burst(
            server.address,
            workload,
            Duration::from_secs(10),
            count,
            || server.cpu(),
        ),
        false => Err(format!("strace: {}", said.trim()).into()),
    };
    Command::new("kill")
        .args(["-INT", &strace.id().to_string()])
        .status()?;
    strace.wait()?;
    let burst = burst?;
    let text = fs::read_to_string(&summary)?;
    fs::remove_file(&summary)?;
    let total = text.lines().rev().find(|line| line.ends_with("total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    Ok((calls.ok_or("strace told no total")?, burst.answers as f64))
}

/// CPU a request as workers are added. With no core left for the load the rate says little; what a request costs
/// still shows whether workers stand in each other's way.
fn workers(places: &Places, plan: &Plan, rows: &mut Rows) -> Result<(), BoxError> {
    let cores = fs::read_to_string("/proc/cpuinfo")?
        .matches("processor\t")
        .count()
        .max(1);
    let counts: Vec<usize> = (0..)
        .map(|power| 1 << power)
        .take_while(|count| *count <= cores)
        .collect();
    let plain = named("plain")?;
    let mut running = Vec::new();
    for workers in counts {
        let cores = format!("0-{}", workers - 1);
        running.extend(
            Server::start(places, "wharf-per-core", &cores, workers)?
                .map(|server| (workers, server)),
        );
    }
    for round in 0..plan.rounds {
        for (workers, server) in &running {
            let burst = load::burst(server.address, &plain, plan.burst, u64::MAX, || {
                server.cpu()
            })?;
            let answers = burst.answers as f64;
            let name = workers.to_string();
            rows.add(
                "workers",
                &name,
                round,
                "cpu",
                burst.cpu.as_secs_f64() * 1e6 / answers,
            );
            rows.add(
                "workers",
                &name,
                round,
                "rate",
                answers / burst.took.as_secs_f64(),
            );
        }
    }
    for (workers, _) in &running {
        let of = |figure| {
            median(
                rows.of("workers", &workers.to_string(), figure)
                    .into_iter()
                    .map(|(_, v)| v),
            )
        };
        println!(
            "  {workers} workers {:?} µs, {:?} a second",
            of("cpu"),
            of("rate")
        );
    }
    Ok(())
}
