//! The embedded store: an index and the small blobs in redb, large ones as files beside it. What is acknowledged is on
//! the disk; what was not whole when the process died is not there.
//!
//! ```text
//! folder/index.redb       the index, and blobs of at most 64 KiB
//! folder/blobs/…          one file a larger blob, whole and synced before the index names it
//! folder/incoming/…       uploads that are under way; emptied when the store is opened
//! ```
//!
//! In memory it is the same store over memory, without files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;
use wharf_middleware::range::FileSource;

use super::spool::{GatheredContent, stopped};
use super::{
    BlobStore, Changes, Content, Found, Gathered, Key, Listing, Meta, OnlyIf, Page, Spool, Stats,
    StoreError, Stored, Task,
};

mod files;
mod index;
#[cfg(test)]
mod tests;
mod writer;

use files::Files;
use index::{Entry, Index, Place};
use writer::{Command, Writer};

/// The largest blob that is kept in the index.
pub const SMALL: usize = 64 * 1024;

/// How an [`Embedded`] store is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its folder; `None`: in memory.
    pub folder: Option<PathBuf>,
    /// The bytes it keeps; beyond, what was not used for longest goes.
    pub budget: u64,
    /// The largest blob.
    pub largest: u64,
    /// Changes that may wait for the writer.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            folder: None,
            budget: 10 << 30,
            largest: 512 << 20,
            queue: 1024,
        }
    }
}

/// The embedded store; see [the module](self).
pub struct Embedded {
    settings: Settings,
    index: Arc<Index>,
    files: Option<Arc<Files>>,
    writer: Writer,
}

impl Embedded {
    /// Opens the store in a folder, which must be there, or makes an empty one in memory.
    ///
    /// What a crash left behind is cleared away: uploads that were not whole, and files that no blob needs any more.
    ///
    /// # Errors
    ///
    /// A sentence that says what is in the way: no such folder, another process that has the store open, a full disk.
    pub fn open(settings: Settings, changes: Changes) -> Result<Self, StoreError> {
        if settings.largest > settings.budget {
            return Err(StoreError::Failed(format!(
                "--budget ({} bytes) must not be below --largest ({} bytes)",
                settings.budget, settings.largest
            )));
        }
        let (index, files) = match &settings.folder {
            None => (Index::in_memory()?, None),
            Some(folder) => {
                require_folder(folder)?;
                let index = Index::open(folder)?;
                let files = Files::open(folder, index.next_run()?, &index.files()?)?;
                (index, Some(Arc::new(files)))
            }
        };
        let index = Arc::new(index);
        let writer = Writer::start(
            index.clone(),
            files.clone(),
            settings.budget,
            settings.queue,
            changes,
        )?;
        Ok(Self {
            settings,
            index,
            files,
            writer,
        })
    }
}

fn require_folder(folder: &Path) -> Result<(), StoreError> {
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(StoreError::Failed(format!(
            "{shown} is a file; the store needs a folder"
        ))),
        Err(error) => Err(StoreError::Failed(format!(
            "the store's folder {shown} can't be used ({error}): make it, mount it, or name another with --store"
        ))),
    }
}

impl BlobStore for Embedded {
    fn spool(&self) -> Spool {
        let largest = self.settings.largest;
        match self.files.clone() {
            None => Spool::in_memory(largest),
            Some(files) => Spool::in_files(largest, SMALL, files),
        }
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        gathered: Gathered,
        content_type: &'a str,
        only_if: OnlyIf,
    ) -> Task<'a, Stored> {
        Box::pin(async move {
            if let Some(files) = &self.files {
                files.room()?;
            }
            // The file is whole and where it belongs before the index learns of it.
            let place = match (gathered.content, &self.files) {
                (GatheredContent::Memory(bytes), _) => Place::Here(bytes),
                (GatheredContent::File(file), Some(files)) => {
                    let files = files.clone();
                    let kept = spawn_blocking(move || files.keep(file));
                    Place::File(kept.await.map_err(stopped)??)
                }
                (GatheredContent::File(_), None) => {
                    return Err(StoreError::Failed("a store in memory has no files".into()));
                }
            };
            let meta = Meta {
                size: gathered.size,
                digest: gathered.digest,
                content_type: content_type.to_owned(),
                modified: super::from_millis(super::millis(std::time::SystemTime::now())),
            };
            let key = key.clone();
            self.writer
                .ask(|answer| Command::Put {
                    key,
                    meta,
                    place,
                    only_if,
                    answer,
                })
                .await
        })
    }

    fn find<'a>(&'a self, key: &'a Key) -> Task<'a, Option<Found>> {
        Box::pin(async move {
            let (index, files, wanted) = (self.index.clone(), self.files.clone(), key.clone());
            let found = spawn_blocking(move || find(&index, files.as_deref(), &wanted));
            let found = found.await.map_err(stopped)??;
            if found.is_some() {
                self.writer.touch(key);
            }
            Ok(found)
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, only_if: OnlyIf) -> Task<'a, Option<Meta>> {
        Box::pin(self.writer.ask(move |answer| Command::Delete {
            key: key.clone(),
            only_if,
            answer,
        }))
    }

    fn list<'a>(&'a self, page: &'a Page) -> Task<'a, Listing> {
        let (index, page) = (self.index.clone(), page.clone());
        Box::pin(async move {
            spawn_blocking(move || index.list(&page))
                .await
                .map_err(stopped)?
        })
    }

    fn stats(&self) -> Stats {
        Stats {
            budget: self.settings.budget,
            ..self.writer.stats()
        }
    }

    fn place(&self) -> String {
        match &self.settings.folder {
            Some(folder) => format!("redb in {}", folder.display()),
            None => "in memory: gone when this ends".to_owned(),
        }
    }

    fn trouble(&self) -> Option<String> {
        self.writer.trouble()
    }
}

/// Looks a blob up and opens its file. A blob may be replaced in between, and its file be gone: then there is another.
fn find(index: &Index, files: Option<&Files>, key: &Key) -> Result<Option<Found>, StoreError> {
    for _ in 0..8 {
        let Some(Entry { meta, place, .. }) = index.get(key)? else {
            return Ok(None);
        };
        let content = match (place, files) {
            (Place::Here(bytes), _) => Content::new(bytes),
            (Place::File(id), Some(files)) => match files.read(id).and_then(FileSource::new) {
                Ok(file) => Content::new(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            },
            (Place::File(_), None) => break,
        };
        return Ok(Some(Found { meta, content }));
    }
    Err(StoreError::Failed(
        "the file of this blob is missing from the store's folder: store it again".into(),
    ))
}
