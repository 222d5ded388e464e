//! The access log of this service: its last lines for the page, all of them for a file, and refused requests among them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wharf::{BoxError, Refused};
use wharf_middleware::AccessLog;

use crate::live::{Lines, Tally};

/// The log, whose lines are kept in `lines` and appended to `file`. On SIGHUP the file is opened anew.
///
/// # Errors
///
/// A sentence that says why the file can't be opened.
pub fn access_log(file: Option<&Path>, lines: &Lines) -> Result<AccessLog, BoxError> {
    let Some(path) = file else {
        return Ok(AccessLog::json().to_writer(lines.writer(None)));
    };
    let appender = Appender::open(path)?;
    let again = appender.clone();
    crate::on_hang_up(move || {
        if let Err(error) = again.reopen() {
            eprintln!("dockyard: the access log stays where it is: {error}");
        }
    })?;
    Ok(AccessLog::json().to_writer(lines.writer(Some(Box::new(appender)))))
}

/// What is told of a request that no handler saw.
pub fn refused(
    log: &AccessLog,
    tally: &Arc<Tally>,
) -> impl Fn(&Refused<'_>) + Send + Sync + 'static {
    let (log, tally) = (log.refused(), tally.clone());
    move |refused| {
        tally.refused(refused);
        log(refused);
    }
}

/// A file that lines are appended to; a clone is the same.
#[derive(Clone)]
struct Appender {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl Appender {
    fn open(path: &Path) -> Result<Self, BoxError> {
        let file = open(path).map_err(|error| {
            format!("the access log {} can't be opened: {error}", path.display())
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(file)),
        })
    }

    fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
