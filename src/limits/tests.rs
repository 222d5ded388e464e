//! Each limit at its least and its greatest, and one beyond.

use super::*;

type Change = fn(&mut Limits, u64);

/// What `check` says against one value, the others being right.
fn complaint(change: Change, value: u64) -> Option<String> {
    let mut limits = Limits {
        request_line_bytes: 16,
        ..Limits::default()
    };
    change(&mut limits, value);
    limits.check().err().map(|error| error.to_string())
}

#[test]
fn each_size_is_taken_from_its_least_to_its_greatest() {
    const WINDOW: u64 = (1 << 31) - 1;
    let sizes: [(&str, Change, u64, u64); 13] = [
        ("head_bytes", |l, v| l.head_bytes = v as usize, 64, 16 << 20),
        (
            "header_fields",
            |l, v| l.header_fields = v as usize,
            1,
            24_576,
        ),
        (
            "leading_bytes",
            |l, v| l.leading_bytes = v as usize,
            0,
            1024,
        ),
        (
            "chunk_line_bytes",
            |l, v| l.chunk_line_bytes = v as usize,
            3,
            1 << 20,
        ),
        (
            "trailer_bytes",
            |l, v| l.trailer_bytes = v as usize,
            2,
            1 << 20,
        ),
        (
            "trailer_fields",
            |l, v| l.trailer_fields = v as usize,
            0,
            24_576,
        ),
        (
            "write_buffer_bytes",
            |l, v| l.write_buffer_bytes = v as usize,
            1024,
            1 << 30,
        ),
        (
            "http2_streams",
            |l, v| l.http2_streams = v as u32,
            1,
            1 << 20,
        ),
        (
            "http2_header_list_bytes",
            |l, v| l.http2_header_list_bytes = v as u32,
            256,
            16 << 20,
        ),
        (
            "http2_stream_window",
            |l, v| l.http2_stream_window = v as u32,
            1,
            WINDOW,
        ),
        (
            "http2_connection_window",
            |l, v| l.http2_connection_window = v as u32,
            65_535,
            WINDOW,
        ),
        (
            "http2_resets",
            |l, v| l.http2_resets = v as u32,
            1,
            u32::MAX.into(),
        ),
        (
            "http2_idle_frames",
            |l, v| l.http2_idle_frames = v as u32,
            16,
            u32::MAX.into(),
        ),
    ];
    for (name, change, least, most) in sizes {
        for good in [least, least + 1, most - 1, most] {
            assert_eq!(complaint(change, good), None, "{name}: {good}");
        }
        let below = least.checked_sub(1);
        let above = Some(most + 1).filter(|&above| above <= u32::MAX.into());
        for bad in below.into_iter().chain(above) {
            let complaint = complaint(change, bad).unwrap_or_else(|| panic!("{name}: {bad}"));
            let expected = format!("limits: {name} must be {least} to {most}, not {bad}");
            assert_eq!(complaint, expected);
        }
    }
}

#[test]
fn a_request_line_is_at_most_a_head_and_what_offsets_can_hold() {
    let line: Change = |limits, value| limits.request_line_bytes = value as usize;
    let head: Change = |limits, value| {
        limits.head_bytes = value as usize;
        limits.request_line_bytes = 100;
    };
    let both: Change = |limits, value| {
        limits.head_bytes = 1 << 20;
        limits.request_line_bytes = value as usize;
    };
    assert_eq!(complaint(line, 16), None);
    assert!(complaint(line, 15).unwrap().contains("16 to 65534, not 15"));
    assert_eq!(complaint(head, 100), None);
    assert!(
        complaint(head, 99)
            .unwrap()
            .contains("must not be above head_bytes")
    );
    assert_eq!(complaint(both, 65_534), None);
    assert!(complaint(both, 65_535).unwrap().contains("not 65535"));
}

#[test]
fn each_time_is_above_zero_and_at_most_a_century() {
    type Change = fn(&mut Limits, Duration);
    let times: [(&str, Change); 9] = [
        ("head_timeout", |l, v| l.head_timeout = v),
        ("idle_timeout", |l, v| l.idle_timeout = v),
        ("ready_timeout", |l, v| l.ready_timeout = v),
        ("stall_timeout", |l, v| l.stall_timeout = v),
        ("rate_grace", |l, v| l.rate_grace = v),
        ("drain_timeout", |l, v| l.drain_timeout = v),
        ("linger_idle_timeout", |l, v| l.linger_idle_timeout = v),
        ("linger_timeout", |l, v| l.linger_timeout = v),
        ("max_age", |l, v| l.max_age = v),
    ];
    let century = Duration::from_secs(3_153_600_000);
    let nanosecond = Duration::from_nanos(1);
    for (name, change) in times {
        let complaint = |value| {
            let mut limits = Limits::default();
            change(&mut limits, value);
            limits.check().err().map(|error| error.to_string())
        };
        assert_eq!(complaint(nanosecond), None, "{name}");
        assert_eq!(complaint(century), None, "{name}");
        for bad in [Duration::ZERO, century + nanosecond] {
            assert!(
                complaint(bad).is_some_and(|says| says.contains(name)),
                "{name}"
            );
        }
    }
}
