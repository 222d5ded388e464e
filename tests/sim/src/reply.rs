//! The responses of the actor: frames as planned, or the request's own body.

use std::panic::panic_any;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use wharf::{Body, BoxError};

use crate::script::{Answer, End, Plan, Read, Response, Site, TRAILER, replied};
use crate::world::{Planned, Sleep, Token, World};

/// The response that a handler planned.
pub(crate) fn reply(
    world: &Rc<World>,
    at: usize,
    plan: &Plan,
    response: &Response,
    held: Option<Body>,
) -> http::Response<ReplyBody> {
    world.tell(at, format_args!("answers {}", response.status));
    let body = ReplyBody {
        world: world.clone(),
        _token: Token::new(world),
        at,
        next: 0,
        is_over: false,
        sleep: None,
        echoes: plan.read == Read::Echo,
        held,
    };
    let mut reply = http::Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(response.status).expect("a status");
    let fields = reply.headers_mut();
    fields.insert("x-id", at.into());
    if let Some(declared) = response.declared {
        fields.insert(header::CONTENT_LENGTH, declared.into());
    }
    if response.closes {
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// The body of a response.
pub struct ReplyBody {
    world: Rc<World>,
    _token: Token,
    at: usize,
    next: usize,
    is_over: bool,
    sleep: Option<Sleep>,
    echoes: bool,
    held: Option<Body>,
}

impl ReplyBody {
    /// A body without content.
    pub(crate) fn empty(world: &Rc<World>, at: usize) -> Self {
        let token = Token::new(world);
        Self {
            world: world.clone(),
            _token: token,
            at,
            next: usize::MAX,
            is_over: false,
            sleep: None,
            echoes: false,
            held: None,
        }
    }

    fn response(&self) -> Option<&Response> {
        match &self.world.script.asked[self.at].plan.answer {
            Answer::Response(response) => Some(response),
            _ => None,
        }
    }

    fn give(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let world = &self.world;
        world.record(self.at, |record| record.given += data.len());
        world.given.set(world.given.get() + data.len());
        world.tell(self.at, format_args!("gives {} bytes", data.len()));
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_over {
            let at = self.at;
            self.world.fail(format_args!(
                "the body of answer {at} is asked behind its end"
            ));
        }
        if self.echoes
            && let Some(held) = &mut self.held
        {
            let frame = ready!(Pin::new(held).poll_frame(cx));
            self.world.moved();
            return match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.world
                            .record(self.at, |record| record.read += data.len());
                        self.give(data)
                    }
                    Err(frame) => Poll::Ready(Some(Ok(frame))),
                },
                end => {
                    self.is_over = true;
                    Poll::Ready(end)
                }
            };
        }
        let script = self.world.script.clone();
        let Answer::Response(response) = &script.asked[self.at].plan.answer else {
            self.is_over = true;
            return Poll::Ready(None);
        };
        if self.next >= response.frames.len() && response.end == End::Never {
            return Poll::Pending;
        }
        if self.next <= response.frames.len() && response.wait > 0 {
            let world = self.world.clone();
            let sleep = self.sleep.get_or_insert_with(|| world.sleep(response.wait));
            ready!(Pin::new(sleep).poll(cx));
            self.sleep = None;
        }
        self.world.moved();
        let next = self.next;
        self.next += 1;
        if let Some(size) = response.frames.get(next) {
            let from: usize = response.frames[..next].iter().sum();
            let content = &replied(self.at)[from..from + size];
            return self.give(Bytes::from_static(content));
        }
        if response.trailer && next == response.frames.len() && response.end == End::Clean {
            let (name, value) = (
                HeaderName::from_static(TRAILER.0),
                HeaderValue::from_static(TRAILER.1),
            );
            return Poll::Ready(Some(Ok(Frame::trailers(
                [(name, value)].into_iter().collect(),
            ))));
        }
        match response.end {
            End::Panic => panic_any(Planned),
            End::Error | End::Clean | End::Never => {}
        }
        self.is_over = true;
        Poll::Ready((response.end == End::Error).then(|| Err("the body failed".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.response().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.echoes
            && let Some(held) = &self.held
        {
            return held.size_hint();
        }
        match self.response() {
            Some(response) => response
                .hint
                .map_or_else(SizeHint::default, |hint| SizeHint::with_exact(hint as u64)),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if self.held.take().is_some() {
            self.world.record(self.at, |record| record.left = true);
        }
        let panics = self.world.script.asked[self.at].plan.panics == Some(Site::Drop);
        if panics && !std::thread::panicking() {
            panic_any(Planned);
        }
    }
}
