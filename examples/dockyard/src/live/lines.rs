//! The last lines of the access log: kept as they are written, for the page.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

/// So many are kept.
const KEPT: usize = 200;
/// A longer line is no line of this log.
const LONGEST: usize = 64 * 1024;

/// The last lines; a clone is the same.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Arc<RawValue>>,
    /// Lines so far.
    count: u64,
}

impl Lines {
    /// A writer for the access log that keeps the lines here, and passes them on to `next`.
    pub fn writer(&self, next: Option<Box<dyn Write + Send>>) -> impl Write + Send + 'static {
        Tee {
            lines: self.clone(),
            unfinished: Vec::new(),
            next,
        }
    }

    /// The lines that came after the first `seen`, as far as they are kept, and how many there are so far.
    pub(crate) fn since(&self, seen: u64) -> (Vec<Arc<RawValue>>, u64) {
        let kept = self.lock();
        let new = usize::try_from(kept.count.saturating_sub(seen)).unwrap_or(usize::MAX);
        let skipped = kept.lines.len().saturating_sub(new);
        (
            kept.lines.iter().skip(skipped).cloned().collect(),
            kept.count,
        )
    }

    fn keep(&self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Box<RawValue>>(line) else {
            return;
        };
        let mut kept = self.lock();
        if kept.lines.len() == KEPT {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line.into());
        kept.count += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts what is written into lines. Its thread is the log's own, so no worker waits for it.
struct Tee {
    lines: Lines,
    unfinished: Vec<u8>,
    next: Option<Box<dyn Write + Send>>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.next {
            Some(next) => next.write(bytes)?,
            None => bytes.len(),
        };
        for piece in bytes[..written].split_inclusive(|byte| *byte == b'\n') {
            self.unfinished.extend_from_slice(piece);
            if let Some(line) = self.unfinished.strip_suffix(b"\n") {
                self.lines.keep(line);
                self.unfinished.clear();
            } else if self.unfinished.len() > LONGEST {
                self.unfinished.clear();
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.next.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_whole_however_they_are_written_and_the_oldest_go() {
        let lines = Lines::default();
        let mut writer = lines.writer(None);
        writer.write_all(b"{\"n\":").unwrap();
        writer.write_all(b"0}\n{\"n\":1}\nno JSON\n").unwrap();
        let (first, count) = lines.since(0);
        assert_eq!(
            first.iter().map(|line| line.get()).collect::<Vec<_>>(),
            ["{\"n\":0}", "{\"n\":1}"]
        );
        for number in 2..=KEPT + 1 {
            writeln!(writer, "{{\"n\":{number}}}").unwrap();
        }
        let (new, all) = lines.since(count);
        assert_eq!((new.len(), all), (KEPT, KEPT as u64 + 2));
        assert_eq!(lines.since(all).0.len(), 0);
        assert_eq!(
            lines.since(all - 1).0[0].get(),
            format!("{{\"n\":{}}}", KEPT + 1)
        );
    }
}
