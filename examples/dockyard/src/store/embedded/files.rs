//! Large blobs as files: written under `incoming`, synced, moved to `blobs`. A file under `blobs` is whole, and never
//! changes; the index alone says whether a blob needs it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::store::StoreError;
use crate::store::spool::{MakeFile, TemporaryFile};

/// Folders that the files are spread over.
const SPREAD: u64 = 256;

/// Free bytes of the disk below which nothing more is taken: the index must not be the one to find it full.
const RESERVE: u64 = 16 << 20;

/// The files of a store.
pub(super) struct Files {
    incoming: PathBuf,
    blobs: PathBuf,
    next: AtomicU64,
}

impl Files {
    /// Opens the folders, empties `incoming`, and removes what is not among `known`.
    pub(super) fn open(folder: &Path, run: u32, known: &HashSet<u64>) -> Result<Self, StoreError> {
        let files = Self {
            incoming: folder.join("incoming"),
            blobs: folder.join("blobs"),
            next: AtomicU64::new(u64::from(run) << 32),
        };
        fs::create_dir_all(&files.incoming)?;
        for spread in 0..SPREAD {
            fs::create_dir_all(files.blobs.join(format!("{spread:02x}")))?;
        }
        sync_folder(&files.blobs)?;
        sync_folder(folder)?;
        for entry in fs::read_dir(&files.incoming)? {
            fs::remove_file(entry?.path())?;
        }
        for spread in fs::read_dir(&files.blobs)? {
            for entry in fs::read_dir(spread?.path())? {
                let entry = entry?;
                let name = entry.file_name();
                let id = name
                    .to_str()
                    .and_then(|name| u64::from_str_radix(name, 16).ok());
                if !id.is_some_and(|id| known.contains(&id)) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(files)
    }

    /// Whether the disk has room for more.
    ///
    /// # Errors
    ///
    /// It has not, or it isn't there any more.
    pub(super) fn room(&self) -> Result<(), StoreError> {
        let disk = rustix::fs::statvfs(&self.blobs).map_err(io::Error::from)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < RESERVE {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        Ok(())
    }

    /// Syncs a file and moves it to where it stays; returns its number.
    pub(super) fn keep(&self, file: TemporaryFile) -> io::Result<u64> {
        let id = file.id;
        let to = self.path(id);
        file.file.sync_all()?;
        file.keep(&to)?;
        to.parent().map_or(Ok(()), sync_folder)?;
        Ok(id)
    }

    /// Opens a file for reading.
    pub(super) fn read(&self, id: u64) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Removes a file; what can't be removed now is removed when the store is opened again.
    pub(super) fn remove(&self, id: u64) {
        let _ = fs::remove_file(self.path(id));
    }

    fn path(&self, id: u64) -> PathBuf {
        let spread = format!("{:02x}", id % SPREAD);
        self.blobs.join(spread).join(format!("{id:016x}"))
    }
}

impl MakeFile for Files {
    fn make(&self) -> Result<TemporaryFile, StoreError> {
        self.room()?;
        let id = self.next.fetch_add(1, Relaxed);
        let path = self.incoming.join(format!("{id:016x}"));
        Ok(TemporaryFile::make(path, id)?)
    }
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
