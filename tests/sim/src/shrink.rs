//! Makes a script that fails smaller, for as long as it fails in the same way.

use std::sync::Arc;

use crate::bugs::Bug;
use crate::player::play;
use crate::script::{Answer, Asked, Content, Kind, Read, Ready, Response, Script, Step};
use crate::timing::{Cut, Parser, Timing};

/// A script that fails, and how it is played.
#[derive(Debug, Clone)]
pub struct Failing {
    /// What happens.
    pub script: Script,
    /// How it is cut.
    pub timing: Timing,
    /// With this timing it has the answers that it must have in any; for failures that only a comparison shows.
    pub beside: Option<Timing>,
    /// The bug that is switched on.
    pub bug: Option<Bug>,
}

impl Failing {
    /// What is wrong with it, if anything.
    pub fn wrong(&self) -> Option<String> {
        let script = Arc::new(self.script.clone());
        let played = play(&script, &self.timing, self.bug, false);
        if played.wrong.is_some() {
            return played.wrong;
        }
        let beside = self
            .beside
            .as_ref()
            .filter(|_| script.kind == Kind::Steady)?;
        let other = play(&script, beside, self.bug, false);
        let differs = other.wrong.is_some() || other.digest != played.digest;
        differs.then(|| "timing: other answers than with another timing".to_owned())
    }

    /// The smallest that was found, and what is wrong with that.
    pub fn shrink(mut self) -> (Self, String) {
        let mut wrong = self.wrong().unwrap_or_default();
        let kind = kind(&wrong).to_owned();
        // Each success makes it smaller, so this ends.
        loop {
            let found = self.smaller().find_map(|smaller| {
                let why = smaller.wrong()?;
                (self::kind(&why) == kind).then_some((smaller, why))
            });
            let Some((smaller, why)) = found else { break };
            (self, wrong) = (smaller, why);
        }
        (self, wrong)
    }

    /// All that are smaller by one step.
    fn smaller(&self) -> impl Iterator<Item = Self> + '_ {
        let requests =
            (0..self.script.asked.len()).map(|at| self.with(|script| without(script, at)));
        let steps = (0..self.script.steps.len()).map(|at| {
            self.with(|script| {
                // Each request is sent, or goes; and a handler without an end needs somebody who gives up.
                match script.steps.remove(at) {
                    Step::Send(_) | Step::Head(_) | Step::Body(_) | Step::Part(..) => false,
                    Step::Reset => !script.asked.iter().any(Asked::is_endless),
                    _ => true,
                }
            })
        });
        let happenings = (0..self.script.happenings.len()).map(|at| {
            self.with(|script| {
                script.happenings.remove(at);
                true
            })
        });
        let parts = (0..self.script.asked.len()).flat_map(move |at| {
            PLAINER
                .iter()
                .map(move |plainer| self.with(|script| plainer(&mut script.asked[at])))
        });
        let houses = HOUSES.iter().map(|plainer| self.with(plainer));
        let timings = TIMINGS.iter().map(|plainer| {
            let mut smaller = self.clone();
            let before = smaller.timing.clone();
            plainer(&mut smaller.timing);
            (smaller.timing != before).then_some(smaller)
        });
        requests
            .chain(steps)
            .chain(happenings)
            .chain(parts)
            .chain(houses)
            .chain(timings)
            .flatten()
    }

    fn with(&self, change: impl FnOnce(&mut Script) -> bool) -> Option<Self> {
        let mut smaller = self.clone();
        change(&mut smaller.script).then_some(smaller)
    }
}

/// Failures of a kind begin with the same words.
fn kind(wrong: &str) -> &str {
    wrong
        .split([':', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
        .next()
        .unwrap_or(wrong)
}

/// Without a request, and all that is said of it.
fn without(script: &mut Script, at: usize) -> bool {
    if script.asked.len() == 1 {
        return false;
    }
    script.asked.remove(at);
    let moved = |request: usize| request - usize::from(request > at);
    script.steps = std::mem::take(&mut script.steps)
        .into_iter()
        .filter_map(|step| match step {
            Step::Send(of)
            | Step::Head(of)
            | Step::Body(of)
            | Step::Part(of, _)
            | Step::Continue(of)
                if of == at =>
            {
                None
            }
            Step::Send(of) => Some(Step::Send(moved(of))),
            Step::Head(of) => Some(Step::Head(moved(of))),
            Step::Body(of) => Some(Step::Body(moved(of))),
            Step::Part(of, bytes) => Some(Step::Part(moved(of), bytes)),
            Step::Continue(of) => Some(Step::Continue(moved(of))),
            Step::Answers(count) if count > at => Some(Step::Answers(count - 1)),
            step => Some(step),
        })
        .collect();
    true
}

/// Says whether it changed anything, which must be for something plainer.
type Plainer<T> = fn(&mut T) -> bool;

fn set<T: PartialEq>(place: &mut T, value: T) -> bool {
    let changes = *place != value;
    *place = value;
    changes
}

const PLAINER: &[Plainer<Asked>] = &[
    |asked| set(&mut asked.content, Content::None),
    |asked| match &mut asked.content {
        Content::Length(bytes) if *bytes > 1 => set(bytes, *bytes / 2),
        Content::Chunked { sizes, .. } if !sizes.is_empty() => sizes.pop().is_some(),
        _ => false,
    },
    |asked| match &mut asked.content {
        Content::Chunked {
            extended, trailer, ..
        } => set(extended, false) | set(trailer, false),
        _ => false,
    },
    |asked| asked.method != "CONNECT" && set(&mut asked.method, "GET"),
    |asked| set(&mut asked.empty_lines, 0),
    |asked| set(&mut asked.is_http10, false),
    |asked| set(&mut asked.connection, None),
    |asked| set(&mut asked.expects, false),
    |asked| set(&mut asked.offers_upgrade, false),
    |asked| asked.content == Content::None && set(&mut asked.flaw, None),
    |asked| set(&mut asked.plan.panics, None),
    |asked| set(&mut asked.plan.ready, Ready::Now),
    |asked| set(&mut asked.plan.hints, 0),
    |asked| set(&mut asked.plan.wait, 0),
    |asked| set(&mut asked.plan.then, 0),
    |asked| set(&mut asked.plan.passes_errors, false),
    |asked| asked.plan.read != Read::Drop && set(&mut asked.plan.read, Read::All),
    |asked| {
        let is_plain =
            matches!(&asked.plan.answer, Answer::Response(response) if response.frames.is_empty());
        asked.plan.answer = Answer::Response(Response {
            status: 200,
            ..Response::default()
        });
        !is_plain
    },
    |asked| match &mut asked.plan.answer {
        Answer::Response(response) => {
            set(&mut response.wait, 0) | set(&mut response.trailer, false)
        }
        _ => false,
    },
    |asked| match &mut asked.plan.answer {
        Answer::Response(response) if response.hint.is_none() && response.declared.is_none() => {
            response.frames.pop().is_some()
        }
        _ => false,
    },
    |asked| match &mut asked.plan.answer {
        Answer::Response(response) if response.hint.is_none() && response.declared.is_none() => {
            let sizes = response
                .frames
                .iter()
                .map(|size| size.div_ceil(2))
                .collect();
            set(&mut response.frames, sizes)
        }
        _ => false,
    },
    |asked| match &mut asked.plan.answer {
        Answer::Response(response) => {
            set(&mut response.hint, None) | set(&mut response.declared, None)
        }
        _ => false,
    },
];

const HOUSES: &[Plainer<Script>] = &[
    |script| set(&mut script.house.write_buffer, 64 * 1024),
    |script| set(&mut script.house.drain, 256 * 1024),
    |script| set(&mut script.house.head, None),
    |script| set(&mut script.house.deadline, None),
    |script| set(&mut script.house.at_once, 64),
    |script| set(&mut script.house.timeout, None),
];

const TIMINGS: &[fn(&mut Timing)] = &[
    |timing| timing.sends = Cut::Whole,
    |timing| timing.reads = Cut::Whole,
    |timing| timing.writes = Cut::Whole,
    |timing| timing.waits = 0,
    |timing| timing.wait_most = 0,
    |timing| timing.spurious = 0,
    |timing| timing.buffers = false,
    |timing| timing.parser = Parser::Strict,
    |timing| timing.side_by_side = None,
    |timing| timing.over_tls = false,
];
