//! Plays a script: polls the connection when it was woken and at no other time, lets time pass when everybody waits, and
//! looks after each poll and at the end whether what must hold does.
//!
//! The runtime's own paused clock is the clock of the simulation: when nothing can be done, the player sleeps until the
//! next thing happens, and tokio advances to that or to a deadline of the connection, whichever comes first.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, Sleep};
use wharf::ConnReport;
use wharf::test::Control;

use crate::bugs::Bug;
use crate::net::{Io, Net, Shared, Stopped};
use crate::script::{Asked, Happening, Script, Site, What};
use crate::timing::Timing;
use crate::tls;
use crate::world::{Planned, Task, World};

mod client;
mod judge;
mod stack;

use client::Client;
use stack::connect;

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
    /// The runtime of the thread, and how many simulations it has served.
    static RUNTIME: RefCell<Option<(Runtime, u32)>> = const { RefCell::new(None) };
    static IS_PLAYING: Cell<bool> = const { Cell::new(false) };
    /// The last panic that no script planned.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Planned panics are quiet, all others are remembered. For the whole process, once.
fn hear_panics() {
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
    /// Bytes of content that may be owed; `None` where a handler gives content that nobody is owed.
    most_owed: Option<usize>,
    probes: bool,
    /// The runtime has had its turn since the connection was polled last.
    has_yielded: bool,
    bug: Option<Bug>,
}

/// Says whether a future was woken, and passes that on to the player.
struct Woken {
    is_woken: AtomicBool,
    player: Mutex<Option<Waker>>,
}

impl Woken {
    /// A future is to be polled once without having been woken.
    fn new(player: Option<Waker>) -> Arc<Self> {
        Arc::new(Self {
            is_woken: AtomicBool::new(true),
            player: Mutex::new(player),
        })
    }

    fn player(&self) -> MutexGuard<'_, Option<Waker>> {
        self.player.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
            && let Some(player) = &*self.player()
        {
            player.wake_by_ref();
        }
    }
}

impl Player {
    fn new(script: &Arc<Script>, timing: &Timing, bug: Option<Bug>, is_traced: bool) -> Self {
        let client = Client::new(script.clone());
        let lines = script.asked.iter().map(|asked| asked.empty_lines * 2);
        let begins = client.places.iter().zip(lines);
        let begins = begins.map(|(place, lines)| place.0 + lines).collect();
        let net = Net::new(script.clone(), begins, timing.clone(), is_traced);
        let net = Shared::new(net);
        let world = World::new(script.clone(), net.clone(), client.places.clone());
        let (io, slot) = Io::new(net.clone());
        let (connection, control) = connect(script, timing, bug, &world, io);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(control.clone());
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
            woken: Woken::new(None),
            tasks: Vec::new(),
            clock: Box::pin(tokio::time::sleep_until(begin)),
            begin,
            polls: 0,
            seen: (0, 0, 0),
            idle_polls: 0,
            last_event: 0,
            patience: script.house.patience() + if timing.over_tls { tls::PATIENCE } else { 0 },
            most_owed: judge::most_owed(script, timing),
            probes: timing.seed.is_multiple_of(4),
            has_yielded: false,
            bug,
        }
    }

    /// Does all that can be done now, then asks to be woken when more can be.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.polls == 0 {
            *self.woken.player() = Some(cx.waker().clone());
        }
        loop {
            let now = self.begin.elapsed().as_millis() as u64;
            self.net.lock().now = now;
            self.happen(now);
            let is_spurious =
                self.connection.is_some() && self.net.lock().is_spurious() && self.idle_polls == 0;
            if self.connection.is_some() && (self.woken.take() || is_spurious) {
                self.has_yielded = false;
                self.tell();
                self.poll_connection();
            } else if !self.poll_tasks(cx) && !self.client.is_due(now) {
                if self.is_over() {
                    return Poll::Ready(());
                }
                if self.probes {
                    // Whoever yielded to the runtime is woken after its turn, and has not been forgotten until then.
                    if !std::mem::replace(&mut self.has_yielded, true) {
                        return pin!(tokio::task::yield_now()).poll(cx);
                    }
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
        let now = |happening: &&Happening| happening.at == polls;
        for Happening { what, .. } in script.happenings.iter().filter(now) {
            match what {
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
                .tell("server", format_args!("is told: {what:?}"));
        }
    }

    fn poll_connection(&mut self) {
        self.world.calls_in_poll.set(0);
        self.net.lock().begin_poll();
        let waker = Waker::from(self.woken.clone());
        let Some(connection) = &mut self.connection else {
            return;
        };
        let mut cx = Context::from_waker(&waker);
        match catch_unwind(AssertUnwindSafe(|| connection.as_mut().poll(&mut cx))) {
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
                let drops = |asked: &Asked| asked.plan.panics == Some(Site::Drop);
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

    /// Whatever changes something, or time, changes this.
    fn done(&self) -> (u64, u64, u64) {
        let net = self.net.lock();
        (net.progress, self.world.progress.get(), net.now)
    }

    fn drop_connection(&mut self) {
        let connection = self.connection.take();
        if catch_unwind(AssertUnwindSafe(|| drop(connection))).is_err() {
            self.is_broken = true;
        }
        self.woken.take();
    }

    /// A wake-up was lost if a connection that nobody woke can do something now.
    fn probe(&mut self) {
        if self.connection.is_none() || self.net.lock().is_stuffed() {
            return;
        }
        let before = self.done();
        self.poll_connection();
        if before != self.done() && !self.is_broken {
            self.net
                .lock()
                .fail("a lost wake-up: the connection could go on, and nobody woke it");
        }
    }

    fn poll_tasks(&mut self, cx: &Context<'_>) -> bool {
        for task in self.world.spawned.take() {
            self.tasks
                .push((task, Woken::new(Some(cx.waker().clone()))));
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
        net.client_reset && (!net.under_way.is_empty() || net.unread() > 0)
    }

    /// What must hold in the end.
    fn finish(mut self) -> Played {
        self.drop_connection();
        self.tasks.clear();
        drop(self.world.spawned.take());
        let mut net = self.net.lock();
        let is_reset = net.dropped != Some(false) || self.is_broken || net.client_reset;
        let is_clean = !is_reset && !net.owes_notice();
        net.answers.end(is_clean);
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
}
