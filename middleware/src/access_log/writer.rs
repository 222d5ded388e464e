//! Where lines go: into a bounded buffer at once, and from there to the target on a thread of its own. Whoever writes a
//! line never waits for the target; what doesn't fit is counted.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use crate::shard::{SHARDS, shard};

/// For how long the thread lets lines gather once it is awake: one write for many, and no waking for each.
const GATHER: Duration = Duration::from_millis(20);

/// For how long the last handle waits for what is still in the buffer.
const FAREWELL: Duration = Duration::from_secs(2);

type Target = Box<dyn Write + Send>;

/// How a line says that so many were dropped.
pub(super) type Notice = fn(&mut Vec<u8>, SystemTime, u64);

/// A target whose thread starts with the first line.
pub(super) struct Output {
    target: Mutex<Option<Target>>,
    queue: OnceLock<Queue>,
}

impl Output {
    pub(super) fn new(target: impl Write + Send + 'static) -> Self {
        Self {
            target: Mutex::new(Some(Box::new(target))),
            queue: OnceLock::new(),
        }
    }

    /// The queue, started if it wasn't, for `bytes` of lines.
    pub(super) fn queue(&self, bytes: usize, notice: Notice) -> &Queue {
        self.queue.get_or_init(|| {
            let target = lock(&self.target).take();
            Queue::start(
                target.unwrap_or_else(|| Box::new(io::sink())),
                bytes,
                notice,
            )
        })
    }

    /// The queue, if a line was written.
    pub(super) fn started(&self) -> Option<&Queue> {
        self.queue.get()
    }

    /// Lines written from now on go to `target`.
    pub(super) fn replace(&self, target: impl Write + Send + 'static) {
        match self.started() {
            Some(queue) => queue.replace(Box::new(target)),
            None => *lock(&self.target) = Some(Box::new(target)),
        }
    }
}

pub(super) struct Queue {
    shared: Arc<Shared>,
    /// `None` if the system had no thread to give: then nothing is ever written, and all that doesn't fit is counted.
    writer: Option<Thread>,
}

struct Shared {
    /// Each is locked for the time that a line takes to format.
    shards: [Mutex<Vec<u8>>; SHARDS],
    /// As much as a shard takes.
    room: usize,
    notice: Notice,
    dropped: AtomicU64,
    asleep: AtomicBool,
    closing: AtomicBool,
    next_target: Mutex<Option<Target>>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// How often somebody asked for all to be written, and how many of these have been answered.
    asked: u64,
    done: u64,
    ended: bool,
}

impl Queue {
    fn start(target: Target, bytes: usize, notice: Notice) -> Self {
        let shared = Arc::new(Shared {
            shards: Default::default(),
            room: (bytes / SHARDS).max(1),
            notice,
            dropped: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            next_target: Mutex::new(None),
            progress: Mutex::default(),
            changed: Condvar::new(),
        });
        let for_thread = shared.clone();
        let thread = thread::Builder::new().name("access-log".into());
        let thread = thread.spawn(move || Writer::new(for_thread, target).run());
        let writer = thread.ok().map(|handle| handle.thread().clone());
        lock(&shared.progress).ended = writer.is_none();
        Self { shared, writer }
    }

    /// Lets `write` append one line, unless there is no room.
    pub(super) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = &*self.shared;
        let mut lines = lock(&shared.shards[shard()]);
        if lines.len() >= shared.room {
            shared.dropped.fetch_add(1, Relaxed);
            return;
        }
        let before = lines.len();
        write(&mut lines);
        let half = shared.room / 2;
        let filling = before < half && half <= lines.len();
        drop(lines);
        // The thread looks at the shards once more after it has said that it sleeps: no line is left behind.
        let sleeps = shared.asleep.load(SeqCst) && shared.asleep.swap(false, SeqCst);
        if sleeps || filling {
            self.wake();
        }
    }

    /// Lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Waits until all lines before this call are written, but no longer than `bound`. `false`: they are not.
    pub(super) fn flush(&self, bound: Duration) -> bool {
        let mut progress = lock(&self.shared.progress);
        progress.asked += 1;
        let mine = progress.asked;
        drop(progress);
        self.wake();
        self.wait(bound, |progress| progress.done >= mine)
    }

    fn replace(&self, target: Target) {
        *lock(&self.shared.next_target) = Some(target);
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = &self.writer {
            writer.unpark();
        }
    }

    fn wait(&self, bound: Duration, reached: impl Fn(&Progress) -> bool) -> bool {
        let until = Instant::now().checked_add(bound);
        let mut progress = lock(&self.shared.progress);
        while !reached(&progress) && !progress.ended {
            let left = until.map_or(FAREWELL, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        reached(&progress)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        self.wake();
        self.wait(FAREWELL, |progress| progress.ended);
    }
}

/// The thread's own.
struct Writer {
    shared: Arc<Shared>,
    target: Target,
    batch: Vec<u8>,
    /// Dropped lines that were told of.
    told: u64,
    /// The target has the beginning of a line, and refused the rest.
    torn: bool,
}

impl Writer {
    fn new(shared: Arc<Shared>, target: Target) -> Self {
        Self {
            shared,
            target,
            batch: Vec::new(),
            told: 0,
            torn: false,
        }
    }

    fn run(mut self) {
        loop {
            let asked = lock(&self.shared.progress).asked;
            let closing = self.shared.closing.load(SeqCst);
            self.switch();
            let wrote = self.drain();
            if wrote {
                let _ = self.target.flush();
            }
            let mut progress = lock(&self.shared.progress);
            if progress.done < asked {
                progress.done = asked;
                self.shared.changed.notify_all();
            }
            drop(progress);
            if closing {
                return;
            }
            if wrote {
                thread::park_timeout(GATHER);
            } else {
                self.sleep();
            }
        }
    }

    fn sleep(&self) {
        self.shared.asleep.store(true, SeqCst);
        // Only lines come without a call of `unpark` of their own.
        if self
            .shared
            .shards
            .iter()
            .all(|shard| lock(shard).is_empty())
        {
            thread::park();
        }
        self.shared.asleep.store(false, SeqCst);
    }

    /// Writes what has gathered; whether there was anything.
    fn drain(&mut self) -> bool {
        let mut any = false;
        for index in 0..SHARDS {
            let mut lines = lock(&self.shared.shards[index]);
            if lines.is_empty() {
                continue;
            }
            // The batch's memory goes back to be filled again: nothing is allocated once both have their size.
            self.batch.clear();
            mem::swap(&mut self.batch, &mut *lines);
            drop(lines);
            any = true;
            // Looked for after the lines were taken: one that came after a call of `replace` goes to the new target.
            self.switch();
            self.write_batch();
        }
        let dropped = self.shared.dropped.load(Relaxed);
        if dropped > self.told {
            self.batch.clear();
            (self.shared.notice)(&mut self.batch, SystemTime::now(), dropped - self.told);
            // A notice that can't be written isn't tried again before the next line.
            if self.write_out() == 0 {
                self.told = dropped;
                any = true;
            }
        }
        any
    }

    fn switch(&mut self) {
        let next = lock(&self.shared.next_target).take();
        if let Some(next) = next {
            let _ = self.target.flush();
            (self.target, self.torn) = (next, false);
        }
    }

    fn write_batch(&mut self) {
        let lost = self.write_out();
        self.shared.dropped.fetch_add(lost, Relaxed);
    }

    /// Writes the batch; returns how many of its lines the target refused.
    fn write_out(&mut self) -> u64 {
        if self.torn {
            // What was torn must not become the beginning of another line.
            match self.target.write(b"\n") {
                Ok(1..) => self.torn = false,
                _ => return newlines(&self.batch),
            }
        }
        let mut written = 0;
        while written < self.batch.len() {
            match self.target.write(&self.batch[written..]) {
                Ok(count @ 1..) => written = (written + count).min(self.batch.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => {
                    self.torn = written > 0 && self.batch[written - 1] != b'\n';
                    return newlines(&self.batch[written..]);
                }
            }
        }
        0
    }
}

impl Drop for Writer {
    /// Also if the target panics: nobody waits for a thread that is gone.
    fn drop(&mut self) {
        lock(&self.shared.progress).ended = true;
        self.shared.changed.notify_all();
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Opens a log to be appended to.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// What one thread left behind in a panic is still bytes to write.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(feature = "tracing")]
pub(super) use self::events::Events;

#[cfg(feature = "tracing")]
mod events {
    use std::io::{self, Write};

    use tracing::dispatcher::{Dispatch, get_default, with_default};

    /// Each line as an event, to whoever listened where this was made: the thread has no subscriber of its own.
    pub(in super::super) struct Events {
        dispatch: Dispatch,
    }

    impl Events {
        pub(in super::super) fn new() -> Self {
            let dispatch = get_default(Dispatch::clone);
            Self { dispatch }
        }
    }

    impl Write for Events {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            with_default(&self.dispatch, || {
                for line in lines.split(|byte| *byte == b'\n') {
                    // Lines are UTF-8: that is what escaping makes of any bytes.
                    if let Ok(line) = std::str::from_utf8(line)
                        && !line.is_empty()
                    {
                        tracing::info!(target: "access_log", "{line}");
                    }
                }
            });
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn notice(out: &mut Vec<u8>, _: SystemTime, dropped: u64) {
        let _ = writeln!(out, "dropped {dropped}");
    }

    fn line(queue: &Queue, text: &str) {
        queue.push(|out| {
            let _ = writeln!(out, "{text}");
        });
    }

    /// A target that waits for leave before each write, and can be told to fail.
    struct Gate {
        leave: Receiver<io::Result<usize>>,
        entered: Sender<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let count = self
                .leave
                .recv()
                .unwrap_or(Ok(usize::MAX))?
                .min(bytes.len());
            lock(&self.written).extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Held {
        leave: Sender<io::Result<usize>>,
        entered: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Held {
        fn text(&self) -> String {
            String::from_utf8(lock(&self.written).clone()).expect("UTF-8")
        }
    }

    fn gated(bytes: usize) -> (Queue, Held) {
        let ((leave, leaves), (enters, entered)) = (channel(), channel());
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let gate = Gate {
            leave: leaves,
            entered: enters,
            written: written.clone(),
        };
        let queue = Queue::start(Box::new(gate), bytes, notice);
        (
            queue,
            Held {
                leave,
                entered,
                written,
            },
        )
    }

    #[test]
    fn lines_arrive_in_the_order_of_their_thread() {
        let (queue, held) = gated(1 << 20);
        drop(held.leave);
        let written = held.written;
        thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                let queue = &queue;
                scope.spawn(move || (0..1_000).for_each(|n| line(queue, &format!("{name} {n}"))));
            }
        });
        assert!(queue.flush(LONG));
        let written = String::from_utf8(lock(&written).clone()).unwrap();
        assert_eq!(written.lines().count(), 3_000);
        for name in ["a ", "b ", "c "] {
            let own = written.lines().filter_map(|line| line.strip_prefix(name));
            assert!(own.eq((0..1_000).map(|n: u32| n.to_string())));
        }
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_line_that_finds_the_thread_asleep_wakes_it() {
        let (queue, held) = gated(1 << 20);
        for _ in 0..3 {
            let deadline = Instant::now() + LONG;
            while !queue.shared.asleep.load(SeqCst) {
                assert!(Instant::now() < deadline, "it never sleeps");
                thread::yield_now();
            }
            line(&queue, "x");
            held.entered.recv_timeout(LONG).expect("woken");
            held.leave.send(Ok(usize::MAX)).unwrap();
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_counted_and_told_of() {
        let (queue, held) = gated(SHARDS * 100);
        line(&queue, "first");
        held.entered.recv_timeout(LONG).expect("a write");
        // The thread is held in its write: 10 lines of 10 bytes fit, and then no more.
        (0..15).for_each(|n| line(&queue, &format!("line {n:04}")));
        assert_eq!(queue.dropped(), 5);
        assert!(
            !queue.flush(Duration::from_millis(1)),
            "the target stands still"
        );
        drop(held.leave);
        assert!(queue.flush(LONG));
        let written = String::from_utf8(lock(&held.written).clone()).unwrap();
        let kept = (0..10)
            .map(|n| format!("line {n:04}\n"))
            .collect::<String>();
        // Whether it is told of before or after the lines that fit depends on when the thread looked.
        assert_eq!(written.replace("dropped 5\n", ""), format!("first\n{kept}"));
        assert_eq!(written.matches("dropped 5\n").count(), 1);
    }

    #[test]
    fn a_target_that_fails_costs_its_lines_and_tears_none_into_another() {
        let (queue, held) = gated(1 << 20);
        line(&queue, "first");
        held.entered.recv_timeout(LONG).expect("a write");
        // Three bytes of it, and then an error; the notice is refused too.
        held.leave.send(Ok(3)).unwrap();
        held.leave.send(Err(ErrorKind::StorageFull.into())).unwrap();
        held.leave.send(Err(ErrorKind::StorageFull.into())).unwrap();
        drop(held.leave);
        let deadline = Instant::now() + LONG;
        while queue.dropped() == 0 {
            assert!(Instant::now() < deadline, "not counted");
            thread::yield_now();
        }
        line(&queue, "second");
        assert!(queue.flush(LONG));
        let written = String::from_utf8(lock(&held.written).clone()).unwrap();
        let mut lines: Vec<_> = written.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["dropped 1", "fir", "second"]);
    }

    #[test]
    fn the_last_handle_waits_for_the_last_line_but_not_for_ever() {
        let (queue, held) = gated(1 << 20);
        drop(held.leave);
        let written = held.written;
        line(&queue, "last");
        drop(queue);
        assert_eq!(*lock(&written), b"last\n");

        let (queue, held) = gated(1 << 20);
        line(&queue, "never");
        let start = Instant::now();
        drop(queue);
        assert!(start.elapsed() >= FAREWELL && start.elapsed() < LONG);
        assert_eq!(held.text(), "");
    }

    #[test]
    fn a_target_that_panics_holds_nobody_up() {
        struct Panics;
        impl Write for Panics {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                panic!("on purpose");
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let queue = Queue::start(Box::new(Panics), SHARDS * 100, notice);
        line(&queue, "x");
        let start = Instant::now();
        assert!(!queue.flush(LONG));
        (0..100).for_each(|_| line(&queue, "0123456789"));
        assert!(queue.dropped() >= 90);
        drop(queue);
        assert!(start.elapsed() < LONG);
    }
}
