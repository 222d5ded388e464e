//! `memory SERVER WORKLOAD ROUNDS` serves a workload so often, for callgrind: the cost of a request is the slope between
//! two counts. `memory time WORKLOAD SERVER...` measures nanoseconds a round, the servers by turns.

use std::process::ExitCode;
use std::time::Instant;

use wharf_benches::{Server, Workload, run, runtime};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["time", workload, servers @ ..] => time(workload, servers),
        [server, workload, rounds] => serve(server, workload, rounds),
        _ => Err("usage: memory SERVER WORKLOAD ROUNDS | memory time WORKLOAD SERVER...".into()),
    };
    if let Err(why) = done {
        eprintln!("{why}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

fn serve(server: &str, workload: &str, rounds: &str) -> Result<(), String> {
    let rounds = rounds
        .parse()
        .map_err(|_| format!("ROUNDS must be a number, not {rounds}"))?;
    let (server, workload) = (server.parse()?, workload.parse()?);
    let runtime = runtime();
    let _guard = runtime.enter();
    run(server, workload, rounds);
    Ok(())
}

/// Medians over many short runs, so that what else the machine does falls on all alike.
fn time(workload: &str, servers: &[&str]) -> Result<(), String> {
    const RUNS: usize = 101;
    const ROUNDS: u64 = 500;
    let workload: Workload = workload.parse()?;
    let servers: Vec<Server> = servers
        .iter()
        .map(|name| name.parse())
        .collect::<Result<_, _>>()?;
    let runtime = runtime();
    let _guard = runtime.enter();
    let mut times = vec![Vec::new(); servers.len()];
    for _ in 0..RUNS {
        for (server, times) in servers.iter().zip(&mut times) {
            let begun = Instant::now();
            run(*server, workload, ROUNDS);
            times.push(begun.elapsed().as_nanos() as u64 / ROUNDS);
        }
    }
    for (server, times) in servers.iter().zip(&mut times) {
        times.sort_unstable();
        let (least, median) = (times[0], times[RUNS / 2]);
        println!("{:<12} {median:>8} ns, least {least}", server.name());
    }
    Ok(())
}
