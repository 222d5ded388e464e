//! Accepting: several listeners in turn, and what to do when it fails. No failure stops a server or makes it spin.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::listener::{Accepted, OpenListener, Stream};

/// What the accept loop needs of listeners.
pub(super) trait Accept {
    type Io;

    /// Waits for a connection.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Self::Io>>>;

    /// From here on no connection begins, as far as that can be had; those that are queued are still there.
    fn admit_no_more(&mut self) {}

    /// A connection that is queued already; `WouldBlock` says that none is.
    fn accept_queued(&mut self) -> io::Result<Accepted<Self::Io>>;
}

/// Listeners that take turns: a busy one doesn't hide the others.
#[derive(Debug)]
pub(super) struct Turns {
    listeners: Vec<OpenListener>,
    next: usize,
}

impl Turns {
    pub(super) fn new(listeners: Vec<OpenListener>) -> Self {
        Self { listeners, next: 0 }
    }

    /// Asks each once, first the one after that which had the last word.
    fn first<T>(&mut self, mut ask: impl FnMut(&OpenListener) -> Option<T>) -> Option<T> {
        let (after, before) = self.listeners.split_at(self.next);
        let start = self.next;
        for (turn, listener) in before.iter().chain(after).enumerate() {
            if let Some(answer) = ask(listener) {
                self.next = (start + turn + 1) % self.listeners.len();
                return Some(answer);
            }
        }
        None
    }
}

impl Accept for Turns {
    type Io = Stream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Stream>>> {
        let accepted = self.first(|listener| match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        accepted.map_or(Poll::Pending, Poll::Ready)
    }

    fn admit_no_more(&mut self) {
        self.listeners.iter().for_each(OpenListener::admit_no_more);
    }

    fn accept_queued(&mut self) -> io::Result<Accepted<Stream>> {
        let accepted = self.first(|listener| match listener.accept_queued() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            accepted => Some(accepted),
        });
        accepted.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }
}

/// How long to wait after a failed accept.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Failures since the last success: of connections, and for want of resources.
    lost: u32,
    starved: u32,
}

/// After that many lost connections in a row something else is wrong.
const LOST_IN_A_ROW: u32 = 64;
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(100);

impl Pace {
    pub(super) fn succeeded(&mut self) {
        self.lost = 0;
        self.starved = 0;
    }

    /// How long to wait before the next try; `None`: no time at all.
    pub(super) fn failed(&mut self, error: &io::Error) -> Option<Duration> {
        if is_of_one_connection(error) && self.lost < LOST_IN_A_ROW {
            self.lost += 1;
            return None;
        }
        let pause = SHORTEST * (1 << self.starved.min(5));
        self.starved = self.starved.saturating_add(1);
        Some(pause.min(LONGEST))
    }
}

/// The error is that of the one connection that would have been accepted; the next may be fine. Linux passes errors
/// that are pending on the new socket through accept (accept(2)), and firewalls refuse with EPERM.
fn is_of_one_connection(error: &io::Error) -> bool {
    const EPROTO: i32 = if cfg!(target_os = "linux") { 71 } else { 100 };
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
            | ErrorKind::TimedOut
            | ErrorKind::WouldBlock
    ) || error.raw_os_error() == Some(EPROTO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_resources_is_waited_out_ever_longer() {
        let emfile = io::Error::from_raw_os_error(24);
        let mut pace = Pace::default();
        let pauses: Vec<_> = (0..8)
            .map(|_| pace.failed(&emfile).unwrap().as_millis())
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 100, 100, 100]);
        pace.succeeded();
        assert_eq!(pace.failed(&emfile), Some(SHORTEST));
    }

    #[test]
    fn a_lost_connection_costs_no_time_until_it_is_the_rule() {
        let mut pace = Pace::default();
        for code in [103, 104, 71, 1] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(pace.failed(&error), None, "{error}");
        }
        let aborted = io::Error::from(ErrorKind::ConnectionAborted);
        let retried = (0..1000).take_while(|_| pace.failed(&aborted).is_none());
        assert_eq!(retried.count() as u32, LOST_IN_A_ROW - 4);
        pace.succeeded();
        assert_eq!(pace.failed(&aborted), None);
    }
}
