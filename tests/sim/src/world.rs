//! Plays a script: polls the connection when it was woken and at no other time, lets time pass when everybody waits, and
//! looks after each poll and at the end whether what must hold does.
//!
//! The runtime's own paused clock is the clock of the simulation: when nothing can be done, the player sleeps until the
//! next thing happens, and tokio advances to that or to a deadline of the connection, whichever comes first.

use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, Sleep};
use tower::ServiceBuilder;
use wharf::codec::{Httparse, Strict};
use wharf::test::Control;
use wharf::{CloseReason, Conn, ConnReport, Http, Limits};

use crate::actor::{Actor, Planned, Task, World};
use crate::bugs::{Bug, Bugged};
use crate::model;
use crate::net::{BUSY, Io, Net, Shared, Stopped};
use crate::script::{Script, Site, Step, What, sent};
use crate::timing::{Parser, Timing};

/// How a simulation went.
#[derive(Debug, Clone)]
pub struct Played {
    /// What was wrong, if anything.
    pub wrong: Option<String>,
    /// All that the client got, in the form that must not depend on timing.
    pub digest: u64,
    /// What happened, if it was to be told.
    pub trace: Option<String>,
}

/// Bytes that a connection may have read and nobody has used: the promise is 96 KiB, buffers grow in powers of four.
const READ_AHEAD: usize = 96 * 1024;

/// Milliseconds of a day: nothing lasts longer.
const DAY: u64 = 24 * 3_600_000;

thread_local! {
    static RUNTIME: RefCell<Option<(Runtime, u32)>> = const { RefCell::new(None) };
    /// The last panic that no script planned.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Planned panics are quiet, all others are remembered. For the whole process, once.
pub fn hear_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            if payload.is::<Planned>() || payload.is::<Stopped>() {
                return;
            }
            if !IS_PLAYING.get() {
                return before(info);
            }
            PANIC.set(Some(info.to_string()));
        }));
    });
}

thread_local! {
    static IS_PLAYING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Plays a script once.
pub fn play(script: &Arc<Script>, timing: &Timing, bug: Option<Bug>, is_traced: bool) -> Played {
    hear_panics();
    // A runtime serves many simulations; each begins at a new instant of its clock.
    const SIMULATIONS: u32 = 500;
    let (runtime, used) = RUNTIME
        .take()
        .filter(|(_, used)| *used < SIMULATIONS)
        .unwrap_or_else(|| (runtime(), 0));
    IS_PLAYING.set(true);
    PANIC.set(None);
    let mut played = runtime.block_on(async {
        forget_buffers();
        let mut player = Player::new(script, timing, bug, is_traced);
        tokio::task::unconstrained(poll_fn(|cx| player.poll(cx))).await;
        player.finish()
    });
    IS_PLAYING.set(false);
    if let Some(panic) = PANIC.take() {
        played.wrong = Some(format!("panic: {panic}"));
    }
    if played.wrong.is_none() {
        RUNTIME.set(Some((runtime, used + 1)));
    }
    played
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// Buffers that an earlier connection left to the thread would change how much is read at once: a connection that takes
/// them with it ends here.
fn forget_buffers() {
    let service = tower::service_fn(|_: http::Request<wharf::Body>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(wharf::Body::empty()))
    });
    let mut connection = Box::pin(wharf::serve_connection(tokio::io::empty(), service));
    let _ = connection
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
}

type Connection = Pin<Box<dyn Future<Output = ConnReport>>>;

struct Player {
    script: Arc<Script>,
    side_by_side: usize,
    net: Shared,
    world: Rc<World>,
    client: Client,
    connection: Option<Connection>,
    control: Control,
    report: Option<ConnReport>,
    /// It was dropped or broken from outside.
    is_broken: bool,
    woken: Arc<Woken>,
    tasks: Vec<(Task, Arc<Woken>)>,
    clock: Pin<Box<Sleep>>,
    begin: Instant,
    polls: usize,
    /// What had been done when something last changed, and polls since.
    seen: (u64, u64, u64),
    idle_polls: u32,
    last_event: u64,
    patience: u64,
    probes: bool,
}

#[derive(Default)]
struct Woken {
    is_woken: AtomicBool,
    player: Mutex<Option<Waker>>,
}

impl Woken {
    fn take(&self) -> bool {
        self.is_woken.swap(false, SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, SeqCst)
            && let Some(player) = &*self.player.lock().unwrap_or_else(PoisonError::into_inner)
        {
            player.wake_by_ref();
        }
    }
}

impl Player {
    fn new(script: &Arc<Script>, timing: &Timing, bug: Option<Bug>, is_traced: bool) -> Self {
        let client = Client::new(script.clone());
        let begins = client.places.iter().map(|place| place.0).collect();
        let net = Net::new(script.clone(), begins, timing.clone(), is_traced);
        let net = Shared::new(net);
        let world = World::new(script.clone(), net.clone(), client.places.clone());
        let (io, slot) = Io::new(net.clone());
        let (connection, control) = connect(script, timing, bug, &world, io);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(control.clone());
        let woken = Arc::new(Woken::default());
        woken.is_woken.store(true, SeqCst);
        let begin = Instant::now();
        Self {
            script: script.clone(),
            side_by_side: timing.side_by_side.unwrap_or(0),
            net,
            world,
            client,
            connection: Some(connection),
            control,
            report: None,
            is_broken: false,
            woken,
            tasks: Vec::new(),
            clock: Box::pin(tokio::time::sleep_until(begin)),
            begin,
            polls: 0,
            seen: (0, 0, 0),
            idle_polls: 0,
            last_event: 0,
            patience: script.house.patience(),
            probes: timing.seed.is_multiple_of(4),
        }
    }

    /// Does all that can be done now, then asks to be woken when more can be.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.polls == 0 {
            *self
                .woken
                .player
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        }
        loop {
            let now = self.begin.elapsed().as_millis() as u64;
            self.net.lock().now = now;
            self.happen(now);
            let is_spurious =
                self.connection.is_some() && self.net.lock().is_spurious() && self.idle_polls == 0;
            if self.connection.is_some() && (self.woken.take() || is_spurious) {
                self.tell();
                self.poll_connection();
            } else if !self.poll_tasks(cx) && !self.client.is_due(now) {
                if self.is_over() {
                    return Poll::Ready(());
                }
                if self.probes {
                    self.probe();
                }
                match self.sleep(now, cx) {
                    Poll::Pending if self.net.lock().wrong.is_none() => return Poll::Pending,
                    _ => {}
                }
            }
            if self.net.lock().wrong.is_some() {
                return Poll::Ready(());
            }
        }
    }

    fn is_over(&self) -> bool {
        self.connection.is_none() && self.tasks.is_empty() && self.world.spawned.borrow().is_empty()
    }

    /// All whose time has come.
    fn happen(&mut self, now: u64) {
        let before = self.net.lock().progress;
        self.net.lock().open();
        self.world.fire(now);
        if self.client.is_due(now) {
            self.client.step(&mut self.net.lock(), now);
            self.last_event = now;
        }
        if self.net.lock().progress != before {
            self.last_event = now;
        }
    }

    /// What the script has happen before this poll.
    fn tell(&mut self) {
        self.polls += 1;
        let (script, polls) = (self.script.clone(), self.polls);
        for happening in script
            .happenings
            .iter()
            .filter(|happening| happening.at == polls)
        {
            match happening.what {
                What::LameDuck => self.control.lame_duck(),
                What::Drain => self.control.drain(),
                What::Cut => self.control.cut(),
                What::Drop => {
                    self.is_broken = true;
                    self.drop_connection();
                }
                _ => continue,
            }
            self.net
                .lock()
                .tell("server", format_args!("is told: {:?}", happening.what));
        }
    }

    fn poll_connection(&mut self) {
        self.world.calls_in_poll.set(0);
        self.net.lock().begin_poll();
        let waker = Waker::from(self.woken.clone());
        let Some(connection) = &mut self.connection else {
            return;
        };
        match catch_unwind(AssertUnwindSafe(|| {
            connection.as_mut().poll(&mut Context::from_waker(&waker))
        })) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(report)) => {
                let reason = &report.reason;
                self.net
                    .lock()
                    .tell("server", format_args!("ended: {reason}"));
                self.report = Some(report);
                self.drop_connection();
            }
            Err(payload) => {
                let drops = |asked: &crate::script::Asked| asked.plan.panics == Some(Site::Drop);
                let is_planned = payload.is::<Planned>() && self.script.asked.iter().any(drops);
                if !is_planned {
                    self.net.lock().fail("the connection panicked");
                }
                self.is_broken = true;
                self.drop_connection();
            }
        }
        self.check_poll();
    }

    fn drop_connection(&mut self) {
        let connection = self.connection.take();
        if catch_unwind(AssertUnwindSafe(|| drop(connection))).is_err() {
            self.is_broken = true;
        }
        self.woken.take();
    }

    /// What must hold after each poll.
    fn check_poll(&mut self) {
        let net = self.net.lock();
        let now = (net.progress, self.world.progress.get(), net.now);
        let mut wrong = None;
        if now != self.seen {
            self.seen = now;
            self.idle_polls = 0;
        } else {
            self.idle_polls += 1;
            if self.idle_polls > BUSY {
                wrong = Some(
                    "busy: the connection is polled again and again, and nothing changes"
                        .to_owned(),
                );
            }
        }
        let calls = self.world.calls_in_poll.get();
        if calls > 16 + self.side_by_side {
            wrong = Some(format!("unfair: {calls} requests in one poll"));
        }
        let came: usize = net
            .answers
            .finals
            .iter()
            .filter(|answer| answer.id.is_some())
            .map(|answer| answer.bytes)
            .sum();
        let owed = self.world.given.get().saturating_sub(came);
        let (most, lies) = largest(&self.script);
        if owed > self.script.house.write_buffer + most && !lies {
            wrong = Some(format!("unbounded: {owed} bytes of answers are owed"));
        }
        if self.world.calls.get() > 0 {
            let used = used(&self.world);
            if net.read > used + READ_AHEAD
                && !net.server_finished
                && net.answers.finals.iter().all(|answer| !answer.says_close)
            {
                wrong = Some(format!(
                    "unbounded: {} bytes were read and {used} used",
                    net.read
                ));
            }
        }
        drop(net);
        if let Some(wrong) = wrong {
            self.net.lock().fail(wrong);
        }
    }

    /// A wake-up was lost if a connection that nobody woke can do something now.
    fn probe(&mut self) {
        let now = self.net.lock().now;
        let before = (self.net.lock().progress, self.world.progress.get(), now);
        if self.connection.is_none() {
            return;
        }
        self.poll_connection();
        let after = (self.net.lock().progress, self.world.progress.get(), now);
        if before != after && !self.is_broken {
            self.net
                .lock()
                .fail("a lost wake-up: the connection could go on, and nobody woke it");
        }
    }

    fn poll_tasks(&mut self, cx: &Context<'_>) -> bool {
        for task in self.world.spawned.take() {
            let woken = Arc::new(Woken::default());
            woken.is_woken.store(true, SeqCst);
            *woken.player.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
            self.tasks.push((task, woken));
        }
        let mut did = false;
        let mut at = 0;
        while at < self.tasks.len() {
            let (task, woken) = &mut self.tasks[at];
            let mut is_done = false;
            if woken.take() {
                did = true;
                let waker = Waker::from(woken.clone());
                is_done = task
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready();
            }
            if is_done {
                drop(self.tasks.remove(at));
            } else {
                at += 1;
            }
        }
        did
    }

    /// Waits for the next thing that happens, or for the connection's own deadlines; fails when neither comes.
    fn sleep(&mut self, now: u64, cx: &mut Context<'_>) -> Poll<()> {
        let client = self
            .client
            .due()
            .filter(|_| !self.client.waits(&self.net.lock()));
        let next = [client, self.net.lock().opens(), self.world.due()]
            .into_iter()
            .flatten()
            .min();
        let until = match next {
            Some(next) => next.max(now + 1),
            None => {
                let until = self.last_event + self.patience;
                if now >= until && self.is_unseen() {
                    self.drop_connection();
                    self.tasks.clear();
                    return Poll::Ready(());
                }
                if now >= until {
                    let what = if self.connection.is_some() {
                        "the connection"
                    } else {
                        "a task beside the connection"
                    };
                    self.net.lock().fail(format_args!(
                        "stuck: {what} is still there after {} ms of nothing",
                        self.patience
                    ));
                    return Poll::Ready(());
                }
                until
            }
        };
        if until > DAY {
            self.net.lock().fail("it lasts for more than a day");
        }
        let due = self.begin + Duration::from_millis(until);
        if self.clock.deadline() != due {
            self.clock.as_mut().reset(due);
        }
        self.clock.as_mut().poll(cx)
    }

    /// The client is gone, but its reset lies behind bytes that the server has no room for: it can't be seen.
    fn is_unseen(&self) -> bool {
        let net = self.net.lock();
        net.client_reset && !net.under_way.is_empty()
    }

    /// What must hold in the end.
    fn finish(mut self) -> Played {
        self.drop_connection();
        self.tasks.clear();
        drop(self.world.spawned.take());
        let mut net = self.net.lock();
        let is_reset = net.dropped != Some(false) || self.is_broken || net.client_reset;
        net.answers.end(!is_reset);
        if net.wrong.is_none()
            && let Some(wrong) = self.judge(&net)
        {
            net.fail(wrong);
        }
        let digest = net.answers.digest;
        Played {
            wrong: net.wrong.take(),
            digest,
            trace: net.trace.take(),
        }
    }

    fn judge(&self, net: &Net) -> Option<String> {
        let answers = &net.answers;
        if self.world.alive.get() != 0 {
            return Some(format!(
                "leaked: {} futures, bodies or tasks outlive the connection",
                self.world.alive.get()
            ));
        }
        if net.dropped.is_none() {
            return Some("leaked: the stream outlives the connection".to_owned());
        }
        let lie = answers
            .finals
            .iter()
            .enumerate()
            .find_map(|(at, came)| model::lie(&self.script, at, came));
        if lie.is_some() {
            return lie;
        }
        if let Some(report) = &self.report {
            let calls = self.world.calls.get() as u64;
            if report.requests < calls {
                return Some(format!(
                    "the report tells of {} requests, {calls} were handled",
                    report.requests
                ));
            }
            let (read, written) = (net.read as u64, net.written as u64);
            let counts = (report.bytes_in, report.bytes_out);
            if counts != (read, written) && report.reason != CloseReason::Upgraded {
                return Some(format!(
                    "the report counts {counts:?} bytes, not {:?}",
                    (read, written)
                ));
            }
        }
        if !self.script.is_steady {
            return None;
        }
        let expected = model::outcome(&self.script);
        if let Some(difference) = model::difference(&expected, &answers.finals) {
            return Some(difference);
        }
        if let Some(at) = expected.tunnel_behind {
            let sent = self.client.sent_behind(at);
            if answers.tunnel != sent {
                let came = answers.tunnel.len();
                return Some(format!(
                    "tunnel: {came} bytes came back of {} that were sent behind the switch",
                    sent.len()
                ));
            }
        }
        let is_late = net.dropped == Some(false) && !net.under_way.is_empty();
        let may_be = self
            .report
            .as_ref()
            .is_some_and(|report| report.reason == CloseReason::ClientAsked);
        if is_late && !may_be {
            return Some(format!(
                "closed with {} bytes unread, which resets the stream and may destroy the answer",
                net.under_way.len()
            ));
        }
        None
    }
}

/// How much of the client's stream the handlers and their bodies have used.
fn used(world: &World) -> usize {
    let records = world.records.borrow();
    let last = records.iter().rposition(|record| record.called);
    last.map_or(0, |at| {
        if records[at].left {
            world.places[at].2
        } else {
            world.places[at].1 + records[at].read
        }
    })
}

/// The largest frame, and whether a handler lies about a length: then content is given that nobody is owed.
fn largest(script: &Script) -> (usize, bool) {
    let mut most = 0;
    let mut lies = false;
    for asked in &script.asked {
        if let crate::script::Answer::Response(response) = &asked.plan.answer {
            let given: usize = response.frames.iter().sum();
            most = most.max(response.frames.iter().copied().max().unwrap_or(0));
            lies |= response
                .hint
                .or(response.declared)
                .is_some_and(|length| length < given);
        }
        if asked.plan.read == crate::script::Read::Echo {
            most = most.max(READ_AHEAD);
        }
    }
    (most, lies)
}

/// The whole stack, from the stream to the actor.
fn connect(
    script: &Script,
    timing: &Timing,
    bug: Option<Bug>,
    world: &Rc<World>,
    io: Io,
) -> (Connection, Control) {
    let house = &script.house;
    let timeout = Duration::from_millis(house.timeout.unwrap_or(DAY));
    let actor = Actor::new(world.clone());
    let actor = match bug {
        Some(bug) => bug.service(actor),
        None => Bugged::none(actor),
    };
    let stack = ServiceBuilder::new()
        .concurrency_limit(house.at_once)
        .timeout(timeout)
        .service(actor);
    let limits = bug.map_or_else(|| house.limits(), |bug| bug.limits(house.limits()));
    let http = Http::new().limits(limits);
    if let Some(bug) = bug {
        let conn = Conn::from(bug.stream(io));
        let control = Control::of(&conn);
        let http = http.codec(bug.codec(world));
        let connection: Connection = match timing.side_by_side {
            None => Box::pin(http.connection(conn, stack).expect("limits that work")),
            Some(most) => Box::pin(
                http.concurrent_pipelining(most)
                    .connection(conn, stack)
                    .expect("limits that work"),
            ),
        };
        return (connection, control);
    }
    let conn = Conn::from(io);
    let control = Control::of(&conn);
    let strict: fn(&Limits) -> Strict = Strict::new;
    let httparse: fn(&Limits) -> Httparse = Httparse::new;
    let connection: Connection = match (timing.parser, timing.side_by_side) {
        (Parser::Strict, None) => Box::pin(
            http.codec(strict)
                .connection(conn, stack)
                .expect("limits that work"),
        ),
        (Parser::Httparse, None) => Box::pin(
            http.codec(httparse)
                .connection(conn, stack)
                .expect("limits that work"),
        ),
        (Parser::Strict, Some(most)) => Box::pin(
            http.codec(strict)
                .concurrent_pipelining(most)
                .connection(conn, stack)
                .expect("limits that work"),
        ),
        (Parser::Httparse, Some(most)) => Box::pin(
            http.codec(httparse)
                .concurrent_pipelining(most)
                .connection(conn, stack)
                .expect("limits that work"),
        ),
    };
    (connection, control)
}

/// The client: its steps, one after the other.
struct Client {
    script: Arc<Script>,
    bytes: Vec<u8>,
    places: Vec<(usize, usize, usize)>,
    step: usize,
    /// Of the step under way, what is still to be sent.
    sending: Option<(usize, usize)>,
    due: u64,
    /// Everything that was sent.
    sent: Vec<u8>,
    /// Bodies that aren't sent, as their 100 didn't come.
    withheld: Option<usize>,
}

impl Client {
    fn new(script: Arc<Script>) -> Self {
        let mut bytes = Vec::with_capacity(256 * script.asked.len());
        let mut places = Vec::with_capacity(script.asked.len());
        for (at, asked) in script.asked.iter().enumerate() {
            let begin = bytes.len();
            let head = asked.write(at, &mut bytes);
            places.push((begin, begin + head, bytes.len()));
        }
        Self {
            script,
            bytes,
            places,
            step: 0,
            sending: None,
            due: 0,
            sent: Vec::new(),
            withheld: None,
        }
    }

    fn due(&self) -> Option<u64> {
        (self.step < self.script.steps.len()).then_some(self.due)
    }

    fn is_due(&self, now: u64) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// It waits for the server.
    fn waits(&self, net: &Net) -> bool {
        match self.script.steps.get(self.step) {
            Some(Step::Answers(count)) => !has_answers(net, *count),
            Some(Step::Continue(at)) => {
                !has_answers(net, *at + 1) && !may_send(net, *at) && net.answers.finals.len() <= *at
            }
            _ => false,
        }
    }

    fn step(&mut self, net: &mut Net, now: u64) {
        let Some(step) = self.script.steps.get(self.step).copied() else {
            return;
        };
        if self.waits(net) {
            // Looked at again when something has happened.
            self.due = now + 1;
            return;
        }
        let range = match step {
            Step::Send(at) => Some((self.places[at].0, self.places[at].2)),
            Step::Head(at) => Some((self.places[at].0, self.places[at].1)),
            Step::Body(at) if self.withheld == Some(at) => None,
            Step::Body(at) => Some((self.places[at].1, self.places[at].2)),
            Step::Part(at, bytes) => Some((
                self.places[at].0,
                (self.places[at].0 + bytes).min(self.places[at].2),
            )),
            _ => None,
        };
        if let Some((from, to)) = self.sending.or(range) {
            let (count, delay) = net.slice(to - from);
            net.send(&self.bytes[from..from + count]);
            self.sent.extend_from_slice(&self.bytes[from..from + count]);
            self.due = now + delay;
            self.sending = (from + count < to).then_some((from + count, to));
            self.step += usize::from(self.sending.is_none());
            return;
        }
        self.step += 1;
        self.due = now;
        match step {
            Step::Tunnel(count) => {
                net.send(&sent(77)[..count]);
                self.sent.extend_from_slice(&sent(77)[..count]);
            }
            Step::Pause(millis) => self.due = now + millis,
            Step::Continue(at) if !may_send(net, at) => self.withheld = Some(at),
            Step::TakeOnly(room) => net.take_only(room),
            Step::TakeAll => net.take_only(usize::MAX),
            Step::Finish => net.finish(),
            Step::Reset => net.reset(),
            _ => {}
        }
        if self.step == self.script.steps.len() {
            net.be_plain();
        }
    }

    fn sent_behind(&self, at: usize) -> &[u8] {
        &self.sent[self.places[at].2.min(self.sent.len())..]
    }
}

fn has_answers(net: &Net, count: usize) -> bool {
    net.answers.complete() >= count
        || net.server_finished
        || net.dropped.is_some()
        || net.answers.is_tunnel()
}

fn may_send(net: &Net, at: usize) -> bool {
    let answers = &net.answers;
    answers
        .finals
        .get(at)
        .map_or(answers.finals.len() == at && answers.continued, |answer| {
            answer.after_continue
        })
}
