//! The live view in a pseudo-terminal: what is drawn, and that nothing of it stays.

mod support;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use http::Response;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::time::sleep;
use wharf::Body;

use support::{Served, command, folder};

/// Long enough for some frames.
const SHORT: &[&str] = &["-z", "1500ms"];

/// All that a run writes to a terminal of that size.
fn on_a_terminal(width: u16, height: u16, environment: &[(&str, &str)], flags: &[&str]) -> String {
    let served = Served::start(|_| async {
        sleep(Duration::from_millis(5)).await;
        Ok(Response::new(Body::empty()))
    });
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OpenptFlags::NOCTTY.bits().cast_signed())
        .open(name.to_str().unwrap())
        .unwrap();
    let url = served.url();
    let mut tool = command(&[flags, &["-c", "4", &url]].concat());
    tool.env("TERM", "xterm-256color")
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs);
    let mut child = tool.spawn().unwrap();
    drop(tool); // The last of their ends is the child's.
    let mut all = Vec::new();
    // Linux says EIO when nobody holds the other end any more.
    let _ = File::from(ours).read_to_end(&mut all);
    assert!(child.wait().unwrap().success());
    String::from_utf8(all).unwrap()
}

/// What stands between two moves up to the frame's beginning, without colours.
fn frames(all: &str) -> Vec<String> {
    let plain = all.replace("\x1b[K", "");
    plain.split("\x1b[J").map(ToOwned::to_owned).collect()
}

#[test]
fn a_run_is_drawn_while_it_runs_and_the_report_alone_stays() {
    let all = on_a_terminal(100, 30, &[], SHORT);
    let frames = frames(&all);
    assert!(frames.len() >= 4, "{} frames: {all:?}", frames.len());
    let drawn = &frames[frames.len() - 3];
    for part in [
        "rate",
        "latency",
        "p99",
        "│",
        "waiting",
        "connecting",
        "errors",
        "left",
        "█",
    ] {
        assert!(drawn.contains(part), "{part}: {drawn:?}");
    }
    assert!(all.contains("\x1b[38;5;"), "no colour: {all:?}");
    // Behind the last frame's removal there is the report, plain.
    let report = frames.last().unwrap();
    assert!(!report.contains('\x1b'), "{report:?}");
    assert!(report.trim_end().ends_with("requests/s"), "{report:?}");
    assert_eq!(
        all.matches("\x1b[?").count(),
        0,
        "a mode was set and may stay"
    );
}

#[test]
fn drawing_costs_less_than_a_hundredth_of_the_time() {
    let file = folder("drawing").join("a.json");
    let path = file.to_str().unwrap();
    let all = on_a_terminal(200, 50, &[], &["-z", "6s", "--json", path]);
    assert!(frames(&all).len() >= 4, "{all:?}");
    let document: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let share = document["overhead"]["drawing"].as_f64().unwrap();
    assert!(share > 0.0 && share < 0.01, "{share}");
}

#[test]
fn no_color_is_honoured() {
    let all = on_a_terminal(100, 30, &[("NO_COLOR", "1")], SHORT);
    assert!(frames(&all).len() >= 4, "{all:?}");
    assert!(
        !all.contains("\x1b[38") && !all.contains("\x1b[3"),
        "{all:?}"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_and_no_frame_higher() {
    let all = on_a_terminal(40, 12, &[("NO_COLOR", "1")], SHORT);
    let frames = frames(&all);
    for frame in &frames[..frames.len() - 1] {
        let lines: Vec<&str> = frame.split("\r\n").collect();
        assert!(lines.len() <= 12, "{frame:?}");
        for line in lines {
            // The terminal adds returns, and a frame begins with a move up.
            let text = line.trim_matches('\r');
            let text = match text.strip_prefix("\x1b[") {
                Some(rest) => rest.trim_start_matches(|c: char| c.is_ascii_digit()),
                None => text,
            };
            assert!(text.chars().count() <= 40, "{text:?}");
        }
    }
}

#[test]
fn a_dumb_terminal_and_those_who_want_none_get_no_control_sequences() {
    for (environment, flags) in [
        (&[("TERM", "dumb")][..], &[][..]),
        (&[], &["--no-tui"]),
        (&[], &["--quiet"]),
    ] {
        let all = on_a_terminal(80, 24, environment, &[SHORT, flags].concat());
        assert!(!all.contains('\x1b'), "{environment:?} {flags:?}: {all:?}");
    }
}
