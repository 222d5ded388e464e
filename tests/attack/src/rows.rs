//! The rows. Each reads as: set up, attack, what is seen, verdict.

use std::fmt;
use std::pin::Pin;

use crate::Failure;
use crate::run::Plan;
use crate::verdict::Verdict;

mod accept;
mod ends;
mod flood;
mod handlers;
mod http2;
mod idle;
mod machine;
mod overload;
mod restart;
mod rules;
mod slow;
mod soak;
mod stop;
mod tls;
mod words;

type Found = Result<Vec<Verdict>, Failure>;
type Running = Pin<Box<dyn Future<Output = Found>>>;

/// A row: its name, the figures of it, and how it is carried out.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    ids: &'static str,
    /// Others may run at the same time: nothing of it depends on how fast the machine is.
    pub(crate) only_waits: bool,
    run: fn(Plan) -> Running,
}

impl Row {
    fn waits(name: &'static str, ids: &'static str, run: fn(Plan) -> Running) -> Self {
        Self {
            name,
            ids,
            only_waits: true,
            run,
        }
    }

    fn measures(name: &'static str, ids: &'static str, run: fn(Plan) -> Running) -> Self {
        Self {
            only_waits: false,
            ..Self::waits(name, ids, run)
        }
    }

    /// Whether it is called that, or has a figure with that id.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name || self.ids.split(' ').any(|id| id.eq_ignore_ascii_case(name))
    }

    pub(crate) fn run(&self, plan: Plan) -> Running {
        (self.run)(plan)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {}", self.name, self.ids)
    }
}

pub(crate) fn all() -> Vec<Row> {
    vec![
        Row::waits("slow-body", "T2", |plan| Box::pin(slow::bodies(plan))),
        Row::waits("slow-reader", "T3", |plan| Box::pin(slow::readers(plan))),
        Row::waits("honest-slow", "T4", |plan| Box::pin(slow::honest(plan))),
        Row::waits("sigstop", "T38", |plan| Box::pin(machine::stopped(plan))),
        Row::waits("clock", "T39", |plan| Box::pin(machine::clock(plan))),
        Row::waits("unread", "T14", |plan| Box::pin(rules::unread(plan))),
        Row::waits("never-ready", "T19", |plan| {
            Box::pin(rules::never_ready(plan))
        }),
        Row::waits("interim", "T23", |plan| Box::pin(rules::interim(plan))),
        Row::waits("log", "T30", |plan| Box::pin(rules::log(plan))),
        Row::waits("splitting", "T22", |plan| Box::pin(words::splitting(plan))),
        Row::waits("upgrades", "T24", |plan| Box::pin(words::upgrades(plan))),
        Row::measures("spoofing", "T31", |plan| Box::pin(words::spoofing(plan))),
        Row::measures("slow-head", "T1", |plan| Box::pin(slow::heads(plan))),
        Row::measures("idle", "T5 M1 M2 M3", |plan| Box::pin(idle::house(plan))),
        Row::measures("emfile", "M10 T6", |plan| Box::pin(accept::emfile(plan))),
        Row::measures("accept-errors", "M11 T6", |plan| {
            Box::pin(accept::injected(plan))
        }),
        Row::measures("unread-body", "M9 T15", |plan| {
            Box::pin(ends::unread_body(plan))
        }),
        Row::measures("half-close", "M18 T16", |plan| {
            Box::pin(ends::half_close(plan))
        }),
        Row::measures("aborts", "M19 T17", |plan| Box::pin(ends::aborts(plan))),
        Row::measures("stop", "M13 T34", |plan| Box::pin(stop::busy(plan))),
        Row::measures("rolling", "M14 T35", |plan| {
            Box::pin(restart::rolling(plan))
        }),
        Row::measures("pipelining", "M4 M5 T8", |plan| {
            Box::pin(flood::pipelining(plan))
        }),
        Row::measures("tiny-chunks", "M6 T12", |plan| {
            Box::pin(flood::tiny_chunks(plan))
        }),
        Row::measures("endless", "M7 M8 T10 T11 T12 T13", |plan| {
            Box::pin(flood::endless_framing(plan))
        }),
        Row::measures("fairness", "M12 T9", |plan| Box::pin(flood::fairness(plan))),
        Row::measures("burst", "T7", |plan| Box::pin(flood::burst(plan))),
        Row::measures("handshakes", "T27", |plan| Box::pin(tls::handshakes(plan))),
        Row::measures("http2-floods", "T28", |plan| Box::pin(http2::floods(plan))),
        Row::measures("panics", "M15 T18", |plan| Box::pin(handlers::panics(plan))),
        Row::measures("lies", "M16 T20 T21", |plan| Box::pin(handlers::lies(plan))),
        Row::measures("ambiguous", "M17 T25 T26", |plan| {
            Box::pin(handlers::ambiguous(plan))
        }),
        Row::measures("memory", "T40", |plan| Box::pin(machine::memory(plan))),
        Row::measures("single-bytes", "T43", |plan| {
            Box::pin(machine::single_bytes(plan))
        }),
        Row::measures("collisions", "T44", |plan| {
            Box::pin(machine::colliding_names(plan))
        }),
        Row::measures("overload", "M20 T33", |plan| {
            Box::pin(overload::open_loop(plan))
        }),
        Row::measures("handover", "T36", |plan| Box::pin(restart::handover(plan))),
        Row::waits("soak", "T41", |plan| Box::pin(soak::soak(plan))),
    ]
}
