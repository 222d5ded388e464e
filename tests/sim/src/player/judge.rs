//! What must hold: after each poll of the connection, and in the end.

use wharf::CloseReason;

use super::{Player, READ_AHEAD};
use crate::model;
use crate::net::{BUFFER, BUSY, Net};
use crate::script::{Answer, Kind, Read, Script, Step};
use crate::world::World;

impl Player {
    /// What must hold after each poll.
    pub(super) fn check_poll(&mut self) {
        let net = self.net.lock();
        let now = (net.progress, self.world.progress.get(), net.now);
        let mut wrong = None;
        if now != self.seen {
            self.seen = now;
            self.idle_polls = 0;
        } else {
            self.idle_polls += 1;
            if self.idle_polls > BUSY {
                wrong = Some(
                    "busy: the connection is polled again and again, and nothing changes"
                        .to_owned(),
                );
            }
        }
        let calls = self.world.calls_in_poll.get();
        if calls > 16 + self.side_by_side {
            wrong = Some(format!("unfair: {calls} requests in one poll"));
        }
        let came: usize = net
            .answers
            .finals
            .iter()
            .filter(|answer| answer.id.is_some())
            .map(|answer| answer.bytes)
            .sum();
        let owed = self.world.given.get().saturating_sub(came);
        let (most, lies) = largest(&self.script);
        if owed > self.script.house.write_buffer + most + BUFFER && !lies {
            wrong = Some(format!("unbounded: {owed} bytes of answers are owed"));
        }
        if self.world.calls.get() > 0 {
            let used = used(&self.world, net.answers.finals.len());
            if net.read > used + READ_AHEAD
                && !net.answers.is_tunnel()
                && !net.server_finished
                && net.answers.finals.iter().all(|answer| !answer.says_close)
            {
                wrong = Some(format!(
                    "unbounded: {} bytes were read and {used} used",
                    net.read
                ));
            }
        }
        drop(net);
        if let Some(wrong) = wrong {
            self.net.lock().fail(wrong);
        }
    }

    /// How many requests of a connection that is told to stop must have an answer: those that were handled (of several
    /// side by side a client repeats what wasn't answered: all of them are safe), and those that had wholly come while
    /// nobody had said close.
    fn accepted(&self, net: &Net) -> usize {
        let handled = if self.side_by_side == 0 {
            self.world.calls.get()
        } else {
            0
        };
        let is_slow = self
            .script
            .steps
            .iter()
            .any(|step| matches!(step, Step::TakeOnly(_)));
        let closes = net
            .answers
            .finals
            .iter()
            .any(|answer| answer.says_close || !answer.is_complete);
        if net.is_gated || is_slow || closes {
            return handled;
        }
        let come = self
            .world
            .places
            .iter()
            .filter(|(_, _, end)| *end <= net.read)
            .count();
        handled.max(come)
    }

    /// The first promise that wasn't kept.
    pub(super) fn judge(&self, net: &Net) -> Option<String> {
        let answers = &net.answers;
        if self.world.alive.get() != 0 {
            return Some(format!(
                "leaked: {} futures, bodies or tasks outlive the connection",
                self.world.alive.get()
            ));
        }
        if net.dropped.is_none() {
            return Some("leaked: the stream outlives the connection".to_owned());
        }
        let lie = answers
            .finals
            .iter()
            .enumerate()
            .find_map(|(at, came)| model::lie(&self.script, at, came));
        if lie.is_some() {
            return lie;
        }
        if let Some(report) = &self.report {
            let calls = self.world.calls.get() as u64;
            if report.requests < calls {
                return Some(format!(
                    "the report tells of {} requests, {calls} were handled",
                    report.requests
                ));
            }
            let (read, written) = (net.read as u64, net.written as u64);
            let counts = (report.bytes_in, report.bytes_out);
            // A bug around the stream may count in its own way.
            let is_plain = self.bug.is_none() && report.reason != CloseReason::Upgraded;
            if counts != (read, written) && is_plain {
                return Some(format!(
                    "the report counts {counts:?} bytes, not {:?}",
                    (read, written)
                ));
            }
        }
        let expected = model::outcome(&self.script);
        let difference = match self.script.kind {
            Kind::Steady => model::difference(&expected, &answers.finals),
            Kind::Gentle => model::lost(&expected, &answers.finals, self.accepted(net)),
            Kind::Rough => return None,
        };
        if difference.is_some() {
            return difference;
        }
        if let Some(at) = expected
            .tunnel_behind
            .filter(|at| *at < answers.finals.len())
        {
            let sent = self.client.sent_behind(at);
            if answers.tunnel != sent {
                let came = answers.tunnel.len();
                return Some(format!(
                    "tunnel: {came} bytes came back of {} that were sent behind the switch",
                    sent.len()
                ));
            }
        }
        let unread = match self.script.kind {
            Kind::Steady => net.under_way.len(),
            // An idle connection that is told to stop may miss what comes later, not what was there.
            _ if net.is_gated => 0,
            _ => net.unread,
        };
        let is_late = net.dropped == Some(false) && unread > 0;
        let may_be = self
            .report
            .as_ref()
            .is_some_and(|report| report.reason == CloseReason::ClientAsked);
        if is_late && !may_be {
            return Some(format!(
                "closed with {unread} bytes unread, which resets the stream and may destroy the answer"
            ));
        }
        None
    }
}

/// How much of the client's stream the handlers and their bodies have used; what is left of a body that is answered may be
/// drained.
fn used(world: &World, answered: usize) -> usize {
    let records = world.records.borrow();
    let Some(at) = records.iter().rposition(|record| record.called) else {
        return 0;
    };
    let (_, body, end) = world.places[at];
    if records[at].left || answered > at {
        return end;
    }
    body + records[at].read
}

/// The largest frame, and whether a handler lies about a length: then content is given that nobody is owed.
fn largest(script: &Script) -> (usize, bool) {
    let mut most = 0;
    let mut lies = false;
    for asked in &script.asked {
        if let Answer::Response(response) = &asked.plan.answer {
            let given: usize = response.frames.iter().sum();
            most = most.max(response.frames.iter().copied().max().unwrap_or(0));
            lies |= response
                .hint
                .or(response.declared)
                .is_some_and(|length| length < given);
        }
        if asked.plan.read == Read::Echo {
            most = most.max(READ_AHEAD);
        }
    }
    (most, lies)
}
