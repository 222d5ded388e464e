//! Wall clock time as text, in UTC. Days become dates by counting from a 1 March, so that a leap day is the last of its
//! year and months have a rule (H. Hinnant's `civil_from_days`).

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u32,
}

impl From<SystemTime> for Civil {
    /// A clock set to before 1970 reads 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // From 0000-03-01; an era is 400 years, always 146,097 days.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let january_or_february = month >= 10;
        Self {
            year: 400 * era + year + u64::from(january_or_february),
            month: if january_or_february {
                month - 9
            } else {
                month + 3
            },
            day: day - (153 * month + 2) / 5 + 1,
            hour: second / 3_600,
            minute: second / 60 % 60,
            second: second % 60,
            millisecond: since.subsec_millis(),
        }
    }
}

/// `24/Nov/2026:04:01:59 +0000`.
pub(super) fn common(out: &mut Vec<u8>, time: SystemTime) {
    let t = Civil::from(time);
    let month = MONTHS[(t.month - 1) as usize % 12];
    let (day, year, hour, minute, second) = (t.day, t.year, t.hour, t.minute, t.second);
    let _ = write!(
        out,
        "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000"
    );
}

/// `2026-11-24T04:01:59.250Z` (RFC 3339).
pub(super) fn rfc3339(out: &mut Vec<u8>, time: SystemTime) {
    let t = Civil::from(time);
    let (year, month, day, hour, minute) = (t.year, t.month, t.day, t.hour, t.minute);
    let (second, millisecond) = (t.second, t.millisecond);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(write: fn(&mut Vec<u8>, SystemTime), time: SystemTime) -> String {
        let mut out = Vec::new();
        write(&mut out, time);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn a_moment_has_both_forms() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_492_919_250);
        assert_eq!(text(common, time), "24/Nov/2026:04:01:59 +0000");
        assert_eq!(text(rfc3339, time), "2026-11-24T04:01:59.250Z");
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(text(rfc3339, before), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn each_day_of_230_years_is_the_one_that_httpdate_says() {
        for day in 0..84_000 {
            let time = UNIX_EPOCH + Duration::from_secs(day * 86_400 + day * 7 % 86_400);
            // Sun, 06 Nov 1994 08:49:37 GMT
            let date = httpdate::fmt_http_date(time);
            let (day, month, year, clock) =
                (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
            assert_eq!(
                text(common, time),
                format!("{day}/{month}/{year}:{clock} +0000")
            );
            let number = MONTHS.iter().position(|name| *name == month).unwrap() + 1;
            assert_eq!(
                text(rfc3339, time),
                format!("{year}-{number:02}-{day}T{clock}.000Z")
            );
        }
    }
}
