//! Durations and counts as people write and read them.

use std::time::Duration;

/// `10s`, `1.5m`, `250ms`, `40us`: a number and its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("`{text}` is not a time like 10s, 1.5m or 250ms");
    let unit = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(wanted)?;
    let number: f64 = text[..unit].parse().map_err(|_| wanted())?;
    let seconds = match &text[unit..] {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wanted()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wanted())
}

/// Three digits and a unit.
pub(crate) fn short_duration(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    // Halves are rounded up into the next unit here, so that nothing reads "1000 µs".
    let (value, unit) = match nanos {
        nanos if nanos < 999.5 => (nanos, "ns"),
        nanos if nanos < 999.5e3 => (nanos / 1e3, "µs"),
        nanos if nanos < 999.5e6 => (nanos / 1e6, "ms"),
        nanos => (nanos / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

pub(crate) fn short_nanos(nanos: f64) -> String {
    short_duration(Duration::from_nanos(nanos.max(0.0).round() as u64))
}

fn three_digits(value: f64) -> String {
    match value {
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// `1,234,567`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `12.3 MB`.
pub(crate) fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        count if count < 1e3 => format!("{count:.0} B"),
        count if count < 999.5e3 => format!("{} kB", three_digits(count / 1e3)),
        count if count < 999.5e6 => format!("{} MB", three_digits(count / 1e6)),
        count => format!("{} GB", three_digits(count / 1e9)),
    }
}

/// A share of a whole.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    format!("{:.2} %", part as f64 * 100.0 / (whole as f64).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::{bytes, grouped, parse_duration, short_duration};
    use std::time::Duration;

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("40µs"), parse_duration("40us"));
        for bad in [
            "",
            "10",
            "s",
            "1.2.3s",
            "-1s",
            "1d",
            "99999999999999999999h",
        ] {
            assert!(
                parse_duration(bad)
                    .unwrap_err()
                    .contains("is not a time like 10s"),
                "{bad}"
            );
        }
    }

    #[test]
    fn durations_have_three_digits() {
        let short = |nanos| short_duration(Duration::from_nanos(nanos));
        assert_eq!(short(0), "0.00 ns");
        assert_eq!(short(1_234), "1.23 µs");
        assert_eq!(short(12_345_678), "12.3 ms");
        assert_eq!(short(999_600), "1.00 ms");
        assert_eq!(short(123_456_789_000), "123 s");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(100_000), "100,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_345_678), "12.3 MB");
    }
}
