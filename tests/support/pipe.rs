//! A byte stream in memory. The client's end hands the server one slice a read, may stop taking bytes, end, or reset;
//! it sees when the server finished sending and when it let go of the stream. No sockets, no time of its own.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::Answer;

/// A connected pair: what the test holds, and what the server is given.
pub fn pipe() -> (Client, Stream) {
    let state = Arc::new(Mutex::new(State {
        room: usize::MAX,
        ..State::default()
    }));
    (
        Client {
            state: state.clone(),
            read: 0,
        },
        Stream { state },
    )
}

#[derive(Default)]
struct State {
    /// What the client sent; each slice is a read of its own.
    sent: VecDeque<Vec<u8>>,
    client_ended: bool,
    reset: bool,
    /// What the server wrote.
    received: Vec<u8>,
    /// How many further bytes the client takes.
    room: usize,
    server_ended: bool,
    dropped: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    client: Option<Waker>,
}

impl State {
    fn wake(waker: &mut Option<Waker>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

/// The client's end.
pub struct Client {
    state: Arc<Mutex<State>>,
    /// How much of what was received has been taken as answers.
    read: usize,
}

impl Client {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Sends bytes that arrive as one slice.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        let mut state = self.lock();
        if !bytes.as_ref().is_empty() {
            state.sent.push_back(bytes.as_ref().to_vec());
            State::wake(&mut state.reader);
        }
    }

    /// Sends a slice and lets the server do all it can with it.
    pub async fn send_and_settle(&self, bytes: impl AsRef<[u8]>) {
        self.send(bytes);
        self.settle().await;
    }

    /// Lets the server do all it can without any time passing.
    pub async fn settle(&self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    /// Finishes sending, as `shutdown(SHUT_WR)` does; still reads.
    pub fn finish(&self) {
        let mut state = self.lock();
        state.client_ended = true;
        State::wake(&mut state.reader);
    }

    /// Aborts, as a RST does.
    pub fn reset(&self) {
        let mut state = self.lock();
        state.reset = true;
        State::wake(&mut state.reader);
        State::wake(&mut state.writer);
    }

    /// Takes only so many more bytes.
    pub fn take_only(&self, room: usize) {
        let mut state = self.lock();
        state.room = room;
        State::wake(&mut state.writer);
    }

    /// All that was received so far.
    pub fn received(&self) -> Vec<u8> {
        self.lock().received.clone()
    }

    /// Slices that the server has not read yet.
    pub fn unread(&self) -> usize {
        self.lock().sent.iter().map(Vec::len).sum()
    }

    /// The server has finished sending, cleanly.
    pub fn is_finished(&self) -> bool {
        self.lock().server_ended
    }

    /// The server has finished sending or has dropped the stream.
    pub fn is_over(&self) -> bool {
        let state = self.lock();
        state.server_ended || state.dropped
    }

    /// Waits until what was received satisfies `enough`, or nothing more will come; says which.
    pub async fn until(&self, mut enough: impl FnMut(&[u8]) -> bool) -> bool {
        poll_fn(|cx| {
            let mut state = self.lock();
            if enough(&state.received) {
                return Poll::Ready(true);
            }
            if state.server_ended || state.dropped {
                return Poll::Ready(false);
            }
            state.client = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until nothing more will come.
    pub async fn over(&self) {
        self.until(|_| false).await;
    }

    /// The next answer, to a request that wasn't HEAD.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// The next answer, to a request with this method.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let from = self.read;
        let whole = |bytes: &[u8]| Answer::read(&bytes[from..], method).is_some();
        self.until(whole).await;
        let state = self.lock();
        let rest = &state.received[from..];
        let found = Answer::read(rest, method).or_else(|| Answer::cut(rest, method));
        let Some((answer, length)) = found else {
            panic!("no answer; what came was {:?}", super::readable(rest));
        };
        drop(state);
        self.read += length;
        answer
    }

    /// What was received after the answers taken so far.
    pub fn rest(&self) -> Vec<u8> {
        self.lock().received[self.read..].to_vec()
    }
}

impl Drop for Client {
    /// A client that goes away ends its direction, so that a lingering server sees it.
    fn drop(&mut self) {
        self.finish();
    }
}

/// The server's end.
pub struct Stream {
    state: Arc<Mutex<State>>,
}

impl Stream {
    fn write(&self, cx: &mut Context<'_>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock().unwrap();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        assert!(
            !state.server_ended,
            "bytes after the server finished sending"
        );
        if state.room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut written = 0;
        for slice in slices {
            let fits = slice.len().min(state.room);
            state.received.extend_from_slice(&slice[..fits]);
            state.room -= if state.room == usize::MAX { 0 } else { fits };
            written += fits;
        }
        State::wake(&mut state.client);
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state.lock().unwrap();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(mut slice) = state.sent.pop_front() {
            let fits = slice.len().min(buf.remaining());
            buf.put_slice(&slice[..fits]);
            if fits < slice.len() {
                state.sent.push_front(slice.split_off(fits));
            }
            return Poll::Ready(Ok(()));
        }
        if state.client_ended {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, &[buf])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let slices: Vec<&[u8]> = bufs.iter().map(|slice| &**slice).collect();
        self.write(cx, &slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock().unwrap();
        state.server_ended = true;
        State::wake(&mut state.client);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.dropped = true;
        State::wake(&mut state.client);
    }
}
