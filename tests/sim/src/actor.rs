//! The service: it does with each request what the script planned, and checks what it is given.

use std::future::{Future, pending, poll_fn};
use std::panic::panic_any;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_service::Service;
use wharf::{Body, BoxError};

use crate::reply::{ReplyBody, reply};
use crate::script::{Answer, Asked, BodyFlaw, Content, Read, Ready, Site, TRAILER, sent};
use crate::world::{Planned, Sleep, Token, World};

/// The service of requests.
pub struct Actor {
    world: Rc<World>,
    sleep: Option<Sleep>,
}

impl Actor {
    /// The service in this world.
    pub fn new(world: Rc<World>) -> Self {
        Self { world, sleep: None }
    }
}

/// A request that is worked on.
pub type Answering = Pin<Box<dyn Future<Output = Result<http::Response<ReplyBody>, BoxError>>>>;

impl Service<Request<Body>> for Actor {
    type Response = http::Response<ReplyBody>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Requests that are refused are never asked for.
        let mut valid = self
            .world
            .script
            .asked
            .iter()
            .filter(|asked| asked.head_flaw().is_none());
        let Some(plan) = valid.nth(self.world.calls.get()).map(|asked| &asked.plan) else {
            return Poll::Ready(Ok(()));
        };
        if plan.panics == Some(Site::Ready) {
            panic_any(Planned);
        }
        match plan.ready {
            Ready::Now => Poll::Ready(Ok(())),
            Ready::Fails => Poll::Ready(Err("the service failed for good".into())),
            Ready::Later(millis) => {
                let sleep = self.sleep.get_or_insert_with(|| self.world.sleep(millis));
                Pin::new(sleep).poll(cx).map(Ok)
            }
        }
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let world = self.world.clone();
        self.sleep = None;
        world.moved();
        world.calls.set(world.calls.get() + 1);
        world.calls_in_poll.set(world.calls_in_poll.get() + 1);
        let Some(at) = identify(&world, &request) else {
            return Box::pin(pending());
        };
        world.tell(at, format_args!("is called"));
        world.record(at, |record| record.called = true);
        if world.script.asked[at].plan.panics == Some(Site::Call) {
            world.record(at, |record| record.left = true);
            panic_any(Planned);
        }
        let token = Token::new(&world);
        let given_up = GivenUp(Some(world.clone()), at);
        Box::pin(async move {
            let answer = handle(&world, at, request).await;
            world.moved();
            given_up.answered();
            drop(token);
            answer
        })
    }
}

/// A handler that is dropped before it has answered, as a timeout does, leaves its body, unless another task reads it.
struct GivenUp(Option<Rc<World>>, usize);

impl GivenUp {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(world) = &self.0
            && !matches!(world.script.asked[self.1].plan.read, Read::Task(_))
        {
            world.record(self.1, |record| record.left = true);
        }
    }
}

/// Which request this is; it must be exactly one that the client sent, once, and in its turn.
fn identify(world: &Rc<World>, request: &Request<Body>) -> Option<usize> {
    let id = request
        .headers()
        .get("x-id")
        .and_then(|id| id.to_str().ok()?.parse::<usize>().ok());
    let Some((at, asked)) = id.and_then(|at| Some((at, world.script.asked.get(at)?))) else {
        world.fail(format_args!(
            "a request that nobody sent was served: {} {}",
            request.method(),
            request.uri()
        ));
        return None;
    };
    let path = if asked.method == "CONNECT" {
        None
    } else {
        Some(format!("/{at}?q"))
    };
    let is_target = request.uri().path_and_query().map(|path| path.as_str()) == path.as_deref();
    if asked.head_flaw().is_some() || request.method() != asked.method || !is_target {
        world.fail(format_args!(
            "request {at} was served as {} {}",
            request.method(),
            request.uri()
        ));
    }
    let (begin, body, _) = world.places[at];
    let net = world.net.lock();
    let (read, answers) = (net.read, net.answers.complete());
    let closed = net.answers.finals.iter().any(|answer| answer.says_close);
    drop(net);
    if read < body {
        world.fail(format_args!(
            "request {at} was served before its head had come: {begin} to {body}, read {read}"
        ));
    }
    if closed {
        world.fail(format_args!(
            "request {at} was served behind an answer that said close"
        ));
    }
    let before = &world.script.asked[..at];
    if before.iter().any(|asked| asked.head_flaw().is_some()) {
        world.fail(format_args!(
            "request {at} was served behind one that must be refused"
        ));
    }
    if before.iter().any(Asked::asks_for_close) {
        world.fail(format_args!(
            "request {at} was served behind one that asked for close"
        ));
    }
    if world.records.borrow()[at].called {
        world.fail(format_args!(
            "request {at} was served twice, {answers} answers are out"
        ));
    }
    Some(at)
}

impl Asked {
    /// The connection ends with it, whatever is answered.
    pub fn asks_for_close(&self) -> bool {
        match self.connection {
            Some("close") => true,
            Some("keep-alive") => false,
            _ => self.is_http10,
        }
    }
}

async fn handle(
    world: &Rc<World>,
    at: usize,
    mut request: Request<Body>,
) -> Result<http::Response<ReplyBody>, BoxError> {
    let script = world.script.clone();
    let plan = &script.asked[at].plan;
    if plan.hints > 0 {
        let interim = wharf::interim(&request);
        for _ in 0..plan.hints {
            let sent = interim.early_hints(HeaderMap::new()).await.is_ok();
            world.moved();
            world.tell(
                at,
                format_args!("hints, {}", if sent { "sent" } else { "not sent" }),
            );
        }
    }
    world.sleep(plan.wait).await;
    if plan.panics == Some(Site::Future) {
        world.record(at, |record| record.left = true);
        panic_any(Planned);
    }
    let upgrade = wharf::upgrade::on(&mut request);
    let body = request.into_body();
    let mut held = None;
    match plan.read {
        Read::Drop => leave(world, at, body),
        Read::All => {
            let read = read(world, at, body, usize::MAX, 0).await;
            world.record(at, |record| record.left = true);
            if let Err(error) = read
                && plan.passes_errors
            {
                return Err(error);
            }
        }
        Read::Some(bytes) => {
            let read = read(world, at, body, bytes, 0).await;
            world.record(at, |record| record.left = true);
            if let Err(error) = read
                && plan.passes_errors
            {
                return Err(error);
            }
        }
        Read::Hold | Read::Echo => held = Some(body),
        Read::Task(wait) => {
            let own = world.clone();
            world.spawn(async move {
                let _ = read(&own, at, body, usize::MAX, wait).await;
                own.record(at, |record| record.left = true);
            });
        }
    }
    world.sleep(plan.then).await;
    if plan.panics == Some(Site::Late) {
        world.record(at, |record| record.left = true);
        panic_any(Planned);
    }
    let left = held.is_some() && !matches!(plan.answer, Answer::Response(_));
    if left {
        world.record(at, |record| record.left = true);
    }
    match &plan.answer {
        Answer::Response(response) => Ok(reply(world, at, plan, response, held)),
        Answer::Error => {
            world.tell(at, format_args!("fails"));
            Err("the handler failed".into())
        }
        Answer::Never => pending().await,
        Answer::Upgrade => {
            drop(held);
            Ok(switch(world, at, upgrade))
        }
    }
}

fn leave(world: &Rc<World>, at: usize, body: Body) {
    world.tell(at, format_args!("drops the body"));
    world.record(at, |record| record.left = true);
    drop(body);
}

/// Reads a body until at least so many bytes have come, or it is over, which it must not be before its end.
async fn read(
    world: &Rc<World>,
    at: usize,
    body: Body,
    enough: usize,
    wait: u64,
) -> Result<(), BoxError> {
    let script = world.script.clone();
    let asked = &script.asked[at];
    // What is right of a chunk that is too long may be given before its end is seen.
    let excess = if asked.body_flaw() == Some(BodyFlaw::LongData) {
        3
    } else {
        0
    };
    let whole = asked.content.bytes();
    let wants_trailer = matches!(&asked.content, Content::Chunked { trailer: true, .. });
    let mut body = pin!(body);
    let mut got = 0;
    let mut trailer = false;
    while got < enough {
        world.sleep(wait).await;
        let frame = poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await;
        world.moved();
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let expected = sent(at).get(got..got + data.len());
                    if got + data.len() > whole + excess || expected != Some(&data[..]) {
                        world.fail(format_args!(
                            "the body of request {at} has other bytes than were sent, at {got}"
                        ));
                    }
                    if data.is_empty() {
                        world.fail(format_args!("the body of request {at} has an empty frame"));
                    }
                    got += data.len();
                    world.record(at, |record| record.read = got);
                }
                Err(frame) => {
                    let fields = frame.into_trailers().unwrap_or_default();
                    let is_it = fields.len() == 1
                        && fields
                            .get(TRAILER.0)
                            .is_some_and(|value| value == TRAILER.1);
                    if trailer || !is_it || !wants_trailer {
                        world.fail(format_args!("request {at} has trailers that nobody sent"));
                    }
                    trailer = true;
                }
            },
            Some(Err(error)) => {
                world.tell(
                    at,
                    format_args!("its body fails after {got} bytes: {error}"),
                );
                let again = poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await;
                if again.is_some() {
                    world.fail(format_args!(
                        "the body of request {at} goes on behind its error"
                    ));
                }
                return Err(error);
            }
            None => {
                let is_whole =
                    got == whole && asked.body_flaw().is_none() && trailer == wants_trailer;
                if !is_whole || world.net.lock().read < world.places[at].2 {
                    world.fail(format_args!(
                        "the body of request {at} looks complete after {got} of {whole} bytes"
                    ));
                }
                world.tell(at, format_args!("has read all {got} bytes"));
                break;
            }
        }
    }
    Ok(())
}

fn switch(
    world: &Rc<World>,
    at: usize,
    upgrade: Option<wharf::upgrade::OnUpgrade>,
) -> http::Response<ReplyBody> {
    let mut reply = http::Response::new(ReplyBody::empty(world, at));
    let is_connect = world.script.asked[at].method == "CONNECT";
    if let Some(upgrade) = upgrade {
        if !is_connect {
            *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            reply
                .headers_mut()
                .insert(header::UPGRADE, HeaderValue::from_static("echo"));
        }
        let own = world.clone();
        world.spawn(async move {
            let Ok(socket) = upgrade.await else { return };
            let _ = echo(&own, at, socket).await;
        });
    } else if is_connect {
        *reply.status_mut() = StatusCode::FORBIDDEN;
    }
    reply.headers_mut().insert("x-id", at.into());
    reply
}

/// The other protocol: what comes goes back.
async fn echo(
    world: &Rc<World>,
    at: usize,
    mut socket: wharf::upgrade::Upgraded,
) -> std::io::Result<()> {
    if !world.net.lock().answers.is_tunnel() {
        world.fail(format_args!(
            "the socket of request {at} was handed over before its answer was on the wire"
        ));
    }
    let mut buffer = [0; 256];
    loop {
        let read = socket.read(&mut buffer).await?;
        world.moved();
        if read == 0 {
            return socket.shutdown().await;
        }
        socket.write_all(&buffer[..read]).await?;
    }
}
