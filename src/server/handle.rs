//! A server seen from outside while it runs: what is open and doing what, and a hand on each connection. Looking costs
//! whoever looks; a connection only notes what it is about to wait for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::open::Open;
use crate::conn::{ConnInfo, RequestLine, State, Told};
use crate::shutdown::Report;

/// Looks at a running server, closes connections and stops it; see [`Server::handle`](crate::Server::handle).
///
/// A clone is another handle of the same server. All calls return at once.
///
/// ```no_run
/// # async fn run(stack: impl tower::Service<
/// #     wharf::Conn<wharf::Stream>, Response = wharf::ConnReport, Error = wharf::BoxError, Future: Send + 'static>) -> Result<(), wharf::Error> {
/// use std::time::Duration;
/// use wharf::{Server, State};
///
/// let server = Server::new().bind("0.0.0.0:8080")?;
/// let handle = server.handle();
/// tokio::spawn(async move {
///     loop {
///         tokio::time::sleep(Duration::from_secs(10)).await;
///         println!("{} open: {:?}", handle.open(), handle.counts());
///         for conn in handle.connections() {
///             if conn.state == State::Handling && conn.in_state > Duration::from_secs(60) {
///                 println!("{conn}"); // #17 from 10.0.0.7:4711, open for 93.0s, handling for 61.2s: GET /report
///                 handle.abort(conn.info.id);
///             }
///         }
///     }
/// });
/// server.serve(stack).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Handle {
    open: Arc<Open>,
}

impl Handle {
    pub(super) fn new(open: Arc<Open>) -> Self {
        Self { open }
    }

    /// How far the server's life has come.
    pub fn phase(&self) -> Phase {
        self.open.phase()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.count()
    }

    /// How many may be open at a time; zero until the server serves.
    pub fn max_connections(&self) -> usize {
        self.open.max()
    }

    /// How much of that is used, from 0 to 1. Above 0.9 the server closes who is idle for longest for each that comes.
    pub fn fullness(&self) -> f32 {
        self.open() as f32 / self.max_connections().max(1) as f32
    }

    /// The open connections, oldest first.
    pub fn connections(&self) -> Vec<ConnView> {
        self.open.views()
    }

    /// How many connections are doing what.
    pub fn counts(&self) -> BTreeMap<State, usize> {
        let mut counts = BTreeMap::new();
        for state in self.open.states() {
            *counts.entry(state).or_default() += 1;
        }
        counts
    }

    /// The account so far, of the connections that have ended: how many for which reason, and their requests.
    pub fn report(&self) -> Report {
        self.open.so_far()
    }

    /// What has crossed the connections so far, also those that are open.
    pub fn traffic(&self) -> Traffic {
        self.open.traffic()
    }

    /// How many connections have ended for which reason, in the words of the printed report.
    pub fn closed(&self) -> BTreeMap<&'static str, u64> {
        self.report().closed
    }

    /// Closes a connection politely: at once if it is idle, else behind the response under way. `false`: it isn't open.
    pub fn close(&self, id: u64) -> bool {
        self.open.tell_one(id, Told::Drain)
    }

    /// Ends a connection now, whatever it is doing; its handler is dropped. `false`: it isn't open.
    pub fn abort(&self, id: u64) -> bool {
        self.open.tell_one(id, Told::Cut)
    }

    /// Stops the server as the event does that its [`Shutdown`](crate::Shutdown) waits for; called before it serves,
    /// it stops when it begins to.
    pub fn stop(&self) {
        self.open.ask_to_stop();
    }
}

/// How far the life of a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Phase {
    /// It doesn't serve yet.
    Starting = 0,
    /// It serves.
    Serving = 1,
    /// It will stop: it still accepts, says `connection: close` in each answer, and readiness is over.
    LameDuck = 2,
    /// It finishes what is open and accepts no more.
    Draining = 3,
    /// It is over.
    Stopped = 4,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: &[Self] = &[
        Self::Starting,
        Self::Serving,
        Self::LameDuck,
        Self::Draining,
        Self::Stopped,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::LameDuck => "lame duck",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        })
    }
}

/// What has crossed a server's connections so far, the open ones and those that have ended. No number ever falls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Connections accepted.
    pub connections: u64,
    /// Requests whose head was complete.
    pub requests: u64,
    /// Bytes read from the peers.
    pub bytes_in: u64,
    /// Bytes written to them.
    pub bytes_out: u64,
}

/// An open connection, as it was when somebody looked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnView {
    /// The facts of the connection.
    pub info: ConnInfo,
    /// Since its accept.
    pub age: Duration,
    /// It speaks HTTP/2; false as long as its first bytes haven't said so.
    pub is_http2: bool,
    /// Requests whose head was complete.
    pub requests: u64,
    /// Bytes read from the peer.
    pub bytes_in: u64,
    /// Bytes written to the peer.
    pub bytes_out: u64,
    /// What it is doing, or was about to wait for when it last waited.
    pub state: State,
    /// Since when, to the millisecond.
    pub in_state: Duration,
    /// The request under way, if it has been waited for.
    pub request: Option<RequestLine>,
}

impl fmt::Display for ConnView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            info,
            age,
            state,
            in_state,
            ..
        } = self;
        let (id, peer) = (info.id, &info.peer);
        write!(
            f,
            "#{id} from {peer}, open for {age:.1?}, {state} for {in_state:.1?}"
        )?;
        self.request
            .as_ref()
            .map_or(Ok(()), |request| write!(f, ": {request}"))
    }
}
