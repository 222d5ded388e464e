//! A response followed to its end: whoever watches a request is told when the head is there and, once, how it all ended.
//! The end is that of the body, also of one that is dropped midway. What is done with that is the watcher's business.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use wharf::BoxError;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The server has all of the response.
    Complete,
    /// Dropped before its end: the client went away, or a layer gave up.
    Aborted,
    /// The service or the body failed.
    Error,
    /// User code panicked.
    Panicked,
    /// No handler saw it.
    Refused,
}

impl Ended {
    /// In a word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Aborted => "aborted",
            Self::Error => "error",
            Self::Panicked => "panicked",
            Self::Refused => "refused",
        }
    }
}

/// Is told what becomes of one request.
pub trait Watch {
    /// The response's head is there.
    fn answered(&mut self, status: StatusCode);

    /// The service failed; with the status that wharf makes of its error, if the error's type is wharf's.
    fn failed(&mut self, status: Option<StatusCode>);

    /// It is over, after so many bytes of the response's body. The last that is told.
    fn ended(&mut self, how: Ended, bytes: u64);
}

/// A request that is watched. Dropped, it has ended: there is no way out without a word.
pub(crate) struct Follow<W: Watch> {
    watch: W,
    ended: Ended,
    bytes: u64,
    /// The length of the body, if it has one that is known.
    declared: Option<u64>,
    /// User code is running: if this is dropped meanwhile, it panicked.
    running: bool,
    asked: Asked,
}

/// What of a request decides whether its response has a body (RFC 9112 section 6.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Head,
    Connect,
    Content,
}

impl<W: Watch> Follow<W> {
    pub(crate) fn new(watch: W, method: &Method) -> Self {
        Self {
            watch,
            ended: Ended::Aborted,
            bytes: 0,
            declared: None,
            running: false,
            asked: match *method {
                Method::HEAD => Asked::Head,
                Method::CONNECT => Asked::Connect,
                _ => Asked::Content,
            },
        }
    }

    /// Notes the head of a response; some never have a body, whatever stands there.
    fn answered<R: Body>(&mut self, response: &Response<R>) {
        let status = response.status();
        self.watch.answered(status);
        self.declared = response.body().size_hint().exact();
        let bodiless = status.is_informational()
            || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
            || self.asked == Asked::Head
            || (self.asked == Asked::Connect && status.is_success());
        // Of a body that is declared empty, a server may not even ask for the end.
        if bodiless || self.declared == Some(0) || response.body().is_end_stream() {
            self.ended = Ended::Complete;
        }
    }

    /// A server that has sent as many bytes as it declared has no reason to ask for the end.
    fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.declared == Some(self.bytes) {
            self.ended = Ended::Complete;
        }
    }

    fn end(mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl<W: Watch> Drop for Follow<W> {
    fn drop(&mut self) {
        if self.running {
            self.ended = Ended::Panicked;
        }
        self.watch.ended(self.ended, self.bytes);
    }
}

impl<W: Watch> fmt::Debug for Follow<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("ended", &self.ended)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Runs user code; should it panic, the watcher learns so.
fn running<W: Watch, T>(follow: &mut Option<Follow<W>>, run: impl FnOnce() -> T) -> T {
    if let Some(follow) = follow {
        follow.running = true;
    }
    let done = run();
    if let Some(follow) = follow {
        follow.running = false;
    }
    done
}

pin_project! {
    /// The future of a service that is watched.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Followed<F, W: Watch> {
        #[pin]
        call: F,
        follow: Option<Follow<W>>,
    }
}

impl<F, W: Watch> Followed<F, W> {
    /// Watches from the call on, which may be where the work is done.
    pub(crate) fn new(follow: Follow<W>, call: impl FnOnce() -> F) -> Self {
        let mut follow = Some(follow);
        Self {
            call: running(&mut follow, call),
            follow,
        }
    }
}

impl<F, W, R, E> Future for Followed<F, W>
where
    F: Future<Output = Result<Response<R>, E>>,
    W: Watch,
    R: Body,
    E: 'static,
{
    type Output = Result<Response<FollowedBody<R, W>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(running(this.follow, || this.call.poll(cx)));
        let mut follow = this.follow.take();
        match &answer {
            Ok(response) => {
                if let Some(follow) = &mut follow {
                    follow.answered(response);
                }
            }
            Err(error) => {
                if let Some(mut follow) = follow.take() {
                    follow.watch.failed(status_of(error));
                    follow.end(Ended::Error);
                }
            }
        }
        Poll::Ready(answer.map(|response| {
            response.map(|body| {
                // Nothing more will be known of a body that is over already.
                let follow = follow.filter(|_| !body.is_end_stream());
                FollowedBody { body, follow }
            })
        }))
    }
}

/// The status that wharf gives an error, if its type is wharf's; another server may answer with another, or not at all.
fn status_of<E: 'static>(error: &E) -> Option<StatusCode> {
    let error = (error as &dyn Any).downcast_ref::<BoxError>()?;
    Some(wharf::error::status_of(error))
}

pin_project! {
    /// A response's body that is watched to its end.
    #[derive(Debug)]
    pub struct FollowedBody<B, W: Watch> {
        #[pin]
        body: B,
        // None once it is over.
        follow: Option<Follow<W>>,
    }
}

impl<B: Default, W: Watch> Default for FollowedBody<B, W> {
    /// A body that no request is told of.
    fn default() -> Self {
        Self {
            body: B::default(),
            follow: None,
        }
    }
}

impl<B: Body, W: Watch> Body for FollowedBody<B, W> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(running(this.follow, || this.body.as_mut().poll_frame(cx)));
        let ended = match &frame {
            None => Some(Ended::Complete),
            Some(Err(_)) => Some(Ended::Error),
            Some(Ok(frame)) => {
                if let (Some(data), Some(follow)) = (frame.data_ref(), this.follow.as_mut()) {
                    follow.count(data.remaining());
                }
                this.body.is_end_stream().then_some(Ended::Complete)
            }
        };
        if let Some(ended) = ended
            && let Some(follow) = this.follow.take()
        {
            follow.end(ended);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
