//! What the tests share: servers of known behaviour in this process, and the tool run as its users run it.

#![allow(dead_code, reason = "each test file uses a part")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::{Request, Response};
use serde_json::Value;
use tower::{ServiceBuilder, service_fn};
use wharf::{Address, Body, BoxError, Http, Limits, Listener, Server, Shutdown};

/// What a test waits for at most; nothing should come near it.
const SOON: Duration = Duration::from_secs(30);

pub(crate) type Answer = Result<Response<Body>, BoxError>;

/// A server on a thread of its own. All of its sockets end when it is dropped.
pub(crate) struct Served {
    pub(crate) address: Address,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Served {
    pub(crate) fn start<F>(handler: impl Fn(Request<Body>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = Listener::tcp("127.0.0.1:0").unwrap();
        Self::at(listener, Limits::default(), handler)
    }

    pub(crate) fn at<F>(
        listener: Listener,
        limits: Limits,
        handler: impl Fn(Request<Body>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = listener.local().clone();
        let (requests, connections) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counted = requests.clone();
        let stack = ServiceBuilder::new()
            .layer(Http::new().limits(limits))
            .service(service_fn(move |request| {
                counted.fetch_add(1, SeqCst);
                handler(request)
            }));
        let opened = connections.clone();
        let server = Server::new()
            .listen(listener)
            .unwrap()
            .shutdown(Shutdown::never())
            .on_close(move |_| {
                opened.fetch_add(1, SeqCst);
            });
        runtime.spawn(server.serve(stack));
        Self {
            address,
            requests,
            connections,
            runtime: Some(runtime),
        }
    }

    /// One that answers at once.
    pub(crate) fn quick() -> Self {
        Self::start(|_| async { Ok(Response::new(Body::from("ahoy\n"))) })
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        match &self.address {
            Address::Socket(address) => *address,
            other => panic!("{other:?} is not TCP"),
        }
    }

    pub(crate) fn port(&self) -> String {
        self.socket().port().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.socket())
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    /// Connections that have ended.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(SeqCst)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A run of the tool that is over.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn ends_with(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:#?}");
        self
    }

    /// The numbers that the last line begins with: count, seconds, rate.
    #[track_caller]
    pub(crate) fn last_line(&self) -> (u64, f64, f64) {
        let line = self.out.lines().last().unwrap_or_default();
        let words: Vec<&str> = line.split(' ').collect();
        let [count, "requests", "in", seconds, "s:", rate, unit, ..] = words[..] else {
            panic!("not count, seconds, rate: {line}");
        };
        assert!(unit.starts_with("requests/s"), "{line}");
        let number = |text: &str| text.replace(',', "").parse::<f64>().unwrap();
        (number(count) as u64, number(seconds), number(rate))
    }
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stevedore"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn stevedore(arguments: &[&str]) -> Ran {
    command(arguments).output().unwrap().into()
}

pub(crate) fn spawn(arguments: &[&str]) -> Child {
    command(arguments).spawn().unwrap()
}

/// The report for machines of a run that must be fine.
#[track_caller]
pub(crate) fn json(arguments: &[&str]) -> Value {
    let ran = stevedore(&[arguments, &["--json"]].concat()).ends_with(0);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:#?}"))
}

#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder of this test's own, empty.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stevedore-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
