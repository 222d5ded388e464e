//! `p99<20ms`, `errors>1%`, `rate<5000`: what `--fail-if` and `--find-knee` are told, and whether it is so.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::amount::{parse_duration, short_duration};
use crate::run::Outcome;

/// A comparison of something measured with a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    metric: Metric,
    compare: Compare,
    /// Seconds, a count, a share or a rate.
    value: f64,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    /// From 0 to 100.
    Latency(f64),
    Service(f64),
    Mean,
    Errors,
    ErrorShare,
    Late,
    LateShare,
    Rate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const WANTED: &str = "a condition reads like p99<20ms, p99.9>=1s, mean>5ms, max>1s, service-p99>5ms, errors>0, errors>1%, \
                      late>1% or rate<5000";

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}`: {WANTED}");
        let at = text.find(['<', '>']).ok_or_else(bad)?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let (compare, value) = match rest.as_bytes() {
            [b'<', b'=', ..] => (Compare::LessOrEqual, &rest[2..]),
            [b'>', b'=', ..] => (Compare::GreaterOrEqual, &rest[2..]),
            [b'<', ..] => (Compare::Less, &rest[1..]),
            _ => (Compare::Greater, &rest[1..]),
        };
        let value = value.trim();
        let (service, name) = match name.strip_prefix("service-") {
            Some(name) => (true, name),
            None => (false, name),
        };
        let percentile = match name {
            "max" => Some(100.0),
            "min" => Some(0.0),
            name => name
                .strip_prefix('p')
                .and_then(|digits| digits.parse().ok()),
        };
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|value: &f64| value.is_finite() && *value >= 0.0)
        };
        let (metric, value) = match (name, percentile, value.strip_suffix('%')) {
            (_, Some(percentile), None) if (0.0..=100.0).contains(&percentile) => {
                let metric = if service {
                    Metric::Service(percentile)
                } else {
                    Metric::Latency(percentile)
                };
                (
                    metric,
                    parse_duration(value).ok().map(|value| value.as_secs_f64()),
                )
            }
            ("mean", ..) if !service => (
                Metric::Mean,
                parse_duration(value).ok().map(|value| value.as_secs_f64()),
            ),
            ("errors", _, Some(share)) if !service => (
                Metric::ErrorShare,
                number(share.trim()).map(|share| share / 100.0),
            ),
            ("errors", _, None) if !service => (Metric::Errors, number(value)),
            ("late", _, Some(share)) if !service => (
                Metric::LateShare,
                number(share.trim()).map(|share| share / 100.0),
            ),
            ("late", _, None) if !service => (Metric::Late, number(value)),
            ("rate", _, None) if !service => (Metric::Rate, number(value)),
            _ => return Err(bad()),
        };
        let value = value.ok_or_else(bad)?;
        Ok(Self {
            metric,
            compare,
            value,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Whether it is so.
    pub(crate) fn holds(&self, outcome: &Outcome) -> bool {
        let measured = self.measured(outcome);
        match self.compare {
            Compare::Less => measured < self.value,
            Compare::LessOrEqual => measured <= self.value,
            Compare::Greater => measured > self.value,
            Compare::GreaterOrEqual => measured >= self.value,
        }
    }

    fn measured(&self, outcome: &Outcome) -> f64 {
        let tally = &outcome.tally;
        let share =
            |count: u64| count as f64 / ((tally.answered() + tally.failed()) as f64).max(1.0);
        match self.metric {
            Metric::Latency(percentile) => seconds(tally.latency.value_at_percentile(percentile)),
            Metric::Service(percentile) => seconds(tally.service.value_at_percentile(percentile)),
            Metric::Mean => tally.latency.mean() / 1e9,
            Metric::Errors => tally.errors() as f64,
            Metric::ErrorShare => share(tally.errors()),
            Metric::Late => tally.late as f64,
            Metric::LateShare => share(tally.late),
            Metric::Rate => outcome.rate(),
        }
    }

    /// What was measured, for people.
    pub(crate) fn explain(&self, outcome: &Outcome) -> String {
        let measured = self.measured(outcome);
        match self.metric {
            Metric::Latency(_) | Metric::Service(_) | Metric::Mean => {
                short_duration(Duration::from_secs_f64(measured))
            }
            Metric::Errors | Metric::Late | Metric::Rate => format!("{measured:.0}"),
            Metric::ErrorShare | Metric::LateShare => format!("{:.2} %", measured * 100.0),
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::{Compare, Condition, Metric};

    fn parse(text: &str) -> Option<(Metric, Compare, f64)> {
        let condition: Condition = text.parse().ok()?;
        Some((condition.metric, condition.compare, condition.value))
    }

    #[test]
    fn conditions_are_read() {
        assert_eq!(
            parse("p99<20ms"),
            Some((Metric::Latency(99.0), Compare::Less, 0.02))
        );
        assert_eq!(
            parse("p99.9 >= 1s"),
            Some((Metric::Latency(99.9), Compare::GreaterOrEqual, 1.0))
        );
        assert_eq!(
            parse("max>1.5s"),
            Some((Metric::Latency(100.0), Compare::Greater, 1.5))
        );
        assert_eq!(
            parse("service-p50<=5us"),
            Some((Metric::Service(50.0), Compare::LessOrEqual, 5e-6))
        );
        assert_eq!(
            parse("errors>1%"),
            Some((Metric::ErrorShare, Compare::Greater, 0.01))
        );
        assert_eq!(
            parse("errors>0"),
            Some((Metric::Errors, Compare::Greater, 0.0))
        );
        assert_eq!(
            parse("rate<5000"),
            Some((Metric::Rate, Compare::Less, 5000.0))
        );
    }

    #[test]
    fn what_is_no_condition_gets_an_example() {
        for text in [
            "",
            "p99",
            "p99=1ms",
            "p101<1s",
            "p99<20",
            "p99<-1ms",
            "px<1s",
            "errors>x",
            "rate>5%",
            "service-rate>5",
        ] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.contains("p99<20ms"), "{text}: {error}");
        }
    }
}
