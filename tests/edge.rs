//! The edge over real sockets: what is seen of a running server from outside, who makes room for whom, what a shutdown
//! tells and reports, and what a response's `Keep-Alive` does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::{ServiceBuilder, service_fn};
use wharf::{
    Address, Body, BoxError, CloseReason, Closing, ConnInfoLayer, ConnReport, Error, Handle, Http,
    Limits, Listener, Phase, Refused, Report, Server, Shutdown, State,
};

/// What a test waits for at most; nothing should come near it.
const SOON: Duration = Duration::from_secs(5);

struct Harness {
    address: SocketAddr,
    handle: Handle,
    closed: Arc<Mutex<Vec<ConnReport>>>,
    server: JoinHandle<Result<Report, Error>>,
}

impl Harness {
    fn new(http: Http, set: impl FnOnce(Server) -> Server) -> Self {
        let listener = Listener::tcp("127.0.0.1:0").unwrap();
        let Address::Socket(address) = *listener.local() else {
            panic!("not TCP")
        };
        let closed = Arc::new(Mutex::new(Vec::new()));
        let reports = closed.clone();
        let server = Server::new()
            .listen(listener)
            .unwrap()
            .shutdown(Shutdown::never())
            .on_close(move |report| reports.lock().unwrap().push(report.clone()));
        let server = set(server);
        let handle = server.handle();
        assert_eq!(handle.phase(), Phase::Starting);
        let stack = ServiceBuilder::new()
            .layer(http)
            .service(service_fn(answer));
        Self {
            address,
            handle,
            closed,
            server: tokio::spawn(server.serve(stack)),
        }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that has had one answer.
    async fn idle(&self) -> TcpStream {
        let mut client = self.client().await;
        assert!(ask(&mut client, "GET /idle").await.contains("200 OK"));
        client
    }

    /// The only connection in that state, once there is one.
    async fn one(&self, state: State) -> wharf::ConnView {
        let begun = Instant::now();
        loop {
            let mut all = self.handle.connections();
            all.retain(|conn| conn.state == state);
            if let Some(conn) = all.pop().filter(|_| all.is_empty()) {
                return conn;
            }
            assert!(begun.elapsed() < SOON, "{:?}", self.handle.connections());
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn closed(&self, count: usize) -> Vec<ConnReport> {
        let begun = Instant::now();
        loop {
            let closed = self.closed.lock().unwrap().clone();
            if closed.len() >= count {
                return closed;
            }
            assert!(begun.elapsed() < SOON, "{closed:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stopped(self) -> Report {
        timeout(SOON, self.server)
            .await
            .expect("it ends")
            .unwrap()
            .unwrap()
    }
}

/// `/slow` never answers, `/upgrade` echoes bytes until it is told to stop, `/keep` advertises how long it keeps.
async fn answer(mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    match request.uri().path() {
        "/slow" => std::future::pending().await,
        "/endless" => Ok(Response::new(Body::new(Endless {
            closing: Closing::find(&request),
        }))),
        "/keep" => Ok(Response::builder()
            .header("keep-alive", "timeout=0, max=7")
            .body("kept".into())?),
        "/upgrade" => {
            let offer = wharf::upgrade::on(&mut request).ok_or("no offer")?;
            offer.spawn(|mut socket, stop| async move {
                let mut byte = [0];
                loop {
                    tokio::select! {
                        read = socket.read(&mut byte) => {
                            if read.unwrap_or(0) == 0 || socket.write_all(&byte).await.is_err() {
                                return;
                            }
                        }
                        () = stop.draining() => {
                            let _ = socket.write_all(b"bye").await;
                            // The client has the last word.
                            let _ = socket.read(&mut byte).await;
                            return;
                        }
                    }
                }
            });
            let switch = Response::builder().status(101).header("upgrade", "echo");
            Ok(switch.body(Body::empty())?)
        }
        "/large" => Ok(Response::new(vec![b'x'; 16 << 20].into())),
        _ => Ok(Response::new("hello".into())),
    }
}

/// Nothing, for as long as its connection doesn't wait for the end.
struct Endless {
    closing: Option<Closing>,
}

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BoxError>>> {
        match &self.closing {
            Some(closing) if closing.is_asked() => Poll::Ready(None),
            _ => Poll::Pending,
        }
    }
}

async fn send(client: &mut TcpStream, line: &str) {
    let head = format!("{line} HTTP/1.1\r\nhost: a\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
}

async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut got = String::new();
    while !got.ends_with(end) {
        let byte = timeout(SOON, client.read_u8()).await.expect("an answer");
        got.push(byte.unwrap_or_else(|_| panic!("cut after {got:?}")).into());
    }
    got
}

/// One request and its answer, whose content is `hello`.
async fn ask(client: &mut TcpStream, line: &str) -> String {
    send(client, line).await;
    read_until(client, "hello").await
}

async fn rest(client: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let _ = timeout(SOON, client.read_to_end(&mut got))
        .await
        .expect("the end");
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test]
async fn a_handle_shows_what_is_open_and_doing_what() {
    let harness = Harness::new(Http::new(), |server| server.max_connections(40));
    let idle = harness.idle().await;
    let mut slow = harness.client().await;
    send(&mut slow, "GET /slow?secret=1").await;
    let mut partial = harness.client().await;
    partial.write_all(b"GET / HT").await.unwrap();

    let seen = harness.one(State::Handling).await;
    let request = seen.request.as_ref().unwrap();
    assert_eq!(
        (request.method().as_str(), request.path()),
        ("GET", "/slow")
    );
    assert_eq!(seen.info.peer, slow.local_addr().unwrap().into());
    assert_eq!((seen.requests, seen.bytes_in, seen.bytes_out), (1, 40, 0));
    assert!(!seen.is_http2);
    let wanted = format!("#2 from {}, open for ", slow.local_addr().unwrap());
    let shown = seen.to_string();
    assert!(
        shown.starts_with(&wanted) && shown.ends_with(": GET /slow"),
        "{shown}"
    );

    let seen = harness.one(State::ReadingHead).await;
    assert_eq!((seen.requests, seen.bytes_in, seen.request), (0, 8, None));
    let seen = harness.one(State::Idle).await;
    assert_eq!(seen.info.peer, idle.local_addr().unwrap().into());
    assert_eq!((seen.requests, seen.request), (1, None));

    let counts = [
        (State::Idle, 1),
        (State::ReadingHead, 1),
        (State::Handling, 1),
    ];
    assert_eq!(harness.handle.counts(), counts.into());
    assert_eq!(
        (harness.handle.open(), harness.handle.max_connections()),
        (3, 40)
    );
    assert_eq!(harness.handle.fullness(), 0.075);
    assert_eq!(harness.handle.phase(), Phase::Serving);
}

#[tokio::test]
async fn traffic_counts_what_is_open_and_what_has_ended_alike() {
    let harness = Harness::new(Http::new(), |server| server);
    let idle = harness.idle().await;
    let open = harness.handle.traffic();
    assert_eq!((open.connections, open.requests), (1, 1));
    assert!(open.bytes_in > 0 && open.bytes_out > 0, "{open:?}");
    drop(idle);
    harness.closed(1).await;
    assert_eq!(harness.handle.traffic(), open);
}

#[tokio::test]
async fn a_handle_closes_politely_and_aborts_at_once() {
    let harness = Harness::new(Http::new(), |server| server);
    let mut idle = harness.idle().await;
    let mut slow = harness.client().await;
    send(&mut slow, "GET /slow").await;
    let busy = harness.one(State::Handling).await.info.id;
    let quiet = harness.one(State::Idle).await.info.id;

    assert!(harness.handle.close(quiet));
    assert_eq!(rest(&mut idle).await, "");
    assert!(harness.handle.close(busy));
    harness.closed(1).await;
    assert_eq!(harness.one(State::Handling).await.info.id, busy);
    assert!(harness.handle.abort(busy));
    assert_eq!(rest(&mut slow).await, "");
    let closed = harness.closed(2).await;
    assert!(
        closed
            .iter()
            .all(|report| report.reason == CloseReason::Operator)
    );
    assert_eq!(closed[1].request.as_ref().unwrap().path(), "/slow");
    assert_eq!(closed[1].state, State::Handling);
    assert!(!harness.handle.close(busy) && !harness.handle.abort(4711));
    assert_eq!(harness.handle.closed(), [("by the operator", 2)].into());
}

#[tokio::test]
async fn above_nine_tenths_the_longest_idle_makes_room_and_the_busy_stay() {
    let harness = Harness::new(Http::new(), |server| server.max_connections(20));
    let mut busy = harness.client().await;
    send(&mut busy, "GET /slow").await;
    harness.one(State::Handling).await;
    let mut idle = Vec::new();
    for _ in 0..17 {
        idle.push(harness.idle().await);
        sleep(Duration::from_millis(3)).await;
    }
    // The first to come is made young again.
    let mut first = idle.remove(0);
    ask(&mut first, "GET /again").await;
    assert_eq!(harness.handle.open(), 18);
    // For a moment nobody counts as idle, since a request may be on its way; then there is room to be made.
    let mut new = vec![harness.idle().await];
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(harness.handle.open(), 19);
    assert!(harness.closed(0).await.is_empty());
    ask(&mut new[0], "GET /again").await;

    for makes_room in &mut idle[..3] {
        new.push(harness.idle().await);
        assert_eq!(rest(makes_room).await, "");
    }
    let closed = harness.closed(3).await;
    let evicted = closed
        .iter()
        .filter(|one| one.reason == CloseReason::Evicted);
    assert_eq!(evicted.count(), 3);
    ask(&mut first, "GET /again").await;
    ask(&mut idle[3], "GET /again").await;
}

#[tokio::test]
async fn a_full_house_of_busy_connections_lets_the_next_in_when_one_becomes_idle() {
    let harness = Harness::new(Http::new(), |server| server.max_connections(1));
    let mut only = harness.client().await;
    send(&mut only, "GET /slow").await;
    let busy = harness.one(State::Handling).await.info.id;
    let mut next = harness.client().await;
    send(&mut next, "GET /").await;
    assert!(
        timeout(Duration::from_millis(60), next.read_u8())
            .await
            .is_err()
    );
    harness.handle.abort(busy);
    assert!(read_until(&mut next, "hello").await.contains("200 OK"));
    // Now that one is idle, and the next has to be let in for it.
    let begun = Instant::now();
    ask(&mut harness.client().await, "GET /").await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(rest(&mut next).await, "");
}

#[tokio::test]
async fn silent_connections_make_room_for_who_speaks() {
    let harness = Harness::new(Http::new(), |server| server.max_connections(50));
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(harness.client().await);
    }
    harness.idle().await;
    assert!(harness.handle.open() <= 50);
}

#[tokio::test]
async fn a_shutdown_tells_upgraded_connections_and_waits_for_them() {
    let harness = Harness::new(Http::new(), |server| server);
    let mut socket = harness.client().await;
    let offer = "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    socket.write_all(offer.as_bytes()).await.unwrap();
    assert!(read_until(&mut socket, "\r\n\r\n").await.contains("101"));
    socket.write_all(b"!").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'!');
    harness.one(State::Upgraded).await;

    let handle = harness.handle.clone();
    handle.stop();
    assert_eq!(read_until(&mut socket, "bye").await, "bye");
    assert_eq!(handle.open(), 1);
    assert!(handle.phase() > Phase::Serving);
    drop(socket);
    let report = harness.stopped().await;
    assert_eq!(report.closed, [("upgraded", 1)].into());
    assert!(report.cut.is_empty());
    assert_eq!(handle.phase(), Phase::Stopped);
}

#[tokio::test]
async fn a_shutdown_reports_whom_it_cut_doing_what() {
    let harness = Harness::new(Http::new(), |server| {
        server.shutdown(Shutdown::never().drain(Duration::from_millis(200)))
    });
    let mut slow = harness.client().await;
    send(&mut slow, "POST /slow").await;
    let mut socket = harness.client().await;
    let offer = "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    socket.write_all(offer.as_bytes()).await.unwrap();
    harness.one(State::Handling).await;
    harness.one(State::Upgraded).await;
    harness.handle.stop();
    let peer = slow.local_addr().unwrap();
    let mut report = harness.stopped().await;
    report.cut.sort_by_key(|cut| cut.state);
    let [handling, upgraded] = &report.cut[..] else {
        panic!("{report:?}")
    };
    assert_eq!(handling.peer, peer.into());
    let shown = handling.to_string();
    assert!(shown.ends_with(", handling POST /slow"), "{shown}");
    assert_eq!(upgraded.state, State::Upgraded);
    assert_eq!(rest(&mut slow).await, "");
    assert!(rest(&mut socket).await.ends_with("bye"));
}

#[tokio::test]
async fn a_response_without_an_end_ends_whole_when_its_connection_waits_for_that() {
    let harness = Harness::new(Http::new(), |server| {
        server.shutdown(Shutdown::never().drain(10 * SOON))
    });
    let mut closed = harness.client().await;
    send(&mut closed, "GET /endless").await;
    read_until(&mut closed, "\r\n\r\n").await;
    assert!(
        harness
            .handle
            .close(harness.one(State::Sending).await.info.id)
    );
    assert_eq!(rest(&mut closed).await, "0\r\n\r\n");

    let mut drained = harness.client().await;
    send(&mut drained, "GET /endless").await;
    read_until(&mut drained, "\r\n\r\n").await;
    harness.handle.stop();
    assert_eq!(rest(&mut drained).await, "0\r\n\r\n");
    drop((closed, drained));
    let report = harness.stopped().await;
    assert!(!report.closed.contains_key("cut"), "{report}");
}

#[tokio::test]
async fn code_that_cannot_see_the_body_finds_that_in_the_extensions() {
    let inner = service_fn(|request: Request<()>| async move {
        let closing = Closing::find(&request).expect("the layer's");
        assert!(!closing.is_asked());
        Ok::<_, BoxError>(Response::new(Body::empty()))
    });
    let inner = ServiceBuilder::new()
        .layer(ConnInfoLayer)
        .map_request(|request: Request<Body>| request.map(drop))
        .service(inner);
    let (mut client, server) = tokio::io::duplex(1024);
    tokio::spawn(wharf::serve_connection(server, inner));
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[tokio::test]
async fn a_client_that_is_told_and_keeps_its_socket_open_holds_a_stop_for_a_second_at_most() {
    let harness = Harness::new(Http::new(), |server| server);
    let mut stubborn = harness.idle().await;
    harness.handle.stop();
    while harness.handle.phase() < Phase::LameDuck {
        sleep(Duration::from_millis(1)).await;
    }
    let last = ask(&mut stubborn, "GET /").await;
    assert!(last.contains("connection: close"), "{last}");
    let begun = Instant::now();
    harness.stopped().await;
    assert!(
        begun.elapsed() < Duration::from_millis(1200),
        "{:?}",
        begun.elapsed()
    );
}

/// Or its progress would be seen too seldom to tell a slow reader from one that stands still.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_holds_little_of_what_a_slow_reader_has_yet_to_take() {
    let harness = Harness::new(Http::new(), |server| server);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(harness.address).await.unwrap();
    send(&mut slow, "GET /large").await;
    let held = harness.one(State::Sending).await.bytes_out;
    assert!(held > 0 && held < 256 << 10, "{held}");
    let mut taken = vec![0; 64 << 10];
    slow.read_exact(&mut taken).await.unwrap();
    let begun = Instant::now();
    while harness.handle.connections()[0].bytes_out == held {
        assert!(begun.elapsed() < SOON, "64 KiB of progress aren't seen");
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn refused_requests_are_told_with_what_had_come() {
    type Seen = (u16, u64, String, String);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let log = seen.clone();
    let http = Http::new().on_refused(move |refused: &Refused<'_>| {
        assert!(refused.info().peer.socket().is_some());
        log.lock().unwrap().push((
            refused.status().as_u16(),
            refused.request_number(),
            refused.reject().explain().to_owned(),
            String::from_utf8_lossy(refused.first_bytes()).into_owned(),
        ));
    });
    let harness = Harness::new(http, |server| server);
    let mut client = harness.idle().await;
    send(&mut client, "GET no-slash").await;
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 400"));
    let mut long = harness.client().await;
    send(&mut long, &format!("GET /{}", "a".repeat(9000))).await;
    assert!(rest(&mut long).await.starts_with("HTTP/1.1 414"));
    let seen = seen.lock().unwrap().clone();
    let [bad, long] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!((bad.0, bad.1), (400, 2));
    assert!(bad.3.starts_with("GET no-slash HTTP/1.1\r\n"), "{bad:?}");
    assert_eq!((long.0, long.1, long.3.len()), (414, 1, 1024));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_for_as_long_as_its_response_advertised_and_a_second() {
    let (mut client, server) = tokio::io::duplex(1024);
    let connection = Http::new()
        .limits(Limits::default())
        .connection(server.into(), service_fn(answer))
        .unwrap();
    let connection = tokio::spawn(connection);
    let head = b"GET /keep HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(head).await.unwrap();
    let begun = Instant::now();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert!(
        got.contains("\r\nconnection: keep-alive\r\nkeep-alive: timeout=0, max=7\r\n"),
        "{got}"
    );
    let after = Duration::from_secs(1);
    assert_eq!(
        connection.await.unwrap().reason,
        CloseReason::Idle { after }
    );
    assert!(begun.elapsed() >= after && begun.elapsed() < after * 2);
}

/// What a client sends that is refused, with which limits, and the status.
const REFUSED: [(&str, &str); 8] = [
    ("400", "GET / HTTP/1.1\r\n\r\n"),
    ("408", "GET / HTTP/1.1\r\nhost"),
    (
        "413",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n",
    ),
    (
        "414",
        "GET /0123456789012345678901234567890123456789 HTTP/1.1\r\n\r\n",
    ),
    (
        "431",
        "GET / HTTP/1.1\r\nhost: a\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n",
    ),
    (
        "501",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    ),
    ("503", "GET /never-ready HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("505", "GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
];

/// Never ready for anything.
#[derive(Clone)]
struct NeverReady;

impl tower::Service<Request<Body>> for NeverReady {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = std::future::Pending<Result<Response<Body>, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Pending
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test(start_paused = true)]
async fn each_refusal_before_the_handler_is_said_in_ones_own_words_and_told_to_the_log() {
    for (status, bytes) in REFUSED {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        let http = Http::new()
            .limits(Limits {
                body_bytes: 100,
                request_line_bytes: 40,
                header_fields: 3,
                ..Limits::default()
            })
            .on_reject(|reject| {
                let body = format!(r#"{{"error":"{}"}}"#, reject.explain());
                let response = Response::builder().status(reject.status());
                let json = response.header("content-type", "application/json");
                json.body(body).unwrap()
            })
            .on_refused(move |refused| log.lock().unwrap().push(refused.status().to_string()));
        let mut client = wharf::test::connect(http, NeverReady);
        client.send(bytes).await;
        let response = client.response().await;
        assert_eq!(response.status().as_str(), status);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["connection"], "close");
        assert!(
            response.body().starts_with(br#"{"error":""#),
            "{response:?}"
        );
        let told = told.lock().unwrap().clone();
        assert!(told.len() == 1 && told[0].starts_with(status), "{told:?}");
        let reason = client.closed().await.reason;
        assert!(!reason.explain().is_empty());
    }
}
