//! How a run went over time, a line a slice, for a spreadsheet. Times in seconds, latencies in milliseconds.

use std::fmt::Write;

use crate::grid;
use crate::run::Outcome;

pub(crate) fn csv(outcome: &Outcome) -> String {
    let mut out =
        "from_s,to_s,answered,errors,late,rate_per_s,bytes_received,p50_ms,p90_ms,p99_ms,max_ms\r\n".to_owned();
    for slice in outcome.timeline.slices() {
        let at = |share| grid::quantile(&slice.events.grid, share) / 1e6;
        writeln!(
            out,
            "{:.3},{:.3},{},{},{},{:.1},{},{:.4},{:.4},{:.4},{:.4}\r",
            slice.from.as_secs_f64(),
            slice.to.as_secs_f64(),
            slice.events.answered,
            slice.errors(),
            slice.events.late,
            slice.rate(),
            slice.events.received,
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
        )
        .expect("a String takes everything");
    }
    out
}
