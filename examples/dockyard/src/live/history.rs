//! The last ten seconds in quarters, and two minutes in seconds: what rates and quantiles are made of.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use wharf_middleware::metrics::{Snapshot, StatusClass};
use wharf_middleware::timed::Share;

use super::phases::Sums;

/// What quantiles are taken of.
const WINDOW: Duration = Duration::from_secs(10);
/// What rates are taken of.
const RATE: Duration = Duration::from_secs(1);
/// Seconds that are remembered.
const SECONDS: usize = 120;
/// Rows of the heat map: one for each doubling, the lowest for all that took less than about 33 µs.
pub(super) const ROWS: usize = 20;
/// The power of two, in nanoseconds, at which the lowest row ends.
const LOWEST: u32 = 15;

/// What was counted up to one moment.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) counted: Snapshot,
    pub(super) sums: Sums,
    pub(super) layers: Vec<Share>,
}

/// Samples of the last seconds, and what became of those before.
#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    columns: VecDeque<Column>,
    /// The last sample of the second before.
    last: Option<Sample>,
}

/// A second: its requests, and how long they took.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Column {
    /// Which second since the start.
    second: u64,
    requests: u64,
    errors: u64,
    /// Fastest first.
    rows: [u64; ROWS],
}

/// How it is now.
pub(super) struct View {
    /// Requests a second.
    pub(super) rate: f64,
    /// Of the last ten seconds.
    pub(super) window: Snapshot,
    /// Client errors, server errors and broken responses a second.
    pub(super) errors: [f64; 3],
    /// Where the time of the last ten seconds went.
    pub(super) parts: Vec<Part>,
    /// A second that has just passed.
    pub(super) column: Option<Column>,
}

impl History {
    /// Takes a sample; says how it is now.
    pub(super) fn add(&mut self, now: Sample) -> View {
        let at = now.counted.span();
        let is_old = |then: &Sample| at - then.counted.span() > WINDOW;
        while self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
        let column = self.close_second(&now);
        let window = self.samples.front().unwrap_or(&now);
        let recent = |then: &&Sample| at - then.counted.span() <= RATE;
        let recent = self.samples.iter().find(recent).unwrap_or(&now);
        let second = &now.counted - &recent.counted;
        let per_second = |count: u64| match second.span().as_secs_f64() {
            0.0 => 0.0,
            seconds => count as f64 / seconds,
        };
        let view = View {
            rate: second.per_second(),
            errors: errors(&second).map(per_second),
            parts: parts(window, &now),
            window: &now.counted - &window.counted,
            column,
        };
        self.samples.push_back(now);
        view
    }

    /// The seconds that have passed.
    pub(super) fn columns(&self) -> Vec<Column> {
        self.columns.iter().cloned().collect()
    }

    fn close_second(&mut self, now: &Sample) -> Option<Column> {
        let before = self.last.get_or_insert_with(|| now.clone());
        let second = before.counted.span().as_secs();
        if now.counted.span().as_secs() == second {
            return None;
        }
        let passed = &now.counted - &before.counted;
        let column = Column {
            second,
            requests: passed.requests(),
            errors: errors(&passed).iter().sum(),
            rows: rows(&passed),
        };
        self.last = Some(now.clone());
        if self.columns.len() == SECONDS {
            self.columns.pop_front();
        }
        self.columns.push_back(column.clone());
        Some(column)
    }
}

/// Client errors, server errors, and responses that were broken off.
pub(super) fn errors(counted: &Snapshot) -> [u64; 3] {
    [
        counted.of_class(StatusClass::ClientError),
        counted.of_class(StatusClass::ServerError),
        counted.broken(),
    ]
}

fn rows(counted: &Snapshot) -> [u64; ROWS] {
    let mut below = 0;
    std::array::from_fn(|row| {
        let bound = if row + 1 == ROWS {
            u64::MAX
        } else {
            1 << (LOWEST + row as u32)
        };
        let all = counted.durations().at_most(bound);
        let of_row = all - below;
        below = all;
        of_row
    })
}

/// What a part of a request's way took, on average and in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    name: String,
    micros: f64,
}

/// Between two samples: the head, the wait until the service was ready, each layer's own time, what is inside of them,
/// and the body.
fn parts(then: &Sample, now: &Sample) -> Vec<Part> {
    let requests = now.sums.requests.saturating_sub(then.sums.requests);
    let of_one = |then: Duration, now: Duration, count: u64| {
        now.saturating_sub(then).as_secs_f64() * 1e6 / count.max(1) as f64
    };
    let part = |name: &str, then, now| Part {
        name: name.to_owned(),
        micros: of_one(then, now, requests),
    };
    let layers = then.layers.iter().zip(&now.layers);
    let layers: Vec<_> = layers
        .map(|(then, now)| Part {
            name: now.name.to_string(),
            micros: of_one(then.own, now.own, now.calls.saturating_sub(then.calls)),
        })
        .collect();
    let answer = of_one(then.sums.answer, now.sums.answer, requests);
    let own: f64 = layers.iter().map(|layer| layer.micros).sum();
    let handler = Part {
        name: "handler".to_owned(),
        micros: (answer - own).max(0.0),
    };
    let mut parts = vec![
        part("head", then.sums.head, now.sums.head),
        part("ready", then.sums.ready, now.sums.ready),
    ];
    parts.extend(layers);
    parts.push(handler);
    parts.push(part("body", then.sums.body, now.sums.body));
    parts
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use tower::{ServiceBuilder, ServiceExt, service_fn};
    use wharf_middleware::Metrics;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_of_the_last_second_and_quantiles_of_the_last_ten() {
        let metrics = Metrics::new();
        let sleeper = service_fn(|request: Request<String>| async move {
            let millis = request.body().parse().unwrap();
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("x")))
        });
        let app = ServiceBuilder::new()
            .layer(metrics.clone())
            .service(sleeper);
        let mut history = History::default();
        let ask = async |millis: u64| {
            let request = Request::new(millis.to_string());
            let response = app.clone().oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap();
        };
        let mut look = || {
            let counted = metrics.snapshot();
            let (sums, layers) = (Sums::default(), Vec::new());
            history.add(Sample {
                counted,
                sums,
                layers,
            })
        };
        look();
        ask(1_000).await;
        let view = look();
        assert!(view.window.duration(0.5).unwrap() >= Duration::from_secs(1));
        for _ in 0..60 {
            for _ in 0..10 {
                ask(10).await;
            }
            tokio::time::advance(Duration::from_millis(150)).await;
            look();
        }
        let view = look();
        assert!((view.rate - 40.0).abs() < 1.0, "{}", view.rate);
        assert!(view.window.duration(0.999).unwrap() < Duration::from_millis(12));
        let columns = history.columns();
        assert_eq!(columns.len(), 16);
        assert_eq!(columns[0].rows[ROWS - 1 - 4], columns[0].requests);
        assert!(
            columns[2..].iter().all(|column| column.requests == 40),
            "{columns:?}"
        );
    }
}
