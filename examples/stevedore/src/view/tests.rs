use std::time::Duration;

use super::{Screen, frame, line};
use crate::fault::FaultKind;
use crate::gauge::Reading;
use crate::grid;
use crate::plan::{End, Plan, tests::plan};
use crate::run::Progress;
use crate::timeline::{TICK, Timeline};

/// Three seconds of a run of ten: a thousand answers a tick in a millisecond, a few in fifty.
fn timeline(faults: u64) -> Timeline {
    let mut timeline = Timeline::default();
    for tick in 1..=30u64 {
        let mut reading = Reading {
            answered: tick * 1010,
            states: [1, 2, 40, 7],
            ..Reading::default()
        };
        reading.grid[grid::step_of(1_000_000)] = tick * 1000;
        reading.grid[grid::step_of(50_000_000)] = tick * 10;
        reading.faults[FaultKind::Reset as usize] = faults;
        timeline.push(TICK * tick as u32, reading);
    }
    timeline
}

fn shown(screen: Screen, faults: u64) -> Vec<String> {
    let plan = Plan {
        end: End::After(Duration::from_secs(10)),
        ..plan()
    };
    let timeline = timeline(faults);
    frame(
        &Progress {
            plan: &plan,
            elapsed: Duration::from_secs(3),
            timeline: &timeline,
        },
        screen,
    )
}

/// Columns that a terminal would use.
fn columns(line: &str) -> usize {
    let mut columns = 0;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                chars.by_ref().find(char::is_ascii_alphabetic);
            }
            _ => columns += 1,
        }
    }
    columns
}

#[test]
fn a_frame_tells_rate_latency_states_progress_and_time_left() {
    let frame = shown(
        Screen {
            width: 80,
            height: 24,
            colour: false,
        },
        0,
    )
    .join("\n");
    for wanted in [
        "10,100/s",
        "p50 ",
        "40 waiting · 7 receiving · 2 idle · 1 connecting",
        "30 %",
        "7 s left",
        "errors     none",
        "█",
    ] {
        assert!(frame.contains(wanted), "{wanted} is missing:\n{frame}");
    }
}

#[test]
fn errors_are_told_by_kind() {
    let frame = shown(
        Screen {
            width: 80,
            height: 24,
            colour: false,
        },
        12,
    )
    .join("\n");
    assert!(frame.contains("12 × connection reset"), "{frame}");
}

#[test]
fn a_frame_fits_its_screen() {
    for (width, height) in [(200, 50), (80, 24), (40, 12), (24, 6), (10, 2)] {
        for colour in [false, true] {
            let frame = shown(
                Screen {
                    width,
                    height,
                    colour,
                },
                3,
            );
            assert!(
                frame.len() < height.max(2),
                "{width}×{height}: {} lines",
                frame.len()
            );
            let most = frame.iter().map(|line| columns(line)).max().unwrap();
            assert!(most <= width.max(21), "{width}×{height}: {most} columns");
        }
    }
}

#[test]
fn without_colour_there_is_no_escape() {
    let frame = shown(
        Screen {
            width: 80,
            height: 24,
            colour: false,
        },
        3,
    )
    .concat();
    assert!(!frame.contains('\x1b'));
    let coloured = shown(
        Screen {
            width: 80,
            height: 24,
            colour: true,
        },
        3,
    )
    .concat();
    assert!(coloured.contains("\x1b[38;5;"));
}

#[test]
fn the_heat_strip_has_a_dense_row_and_a_thin_one() {
    let frame = shown(
        Screen {
            width: 80,
            height: 24,
            colour: false,
        },
        0,
    );
    assert!(
        frame.iter().any(|line| line.ends_with(&"█".repeat(30))),
        "{frame:#?}"
    );
    assert!(
        frame.iter().any(|line| line.ends_with(&"·".repeat(30))),
        "{frame:#?}"
    );
}

#[test]
fn elsewhere_it_is_one_line() {
    let plan = Plan {
        end: End::After(Duration::from_secs(10)),
        ..plan()
    };
    let timeline = timeline(2);
    let line = line(&Progress {
        plan: &plan,
        elapsed: Duration::from_secs(3),
        timeline: &timeline,
    });
    assert!(!line.contains('\n'));
    assert!(
        line.contains("3.0 s") && line.contains("10,100/s") && line.contains("errors 2"),
        "{line}"
    );
}
