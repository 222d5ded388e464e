//! One connection to a server: bytes of requests out, answers in. It knows no load, no URL and no statistics; it says
//! when each answer was whole, and in one word what went wrong.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::fault::Fault;
use crate::scan::{Answer, MOST_HEAD, Scanner};

/// A stream to a server and what has come from it.
pub(crate) struct Connection<Io> {
    io: Io,
    input: Box<[u8]>,
    /// What has come and wasn't taken: `input[start..end]`.
    start: usize,
    end: usize,
    scanner: Scanner,
    content: Vec<u8>,
    patience: Patience,
}

/// Requests that go out in one piece, and what is known of their answers.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) answers: usize,
    pub(crate) to_head: bool,
    /// The content of the answers is wanted.
    pub(crate) compare: bool,
    pub(crate) timeout: Duration,
}

/// What happens on the way, told while it happens.
pub(crate) trait Observer {
    /// Bytes of an answer that isn't whole yet.
    fn receiving(&mut self, bytes: usize);
    /// An answer is whole; `content` is empty unless the batch asked for it.
    fn answered(&mut self, answer: Answer, content: &[u8], at: Instant);
}

/// The connection can be used for another batch, or the server wants it closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    Close,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            io,
            input: vec![0; MOST_HEAD].into_boxed_slice(),
            start: 0,
            end: 0,
            scanner: Scanner::default(),
            content: Vec::new(),
            patience: Patience::default(),
        }
    }

    /// Sends the batch and takes its answers, reading while it still writes. After `Then::Close` there may be fewer
    /// answers than requests: the server announced that it won't look at the rest (RFC 9112 section 9.6).
    pub(crate) async fn exchange(
        &mut self,
        batch: Batch<'_>,
        from: Instant,
        observer: &mut impl Observer,
    ) -> Result<Then, Fault> {
        let (mut unsent, mut unanswered) = (batch.bytes, batch.answers);
        self.patience.until(from + batch.timeout);
        poll_fn(|cx| {
            // A server may answer early and close; what it said is read before its deafness is complained about.
            let mut broken = None;
            while !unsent.is_empty() && broken.is_none() {
                match Pin::new(&mut self.io).poll_write(cx, unsent) {
                    Poll::Ready(Ok(0)) => broken = Some(Fault::Closed),
                    Poll::Ready(Ok(sent)) => unsent = &unsent[sent..],
                    Poll::Ready(Err(error)) => broken = Some(Fault::of(&error)),
                    Poll::Pending => break,
                }
            }
            match self.poll_answers(cx, batch, &mut unanswered, observer) {
                Poll::Ready(Ok(Then::Keep)) if !unsent.is_empty() => {
                    // The answer came before the request was whole: the rest of it must not be taken for another one.
                    Poll::Ready(Ok(Then::Close))
                }
                Poll::Pending => match broken {
                    Some(fault) => Poll::Ready(Err(fault)),
                    None => self.patience.poll(cx).map(|()| Err(Fault::Timeout)),
                },
                ready => ready,
            }
        })
        .await
    }

    /// Reads until all answers are there, or none can come any more.
    fn poll_answers(
        &mut self,
        cx: &mut Context<'_>,
        batch: Batch<'_>,
        unanswered: &mut usize,
        observer: &mut impl Observer,
    ) -> Poll<Result<Then, Fault>> {
        loop {
            let read = ready!(self.poll_fill(cx)).map_err(|error| Fault::of(&error))?;
            let now = Instant::now();
            if read == 0 {
                let Some(answer) = self.scanner.end() else {
                    return Poll::Ready(Err(match self.scanner.is_within() {
                        true => Fault::CutOff,
                        false => Fault::Closed,
                    }));
                };
                observer.answered(answer, &self.content, now);
                self.content.clear();
                *unanswered -= 1;
                return Poll::Ready(Ok(Then::Close));
            }
            observer.receiving(read);
            while self.start < self.end {
                if *unanswered == 0 {
                    return Poll::Ready(Err(Fault::Malformed("it is longer than it says")));
                }
                let mut input = &self.input[self.start..self.end];
                let content = batch.compare.then_some(&mut self.content);
                let answer = self.scanner.advance(&mut input, batch.to_head, content);
                self.start = self.end - input.len();
                let Some(answer) = answer.map_err(Fault::Malformed)? else {
                    break;
                };
                observer.answered(answer, &self.content, now);
                self.content.clear();
                *unanswered -= 1;
                if !answer.keep {
                    return Poll::Ready(Ok(Then::Close));
                }
            }
            if *unanswered == 0 {
                return Poll::Ready(Ok(Then::Keep));
            }
        }
    }

    /// One read, behind what is still there. The buffer has room: a head of that length is refused before.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut room = ReadBuf::new(&mut self.input[self.end..]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.end += read;
        Poll::Ready(Ok(read))
    }

    /// Whether an unused connection was ended by the server meanwhile, or it said something that nobody asked for.
    pub(crate) async fn is_stale(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.poll_fill(cx).is_ready())).await
    }
}

/// A deadline that is moved with each batch; the timer behind it only when it fires too early.
#[derive(Default)]
struct Patience {
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn until(&mut self, due: Instant) {
        self.due = Some(due);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}
