//! How a server stops, and what it tells afterwards: lame duck, drain, cut. The plan and the account are here; the
//! server carries the plan out.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::conn::{Address, CloseReason, ConnReport, RequestLine, State};
use crate::error::Error;

type Event = Pin<Box<dyn Future<Output = ()> + Send>>;
type OnProgress = Box<dyn FnMut(&Progress) + Send>;

/// When a server stops, and how.
///
/// 1. *Lame duck*, if asked for: it still accepts, and every response says `connection: close`.
/// 2. *Drain*: what is queued is accepted, then the listeners close. Idle connections have a second for a request
///    that is on its way, and close. Running work finishes.
/// 3. *Cut*, at the deadline or when the second event comes: what is left ends.
///
/// ```
/// use std::time::Duration;
/// use wharf::Shutdown;
///
/// let shutdown = Shutdown::on_signals()
///     .lame_duck(Duration::from_secs(5))
///     .drain(Duration::from_secs(20))
///     .progress(Duration::from_secs(5), |p| eprintln!("{p}"));
/// ```
#[must_use]
pub struct Shutdown {
    /// `None`: a signal.
    stop: Option<Event>,
    /// `None`: the second signal, where the first is what stops.
    cut: Option<Event>,
    pub(crate) lame_duck: Duration,
    pub(crate) drain: Duration,
    pub(crate) progress: Option<(Duration, OnProgress)>,
}

impl Shutdown {
    /// On SIGINT (Ctrl-C) or SIGTERM; the second one cuts. This is the default.
    pub fn on_signals() -> Self {
        Self {
            stop: None,
            cut: None,
            lame_duck: Duration::ZERO,
            drain: Duration::from_secs(30),
            progress: None,
        }
    }

    /// When `event` is over. Signals keep the meaning that they have without a server.
    pub fn when(event: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            stop: Some(Box::pin(event)),
            ..Self::on_signals()
        }
    }

    /// Only when the service fails for good.
    pub fn never() -> Self {
        Self::when(std::future::pending())
    }

    /// Cuts when `event` is over, once the shutdown has begun; takes the place of the second signal.
    pub fn cut_when(mut self, event: impl Future<Output = ()> + Send + 'static) -> Self {
        self.cut = Some(Box::pin(event));
        self
    }

    /// For how long connections are still accepted, so that a balancer can notice. Default: not at all.
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = time;
        self
    }

    /// For how long running work may go on after that. Default 30 s.
    pub fn drain(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// Calls `tell` every so often while the shutdown runs. An interval of zero is taken as a millisecond.
    pub fn progress(
        mut self,
        every: Duration,
        tell: impl FnMut(&Progress) + Send + 'static,
    ) -> Self {
        self.progress = Some((every.max(Duration::from_millis(1)), Box::new(tell)));
        self
    }

    /// Begins to watch for what stops the server.
    pub(crate) fn watch(&mut self) -> Result<Trigger, Error> {
        let signals = match self.stop {
            None => Some(Signals::watch()?),
            Some(_) => None,
        };
        Ok(Trigger {
            signals,
            stop: self.stop.take(),
            cut: self.cut.take(),
        })
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::on_signals()
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("lame_duck", &self.lame_duck)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// What stops a server, watched.
pub(crate) struct Trigger {
    signals: Option<Signals>,
    stop: Option<Event>,
    cut: Option<Event>,
}

impl Trigger {
    /// What stops the server; not to be asked again once it is over.
    pub(crate) async fn stop(&mut self) {
        either(&mut self.stop, &mut self.signals).await;
    }

    /// What cuts; not to be asked again once it is over.
    pub(crate) async fn cut(&mut self) {
        either(&mut self.cut, &mut self.signals).await;
    }
}

async fn either(event: &mut Option<Event>, signals: &mut Option<Signals>) {
    match (event, signals) {
        (Some(event), _) => event.await,
        (None, Some(signals)) => signals.next().await,
        (None, None) => std::future::pending().await,
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn watch() -> Result<Self, Error> {
        let watch = |kind| {
            signal(kind).map_err(|error| Error::config(format!("can't watch for signals: {error}")))
        };
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How far a shutdown has come.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Progress {
    /// Connections still open.
    pub open: usize,
    /// The one that is open for longest.
    pub oldest: Option<Oldest>,
    /// Since the shutdown began.
    pub since: Duration,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shutting down for {:.1?}: {} open",
            self.since, self.open
        )?;
        if let Some(oldest) = &self.oldest {
            write!(f, ", the oldest {oldest}")?;
        }
        Ok(())
    }
}

/// The connection that is open for longest.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Oldest {
    /// Who is at the other end.
    pub peer: Address,
    /// Since its accept.
    pub age: Duration,
    /// Requests so far.
    pub requests: u64,
    /// What it is doing.
    pub state: State,
    /// The request under way.
    pub request: Option<RequestLine>,
}

impl fmt::Display for Oldest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        doing(f, &self.peer, self.age, self.state, self.request.as_ref())
    }
}

/// The account of a server's life.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// Requests whose head was complete.
    pub requests: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Bytes read from the peers of those that have ended.
    pub bytes_in: u64,
    /// Bytes written to them.
    pub bytes_out: u64,
    /// How many ended for which reason, in the words of the printed report.
    pub closed: BTreeMap<&'static str, u64>,
    /// Who was cut at the end of the shutdown's time.
    pub cut: Vec<Cut>,
    /// Failed attempts to accept.
    pub accept_errors: u64,
}

/// A connection that was cut.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Cut {
    /// Who was at the other end.
    pub peer: Address,
    /// Since its accept.
    pub age: Duration,
    /// Requests, the one that was cut included.
    pub requests: u64,
    /// What it was doing.
    pub state: State,
    /// The request that was under way.
    pub request: Option<RequestLine>,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        doing(f, &self.peer, self.age, self.state, self.request.as_ref())
    }
}

/// `10.0.0.7:4711, open for 12.3s, handling GET /report`
fn doing(
    f: &mut fmt::Formatter<'_>,
    peer: &Address,
    age: Duration,
    state: State,
    request: Option<&RequestLine>,
) -> fmt::Result {
    write!(f, "{peer}, open for {age:.1?}, {state}")?;
    request.map_or(Ok(()), |request| write!(f, " {request}"))
}

impl Report {
    pub(crate) fn add(&mut self, report: &ConnReport) {
        self.requests += report.requests;
        self.bytes_in += report.bytes_in;
        self.bytes_out += report.bytes_out;
        *self.closed.entry(word(&report.reason)).or_default() += 1;
        if report.reason == CloseReason::Cut {
            self.cut.push(Cut {
                peer: report.info.peer.clone(),
                age: report.age,
                requests: report.requests,
                state: report.state,
                request: report.request.clone(),
            });
        }
    }
}

/// `12,431 requests on 87 connections; closed: 80 by the client, 6 idle, 1 refused`
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let (requests, connections) = (self.requests, self.connections);
        write!(
            f,
            "{} request{} on {} connection{}",
            Grouped(requests),
            plural(requests),
            Grouped(connections),
            plural(connections)
        )?;
        let mut closed: Vec<_> = self.closed.iter().collect();
        closed.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (at, (word, count)) in closed.into_iter().enumerate() {
            let lead = if at == 0 { "; closed: " } else { ", " };
            write!(f, "{lead}{} {word}", Grouped(*count))?;
        }
        if self.accept_errors > 0 {
            write!(f, "; {} failed to be accepted", Grouped(self.accept_errors))?;
        }
        Ok(())
    }
}

/// A number in groups of three digits.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            return self.0.fmt(f);
        }
        write!(f, "{},{:03}", Self(self.0 / 1000), self.0 % 1000)
    }
}

/// A reason as it reads behind a number: "3 idle".
fn word(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::ClientClosed => "by the client",
        CloseReason::ClientAsked => "as the client asked",
        CloseReason::HandlerAsked => "as the handler asked",
        CloseReason::Unframed => "to end an HTTP/1.0 response",
        CloseReason::Idle { .. } => "idle",
        CloseReason::MaxAge => "of old age",
        CloseReason::HeadTimeout { .. } => "with a slow head",
        CloseReason::BodyTimeout => "with a slow body",
        CloseReason::WriteTimeout => "with a slow reader",
        CloseReason::ReadyTimeout => "while the service wasn't ready",
        CloseReason::Refused(_) => "refused",
        CloseReason::BodyUnread => "with an unread body",
        CloseReason::Truncated => "cut short by the client",
        CloseReason::Io(_) => "reset or failed",
        CloseReason::ResponseFailed => "with a failed response body",
        CloseReason::ResponseLength => "with a response of the wrong length",
        CloseReason::Panicked => "by a panic",
        CloseReason::ServiceFailed => "as the service failed",
        CloseReason::Shutdown => "for the shutdown",
        CloseReason::Cut => "cut",
        CloseReason::Evicted => "to make room",
        CloseReason::Operator => "by the operator",
        CloseReason::Upgraded => "upgraded",
        CloseReason::Proxy(_) => "for want of a PROXY header",
        CloseReason::Tls(_) => "in the TLS handshake",
        CloseReason::PeerLimit => "over its peer's limit",
        CloseReason::BeforeHttp(_) => "before HTTP",
        CloseReason::Http2(_) => "with an error of HTTP/2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_a_sentence() {
        let report = Report {
            requests: 12_431,
            connections: 87,
            closed: [("idle", 6), ("by the client", 80), ("refused", 1)].into(),
            ..Report::default()
        };
        assert_eq!(
            report.to_string(),
            "12,431 requests on 87 connections; closed: 80 by the client, 6 idle, 1 refused"
        );
        let one = Report {
            requests: 1,
            connections: 1,
            accept_errors: 2,
            ..Report::default()
        };
        assert_eq!(
            one.to_string(),
            "1 request on 1 connection; 2 failed to be accepted"
        );
        assert_eq!(Report::default().to_string(), "0 requests on 0 connections");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_002_003, "1,002,003"),
        ] {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }
}
