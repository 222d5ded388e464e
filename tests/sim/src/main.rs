//! The command: `run` hunts, `replay` shows one seed, `bugs` shows that the checks find what they are for.

use std::process::ExitCode;
use std::time::Instant;

use wharf_sim::bugs::Bug;
use wharf_sim::hunt::{self, Found, GROUP, How, News};
use wharf_sim::player::play;
use wharf_sim::shrink::Failing;

const USAGE: &str = "\
usage: wharf-sim run [--tls] [--seeds N] [--from SEED] [--threads N] [--bug NAME]
       wharf-sim replay SEED [--tls] [--bug NAME]
       wharf-sim bugs [--tls] [--seeds N]

run     plays N seeds (1,000,000) from SEED (0) on, in groups of four that share a script; a failure is shrunk and shown
replay  shows the script of a seed and what happened, in virtual milliseconds
bugs    switches on bugs that other servers had, one at a time, and says after how many seeds each was found
--tls   the same seeds over TLS: cuts, waits and faults hit the encrypted stream, and a steady script must have the
        answers that it has in plain text
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let options = match Options::read(args) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let is_good = match (command.as_str(), options.seed) {
        ("run", None) => run(&options),
        ("replay", Some(seed)) => replay(seed, options.how),
        ("bugs", None) => bugs(options.seeds.unwrap_or(100_000), options.how.tls),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[derive(Default)]
struct Options {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: u64,
    threads: Option<usize>,
    how: How,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--seeds" => options.seeds = Some(number(&value()?)?),
                "--from" => options.from = number(&value()?)?,
                "--threads" => options.threads = Some(number(&value()?)? as usize),
                "--bug" => {
                    let name = value()?;
                    let bug = Bug::named(&name).ok_or_else(|| unknown(&name))?;
                    options.how.bug = Some(bug);
                }
                "--tls" => options.how.tls = true,
                _ => options.seed = Some(number(&arg)?),
            }
        }
        Ok(options)
    }
}

fn number(text: &str) -> Result<u64, String> {
    let digits = text.replace(['_', ','], "");
    digits.parse().map_err(|_| format!("`{text}` is no number"))
}

fn unknown(name: &str) -> String {
    let names: Vec<_> = Bug::ALL.iter().map(|(name, _)| *name).collect();
    format!("no bug is called `{name}`; there are {}", names.join(", "))
}

fn run(options: &Options) -> bool {
    let count = options.seeds.unwrap_or(1_000_000).next_multiple_of(GROUP);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).max(1);
    let from = options.from - options.from % GROUP;
    let begin = Instant::now();
    let tell = |news: News<'_>| match news {
        News::Found(Found { seed, wrong }) => println!("seed {seed}: {wrong}"),
        News::Done(done) if done.is_multiple_of(1_000_000) => {
            let seconds = begin.elapsed().as_secs_f64();
            eprintln!("{done} of {count} seeds, {seconds:.0} s");
        }
        News::Done(_) => {}
    };
    let found = hunt::run(from, count, threads, options.how, &tell);
    let seconds = begin.elapsed().as_secs_f64();
    if let Some(first) = found.first() {
        shrink(first.seed, options.how);
        println!(
            "{} failures within seeds {from} to {}",
            found.len(),
            from + count - 1
        );
        return false;
    }
    println!(
        "{count} seeds from {from} on{}, 0 failures, one output for each steady script; {seconds:.1} s on {threads} threads, {:.0} a second and thread",
        if options.how.tls { " over TLS" } else { "" },
        count as f64 / seconds / threads as f64
    );
    true
}

fn replay(seed: u64, how: How) -> bool {
    let (script, timing, played) = hunt::replay(seed, how);
    println!(
        "seed {seed}\n\n{script}\n{timing}\n\n{}",
        played.trace.unwrap_or_default()
    );
    let Some(wrong) = played.wrong else {
        return true;
    };
    println!("wrong: {wrong}\n");
    shrink(seed, how);
    false
}

/// Makes a failure small, and shows it.
fn shrink(seed: u64, how: How) {
    let (script, timing) = hunt::scenario(seed, how);
    let beside = Some(hunt::beside(seed, &script)).filter(|beside| *beside != timing);
    let failing = Failing {
        script: (*script).clone(),
        timing,
        beside,
        bug: how.bug,
    };
    let (small, wrong) = failing.shrink();
    let played = play(&small.script.clone().into(), &small.timing, how.bug, true);
    println!(
        "seed {seed}, made small\n\n{}\n{}\n\n{}",
        small.script,
        small.timing,
        played.trace.unwrap_or_default()
    );
    println!("wrong: {wrong}\n");
}

fn bugs(seeds: u64, tls: bool) -> bool {
    let mut all = true;
    println!("{:<26} {:>8}  how it shows", "bug", "seeds");
    for (name, bug) in Bug::ALL {
        let how = How {
            bug: Some(bug),
            tls: tls || bug.is_of_tls(),
        };
        match hunt::run(0, seeds, 1, how, &|_| {}).first() {
            Some(Found { seed, wrong }) => println!("{name:<26} {:>8}  {wrong:.110}", seed + 1),
            None => {
                println!("{name:<26} not found within {seeds} seeds");
                all = false;
            }
        }
    }
    all
}
