//! Runs rows: those that only wait side by side, those that measure each alone. Prints what they find as they find it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::timeout;

use crate::Failure;
use crate::rows::{self, Row};
use crate::verdict::{Limit, Verdict, table};

/// How large and how long: in full, or small enough for each change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
}

impl Plan {
    /// Of something: so much in full, so much in the quick form.
    pub(crate) fn of<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The servers' deadlines are divided by that.
    pub(crate) fn hurry(self) -> u32 {
        self.of(1, 5)
    }

    /// A deadline of the servers, as it is in this run, in seconds.
    pub(crate) fn deadline(self, usual: f64) -> f64 {
        usual / f64::from(self.hurry())
    }

    pub(crate) fn patience(self, usual: f64) -> Duration {
        Duration::from_secs_f64(self.deadline(usual))
    }

    /// What is said of a figure whose time is a deadline's.
    pub(crate) fn hurried(self, verdict: Verdict) -> Verdict {
        let scale = self.quick.then(|| format!("deadlines / {}", self.hurry()));
        Verdict { scale, ..verdict }
    }

    /// A tail of latencies, which one round on a machine that does other things can't judge: in the quick form it is only
    /// shown.
    pub(crate) fn timed(self, verdict: Verdict) -> Verdict {
        let limit = self.of(verdict.limit, Limit::None);
        Verdict { limit, ..verdict }
    }

    /// What is said of a figure that comes from fewer attempts than in full.
    pub(crate) fn scaled(self, verdict: Verdict, full: usize, quick: usize) -> Verdict {
        let scale = self.quick.then(|| format!("{quick} instead of {full}"));
        Verdict { scale, ..verdict }
    }
}

struct Options {
    plan: Plan,
    rows: Vec<Row>,
    json: Option<PathBuf>,
    results: Option<PathBuf>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            plan: Plan { quick: false },
            rows: Vec::new(),
            json: None,
            results: None,
        };
        while let Some(word) = words.next() {
            let mut file = || {
                words
                    .next()
                    .map(PathBuf::from)
                    .ok_or(format!("{word} needs a file"))
            };
            match word.as_str() {
                "all" => options.rows = rows::all(),
                "quick" => {
                    options.rows = rows::all();
                    options.plan.quick = true;
                }
                "--quick" => options.plan.quick = true,
                "--json" => options.json = Some(file()?),
                "--results" => options.results = Some(file()?),
                name => {
                    let named = rows::all().into_iter().filter(|row| row.is(name));
                    let before = options.rows.len();
                    options.rows.extend(named);
                    if options.rows.len() == before {
                        return Err(format!(
                            "no row is called {name}; `wharf-attack list` names them"
                        )
                        .into());
                    }
                }
            }
        }
        Ok(options)
    }
}

/// Whether all of wharf's targets were held.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<bool, Failure> {
    let options = Options::read(words)?;
    let plan = options.plan;
    let (waiting, measuring): (Vec<_>, Vec<_>) =
        options.rows.into_iter().partition(|row| row.only_waits);
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcomes = runtime.block_on(async {
        let mut outcomes = join_all(waiting.iter().map(|row| attempt(row, plan))).await;
        for row in &measuring {
            outcomes.push(attempt(row, plan).await);
        }
        outcomes
    });
    runtime.shutdown_background();

    let sound = outcomes.iter().all(Option::is_some);
    let verdicts: Vec<_> = outcomes.into_iter().flatten().flatten().collect();
    let missed = verdicts.iter().filter(|verdict| !verdict.passes()).count();
    let table = table(&verdicts);
    let took = begun.elapsed();
    println!(
        "\n{table}\n{} figures, {missed} missed, {took:.0?}",
        verdicts.len()
    );
    if let Some(file) = options.json {
        let lines: Value = verdicts.iter().map(Verdict::json).collect();
        fs::write(file, format!("{lines:#}\n"))?;
    }
    if let Some(file) = options.results {
        fs::write(file, report(&table, plan, took)?)?;
    }
    Ok(sound && missed == 0)
}

/// What a row found; `None`: it couldn't be carried out, which is no better than a target missed.
///
/// A row that measures and misses a target is run once more, since the machine does other things too: both results are
/// printed, and the second counts. What a row that only waits finds is final.
async fn attempt(row: &Row, plan: Plan) -> Option<Vec<Verdict>> {
    let first = once(row, plan).await;
    let holds = |verdicts: &Vec<Verdict>| verdicts.iter().all(Verdict::passes);
    if row.only_waits || first.as_ref().is_some_and(holds) {
        return first;
    }
    eprintln!("{}: once more", row.name);
    once(row, plan).await
}

async fn once(row: &Row, plan: Plan) -> Option<Vec<Verdict>> {
    let begun = Instant::now();
    let most = Duration::from_secs(plan.of(1_800, 60));
    let outcome = match timeout(most, row.run(plan)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("it hangs: not done after {most:?}").into()),
    };
    match outcome {
        Ok(verdicts) => {
            for verdict in &verdicts {
                println!("{}", verdict.json());
            }
            eprintln!("{}: {:.1?}", row.name, begun.elapsed());
            Some(verdicts)
        }
        Err(error) => {
            eprintln!("{}: can't be carried out: {error}", row.name);
            None
        }
    }
}

fn report(table: &str, plan: Plan, took: Duration) -> Result<String, Failure> {
    let said = |command: &str, words: &[&str]| {
        let output = Command::new(command).args(words).output().ok()?;
        let words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Some(words).filter(|words| !words.is_empty())
    };
    let unknown = || "unknown".to_owned();
    let date = said("date", &["--utc", "+%Y-%m-%d"]).unwrap_or_else(unknown);
    let commit = said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(unknown);
    let kernel = said("uname", &["-sr"]).unwrap_or_else(unknown);
    let cores = std::thread::available_parallelism()?;
    let facts = fs::read_to_string("/proc/cpuinfo")?;
    let model = facts
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("processor", |(_, model)| model);
    let form = plan.of("full", "quick");
    // Where the table goes is nobody's business.
    let words = std::env::args().skip(1);
    let words: Vec<_> = words
        .take_while(|word| word != "--results" && word != "--json")
        .collect();
    let command = format!("wharf-attack {}", words.join(" "));
    Ok(format!(
        "# What wharf-attack found\n\n\
         Written by `{command}`: the {form} form, on {date}, commit {commit}, {cores} cores of {model}, {kernel}, \
         in {took:.0?}. wharf and axum 0.8 (`axum::serve`) ran the same router, on the same machine, in the same run. \
         `>` says that it hadn't happened by then. Numbers that depend on time are those of a machine that does other \
         things too; what a row is about stands in its source in `src/rows`.\n\n{table}"
    ))
}
