//! Over real loopback sockets, with a connection service that speaks one byte at a time: each byte is a request.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf,
};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::limit::ConcurrencyLimit;
use tower::service_fn;

use super::*;
use crate::conn::{Address, Live};
use crate::error::ErrorKind;
use crate::serve::Serve;

/// What a test waits for at most; nothing should come near it.
const SOON: Duration = Duration::from_secs(5);

/// Answers each byte with itself, or with `.` and its end if it was told that this is the last call.
async fn talk<Io>(conn: Conn<Io>) -> Result<ConnReport, BoxError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let (mut io, live) = conn.seal();
    let ended = |reason| Ok(live.report(reason, Bytes::new()));
    loop {
        let mut byte = [0];
        let mut into = ReadBuf::new(&mut byte);
        let read = poll_fn(|cx| {
            if live.watch(cx).0 >= Told::Drain {
                return Poll::Ready(None);
            }
            Pin::new(&mut io).poll_read(cx, &mut into).map(Some)
        });
        match read.await {
            None if live.told() == Told::Cut => return ended(CloseReason::Cut),
            None => return ended(CloseReason::Shutdown),
            Some(Err(error)) => return ended(CloseReason::Io(error.kind())),
            Some(Ok(())) if into.filled().is_empty() => return ended(CloseReason::ClientClosed),
            Some(Ok(())) => live.count_request(),
        }
        match byte[0] {
            b'!' => panic!("as asked"),
            b'e' => return Err("as asked".into()),
            b'h' => std::future::pending().await,
            b's' => sleep(Duration::from_millis(300)).await,
            _ => {}
        }
        if live.told() >= Told::LastCall {
            let _ = io.write_all(b".").await;
            return ended(CloseReason::Shutdown);
        }
        if let Err(error) = io.write_all(&byte).await {
            return ended(CloseReason::Io(error.kind()));
        }
    }
}

/// A server under test, on one address.
struct Harness {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    cut: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<Report, Error>>,
}

impl Harness {
    fn with<S>(stack: S, set: impl FnOnce(Server, Shutdown) -> Server) -> Self
    where
        S: Service<Conn<Stream>, Response = ConnReport> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let listener = Listener::tcp("127.0.0.1:0").unwrap();
        let Address::Socket(address) = *listener.local() else {
            panic!("not TCP")
        };
        let (stop, stopped) = oneshot::channel();
        let (cut, is_cut) = oneshot::channel();
        let shutdown = Shutdown::when(async { stopped.await.unwrap_or_default() })
            .cut_when(async { is_cut.await.unwrap_or_default() });
        let server = set(Server::new().listen(listener).unwrap(), shutdown);
        Self {
            address,
            stop: Some(stop),
            cut: Some(cut),
            server: tokio::spawn(server.serve(stack)),
        }
    }

    fn new() -> Self {
        Self::with(service_fn(talk), |server, shutdown| {
            server.shutdown(shutdown)
        })
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    fn cut(&mut self) {
        self.cut.take().unwrap().send(()).unwrap();
    }

    async fn ended(self) -> Result<Report, Error> {
        timeout(SOON, self.server).await.expect("it ends").unwrap()
    }
}

async fn ask(client: &mut (impl AsyncRead + AsyncWrite + Unpin), byte: u8) -> Option<u8> {
    let asked = async {
        client.write_u8(byte).await.ok()?;
        client.read_u8().await.ok()
    };
    timeout(SOON, asked).await.expect("an answer or an end")
}

async fn is_left_waiting(client: &mut TcpStream) -> bool {
    timeout(Duration::from_millis(100), client.read_u8())
        .await
        .is_err()
}

#[tokio::test]
async fn connections_are_counted_from_one_and_accounted_for() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let tell = seen.clone();
    let mut harness = Harness::with(service_fn(talk), |server, shutdown| {
        let tell = move |conn: &ConnReport| {
            tell.lock()
                .unwrap()
                .push((conn.info.id, conn.requests, conn.reason.clone()));
        };
        server.shutdown(shutdown).on_close(tell)
    });
    for id in 1..=3 {
        let mut client = harness.client().await;
        assert_eq!(ask(&mut client, b'a').await, Some(b'a'));
        assert_eq!(ask(&mut client, b'b').await, Some(b'b'));
        drop(client);
        while seen.lock().unwrap().len() < id {
            sleep(Duration::from_millis(1)).await;
        }
    }
    harness.stop();
    let report = harness.ended().await.unwrap();
    assert_eq!(
        report.to_string(),
        "6 requests on 3 connections; closed: 3 by the client"
    );
    let wanted = [1, 2, 3].map(|id| (id, 2, CloseReason::ClientClosed));
    assert_eq!(*seen.lock().unwrap(), wanted);
}

#[tokio::test]
async fn what_the_stack_limits_waits_unaccepted() {
    let mut harness = Harness::with(
        ConcurrencyLimit::new(service_fn(talk), 2),
        |server, shutdown| server.shutdown(shutdown),
    );
    let mut first = harness.client().await;
    let mut second = harness.client().await;
    assert_eq!(ask(&mut first, b'1').await, Some(b'1'));
    assert_eq!(ask(&mut second, b'2').await, Some(b'2'));
    let mut third = harness.client().await;
    third.write_u8(b'3').await.unwrap();
    assert!(is_left_waiting(&mut third).await);
    drop(first);
    assert_eq!(timeout(SOON, third.read_u8()).await.unwrap().unwrap(), b'3');
    harness.stop();
    assert_eq!(harness.ended().await.unwrap().connections, 3);
}

#[tokio::test]
async fn the_greatest_number_of_connections_is_kept_by_not_accepting() {
    let mut harness = Harness::with(service_fn(talk), |server, shutdown| {
        server.shutdown(shutdown).max_connections(1)
    });
    let mut first = harness.client().await;
    assert_eq!(ask(&mut first, b'1').await, Some(b'1'));
    let mut second = harness.client().await;
    second.write_u8(b'2').await.unwrap();
    assert!(is_left_waiting(&mut second).await);
    drop(first);
    assert_eq!(
        timeout(SOON, second.read_u8()).await.unwrap().unwrap(),
        b'2'
    );
    harness.stop();
    harness.ended().await.unwrap();
}

#[tokio::test]
async fn several_listeners_are_served_under_their_names() {
    let path = std::env::temp_dir().join(format!("wharf-server-{}.sock", std::process::id()));
    let names = Arc::new(Mutex::new(Vec::new()));
    let tell = names.clone();
    let admin = Listener::tcp("127.0.0.1:0").unwrap().named("admin");
    let unix = Listener::unix(&path).unwrap().named("local");
    let Address::Socket(address) = *admin.local() else {
        panic!("not TCP")
    };
    let mut harness = Harness::with(service_fn(talk), |server, shutdown| {
        server
            .shutdown(shutdown)
            .listen([admin, unix])
            .unwrap()
            .on_close(move |conn| {
                tell.lock().unwrap().push(conn.info.listener.to_string());
            })
    });
    let mut clients = (
        harness.client().await,
        TcpStream::connect(address).await.unwrap(),
        tokio::net::UnixStream::connect(&path).await.unwrap(),
    );
    assert_eq!(ask(&mut clients.0, b'a').await, Some(b'a'));
    assert_eq!(ask(&mut clients.1, b'b').await, Some(b'b'));
    assert_eq!(ask(&mut clients.2, b'c').await, Some(b'c'));
    drop(clients);
    harness.stop();
    harness.ended().await.unwrap();
    let mut names = names.lock().unwrap().clone();
    names.sort();
    assert_eq!(names, ["", "admin", "local"]);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stop_loses_nobody_and_waits_for_the_idle_no_longer_than_a_second() {
    let mut harness = Harness::new();
    let mut idle = harness.client().await;
    let mut busy = harness.client().await;
    let mut late = harness.client().await;
    for client in [&mut idle, &mut busy, &mut late] {
        assert_eq!(ask(client, b'a').await, Some(b'a'));
    }
    busy.write_u8(b's').await.unwrap();
    sleep(Duration::from_millis(50)).await;
    // Blocking, on this one thread: the server can't have accepted them before it is told to stop.
    let queued: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(harness.address).unwrap())
        .collect();
    let begun = Instant::now();
    harness.stop();
    for client in queued {
        client.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from_std(client).unwrap();
        assert_eq!(ask(&mut client, b'q').await, Some(b'.'));
    }
    assert_eq!(timeout(SOON, busy.read_u8()).await.unwrap().unwrap(), b'.');
    assert_eq!(ask(&mut late, b'b').await, Some(b'.'));
    assert!(TcpStream::connect(harness.address).await.is_err());
    assert!(idle.read_u8().await.is_err());
    let took = begun.elapsed();
    let report = harness.ended().await.unwrap();
    assert!(took >= GRACE && took < GRACE * 2, "{took:?}");
    assert_eq!((report.connections, report.requests), (103, 105));
    assert_eq!(report.closed, [("for the shutdown", 103)].into());
    assert!(report.cut.is_empty());
}

#[tokio::test]
async fn a_stop_with_nothing_open_is_over_at_once() {
    let mut harness = Harness::new();
    let begun = Instant::now();
    sleep(Duration::from_millis(10)).await;
    harness.stop();
    harness.ended().await.unwrap();
    assert!(begun.elapsed() < GRACE);
}

#[tokio::test]
async fn a_lame_duck_still_accepts_and_says_that_it_goes() {
    let mut harness = Harness::with(service_fn(talk), |server, shutdown| {
        server.shutdown(shutdown.lame_duck(Duration::from_millis(400)))
    });
    let mut kept = harness.client().await;
    assert_eq!(ask(&mut kept, b'a').await, Some(b'a'));
    harness.stop();
    sleep(Duration::from_millis(100)).await;
    let mut new = harness.client().await;
    assert_eq!(ask(&mut new, b'a').await, Some(b'.'));
    assert_eq!(ask(&mut kept, b'a').await, Some(b'.'));
    sleep(Duration::from_millis(400)).await;
    assert!(TcpStream::connect(harness.address).await.is_err());
    harness.ended().await.unwrap();
}

#[tokio::test]
async fn the_second_event_cuts_even_who_does_not_listen() {
    let mut harness = Harness::new();
    let mut deaf = harness.client().await;
    deaf.write_u8(b'h').await.unwrap();
    sleep(Duration::from_millis(50)).await;
    harness.stop();
    sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    harness.cut();
    assert!(deaf.read_u8().await.is_err());
    let report = harness.ended().await.unwrap();
    assert!(begun.elapsed() < GRACE, "{:?}", begun.elapsed());
    assert_eq!(report.cut.len(), 1);
    assert_eq!(report.cut[0].requests, 1);
    assert_eq!(report.cut[0].peer, deaf.local_addr().unwrap().into());
    assert_eq!(
        report.to_string(),
        "1 request on 1 connection; closed: 1 cut"
    );
}

#[tokio::test]
async fn the_deadline_cuts_and_progress_is_told_until_then() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let mut harness = Harness::with(service_fn(talk), |server, shutdown| {
        let tell = move |progress: &Progress| tell.lock().unwrap().push(progress.clone());
        server.shutdown(
            shutdown
                .drain(Duration::from_millis(300))
                .progress(Duration::from_millis(100), tell),
        )
    });
    let mut deaf = harness.client().await;
    deaf.write_u8(b'h').await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    harness.stop();
    let report = harness.ended().await.unwrap();
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < GRACE,
        "{took:?}"
    );
    assert_eq!(report.cut.len(), 1);
    let told = told.lock().unwrap();
    assert!(told.len() >= 2, "{told:?}");
    assert_eq!(
        (told[0].open, told[0].oldest.as_ref().unwrap().requests),
        (1, 1)
    );
}

#[tokio::test]
async fn an_error_or_a_panic_ends_one_connection_only() {
    let mut harness = Harness::with(
        service_fn(|conn: Conn<Stream>| {
            assert_ne!(conn.info().id, 3, "as asked");
            talk(conn)
        }),
        |server, shutdown| {
            server
                .shutdown(shutdown)
                .on_close(|_| panic!("in the callback too"))
        },
    );
    let mut good = harness.client().await;
    assert_eq!(ask(&mut good, b'a').await, Some(b'a'));
    for byte in [b'e', b'x', b'!'] {
        let mut bad = harness.client().await;
        assert_eq!(ask(&mut bad, byte).await, None);
    }
    assert_eq!(ask(&mut good, b'a').await, Some(b'a'));
    drop(good);
    harness.stop();
    let report = harness.ended().await.unwrap();
    assert_eq!(
        report.closed,
        [("before HTTP", 1), ("by a panic", 2), ("by the client", 1)].into()
    );
    assert_eq!(report.requests, 4);
}

/// Ready for so many calls, and then failed for good.
struct Worn(u32);

impl Service<Conn<Stream>> for Worn {
    type Response = ConnReport;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<ConnReport, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self.0 {
            0 => Poll::Ready(Err("worn out".into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, conn: Conn<Stream>) -> Self::Future {
        self.0 -= 1;
        Box::pin(talk(conn))
    }
}

#[tokio::test]
async fn a_stack_that_fails_for_good_ends_the_server_after_a_drain() {
    let harness = Harness::with(Worn(2), |server, shutdown| server.shutdown(shutdown));
    let mut first = harness.client().await;
    assert_eq!(ask(&mut first, b'a').await, Some(b'a'));
    let mut second = harness.client().await;
    assert!(matches!(ask(&mut second, b's').await, Some(b'.')));
    assert_eq!(ask(&mut first, b'a').await, Some(b'.'));
    let error = harness.ended().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Service);
    assert_eq!(error.to_string(), "worn out");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let error = Server::new().serve(service_fn(talk)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let server = Server::new()
        .bind("127.0.0.1:0")
        .unwrap()
        .max_connections(0);
    let error = server.serve(service_fn(talk)).await.unwrap_err();
    assert_eq!(error.to_string(), "max_connections must be above zero");
}

#[tokio::test]
async fn the_easy_door_stops_when_it_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = Serve::over(listener, service_fn(talk))
        .with_graceful_shutdown(async { stopped.await.unwrap_or_default() });
    let server = tokio::spawn(serve.into_future());
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut client, b'a').await, Some(b'a'));
    drop(client);
    stop.send(()).unwrap();
    let report = timeout(SOON, server).await.unwrap().unwrap().unwrap();
    assert_eq!(report.requests, 1);
}

#[tokio::test]
async fn a_local_stack_needs_no_send() {
    let local = tokio::task::LocalSet::new();
    let served = async {
        let listener = Listener::tcp("127.0.0.1:0").unwrap();
        let Address::Socket(address) = *listener.local() else {
            panic!("not TCP")
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let count = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = count.clone();
        let stack = service_fn(move |conn: Conn<Stream>| {
            let counted = counted.clone();
            async move {
                counted.set(counted.get() + 1);
                talk(conn).await
            }
        });
        let server = Server::new()
            .listen(listener)
            .unwrap()
            .shutdown(Shutdown::when(async { stopped.await.unwrap_or_default() }));
        let server = tokio::task::spawn_local(server.serve_local(stack));
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut client, b'a').await, Some(b'a'));
        drop(client);
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        assert_eq!(count.get(), 1);
    };
    timeout(SOON, local.run_until(served)).await.unwrap();
}

const CHILD: &str = "WHARF_TEST_CHILD";

/// Not a test by itself: the process that `signals_drain_and_then_cut` sends its signals to.
#[tokio::test]
async fn child_that_serves_until_signalled() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    println!("\n{}", listener.local());
    let report = Serve::over(listener, service_fn(talk)).await.unwrap();
    println!("{report}");
}

#[tokio::test]
async fn signals_drain_and_then_cut() {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "server::tests::child_that_serves_until_signalled",
        ])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let address: SocketAddr = loop {
        let line = timeout(SOON, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if let Ok(address) = line.parse() {
            break address;
        }
    };
    let mut deaf = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut idle, b'a').await, Some(b'a'));
    deaf.write_u8(b'h').await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let id = child.id().unwrap().to_string();
    for signal in ["-TERM", "-INT"] {
        let kill = tokio::process::Command::new("kill")
            .args([signal, &id])
            .status();
        assert!(kill.await.unwrap().success());
        // The signal is on its way: until it has arrived, answers are as before.
        while signal == "-TERM" && ask(&mut idle, b'a').await.expect("an answer") != b'.' {}
    }
    assert!(
        timeout(SOON, child.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said += &line;
    }
    let wanted = " on 2 connections; closed: 1 cut, 1 for the shutdown";
    assert!(said.contains(wanted), "{said}");
}

/// A listener that fails as written down, and says when it was asked.
struct Script {
    steps: VecDeque<Option<i32>>,
    /// The other ends, kept so that nothing closes.
    peers: Vec<DuplexStream>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Accept for Script {
    type Io = DuplexStream;

    fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Accepted<DuplexStream>>> {
        self.asked.lock().unwrap().push(Instant::now());
        match self.steps.pop_front() {
            Some(Some(code)) => Poll::Ready(Err(io::Error::from_raw_os_error(code))),
            Some(None) => {
                let (io, peer) = tokio::io::duplex(16);
                self.peers.push(peer);
                Poll::Ready(Ok(Accepted {
                    io,
                    peer: Address::Unnamed,
                    local: Address::Unnamed,
                    listener: Arc::default(),
                    live: Arc::new(Live::new()),
                }))
            }
            None => Poll::Pending,
        }
    }

    fn accept_queued(&mut self) -> io::Result<Accepted<DuplexStream>> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

async fn run_script(script: Vec<Option<i32>>, time: Duration) -> (Report, Vec<Duration>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut shutdown = Shutdown::when(sleep(time));
    let trigger = shutdown.watch().unwrap();
    let open = Arc::<Open>::default();
    open.begin(1000, None);
    let mut run = Run {
        listeners: Some(Script {
            steps: script.into(),
            peers: Vec::new(),
            asked: asked.clone(),
        }),
        stack: service_fn(talk),
        spawn: |task| drop(tokio::spawn(task)),
        open: open.clone(),
        on_accept_error: None,
        pace: Pace::default(),
    };
    let life = Life {
        listening: Vec::new(),
        open,
        shutdown,
        trigger,
    };
    let steps = Steps::of_loops(1);
    let ((), report) = tokio::join!(run.work(&steps), life.run(&steps));
    let report = report.unwrap();
    let asked = asked.lock().unwrap();
    let pauses = asked.windows(2).map(|two| two[1] - two[0]).collect();
    (report, pauses)
}

#[tokio::test(start_paused = true)]
async fn want_of_descriptors_is_waited_out_and_never_for_long() {
    const EMFILE: i32 = 24;
    let mut steps = vec![Some(EMFILE); 7];
    steps.extend([None, Some(EMFILE), None]);
    let (report, pauses) = run_script(steps, Duration::from_secs(1)).await;
    let pauses: Vec<_> = pauses.iter().map(Duration::as_millis).collect();
    assert_eq!(pauses[..10], [5, 10, 20, 40, 80, 100, 100, 0, 5, 0]);
    assert_eq!((report.connections, report.accept_errors), (2, 8));
}

#[tokio::test(start_paused = true)]
async fn lost_connections_cost_no_time_and_an_endless_stream_of_them_no_server() {
    const ECONNABORTED: i32 = 103;
    let steps = vec![Some(ECONNABORTED), None, Some(ECONNABORTED), None];
    let (report, pauses) = run_script(steps, Duration::from_secs(1)).await;
    assert!(pauses[..4].iter().all(Duration::is_zero), "{pauses:?}");
    assert_eq!((report.connections, report.accept_errors), (2, 2));

    let steps = vec![Some(ECONNABORTED); 100_000];
    let (report, _) = run_script(steps, Duration::from_secs(1)).await;
    assert!(report.accept_errors < 100, "{report}");
}
