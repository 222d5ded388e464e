//! The `date` field line, made once a second and thread and copied from there.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use tokio::time::Instant;

/// Bytes of a whole line: `date: Sun, 06 Nov 1994 08:49:37 GMT` and CR LF.
pub const LINE: usize = 37;

struct Cached {
    line: [u8; LINE],
    /// The value alone, made when it is first asked for.
    value: Option<HeaderValue>,
    /// The line is right until this instant of the monotonic clock.
    until: Option<Instant>,
}

thread_local! {
    static CACHED: RefCell<Cached> = const { RefCell::new(Cached { line: [b' '; LINE], value: None, until: None }) };
}

/// The `date` line for now; `now` is the caller's reading of the monotonic clock, so that this reads no clock itself
/// but once a second (RFC 9110 section 6.6.1).
pub fn line(now: Instant) -> [u8; LINE] {
    CACHED.with_borrow_mut(|cached| {
        if cached.until.is_none_or(|until| now >= until) {
            cached.renew(now);
        }
        cached.line
    })
}

/// The value of the `date` field for now, by the clock that [`line()`] goes by.
pub fn value(now: Instant) -> HeaderValue {
    CACHED.with_borrow_mut(|cached| {
        if cached.until.is_none_or(|until| now >= until) {
            cached.renew(now);
        }
        let text = &cached.line[6..35];
        let value = || HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static(""));
        cached.value.get_or_insert_with(value).clone()
    })
}

impl Cached {
    #[cold]
    fn renew(&mut self, now: Instant) {
        let wall = SystemTime::now();
        let past_second = wall
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos());
        self.until = Some(now + Duration::from_secs(1) - Duration::from_nanos(past_second.into()));
        self.value = None;
        let text = httpdate::fmt_http_date(wall);
        self.line[..6].copy_from_slice(b"date: ");
        self.line[6..35].copy_from_slice(text.as_bytes());
        self.line[35..].copy_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_and_kept_for_its_second() {
        let now = Instant::now();
        let first = line(now);
        assert!(first.starts_with(b"date: ") && first.ends_with(b" GMT\r\n"));
        assert!(httpdate::parse_http_date(std::str::from_utf8(&first[6..35]).unwrap()).is_ok());
        assert_eq!(line(now), first);
    }

    #[test]
    fn a_line_is_renewed_within_a_second() {
        let now = Instant::now();
        let _ = line(now);
        let until = CACHED.with_borrow(|cached| cached.until).unwrap();
        assert!(until > now && until <= now + Duration::from_secs(1));
    }
}
