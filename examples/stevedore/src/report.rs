//! What came of a run, in every form: this file has what the forms share, each form has a file of its own.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use hdrhistogram::Histogram;

use crate::args::Files;
use crate::plan::Load;
use crate::run::Outcome;

mod chart;
mod csv;
mod hgrm;
mod html;
pub(crate) mod json;
mod scale;
mod svg;
mod text;

pub(crate) use text::{knee_row, last_line, text};

/// The percentiles that tables show.
pub(crate) const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];

/// Writes the files that were asked for.
///
/// # Errors
///
/// A sentence that says which one can't be written and why.
pub(crate) fn write_files(outcome: &Outcome, files: &Files) -> Result<(), String> {
    type Form = fn(&Outcome) -> String;
    let forms: [(&Option<_>, Form); 5] = [
        (&files.json, json::json),
        (&files.csv, csv::csv),
        (&files.hgrm, hgrm::hgrm),
        (&files.svg, svg::svg),
        (&files.html, html::html),
    ];
    for (path, form) in forms {
        let Some(path) = path else { continue };
        write(path, &form(outcome))
            .map_err(|error| format!("{} can't be written: {error}", path.display()))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if path == Path::new("-") {
        return io::stdout().write_all(text.as_bytes());
    }
    fs::write(path, text)
}

impl Files {
    /// The standard output belongs to one of the files.
    pub(crate) fn take_stdout(&self) -> bool {
        [&self.json, &self.csv, &self.hgrm, &self.svg, &self.html]
            .into_iter()
            .flatten()
            .any(|path| path == Path::new("-"))
    }
}

/// Bounds of a histogram to look at, in nanoseconds: equal steps on a logarithmic scale, with the counts between them.
pub(crate) fn bins(histogram: &Histogram<u64>, rows: usize) -> Vec<(u64, u64, u64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let least = histogram.min().max(1);
    let most = histogram.max() + 1;
    // A peak so narrow has too few steps of its own to be split.
    let rows = if most as f64 / (least as f64) < 1.01 {
        1
    } else {
        rows
    };
    let bound = |row: usize| {
        let share = row as f64 / rows as f64;
        (least as f64 * (most as f64 / least as f64).powf(share)).round() as u64
    };
    let mut bins: Vec<(u64, u64, u64)> = (0..rows)
        .map(|row| (bound(row), bound(row + 1), 0))
        .collect();
    for step in histogram.iter_recorded() {
        let value = step.value_iterated_to().clamp(least, most - 1);
        let row = bins
            .partition_point(|(_, end, _)| *end <= value)
            .min(rows - 1);
        bins[row].2 += step.count_at_value();
    }
    bins
}

/// Why latency and service time differ, or don't, in a line.
pub(crate) fn gap(outcome: &Outcome) -> String {
    let (plan, tally) = (&outcome.plan, &outcome.tally);
    let at_p99 = |histogram: &Histogram<u64>| histogram.value_at_quantile(0.99);
    let service = at_p99(&tally.service);
    let wait = at_p99(&tally.latency).saturating_sub(service);
    let gap = format!("The gap at p99 is {}", short(wait));
    match plan.load {
        Load::Closed if !plan.keep_alive => {
            format!("{gap}: opening the connection that each request needs.")
        }
        Load::Closed => "A closed loop has no gap: it asks a slow server less often. --rate shows what users feel."
            .to_owned(),
        Load::Open { .. } if (wait as f64) < 0.05 * service as f64 => {
            "Hardly a gap: requests went out when they were due.".to_owned()
        }
        Load::Open { .. } if tally.late_by_itself * 2 > tally.late => {
            format!("{gap}: stevedore was late though connections were free; this machine is too busy.")
        }
        Load::Open { .. } if tally.late * 100 > tally.answered() => format!(
            "{gap}: requests that were due waited until one of the {} connections was free, as users would.",
            plan.connections
        ),
        Load::Open { .. } => format!("{gap}: what it takes to wake up and send."),
    }
}

fn short(nanos: u64) -> String {
    crate::amount::short_nanos(nanos as f64)
}

/// How late requests went out, in a line; `None` in a closed loop.
pub(crate) fn lateness(outcome: &Outcome) -> Option<String> {
    let Load::Open { .. } = outcome.plan.load else {
        return None;
    };
    let tally = &outcome.tally;
    let all = tally.answered() + tally.failed();
    let mut line = match tally.late {
        0 => "none was sent more than 1 ms after it was due".to_owned(),
        late => format!(
            "{} ({}) sent more than 1 ms after they were due",
            crate::amount::grouped(late),
            crate::amount::percent(late, all)
        ),
    };
    if tally.late_by_itself > 0 {
        line += &format!(
            ", {} of them though a connection was free",
            crate::amount::grouped(tally.late_by_itself)
        );
    }
    Some(line)
}

/// When a bad client was ended; its clock counts whole milliseconds.
pub(crate) fn after(millis: u64) -> String {
    match millis {
        0 => "< 1 ms".to_owned(),
        millis => short(millis * 1_000_000),
    }
}

/// Errors by kind, largest first: faults by their words, answers of 400 and above by their status.
pub(crate) fn errors(outcome: &Outcome) -> Vec<(String, u64)> {
    let tally = &outcome.tally;
    let faults = tally.faults.iter().map(|(kind, count)| {
        let first = tally
            .first
            .get(kind)
            .filter(|words| words.as_str() != kind.explain());
        let words = first.map_or_else(|| kind.explain().to_owned(), Clone::clone);
        (words, *count)
    });
    let statuses = tally
        .statuses
        .range(400..)
        .map(|(status, count)| (format!("status {status}"), *count));
    let mut errors: Vec<_> = faults.chain(statuses).collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    errors
}

#[cfg(test)]
mod tests {
    use super::bins;
    use hdrhistogram::Histogram;

    #[test]
    fn bins_hold_everything_once() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for value in 1..=10_000 {
            histogram.record(value * 1_000).unwrap();
        }
        let bins = bins(&histogram, 12);
        assert_eq!(bins.len(), 12);
        assert_eq!(bins.iter().map(|(_, _, count)| count).sum::<u64>(), 10_000);
        assert!(bins.windows(2).all(|two| two[0].1 == two[1].0));
    }

    #[test]
    fn one_value_is_one_bin_and_none_is_none() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        assert!(bins(&histogram, 12).is_empty());
        histogram.record_n(5_000, 3).unwrap();
        let bins = bins(&histogram, 12);
        assert_eq!(bins.len(), 1);
        assert_eq!(bins[0].2, 3);
    }
}
