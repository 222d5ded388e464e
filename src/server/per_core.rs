//! One runtime a core: each thread accepts on its own share of the listeners and keeps what it accepts, so nothing of a
//! stack need be `Send` and no connection moves. What is open, the way down and the account are one server's, as ever.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tower_service::Service;

use super::open::Open;
use super::steps::{Step, Steps};
use super::{LAST_WORDS, OnAcceptError, Run, Server};
use crate::conn::{Conn, ConnReport};
use crate::error::{BoxError, Error};
use crate::listener::{Listener, Stream};
use crate::shutdown::Report;

/// Only a mistake asks for more.
const WORKERS_AT_MOST: usize = 1024;

impl Server {
    /// Serves until the [`Shutdown`](crate::Shutdown) is over, with [as many](Self::workers) threads as there are cores,
    /// each with a runtime and a stack of its own, which `build` makes there. A connection stays on the thread that
    /// accepted it, so neither the stack nor its futures need be `Send`: [`Http::local`](crate::Http::local) is for
    /// services that aren't.
    ///
    /// Each thread has its own queue of each TCP address that this server bound itself (`SO_REUSEPORT`, on Linux). All
    /// else is shared, and whichever thread is first accepts: Unix sockets, sockets that were bound elsewhere or
    /// inherited, since what waits in the queue of one that goes away would be lost.
    ///
    /// `max_connections` counts for all threads together; each thread but the first may exceed it by one. What the stack
    /// limits it limits on its own thread, unless the limit is made outside of `build` and cloned into it; while it
    /// isn't ready, what waits in its thread's queue isn't given to others.
    ///
    /// ```no_run
    /// use std::{cell::Cell, rc::Rc};
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, service_fn};
    /// use wharf::{Body, BoxError, Http, Server};
    ///
    /// # async fn run() -> Result<(), wharf::Error> {
    /// let report = Server::new()
    ///     .bind("0.0.0.0:8080")?
    ///     .serve_per_core(|| {
    ///         let calls = Rc::new(Cell::new(0)); // of this thread, without a lock
    ///         ServiceBuilder::new().layer(Http::new().local()).service(service_fn(move |_: Request<Body>| {
    ///             calls.set(calls.get() + 1);
    ///             let answer = format!("{} on this core", calls.get());
    ///             async move { Ok::<_, BoxError>(Response::new(Body::from(answer))) }
    ///         }))
    ///     })
    ///     .await?;
    /// println!("{report}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Dropping this future ends the threads and what runs on them.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve); and when a thread can't be started, or `build` panics on one.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time enabled.
    pub async fn serve_per_core<F, S>(mut self, build: F) -> Result<Report, Error>
    where
        F: Fn() -> S + Clone + Send + 'static,
        S: Service<Conn<Stream>, Response = ConnReport> + 'static,
        S::Error: Into<BoxError>,
        S::Future: 'static,
    {
        let workers = match self.workers {
            None => thread::available_parallelism().map_or(1, usize::from),
            Some(workers) if (1..=WORKERS_AT_MOST).contains(&workers) => workers,
            Some(workers) => {
                return Err(Error::config(format!(
                    "workers must be 1 to {WORKERS_AT_MOST}, not {workers}"
                )));
            }
        };
        let life = self.begin()?;
        let steps = Arc::new(Steps::of_loops(workers));
        let ends = Ends(steps.clone());
        for (number, listeners) in shares(self.listeners, workers)?.into_iter().enumerate() {
            let worker = Worker {
                number,
                listeners,
                open: self.open.clone(),
                on_accept_error: self.on_accept_error.clone(),
                thread: Thread::new(steps.clone()),
            };
            let build = build.clone();
            let name = format!("wharf-{number}");
            let started = thread::Builder::new()
                .name(name)
                .spawn(move || worker.run(build));
            if let Err(error) = started {
                let message = format!("can't start a thread for worker {number}: {error}");
                return Err(Error::config(message));
            }
        }
        steps.all_prepared().await;
        let outcome = match steps.take_failed() {
            Some(failed) => Err(Error::config(failed.to_string())),
            None => {
                steps.enter(Step::Accept);
                life.run(&steps).await
            }
        };
        drop(ends);
        let _ = timeout(LAST_WORDS, steps.all_ended()).await;
        outcome
    }
}

/// Ends all threads, also when the server's future is dropped.
struct Ends(Arc<Steps>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.enter(Step::End);
    }
}

/// One share of each listener for each worker.
fn shares(listeners: Vec<Listener>, workers: usize) -> Result<Vec<Vec<Listener>>, Error> {
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for listener in listeners {
        for (share, part) in shares.iter_mut().zip(listener.shards(workers)?) {
            share.push(part);
        }
    }
    Ok(shares)
}

/// What one thread works with.
struct Worker {
    number: usize,
    listeners: Vec<Listener>,
    open: Arc<Open>,
    on_accept_error: Option<OnAcceptError>,
    /// Dropped last: what it held is gone by then.
    thread: Thread,
}

impl Worker {
    fn run<F, S>(self, build: F)
    where
        F: Fn() -> S,
        S: Service<Conn<Stream>, Response = ConnReport> + 'static,
        S::Error: Into<BoxError>,
        S::Future: 'static,
    {
        let Self {
            number,
            listeners,
            open,
            on_accept_error,
            thread,
        } = self;
        let steps = &*thread.0;
        let failed = |why: String| steps.closed(Some(format!("worker {number} {why}").into()));
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return failed(format!("can't have a runtime: {error}")),
        };
        let work = async {
            let stack = catch_unwind(AssertUnwindSafe(build)).map_err(|panic| {
                format!("can't be built: its stack panicked: {}", words(&*panic))
            })?;
            let spawn = |task| drop(spawn_local(task));
            let mut run = Run::new(listeners, stack, spawn, open, on_accept_error)
                .map_err(|error| format!("can't listen: {error}"))?;
            steps.prepared();
            steps.reached(Step::Accept).await;
            run.work(steps).await;
            steps.reached(Step::End).await;
            Ok(())
        };
        let local = LocalSet::new();
        let end = catch_unwind(AssertUnwindSafe(|| local.block_on(&runtime, work)));
        match end {
            Ok(Ok(())) => {}
            Ok(Err(why)) => failed(why),
            Err(panic) => failed(format!("panicked: {}", words(&*panic))),
        }
        drop(local);
        // A handler's blocking work isn't waited for.
        runtime.shutdown_background();
    }
}

/// A thread, until it has ended.
struct Thread(Arc<Steps>);

impl Thread {
    fn new(steps: Arc<Steps>) -> Self {
        steps.thread(true);
        Self(steps)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.thread(false);
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a word")
}
