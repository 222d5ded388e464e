//! What all connections of one TLS share: the configuration in use, how many handshakes are under way, and when the files
//! were last looked at. A handshake takes the configuration by one short lock.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;

use super::files::{Files, Stamp};
use crate::error::Error;

/// Handshakes worked on at a time.
const AT_ONCE: usize = 256;
/// The files are looked at no more often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) type OnReload = dyn Fn(Result<(), &Error>) + Send + Sync;

pub(super) struct Shared {
    pub(super) time: Duration,
    pub(super) on_reload: Option<Arc<OnReload>>,
    files: Option<Files>,
    config: RwLock<Arc<ServerConfig>>,
    looked: Mutex<Looked>,
    pub(super) places: Semaphore,
    /// How many wait for a place.
    pub(super) waiting: AtomicUsize,
}

/// When and how the files were seen last.
#[derive(Clone)]
struct Looked {
    at: Instant,
    stamp: Stamp,
    failed: bool,
}

impl Shared {
    pub(super) fn fixed(config: Arc<ServerConfig>) -> Self {
        Self::new(config, None, Stamp::default())
    }

    pub(super) fn of_files(certificates: &Path, key: &Path) -> Result<Self, Error> {
        let files = Files::new(certificates, key);
        let stamp = files.stamp();
        Ok(Self::new(files.load()?, Some(files), stamp))
    }

    fn new(config: Arc<ServerConfig>, files: Option<Files>, stamp: Stamp) -> Self {
        Self {
            time: Duration::from_secs(10),
            on_reload: None,
            files,
            config: RwLock::new(config),
            looked: Mutex::new(Looked {
                at: Instant::now(),
                stamp,
                failed: false,
            }),
            places: Semaphore::new(AT_ONCE),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Other files, which must be usable.
    pub(super) fn change_files(&mut self, change: impl FnOnce(&mut Files)) -> Result<(), Error> {
        let files = self.files.as_mut().ok_or_else(|| {
            Error::config("a rustls::ServerConfig of your own is used as it is: set this there")
        })?;
        change(files);
        self.reload()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let config = self.config.read();
        config.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn replace(&self, config: Arc<ServerConfig>) {
        let mut current = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *current = config;
    }

    pub(super) fn reload(&self) -> Result<(), Error> {
        let Some(files) = &self.files else {
            return Ok(());
        };
        // What changes from here on is seen as a change, be it in what is loaded or not.
        let stamp = files.stamp();
        let loaded = files.load();
        let mut looked = self.looked();
        (looked.stamp, looked.failed) = (stamp, loaded.is_err());
        drop(looked);
        self.replace(loaded?);
        Ok(())
    }

    /// Takes new files into use, if it is time to look for them; off the runtime's threads.
    pub(super) async fn look(self: &Arc<Self>) {
        if self.files.is_none() || !self.is_due() {
            return;
        }
        let shared = self.clone();
        let _ = tokio::task::spawn_blocking(move || shared.reload_changed()).await;
    }

    fn is_due(&self) -> bool {
        let mut looked = self.looked();
        let is_due = looked.at.elapsed() >= LOOK_AGAIN;
        if is_due {
            looked.at = Instant::now();
        }
        is_due
    }

    fn reload_changed(&self) {
        let Some(files) = &self.files else { return };
        let Looked { stamp, failed, .. } = self.looked().clone();
        let is_changed = files.stamp() != stamp;
        if !is_changed && !failed {
            return;
        }
        let outcome = self.reload();
        // One that still fails has been told of.
        if is_changed || outcome.is_ok() {
            self.tell(outcome);
        }
    }

    fn tell(&self, outcome: Result<(), Error>) {
        match &self.on_reload {
            Some(tell) => tell(outcome.as_ref().copied()),
            None => {
                if let Err(error) = outcome {
                    eprintln!("wharf: the certificates from before are still in use: {error}");
                }
            }
        }
    }

    fn looked(&self) -> std::sync::MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the builder: what is cloned has begun nothing yet.
impl Clone for Shared {
    fn clone(&self) -> Self {
        Self {
            time: self.time,
            on_reload: self.on_reload.clone(),
            files: self.files.clone(),
            config: RwLock::new(self.config()),
            looked: Mutex::new(self.looked().clone()),
            places: Semaphore::new(AT_ONCE),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// One that waits, counted as long as it does.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(super) fn of(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Relaxed);
        Self(&shared.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
