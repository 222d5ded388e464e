//! The report for machines, and for `--compare`, which reads it back. The README describes it field by field.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::PERCENTILES;
use crate::fault::FaultKind;
use crate::grid::{self, STEPS};
use crate::plan::{Load, Plan};
use crate::run::{Beside, Ended, Outcome};
use crate::timeline::Slice;

/// Changes when a field changes its meaning; new fields don't change it.
pub(crate) const SCHEMA: &str = "stevedore/1";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) schema: String,
    pub(crate) plan: PlanPart,
    pub(crate) ended: String,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) latency: Latencies,
    pub(crate) service: Latencies,
    pub(crate) connect: Latencies,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) faults: BTreeMap<String, u64>,
    pub(crate) late: u64,
    pub(crate) late_by_itself: u64,
    pub(crate) sent_again: u64,
    pub(crate) unfinished: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) overhead: OverheadPart,
    pub(crate) bad: Option<BadPart>,
    pub(crate) timeline: Vec<SlicePart>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlanPart {
    pub(crate) urls: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) arrivals: Option<String>,
    pub(crate) pipeline: usize,
    pub(crate) keep_alive: bool,
    pub(crate) verify: bool,
    pub(crate) misbehave: Option<String>,
    pub(crate) bad_clients: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Latencies {
    pub(crate) count: u64,
    pub(crate) min_ns: u64,
    pub(crate) mean_ns: f64,
    pub(crate) stdev_ns: f64,
    pub(crate) max_ns: u64,
    pub(crate) percentiles_ns: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OverheadPart {
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_us_per_request: f64,
    pub(crate) busiest_thread: f64,
    pub(crate) starved_thread: f64,
    pub(crate) drawing: f64,
    pub(crate) bottleneck: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BadPart {
    pub(crate) endings: Vec<EndingPart>,
    pub(crate) latency_alone: Latencies,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EndingPart {
    pub(crate) ending: String,
    pub(crate) count: u64,
    pub(crate) median_ms: u64,
    pub(crate) longest_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SlicePart {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) late: u64,
    /// Latencies: where a step begins, in nanoseconds, and how many are in it.
    pub(crate) steps: Vec<(u64, u64)>,
}

pub(crate) fn json(outcome: &Outcome) -> String {
    let document = Document::of(outcome);
    let mut text =
        serde_json::to_string_pretty(&document).expect("plain data with keys that are text");
    text.push('\n');
    text
}

impl Document {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let tally = &outcome.tally;
        let requests = tally.answered() + tally.failed();
        let overhead = &outcome.overhead;
        Self {
            schema: SCHEMA.to_owned(),
            plan: PlanPart::of(&outcome.plan),
            ended: match &outcome.ended {
                Ended::Done => "done",
                Ended::Interrupted => "interrupted",
                Ended::Gone(_) => "server_gone",
            }
            .to_owned(),
            seconds: outcome.elapsed.as_secs_f64(),
            requests,
            answered: tally.answered(),
            errors: tally.errors(),
            requests_per_second: outcome.rate(),
            latency: Latencies::of(&tally.latency),
            service: Latencies::of(&tally.service),
            connect: Latencies::of(&tally.connect),
            statuses: tally.statuses.clone(),
            faults: FaultKind::ALL
                .map(|kind| (kind.key().to_owned(), tally.fault(kind)))
                .into(),
            late: tally.late,
            late_by_itself: tally.late_by_itself,
            sent_again: tally.sent_again,
            unfinished: tally.unfinished,
            bytes_sent: tally.sent,
            bytes_received: tally.received,
            overhead: OverheadPart {
                cpu_seconds: overhead.cpu().as_secs_f64(),
                cpu_us_per_request: overhead.cpu().as_secs_f64() * 1e6 / (requests as f64).max(1.0),
                busiest_thread: overhead.busiest(),
                starved_thread: overhead.starved(),
                drawing: overhead.drawing(),
                bottleneck: overhead.bottleneck(),
            },
            bad: outcome.bad.as_ref().map(BadPart::of),
            timeline: outcome
                .timeline
                .slices()
                .iter()
                .map(SlicePart::of)
                .collect(),
        }
    }
}

impl PlanPart {
    fn of(plan: &Plan) -> Self {
        let (rate, arrivals) = match plan.load {
            Load::Closed => (None, None),
            Load::Open { rate, arrivals } => {
                (Some(rate), Some(format!("{arrivals:?}").to_lowercase()))
            }
        };
        Self {
            urls: plan
                .targets
                .iter()
                .map(|target| target.url.to_string())
                .collect(),
            connections: plan.connections,
            threads: plan.threads,
            rate,
            arrivals,
            pipeline: plan.pipeline,
            keep_alive: plan.keep_alive,
            verify: plan.verify,
            misbehave: plan.bad.map(|bad| bad.how.to_string()),
            bad_clients: plan.bad.map_or(0, |bad| bad.clients),
        }
    }
}

impl Latencies {
    fn of(histogram: &Histogram<u64>) -> Self {
        let percentiles = PERCENTILES.map(|percentile| {
            (
                format!("p{percentile}"),
                histogram.value_at_percentile(percentile),
            )
        });
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            stdev_ns: histogram.stdev(),
            max_ns: histogram.max(),
            percentiles_ns: percentiles.into(),
        }
    }
}

impl BadPart {
    fn of(beside: &Beside) -> Self {
        let endings = beside.fates.iter().map(|(ending, endings)| EndingPart {
            ending: ending.to_string(),
            count: endings.count,
            median_ms: endings.after.value_at_quantile(0.5),
            longest_ms: endings.after.max(),
        });
        Self {
            endings: endings.collect(),
            latency_alone: Latencies::of(&beside.alone.latency),
        }
    }
}

impl SlicePart {
    fn of(slice: &Slice) -> Self {
        let steps = slice.events.grid.iter().enumerate();
        Self {
            from: slice.from.as_secs_f64(),
            to: slice.to.as_secs_f64(),
            answered: slice.events.answered,
            errors: slice.errors(),
            late: slice.events.late,
            steps: steps
                .filter(|(_, count)| **count > 0)
                .map(|(step, count)| (grid::floor_of(step), *count))
                .collect(),
        }
    }

    /// The counts on the whole scale.
    pub(crate) fn grid(&self) -> Vec<u64> {
        let mut counts = vec![0; STEPS];
        for (floor, count) in &self.steps {
            counts[grid::step_of(*floor)] += count;
        }
        counts
    }
}
