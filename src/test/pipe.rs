//! A byte stream in memory: what the client's end does, the server's end sees, and the other way round. No sockets and
//! no time of its own.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

/// Either end.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub(super) struct State {
    /// What the client sent and the server hasn't read; each slice is a read of its own.
    sent: VecDeque<Bytes>,
    client: End,
    /// What the server wrote and the client hasn't used.
    pub(super) received: BytesMut,
    /// How many further bytes the client takes.
    room: usize,
    server: End,
    /// Who waits for it: the server for bytes or for room, the client for anything.
    reader: Option<Waker>,
    writer: Option<Waker>,
    watcher: Option<Waker>,
}

/// How one end stands; it only ever gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Open,
    /// It sends no more (FIN).
    Finished,
    /// It has gone, politely: what it is still sent is answered with a reset.
    Closed,
    /// It gave the connection up (RST).
    Reset,
}

impl Pipe {
    pub(super) fn new() -> Self {
        let state = State {
            sent: VecDeque::new(),
            client: End::Open,
            received: BytesMut::new(),
            room: usize::MAX,
            server: End::Open,
            reader: None,
            writer: None,
            watcher: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.client == End::Reset {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        if let Some(slice) = state.sent.front_mut() {
            let fits = slice.len().min(into.remaining());
            into.put_slice(&slice[..fits]);
            slice.advance(fits);
            if slice.is_empty() {
                state.sent.pop_front();
            }
            return Poll::Ready(Ok(()));
        }
        if state.client != End::Open {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if state.client == End::Reset {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        if state.server != End::Open {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if state.client == End::Closed {
            // As with a socket, the write that finds this out succeeds.
            state.client = End::Reset;
            let reader = state.reader.take();
            drop(state);
            wake(reader);
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        if state.room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut written = 0;
        for slice in slices {
            let fits = slice.len().min(state.room);
            state.received.extend_from_slice(&slice[..fits]);
            if state.room != usize::MAX {
                state.room -= fits;
            }
            written += fits;
        }
        let watcher = state.watcher.take();
        drop(state);
        wake(watcher);
        Poll::Ready(Ok(written))
    }

    /// The server sends no more.
    pub(crate) fn shutdown(&self) {
        self.end(End::Finished);
    }

    /// The server lets go of the stream.
    pub(crate) fn close(&self, is_aborted: bool) {
        self.end(if is_aborted {
            End::Reset
        } else {
            End::Finished
        });
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        if end > state.server {
            state.server = end;
        }
        let watcher = state.watcher.take();
        drop(state);
        wake(watcher);
    }

    pub(super) fn send(&self, bytes: Bytes) {
        let mut state = self.lock();
        if bytes.is_empty() || state.client != End::Open {
            return;
        }
        state.sent.push_back(bytes);
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// The client sends no more, or gives the connection up.
    pub(super) fn leave(&self, end: End) {
        let mut state = self.lock();
        if end > state.client {
            state.client = end;
        }
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        wake(reader);
        wake(writer);
    }

    pub(super) fn take_only(&self, room: usize) {
        let mut state = self.lock();
        state.room = room;
        let writer = state.writer.take();
        drop(state);
        wake(writer);
    }

    /// Wakes whoever it is when the server's end does something.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        self.lock().watcher = Some(cx.waker().clone());
    }
}

impl State {
    pub(super) fn server(&self) -> End {
        self.server
    }

    pub(super) fn client(&self) -> End {
        self.client
    }

    /// Bytes that the server hasn't read.
    pub(super) fn unread(&self) -> usize {
        self.sent.iter().map(Bytes::len).sum()
    }
}

/// Outside the lock: a waker may run anything.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
