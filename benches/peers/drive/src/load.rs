//! The client: writes bytes that were made beforehand and reads each answer to its end. Everything is bounded in time;
//! an answer that isn't 200 is an error.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::timeout;

use crate::BoxError;
use crate::workloads::Workload;

/// Beyond the time of a burst, for the answers that are still owed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a burst came to, between its first answers, which are not counted, and its last.
pub struct Burst {
    pub answers: u64,
    pub cpu: Duration,
    pub took: Duration,
}

/// As many requests as there is time for, at most `most`; `cpu` is the server's clock.
pub fn burst(
    address: SocketAddr,
    workload: &Rc<Workload>,
    time: Duration,
    most: u64,
    cpu: impl Fn() -> io::Result<Duration>,
) -> Result<Burst, BoxError> {
    run(time, async {
        let mut open = Vec::new();
        for _ in 0..workload.connections {
            let mut client = Client::connect(address).await?;
            client.ask(workload).await?;
            open.push(client);
        }
        let left = Rc::new(Cell::new(
            most.min(workload.most).div_ceil(workload.answers),
        ));
        let answers = Rc::new(Cell::new(0));
        let (before, start) = (cpu()?, Instant::now());
        let mut tasks = JoinSet::new();
        let mut kept = Vec::new();
        for mut client in open {
            let (left, answers) = (left.clone(), answers.clone());
            let workload = workload.clone();
            tasks.spawn_local(async move {
                while start.elapsed() < time && left.get() > 0 {
                    left.set(left.get() - 1);
                    if workload.closes {
                        client = Client::connect(address).await?;
                    }
                    client.ask(&workload).await?;
                    answers.set(answers.get() + workload.answers);
                }
                Ok::<_, BoxError>(client)
            });
        }
        while let Some(ended) = tasks.join_next().await {
            kept.push(ended??); // nobody closes before all is counted
        }
        Ok(Burst {
            answers: answers.get(),
            took: start.elapsed(),
            cpu: cpu()?.saturating_sub(before),
        })
    })
}

/// Requests at a fixed rate, whether the earlier ones are answered or not: how long each took since it was due.
pub fn open_loop(
    address: SocketAddr,
    workload: &Rc<Workload>,
    time: Duration,
    per_second: f64,
) -> Result<Vec<Duration>, BoxError> {
    run(time, async {
        let latencies = Rc::new(RefCell::new(Vec::new()));
        let mut queues = Vec::new();
        let mut tasks = JoinSet::new();
        for _ in 0..workload.connections {
            let mut client = Client::connect(address).await?;
            client.ask(workload).await?;
            let (queue, mut due) = mpsc::unbounded_channel::<Instant>();
            queues.push(queue);
            let (workload, latencies) = (workload.clone(), latencies.clone());
            tasks.spawn_local(async move {
                while let Some(due) = due.recv().await {
                    client.ask(&workload).await?;
                    latencies.borrow_mut().push(due.elapsed());
                }
                Ok::<_, BoxError>(())
            });
        }
        let start = Instant::now();
        let mut sent = 0u32;
        while start.elapsed() < time {
            let due = f64::from(sent) / per_second;
            if start.elapsed().as_secs_f64() < due {
                yield_now().await; // a timer would be a millisecond late
                continue;
            }
            let queue = &queues[sent as usize % queues.len()];
            let _ = queue.send(start + Duration::from_secs_f64(due));
            sent += 1;
        }
        drop(queues);
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(latencies.take())
    })
}

/// That many connections, one request on each; `look` is called while all of them are idle.
pub fn idle<T>(
    address: SocketAddr,
    workload: &Workload,
    connections: usize,
    look: impl FnOnce() -> io::Result<T>,
) -> Result<T, BoxError> {
    run(Duration::from_secs(30), async {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut client = Client::connect(address).await?;
            client.ask(workload).await?;
            open.push(client.stream);
        }
        Ok(look()?)
    })
}

fn run<T>(time: Duration, work: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async { timeout(time + PATIENCE, work).await? }))
}

/// A connection and what was read of it.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Client {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 32 * 1024],
            from: 0,
            to: 0,
        })
    }

    async fn ask(&mut self, workload: &Workload) -> Result<(), BoxError> {
        self.stream.write_all(&workload.bytes).await?;
        for _ in 0..workload.answers {
            self.answer().await?;
        }
        if workload.closes && self.fill().await? > 0 {
            return Err("there are bytes behind the last answer".into());
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<(), BoxError> {
        let head = self.until(b"\r\n\r\n").await?.to_ascii_lowercase();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            return Err(format!("answered with {status}").into());
        }
        let field = |wanted| {
            let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
            fields.find_map(|(name, value)| (name == wanted).then(|| value.trim()))
        };
        match (field("content-length"), field("transfer-encoding")) {
            (Some(length), None) => self.skip(length.parse()?).await,
            (None, Some("chunked")) => self.chunks().await,
            _ => Err(format!("nobody knows where this answer ends: {head}").into()),
        }
    }

    async fn chunks(&mut self) -> Result<(), BoxError> {
        loop {
            let line = self.until(b"\r\n").await?;
            let size = usize::from_str_radix(line.trim(), 16)?;
            self.skip(size).await?;
            if !self.until(b"\r\n").await?.trim().is_empty() {
                return Err("a chunk is longer than it said".into());
            }
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// What comes up to `mark`, and takes both.
    async fn until(&mut self, mark: &[u8]) -> Result<String, BoxError> {
        loop {
            let there = &self.buffer[self.from..self.to];
            if let Some(at) = there.windows(mark.len()).position(|bytes| bytes == mark) {
                let text = String::from_utf8(there[..at].to_vec())?;
                self.from += at + mark.len();
                return Ok(text);
            }
            if self.fill().await? == 0 {
                return Err("closed within an answer".into());
            }
        }
    }

    async fn skip(&mut self, mut bytes: usize) -> Result<(), BoxError> {
        loop {
            let taken = bytes.min(self.to - self.from);
            self.from += taken;
            bytes -= taken;
            if bytes == 0 {
                return Ok(());
            }
            if self.fill().await? == 0 {
                return Err("closed within an answer".into());
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        let got = self.stream.read(&mut self.buffer[self.to..]).await?;
        self.to += got;
        Ok(got)
    }
}
