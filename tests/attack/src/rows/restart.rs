//! Restarts: M14 two instances behind HAProxy, one after the other; T36 connections in the queue of a socket that is
//! handed over.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Found;
use crate::Failure;
use crate::child::{Child, Kind, SOON, Start, in_turn};
use crate::client::{Client, ask_once, crowd, each, get};
use crate::run::Plan;
use crate::verdict::Verdict;

/// A socket that listens with a long queue, as a supervisor's does.
fn listen() -> Result<TcpListener, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// M14: each instance is stopped and started again in its turn, while 16 clients ask through HAProxy.
pub(super) async fn rolling(plan: Plan) -> Found {
    let restarts = plan.of(20, 4);
    let inherited = in_turn(async |kind| roll(kind, restarts, true).await).await?;
    let bound = in_turn(async |kind| roll(kind, restarts, false).await).await?;
    let verdict = |how: &str, (wharf, axum): (usize, usize), most| {
        let what = format!("failures in {restarts} restarts behind HAProxy, {how}");
        plan.scaled(
            Verdict::new("M14", what, "", wharf)
                .axum(axum)
                .at_most(most),
            20,
            restarts,
        )
    };
    Ok(vec![
        verdict("sockets inherited", inherited, 0.0),
        verdict("bound again", bound, 1.0),
    ])
}

async fn roll(kind: Kind, restarts: usize, inherit: bool) -> Result<usize, Failure> {
    let sockets = [listen()?, listen()?];
    let addresses = [sockets[0].local_addr()?, sockets[1].local_addr()?];
    // Ports that are known, and nobody listens on.
    let sockets = sockets.map(|socket| inherit.then_some(socket));
    let begin = |at: usize| match &sockets[at] {
        Some(socket) => Start::of(kind).inheriting(socket).start(),
        None => Start::of(kind).with("port", addresses[at].port()).start(),
    };
    let mut servers = [begin(0)?, begin(1)?];
    let proxy = Proxy::before(addresses).await?;

    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        clients.spawn(ask_on(proxy.address, seen.clone()));
    }
    for turn in 0..restarts {
        sleep(Duration::from_millis(300)).await;
        let server = &mut servers[turn % 2];
        server.signal(Signal::TERM)?;
        server.end().await?;
        *server = begin(turn % 2)?;
    }
    sleep(Duration::from_millis(300)).await;
    seen.over.store(true, Relaxed);
    clients.join_all().await;
    if seen.answered.load(Relaxed) < restarts * 100 {
        return Err("the clients weren't busy".into());
    }
    Ok(seen.failed.load(Relaxed))
}

#[derive(Default)]
struct Seen {
    over: AtomicBool,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

async fn ask_on(address: SocketAddr, seen: Arc<Seen>) {
    let mut client = None;
    while !seen.over.load(Relaxed) {
        let mut open = match client.take() {
            Some(open) => open,
            None => match Client::connect(address).await {
                Ok(open) => open,
                Err(_) => {
                    seen.failed.fetch_add(1, Relaxed);
                    continue;
                }
            },
        };
        match open.ask(&get("/")).await {
            Ok(answer) if answer.status == 200 => {
                seen.answered.fetch_add(1, Relaxed);
                client = (!answer.closes).then_some(open);
            }
            _ => {
                seen.failed.fetch_add(1, Relaxed);
            }
        }
    }
}

/// HAProxy with the defaults of Debian's package: no `retry-on`, no checks.
struct Proxy {
    process: std::process::Child,
    configuration: PathBuf,
    address: SocketAddr,
}

impl Proxy {
    async fn before([first, second]: [SocketAddr; 2]) -> Result<Self, Failure> {
        let socket = listen()?;
        let address = socket.local_addr()?;
        let configuration = std::env::temp_dir().join(format!(
            "wharf-attack-{}-{}.cfg",
            std::process::id(),
            address.port()
        ));
        let text = format!(
            "global\n  maxconn 1000\n\
             defaults\n  mode http\n  option httplog\n  option dontlognull\n  timeout connect 5000\n  timeout client 50000\n  timeout server 50000\n\
             frontend web\n  bind fd@3\n  default_backend app\n\
             backend app\n  server first {first}\n  server second {second}\n"
        );
        std::fs::write(&configuration, text)?;
        let path = std::env::var("PATH").unwrap_or_default();
        let process = Command::new("sh")
            .args(["-c", "exec 3<&0 0</dev/null; exec haproxy -q -db -f \"$0\""])
            .arg(&configuration)
            .env("PATH", format!("{path}:/usr/sbin"))
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut proxy = Self {
            process,
            configuration,
            address,
        };
        let begun = Instant::now();
        while ask_once(address, &get("/"))
            .await
            .map_or(0, |answer| answer.status)
            != 200
        {
            if let Some(status) = proxy.process.try_wait()? {
                return Err(format!("haproxy (a package of Debian's) ended with {status}").into());
            }
            if begun.elapsed() > SOON {
                return Err("haproxy doesn't answer".into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.configuration);
    }
}

/// T36: 4,000 connections with a request are queued while nobody serves, and while the server before is told to stop.
pub(super) async fn handover(plan: Plan) -> Found {
    let queued = plan.of(4_000, 1_000);
    let (wharf, axum) = in_turn(async |kind| {
        let socket = listen()?;
        let waiting = queue(&socket, queued).await?;
        let first = Start::of(kind).inheriting(&socket).start()?;
        let unserved = lost(waiting).await;

        // Stopped in the other sense first, so that the queue fills.
        first.signal(Signal::STOP)?;
        let waiting = queue(&socket, queued).await?;
        first.signal(Signal::TERM)?;
        first.signal(Signal::CONT)?;
        let (_, _second) = (
            ended(first).await?,
            Start::of(kind).inheriting(&socket).start()?,
        );
        Ok((unserved, lost(waiting).await))
    })
    .await?;
    let verdict = |what: &str, wharf: usize, axum: usize| {
        let verdict = Verdict::new(
            "T36",
            format!("of {queued} queued connections, lost {what}"),
            "",
            wharf,
        );
        plan.scaled(verdict.axum(axum).at_most(0.0), 4_000, queued)
    };
    Ok(vec![
        verdict("at a start", wharf.0, axum.0),
        verdict("at a restart", wharf.1, axum.1),
    ])
}

async fn ended(mut server: Child) -> Result<(), Failure> {
    let status = server.end().await?;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    Ok(())
}

async fn queue(socket: &TcpListener, count: usize) -> Result<Vec<Client>, Failure> {
    let address = socket.local_addr()?;
    let connect = async |number| {
        let mut client = Client::connect_from(number, address).await?;
        client.send(&get("/")).await?;
        Ok(client)
    };
    crowd(count, connect).await
}

async fn lost(clients: Vec<Client>) -> usize {
    let served = async |mut client: Client| {
        let answer = tokio::time::timeout(SOON, client.answer()).await;
        matches!(answer, Ok(Ok(answer)) if answer.status == 200)
    };
    let served = each(clients, served).await;
    served.into_iter().filter(|served| !served).count()
}
