//! Each limit of a head at one less, exactly, and one more; whole and in slices.

use super::*;

/// The default limits, changed.
fn with(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits.check().unwrap();
    limits
}

fn reason(limits: &Limits, bytes: &[u8]) -> Option<Reason> {
    match outcome_within(limits, bytes) {
        Outcome::Refused(reason, _) => Some(reason),
        Outcome::Head(_) => None,
        Outcome::Incomplete => panic!("incomplete: {}", bytes.escape_ascii()),
    }
}

#[test]
fn a_request_line_may_be_as_long_as_the_limit() {
    let limits = with(|limits| limits.request_line_bytes = 32);
    let line = |len: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(len - 16));
    for (len, expected) in [(31, None), (32, None), (33, Some(Reason::TargetTooLong))] {
        let head = format!("{}Host: a\r\n\r\n", line(len));
        assert_eq!(line(len).len(), len);
        assert_eq!(reason(&limits, head.as_bytes()), expected);
    }
}

#[test]
fn a_target_that_never_ends_is_answered_414_and_a_method_400() {
    let limits = with(|limits| limits.request_line_bytes = 32);
    let long = "a".repeat(40);
    assert_eq!(
        reason(&limits, format!("GET /{long}").as_bytes()),
        Some(Reason::TargetTooLong)
    );
    assert_eq!(
        reason(&limits, format!("GET /\0{long}").as_bytes()),
        Some(Reason::TargetTooLong)
    );
    assert_eq!(reason(&limits, long.as_bytes()), Some(Reason::Method));
    assert_eq!(
        reason(&limits, format!("G\0T /{long}").as_bytes()),
        Some(Reason::Method)
    );
}

#[test]
fn a_line_that_is_too_long_is_refused_where_its_method_ends() {
    let limits = with(|limits| limits.request_line_bytes = 32);
    let long = "a".repeat(40);
    for (line, reason) in [
        (format!("\r\nGET^ /{long}"), Reason::TargetTooLong),
        (format!("\r\nGE^\0 /{long}"), Reason::Method),
    ] {
        let at = line.find('^').unwrap();
        let outcome = outcome_within(&limits, line.replace('^', "").as_bytes());
        assert_eq!(outcome, Outcome::Refused(reason, at));
    }
}

#[test]
fn eight_thousand_octets_of_line_are_accepted_by_default() {
    let limits = Limits::default();
    let head = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(8000));
    assert!(matches!(
        decode_cut(Strict::new(&limits), head.as_bytes(), &[]),
        Outcome::Head(_)
    ));
    assert!(matches!(
        decode_cut(Httparse::new(&limits), head.as_bytes(), &[]),
        Outcome::Head(_)
    ));
}

#[test]
fn a_head_may_be_as_long_as_the_limit() {
    let limits = with(|limits| {
        limits.head_bytes = 64;
        limits.request_line_bytes = 64;
    });
    let head = |len: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "b".repeat(len - 32)
        )
    };
    for (len, expected) in [
        (63, None),
        (64, None),
        (65, Some(Reason::HeadTooLarge)),
        (66, Some(Reason::HeadTooLarge)),
    ] {
        assert_eq!(head(len).len(), len);
        assert_eq!(reason(&limits, head(len).as_bytes()), expected, "{len}");
        let behind_empty_lines = format!("\r\n\r\n{}", head(len));
        assert_eq!(
            reason(&limits, behind_empty_lines.as_bytes()),
            expected,
            "{len}"
        );
    }
}

#[test]
fn a_head_that_never_ends_is_refused_at_the_limit() {
    let limits = with(|limits| {
        limits.head_bytes = 64;
        limits.request_line_bytes = 64;
    });
    for line in ["X: y\r\n", "X", "Own: b\r\n", ":", "\t"] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", line.repeat(50));
        let expected = match line {
            ":" | "X" | "\t" | "X: y\r\n" | "Own: b\r\n" => Reason::HeadTooLarge,
            _ => unreachable!(),
        };
        assert_eq!(reason(&limits, head.as_bytes()), Some(expected), "{line:?}");
    }
}

#[test]
fn an_error_before_the_limit_wins_over_it() {
    let limits = with(|limits| {
        limits.head_bytes = 64;
        limits.request_line_bytes = 64;
    });
    let head = format!("GET / HTTP/1.1\r\nX: \0\r\nY: {}\r\n\r\n", "b".repeat(60));
    assert_eq!(reason(&limits, head.as_bytes()), Some(Reason::Field));
}

#[test]
fn as_many_fields_as_the_limit_are_accepted() {
    for limit in [1, 3, 100, 200] {
        let limits = with(|limits| limits.header_fields = limit);
        for (count, expected) in [(limit, None), (limit + 1, Some(Reason::TooManyFields))] {
            let head = format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "A:\r\n".repeat(count - 1)
            );
            assert_eq!(
                reason(&limits, head.as_bytes()),
                expected,
                "{count} of {limit}"
            );
        }
    }
}

#[test]
fn as_many_leading_bytes_as_the_limit_are_ignored() {
    for limit in [0, 1, 2, 8, 9] {
        let limits = with(|limits| limits.leading_bytes = limit);
        for lines in 0..6 {
            let head = format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(lines));
            let expected = (2 * lines > limit).then_some(Reason::RequestLine);
            assert_eq!(
                reason(&limits, head.as_bytes()),
                expected,
                "{lines} lines of {limit} bytes"
            );
        }
    }
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused_with_the_head() {
    let limits = with(|limits| limits.body_bytes = 10);
    for (length, expected) in [(9, None), (10, None), (11, Some(Reason::BodyTooLarge))] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(reason(&limits, head.as_bytes()), expected);
    }
}

#[test]
fn names_beyond_what_the_types_hold_are_refused() {
    let limits = with(|limits| limits.head_bytes = 1 << 20);
    for (len, expected) in [(65_535, true), (65_536, false)] {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}: b\r\n\r\n",
            "n".repeat(len)
        );
        for outcome in [
            decode_cut(Strict::new(&limits), head.as_bytes(), &[]),
            decode_cut(Httparse::new(&limits), head.as_bytes(), &[]),
        ] {
            assert_eq!(matches!(outcome, Outcome::Head(_)), expected, "{len}");
        }
    }
}

#[test]
fn what_a_connection_may_hold_follows_from_its_limits() {
    let of = |change: fn(&mut Limits)| with(change).connection_bytes();
    let usual = of(|_| {});
    assert_eq!(usual, (8 + 2 * 32 + 2 * 64 + 512) * 1024 + 100 * 160);
    assert_eq!(of(|limits| limits.head_bytes += 1000), usual + 2000);
    assert_eq!(of(|limits| limits.header_fields += 10), usual + 1600);
    assert_eq!(of(|limits| limits.write_buffer_bytes += 10), usual + 10);
}
