//! The client: it takes its steps one after the other, and waits where a step says so.

use std::sync::Arc;

use crate::net::Net;
use crate::script::{Script, Step, sent};

pub(super) struct Client {
    script: Arc<Script>,
    bytes: Vec<u8>,
    /// Where each request begins in the stream, and its body, and ends.
    pub(super) places: Vec<(usize, usize, usize)>,
    step: usize,
    /// Of the step under way, what is still to be sent.
    sending: Option<(usize, usize)>,
    due: u64,
    /// Everything that was sent.
    sent: Vec<u8>,
    /// Bodies that aren't sent, as their 100 didn't come.
    withheld: Option<usize>,
}

impl Client {
    pub(super) fn new(script: Arc<Script>) -> Self {
        let mut bytes = Vec::with_capacity(256 * script.asked.len());
        let mut places = Vec::with_capacity(script.asked.len());
        for (at, asked) in script.asked.iter().enumerate() {
            let begin = bytes.len();
            let head = asked.write(at, &mut bytes);
            places.push((begin, begin + head, bytes.len()));
        }
        Self {
            script,
            bytes,
            places,
            step: 0,
            sending: None,
            due: 0,
            sent: Vec::new(),
            withheld: None,
        }
    }

    pub(super) fn due(&self) -> Option<u64> {
        (self.step < self.script.steps.len()).then_some(self.due)
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// It waits for the server.
    pub(super) fn waits(&self, net: &Net) -> bool {
        match self.script.steps.get(self.step) {
            Some(Step::Answers(count)) => !has_answers(net, *count),
            Some(Step::Continue(at)) => {
                !has_answers(net, *at + 1) && !may_send(net, *at) && net.answers.finals.len() <= *at
            }
            _ => false,
        }
    }

    pub(super) fn step(&mut self, net: &mut Net, now: u64) {
        let Some(step) = self.script.steps.get(self.step).copied() else {
            return;
        };
        if self.waits(net) {
            // Looked at again when something has happened.
            self.due = now + 1;
            return;
        }
        let range = match step {
            Step::Send(at) => Some((self.places[at].0, self.places[at].2)),
            Step::Head(at) => Some((self.places[at].0, self.places[at].1)),
            Step::Body(at) if self.withheld == Some(at) => None,
            Step::Body(at) => Some((self.places[at].1, self.places[at].2)),
            Step::Part(at, bytes) => Some((
                self.places[at].0,
                (self.places[at].0 + bytes).min(self.places[at].2),
            )),
            _ => None,
        };
        if let Some((from, to)) = self.sending.or(range) {
            let (count, delay) = net.slice(to - from);
            net.send(&self.bytes[from..from + count]);
            self.sent.extend_from_slice(&self.bytes[from..from + count]);
            self.due = now + delay;
            self.sending = (from + count < to).then_some((from + count, to));
            self.step += usize::from(self.sending.is_none());
            return;
        }
        self.step += 1;
        self.due = now;
        match step {
            Step::Tunnel(count) => {
                net.send(&sent(77)[..count]);
                self.sent.extend_from_slice(&sent(77)[..count]);
            }
            Step::Pause(millis) => self.due = now + millis,
            Step::Continue(at) if !may_send(net, at) => self.withheld = Some(at),
            Step::TakeOnly(room) => net.take_only(room),
            Step::TakeAll => net.take_only(usize::MAX),
            Step::Finish => net.finish(),
            Step::Reset => net.reset(),
            _ => {}
        }
        if self.step == self.script.steps.len() {
            net.be_plain();
        }
    }

    pub(super) fn sent_behind(&self, at: usize) -> &[u8] {
        &self.sent[self.places[at].2.min(self.sent.len())..]
    }
}

fn has_answers(net: &Net, count: usize) -> bool {
    net.answers.complete() >= count
        || net.server_finished
        || net.dropped.is_some()
        || net.answers.is_tunnel()
}

fn may_send(net: &Net, at: usize) -> bool {
    let answers = &net.answers;
    answers
        .finals
        .get(at)
        .map_or(answers.finals.len() == at && answers.continued, |answer| {
            answer.after_continue
        })
}
