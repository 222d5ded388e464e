//! What changed between two runs, each figure with an interval: blocks of each run's timeline are drawn again and again,
//! so that what comes in waves isn't taken for many independent answers.

use std::fmt::Write;
use std::path::Path;

use crate::amount::{grouped, short_nanos};
use crate::grid::{self, STEPS};
use crate::random::Random;
use crate::report::json::{Document, PlanPart, SCHEMA};
use crate::run::Outcome;

/// Blocks of a timeline at most; and the least that make an interval.
const BLOCKS: usize = 30;
const LEAST: usize = 10;
const DRAWS: usize = 1_000;

/// The run that is compared with.
#[derive(Debug)]
pub(crate) struct Base {
    name: String,
    document: Document,
}

impl Base {
    /// # Errors
    ///
    /// A sentence, when it is no report that `--json` wrote.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let text = std::fs::read(path).map_err(|error| format!("--compare {name}: {error}"))?;
        let document: Document = serde_json::from_slice(&text).map_err(|error| {
            format!("--compare {name}: not a report that --json wrote ({error})")
        })?;
        if document.schema != SCHEMA {
            return Err(format!(
                "--compare {name}: its schema is {}, not {SCHEMA}",
                document.schema
            ));
        }
        Ok(Self { name, document })
    }
}

/// A figure of a run, from its blocks.
#[derive(Clone, Copy)]
enum Figure {
    Rate,
    Quantile(f64),
}

const FIGURES: [(&str, Figure); 5] = [
    ("rate", Figure::Rate),
    ("p50", Figure::Quantile(0.5)),
    ("p90", Figure::Quantile(0.9)),
    ("p99", Figure::Quantile(0.99)),
    ("p99.9", Figure::Quantile(0.999)),
];

/// A stretch of a run.
#[derive(Debug, Clone)]
struct Block {
    seconds: f64,
    answered: u64,
    grid: Vec<u64>,
}

impl Block {
    fn empty() -> Self {
        Self {
            seconds: 0.0,
            answered: 0,
            grid: vec![0; STEPS],
        }
    }

    fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.answered += other.answered;
        self.grid
            .iter_mut()
            .zip(&other.grid)
            .for_each(|(sum, count)| *sum += count);
    }

    fn figure(&self, figure: Figure) -> f64 {
        match figure {
            Figure::Rate => self.answered as f64 / self.seconds.max(1e-9),
            Figure::Quantile(share) => grid::quantile(&self.grid, share),
        }
    }
}

fn blocks(document: &Document) -> Vec<Block> {
    let slices = &document.timeline;
    let each = slices.len().div_ceil(BLOCKS).max(1);
    slices
        .chunks(each)
        .map(|slices| {
            let mut block = Block::empty();
            for slice in slices {
                block.add(&Block {
                    seconds: slice.to - slice.from,
                    answered: slice.answered,
                    grid: slice.grid(),
                });
            }
            block
        })
        .collect()
}

/// Runs as they might have been.
fn draws(blocks: &[Block], random: &mut Random) -> Vec<Block> {
    (0..DRAWS)
        .map(|_| {
            let mut drawn = Block::empty();
            blocks
                .iter()
                .for_each(|_| drawn.add(&blocks[random.below(blocks.len())]));
            drawn
        })
        .collect()
}

/// The change of each figure as a share, with its 95 % interval.
fn changes(before: &[Block], now: &[Block]) -> Vec<(f64, f64)> {
    let mut random = Random::new(1); // Two comparisons of the same files must say the same.
    let (before, now) = (draws(before, &mut random), draws(now, &mut random));
    let interval = |figure: Figure| {
        let mut ratios: Vec<f64> = before
            .iter()
            .zip(&now)
            .map(|(before, now)| now.figure(figure) / before.figure(figure).max(1e-9) - 1.0)
            .collect();
        ratios.sort_by(f64::total_cmp);
        (ratios[DRAWS * 25 / 1000], ratios[DRAWS * 975 / 1000 - 1])
    };
    FIGURES
        .iter()
        .map(|(_, figure)| interval(*figure))
        .collect()
}

/// The comparison as a table.
pub(crate) fn text(base: &Base, outcome: &Outcome) -> String {
    compared(&base.name, &base.document, &Document::of(outcome))
}

fn compared(name: &str, before: &Document, now: &Document) -> String {
    let mut out = format!("\ncompared with {name}\n");
    writeln!(
        out,
        "  {:<6}{:>14}{:>12}{:>11}   95 % interval",
        "", "before", "now", "change"
    )
    .expect("a String");
    let (old, new) = (blocks(before), blocks(now));
    let intervals = (old.len() >= LEAST && new.len() >= LEAST).then(|| changes(&old, &new));
    for (place, (figure, kind)) in FIGURES.iter().enumerate() {
        let value = |document: &Document| match kind {
            Figure::Rate => document.requests_per_second,
            Figure::Quantile(_) => document
                .latency
                .percentiles_ns
                .get(*figure)
                .map_or(0.0, |nanos| *nanos as f64),
        };
        let (then, today) = (value(before), value(now));
        let shown = |value: f64| match kind {
            Figure::Rate => format!("{}/s", grouped(value.round() as u64)),
            Figure::Quantile(_) => short_nanos(value),
        };
        let change = (today / then.max(1e-9) - 1.0) * 100.0;
        write!(
            out,
            "  {figure:<6}{:>14}{:>12}{change:>+9.1} %",
            shown(then),
            shown(today)
        )
        .expect("a String");
        if let Some((low, high)) = intervals.as_ref().map(|intervals| intervals[place]) {
            let verdict = match (low > 0.0, high < 0.0, matches!(kind, Figure::Rate)) {
                (true, _, true) | (_, true, false) => "better",
                (_, true, true) | (true, _, false) => "worse",
                _ => "no change seen",
            };
            write!(
                out,
                "   {:+.1} % … {:+.1} %  {verdict}",
                low * 100.0,
                high * 100.0
            )
            .expect("a String");
        }
        out.push('\n');
    }
    let share =
        |document: &Document| document.errors as f64 * 100.0 / (document.requests as f64).max(1.0);
    writeln!(
        out,
        "  {:<6}{:>12.2} %{:>10.2} %",
        "errors",
        share(before),
        share(now)
    )
    .expect("a String");
    match intervals {
        Some(_) => {
            out += "  The intervals come from within the two runs; what differs from run to run is not in them.\n"
        }
        None => out += "  Too short for intervals: both runs need a second or more.\n",
    }
    for difference in differences(before, now) {
        writeln!(out, "  Not the same plan: {difference}.").expect("a String");
    }
    out
}

/// Why the two can't be compared without a thought.
fn differences(before: &Document, now: &Document) -> Vec<String> {
    let (before, now) = (facts(&before.plan), facts(&now.plan));
    let differ = before
        .iter()
        .zip(&now)
        .filter(|(before, now)| before != now);
    differ
        .map(|(before, now)| format!("it was {before} and is {now}"))
        .collect()
}

/// What a run was, each fact in words.
fn facts(plan: &PlanPart) -> [String; 7] {
    [
        plan.urls.join(", "),
        format!("{} connections", plan.connections),
        format!("{} threads", plan.threads),
        plan.rate
            .map_or("a closed loop".to_owned(), |rate| format!("{rate}/s")),
        format!("{} pipelined", plan.pipeline),
        if plan.keep_alive {
            "kept alive"
        } else {
            "a connection a request"
        }
        .to_owned(),
        match &plan.misbehave {
            Some(how) => format!("beside {} bad clients ({how})", plan.bad_clients),
            None => "without bad clients".to_owned(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::{Block, LEAST, STEPS, changes};
    use crate::grid;
    use crate::random::Random;

    /// A run whose latencies are spread around `nanos` and whose rate is around `rate`.
    fn run(nanos: f64, rate: f64, seed: u64) -> Vec<Block> {
        let mut random = Random::new(seed);
        let block = |_| {
            let mut grid = vec![0; STEPS];
            let answered = (rate * (0.95 + 0.1 * random.unit())) as u64;
            for _ in 0..answered {
                grid[grid::step_of((nanos * (0.5 + random.unit())) as u64)] += 1;
            }
            Block {
                seconds: 1.0,
                answered,
                grid,
            }
        };
        (0..LEAST * 2).map(block).collect()
    }

    /// 95 of 100 intervals should hold the truth; of twenty, fifteen must.
    #[test]
    fn a_real_change_is_within_its_interval_and_nothing_is_not() {
        let (mut rates, mut medians) = (0, 0);
        for seed in 0..20 {
            let intervals = changes(
                &run(1e6, 1000.0, 2 * seed),
                &run(1.2e6, 900.0, 2 * seed + 1),
            );
            let (low, high) = intervals[0];
            assert!(high < 0.0, "rate: {low} to {high}");
            rates += usize::from((low..high).contains(&-0.1));
            let (low, high) = intervals[1];
            assert!(low > 0.0, "p50: {low} to {high}");
            medians += usize::from((low..high).contains(&0.2));
        }
        assert!(
            rates >= 15 && medians >= 15,
            "{rates} and {medians} of twenty"
        );
    }

    #[test]
    fn two_runs_of_the_same_show_no_change() {
        for (low, high) in changes(&run(1e6, 1000.0, 3), &run(1e6, 1000.0, 4)) {
            assert!(low < 0.0 && 0.0 < high, "{low} to {high}");
        }
    }
}
