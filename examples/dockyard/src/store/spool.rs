//! An upload while it comes in: hashed on the way, in memory while it is small, in a temporary file beyond that. It is
//! no blob yet: dropped, nothing is left of it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::{Digest, StoreError};

/// Bytes that are collected before they are hashed and written.
const STEP: usize = 256 * 1024;

/// Where the temporary file of a large upload is made.
pub trait MakeFile: Send + Sync {
    /// Makes a new file.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn make(&self) -> Result<TemporaryFile, StoreError>;
}

/// A file that is gone when this is dropped.
#[derive(Debug)]
pub struct TemporaryFile {
    /// The open file.
    pub file: File,
    /// Its number within the store.
    pub id: u64,
    path: Option<PathBuf>,
}

impl TemporaryFile {
    /// Makes a file where none is, for reading and writing, that nobody else may read.
    pub(crate) fn make(path: PathBuf, id: u64) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Self {
            file: options.open(&path)?,
            id,
            path: Some(path),
        })
    }

    /// Moves it to where it is to stay.
    pub(crate) fn keep(mut self, to: &std::path::Path) -> std::io::Result<()> {
        if let Some(path) = &self.path {
            std::fs::rename(path, to)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // What can't be removed now is removed when the store is opened again.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Temporary files for uploads that go elsewhere in the end, in any folder.
#[cfg(feature = "s3")]
pub(crate) struct Scratch {
    folder: PathBuf,
}

#[cfg(feature = "s3")]
impl Scratch {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

#[cfg(feature = "s3")]
impl MakeFile for Scratch {
    fn make(&self) -> Result<TemporaryFile, StoreError> {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        let name = format!("dockyard-{}-{id}", std::process::id());
        Ok(TemporaryFile::make(self.folder.join(name), id)?)
    }
}

/// An upload while it comes in.
pub struct Spool {
    limit: u64,
    size: u64,
    hash: Sha256,
    /// Beyond so many bytes it goes into a file.
    small: usize,
    files: Option<Arc<dyn MakeFile>>,
    /// Not yet written.
    waiting: BytesMut,
    file: Option<TemporaryFile>,
}

impl Spool {
    /// Of at most `limit` bytes, in memory.
    pub fn in_memory(limit: u64) -> Self {
        Self {
            limit,
            size: 0,
            hash: Sha256::new(),
            small: usize::MAX,
            files: None,
            waiting: BytesMut::new(),
            file: None,
        }
    }

    /// Of at most `limit` bytes; what is larger than `small` goes into a file of `files`.
    pub fn in_files(limit: u64, small: usize, files: Arc<dyn MakeFile>) -> Self {
        Self {
            small,
            files: Some(files),
            ..Self::in_memory(limit)
        }
    }

    /// Takes more of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] beyond the limit, and what the disk says.
    pub async fn take(&mut self, bytes: &Bytes) -> Result<(), StoreError> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.limit {
            return Err(StoreError::TooLarge);
        }
        self.hash.update(bytes);
        self.waiting.extend_from_slice(bytes);
        if self.is_large() && self.waiting.len() >= STEP {
            self.write().await?;
        }
        Ok(())
    }

    /// It was all there is.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub async fn finish(mut self) -> Result<Gathered, StoreError> {
        if self.is_large() {
            self.write().await?;
        }
        let content = match self.file {
            Some(file) => GatheredContent::File(file),
            None => GatheredContent::Memory(self.waiting.freeze()),
        };
        Ok(Gathered {
            size: self.size,
            digest: Digest(self.hash.finalize().into()),
            content,
        })
    }

    fn is_large(&self) -> bool {
        self.size > self.small as u64
    }

    /// Writes what waits, on a thread that may block; nothing more is taken meanwhile.
    async fn write(&mut self) -> Result<(), StoreError> {
        let bytes = self.waiting.split();
        let (file, files) = (self.file.take(), self.files.clone());
        let written = spawn_blocking(move || {
            let mut file = match (file, files) {
                (Some(file), _) => file,
                (None, Some(files)) => files.make()?,
                (None, None) => return Ok(None),
            };
            file.file.write_all(&bytes)?;
            Ok::<_, StoreError>(Some(file))
        });
        self.file = written.await.map_err(stopped)??;
        Ok(())
    }
}

/// A blocking task was lost: the runtime is going down.
pub(crate) fn stopped(error: tokio::task::JoinError) -> StoreError {
    StoreError::Failed(format!("the store is stopping: {error}"))
}

/// A whole upload.
#[derive(Debug)]
pub struct Gathered {
    /// Bytes.
    pub size: u64,
    /// Of the content.
    pub digest: Digest,
    /// Where they are.
    pub content: GatheredContent,
}

/// Where the bytes of a whole upload are.
#[derive(Debug)]
pub enum GatheredContent {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(TemporaryFile),
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gathered(limit: u64, parts: &[&'static [u8]]) -> Result<Gathered, StoreError> {
        let mut spool = Spool::in_memory(limit);
        for part in parts {
            spool.take(&Bytes::from_static(part)).await?;
        }
        spool.finish().await
    }

    #[tokio::test]
    async fn the_hash_is_that_of_the_whole_however_it_came() {
        let whole = gathered(10, &[b"abc"]).await.unwrap();
        let parts = gathered(10, &[b"a", b"", b"bc"]).await.unwrap();
        assert_eq!(whole.digest, parts.digest);
        assert_eq!(
            whole.digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[tokio::test]
    async fn the_limit_is_met_and_not_exceeded() {
        assert_eq!(gathered(4, &[b"abc"]).await.unwrap().size, 3);
        assert_eq!(gathered(4, &[b"abc", b"d"]).await.unwrap().size, 4);
        let beyond = gathered(4, &[b"abc", b"de"]).await;
        assert!(matches!(beyond, Err(StoreError::TooLarge)));
    }
}
