//! The index: what is known of each blob, the small ones' content, and who was used when. Tables and their bytes are
//! known here alone; decisions are the writer's.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction, backends::InMemoryBackend,
};

use crate::store::{Digest, Key, Listed, Listing, Meta, Page, StoreError, from_millis, millis};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
const CONTENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("content");
/// Names by the number of their last use.
const RECENCY: TableDefinition<'_, u64, &str> = TableDefinition::new("recency");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// The file of the index.
const FILE: &str = "index.redb";
/// Of a fixed size: size, digest, modified, used, place.
const FIXED: usize = 8 + 32 + 8 + 8 + 8;
/// The place of content that is in the index itself.
const HERE: u64 = u64::MAX;
/// What the database may keep in memory of its file.
const CACHE: usize = 64 << 20;

/// What the index knows of a blob.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) meta: Meta,
    /// The number of its last use.
    pub(super) used: u64,
    pub(super) place: Place,
}

/// Where a blob's content is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Here(Bytes),
    File(u64),
}

/// The index of a store.
pub(super) struct Index {
    /// `None` while it couldn't be opened again after an error of the disk.
    database: RwLock<Option<Database>>,
    /// `None`: in memory.
    file: Option<PathBuf>,
}

impl Index {
    pub(super) fn in_memory() -> Result<Self, StoreError> {
        let database = Database::builder().create_with_backend(InMemoryBackend::new());
        Self::with(database.map_err(unopened)?, None)
    }

    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let file = folder.join(FILE);
        Self::with(open(&file)?, Some(file))
    }

    fn with(database: Database, file: Option<PathBuf>) -> Result<Self, StoreError> {
        let index = Self {
            database: RwLock::new(Some(database)),
            file,
        };
        index.change(|_| Ok(()))?;
        Ok(index)
    }

    /// The number of this opening, from 1; no two are the same.
    pub(super) fn next_run(&self) -> Result<u32, StoreError> {
        let run = self.change(|tables| {
            let run = tables.number("run")? + 1;
            tables.set_number("run", run)?;
            Ok(run)
        })?;
        u32::try_from(run).map_err(|_| StoreError::Failed("the store was opened too often".into()))
    }

    /// The number of each file that a blob needs.
    pub(super) fn files(&self) -> Result<HashSet<u64>, StoreError> {
        self.read(|transaction| {
            let entries = transaction.open_table(ENTRIES)?;
            let mut files = HashSet::new();
            for row in entries.iter()? {
                let (_, value) = row?;
                let (_, _, place) = decode(value.value())?;
                if place != HERE {
                    files.insert(place);
                }
            }
            Ok(files)
        })
    }

    /// Looks a blob up, with its content if that is here.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.read(|transaction| {
            let entries = transaction.open_table(ENTRIES)?;
            let Some(value) = entries.get(key.full())? else {
                return Ok(None);
            };
            let (meta, used, place) = decode(value.value())?;
            let place = if place == HERE {
                let content = transaction.open_table(CONTENT)?;
                let bytes = content.get(key.full())?.ok_or_else(damaged)?;
                Place::Here(Bytes::copy_from_slice(bytes.value()))
            } else {
                Place::File(place)
            };
            Ok(Some(Entry { meta, used, place }))
        })
    }

    /// Blobs of a bucket in the order of their keys.
    pub(super) fn list(&self, page: &Page) -> Result<Listing, StoreError> {
        let prefix = format!("{}/{}", page.bucket, page.prefix);
        let after = format!("{}/{}", page.bucket, page.after);
        let from = prefix.as_str().max(after.as_str());
        self.read(|transaction| {
            let entries = transaction.open_table(ENTRIES)?;
            let mut listing = Listing::default();
            for row in entries.range(from..)? {
                let (full, value) = row?;
                let full = full.value();
                if !full.starts_with(&prefix) {
                    break;
                }
                if !page.after.is_empty() && full <= after.as_str() {
                    continue;
                }
                if listing.blobs.len() == page.limit {
                    listing.more = true;
                    break;
                }
                let (meta, _, _) = decode(value.value())?;
                listing.blobs.push(Listed {
                    key: full[page.bucket.len() + 1..].to_owned(),
                    size: meta.size,
                    digest: Some(meta.digest),
                    modified: meta.modified,
                });
            }
            Ok(listing)
        })
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(unreachable)?;
        let transaction = database
            .begin_read()
            .map_err(|error| failed(error.into()))?;
        work(&transaction).map_err(failed)
    }

    /// Makes changes, all or none, and returns when they are on the disk.
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let done = self.try_change(work);
        if matches!(done, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            self.reopen();
        }
        done.map_err(failed)
    }

    fn try_change<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(redb::Error::PreviousIo)?;
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // After a crash the store is there again at once, however large it is.
        transaction.set_quick_repair(true);
        let made = work(&mut Tables::open(&transaction)?)?;
        transaction.commit()?;
        Ok(made)
    }

    /// After an error of the disk the database refuses all work until it is opened again. What was committed is there.
    fn reopen(&self) {
        let Some(file) = &self.file else { return };
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *database = None;
        match open(file) {
            Ok(again) => *database = Some(again),
            Err(error) => eprintln!("dockyard: the store can't be opened again: {error}"),
        }
    }
}

fn open(file: &Path) -> Result<Database, StoreError> {
    let database = Database::builder().set_cache_size(CACHE).create(file);
    database.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::Failed(format!(
            "another process has the store {} open: stop it, or give this one a folder of its own with --store",
            file.display()
        )),
        error => unopened(error),
    })
}

/// The tables within a change.
pub(super) struct Tables<'a> {
    entries: Table<'a, &'static str, &'static [u8]>,
    content: Table<'a, &'static str, &'static [u8]>,
    recency: Table<'a, u64, &'static str>,
    numbers: Table<'a, &'static str, u64>,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            entries: transaction.open_table(ENTRIES)?,
            content: transaction.open_table(CONTENT)?,
            recency: transaction.open_table(RECENCY)?,
            numbers: transaction.open_table(NUMBERS)?,
        })
    }

    /// A number that outlives the process; zero at first.
    pub(super) fn number(&self, name: &'static str) -> Result<u64, redb::Error> {
        Ok(self.numbers.get(name)?.map_or(0, |number| number.value()))
    }

    pub(super) fn set_number(&mut self, name: &'static str, to: u64) -> Result<(), redb::Error> {
        self.numbers.insert(name, to)?;
        Ok(())
    }

    /// What is known of a blob.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Meta>, redb::Error> {
        let value = self.entries.get(key.full())?;
        let entry = value.map(|value| decode(value.value())).transpose()?;
        Ok(entry.map(|(meta, _, _)| meta))
    }

    /// Puts a blob where none is.
    pub(super) fn insert(&mut self, key: &Key, entry: &Entry) -> Result<(), redb::Error> {
        let place = match &entry.place {
            Place::File(id) => *id,
            Place::Here(bytes) => {
                self.content.insert(key.full(), bytes.as_ref())?;
                HERE
            }
        };
        let value = encode(&entry.meta, entry.used, place);
        self.entries.insert(key.full(), value.as_slice())?;
        self.recency.insert(entry.used, key.full())?;
        Ok(())
    }

    /// Takes a blob out; returns what was known of it, and its file.
    pub(super) fn remove(&mut self, key: &Key) -> Result<Option<(Meta, Option<u64>)>, redb::Error> {
        let Some(value) = self.entries.remove(key.full())? else {
            return Ok(None);
        };
        let (meta, used, place) = decode(value.value())?;
        drop(value);
        self.recency.remove(used)?;
        if place == HERE {
            self.content.remove(key.full())?;
        }
        Ok(Some((meta, (place != HERE).then_some(place))))
    }

    /// Notes that a blob was used.
    pub(super) fn touch(&mut self, key: &Key, now: u64) -> Result<(), redb::Error> {
        let Some(value) = self.entries.get(key.full())? else {
            return Ok(());
        };
        let (meta, used, place) = decode(value.value())?;
        drop(value);
        self.recency.remove(used)?;
        self.recency.insert(now, key.full())?;
        let value = encode(&meta, now, place);
        self.entries.insert(key.full(), value.as_slice())?;
        Ok(())
    }

    /// The blob that was not used for longest.
    pub(super) fn oldest(&self) -> Result<Option<Key>, redb::Error> {
        let first = self.recency.first()?;
        Ok(first.and_then(|(_, full)| Key::kept(full.value())))
    }
}

fn encode(meta: &Meta, used: u64, place: u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(FIXED + meta.content_type.len());
    value.extend_from_slice(&meta.size.to_be_bytes());
    value.extend_from_slice(&meta.digest.0);
    value.extend_from_slice(&millis(meta.modified).to_be_bytes());
    value.extend_from_slice(&used.to_be_bytes());
    value.extend_from_slice(&place.to_be_bytes());
    value.extend_from_slice(meta.content_type.as_bytes());
    value
}

/// What is known, the number of the last use, and the place.
fn decode(value: &[u8]) -> Result<(Meta, u64, u64), redb::Error> {
    let number = |at: usize| {
        let bytes = value.get(at..at + 8)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    let decoded = || {
        let meta = Meta {
            size: number(0)?,
            digest: Digest(value.get(8..40)?.try_into().ok()?),
            modified: from_millis(number(40)?),
            content_type: String::from_utf8(value.get(FIXED..)?.to_vec()).ok()?,
        };
        Some((meta, number(48)?, number(56)?))
    };
    decoded().ok_or_else(damaged)
}

fn damaged() -> redb::Error {
    redb::Error::Corrupted("an entry of the index is not as it was written".into())
}

fn unopened(error: DatabaseError) -> StoreError {
    failed(error.into())
}

fn unreachable() -> StoreError {
    failed(redb::Error::PreviousIo)
}

fn failed(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => error.into(),
        redb::Error::PreviousIo => io::Error::other("it failed before and is not back yet").into(),
        error => StoreError::Failed(format!("the store's index failed: {error}")),
    }
}
