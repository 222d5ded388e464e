//! The service: it does with each request what the script planned, and checks what it is given. Every future, body and
//! task counts while it lives.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::panic_any;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_service::Service;
use wharf::{Body, BoxError};

use crate::net::Shared;
use crate::script::{
    Answer, Asked, BodyFlaw, End, Plan, Read, Ready, Response, Script, Site, TRAILER, replied, sent,
};

/// What service, bodies and tasks share.
pub struct World {
    /// What happens.
    pub script: Arc<Script>,
    /// The stream, and the clock.
    pub net: Shared,
    /// Where each request begins in the client's stream: `(head, body, end)`.
    pub places: Vec<(usize, usize, usize)>,
    /// What became of each request.
    pub records: RefCell<Vec<Record>>,
    /// How many requests the service was called with.
    pub calls: Cell<usize>,
    /// How many of them in this poll of the connection.
    pub calls_in_poll: Cell<usize>,
    /// Futures, bodies and tasks that live.
    pub alive: Cell<isize>,
    /// Bytes of content that bodies gave.
    pub given: Cell<usize>,
    /// Whatever changes anything counts here.
    pub progress: Cell<u64>,
    /// Tasks that nobody polls yet.
    pub spawned: RefCell<Vec<Task>>,
    timers: RefCell<Vec<(u64, u64, Waker)>>,
    timer_id: Cell<u64>,
}

/// A task beside the connection.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What became of a request.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The service was called with it.
    pub called: bool,
    /// Bytes of its body that were read.
    pub read: usize,
    /// Nobody will read more of its body.
    pub left: bool,
    /// Content of its answer that was given.
    pub given: usize,
}

/// A panic that the script planned.
#[derive(Debug)]
pub struct Planned;

impl World {
    /// Nothing has happened yet.
    pub fn new(script: Arc<Script>, net: Shared, places: Vec<(usize, usize, usize)>) -> Rc<Self> {
        Rc::new(Self {
            records: RefCell::new(vec![Record::default(); script.asked.len()]),
            script,
            net,
            places,
            calls: Cell::new(0),
            calls_in_poll: Cell::new(0),
            alive: Cell::new(0),
            given: Cell::new(0),
            progress: Cell::new(0),
            spawned: RefCell::default(),
            timers: RefCell::default(),
            timer_id: Cell::new(0),
        })
    }

    /// The first thing that is wrong is kept.
    pub fn fail(&self, wrong: impl std::fmt::Display) {
        self.net.lock().fail(wrong);
    }

    fn tell(&self, at: usize, what: std::fmt::Arguments<'_>) {
        let mut net = self.net.lock();
        if net.trace.is_some() {
            net.tell(&format!("handler {at}"), what);
        }
    }

    fn moved(&self) {
        self.progress.set(self.progress.get() + 1);
    }

    fn record<T>(&self, at: usize, change: impl FnOnce(&mut Record) -> T) -> T {
        change(&mut self.records.borrow_mut()[at])
    }

    /// When the next timer is due.
    pub fn due(&self) -> Option<u64> {
        self.timers.borrow().iter().map(|(due, ..)| *due).min()
    }

    /// Wakes whoever waits for a time that has come.
    pub fn fire(&self, now: u64) {
        let mut timers = self.timers.borrow_mut();
        let mut at = 0;
        while at < timers.len() {
            if timers[at].0 <= now {
                timers.remove(at).2.wake();
            } else {
                at += 1;
            }
        }
    }

    fn sleep(self: &Rc<Self>, millis: u64) -> Sleep {
        Sleep {
            world: self.clone(),
            millis,
            until: None,
            id: 0,
        }
    }

    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let token = Token::new(self);
        self.spawned.borrow_mut().push(Box::pin(async move {
            task.await;
            drop(token);
        }));
    }
}

/// Counts while it lives.
struct Token(Rc<World>);

impl Token {
    fn new(world: &Rc<World>) -> Self {
        world.alive.set(world.alive.get() + 1);
        Self(world.clone())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

/// A wait on the clock of the simulation.
struct Sleep {
    world: Rc<World>,
    millis: u64,
    until: Option<u64>,
    id: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.millis == 0 {
            return Poll::Ready(());
        }
        let now = self.world.net.lock().now;
        let until = now + self.millis;
        let until = *self.until.get_or_insert(until);
        if now >= until {
            self.world.moved();
            return Poll::Ready(());
        }
        let world = self.world.clone();
        let mut timers = world.timers.borrow_mut();
        if self.id == 0 {
            self.id = world.timer_id.get() + 1;
            world.timer_id.set(self.id);
        }
        match timers.iter_mut().find(|(_, id, _)| *id == self.id) {
            Some((_, _, waker)) => waker.clone_from(cx.waker()),
            None => timers.push((until, self.id, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if self.id != 0 {
            self.world
                .timers
                .borrow_mut()
                .retain(|(_, id, _)| *id != self.id);
        }
    }
}

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
        Box::pin(async move {
            let answer = handle(&world, at, request).await;
            world.moved();
            drop(token);
            answer
        })
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
    let wants_trailer = matches!(
        &asked.content,
        crate::script::Content::Chunked { trailer: true, .. }
    );
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

fn reply(
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
    fn empty(world: &Rc<World>, at: usize) -> Self {
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
