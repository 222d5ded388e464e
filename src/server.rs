//! The accept loop, what is open, and the way down. Connections are a `tower::Service`'s calls: it is asked whether it
//! is ready *before* one is accepted, so whatever limits it limits `accept()`. Knows nothing of HTTP.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower_service::Service;

use crate::conn::{Address, CloseReason, Conn, ConnInfo, ConnReport, Told};
use crate::error::{BoxError, Error};
use crate::listener::{Accepted, IntoListeners, Listener, Stream};
use crate::shutdown::{Progress, Report, Shutdown, Trigger};

mod accept;
mod handle;
mod limit;
mod notify;
mod open;
mod per_core;
mod steps;

use accept::{Accept, Pace, Turns};
use open::{OnClose, Open, Task};
use steps::{Step, Steps};

pub use handle::{ConnView, Handle, Phase, Traffic};

/// How long an idle connection is left open when the server stops, for a request that is on its way; at most half of
/// the time there is.
const GRACE: Duration = Duration::from_secs(1);
/// How long connections have for their own end after they were told that they are cut.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How soon a full server looks again for somebody who has become idle.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Errors of accept are told no more often.
const TELL_ERRORS: Duration = Duration::from_secs(1);
/// Connections accepted before the others get their turn.
const BATCH: u32 = 64;

/// Accepts connections and gives each to a service, until it is told to stop.
///
/// ```no_run
/// use tower::service_fn;
/// use wharf::{BoxError, Conn, ConnReport, Server, Stream};
///
/// # async fn run(http: impl tower::Service<
/// #     Conn<Stream>, Response = ConnReport, Error = BoxError, Future: Send + 'static>) -> Result<(), wharf::Error> {
/// let report = Server::new()
///     .bind("0.0.0.0:8080")?
///     .bind_unix("/run/app.sock")?
///     .on_close(|conn: &ConnReport| println!("{conn}"))
///     .serve(http)
///     .await?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing until it serves"]
pub struct Server {
    listeners: Vec<Listener>,
    shutdown: Shutdown,
    max_connections: Option<usize>,
    on_close: Option<OnClose>,
    on_accept_error: Option<OnAcceptError>,
    workers: Option<usize>,
    open: Arc<Open>,
}

impl Server {
    /// A server that listens nowhere yet and stops on SIGINT or SIGTERM.
    pub fn new() -> Self {
        Self {
            listeners: Vec::new(),
            shutdown: Shutdown::default(),
            max_connections: None,
            on_close: None,
            on_accept_error: None,
            workers: None,
            open: Arc::default(),
        }
    }

    /// Listens on an address too; see [`Listener::tcp`].
    ///
    /// # Errors
    ///
    /// A sentence that says what can't be bound and why.
    pub fn bind(self, address: impl ToSocketAddrs + fmt::Display) -> Result<Self, Error> {
        self.listen(Listener::tcp(address)?)
    }

    /// Listens on a Unix socket too; see [`Listener::unix`].
    ///
    /// # Errors
    ///
    /// A sentence that says what can't be bound and why.
    pub fn bind_unix(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        self.listen(Listener::unix(path)?)
    }

    /// Listens on what is given too: bound sockets of tokio or of the standard library, named listeners, addresses.
    ///
    /// # Errors
    ///
    /// A sentence that says what can't be bound and why.
    pub fn listen(mut self, listeners: impl IntoListeners) -> Result<Self, Error> {
        self.listeners.extend(listeners.into_listeners()?);
        Ok(self)
    }

    /// Accepts no more than that many connections at a time; further ones wait in the kernel's queue.
    ///
    /// Above nine tenths of it each connection that comes closes the one that has been idle for longest.
    ///
    /// Default: 10,000, or what the limit of open files leaves after 64 others, but at least half of it.
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = Some(most);
        self
    }

    /// How many threads [`serve_per_core`](Self::serve_per_core) uses; by default as many as there are cores to use.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// When and how to stop.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Calls `tell` with each connection's account when it has ended, in the task of the connection.
    pub fn on_close(mut self, tell: impl Fn(&ConnReport) + Send + Sync + 'static) -> Self {
        self.on_close = Some(Box::new(tell));
        self
    }

    /// Calls `tell` with errors of `accept()`, at most once a second: descriptors or memory are missing, most likely. The
    /// server goes on by itself; all errors are counted in its [`Report`].
    pub fn on_accept_error(mut self, tell: impl FnMut(&io::Error) + Send + 'static) -> Self {
        self.on_accept_error = Some(OnAcceptError::new(tell));
        self
    }

    /// A look at what is open, and a hand on it, for as long as the server runs and after.
    pub fn handle(&self) -> Handle {
        Handle::new(self.open.clone())
    }

    /// Serves until the [`Shutdown`] is over. Each connection is a task of its own.
    ///
    /// `stack` is asked for readiness before each accept, and is neither cloned nor rebuilt. An error of one call ends
    /// that connection only.
    ///
    /// # Errors
    ///
    /// When nothing can be listened on, and when the stack fails for good: an error of its `poll_ready`, after what
    /// was open has been drained.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time enabled.
    pub async fn serve<S>(self, stack: S) -> Result<Report, Error>
    where
        S: Service<Conn<Stream>, Response = ConnReport>,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        self.serve_with(stack, |task| drop(tokio::spawn(task)))
            .await
    }

    /// Serves within a [`LocalSet`](tokio::task::LocalSet), with a stack whose futures needn't be `Send`; see
    /// [`serve_per_core`](Server::serve_per_core) for one on each core.
    ///
    /// # Errors
    ///
    /// As [`serve`](Server::serve).
    ///
    /// # Panics
    ///
    /// Outside a `LocalSet`.
    pub async fn serve_local<S>(self, stack: S) -> Result<Report, Error>
    where
        S: Service<Conn<Stream>, Response = ConnReport>,
        S::Error: Into<BoxError>,
        S::Future: 'static,
    {
        self.serve_with(stack, |task| drop(tokio::task::spawn_local(task)))
            .await
    }

    async fn serve_with<S, P>(mut self, stack: S, spawn: P) -> Result<Report, Error>
    where
        S: Service<Conn<Stream>, Response = ConnReport>,
        S::Error: Into<BoxError>,
        P: Fn(Task<S::Future>),
    {
        let life = self.begin()?;
        let steps = Steps::of_loops(1);
        steps.enter(Step::Accept);
        let mut run = Run::new(
            self.listeners,
            stack,
            spawn,
            self.open,
            self.on_accept_error,
        )?;
        let ((), outcome) = tokio::join!(run.work(&steps), life.run(&steps));
        outcome
    }

    /// What can't be served is refused before anything begins.
    fn begin(&mut self) -> Result<Life, Error> {
        if self.listeners.is_empty() {
            return Err(Error::config(
                "a server needs something to listen on: `bind`, `bind_unix` or `listen`",
            ));
        }
        if self.max_connections == Some(0) {
            return Err(Error::config("max_connections must be above zero"));
        }
        let listening = self.listeners.iter().map(|one| one.local().clone());
        let mut shutdown = std::mem::take(&mut self.shutdown);
        let trigger = shutdown.watch()?;
        let max = self.max_connections;
        let max = max.unwrap_or_else(limit::default_connections);
        self.open.begin(max, self.on_close.take());
        Ok(Life {
            listening: listening.collect(),
            open: self.open.clone(),
            shutdown,
            trigger,
        })
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .field("shutdown", &self.shutdown)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// The life of a server, from its first accept to its report; the accept loops go along with it, step by step.
struct Life {
    listening: Vec<Address>,
    open: Arc<Open>,
    shutdown: Shutdown,
    trigger: Trigger,
}

impl Life {
    async fn run(mut self, steps: &Steps) -> Result<Report, Error> {
        let open = self.open.clone();
        notify::ready(&self.listening);
        tokio::select! {
            biased;
            () = self.trigger.stop() => {}
            () = open.clone().stop_asked() => {}
            () = steps.failed() => {}
        }
        self.stop(steps).await;
        let report = open.report();
        open.enter_phase(Phase::Stopped);
        let failed = steps.take_failed();
        failed.map_or(Ok(report), |failed| Err(Error::service(failed)))
    }

    /// The way down: each step is cut short by the second event.
    async fn stop(self, steps: &Steps) {
        let Self {
            open,
            shutdown,
            mut trigger,
            ..
        } = self;
        let (lame_duck, drain) = (shutdown.lame_duck, shutdown.drain);
        open.enter_phase(Phase::LameDuck);
        notify::stopping(open.count());
        open.tell(Told::LastCall);
        let gently = async {
            let _ = timeout(lame_duck, steps.failed()).await;
            open.enter_phase(Phase::Draining);
            let drained = Instant::now() + drain;
            let grace = Instant::now() + GRACE.min(drain / 2);
            steps.enter(Step::Queued);
            let _ = timeout_at(grace, steps.all_closed()).await;
            steps.enter(Step::Close);
            let _ = timeout_at(grace, open.emptied()).await;
            open.tell(Told::Drain);
            let _ = timeout_at(drained, open.emptied()).await;
        };
        tokio::select! {
            biased;
            () = trigger.cut() => {}
            () = gently => {}
            () = tell_progress(shutdown, &open) => {}
        }
        steps.enter(Step::Close);
        open.tell(Told::Cut);
        let _ = timeout(LAST_WORDS, open.emptied()).await;
        open.tell(Told::Abort);
        let _ = timeout(LAST_WORDS / 2, open.emptied()).await;
    }
}

/// An accept loop at work.
struct Run<A, S, P> {
    /// `None` once they are closed.
    listeners: Option<A>,
    stack: S,
    spawn: P,
    open: Arc<Open>,
    on_accept_error: Option<OnAcceptError>,
    pace: Pace,
}

impl<S, P> Run<Turns, S, P> {
    /// Hands the listeners to the runtime that this is called in.
    fn new(
        listeners: Vec<Listener>,
        stack: S,
        spawn: P,
        open: Arc<Open>,
        on_accept_error: Option<OnAcceptError>,
    ) -> Result<Self, Error> {
        let listeners = listeners.into_iter().map(Listener::open);
        Ok(Self {
            listeners: Some(Turns::new(listeners.collect::<Result<_, _>>()?)),
            stack,
            spawn,
            open,
            on_accept_error,
            pace: Pace::default(),
        })
    }
}

impl<A, S, P> Run<A, S, P>
where
    A: Accept,
    S: Service<Conn<A::Io>, Response = ConnReport>,
    S::Error: Into<BoxError>,
    P: Fn(Task<S::Future>),
{
    /// Accepts until the server's life says that it is enough, or the service fails.
    async fn work(&mut self, steps: &Steps) {
        let mut failed = tokio::select! {
            biased;
            () = steps.reached(Step::Queued) => None,
            failed = self.accept() => Some(failed),
        };
        if failed.is_none() {
            self.listeners.iter_mut().for_each(Accept::admit_no_more);
            failed = tokio::select! {
                biased;
                () = steps.reached(Step::Close) => None,
                failed = self.accept_queued() => failed,
            };
        }
        self.listeners = None;
        steps.closed(failed);
    }

    /// Accepts for as long as the service is sound; returns why it isn't.
    ///
    /// Cancel safe: what was accepted has been given to the service.
    async fn accept(&mut self) -> BoxError {
        let mut batch = 0;
        loop {
            self.room().await;
            if let Err(failed) = self.ready().await {
                return failed;
            }
            let Some(listeners) = &mut self.listeners else {
                return std::future::pending().await;
            };
            let accepted = std::future::poll_fn(|cx| listeners.poll_accept(cx)).await;
            self.take(accepted).await;
            batch += 1;
            if batch == BATCH {
                batch = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Accepts what is queued, so that nobody who got through to the kernel is turned away.
    async fn accept_queued(&mut self) -> Option<BoxError> {
        loop {
            self.room().await;
            if let Err(failed) = self.ready().await {
                return Some(failed);
            }
            let accepted = self.listeners.as_mut()?.accept_queued();
            match accepted {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                accepted => self.take(accepted).await,
            }
        }
    }

    /// Waits until one more may be open. Whoever becomes idle meanwhile has to make room.
    async fn room(&mut self) {
        while self.open.count() >= self.open.max() {
            let closed = timeout(LOOK_AGAIN, self.open.closed()).await;
            if closed.is_err() && self.open.count() >= self.open.max() {
                self.open.evict();
            }
        }
    }

    async fn ready(&mut self) -> Result<(), BoxError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match catch_unwind(AssertUnwindSafe(|| self.stack.poll_ready(cx))) {
            Ok(ready) => ready.map_err(Into::into),
            Err(_) => Poll::Ready(Err("the service panicked in poll_ready".into())),
        }
    }

    async fn take(&mut self, accepted: io::Result<Accepted<A::Io>>) {
        let error = match accepted {
            Ok(accepted) => {
                self.pace.succeeded();
                return self.call(accepted);
            }
            Err(error) => error,
        };
        self.open.count_accept_error();
        if let Some(on_accept_error) = &self.on_accept_error {
            on_accept_error.tell(&error);
        }
        if let Some(pause) = self.pace.failed(&error) {
            // A connection that closes gives back what was missing.
            self.open.evict();
            let _ = timeout(pause, self.open.closed()).await;
        }
    }

    fn call(&mut self, accepted: Accepted<A::Io>) {
        let info = ConnInfo {
            id: self.open.next_id(),
            peer: accepted.peer,
            local: accepted.local,
            listener: accepted.listener,
            proxy: None,
            tls: None,
        };
        let conn = Conn::accepted(accepted.io, info, accepted.live);
        let mut ticket = self.open.enter(&conn);
        if self.open.is_nearly_full() {
            self.open.evict();
        }
        match catch_unwind(AssertUnwindSafe(|| self.stack.call(conn))) {
            Ok(connection) => (self.spawn)(Task::new(connection, ticket)),
            Err(_) => ticket.close(Err(CloseReason::Panicked)),
        }
    }
}

/// Told of errors of accept, once in a while; shared by all that accept.
#[derive(Clone)]
struct OnAcceptError(Arc<Mutex<Tell>>);

struct Tell {
    tell: Box<dyn FnMut(&io::Error) + Send>,
    /// When an error was last told.
    last: Option<Instant>,
}

impl OnAcceptError {
    fn new(tell: impl FnMut(&io::Error) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Tell {
            tell: Box::new(tell),
            last: None,
        })))
    }

    fn tell(&self, error: &io::Error) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_none_or(|last| last.elapsed() >= TELL_ERRORS) {
            told.last = Some(Instant::now());
            (told.tell)(error);
        }
    }
}

/// Never over, unless there is nothing to tell to anybody.
async fn tell_progress(shutdown: Shutdown, open: &Open) {
    let Some((every, mut tell)) = shutdown.progress else {
        return std::future::pending().await;
    };
    let begun = Instant::now();
    loop {
        sleep(every).await;
        let (open, oldest) = open.oldest();
        tell(&Progress {
            open,
            oldest,
            since: begun.elapsed(),
        });
    }
}

#[cfg(test)]
mod tests;
