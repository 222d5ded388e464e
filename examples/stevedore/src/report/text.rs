//! The report on a terminal or in a log: percentiles, histogram, errors, overhead; the count, the seconds and the rate
//! come last.

use std::fmt::Write;

use super::{PERCENTILES, after, bins, errors, gap, lateness};
use crate::amount::{bytes, grouped, percent, short_duration, short_nanos};
use crate::misbehave::Fates;
use crate::recorder::Tally;
use crate::run::{Beside, Outcome};

const ROWS: usize = 12;
const BAR: usize = 40;

/// The whole report, ending with a line break.
pub(crate) fn text(outcome: &Outcome) -> String {
    let mut out = String::new();
    write_all(&mut out, outcome).expect("a String takes everything");
    out
}

fn write_all(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let tally = &outcome.tally;
    writeln!(out, "{}\n", outcome.plan.describe())?;
    if tally.answered() > 0 {
        percentiles(out, tally)?;
        writeln!(out, "  {}\n", gap(outcome))?;
        histogram(out, tally)?;
    }
    answers(out, outcome)?;
    if let Some(Beside { fates, alone }) = &outcome.bad {
        writeln!(out)?;
        beside(out, fates, alone, tally)?;
    }
    writeln!(out)?;
    overhead(out, outcome)?;
    writeln!(out, "{}", last_line(outcome))
}

fn percentiles(out: &mut String, tally: &Tally) -> std::fmt::Result {
    writeln!(out, "  {:<8}{:>12}{:>12}", "", "latency", "service")?;
    let mut row = |name: &str, latency: f64, service: f64| {
        writeln!(
            out,
            "  {name:<8}{:>12}{:>12}",
            short_nanos(latency),
            short_nanos(service)
        )
    };
    let (latency, service) = (&tally.latency, &tally.service);
    row("min", latency.min() as f64, service.min() as f64)?;
    for percentile in PERCENTILES {
        let at = |histogram: &hdrhistogram::Histogram<u64>| {
            histogram.value_at_percentile(percentile) as f64
        };
        row(&format!("p{percentile}"), at(latency), at(service))?;
    }
    row("max", latency.max() as f64, service.max() as f64)?;
    row("mean", latency.mean(), service.mean())
}

fn histogram(out: &mut String, tally: &Tally) -> std::fmt::Result {
    let bins = bins(&tally.latency, ROWS);
    let most = bins
        .iter()
        .map(|(_, _, count)| *count)
        .max()
        .unwrap_or(0)
        .max(1);
    for (from, to, count) in bins {
        writeln!(
            out,
            "  {:>8} – {:<8} │{:<BAR$}│ {:>12} {:>9}",
            short_nanos(from as f64),
            short_nanos(to as f64),
            bar(count as f64 / most as f64, BAR),
            grouped(count),
            percent(count, tally.answered()),
        )?;
    }
    writeln!(out)
}

/// A share of a width, to an eighth of a character; what is there is seen.
fn bar(share: f64, width: usize) -> String {
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut bar = "█".repeat(eighths / 8);
    bar.extend(
        [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉']
            .get(eighths % 8)
            .filter(|_| !eighths.is_multiple_of(8)),
    );
    bar
}

fn answers(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let tally = &outcome.tally;
    let mut line = |name: &str, value: &str| writeln!(out, "  {name:<12}{value}");
    let statuses: Vec<String> = tally
        .statuses
        .iter()
        .map(|(status, count)| format!("{} × {status}", grouped(*count)))
        .collect();
    line(
        "answers",
        &if statuses.is_empty() {
            "none".to_owned()
        } else {
            statuses.join(", ")
        },
    )?;
    let errors = errors(outcome);
    if errors.is_empty() {
        line("errors", "none")?;
    }
    for (place, (words, count)) in errors.iter().enumerate() {
        line(
            if place == 0 { "errors" } else { "" },
            &format!("{} × {words}", grouped(*count)),
        )?;
    }
    if tally.sent_again > 0 {
        let again = grouped(tally.sent_again);
        line(
            "sent again",
            &format!("{again} that the server had announced to ignore (connection: close)"),
        )?;
    }
    if tally.unfinished > 0 {
        line(
            "unfinished",
            &format!(
                "{} under way or due when the time was over",
                grouped(tally.unfinished)
            ),
        )?;
    }
    if let Some(late) = lateness(outcome) {
        line("late", &late)?;
    }
    let connects = &tally.connect;
    line(
        "traffic",
        &format!(
            "{} sent, {} received",
            bytes(tally.sent),
            bytes(tally.received)
        ),
    )?;
    line(
        "connections",
        &format!(
            "{} opened, each in {} (median), {} (slowest)",
            grouped(connects.len()),
            short_nanos(connects.value_at_quantile(0.5) as f64),
            short_nanos(connects.max() as f64)
        ),
    )
}

/// How the bad ones were ended, and what the good ones felt.
fn beside(out: &mut String, fates: &Fates, alone: &Tally, with: &Tally) -> std::fmt::Result {
    writeln!(
        out,
        "  bad clients were ended like this, after (median, longest)"
    )?;
    for (ending, endings) in fates {
        writeln!(
            out,
            "    {:>9} × {ending:<38}{:>9}{:>10}",
            grouped(endings.count),
            after(endings.after.value_at_quantile(0.5)),
            after(endings.after.max())
        )?;
    }
    writeln!(out, "  the good ones felt     alone   beside them")?;
    for percentile in [50.0, 99.0, 100.0] {
        let name = if percentile == 100.0 {
            "max".to_owned()
        } else {
            format!("p{percentile}")
        };
        let at = |tally: &Tally| short_nanos(tally.latency.value_at_percentile(percentile) as f64);
        writeln!(out, "    {name:<12}{:>12}{:>14}", at(alone), at(with))?;
    }
    let share = |tally: &Tally| percent(tally.errors(), tally.answered() + tally.failed());
    writeln!(
        out,
        "    {:<12}{:>12}{:>14}",
        "errors",
        share(alone),
        share(with)
    )
}

fn overhead(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let overhead = &outcome.overhead;
    let requests = outcome.tally.answered() + outcome.tally.failed();
    let each = overhead.cpu().div_f64((requests as f64).max(1.0));
    writeln!(
        out,
        "  {:<12}{} of CPU a request; busiest thread {:.0} % busy; reading and drawing {:.2} %",
        "overhead",
        short_duration(each),
        overhead.busiest() * 100.0,
        overhead.drawing() * 100.0
    )?;
    if let Some(sentence) = overhead.bottleneck() {
        writeln!(out, "  {sentence}")?;
    }
    writeln!(out)
}

/// The count, the seconds and the rate.
pub(crate) fn last_line(outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let mut line = format!(
        "{} requests in {:.3} s: {} requests/s",
        grouped(tally.answered() + tally.failed()),
        outcome.elapsed.as_secs_f64(),
        grouped(outcome.rate().round() as u64)
    );
    if tally.errors() > 0 {
        line += &format!(", {} errors", grouped(tally.errors()));
    }
    line
}

/// One try of the search for the knee.
pub(crate) fn knee_row(outcome: &Outcome, wanted: f64, verdict: &str) -> String {
    let at = |quantile| short_nanos(outcome.tally.latency.value_at_quantile(quantile) as f64);
    format!(
        "  {:>11}/s  {:>11}/s  p50 {:>8}  p99 {:>8}  errors {:<6} {verdict}",
        grouped(wanted.round() as u64),
        grouped(outcome.rate().round() as u64),
        at(0.5),
        at(0.99),
        outcome.tally.errors(),
    )
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(0.001, 4), "▏");
        assert_eq!(bar(0.40625, 4), "█▋");
    }
}
