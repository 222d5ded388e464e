//! The stream between client and server, and the clock of the simulation: what is on its way, what must wait, what
//! breaks. The server's end is the `AsyncRead + AsyncWrite` that the connection is given.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wharf::test::Control;

use crate::answers::{Answers, Shown};
use crate::random::Random;
use crate::script::{Script, What};
use crate::timing::Timing;
use crate::tls::{self, Session};

/// So many calls of the stream in one poll of the connection, or polls of the connection in a row, that change nothing
/// are a busy loop.
pub const BUSY: u32 = 64;

/// A stream that buffers holds no more.
pub const BUFFER: usize = 4 * 1024;

/// Records are longer than what they hold: the byte of the stream at which something happens is that much farther.
const OVER_TLS: usize = 4;

/// Delays of a simulation's stream add up to no more milliseconds: far below any deadline of a steady script.
const DELAYS: u64 = 1_000;

/// What both ends share.
#[derive(Debug)]
pub struct Net {
    /// Milliseconds since the beginning.
    pub now: u64,
    random: Random,
    timing: Timing,
    script: Arc<Script>,
    /// What the client sent and the server hasn't read.
    pub under_way: VecDeque<u8>,
    /// How many bytes the server has taken from it, and put into the other direction.
    taken: usize,
    put: usize,
    /// The same as the connection knows it, which TLS may separate from the stream.
    pub read: usize,
    /// What the connection has written.
    pub written: usize,
    /// The client's half of TLS, if they speak it.
    tls: Option<Box<Session>>,
    /// The server's handshake is over.
    pub is_secured: bool,
    /// The client sends no more.
    pub client_finished: bool,
    /// The client gave the connection up.
    pub client_reset: bool,
    /// How many further bytes the client takes.
    pub room: usize,
    /// What the client got.
    pub answers: Answers,
    /// Written, and not flushed.
    buffer: Vec<u8>,
    /// The server sends no more.
    pub server_finished: bool,
    /// The server let go of the stream; `true`: with a reset.
    pub dropped: Option<bool>,
    /// What it had not read of what was there to be read, when it did.
    pub left: usize,
    /// A fault has happened to the stream.
    pub failed: bool,
    /// Whatever changes anything counts here; what doesn't is a busy loop in the end.
    pub progress: u64,
    idle_calls: u32,
    reads: Gate,
    writes: Gate,
    ends: Gate,
    delays_left: u64,
    /// Reads and writes may have to wait though something is there.
    pub is_gated: bool,
    /// What is wrong.
    pub wrong: Option<String>,
    /// What happened, in words, if anybody wants to know.
    pub trace: Option<String>,
}

/// A direction that may have to wait.
#[derive(Debug, Default)]
struct Gate {
    waker: Option<Waker>,
    /// Closed until then.
    closed: Option<u64>,
    /// Has just been opened, so it isn't closed again before something went through.
    is_fresh: bool,
}

impl Net {
    /// Nothing has happened yet.
    pub fn new(script: Arc<Script>, begins: Vec<usize>, timing: Timing, is_traced: bool) -> Self {
        let mut under_way = VecDeque::new();
        // Not drawn, since every number that is drawn changes those that follow.
        let is_curt = timing.seed.is_multiple_of(3);
        let tls = timing
            .over_tls
            .then(|| Box::new(Session::new(is_curt, &mut under_way)));
        Self {
            now: 0,
            random: Random::new(timing.seed),
            is_gated: timing.waits > 0,
            timing,
            answers: Answers::new(script.clone(), begins),
            script,
            under_way,
            taken: 0,
            put: 0,
            read: 0,
            written: 0,
            tls,
            is_secured: false,
            client_finished: false,
            client_reset: false,
            room: usize::MAX,
            buffer: Vec::new(),
            server_finished: false,
            dropped: None,
            left: 0,
            failed: false,
            progress: 0,
            idle_calls: 0,
            reads: Gate::default(),
            writes: Gate::default(),
            ends: Gate::default(),
            delays_left: DELAYS,
            wrong: None,
            trace: is_traced.then(String::new),
        }
    }

    /// Writes a line of the trace.
    pub fn tell(&mut self, who: &str, what: fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>7} ms  {who:<10} {what}", self.now);
        }
    }

    /// The first thing that is wrong is kept.
    pub fn fail(&mut self, wrong: impl fmt::Display) {
        if self.wrong.is_none() {
            self.tell("WRONG", format_args!("{wrong}"));
            self.wrong = Some(wrong.to_string());
        }
    }

    /// Another poll of the connection begins.
    pub fn begin_poll(&mut self) {
        self.idle_calls = 0;
    }

    /// A delay in milliseconds, within what is left of them.
    pub fn delay(&mut self, most: u64) -> u64 {
        let delay = self.random.below(most as usize + 1) as u64;
        let delay = delay.min(self.delays_left);
        self.delays_left -= delay;
        delay
    }

    /// How many of so many bytes the client sends at once, and milliseconds until it sends the next.
    pub fn slice(&mut self, bytes: usize) -> (usize, u64) {
        let slice = self.timing.sends.of(bytes, &mut self.random);
        (slice, self.delay(self.timing.wait_most))
    }

    /// The connection is woken for nothing.
    pub fn is_spurious(&mut self) -> bool {
        self.timing.spurious > 0 && self.random.percent(self.timing.spurious)
    }

    /// The client sends bytes, if it still can.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.client_finished || self.client_reset {
            return;
        }
        self.tell(
            "client",
            format_args!("sends {} bytes {}", bytes.len(), Shown(bytes)),
        );
        match &mut self.tls {
            None => self.under_way.extend(bytes),
            Some(tls) => tls.send(bytes, &mut self.under_way),
        }
        self.arrive();
    }

    /// Wakes who waits for what is under way now, if there is anything: what TLS holds back until its handshake is over
    /// isn't.
    fn arrive(&mut self) {
        if !self.under_way.is_empty() || self.client_finished {
            self.reads.wake();
        }
    }

    /// The client sends no more.
    pub fn finish(&mut self) {
        if self.client_finished {
            return;
        }
        self.tell("client", format_args!("finishes"));
        match &mut self.tls {
            None => self.client_finished = true,
            // As soon as the handshake is over.
            Some(tls) => {
                tls.finish(&mut self.under_way);
                self.client_finished = tls.has_finished;
            }
        }
        self.arrive();
    }

    /// The client gives up.
    pub fn reset(&mut self) {
        self.tell("client", format_args!("resets"));
        self.client_reset = true;
        for gate in [&mut self.reads, &mut self.writes, &mut self.ends] {
            gate.closed = None;
            gate.wake();
        }
    }

    /// The client takes only so many more bytes.
    pub fn take_only(&mut self, room: usize) {
        self.tell("client", format_args!("takes {room} bytes from here on"));
        self.room = room;
        if room > 0 {
            self.writes.wake();
        }
    }

    /// From here on nothing is cut or delayed: what is under way must come to its end.
    pub fn be_plain(&mut self) {
        self.timing = Timing {
            spurious: self.timing.spurious,
            buffers: self.timing.buffers,
            over_tls: self.timing.over_tls,
            ..Timing::plain(self.timing.seed)
        };
    }

    /// When a gate opens next.
    pub fn opens(&self) -> Option<u64> {
        [&self.reads, &self.writes, &self.ends]
            .into_iter()
            .filter_map(|gate| gate.closed)
            .min()
    }

    /// Opens the gates whose time has come.
    pub fn open(&mut self) {
        for gate in [&mut self.reads, &mut self.writes, &mut self.ends] {
            if gate.closed.is_some_and(|until| until <= self.now) {
                gate.closed = None;
                gate.is_fresh = true;
                gate.wake();
            }
        }
    }

    fn happens(
        &mut self,
        at: usize,
        which: impl Fn(What) -> Option<ErrorKind>,
    ) -> Option<ErrorKind> {
        let script = &self.script;
        let scale = if self.tls.is_some() { OVER_TLS } else { 1 };
        let mut found = script
            .happenings
            .iter()
            .filter(|happening| happening.at * scale <= at);
        let kind = found.find_map(|happening| which(happening.what))?;
        self.failed = true;
        Some(kind)
    }

    /// Something went through.
    fn moved(&mut self) {
        self.progress += 1;
        self.idle_calls = 0;
    }

    fn idle_call(&mut self) {
        self.idle_calls += 1;
        if self.idle_calls > BUSY {
            self.fail("busy: the stream is asked again and again in one poll, and nothing changes");
            std::panic::panic_any(Stopped);
        }
    }

    fn poll_gate(&mut self, which: Way, cx: &Context<'_>) -> Poll<()> {
        let chance = self.timing.waits;
        let most = self.timing.wait_most;
        let waits = chance > 0 && !self.gate(which).is_fresh && self.random.percent(chance);
        if self.gate(which).closed.is_none() && waits {
            let until = self.now + self.delay(most);
            self.gate(which).closed = Some(until);
        }
        let gate = self.gate(which);
        if gate.closed.is_none() {
            gate.is_fresh = false;
            return Poll::Ready(());
        }
        gate.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn gate(&mut self, which: Way) -> &mut Gate {
        match which {
            Way::Read => &mut self.reads,
            Way::Write => &mut self.writes,
            Way::End => &mut self.ends,
        }
    }

    fn poll_read(&mut self, cx: &Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.idle_call();
        if self.client_reset {
            self.tell("server", format_args!("reads a reset"));
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let fault = |what| match what {
            What::ReadFails(kind) => Some(kind),
            _ => None,
        };
        if let Some(kind) = self.happens(self.taken, fault) {
            self.tell("server", format_args!("fails to read: {kind}"));
            return Poll::Ready(Err(kind.into()));
        }
        if into.remaining() == 0 {
            self.fail("a read without room, which looks like the end of the stream");
        }
        let is_over = self.under_way.is_empty() && self.client_finished;
        if self.under_way.is_empty() && !is_over {
            self.reads.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.poll_gate(Way::Read, cx).is_pending() {
            return Poll::Pending;
        }
        if is_over {
            self.tell("server", format_args!("reads the end"));
            return Poll::Ready(Ok(()));
        }
        let most = self.under_way.len().min(into.remaining());
        let count = self.timing.reads.of(most, &mut self.random);
        let (front, back) = self.under_way.as_slices();
        let fits = front.len().min(count);
        into.put_slice(&front[..fits]);
        into.put_slice(&back[..count - fits]);
        self.under_way.drain(..count);
        self.taken += count;
        self.moved();
        self.tell("server", format_args!("reads {count} bytes"));
        if self.tls.is_none() {
            self.heard(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.idle_call();
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.server_finished {
            self.fail("a write behind the end of the sending direction");
        }
        if offered == 0 {
            self.fail("a write of nothing");
        }
        if self.client_reset {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let fault = |what| match what {
            What::WriteFails(kind) => Some(kind),
            What::WriteZero => Some(ErrorKind::WriteZero),
            _ => None,
        };
        if let Some(kind) = self.happens(self.put, fault) {
            self.tell("server", format_args!("fails to write: {kind}"));
            let is_zero = kind == ErrorKind::WriteZero;
            return Poll::Ready(if is_zero { Ok(0) } else { Err(kind.into()) });
        }
        let count = if self.timing.buffers {
            let _ = self.poll_buffer(cx);
            let room = BUFFER - self.buffer.len();
            if room == 0 {
                return Poll::Pending;
            }
            let count = self.timing.writes.of(offered.min(room), &mut self.random);
            gather(slices, count, |part| self.buffer.extend_from_slice(part));
            self.tell(
                "server",
                format_args!("has {count} of {offered} bytes buffered"),
            );
            self.moved();
            count
        } else {
            ready!(self.poll_deliver(cx, slices))
        };
        self.put += count;
        if self.tls.is_none() {
            self.wrote(count);
        }
        Poll::Ready(Ok(count))
    }

    /// Gives the client what it takes.
    fn poll_deliver(&mut self, cx: &Context<'_>, slices: &[IoSlice<'_>]) -> Poll<usize> {
        if self.room == 0 {
            self.writes.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        ready!(self.poll_gate(Way::Write, cx));
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let count = self
            .timing
            .writes
            .of(offered.min(self.room), &mut self.random);
        gather(slices, count, |part| self.give(part));
        if self.trace.is_some() {
            self.tell("server", format_args!("writes {count} of {offered} bytes"));
            for heard in self.answers.news() {
                self.tell("client", format_args!("{heard}"));
            }
        }
        if self.room != usize::MAX {
            self.room -= count;
        }
        self.moved();
        if let Some(wrong) = self.answers.wrong.clone() {
            self.fail(wrong);
        }
        Poll::Ready(count)
    }

    /// Gives the client these bytes of the stream.
    fn give(&mut self, bytes: &[u8]) {
        let Some(tls) = &mut self.tls else {
            return self.answers.take(bytes);
        };
        let was_told = tls.is_told;
        match tls.take(bytes, &mut self.under_way) {
            Ok(plain) => self.answers.take(&plain),
            Err(wrong) => return self.fail(wrong),
        }
        let hears = tls.is_told && !was_told;
        self.client_finished |= tls.has_finished;
        self.arrive();
        if hears {
            self.tell("client", format_args!("hears close_notify"));
        }
    }

    /// The server's handshake is over.
    pub fn secured(&mut self) {
        self.is_secured = true;
        self.moved();
        self.tell("server", format_args!("has shaken hands"));
    }

    /// The connection has read so many bytes.
    pub fn heard(&mut self, count: usize) {
        self.read += count;
        self.answers.read = self.read;
        if self.tls.is_some() && count > 0 {
            self.moved();
            self.tell("server", format_args!("has {count} bytes decrypted"));
        }
    }

    /// The connection has written so many bytes.
    pub fn wrote(&mut self, count: usize) {
        self.written += count;
        // Not progress: what TLS has merely taken nobody sees, and it may take more without being woken.
        if self.tls.is_some() {
            self.tell("server", format_args!("has {count} bytes encrypted"));
        }
    }

    /// What the client has sent and the connection hasn't read.
    pub fn unread(&self) -> usize {
        match &self.tls {
            None => self.under_way.len(),
            Some(tls) => tls.sent.saturating_sub(self.read),
        }
    }

    /// TLS holds much that the client doesn't take. The write that made it room again said that it must wait: so the
    /// connection could go on, though not far, and will be woken when the client takes more.
    pub fn is_stuffed(&self) -> bool {
        self.tls.is_some() && self.written > self.put + tls::BUFFER / 2
    }

    /// The server owes the client a `close_notify`.
    pub fn owes_notice(&self) -> bool {
        self.is_secured && self.tls.as_ref().is_some_and(|tls| !tls.is_told)
    }

    /// Gives the client all that is buffered.
    fn poll_buffer(&mut self, cx: &Context<'_>) -> Poll<()> {
        while !self.buffer.is_empty() {
            let buffer = std::mem::take(&mut self.buffer);
            let written = self.poll_deliver(cx, &[IoSlice::new(&buffer)]);
            self.buffer = buffer;
            let count = ready!(written);
            self.buffer.drain(..count);
        }
        Poll::Ready(())
    }

    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.idle_call();
        if self.client_reset {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        }
        ready!(self.poll_buffer(cx));
        self.poll_gate(Way::End, cx).map(Ok)
    }
}

/// The first `count` bytes of what lies in pieces.
fn gather(slices: &[IoSlice<'_>], mut count: usize, mut put: impl FnMut(&[u8])) {
    for slice in slices {
        let part = &slice[..slice.len().min(count)];
        put(part);
        count -= part.len();
    }
}

/// Thrown to leave a loop that would never end.
#[derive(Debug)]
pub struct Stopped;

#[derive(Debug, Clone, Copy)]
enum Way {
    Read,
    Write,
    End,
}

impl Gate {
    fn wake(&mut self) {
        if self.closed.is_none()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

/// The net, as its ends hold it.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Net>>);

impl Shared {
    /// A net with two ends.
    pub fn new(net: Net) -> Self {
        Self(Arc::new(Mutex::new(net)))
    }

    /// Nobody else runs meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server's end.
#[derive(Debug)]
pub struct Io {
    net: Shared,
    /// Says how it is to be closed, once it is known.
    control: Arc<Mutex<Option<Control>>>,
}

impl Io {
    /// The end that the connection is given, and where to put its control.
    pub fn new(net: Shared) -> (Self, Arc<Mutex<Option<Control>>>) {
        let control = Arc::default();
        let io = Self {
            net,
            control: Arc::clone(&control),
        };
        (io, control)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let is_reset = control.as_ref().is_some_and(Control::is_aborted);
        let mut net = self.net.lock();
        net.tell(
            "server",
            format_args!("{}", if is_reset { "resets" } else { "closes" }),
        );
        net.dropped = Some(is_reset);
        net.left = net.unread();
        net.progress += 1;
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.net.lock().poll_read(cx, into)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.net.lock().poll_write(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.net.lock().poll_write(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.lock().poll_end(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut net = self.net.lock();
        ready!(net.poll_end(cx))?;
        if !net.server_finished {
            net.server_finished = true;
            net.moved();
            net.tell("server", format_args!("finishes"));
        }
        Poll::Ready(Ok(()))
    }
}
