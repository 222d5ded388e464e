//! The conductor of one run: starts the threads together, reads their gauges ten times a second, notices that the server
//! is gone or the user has had enough, and merges what the threads bring home. The only place where threads are made.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal as Unix, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::dial::Sockets;
use crate::fault::FaultKind;
use crate::gauge::{Gauge, Reading};
use crate::misbehave::{Fates, misbehave};
use crate::overhead::{Overhead, Usage};
use crate::plan::{Bad, End, Plan};
use crate::recorder::Tally;
use crate::schedule::Pacer;
use crate::timeline::{TICK, Timeline};
use crate::worker::{Cue, Signal, Work, work};

/// How long nobody answers, while connections fail, until the server is taken to be gone.
const GONE: Duration = Duration::from_secs(2);

/// All that a run measured.
pub(crate) struct Outcome {
    pub(crate) plan: Arc<Plan>,
    pub(crate) tally: Tally,
    pub(crate) timeline: Timeline,
    pub(crate) overhead: Overhead,
    pub(crate) elapsed: Duration,
    pub(crate) ended: Ended,
    pub(crate) bad: Option<Beside>,
}

/// Bad clients, and how the good ones were without them.
pub(crate) struct Beside {
    pub(crate) fates: Fates,
    pub(crate) alone: Tally,
}

/// Why a run was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Interrupted,
    /// The server is gone; the sentence says how that showed.
    Gone(String),
}

/// A run while it runs.
pub(crate) struct Progress<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) elapsed: Duration,
    pub(crate) timeline: &'a Timeline,
}

/// Ctrl-C and SIGTERM, from the moment it is made.
pub(crate) struct Interrupt {
    int: Unix,
    term: Unix,
}

impl Interrupt {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
        })
    }

    async fn arrived(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

impl Outcome {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.tally.answered() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl Progress<'_> {
    /// From 0 to 1.
    pub(crate) fn done(&self) -> f64 {
        let done = match self.plan.end {
            End::After(time) => self.elapsed.as_secs_f64() / time.as_secs_f64(),
            End::Requests(requests) => {
                let last = self.timeline.last();
                (last.answered + last.failed()) as f64 / requests.max(1) as f64
            }
        };
        done.clamp(0.0, 1.0)
    }

    /// As it has gone so far; `None` while nothing is known.
    pub(crate) fn left(&self) -> Option<Duration> {
        match (self.plan.end, self.done()) {
            (End::After(time), _) => Some(time.saturating_sub(self.elapsed)),
            (End::Requests(_), 0.0) => None,
            (End::Requests(_), done) => Some(self.elapsed.mul_f64((1.0 - done) / done)),
        }
    }
}

/// Carries out a plan. With bad clients there is first a quarter of it without them, to compare with.
///
/// # Errors
///
/// A sentence, when nothing could be measured.
pub(crate) async fn run(
    plan: &Arc<Plan>,
    interrupt: &mut Interrupt,
    watch: &mut dyn FnMut(&Progress<'_>),
) -> Result<Outcome, String> {
    if plan.bad.is_none() {
        return once(plan, interrupt, watch).await;
    }
    let quarter = match plan.end {
        End::After(time) => End::After(time / 4),
        End::Requests(requests) => End::Requests(requests.div_ceil(4)),
    };
    let alone = Arc::new(Plan {
        bad: None,
        end: quarter,
        ..Plan::clone(plan)
    });
    let alone = once(&alone, interrupt, watch).await?;
    if alone.ended != Ended::Done {
        return Ok(alone);
    }
    let mut outcome = once(plan, interrupt, watch).await?;
    if let Some(beside) = &mut outcome.bad {
        beside.alone = alone.tally;
    }
    Ok(outcome)
}

async fn once(
    plan: &Arc<Plan>,
    interrupt: &mut Interrupt,
    watch: &mut dyn FnMut(&Progress<'_>),
) -> Result<Outcome, String> {
    let mut threads =
        Threads::start(plan).map_err(|error| format!("no thread could be started: {error}"))?;
    tokio::select! {
        prepared = threads.prepared() => prepared.map_err(|why| nobody(plan, &why))?,
        () = interrupt.arrived() => return Err("interrupted before the first request".to_owned()),
    }

    let before = Usage::of_this_thread();
    let start = Instant::now();
    threads.signal.send_replace(Signal::Go(start));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.reset();

    let mut timeline = Timeline::default();
    let mut pulse = Pulse::default();
    let mut ended = Ended::Done;
    loop {
        tokio::select! {
            () = threads.finished() => break,
            _ = ticks.tick() => {
                timeline.push(start.elapsed(), threads.read());
                if let Some(why) = pulse.is_gone(timeline.last(), start.elapsed()) {
                    ended = Ended::Gone(nobody(plan, why));
                    threads.signal.send_replace(Signal::Stop);
                }
                watch(&Progress { plan, elapsed: start.elapsed(), timeline: &timeline });
            }
            () = interrupt.arrived() => {
                if ended == Ended::Interrupted {
                    std::process::exit(130); // Twice is meant.
                }
                ended = Ended::Interrupted;
                threads.signal.send_replace(Signal::Stop);
            }
        }
    }
    let drawing = Usage::of_this_thread().since(before);
    threads.signal.send_replace(Signal::Stop);

    let last = threads.read();
    let (works, fates) = threads.join();
    if let Ended::Gone(sentence) = &ended
        && last.answered == 0
    {
        return Err(sentence.clone());
    }
    let end = works.iter().map(|work| work.ended).max().unwrap_or(start);
    let elapsed = end.saturating_duration_since(start);
    if last != *timeline.last() {
        timeline.finish(elapsed, last);
    }
    let mut tally = Tally::default();
    for work in &works {
        tally.merge(&work.tally);
    }
    Ok(Outcome {
        plan: plan.clone(),
        tally,
        timeline,
        overhead: Overhead {
            threads: works.iter().map(|work| work.usage).collect(),
            drawing,
            elapsed,
        },
        elapsed,
        ended,
        bad: fates.map(|fates| Beside {
            fates,
            alone: Tally::default(),
        }),
    })
}

fn nobody(plan: &Plan, why: &str) -> String {
    let addresses: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
    format!("no server answers at {}: {why}", addresses.join(", "))
}

/// Whether the server lives.
#[derive(Default)]
struct Pulse {
    /// When an answer was last seen, and the faults until then.
    seen: Duration,
    answered: u64,
    faults: [u64; FaultKind::ALL.len()],
}

impl Pulse {
    /// Says why nobody seems to be there, if so.
    fn is_gone(&mut self, now: &Reading, elapsed: Duration) -> Option<&'static str> {
        if now.answered > self.answered {
            (self.seen, self.answered, self.faults) = (elapsed, now.answered, now.faults);
            return None;
        }
        if now.answered > 0 && elapsed - self.seen < GONE {
            return None;
        }
        let fails = |kind: &FaultKind| now.faults[*kind as usize] > self.faults[*kind as usize];
        let why = FaultKind::ALL
            .into_iter()
            .filter(|kind| kind.is_of_connecting())
            .find(fails);
        why.map(FaultKind::explain)
    }
}

/// The threads of a run.
struct Threads {
    signal: watch::Sender<Signal>,
    gauges: Vec<Arc<Gauge>>,
    workers: Vec<JoinHandle<Work>>,
    bad: Option<JoinHandle<Fates>>,
    prepared: mpsc::UnboundedReceiver<Result<(), String>>,
    finished: mpsc::UnboundedReceiver<()>,
}

impl Threads {
    fn start(plan: &Arc<Plan>) -> io::Result<Self> {
        let (signal, _) = watch::channel(Signal::Prepare);
        let (prepare, prepared) = mpsc::unbounded_channel();
        let (finish, finished) = mpsc::unbounded_channel::<()>();
        let (mut gauges, mut workers) = (Vec::new(), Vec::new());
        for share in plan.shares() {
            let gauge = Arc::new(Gauge::new());
            gauges.push(gauge.clone());
            let (plan, finish) = (plan.clone(), finish.clone());
            let cue = Cue {
                signal: signal.subscribe(),
                prepared: prepare.clone(),
            };
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let name = format!("load {}", share.thread);
            workers.push(Builder::new().name(name).spawn(move || {
                let work = runtime.block_on(async {
                    let pacer = Pacer::exact().unwrap_or_else(|_| Pacer::coarse());
                    work(plan, share, Sockets, pacer, gauge, cue).await
                });
                drop(finish);
                work
            })?);
        }
        let bad = match plan.bad {
            Some(bad) => Some(Self::start_bad(plan, bad, signal.subscribe())?),
            None => None,
        };
        Ok(Self {
            signal,
            gauges,
            workers,
            bad,
            prepared,
            finished,
        })
    }

    fn start_bad(
        plan: &Arc<Plan>,
        bad: Bad,
        signal: watch::Receiver<Signal>,
    ) -> io::Result<JoinHandle<Fates>> {
        let plan = plan.clone();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = Builder::new().name("bad clients".to_owned());
        thread.spawn(move || runtime.block_on(misbehave(plan, bad, signal)))
    }

    /// Waits until all have their connections.
    async fn prepared(&mut self) -> Result<(), String> {
        for _ in 0..self.workers.len() {
            if let Some(result) = self.prepared.recv().await {
                result?;
            }
        }
        Ok(())
    }

    /// Each holds the other end until it has finished.
    async fn finished(&mut self) {
        while self.finished.recv().await.is_some() {}
    }

    fn read(&self) -> Reading {
        Reading::of(self.gauges.iter().map(Arc::as_ref))
    }

    fn join(self) -> (Vec<Work>, Option<Fates>) {
        (
            self.workers.into_iter().map(joined).collect(),
            self.bad.map(joined),
        )
    }
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
