//! A run to look at while it runs: a frame on a terminal, a line now and then elsewhere, nothing when it shall be quiet.
//! A frame is made of plain strings by a pure function; this file alone writes control sequences.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use crate::amount::{grouped, short_nanos};
use crate::fault::FaultKind;
use crate::grid::{self, STEPS};
use crate::run::Progress;
use crate::timeline::{Slice, TICK};

/// Ticks between two frames.
const EVERY: u32 = 2;
/// Between two lines, where there is no terminal.
const LINE: Duration = Duration::from_secs(5);
/// Rows of the heat strip.
const ROWS: usize = 8;
/// What a frame's lines begin with, in columns.
const MARGIN: usize = 13;

/// Where and how a run is shown.
pub(crate) enum View {
    Quiet,
    Lines {
        next: Duration,
    },
    Terminal {
        colour: bool,
        ticks: u32,
        height: usize,
    },
}

/// What a frame is made for.
#[derive(Debug, Clone, Copy)]
struct Screen {
    width: usize,
    height: usize,
    colour: bool,
}

impl View {
    pub(crate) fn new(quiet: bool, no_tui: bool) -> Self {
        let dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if quiet {
            Self::Quiet
        } else if no_tui || dumb || !io::stderr().is_terminal() {
            Self::Lines { next: LINE }
        } else {
            let colour = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            Self::Terminal {
                colour,
                ticks: 0,
                height: 0,
            }
        }
    }

    /// Called with each tick of a run.
    pub(crate) fn show(&mut self, progress: &Progress<'_>) {
        match self {
            Self::Quiet => {}
            Self::Lines { next } => {
                if progress.elapsed < TICK * 2 {
                    *next = LINE; // Another run has begun.
                }
                if progress.elapsed >= *next {
                    *next += LINE;
                    put(&(line(progress) + "\n"));
                }
            }
            Self::Terminal {
                colour,
                ticks,
                height,
            } => {
                *ticks += 1;
                if !ticks.is_multiple_of(EVERY) {
                    return;
                }
                let screen = Screen::of_stderr(*colour);
                let lines = frame(progress, screen);
                let mut out = up(*height);
                for line in &lines {
                    let _ = write!(out, "{line}\x1b[K\r\n");
                }
                out += "\x1b[J";
                *height = lines.len();
                put(&out);
            }
        }
    }

    /// A line that stays, above whatever is shown.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        if !matches!(self, Self::Quiet) {
            put(&format!("{text}\n"));
        }
    }

    /// Takes the frame away.
    pub(crate) fn clear(&mut self) {
        if let Self::Terminal { height, .. } = self {
            put(&(up(*height) + "\x1b[J"));
            *height = 0;
        }
    }
}

/// To the beginning of a frame of this height.
fn up(height: usize) -> String {
    match height {
        0 => "\r".to_owned(),
        height => format!("\r\x1b[{height}A"),
    }
}

/// Somebody who doesn't look is no error.
fn put(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

impl Screen {
    fn of_stderr(colour: bool) -> Self {
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (width, height) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
        Self {
            width: usize::from(width),
            height: usize::from(height),
            colour,
        }
    }
}

/// A run in one line.
fn line(progress: &Progress<'_>) -> String {
    let recent = Recent::of(progress);
    format!(
        "{:>6.1} s  {:>9}/s  p50 {:>8}  p99 {:>8}  errors {}  {:.0} %",
        progress.elapsed.as_secs_f64(),
        grouped(recent.rate.round() as u64),
        short_nanos(recent.at(0.5)),
        short_nanos(recent.at(0.99)),
        grouped(all_errors(progress)),
        progress.done() * 100.0,
    )
}

fn all_errors(progress: &Progress<'_>) -> u64 {
    let last = progress.timeline.last();
    last.failed() + last.classes[3] + last.classes[4]
}

/// The last second.
struct Recent {
    rate: f64,
    grid: Vec<u64>,
}

impl Recent {
    fn of(progress: &Progress<'_>) -> Self {
        let since = progress.elapsed.saturating_sub(Duration::from_secs(1));
        let (mut grid, mut answered, mut seconds) = (vec![0; STEPS], 0, 0.0);
        let slices = progress.timeline.slices().iter().rev();
        for (place, slice) in slices.enumerate() {
            if place > 0 && slice.from < since {
                break;
            }
            answered += slice.events.answered;
            seconds += slice.seconds();
            grid.iter_mut()
                .zip(&slice.events.grid)
                .for_each(|(sum, count)| *sum += count);
        }
        Self {
            rate: answered as f64 / f64::max(seconds, 1e-9),
            grid,
        }
    }

    fn at(&self, share: f64) -> f64 {
        grid::quantile(&self.grid, share)
    }
}

/// A run as lines of at most the screen's width, and fewer of them than its height.
fn frame(progress: &Progress<'_>, screen: Screen) -> Vec<String> {
    let width = screen.width.saturating_sub(1).max(20);
    let columns = width.saturating_sub(MARGIN).clamp(1, 200);
    let slices = progress.timeline.slices();
    let shown = &slices[slices.len().saturating_sub(columns)..];
    let recent = Recent::of(progress);
    let mut lines = vec![
        cut(&progress.plan.describe(), width),
        progress_line(progress, width),
        String::new(),
    ];

    let rate = format!("{}/s ", grouped(recent.rate.round() as u64));
    let room = columns.saturating_sub(rate.chars().count());
    let spark = sparkline(&shown[shown.len().saturating_sub(room)..]);
    lines.push(cut(&format!("  rate       {rate}{spark}"), width));
    let at = |share| short_nanos(recent.at(share));
    let latency = format!(
        "  latency    p50 {}  p90 {}  p99 {}  max {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    lines.push(cut(&latency, width));
    if screen.height > lines.len() + ROWS + 4 {
        lines.extend(heat(shown, columns, screen.colour));
    }
    let [connecting, idle, waiting, receiving] = progress.timeline.last().states;
    let states = format!(
        "  connections {waiting} waiting · {receiving} receiving · {idle} idle · {connecting} connecting"
    );
    lines.push(cut(&states, width));
    lines.push(error_line(progress, screen.colour, width));
    let late = progress.timeline.last().late;
    if late > 0 {
        let late = format!(
            "  late       {} sent more than 1 ms after they were due",
            grouped(late)
        );
        lines.push(cut(&late, width));
    }
    lines.truncate(screen.height.saturating_sub(1).max(1));
    lines
}

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars()
        .take(width.saturating_sub(1))
        .chain(['…'])
        .collect()
}

fn progress_line(progress: &Progress<'_>, width: usize) -> String {
    let done = progress.done();
    let left = match progress.left() {
        Some(left) => format!("{:.0} s left", left.as_secs_f64().ceil()),
        None => "…".to_owned(),
    };
    let text = format!(
        " {:>3.0} %  {:.1} s, {left}",
        done * 100.0,
        progress.elapsed.as_secs_f64()
    );
    let room = width.saturating_sub(text.chars().count() + 2).min(40);
    let full = (done * room as f64).round() as usize;
    cut(
        &format!("  {}{}{text}", "█".repeat(full), "░".repeat(room - full)),
        width,
    )
}

fn sparkline(slices: &[Slice]) -> String {
    let most = slices.iter().map(Slice::rate).fold(0.0, f64::max);
    let level = |slice: &Slice| match slice.rate() / most.max(1e-9) {
        share if share > 0.0 => {
            ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][((share * 7.0).round() as usize).min(7)]
        }
        _ => ' ',
    };
    slices.iter().map(level).collect()
}

/// How dense a cell is, as a character that needs no colour, and a colour of 256 for those who like it.
const SHADES: [(f64, char, u8); 5] = [
    (0.5, '█', 229),
    (0.2, '▓', 221),
    (0.05, '▒', 172),
    (0.01, '░', 131),
    (0.0, '·', 97),
];

/// Latency upwards on a logarithmic scale, time to the right, a column a slice: where the answers are.
fn heat(slices: &[Slice], columns: usize, colour: bool) -> Vec<String> {
    let grids = || slices.iter().map(|slice| &slice.events.grid);
    let lowest = grids().filter_map(|grid| grid.iter().position(|count| *count > 0));
    let highest = grids().filter_map(|grid| grid.iter().rposition(|count| *count > 0));
    let lowest = lowest.min().unwrap_or(STEPS / 3);
    let highest = highest.max().unwrap_or(lowest);
    // At least half an octave a row, so that noise doesn't look like a storm.
    let per_row = (highest + 1 - lowest).div_ceil(ROWS).max(8);
    let strips: Vec<[f64; ROWS]> = grids()
        .map(|grid| shares(&grid[lowest..=highest], per_row))
        .collect();
    let rows = (0..ROWS).rev().map(|row| {
        let from = (lowest + row * per_row).min(STEPS);
        let mut line = format!("  {:>8} │ ", short_nanos(grid::floor_of(from) as f64));
        let mut last = None;
        for strip in &strips {
            let share = strip[row];
            let shade = SHADES
                .iter()
                .find(|(least, ..)| share > 0.0 && share >= *least);
            if colour && shade.map(|shade| shade.2) != last {
                last = shade.map(|shade| shade.2);
                let _ = match last {
                    Some(number) => write!(line, "\x1b[38;5;{number}m"),
                    None => write!(line, "\x1b[39m"),
                };
            }
            line.push(shade.map_or(' ', |shade| shade.1));
        }
        line.extend(std::iter::repeat_n(
            ' ',
            columns.saturating_sub(slices.len()),
        ));
        if last.is_some() {
            line += "\x1b[39m";
        }
        line.trim_end().to_owned()
    });
    rows.collect()
}

/// Which share of a slice's answers is in each row.
fn shares(steps: &[u64], per_row: usize) -> [f64; ROWS] {
    let total = steps.iter().sum::<u64>().max(1) as f64;
    let mut shares = [0.0; ROWS];
    for (share, row) in shares.iter_mut().zip(steps.chunks(per_row)) {
        *share = row.iter().sum::<u64>() as f64 / total;
    }
    shares
}

fn error_line(progress: &Progress<'_>, colour: bool, width: usize) -> String {
    let last = progress.timeline.last();
    let faults = FaultKind::ALL
        .into_iter()
        .map(|kind| (kind.explain(), last.faults[kind as usize]));
    let statuses = [
        ("status 4xx", last.classes[3]),
        ("status 5xx", last.classes[4]),
    ];
    let words: Vec<String> = faults
        .chain(statuses)
        .filter(|(_, count)| *count > 0)
        .map(|(words, count)| format!("{} × {words}", grouped(count)))
        .collect();
    if words.is_empty() {
        return "  errors     none".to_owned();
    }
    let line = cut(&format!("  errors     {}", words.join(" · ")), width);
    if colour {
        format!("\x1b[31m{line}\x1b[39m")
    } else {
        line
    }
}

#[cfg(test)]
mod tests;
