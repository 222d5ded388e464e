//! A server in a process of its own, and what the kernel says of it: memory, processor time, descriptors, signals.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;

/// Nothing that a row waits for without a limit of its own takes longer.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Wharf,
    Axum,
    /// Nearly nothing: what the machine and the attackers themselves cost.
    Bare,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wharf => "wharf",
            Self::Axum => "axum",
            Self::Bare => "bare",
        }
    }
}

/// How to start a server.
#[derive(Debug, Clone)]
pub(crate) struct Start<'a> {
    kind: Kind,
    options: Vec<String>,
    inherited: Option<&'a TcpListener>,
    wrapper: Vec<String>,
}

impl<'a> Start<'a> {
    pub(crate) fn of(kind: Kind) -> Self {
        Self {
            kind,
            options: Vec::new(),
            inherited: None,
            wrapper: Vec::new(),
        }
    }

    /// An option of `wharf-attack serve`.
    pub(crate) fn with(mut self, option: &str, value: impl ToString) -> Self {
        self.options.push(format!("--{option}"));
        self.options.push(value.to_string());
        self
    }

    /// Passes that socket on as descriptor 3, as `LISTEN_FDS` says.
    pub(crate) fn inheriting(mut self, socket: &'a TcpListener) -> Self {
        self.inherited = Some(socket);
        self
    }

    /// Runs it under that command.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| word.to_string()).collect();
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// To be called on the main thread: the child ends with the thread that started it.
    pub(crate) fn start(self) -> Result<Child, Failure> {
        const PASS_ON: &str =
            "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
        let program = std::env::current_exe()?;
        let mut words = self.wrapper.clone();
        if self.inherited.is_some() {
            words.extend(["sh", "-c", PASS_ON].map(str::to_owned));
        }
        words.push(program.to_string_lossy().into_owned());
        words.extend(["serve", self.kind.name()].map(str::to_owned));
        words.extend(self.options);
        let stdin = match self.inherited {
            Some(socket) => Stdio::from(OwnedFd::from(socket.try_clone()?)),
            None => Stdio::null(),
        };
        let mut process = Command::new(&words[0])
            .args(&words[1..])
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("can't run `{}`: {error}", words[0]))?;
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let stderr = process.stderr.take().ok_or("no stderr")?;
        let log = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lock().expect("a log").push(line);
            }
        });
        let stdout = process.stdout.take().ok_or("no stdout")?;
        let (tell, announcement) = mpsc::channel();
        std::thread::spawn(move || {
            let mut first = String::new();
            let _ = BufReader::new(stdout).read_line(&mut first);
            tell.send(first)
        });
        let mut child = Child {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            id: 0,
            said,
        };
        let first = announcement.recv_timeout(SOON).unwrap_or_default();
        let announced = first
            .trim()
            .strip_prefix("listening ")
            .and_then(|rest| rest.split_once(" as "));
        let Some((address, id)) = announced else {
            let _ = child.ended();
            return Err(format!(
                "the server didn't start: {first}{}",
                child.said().join("\n")
            )
            .into());
        };
        (child.address, child.id) = (address.parse()?, id.parse()?);
        Ok(child)
    }
}

/// A server that runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) address: SocketAddr,
    /// Of the server itself, whatever it runs under.
    id: u32,
    said: Arc<Mutex<Vec<String>>>,
}

impl Child {
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let id = Pid::from_raw(self.id as i32).ok_or("no process id")?;
        Ok(kill_process(id, signal)?)
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn end(&mut self) -> Result<ExitStatus, Failure> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > 2 * SOON {
                return Err("the server doesn't end".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn ended(&mut self) -> Result<ExitStatus, Failure> {
        let _ = self.process.kill();
        Ok(self.process.wait()?)
    }

    /// The lines that it wrote to its standard error.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().expect("a log").clone()
    }

    /// Resident memory, KiB.
    pub(crate) fn memory_kib(&self) -> Result<f64, Failure> {
        let facts = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id))?;
        let line = facts.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.ok_or("no Rss in smaps_rollup")?.parse()?)
    }

    /// Processor time of all of its threads.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id))? {
            // A thread may end meanwhile.
            let facts = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let on_cpu = facts
                .split_whitespace()
                .next()
                .and_then(|nanos| nanos.parse::<u64>().ok());
            nanos += on_cpu.unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<usize, Failure> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.id))?.count())
    }

    /// Waits until it has no more than `most` descriptors open; how long that took, if it came to it.
    pub(crate) async fn descriptors_fall_to(
        &self,
        most: usize,
        within: Duration,
    ) -> Result<Option<Duration>, Failure> {
        let begun = Instant::now();
        loop {
            if self.descriptors()? <= most {
                return Ok(Some(begun.elapsed()));
            }
            if begun.elapsed() > within {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Under a wrapper the server would go on without it. Of one that has ended the number may be another's by now.
        if let Ok(None) = self.process.try_wait() {
            let _ = self.signal(Signal::KILL);
        }
        let _ = self.ended();
    }
}

/// The same for wharf and for axum, one after the other.
pub(crate) async fn in_turn<T>(
    measure: impl AsyncFn(Kind) -> Result<T, Failure>,
) -> Result<(T, T), Failure> {
    Ok((measure(Kind::Wharf).await?, measure(Kind::Axum).await?))
}

/// The same for wharf and for axum at the same time: where all that passes is time.
pub(crate) async fn side_by_side<T>(
    measure: impl AsyncFn(Kind) -> Result<T, Failure>,
) -> Result<(T, T), Failure> {
    tokio::try_join!(measure(Kind::Wharf), measure(Kind::Axum))
}
