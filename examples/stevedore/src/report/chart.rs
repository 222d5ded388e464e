//! The picture: rate and errors over time, latency over time as a heat map with its percentiles, and the percentiles of the whole run.
//! Plain SVG without a script; lines differ in their dashes and the map in its density, so that it can be printed in black and white.

use std::fmt::{Result, Write};

use super::scale::{Axis, seconds_label};
use crate::amount::{grouped, short_nanos};
use crate::grid;
use crate::run::Outcome;
use crate::timeline::Slice;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 930.0;
/// Columns of the heat map at most; what is narrower than a few pixels can't be told apart.
const COLUMNS: usize = 150;

/// What both themes and the printer need.
const STYLE: &str = "\
.c{color:#1b1f24;background:#fff;font:13px system-ui,sans-serif}.c text{fill:currentColor}.c .t{font-weight:600;font-size:15px}.c .s{fill-opacity:.7}\
.c .g{stroke:currentColor;stroke-opacity:.15;stroke-width:1;fill:none}.c .l{stroke:currentColor;stroke-width:1.8;fill:none;stroke-linejoin:round}\
.c .d1{stroke-dasharray:7 4}.c .d2{stroke-dasharray:1.5 3.5;stroke-linecap:round}.c .a{fill:currentColor;fill-opacity:.12}.c .h{fill:#1f6feb}\
.c .e{fill:#c62828}@media screen and (prefers-color-scheme:dark){.c{color:#e6e8eb;background:#14171a}.c .h{fill:#6cb0ff}.c .e{fill:#ff8a80}}@media print{.c{color:#000}.c .h,.c .e{fill:#000}}";

/// The picture as one `<svg>`, which stands alone or in a page.
pub(crate) fn chart(outcome: &Outcome) -> String {
    let mut out = String::new();
    draw(&mut out, outcome).expect("a String takes everything");
    out
}

fn draw(out: &mut String, outcome: &Outcome) -> Result {
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"c\" viewBox=\"0 0 {WIDTH} 832\" role=\"img\" \
         aria-label=\"Rate, latency over time and latency distribution\"><style>{STYLE}</style>"
    )?;
    let columns = columns(outcome.timeline.slices());
    let end = columns.last().map_or(1.0, |last| last.to.as_secs_f64());
    let time = Axis::linear(0.0, end, LEFT, RIGHT);
    rate(out, &columns, &time)?;
    latency(out, &columns, &time)?;
    distribution(out, outcome)?;
    out.write_str("</svg>")
}

/// The slices, joined so that there are no more than can be seen.
fn columns(slices: &[Slice]) -> Vec<Slice> {
    let each = slices.len().div_ceil(COLUMNS).max(1);
    let joined = slices.chunks(each).map(|chunk| {
        let mut column = chunk[0].clone();
        chunk[1..].iter().for_each(|later| column.join(later));
        column
    });
    joined.collect()
}

fn rate(out: &mut String, columns: &[Slice], time: &Axis) -> Result {
    let (top, bottom) = (46.0, 186.0);
    title(out, top, "Answers a second", "filled: errors")?;
    let most = columns.iter().map(Slice::rate).fold(1.0, f64::max);
    let axis = Axis::linear(0.0, most, bottom, top);
    ticks(out, &axis, |value| grouped(value.round() as u64))?;
    time_ticks(out, time, bottom)?;
    out.write_str("<path class=\"e\" d=\"")?;
    for column in columns.iter().filter(|column| column.errors() > 0) {
        let (x, to) = (
            time.at(column.from.as_secs_f64()),
            time.at(column.to.as_secs_f64()),
        );
        let errors = column.errors() as f64 / column.seconds().max(1e-9);
        let y = axis.at(errors.min(most)).min(bottom - 2.0);
        write!(out, "M{x:.1} {bottom}V{y:.1}H{to:.1}V{bottom}z")?;
    }
    out.write_str("\"/>")?;
    line(
        out,
        "l",
        columns
            .iter()
            .map(|column| Some((middle(column, time), axis.at(column.rate())))),
    )
}

fn latency(out: &mut String, columns: &[Slice], time: &Axis) -> Result {
    let (top, bottom) = (262.0, 502.0);
    title(
        out,
        top,
        "Latency over time",
        "dotted: p50 · dashed: p99 · solid: slowest · denser: more answers",
    )?;
    let seen = |column: &Slice, share| {
        Some(grid::quantile(&column.events.grid, share)).filter(|nanos| *nanos > 0.0)
    };
    let least = columns
        .iter()
        .filter_map(|column| seen(column, 0.0))
        .fold(f64::INFINITY, f64::min);
    let most = columns
        .iter()
        .filter_map(|column| seen(column, 1.0))
        .fold(0.0, f64::max);
    if most == 0.0 {
        return write!(
            out,
            "<text class=\"s\" x=\"{LEFT}\" y=\"{}\">No answers.</text>",
            top + 30.0
        );
    }
    let axis = Axis::logarithmic(least, most, bottom, top);
    ticks(out, &axis, short_nanos)?;
    time_ticks(out, time, bottom)?;
    heat(out, columns, time, &axis)?;
    for (class, share) in [("l d2", 0.5), ("l d1", 0.99), ("l", 1.0)] {
        line(
            out,
            class,
            columns
                .iter()
                .map(|column| Some((middle(column, time), axis.at(seen(column, share)?)))),
        )?;
    }
    Ok(())
}

/// A cell is as dense as its share of the fullest one, on a scale that keeps single answers visible.
fn heat(out: &mut String, columns: &[Slice], time: &Axis, axis: &Axis) -> Result {
    let fullest = columns
        .iter()
        .flat_map(|column| column.events.grid.iter())
        .copied()
        .max()
        .unwrap_or(1)
        .max(1);
    for column in columns {
        let (x, to) = (
            time.at(column.from.as_secs_f64()),
            time.at(column.to.as_secs_f64()),
        );
        for (step, &count) in column
            .events
            .grid
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let (low, high) = (
                axis.at(grid::floor_of(step) as f64),
                axis.at(grid::floor_of(step + 1) as f64),
            );
            let density = 0.08 + 0.72 * (1.0 + count as f64).ln() / (1.0 + fullest as f64).ln();
            write!(
                out,
                "<rect class=\"h\" x=\"{x:.1}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill-opacity=\"{density:.2}\"/>",
                (to - x).max(0.5),
                (low - high).max(0.5)
            )?;
        }
    }
    Ok(())
}

/// The classical plot: each step to the right is a tenth of the requests that are left.
fn distribution(out: &mut String, outcome: &Outcome) -> Result {
    let (top, bottom) = (578.0, 806.0);
    title(
        out,
        top,
        "Latency by percentile",
        "solid: latency, from when a request was due · dashed: service, from when it was sent",
    )?;
    let (latency, service) = (&outcome.tally.latency, &outcome.tally.service);
    if latency.is_empty() {
        return write!(
            out,
            "<text class=\"s\" x=\"{LEFT}\" y=\"{}\">No answers.</text>",
            top + 30.0
        );
    }
    let nines = (latency.len() as f64).log10().clamp(1.0, 6.0);
    let across = Axis::linear(0.0, nines, LEFT, RIGHT);
    let axis = Axis::logarithmic(
        service.min().max(1) as f64,
        latency.max() as f64,
        bottom,
        top,
    );
    ticks(out, &axis, short_nanos)?;
    for (nine, label) in [
        (0.0, "p0"),
        (0.301, "p50"),
        (1.0, "p90"),
        (2.0, "p99"),
        (3.0, "p99.9"),
        (4.0, "p99.99"),
        (5.0, "p99.999"),
    ] {
        if nine <= nines {
            mark(out, across.at(nine), bottom, label)?;
        }
    }
    for (class, histogram) in [("l", latency), ("l d1", service)] {
        let points = (0..=400).map(|step| {
            let nine = nines * f64::from(step) / 400.0;
            let nanos = histogram.value_at_quantile(1.0 - 10f64.powf(-nine));
            Some((across.at(nine), axis.at(nanos.max(1) as f64)))
        });
        line(out, class, points)?;
    }
    Ok(())
}

fn middle(column: &Slice, time: &Axis) -> f64 {
    time.at((column.from + (column.to - column.from) / 2).as_secs_f64())
}

fn title(out: &mut String, top: f64, text: &str, key: &str) -> Result {
    let y = top - 22.0;
    write!(
        out,
        "<text x=\"{LEFT}\" y=\"{y}\"><tspan class=\"t\">{text}</tspan><tspan class=\"s\" dx=\"16\">{key}</tspan></text>"
    )
}

/// Lines across the panel with their values on the left.
fn ticks(out: &mut String, axis: &Axis, label: impl Fn(f64) -> String) -> Result {
    for value in axis.ticks() {
        let y = axis.at(value);
        write!(
            out,
            "<path class=\"g\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/><text class=\"s\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            label(value)
        )?;
    }
    Ok(())
}

fn time_ticks(out: &mut String, time: &Axis, bottom: f64) -> Result {
    for value in time.ticks() {
        mark(out, time.at(value), bottom, &seconds_label(value))?;
    }
    Ok(())
}

fn mark(out: &mut String, x: f64, bottom: f64, label: &str) -> Result {
    write!(
        out,
        "<path class=\"g\" d=\"M{x:.1} {bottom}v5\"/><text class=\"s\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
        bottom + 20.0
    )
}

/// A line through the points, with a gap where there is none.
fn line(out: &mut String, class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) -> Result {
    write!(out, "<path class=\"{class}\" d=\"")?;
    let mut pen = 'M';
    for point in points {
        let Some((x, y)) = point else {
            pen = 'M';
            continue;
        };
        write!(out, "{pen}{x:.1} {y:.1}")?;
        pen = 'L';
    }
    out.write_str("\"/>")
}
