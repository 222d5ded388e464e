//! Checks, run side by side and not more often than need be. Nothing here knows requests or the server.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use wharf::BoxError;

use super::OnFailure;

type Asking = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A question to something that the server needs.
#[derive(Clone)]
pub(super) struct Check {
    name: Arc<str>,
    time_out: Duration,
    ask: Arc<dyn Fn() -> Asking + Send + Sync>,
}

impl Check {
    pub(super) fn new<F, Fut, E>(name: Cow<'static, str>, time_out: Duration, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        // It is shown in JSON and in a line.
        let plain = |c: &char| !c.is_control() && !matches!(c, '"' | '\\');
        Self {
            name: name.chars().filter(plain).collect::<String>().into(),
            time_out,
            ask: Arc::new(move || {
                let asking = check();
                Box::pin(async move { asking.await.map_err(Into::into) })
            }),
        }
    }

    async fn run(self) -> Result<(), Failure> {
        // Asked in here, where a panic is this check's alone.
        match timeout(self.time_out, (self.ask)()).await {
            Ok(said) => said.map_err(Failure::Error),
            Err(_) => Err(Failure::TimedOut(self.time_out)),
        }
    }
}

/// Why a check failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It said so.
    Error(BoxError),
    /// It took longer than it may.
    TimedOut(Duration),
    /// It panicked.
    Panicked,
}

impl Failure {
    /// In words that are for everybody.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Error(_) => "failed",
            Self::TimedOut(_) => "timed out",
            Self::Panicked => "panicked",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "failed: {error}"),
            Self::TimedOut(after) => write!(f, "said nothing for {after:?}"),
            Self::Panicked => f.write_str("panicked"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Error(error) => Some(error.as_ref()),
            Self::TimedOut(_) | Self::Panicked => None,
        }
    }
}

/// What all checks said at one time.
#[derive(Debug)]
pub(super) struct Outcome {
    at: Instant,
    pub(super) said: Vec<(Arc<str>, Result<(), Failure>)>,
}

/// The checks of one question; clones share what they said last.
#[derive(Clone, Default)]
pub(super) struct Checks {
    list: Arc<[Check]>,
    last: Arc<Mutex<Option<Arc<Outcome>>>>,
}

impl Checks {
    /// With one more. Nobody has been asked yet.
    pub(super) fn and(&self, check: Check) -> Self {
        Self {
            list: self.list.iter().cloned().chain([check]).collect(),
            last: Arc::default(),
        }
    }

    /// What they said, if that is no older than `keep` and known without waiting.
    pub(super) fn known(&self, keep: Duration) -> Option<Arc<Outcome>> {
        if self.list.is_empty() {
            return Some(Arc::new(Outcome {
                at: Instant::now(),
                said: Vec::new(),
            }));
        }
        fresh(&*self.last.try_lock().ok()?, keep)
    }

    /// The same, asking them if need be. Who comes meanwhile waits for the lock, and then finds the answer.
    ///
    /// Dropped, the run ends with it, and the next in line begins another.
    pub(super) async fn ask(&self, keep: Duration, tell: Option<&OnFailure>) -> Arc<Outcome> {
        let mut last = self.last.lock().await;
        if let Some(known) = fresh(&last, keep) {
            return known;
        }
        let outcome = Arc::new(self.run().await);
        *last = Some(outcome.clone());
        drop(last);
        for (name, said) in &outcome.said {
            if let (Err(failure), Some(tell)) = (said, tell) {
                tell(name, failure);
            }
        }
        outcome
    }

    async fn run(&self) -> Outcome {
        let mut running = JoinSet::new();
        for (index, check) in self.list.iter().cloned().enumerate() {
            running.spawn(async move { (index, check.run().await) });
        }
        // Who panics never comes to say anything else.
        let names = self.list.iter().map(|check| check.name.clone());
        let mut said: Vec<_> = names.map(|name| (name, Err(Failure::Panicked))).collect();
        while let Some(joined) = running.join_next().await {
            if let Ok((index, result)) = joined {
                said[index].1 = result;
            }
        }
        Outcome {
            at: Instant::now(),
            said,
        }
    }
}

fn fresh(last: &Option<Arc<Outcome>>, keep: Duration) -> Option<Arc<Outcome>> {
    last.as_ref()
        .filter(|last| last.at.elapsed() < keep)
        .cloned()
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.list.iter().map(|check| &check.name);
        f.debug_list().entries(names).finish()
    }
}
