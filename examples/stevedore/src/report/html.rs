//! The page: what was done, the last line, the picture, the tables. One file, nothing to load, no script; what a server said is escaped.

use std::fmt::{Result, Write};

use super::{PERCENTILES, after, chart::chart, errors, gap, last_line, lateness};
use crate::amount::{bytes, grouped, percent, short_duration, short_nanos};
use crate::run::{Beside, Outcome};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#d0d5db}@media screen and (prefers-color-scheme:dark){:root{--line:#3a4149}body{background:#14171a;color:#e6e8eb}}\
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem;line-height:1.2;margin:0}\
h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.4rem 0}.p{overflow-x:auto;margin-top:1.5rem}svg{display:block;width:100%;min-width:700px;height:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
td,th{padding:.25rem .5rem;border-bottom:1px solid var(--line);text-align:right;font-weight:400}th{font-weight:600}td:first-child,th:first-child{text-align:left}\
.w{border-left:4px solid currentColor;padding-left:.75rem}@media print{:root{color-scheme:light}body{max-width:none;margin:0;background:#fff;color:#000}svg{min-width:0}tr,svg{break-inside:avoid}h2{break-after:avoid}}";

pub(crate) fn html(outcome: &Outcome) -> String {
    let mut out = String::new();
    page(&mut out, outcome).expect("a String takes everything");
    out
}

fn page(out: &mut String, outcome: &Outcome) -> Result {
    let plan = escape(&outcome.plan.describe());
    writeln!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>stevedore: {plan}</title><style>{STYLE}</style><h1>{}</h1><p>{plan}</p>",
        escape(&last_line(outcome))
    )?;
    if let Some(sentence) = outcome.overhead.bottleneck() {
        writeln!(out, "<p class=\"w\">{}</p>", escape(&sentence))?;
    }
    writeln!(out, "<div class=\"p\">{}</div>", chart(outcome))?;
    percentiles(out, outcome)?;
    answers(out, outcome)?;
    if let Some(Beside { fates, alone }) = &outcome.bad {
        let rows = fates.iter().map(|(ending, endings)| {
            [
                ending.to_string(),
                grouped(endings.count),
                after(endings.after.value_at_quantile(0.5)),
                after(endings.after.max()),
            ]
        });
        table(
            out,
            "How the bad clients were ended",
            ["Ending", "Clients", "Median", "Longest"],
            rows,
        )?;
        let rows = [50.0, 99.0, 100.0].map(|percentile| {
            let at = |tally: &crate::recorder::Tally| {
                short_nanos(tally.latency.value_at_percentile(percentile) as f64)
            };
            let name = if percentile == 100.0 {
                "max".to_owned()
            } else {
                format!("p{percentile}")
            };
            [name, at(alone), at(&outcome.tally)]
        });
        table(
            out,
            "What the good ones felt",
            ["Latency", "Alone", "Beside them"],
            rows,
        )?;
    }
    let overhead = &outcome.overhead;
    let requests = (outcome.tally.answered() + outcome.tally.failed()).max(1);
    writeln!(
        out,
        "<h2>stevedore itself</h2><p>{} of CPU a request; busiest thread {:.0} % busy; reading and drawing {:.2} %.</p></html>",
        short_duration(overhead.cpu().div_f64(requests as f64)),
        overhead.busiest() * 100.0,
        overhead.drawing() * 100.0
    )
}

fn percentiles(out: &mut String, outcome: &Outcome) -> Result {
    let (latency, service) = (&outcome.tally.latency, &outcome.tally.service);
    let rows = PERCENTILES.map(|percentile| {
        let at = |histogram: &hdrhistogram::Histogram<u64>| {
            short_nanos(histogram.value_at_percentile(percentile) as f64)
        };
        [format!("p{percentile}"), at(latency), at(service)]
    });
    let ends = |name: &str, of: fn(&hdrhistogram::Histogram<u64>) -> f64| {
        [
            name.to_owned(),
            short_nanos(of(latency)),
            short_nanos(of(service)),
        ]
    };
    let rows = [ends("min", |all| all.min() as f64)]
        .into_iter()
        .chain(rows)
        .chain([
            ends("max", |all| all.max() as f64),
            ends("mean", |all| all.mean()),
        ]);
    table(
        out,
        "Latency",
        [
            "",
            "Latency, from when it was due",
            "Service, from when it was sent",
        ],
        rows,
    )?;
    writeln!(out, "<p>{}</p>", escape(&gap(outcome)))?;
    match lateness(outcome) {
        Some(late) => writeln!(out, "<p>Late: {}.</p>", escape(&late)),
        None => Ok(()),
    }
}

fn answers(out: &mut String, outcome: &Outcome) -> Result {
    let tally = &outcome.tally;
    let all = tally.answered() + tally.failed();
    let statuses = tally
        .statuses
        .iter()
        .map(|(status, count)| [format!("{status}"), grouped(*count), percent(*count, all)]);
    table(out, "Answers", ["Status", "Count", "Share"], statuses)?;
    writeln!(
        out,
        "<p>{} sent, {} received, {} connections opened.</p>",
        bytes(tally.sent),
        bytes(tally.received),
        grouped(tally.connect.len())
    )?;
    let errors = errors(outcome);
    if errors.is_empty() {
        return Ok(());
    }
    let rows = errors
        .iter()
        .map(|(words, count)| [words.clone(), grouped(*count), percent(*count, all)]);
    table(out, "Errors", ["What", "Count", "Share"], rows)
}

fn table<const N: usize>(
    out: &mut String,
    title: &str,
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result {
    write!(out, "<h2>{title}</h2><table><tr>")?;
    for head in heads {
        write!(out, "<th>{head}")?;
    }
    for row in rows {
        write!(out, "<tr>")?;
        for cell in row {
            write!(out, "<td>{}", escape(&cell))?;
        }
    }
    writeln!(out, "</table>")
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
