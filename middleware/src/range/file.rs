//! A file as a source: read in pieces, on the threads where blocking is allowed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Source;

/// Large enough that going to another thread for it doesn't matter much.
const PIECE: u64 = 128 * 1024;

/// An open file. Its length is what it was when it was opened; if it becomes shorter, the response breaks off.
///
/// ```
/// use http::{Request, Response};
/// use wharf_middleware::conditional::Validators;
/// use wharf_middleware::range::{self, FileSource, RangeBody};
///
/// async fn download(request: Request<()>) -> std::io::Result<Response<RangeBody<FileSource>>> {
///     let file = FileSource::open("film.mp4").await?;
///     let validators = file.modified().map(|time| Validators::new().last_modified(time));
///     let mut full = Response::new(file);
///     validators.unwrap_or_default().write(full.headers_mut());
///     Ok(range::respond(request.method(), request.headers(), full))
/// }
/// # let _ = download;
/// ```
#[derive(Debug)]
pub struct FileSource {
    length: u64,
    modified: Option<SystemTime>,
    state: State,
}

#[derive(Debug)]
enum State {
    Open(File),
    Reading(JoinHandle<(File, io::Result<Bytes>)>),
    /// The thread that had it is gone.
    Lost,
}

impl FileSource {
    /// Opens a file.
    ///
    /// Dropped, it is still opened, and closed at once.
    ///
    /// # Errors
    ///
    /// It can't be opened, or isn't a regular file.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let opened = spawn_blocking(move || Self::new(File::open(path)?)).await;
        opened.map_err(io::Error::other)?
    }

    /// An open file, from its beginning wherever its cursor is. Asks the system for its length, which blocks.
    ///
    /// # Errors
    ///
    /// It isn't a regular file, or the system doesn't tell.
    pub fn new(file: File) -> io::Result<Self> {
        let facts = file.metadata()?;
        if !facts.is_file() {
            let why = "only a regular file can be read from any place";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Self {
            length: facts.len(),
            modified: facts.modified().ok(),
            state: State::Open(file),
        })
    }

    /// When it was changed last, if the system knows.
    pub fn modified(&self) -> Option<SystemTime> {
        self.modified
    }
}

impl Source for FileSource {
    fn length(&self) -> u64 {
        self.length
    }

    /// # Panics
    ///
    /// Outside a tokio runtime.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        range: Range<u64>,
    ) -> Poll<io::Result<Bytes>> {
        loop {
            match std::mem::replace(&mut self.state, State::Lost) {
                State::Open(file) => {
                    let range = range.clone();
                    let read = spawn_blocking(move || read(file, range));
                    self.state = State::Reading(read);
                }
                State::Reading(mut reading) => {
                    let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    };
                    let (file, bytes) = read.map_err(io::Error::other)?;
                    self.state = State::Open(file);
                    return Poll::Ready(bytes);
                }
                State::Lost => return Poll::Ready(Err(io::Error::other("the file is gone"))),
            }
        }
    }
}

fn read(mut file: File, range: Range<u64>) -> (File, io::Result<Bytes>) {
    let count = PIECE.min(range.end - range.start);
    let mut bytes = Vec::with_capacity(count as usize);
    let seek = file.seek(SeekFrom::Start(range.start));
    let read = seek.and_then(|_| (&file).take(count).read_to_end(&mut bytes));
    (file, read.map(|_| bytes.into()))
}
