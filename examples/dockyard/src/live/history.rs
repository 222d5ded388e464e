//! The last ten seconds in quarters, and two minutes in seconds: what rates and quantiles are made of.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::latency::{ROWS, between, quantile, rows};
use super::phases::Measured;

/// What quantiles are taken of.
const WINDOW: Duration = Duration::from_secs(10);
/// What the rate is taken of.
const RATE: Duration = Duration::from_secs(1);
/// Seconds that are remembered.
const SECONDS: usize = 120;

/// Samples of the last seconds, and what became of those before.
#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<(Duration, Measured)>,
    columns: VecDeque<Column>,
    /// The last sample of the second before.
    last: Option<(Duration, Measured)>,
}

/// A second: its requests, and how long they took.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Column {
    /// Which second since the start.
    pub(super) second: u64,
    pub(super) requests: u64,
    pub(super) errors: u64,
    /// Fastest first.
    pub(super) rows: [u64; ROWS],
}

/// How it is now.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) now: Measured,
    /// Requests a second.
    pub(super) rate: f64,
    /// Client errors, server errors and broken responses a second.
    pub(super) errors: [f64; 3],
    /// p50, p99 and p99.9 of the last ten seconds, in microseconds.
    pub(super) quantiles: [Option<f64>; 3],
    /// Of the last ten seconds: head, ready, answer and body.
    pub(super) times: [Duration; 4],
    /// The requests that these are of.
    pub(super) requests: u64,
    /// A second that has just passed.
    pub(super) column: Option<Column>,
}

impl History {
    /// Takes a sample; says how it is now.
    pub(super) fn add(&mut self, at: Duration, now: Measured) -> View {
        while self
            .samples
            .front()
            .is_some_and(|(then, _)| at - *then > WINDOW)
        {
            self.samples.pop_front();
        }
        let column = self.close_second(at, &now);
        let nothing = Measured::default();
        let oldest = self.samples.front().map_or(&nothing, |(_, then)| then);
        let recent = self.samples.iter().find(|(then, _)| at - *then <= RATE);
        let (since, before) = recent.map_or((Duration::ZERO, &nothing), |(then, it)| (*then, it));
        let seconds = (at - since).as_secs_f64().max(0.25);
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let latency = between(&oldest.latency, &now.latency);
        let view = View {
            rate: per_second(now.requests, before.requests),
            errors: [
                per_second(now.client_errors, before.client_errors),
                per_second(now.server_errors, before.server_errors),
                per_second(now.broken_off, before.broken_off),
            ],
            quantiles: [0.5, 0.99, 0.999].map(|share| quantile(&latency, share)),
            times: [
                now.head.saturating_sub(oldest.head),
                now.ready.saturating_sub(oldest.ready),
                now.answer.saturating_sub(oldest.answer),
                now.body.saturating_sub(oldest.body),
            ],
            requests: now.requests.saturating_sub(oldest.requests),
            column,
            now: now.clone(),
        };
        self.samples.push_back((at, now));
        view
    }

    /// The seconds that have passed.
    pub(super) fn columns(&self) -> Vec<Column> {
        self.columns.iter().cloned().collect()
    }

    fn close_second(&mut self, at: Duration, now: &Measured) -> Option<Column> {
        let Some((began, before)) = &self.last else {
            self.last = Some((at, now.clone()));
            return None;
        };
        if at.as_secs() == began.as_secs() {
            return None;
        }
        let errors = |it: &Measured| it.client_errors + it.server_errors + it.broken_off;
        let column = Column {
            second: began.as_secs(),
            requests: now.requests.saturating_sub(before.requests),
            errors: errors(now).saturating_sub(errors(before)),
            rows: rows(&between(&before.latency, &now.latency)),
        };
        self.last = Some((at, now.clone()));
        if self.columns.len() == SECONDS {
            self.columns.pop_front();
        }
        self.columns.push_back(column.clone());
        Some(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::latency::Latency;

    #[test]
    fn the_rate_is_that_of_the_last_second_and_quantiles_are_of_the_last_ten() {
        let (mut history, latency) = (History::default(), Latency::default());
        let mut requests = 0;
        let mut view = View::default();
        for quarter in 0..60_u32 {
            // A slow one at the very beginning, then ten fast ones a quarter.
            let millis = if quarter == 0 { 1_000 } else { 1 };
            (0..10).for_each(|_| latency.add(Duration::from_millis(millis)));
            requests += 10;
            let measured = Measured {
                requests,
                latency: latency.now(),
                ..Measured::default()
            };
            view = history.add(Duration::from_millis(250) * quarter, measured);
            if quarter == 10 {
                assert!(view.quantiles[2].unwrap() < 2_000.0 || view.requests >= 100);
            }
        }
        assert!((view.rate - 40.0).abs() < 0.1, "{}", view.rate);
        assert!(view.quantiles[2].unwrap() < 1_200.0, "{:?}", view.quantiles);
        assert_eq!(history.columns().len(), 14);
        assert!(
            history.columns()[1..]
                .iter()
                .all(|column| column.requests == 40)
        );
    }
}
