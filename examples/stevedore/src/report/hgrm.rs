//! The percentile distribution in the text form that HdrHistogram's own plotters read; latencies in milliseconds.

use std::fmt::Write;

use crate::run::Outcome;

/// Lines for each halving of what is left.
const TICKS: u32 = 5;

pub(crate) fn hgrm(outcome: &Outcome) -> String {
    let histogram = &outcome.tally.latency;
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let (mut total, mut last) = (0, None);
    for step in histogram.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to();
        let quantile = step.quantile_iterated_to();
        // A value may come twice, for its own share and for a larger one; the last line is for all.
        let is_told = last.replace((value, total)) == Some((value, total));
        if is_told && quantile < 1.0 {
            continue;
        }
        write!(
            out,
            "{:>12.3} {quantile:>14.12} {total:>10}",
            value as f64 / 1e6
        )
        .expect("a String takes everything");
        if quantile < 1.0 {
            write!(out, " {:>14.2}", 1.0 / (1.0 - quantile)).expect("a String takes everything");
        }
        out.push('\n');
    }
    let mut footer = |text: String| out.push_str(&text);
    footer(format!(
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n",
        histogram.mean() / 1e6,
        histogram.stdev() / 1e6
    ));
    footer(format!(
        "#[Max     = {:>12.3}, Total count    = {:>12}]\n",
        histogram.max() as f64 / 1e6,
        histogram.len()
    ));
    let sub_buckets = 1u32 << 11;
    footer(format!(
        "#[Buckets = {:>12}, SubBuckets     = {sub_buckets:>12}]\n",
        histogram.buckets()
    ));
    out
}
