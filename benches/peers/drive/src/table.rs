//! Rows as Markdown. A cell without rows is empty: the peer can't do it, or isn't installed.

use std::fmt::Write;

use crate::rows::Rows;
use crate::{servers, workloads};

/// CPU a request relative to hyper, a row a server.
pub fn cpu(rows: &Rows) -> String {
    let workloads: Vec<_> = workloads::NAMES
        .into_iter()
        .filter_map(workloads::find)
        .collect();
    let titles = workloads.iter().map(|workload| workload.title.to_owned());
    let mut lines = vec![line("CPU a request, hyper = 1.00", titles)];
    lines.push(format!("|---|{}", "---:|".repeat(workloads.len())));
    for (name, title) in servers::NAMES {
        let cells = workloads
            .iter()
            .map(|one| show(rows.ratio(one.name, name, "hyper", "cpu"), 2));
        lines.push(line(title, cells));
        if name == "hyper" {
            let micros = workloads
                .iter()
                .map(|one| show(rows.median(one.name, name, "cpu"), 2));
            lines.push(line("hyper, µs", micros));
        }
    }
    let pair = |of: &'static str, to: &'static str| {
        let ratio = move |one: &workloads::Workload| show(rows.ratio(one.name, of, to, "cpu"), 2);
        workloads.iter().map(ratio).collect::<Vec<_>>()
    };
    lines.push(line(
        "**the same `Router`: wharf / `axum::serve`**",
        pair("wharf-axum", "axum").into_iter(),
    ));
    lines.push(line(
        "**all that is on by default: on / off**",
        pair("wharf", "wharf-bare").into_iter(),
    ));
    let rates = workloads
        .iter()
        .map(|one| show(rows.median(one.name, "wharf", "rate"), 0));
    lines.push(line("wharf, requests a second", rates));
    lines.join("\n") + "\n"
}

/// Latency, memory, system calls, workers.
pub fn others(rows: &Rows) -> String {
    let mut text = String::new();
    let best = show(rows.median("latency", "hyper", "best"), 0);
    let _ = write!(
        text,
        "\n## Latency at half of hyper's best rate\n\n\
         Requests are due at a fixed rate (half of {best} a second) and timed from when they were due. Medians of five rounds.\n\n\
         | | p50, µs | p99, µs | p99 / hyper |\n|---|---:|---:|---:|\n"
    );
    for (name, title) in servers::NAMES {
        if rows.median("latency", name, "p99").is_some() {
            let of = |figure| show(rows.median("latency", name, figure), 0);
            let cells = [
                of("p50"),
                of("p99"),
                show(rows.ratio("latency", name, "hyper", "p99"), 2),
            ];
            text += &(line(title, cells.into_iter()) + "\n");
        }
    }
    let count = show(
        rows.0
            .iter()
            .find(|row| row.figure == "connections")
            .map(|row| row.value),
        0,
    );
    let _ = write!(
        text,
        "\n## Memory of an idle connection\n\n\
         Resident memory with {count} connections that had one request each, less that with sixteen, over their number.\n\n\
         | | bytes a connection |\n|---|---:|\n"
    );
    for (name, title) in servers::NAMES {
        let bytes = rows.median("idle", name, "bytes");
        if bytes.is_some() {
            text += &(line(title, [show(bytes, 0)].into_iter()) + "\n");
        }
    }
    text += "\n## System calls\n\nOf a request, or of sixteen that come at once; the share of waiting for 64 connections is in it. By `strace -c -f`.\n\n\
        | | plain | 16 pipelined | POST 1 KiB | a connection |\n|---|---:|---:|---:|---:|\n";
    for (name, title) in servers::NAMES {
        if rows.median("calls", name, "plain").is_some() {
            let of = |workload| show(rows.median("calls", name, workload), 2);
            let cells = ["plain", "pipelined", "post", "connection"].map(of);
            text += &(line(title, cells.into_iter()) + "\n");
        }
    }
    text += "\n## Workers\n\n`serve_per_core`, plain GET, a worker a core. Where the load client has no core of its own (workers = cores) it takes its share\nfrom them, so requests a second can't double there; CPU a request shows whether workers stand in each other's way.\n\n\
        | workers | CPU a request, µs | relative to one | requests a second |\n|---|---:|---:|---:|\n";
    for workers in (0..10).map(|power| (1 << power).to_string()) {
        if rows.median("workers", &workers, "cpu").is_some() {
            let of = |figure, digits| show(rows.median("workers", &workers, figure), digits);
            let relative = show(rows.ratio("workers", &workers, "1", "cpu"), 2);
            text += &(line(
                &workers,
                [of("cpu", 2), relative, of("rate", 0)].into_iter(),
            ) + "\n");
        }
    }
    text
}

fn line(title: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("| {title} |");
    cells.for_each(|cell| line += &format!(" {cell} |"));
    line
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}
