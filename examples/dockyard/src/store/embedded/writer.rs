//! The one writer: a thread that takes what waits, makes all of it in one commit, and answers when that is on the disk.
//! Conditions are judged here, together with the change, and so is who has to go when the budget is used up.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::files::Files;
use super::index::{Entry, Index, Place, Tables};
use crate::store::{Change, Changes, Key, Meta, OnlyIf, Stats, StoreError, Stored, What};

/// Most changes of one commit.
const BATCH: usize = 256;
/// Blobs whose use is remembered until the next commit; beyond that it is forgotten.
const TOUCHED: usize = 16 * 1024;
/// What an entry costs beside its content.
const OVERHEAD: u64 = 128;

/// Where an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
pub(super) enum Command {
    Put {
        key: Key,
        meta: Meta,
        place: Place,
        only_if: OnlyIf,
        answer: Answer<Stored>,
    },
    Delete {
        key: Key,
        only_if: OnlyIf,
        answer: Answer<Option<Meta>>,
    },
}

/// The writer, as others see it.
pub(super) struct Writer {
    /// `None` once it is stopping.
    queue: Option<mpsc::Sender<Command>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    touched: Mutex<HashSet<Key>>,
    blobs: AtomicU64,
    bytes: AtomicU64,
    evictions: AtomicU64,
    commits: AtomicU64,
    changes: AtomicU64,
    largest_commit: AtomicU64,
    last_commit_nanos: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Writer {
    pub(super) fn start(
        index: Arc<Index>,
        files: Option<Arc<Files>>,
        budget: u64,
        queue: usize,
        changes: Changes,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let (blobs, bytes) = index.change(|tables| totals(tables))?;
        shared.blobs.store(blobs, Relaxed);
        shared.bytes.store(bytes, Relaxed);
        let (sender, receiver) = mpsc::channel(queue);
        let work = Work {
            index,
            files,
            budget,
            changes,
            shared: shared.clone(),
        };
        let thread = std::thread::Builder::new().name("dockyard-writer".into());
        let thread = thread.spawn(move || work.run(receiver))?;
        Ok(Self {
            queue: Some(sender),
            shared,
            thread: Some(thread),
        })
    }

    /// Asks for a change and waits until it is on the disk. While the queue is full, whoever asks waits.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Failed("the store is stopping".into());
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        let sent = queue.send(command(answer)).await;
        sent.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Notes that a blob was used; written along with the next commit.
    pub(super) fn touch(&self, key: &Key) {
        let mut touched = lock(&self.shared.touched);
        if touched.len() < TOUCHED {
            touched.insert(key.clone());
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let (shared, queue) = (&self.shared, self.queue.as_ref());
        Stats {
            blobs: shared.blobs.load(Relaxed),
            bytes: shared.bytes.load(Relaxed),
            evictions: shared.evictions.load(Relaxed),
            queued: queue.map_or(0, |queue| queue.max_capacity() - queue.capacity()),
            queue: queue.map_or(0, mpsc::Sender::max_capacity),
            commits: shared.commits.load(Relaxed),
            changes: shared.changes.load(Relaxed),
            largest_commit: shared.largest_commit.load(Relaxed),
            last_commit: Duration::from_nanos(shared.last_commit_nanos.load(Relaxed)),
            ..Stats::default()
        }
    }

    /// Why the last commit failed, if it did.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }
}

impl Drop for Writer {
    /// What waits is still written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Work {
    index: Arc<Index>,
    files: Option<Arc<Files>>,
    budget: u64,
    changes: Changes,
    shared: Arc<Shared>,
}

/// What a commit brings about, once it has been made.
#[derive(Default)]
struct Outcome {
    /// In the order of the commands.
    verdicts: Vec<Verdict>,
    /// Files that no blob needs any more.
    unneeded: Vec<u64>,
    happened: Vec<Change>,
    evictions: u64,
    blobs: u64,
    bytes: u64,
}

/// What became of a command.
enum Verdict {
    Stored(Stored),
    Removed(Option<Meta>),
    NotMet,
}

impl Work {
    fn run(self, mut queue: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.commit(std::mem::take(&mut batch));
        }
        if !lock(&self.shared.touched).is_empty() {
            self.commit(Vec::new());
        }
    }

    /// Makes all of these changes, or none.
    fn commit(&self, batch: Vec<Command>) {
        let begun = Instant::now();
        let touched = std::mem::take(&mut *lock(&self.shared.touched));
        let made = self.index.change(|tables| {
            let mut outcome = Outcome::default();
            let mut clock = tables.number("clock")?;
            for key in &touched {
                clock += 1;
                tables.touch(key, clock)?;
            }
            for command in &batch {
                clock += 1;
                let verdict = apply(tables, command, clock, &mut outcome)?;
                outcome.verdicts.push(verdict);
            }
            self.evict(tables, &mut outcome)?;
            tables.set_number("clock", clock)?;
            (outcome.blobs, outcome.bytes) = totals(tables)?;
            Ok(outcome)
        });
        match made {
            Ok(outcome) => self.settle(batch, outcome, begun),
            Err(error) => self.fail(batch, &error),
        }
    }

    /// What was not used for longest goes, until the rest is within the budget.
    fn evict(&self, tables: &mut Tables<'_>, outcome: &mut Outcome) -> Result<(), redb::Error> {
        while totals(tables)?.1 > self.budget {
            let Some(key) = tables.oldest()? else { break };
            take_out(tables, &key, outcome)?;
            outcome.evictions += 1;
            let what = What::Evicted;
            outcome.happened.push(Change { key, what });
        }
        Ok(())
    }

    /// It is on the disk: everybody is told.
    fn settle(&self, batch: Vec<Command>, outcome: Outcome, begun: Instant) {
        let (shared, count) = (&self.shared, batch.len() as u64);
        shared.blobs.store(outcome.blobs, Relaxed);
        shared.bytes.store(outcome.bytes, Relaxed);
        shared.evictions.fetch_add(outcome.evictions, Relaxed);
        shared.commits.fetch_add(1, Relaxed);
        shared.changes.fetch_add(count, Relaxed);
        shared.largest_commit.fetch_max(count, Relaxed);
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        shared.last_commit_nanos.store(nanos, Relaxed);
        *lock(&shared.trouble) = None;
        if let Some(files) = &self.files {
            outcome.unneeded.into_iter().for_each(|id| files.remove(id));
        }
        for change in outcome.happened {
            self.changes.tell(change);
        }
        for (command, verdict) in batch.into_iter().zip(outcome.verdicts) {
            command.answer(Ok(verdict));
        }
    }

    /// Nothing was changed, as far as one can know: files stay until the store is opened again, in case that it was.
    fn fail(&self, batch: Vec<Command>, error: &StoreError) {
        *lock(&self.shared.trouble) = Some(error.to_string());
        for command in batch {
            command.answer(Err(error.clone()));
        }
    }
}

impl Command {
    /// Whoever asked may have gone; then nobody is told.
    fn answer(self, made: Result<Verdict, StoreError>) {
        match (self, made) {
            (Self::Put { answer, .. }, Ok(Verdict::Stored(stored))) => {
                drop(answer.send(Ok(stored)))
            }
            (Self::Put { answer, .. }, Err(error)) => drop(answer.send(Err(error))),
            (Self::Put { answer, .. }, Ok(_)) => drop(answer.send(Err(StoreError::NotMet))),
            (Self::Delete { answer, .. }, Ok(Verdict::Removed(meta))) => {
                drop(answer.send(Ok(meta)))
            }
            (Self::Delete { answer, .. }, Err(error)) => drop(answer.send(Err(error))),
            (Self::Delete { answer, .. }, Ok(_)) => drop(answer.send(Err(StoreError::NotMet))),
        }
    }
}

/// Makes one change, if its condition is met.
fn apply(
    tables: &mut Tables<'_>,
    command: &Command,
    clock: u64,
    outcome: &mut Outcome,
) -> Result<Verdict, redb::Error> {
    let (Command::Put { key, only_if, .. } | Command::Delete { key, only_if, .. }) = command;
    let now = tables.get(key)?;
    if !only_if.holds(now.as_ref()) {
        if let Command::Put {
            place: Place::File(id),
            ..
        } = command
        {
            outcome.unneeded.push(*id);
        }
        return Ok(Verdict::NotMet);
    }
    let before = take_out(tables, key, outcome)?;
    let (verdict, what) = match command {
        Command::Put { meta, place, .. } => {
            let entry = Entry {
                meta: meta.clone(),
                used: clock,
                place: place.clone(),
            };
            tables.insert(key, &entry)?;
            add(tables, 1, cost(key, meta))?;
            let stored = Stored {
                meta: entry.meta,
                replaced: before.is_some(),
            };
            let (size, digest) = (meta.size, meta.digest);
            (Verdict::Stored(stored), What::Put { size, digest })
        }
        Command::Delete { .. } if before.is_none() => return Ok(Verdict::Removed(None)),
        Command::Delete { .. } => (Verdict::Removed(before), What::Deleted),
    };
    let key = key.clone();
    outcome.happened.push(Change { key, what });
    Ok(verdict)
}

/// Takes a blob out, with what it cost.
fn take_out(
    tables: &mut Tables<'_>,
    key: &Key,
    outcome: &mut Outcome,
) -> Result<Option<Meta>, redb::Error> {
    let Some((meta, file)) = tables.remove(key)? else {
        return Ok(None);
    };
    outcome.unneeded.extend(file);
    let (blobs, bytes) = totals(tables)?;
    tables.set_number("blobs", blobs.saturating_sub(1))?;
    tables.set_number("bytes", bytes.saturating_sub(cost(key, &meta)))?;
    Ok(Some(meta))
}

fn add(tables: &mut Tables<'_>, blobs: u64, bytes: u64) -> Result<(), redb::Error> {
    let before = totals(tables)?;
    tables.set_number("blobs", before.0.saturating_add(blobs))?;
    tables.set_number("bytes", before.1.saturating_add(bytes))
}

/// How many blobs there are, and what they cost.
fn totals(tables: &Tables<'_>) -> Result<(u64, u64), redb::Error> {
    Ok((tables.number("blobs")?, tables.number("bytes")?))
}

/// What a blob counts for.
fn cost(key: &Key, meta: &Meta) -> u64 {
    let name = key.full().len() as u64;
    meta.size.saturating_add(name).saturating_add(OVERHEAD)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
