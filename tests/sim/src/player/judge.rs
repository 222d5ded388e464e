//! What must hold: after each poll of the connection, and in the end.

use wharf::CloseReason;

use super::{Player, READ_AHEAD};
use crate::model;
use crate::net::{BUFFER, BUSY, Net};
use crate::script::{Answer, Kind, Read, Script, Step};
use crate::timing::Timing;
use crate::tls;
use crate::world::World;

/// No poll serves more requests, but for those that run side by side.
const FAIR: usize = 16;

impl Player {
    /// What must hold after each poll.
    pub(super) fn check_poll(&mut self) {
        let done = self.done();
        self.idle_polls = if done == self.seen {
            self.idle_polls + 1
        } else {
            0
        };
        self.seen = done;
        let mut net = self.net.lock();
        if self.idle_polls > BUSY {
            net.fail("busy: the connection is polled again and again, and nothing changes");
        }
        let calls = self.world.calls_in_poll.get();
        if calls > FAIR + self.side_by_side {
            net.fail(format_args!("unfair: {calls} requests in one poll"));
        }
        let handled = net
            .answers
            .finals
            .iter()
            .filter(|answer| answer.id.is_some());
        let came: usize = handled.map(|answer| answer.bytes).sum();
        let owed = self.world.given.get().saturating_sub(came);
        if self.most_owed.is_some_and(|most| owed > most) {
            net.fail(format_args!("unbounded: {owed} bytes of answers are owed"));
        }
        // A closing connection reads what it doesn't use, and so does another protocol.
        let closes =
            net.server_finished || net.answers.finals.iter().any(|answer| answer.says_close);
        let is_over = closes || net.answers.is_tunnel() || self.world.calls.get() == 0;
        let used = used(&self.world, net.answers.finals.len());
        if net.read > used + READ_AHEAD && !is_over {
            let read = net.read;
            net.fail(format_args!(
                "unbounded: {read} bytes were read and {used} used"
            ));
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

    /// The server ended the connection by itself, in peace, over a stream that works. Who took the socket ends it as they
    /// like.
    fn is_polite(&self, net: &Net) -> bool {
        let ended = self.report.as_ref().map(|report| &report.reason);
        let is_ours = ended.is_some_and(|reason| *reason != CloseReason::Upgraded)
            && !net.answers.is_tunnel();
        net.dropped == Some(false) && is_ours && !net.failed && !net.client_reset
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
        if self.is_polite(net) && net.owes_notice() {
            return Some("the end was polite, and nobody was told: no close_notify".to_owned());
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
            Kind::Steady => net.unread(),
            // An idle connection that is told to stop may miss what comes later, not what was there.
            _ if net.is_gated => 0,
            _ => net.left,
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

/// How many bytes of content may be owed: what the limit says, the frame that goes beyond it, and what a stream buffers.
/// `None` where a handler gives more than it declares.
pub(super) fn most_owed(script: &Script, timing: &Timing) -> Option<usize> {
    let mut most = 0;
    for asked in &script.asked {
        if asked.plan.read == Read::Echo {
            most = most.max(READ_AHEAD);
        } else if let Answer::Response(response) = &asked.plan.answer {
            let given: usize = response.frames.iter().sum();
            if response
                .hint
                .or(response.declared)
                .is_some_and(|length| length < given)
            {
                return None;
            }
            most = most.max(response.frames.iter().copied().max().unwrap_or(0));
        }
    }
    let encrypted = if timing.over_tls { tls::BUFFER } else { 0 };
    Some(script.house.write_buffer + most + BUFFER + encrypted)
}
