//! A thread's work: its connections, each a straight line of turns. A turn takes what the source gives, sends it in one
//! piece, and notes each answer. Knows the plan; knows neither terminals nor reports.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connection::{Batch, Connection, Observer, Then};
use crate::fault::Fault;
use crate::gauge::{Gauge, State};
use crate::overhead::Usage;
use crate::plan::{End, Load, Plan, Share};
use crate::recorder::{LATE, Recorder, Tally};
use crate::scan::Answer;
use crate::schedule::Pacer;
use crate::source::Source;
use crate::target::{Address, TOKEN, Target};

/// How long a connection waits after it couldn't be opened, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(320));

/// Opens connections: sockets for a run, pipes for a test.
pub(crate) trait Dial: 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + 'static;

    fn dial(&self, address: &Address) -> impl Future<Output = io::Result<Self::Io>>;
}

/// What the conductor tells its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Open your connections.
    Prepare,
    Go(Instant),
    /// Stop now, whatever is under way.
    Stop,
}

/// A thread's line to the conductor.
pub(crate) struct Cue {
    pub(crate) signal: watch::Receiver<Signal>,
    /// Told once: prepared, or why not.
    pub(crate) prepared: mpsc::UnboundedSender<Result<(), String>>,
}

/// What a thread brings home.
pub(crate) struct Work {
    pub(crate) tally: Tally,
    pub(crate) usage: Usage,
    pub(crate) ended: Instant,
}

/// What the connections of a thread share.
struct Crew<D> {
    plan: Arc<Plan>,
    dial: D,
    source: Source,
    recorder: RefCell<Recorder>,
    /// Requests sent and neither answered nor failed.
    in_flight: Cell<u64>,
}

/// Does a thread's share of a plan, on a current-thread runtime.
pub(crate) async fn work<D: Dial>(
    plan: Arc<Plan>,
    share: Share,
    dial: D,
    pacer: Pacer,
    gauge: Arc<Gauge>,
    cue: Cue,
) -> Work {
    let crew = Rc::new(Crew {
        source: Source::new(&plan, &share),
        recorder: RefCell::new(Recorder::new(gauge)),
        in_flight: Cell::new(0),
        plan,
        dial,
    });
    // Whatever is under way when this future is done is dropped with the set.
    let set = LocalSet::new();
    set.run_until(crew.clone().run(share, pacer, cue)).await
}

impl<D: Dial> Crew<D> {
    async fn run(self: Rc<Self>, share: Share, pacer: Pacer, cue: Cue) -> Work {
        let Cue {
            mut signal,
            prepared,
        } = cue;
        let workers = self.prepare(&share).await;
        let _ = prepared.send(workers.as_ref().map(drop).map_err(ToString::to_string));
        let start = loop {
            match (*signal.borrow_and_update(), &workers) {
                (Signal::Go(start), Ok(_)) => break Some(start),
                (Signal::Stop, _) | (_, Err(_)) => break None,
                (Signal::Prepare, _) => {}
            }
            if signal.changed().await.is_err() {
                break None;
            }
        };
        let usage = Usage::of_this_thread();
        if let (Some(start), Ok(workers)) = (start, workers) {
            self.clone()
                .work(workers, start, &share, pacer, signal)
                .await;
        }
        let ended = Instant::now();
        Work {
            tally: self.recorder.borrow_mut().finish(),
            usage: Usage::of_this_thread().since(usage),
            ended,
        }
    }

    /// Opens all connections side by side, so that none has to be opened while the clock runs.
    async fn prepare(self: &Rc<Self>, share: &Share) -> Result<Vec<Worker<D>>, Fault> {
        let mut opening = JoinSet::new();
        for number in share.workers.clone() {
            let mut worker = Worker::new(self.clone(), number);
            opening.spawn_local(async move {
                let plan = worker.crew.plan.clone();
                for address in (0..plan.addresses.len()).filter(|_| plan.keep_alive) {
                    worker.connections[address] = Some(worker.open(address).await?);
                }
                worker.moves(State::Idle);
                Ok(worker)
            });
        }
        let mut workers = Vec::new();
        while let Some(worker) = opening.join_next().await {
            workers.push(worker.expect("nothing aborts it and it doesn't panic")?);
        }
        workers.sort_by_key(|worker| worker.number);
        Ok(workers)
    }

    /// From the start to the end, or until it is told to stop.
    async fn work(
        self: Rc<Self>,
        workers: Vec<Worker<D>>,
        start: Instant,
        share: &Share,
        pacer: Pacer,
        mut signal: watch::Receiver<Signal>,
    ) {
        let end = match self.plan.end {
            End::After(time) => Some(start + time),
            End::Requests(_) => None,
        };
        self.source.begin(start, share.requests, end);
        let mut running = JoinSet::new();
        for worker in workers {
            running.spawn_local(worker.run(start));
        }
        let crew = self.clone();
        running.spawn_local(async move {
            crew.source.pace(pacer).await;
        });
        let stopped = signal.wait_for(|signal| *signal == Signal::Stop);
        let is_stopped = tokio::select! {
            () = finished(&mut running) => return,
            () = at(end) => false,
            _ = stopped => true,
        };
        let untaken = self.source.cut();
        if self.plan.wait && !is_stopped {
            let stopped = signal.wait_for(|signal| *signal == Signal::Stop);
            tokio::select! {
                () = finished(&mut running) => {}
                _ = stopped => {}
            }
        }
        self.recorder.borrow_mut().tally.unfinished = untaken + self.in_flight.get();
    }
}

async fn finished(running: &mut JoinSet<()>) {
    while let Some(done) = running.join_next().await {
        if let Err(error) = done
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// One of the `-c`: a request or a batch at a time, over a connection to each address.
struct Worker<D: Dial> {
    crew: Rc<Crew<D>>,
    number: usize,
    turn: usize,
    connections: Vec<Option<Connection<D::Io>>>,
    /// When the requests of this turn were due that have no answer yet.
    dues: Vec<Instant>,
    /// The end of the last answer.
    now: Instant,
    state: State,
    /// What goes out in one piece, for each target.
    batches: Vec<Vec<u8>>,
    /// Requests sent, for `--verify`.
    sequence: u64,
    back_off: Duration,
}

impl<D: Dial> Worker<D> {
    fn new(crew: Rc<Crew<D>>, number: usize) -> Self {
        let plan = &crew.plan;
        let repeated = |target: &Target| target.repeated(plan.pipeline);
        let batches = match plan.verify {
            true => vec![Vec::new(); plan.targets.len()],
            false => plan.targets.iter().map(repeated).collect(),
        };
        Self {
            connections: plan.addresses.iter().map(|_| None).collect(),
            batches,
            number,
            turn: 0,
            dues: Vec::with_capacity(plan.pipeline),
            now: Instant::now(),
            state: State::Absent,
            sequence: 0,
            back_off: BACK_OFF.0,
            crew,
        }
    }

    async fn run(mut self, start: Instant) {
        let crew = self.crew.clone();
        sleep_until(start).await;
        self.now = Instant::now();
        loop {
            let Self {
                dues, state, now, ..
            } = &mut self;
            let idle = || crew.recorder.borrow().gauge.moves(state, State::Idle);
            if !crew.source.take(crew.plan.pipeline, *now, dues, idle).await {
                break;
            }
            // Round robin, and the workers don't march in step.
            let target = (self.number + self.turn) % crew.plan.targets.len();
            self.turn += 1;
            crew.in_flight
                .set(crew.in_flight.get() + self.dues.len() as u64);
            while !self.dues.is_empty() {
                if let Err(fault) = self.send(target).await {
                    self.fail(&fault).await;
                }
            }
        }
        self.moves(State::Idle);
    }

    /// Sends what is due and takes the answers. What is still due afterwards was announced to be ignored.
    async fn send(&mut self, number: usize) -> Result<(), Fault> {
        let crew = self.crew.clone();
        let target = &crew.plan.targets[number];
        let was_idle = self.state == State::Idle;
        let (mut connection, sent) = self.connection(target.address).await?;
        self.moves(State::Waiting);
        let count = self.dues.len();
        if crew.plan.verify {
            self.fill(number, target, count);
        }
        if let Load::Open { .. } = crew.plan.load {
            let late = self.dues.iter().filter(|due| sent - **due >= LATE).count() as u64;
            crew.recorder.borrow_mut().late(late, was_idle);
        }
        let batch = Batch {
            bytes: &self.batches[number]
                [..count * (self.batches[number].len() / self.in_batch(count))],
            answers: count,
            to_head: target.to_head,
            compare: crew.plan.verify,
            timeout: crew.plan.timeout,
        };
        crew.recorder.borrow_mut().tally.sent += batch.bytes.len() as u64;
        let mut notes = Notes {
            crew: &crew,
            target,
            bytes: batch.bytes,
            dues: &self.dues,
            answers: 0,
            sent,
            now: sent,
            state: &mut self.state,
        };
        let then = connection.exchange(batch, sent, &mut notes).await;
        let (answers, now) = (notes.answers, notes.now);
        self.dues.drain(..answers);
        self.now = now;
        match then {
            Ok(Then::Keep) if crew.plan.keep_alive => {
                self.connections[target.address] = Some(connection)
            }
            Ok(_) => crew.recorder.borrow_mut().tally.sent_again += self.dues.len() as u64,
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    /// Requests in the prepared bytes.
    fn in_batch(&self, count: usize) -> usize {
        if self.crew.plan.verify {
            count
        } else {
            self.crew.plan.pipeline
        }
    }

    /// A connection that can be used, and the time.
    async fn connection(&mut self, address: usize) -> Result<(Connection<D::Io>, Instant), Fault> {
        let was_idle = self.state != State::Waiting && self.state != State::Receiving;
        if let Some(mut open) = self.connections[address].take() {
            let rested = was_idle || self.connections.len() > 1;
            if !rested {
                return Ok((open, self.now));
            }
            if !open.is_stale().await {
                return Ok((open, Instant::now()));
            }
        }
        let open = self.open(address).await?;
        Ok((open, Instant::now()))
    }

    async fn open(&mut self, address: usize) -> Result<Connection<D::Io>, Fault> {
        self.moves(State::Connecting);
        let crew = self.crew.clone();
        let began = Instant::now();
        let io = timeout(
            crew.plan.timeout,
            crew.dial.dial(&crew.plan.addresses[address]),
        )
        .await
        .map_err(|_| Fault::Timeout)?
        .map_err(|error| Fault::of_connecting(&error))?;
        crew.recorder.borrow_mut().connected(began.elapsed());
        self.back_off = BACK_OFF.0;
        Ok(Connection::new(io))
    }

    /// All that is due has failed. Nobody is helped by trying to connect in a tight loop.
    async fn fail(&mut self, fault: &Fault) {
        let failed = self.dues.drain(..).count() as u64;
        self.crew.recorder.borrow_mut().failed(fault, failed);
        self.crew.in_flight.set(self.crew.in_flight.get() - failed);
        if fault.kind().is_of_connecting() {
            self.moves(State::Absent);
            sleep(self.back_off).await;
            self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        }
        self.now = Instant::now();
    }

    /// Requests that can be told from all others.
    fn fill(&mut self, number: usize, target: &Target, count: usize) {
        let bytes = &mut self.batches[number];
        bytes.clear();
        for _ in 0..count {
            bytes.extend_from_slice(&target.head);
            let (run, worker, sequence) = (
                self.crew.plan.seed as u32,
                self.number as u32,
                self.sequence,
            );
            bytes.extend_from_slice(format!("sv{run:08x}{worker:08x}{sequence:016x}").as_bytes());
            bytes.extend_from_slice(&target.content);
            self.sequence += 1;
        }
    }

    fn moves(&mut self, to: State) {
        self.crew.recorder.borrow().gauge.moves(&mut self.state, to);
    }
}

impl<D: Dial> Drop for Worker<D> {
    fn drop(&mut self) {
        self.moves(State::Absent);
    }
}

/// Notes the answers of one batch.
struct Notes<'a, D> {
    crew: &'a Crew<D>,
    target: &'a Target,
    bytes: &'a [u8],
    dues: &'a [Instant],
    answers: usize,
    sent: Instant,
    now: Instant,
    state: &'a mut State,
}

impl<D> Observer for Notes<'_, D> {
    fn receiving(&mut self, bytes: usize) {
        let mut recorder = self.crew.recorder.borrow_mut();
        recorder.received(bytes);
        recorder.gauge.moves(self.state, State::Receiving);
    }

    fn answered(&mut self, answer: Answer, content: &[u8], at: Instant) {
        let mut recorder = self.crew.recorder.borrow_mut();
        let wrong = if self.crew.plan.verify && answer.status < 300 {
            self.compare(content)
        } else {
            None
        };
        match wrong {
            Some(fault) => recorder.failed(&fault, 1),
            None => {
                let due = self.dues[self.answers];
                recorder.answered(answer.status, at - due, at - self.sent);
            }
        }
        self.crew.in_flight.set(self.crew.in_flight.get() - 1);
        self.answers += 1;
        self.now = at;
    }
}

impl<D> Notes<'_, D> {
    fn compare(&self, content: &[u8]) -> Option<Fault> {
        let length = self.bytes.len() / self.dues.len();
        let request = &self.bytes[self.answers * length..][..length];
        let wanted = &request[self.target.head.len()..];
        if content == wanted {
            return None;
        }
        // Another request of this run begins with another token; its run's part is the same.
        let is_ours = content.len() >= TOKEN
            && content[..10] == wanted[..10]
            && content[..TOKEN] != wanted[..TOKEN];
        Some(if is_ours {
            Fault::Crossed
        } else {
            Fault::Differs
        })
    }
}

#[cfg(test)]
mod tests;
