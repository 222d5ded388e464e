//! The wire: the only thing that touches the socket, and the only place where a connection waits.
//!
//! Before it gives up the thread it sends what is owed, looks at the clock and asks what the server wants.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::Settings;
use super::deadline::{Deadline, Late, Phase};
use crate::codec::Output;
use crate::conn::{CloseReason, Live, State, Told};
use crate::fair;
use crate::limits::{READ_MOST, WRITE_LEAST};

/// The room made for a read: enough for most heads and small bodies, and more than most messages need, so that a
/// short read tells the runtime without another system call that the socket is empty.
const READ_LEAST: u32 = 4 * 1024;
/// Room beyond the end of a body, for the same reason as above.
const READ_SLACK: u64 = 256;

/// Why a wait ended without what was waited for.
#[derive(Debug)]
pub(super) enum Stop {
    /// The peer reset the connection, or the network failed.
    Io(io::ErrorKind),
    /// A deadline passed.
    Late(Late),
    /// The connection was told to end now.
    Told(CloseReason),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// The socket, its buffers and its clock.
pub(super) struct Wire<Io> {
    io: Io,
    /// `None` while idle: the buffers are back in the thread's pool.
    desk: Option<Box<Desk>>,
    settings: Arc<Settings>,
    deadline: Deadline,
    live: Arc<Live>,
    /// The task that the connection is in, which timer and server wake.
    task: Option<Waker>,
    /// How long the connection may be idle, where a response said so.
    idle_seconds: Option<u32>,
    /// When the connection has been kept for long enough.
    retires: Instant,
    /// What the server has told this connection.
    told: Told,
    /// There is mail for the step under way, which has had its chance to take it.
    has_mail: bool,
    /// One reading of the clock a wake, and none if nobody asks.
    now: Option<Instant>,
    /// The peer has finished sending.
    eof: bool,
    /// Bytes are in the stream's own buffer (TLS).
    unflushed: bool,
    /// A body that was waited for is late; told once, by [`Wire::body_is_late`].
    body_late: bool,
    read_room: u32,
    /// How many times what is gathered for one write has been doubled; see [`Wire::write_room`].
    write_doublings: u8,
    /// What this connection has had of the thread since it last gave it up.
    requests: u32,
    bytes_read: u32,
    bytes_written: u32,
}

/// What an exchange under way needs; pooled, so that an idle connection holds none of it.
pub(super) struct Desk {
    /// Read and not yet decoded.
    pub(super) input: BytesMut,
    /// Encoded and not yet written.
    pub(super) output: Output,
    /// The next request's head; its field map is the last response's, emptied.
    pub(super) parts: request::Parts,
}

impl<Io> Wire<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(io: Io, live: Arc<Live>, retires: Instant, settings: Arc<Settings>) -> Self {
        Self {
            io,
            desk: None,
            deadline: Deadline::new(&settings.limits),
            write_doublings: 0,
            settings,
            live,
            task: None,
            idle_seconds: None,
            retires,
            told: Told::Nothing,
            has_mail: false,
            now: None,
            eof: false,
            unflushed: false,
            body_late: false,
            read_room: READ_LEAST,
            requests: 0,
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    /// What comes before each wait: what is owed is sent, the deadlines are looked at. Only [`Connection::until`] waits.
    ///
    /// [`Connection::until`]: super::connection::Connection::until
    pub(super) fn park(&mut self, cx: &mut Context<'_>) -> Park {
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Park::Stop(error.into());
        }
        let stays = self.stays(cx);
        if !stays {
            self.task = Some(cx.waker().clone());
            self.deadline.has_moved();
        }
        let (told, has_mail) = self.live.watch_on(cx, stays);
        if has_mail && !std::mem::replace(&mut self.has_mail, true) {
            return Park::Again;
        }
        if told != self.told {
            self.told = told;
            return if told >= Told::Cut {
                Park::Stop(Stop::Told(self.live.told_why()))
            } else {
                Park::Again
            };
        }
        match self.deadline.poll(cx) {
            Poll::Pending => self.live.look_last(false),
            // A process that was stopped hears of its timers before its sockets: what has come in time is looked for
            // once more, in the kernel itself by streams that can, after the runtime had a turn by all others.
            Poll::Ready(_) if !self.live.is_last_look() => {
                self.live.look_last(true);
                fair::give_way(cx);
            }
            // The step under way tells the body's reader, whose answer still goes out.
            Poll::Ready(Late::Reading) => {
                self.body_late = true;
                let now = self.now();
                self.deadline.reading.rest(now);
                return Park::Again;
            }
            Poll::Ready(late) => return Park::Stop(Stop::Late(late)),
        }
        self.now = None;
        self.has_mail = false;
        (self.requests, self.bytes_read, self.bytes_written) = (0, 0, 0);
        Park::Wait
    }

    /// The task is the one in which this waited the last time.
    #[inline]
    pub(super) fn stays(&self, cx: &Context<'_>) -> bool {
        self.task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()))
    }

    /// Reads once; 0 is the peer's end.
    #[inline]
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_room(cx, READ_LEAST)
    }

    /// Reads once of a body of which `remaining` bytes are to come, if that is known: into one allocation a frame, as
    /// large as reads have been filling so far, so that a client that declares much and sends little gets little.
    pub(super) fn poll_fill_body(
        &mut self,
        cx: &mut Context<'_>,
        remaining: Option<u64>,
    ) -> Poll<io::Result<usize>> {
        let most = remaining.map_or(u64::MAX, |remaining| remaining.saturating_add(READ_SLACK));
        let room = u64::from(self.read_room).min(most) as u32;
        let read = ready!(self.poll_fill_room(cx, room))?;
        if self.desk().spare() == 0 {
            self.read_room = (self.read_room * 4).min(READ_MOST);
        } else if read < self.read_room as usize / 4 {
            self.read_room = (self.read_room / 4).max(READ_LEAST);
        }
        Poll::Ready(Ok(read))
    }

    fn poll_fill_room(&mut self, cx: &mut Context<'_>, room: u32) -> Poll<io::Result<usize>> {
        let desk = self.desk.get_or_insert_with(Desk::take);
        if desk.spare() < room as usize / 4 {
            desk.input.reserve(room as usize);
        }
        let read = ready!(pin!(self.io.read_buf(&mut desk.input)).poll(cx))?;
        self.eof = read == 0;
        count(&mut self.bytes_read, read);
        self.live.count_in(read);
        Poll::Ready(Ok(read))
    }

    /// Reads into the room that is there, so that a peer's abort is seen while a handler works. Pending, always, but
    /// for an error.
    pub(super) fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while !self.eof {
            let desk = self.desk.get_or_insert_with(Desk::take);
            if desk.input.len() == desk.input.capacity() {
                if !desk.input.is_empty() {
                    break;
                }
                desk.input.reserve(READ_LEAST as usize);
            }
            let read = match ready!(pin!(self.io.read_buf(&mut desk.input)).poll(cx)) {
                Ok(read) => read,
                Err(error) => return Poll::Ready(error),
            };
            self.eof = read == 0;
            self.live.count_in(read);
        }
        Poll::Pending
    }

    /// Writes what is owed.
    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.owed() == 0 && !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush_owed(cx)
    }

    fn poll_flush_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let desk = self.desk.get_or_insert_with(Desk::take);
        while !desk.output.is_empty() {
            match poll_write(&mut self.io, &mut desk.output, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.unflushed = true;
                    count(&mut self.bytes_written, written);
                    self.live.count_out(written);
                    if self.deadline.writing.is_waiting() {
                        let now = *self.now.get_or_insert_with(Instant::now);
                        self.deadline.writing.rest(now);
                        if desk.output.is_empty() {
                            self.deadline.writing.forgive(&self.settings.limits);
                        }
                    }
                    self.deadline.writing.earn(written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let now = *self.now.get_or_insert_with(Instant::now);
                    self.deadline.writing.wait(now, &self.settings.limits);
                    self.write_doublings = 0;
                    return Poll::Pending;
                }
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// So much is gathered for one write.
    #[inline]
    fn write_room(&self) -> usize {
        let grown = WRITE_LEAST.saturating_mul(1 << self.write_doublings);
        grown.min(self.settings.limits.write_buffer_bytes)
    }

    /// A client that doesn't read is not served beyond what may be owed.
    #[inline]
    pub(super) fn owes_too_much(&self) -> bool {
        self.owed() >= self.write_room()
    }

    /// Ready once no more is owed than may be; writes until that is so. Where somebody reads, and the kernel takes all, more
    /// is gathered for the next write.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.owes_too_much() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_flush(cx)? {
            Poll::Ready(()) => {
                let most = self.settings.limits.write_buffer_bytes;
                if self.live.is_read() && self.write_room() < most {
                    self.write_doublings += 1;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.owes_too_much() => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Ends the sending direction, once all that was owed is written.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// An exchange is over: whether other tasks of the thread should run before the next, if there is one.
    #[inline]
    pub(super) fn had_its_share(&mut self) -> bool {
        self.requests += 1;
        (self.requests >= fair::REQUESTS || self.bytes_read >= fair::READ) && self.has_input()
    }

    /// A long answer has had its share of the thread: whoever sees this yields.
    pub(super) fn has_written_its_share(&self) -> bool {
        self.bytes_written >= fair::WRITTEN
    }

    /// Buffers and head of the exchange under way.
    #[inline]
    pub(super) fn desk(&mut self) -> &mut Desk {
        self.desk.get_or_insert_with(Desk::take)
    }

    /// Gives the buffers back, if nothing is in them.
    pub(super) fn clear_desk(&mut self) {
        if let Some(desk) = self
            .desk
            .take_if(|desk| desk.input.is_empty() && desk.output.is_empty())
        {
            desk.give_back();
        }
    }

    pub(super) fn owed(&self) -> usize {
        self.desk.as_ref().map_or(0, |desk| desk.output.len())
    }

    pub(super) fn has_input(&self) -> bool {
        self.desk
            .as_ref()
            .is_some_and(|desk| !desk.input.is_empty())
    }

    pub(super) fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub(super) fn told(&self) -> Told {
        self.live.told()
    }

    pub(super) fn retires(&self) -> Instant {
        self.retires
    }

    /// How long it may be idle from here on.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_seconds
            .map_or(self.settings.limits.idle_timeout, |seconds| {
                Duration::from_secs(u64::from(seconds))
            })
    }

    /// A response advertised so many seconds. What is enforced is one more, so that a client that goes by the
    /// field never sends into a connection that is being closed.
    pub(super) fn keep_idle(&mut self, advertised: Option<u32>) {
        if let Some(seconds) = advertised {
            self.idle_seconds = Some(seconds.saturating_add(1));
        }
    }

    pub(super) fn is_eof(&self) -> bool {
        self.eof
    }

    /// A phase begins; time spent in it so far counts if it is under way already.
    #[inline(always)]
    pub(super) fn enter(&mut self, phase: Phase, allowed: Duration) {
        if self.deadline.phase() != Some(phase) {
            let now = self.now();
            self.deadline.set(phase, now + allowed);
            self.live.enter(phase.state(), now);
        }
    }

    /// What the connection is about to wait for, where that isn't a phase of its own.
    pub(super) fn show(&mut self, state: State) {
        if self.live.state() != state {
            let now = self.now();
            self.live.enter(state, now);
        }
    }

    /// A phase begins, or goes on, that is over at `due`.
    pub(super) fn enter_until(&mut self, phase: Phase, due: Instant) {
        self.deadline.set(phase, due);
    }

    pub(super) fn leave_phase(&mut self) {
        self.deadline.clear();
    }

    /// The client's move: more of a body that is wanted.
    pub(super) fn wait_for_body(&mut self) {
        let now = self.now();
        self.deadline.reading.wait(now, &self.settings.limits);
    }

    /// The client moved, or its body isn't wanted any more.
    pub(super) fn stop_waiting_for_body(&mut self) {
        self.body_late = false;
        if self.deadline.reading.is_waiting() {
            let now = self.now();
            self.deadline.reading.rest(now);
        }
    }

    /// Content has come, which buys the client time for more.
    pub(super) fn got_of_body(&mut self, bytes: usize) {
        self.deadline.reading.earn(bytes);
    }

    /// Another request body begins.
    pub(super) fn restart_reading(&mut self) {
        self.body_late = false;
        self.deadline.reading.restart(&self.settings.limits);
    }

    pub(super) fn body_is_late(&mut self) -> bool {
        std::mem::take(&mut self.body_late)
    }

    /// Ends the use of the socket: what is left of it, and what was read early.
    pub(super) fn into_rest(mut self) -> (Io, Bytes) {
        let early = self
            .desk
            .take()
            .map_or_else(Bytes::new, |mut desk| desk.input.split().freeze());
        (self.io, early)
    }
}

fn count(counter: &mut u32, bytes: usize) {
    *counter = counter.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
}

fn poll_write<Io>(io: &mut Io, output: &mut Output, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
where
    Io: AsyncWrite + Unpin,
{
    let io = Pin::new(io);
    let written = match output.as_slice() {
        Some(slice) => io.poll_write(cx, slice),
        None => {
            let mut slices = [IoSlice::new(&[]); Output::SLICES];
            let filled = output.slices(&mut slices);
            io.poll_write_vectored(cx, &slices[..filled])
        }
    };
    let written = ready!(written)?;
    output.advance(written);
    Poll::Ready(Ok(written))
}

/// Whether to wait.
pub(super) enum Park {
    Wait,
    Again,
    Stop(Stop),
}

/// Desks kept by each thread; each holds at most about `DESK_MOST` bytes in either buffer.
const POOL: usize = 64;
const DESK_MOST: usize = 16 * 1024;

thread_local! {
    #[expect(clippy::vec_box, reason = "a desk goes from pool to wire as a pointer, not as its bytes")]
    static DESKS: RefCell<Vec<Box<Desk>>> = const { RefCell::new(Vec::new()) };
}

impl Desk {
    fn take() -> Box<Self> {
        DESKS.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
            Box::new(Self {
                input: BytesMut::new(),
                output: Output::default(),
                parts: empty_parts(),
            })
        })
    }

    /// The head that was decoded; the next one finds its place empty.
    #[inline]
    pub(super) fn take_parts(&mut self) -> request::Parts {
        std::mem::replace(&mut self.parts, empty_parts())
    }

    /// Keeps a field map that nobody needs any more for the next head, if it is larger than what there is and that
    /// isn't in use by a head that was read ahead. Saves two allocations a request, or 264 instructions.
    #[inline(always)]
    pub(super) fn keep_fields(&mut self, mut fields: HeaderMap) {
        const MOST: usize = 128;
        let next = &mut self.parts.headers;
        if fields.capacity() > next.capacity() && fields.capacity() <= MOST && next.is_empty() {
            fields.clear();
            *next = fields;
        }
    }

    /// The room for reading that is there.
    fn spare(&self) -> usize {
        self.input.capacity() - self.input.len()
    }

    #[inline]
    fn give_back(mut self: Box<Self>) {
        if self.input.capacity() > DESK_MOST || self.output.capacity() > DESK_MOST {
            self.input = BytesMut::new();
            self.output.shrink(DESK_MOST);
        }
        DESKS.with_borrow_mut(|desks| {
            if desks.len() < POOL {
                desks.push(self);
            }
        });
    }
}

/// A request head to be filled.
fn empty_parts() -> request::Parts {
    Request::new(()).into_parts().0
}
