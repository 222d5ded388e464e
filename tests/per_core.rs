//! One runtime a core, over real sockets: whose thread answers, how all of them stop together, and what goes wrong.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::{Service, ServiceBuilder, service_fn};
use wharf::{
    Address, Body, BoxError, Conn, ConnReport, Error, Http, Listener, Report, Server, Shutdown,
    Stream,
};

/// What a test waits for at most; nothing should come near it.
const SOON: Duration = Duration::from_secs(10);

/// Answers with the name of its thread and how many requests that thread has had; `/slow` takes a while.
fn stack() -> impl Service<Conn<Stream>, Response = ConnReport, Error = Error, Future: 'static> {
    let calls = Rc::new(Cell::new(0));
    ServiceBuilder::new()
        .layer(Http::new().local())
        .service(service_fn(move |request: Request<Body>| {
            calls.set(calls.get() + 1);
            let calls = calls.clone();
            async move {
                if request.uri().path() == "/slow" {
                    let slow = tokio::task::spawn_local(sleep(Duration::from_millis(300)));
                    slow.await?;
                }
                let thread = std::thread::current();
                let answer = format!("{} {}", thread.name().unwrap_or_default(), calls.get());
                Ok::<_, BoxError>(Response::new(Body::from(answer)))
            }
        }))
}

/// A server with two workers, and what stops it.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<Report, Error>>,
}

impl Running {
    fn start(listener: Listener, set: impl FnOnce(Server) -> Server) -> Self {
        let Address::Socket(address) = *listener.local() else {
            panic!("not TCP")
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = Shutdown::when(async { stopped.await.unwrap_or_default() });
        let server = Server::new().listen(listener).unwrap();
        let server = set(server.workers(2).shutdown(shutdown));
        let server = tokio::spawn(server.serve_per_core(stack));
        Self {
            address,
            stop,
            server,
        }
    }

    fn new() -> Self {
        Self::start(Listener::tcp("127.0.0.1:0").unwrap(), |server| server)
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stopped(self) -> Report {
        self.stop.send(()).unwrap();
        timeout(SOON, self.server)
            .await
            .expect("it ends")
            .unwrap()
            .unwrap()
    }
}

/// One exchange; the text of the answer.
async fn ask(client: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let asked = async {
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0, "closed");
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if length.is_some_and(|length| length == body.len().to_string()) {
                return body.to_owned();
            }
        }
    };
    timeout(SOON, asked).await.expect("an answer")
}

fn thread(answer: &str) -> String {
    answer.split(' ').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn services_that_are_not_send_are_served_by_every_thread() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let tell = ids.clone();
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let running = Running::start(listener, |server| {
        server.on_close(move |conn| tell.lock().unwrap().push(conn.info.id))
    });
    // The kernel spreads them by a hash of the addresses: that all of 64 meet one thread doesn't happen.
    let mut clients = Vec::new();
    let mut threads = BTreeSet::new();
    for _ in 0..64 {
        let mut client = running.client().await;
        let first = thread(&ask(&mut client, "/").await);
        let second = thread(&ask(&mut client, "/").await);
        assert_eq!(first, second, "a connection stays on its thread");
        threads.insert(first);
        clients.push(client);
    }
    assert_eq!(
        threads.into_iter().collect::<Vec<_>>(),
        ["wharf-0", "wharf-1"]
    );
    drop(clients);
    let report = running.stopped().await;
    assert_eq!((report.connections, report.requests), (64, 128), "{report}");
    let mut ids = ids.lock().unwrap().clone();
    ids.sort_unstable();
    assert_eq!(
        ids,
        (1..=64).collect::<Vec<_>>(),
        "each has an id of its own"
    );
}

#[tokio::test]
async fn a_stop_drains_every_thread_and_reports_for_all() {
    let running = Running::new();
    let address = running.address;
    let mut idle = Vec::new();
    for _ in 0..32 {
        let mut client = running.client().await;
        ask(&mut client, "/").await;
        idle.push(client);
    }
    let mut busy = Vec::new();
    for _ in 0..32 {
        let mut client = running.client().await;
        client
            .write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        busy.push(client);
    }
    // Blocking, so that the server's life, on this thread, can't go on meanwhile: some of them are still queued.
    let mut queued: Vec<_> = (0..32)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    for client in &mut queued {
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
    }
    let report = running.stopped().await;
    assert_eq!((report.connections, report.requests), (96, 96), "{report}");
    assert!(report.cut.is_empty(), "{report}");
    for mut client in busy {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    for mut client in queued {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    for mut client in idle {
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_cannot_have_several_queues_is_shared() {
    let path = std::env::temp_dir().join(format!("wharf-per-core-{}.sock", std::process::id()));
    let unix = Listener::unix(&path).unwrap().named("local");
    let given = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = given.local_addr().unwrap();
    let running = Running::start(Listener::tcp("127.0.0.1:0").unwrap(), |server| {
        server.listen(unix).unwrap().listen(given).unwrap()
    });
    for _ in 0..16 {
        let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
        assert!(ask(&mut client, "/").await.starts_with("wharf-"));
        let mut client = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut client, "/").await.starts_with("wharf-"));
    }
    assert_eq!(running.stopped().await.connections, 32);
    assert!(!path.exists(), "the last thread removes the file");
}

#[tokio::test]
async fn all_threads_together_keep_the_greatest_number_of_connections() {
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let mut handle = None;
    let running = Running::start(listener, |server| {
        let server = server.max_connections(10);
        handle = Some(server.handle());
        server
    });
    let handle = handle.unwrap();
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = running.client().await;
        let request = b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        clients.push(client);
    }
    let mut most = 0;
    let all_ended = async {
        // Who hasn't said anything when the house is nearly full may have to make room, unanswered.
        while handle.report().closed.values().sum::<u64>() < 40 {
            most = most.max(handle.open());
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, all_ended).await.expect("each gets its turn");
    assert!((10..=11).contains(&most), "{most} open");
    assert_eq!(running.stopped().await.connections, 40);
}

#[tokio::test]
async fn a_stack_that_panics_when_it_is_built_is_an_error_with_a_sentence() {
    let built = Arc::new(AtomicUsize::new(0));
    let count = built.clone();
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let Address::Socket(address) = *listener.local() else {
        panic!("not TCP")
    };
    let server = Server::new().listen(listener).unwrap().workers(2);
    let serving = server.serve_per_core(move || {
        assert!(count.fetch_add(1, SeqCst) == 0, "no second one");
        stack()
    });
    let error = timeout(SOON, serving)
        .await
        .expect("at once")
        .unwrap_err()
        .to_string();
    let (worker, why) = error.split_at("worker 0".len());
    assert!(["worker 0", "worker 1"].contains(&worker), "{error}");
    assert_eq!(why, " can't be built: its stack panicked: no second one");
    assert_eq!(built.load(SeqCst), 2);
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

/// Fails for good when it is asked for the second time.
struct Failing(u32);

impl Service<Conn<Stream>> for Failing {
    type Response = ConnReport;
    type Error = BoxError;
    type Future = std::future::Pending<Result<ConnReport, BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0 += 1;
        if self.0 > 1 {
            return Poll::Ready(Err("no more".into()));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Conn<Stream>) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test]
async fn a_stack_that_fails_for_good_stops_every_thread() {
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let Address::Socket(address) = *listener.local() else {
        panic!("not TCP")
    };
    let shutdown = Shutdown::never().drain(Duration::from_millis(100));
    let server = Server::new()
        .listen(listener)
        .unwrap()
        .workers(2)
        .shutdown(shutdown);
    let server = tokio::spawn(server.serve_per_core(|| Failing(0)));
    let client = TcpStream::connect(address).await.unwrap();
    let error = timeout(SOON, server)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("no more"), "{error}");
    drop(client);
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_its_threads() {
    let running = Running::new();
    let mut client = running.client().await;
    ask(&mut client, "/").await;
    running.server.abort();
    let mut byte = [0];
    let end = timeout(SOON, client.read(&mut byte))
        .await
        .expect("it ends");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    // Both threads have to be gone for the address to be free.
    timeout(SOON, async {
        while TcpStream::connect(running.address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("nobody listens any more");
}

#[tokio::test]
async fn the_number_of_threads_has_bounds() {
    for (workers, is_fine) in [(0, false), (1, true), (1024, true), (1025, false)] {
        let server = Server::new().bind("127.0.0.1:0").unwrap().workers(workers);
        let server = server.shutdown(Shutdown::when(std::future::ready(())));
        if is_fine && workers > 1 {
            continue; // A thousand threads are too many for a test.
        }
        let outcome = timeout(SOON, server.serve_per_core(stack))
            .await
            .expect("it ends");
        match outcome {
            Ok(report) => assert!(is_fine, "{report}"),
            Err(error) => {
                assert_eq!(
                    error.to_string(),
                    format!("workers must be 1 to 1024, not {workers}")
                );
            }
        }
    }
}

#[tokio::test]
async fn a_stack_for_all_threads_works_on_one() {
    // `Http` without `local`, cloned into each thread: what axum users have.
    let app = service_fn(|_: Request<Body>| async {
        Ok::<_, BoxError>(Response::new(Body::from("hello")))
    });
    let stack = ServiceBuilder::new().layer(Http::new()).service(app);
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let Address::Socket(address) = *listener.local() else {
        panic!("not TCP")
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = Shutdown::when(async { drop(stopped.await) });
    let server = Server::new()
        .listen(listener)
        .unwrap()
        .workers(2)
        .shutdown(shutdown);
    let server = tokio::spawn(server.serve_per_core(move || stack.clone()));
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut client, "/").await, "hello");
    drop(stop);
    let report = timeout(SOON, server)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    assert_eq!(report.requests, 1);
}
