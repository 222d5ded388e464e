//! Leaving HTTP: WebSockets by wharf's own handshake and by axum's extractor, frame by frame and with a real client; tunnels
//! through `CONNECT`; and what a shutdown does to them. The frames' rules are RFC 6455's, and tungstenite's to keep.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ws::{Message as AxumMessage, WebSocketUpgrade};
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};
use tower::{ServiceBuilder, service_fn};
use wharf::{Address, Body, BoxError, Handle, Http, Listener, Report, Server, Shutdown};

/// What a test waits for at most; nothing should come near it.
const SOON: Duration = Duration::from_secs(10);

struct Running {
    address: SocketAddr,
    handle: Handle,
    server: JoinHandle<Result<Report, wharf::Error>>,
}

/// `/own` by wharf's handshake, `/axum` by axum's extractor, tunnels by `CONNECT`.
fn run(drain: Duration) -> Running {
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let Address::Socket(address) = *listener.local() else {
        panic!("not TCP")
    };
    let router = axum::Router::new()
        .route(
            "/axum",
            any(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo_axum) }),
        )
        .route("/hello", any(|| async { "hello" }));
    let stack = ServiceBuilder::new().layer(Http::new()).service(service_fn(
        move |request: Request<Body>| {
            let router = router.clone();
            async move {
                match (request.method(), request.uri().path()) {
                    (&Method::CONNECT, _) => tunnel(request).await,
                    (_, "/own") => echo(request).await,
                    _ => Ok(tower::ServiceExt::oneshot(router, request)
                        .await?
                        .map(Body::new)),
                }
            }
        },
    ));
    let server = Server::new().listen(listener).unwrap();
    let server = server.shutdown(Shutdown::never().drain(drain));
    let handle = server.handle();
    Running {
        address,
        handle,
        server: tokio::spawn(server.serve(stack)),
    }
}

impl Running {
    async fn report(self) -> Report {
        timeout(SOON, self.server)
            .await
            .expect("it ends")
            .unwrap()
            .unwrap()
    }
}

/// Sends back each message, and says goodbye when the server stops.
async fn echo(mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (response, upgrade) = wharf::upgrade::websocket(&mut request)?;
    upgrade.spawn(|socket, stop| async move {
        let mut socket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                () = stop.draining() => {
                    let away = CloseFrame { code: CloseCode::Away, reason: "the server stops".into() };
                    let _ = socket.close(Some(away)).await;
                    while let Some(Ok(_)) = socket.next().await {}
                    return;
                }
            };
            let Some(Ok(message)) = message else { return };
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}

async fn echo_axum(mut socket: axum::extract::ws::WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let is_data = matches!(message, AxumMessage::Text(_) | AxumMessage::Binary(_));
        if is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn tunnel(mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let target = request.uri().authority().ok_or("no authority")?.to_string();
    let mut there = TcpStream::connect(target).await?;
    let upgrade = wharf::upgrade::on(&mut request).ok_or("no promise")?;
    upgrade.spawn(|mut here, _| async move {
        let _ = copy_bidirectional(&mut here, &mut there).await;
    });
    Ok(Response::default())
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// The bit of a message's last frame.
const FIN: u8 = 0x80;

/// A client's frame, masked as it has to be.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len @ ..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | opcode, payload)
}

/// A server's frame, which is whole and not masked; `None` at the end of the stream.
async fn read_frame(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = socket.read_u8().await.ok()?;
    let len = match socket.read_u8().await.unwrap() {
        126 => socket.read_u16().await.unwrap().into(),
        127 => socket.read_u64().await.unwrap(),
        short => short.into(),
    };
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    socket.read_exact(&mut payload).await.unwrap();
    assert_eq!(first & 0xF0, FIN, "one frame, no extension");
    Some((first & 0x0F, payload))
}

/// Asks for a WebSocket; `early` follows in the same write.
async fn open(address: SocketAddr, path: &str, early: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket
        .write_all(&[head.as_bytes(), early].concat())
        .await
        .unwrap();
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap().into());
    }
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(
        answer
            .to_lowercase()
            .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{answer}"
    );
    socket
}

struct Case {
    what: &'static str,
    sent: Vec<Vec<u8>>,
    /// What comes back, and whether it ends with the stream, before which a close frame may stand.
    answered: Vec<(u8, Vec<u8>)>,
    ends: bool,
}

fn answered(what: &'static str, sent: Vec<Vec<u8>>, answered: Vec<(u8, Vec<u8>)>) -> Case {
    Case {
        what,
        sent,
        answered,
        ends: false,
    }
}

fn ended(what: &'static str, sent: Vec<Vec<u8>>) -> Case {
    Case {
        what,
        sent,
        answered: Vec::new(),
        ends: true,
    }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        answered(
            "a text",
            vec![whole(TEXT, b"hello")],
            vec![(TEXT, b"hello".to_vec())],
        ),
        answered(
            "an empty text",
            vec![whole(TEXT, b"")],
            vec![(TEXT, Vec::new())],
        ),
        answered(
            "two messages",
            vec![whole(TEXT, b"a"), whole(BINARY, &[0, 255])],
            vec![(TEXT, b"a".to_vec()), (BINARY, vec![0, 255])],
        ),
        answered(
            "a ping",
            vec![whole(PING, b"are you there?")],
            vec![(PONG, b"are you there?".to_vec())],
        ),
        answered(
            "the largest ping",
            vec![whole(PING, &[7; 125])],
            vec![(PONG, vec![7; 125])],
        ),
        answered(
            "a pong nobody asked for",
            vec![whole(PONG, b"?"), whole(TEXT, b"a")],
            vec![(TEXT, b"a".to_vec())],
        ),
        answered(
            "three fragments",
            vec![frame(TEXT, b"he"), frame(0, b"l"), frame(FIN, b"lo")],
            vec![(TEXT, b"hello".to_vec())],
        ),
        answered(
            "empty fragments",
            vec![frame(TEXT, b""), frame(0, b""), frame(FIN, b"")],
            vec![(TEXT, Vec::new())],
        ),
        answered(
            "a ping between fragments",
            vec![frame(TEXT, b"he"), whole(PING, b"!"), frame(FIN, b"llo")],
            vec![(PONG, b"!".to_vec()), (TEXT, b"hello".to_vec())],
        ),
        answered(
            "a character cut by fragments",
            vec![
                frame(TEXT, &"\u{20AC}".as_bytes()[..1]),
                frame(FIN, &"\u{20AC}".as_bytes()[1..]),
            ],
            vec![(TEXT, "\u{20AC}".as_bytes().to_vec())],
        ),
        ended(
            "text that isn't UTF-8",
            vec![whole(TEXT, &[0xCE, 0xBA, 0xED, 0xA0, 0x80])],
        ),
        ended("a reserved opcode", vec![whole(3, b"a")]),
        ended("a reserved control opcode", vec![whole(11, b"")]),
        ended("a reserved bit", vec![frame(FIN | 0x40 | TEXT, b"a")]),
        ended("a ping too large", vec![whole(PING, &[7; 126])]),
        ended(
            "a ping in fragments",
            vec![frame(PING, b"a"), frame(FIN, b"b")],
        ),
        ended("a fragment of nothing", vec![frame(FIN, b"a")]),
        ended(
            "a message within fragments",
            vec![frame(TEXT, b"a"), whole(TEXT, b"b")],
        ),
        ended("a frame without a mask", vec![vec![FIN | TEXT, 1, b'a']]),
        ended("a close", vec![whole(CLOSE, &[0x03, 0xE8])]),
        ended(
            "a close with a reason",
            vec![whole(CLOSE, &[&[0x03, 0xE8][..], b"thanks"].concat())],
        ),
        ended("a close without a code", vec![whole(CLOSE, b"")]),
        ended("a close of one byte", vec![whole(CLOSE, &[3])]),
        ended(
            "a close with a code that is never sent",
            vec![whole(CLOSE, &[0x03, 0xED])],
        ),
        ended(
            "a close with a reason that isn't UTF-8",
            vec![whole(CLOSE, &[0x03, 0xE8, 0xFF])],
        ),
    ];
    for len in [125, 126, 127, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        cases.push(answered(
            "a size",
            vec![whole(BINARY, &payload)],
            vec![(BINARY, payload)],
        ));
    }
    cases
}

/// Every case on a connection of its own: in one write with the handshake, in a write a frame, and byte by byte.
async fn speaks_as_it_should(path: &str) {
    let running = run(SOON);
    for case in cases() {
        let bytes = case.sent.concat();
        let slicings: [Vec<&[u8]>; 3] = [
            Vec::new(),
            case.sent.iter().map(Vec::as_slice).collect(),
            bytes.chunks(1).take(70_000).collect(),
        ];
        for (at, slices) in slicings.into_iter().enumerate() {
            if at == 2 && bytes.len() > 70_000 {
                continue; // A megabyte byte by byte shows nothing more.
            }
            let what = format!("{}, {} bytes, slicing {at}", case.what, bytes.len());
            let early: &[u8] = if at == 0 { &bytes } else { &[] };
            let mut socket = open(running.address, path, early).await;
            let (_, mut writer) = socket.split();
            let talk = async {
                for slice in slices {
                    // It may be gone by then, and that is one of the things to be seen.
                    let _ = writer.write_all(slice).await;
                }
            };
            timeout(SOON, talk).await.expect(&what);
            let check = async {
                for wanted in &case.answered {
                    assert_eq!(
                        read_frame(&mut socket).await.as_ref(),
                        Some(wanted),
                        "{what}"
                    );
                }
                if !case.ends {
                    return;
                }
                let mut last = read_frame(&mut socket).await;
                if last.as_ref().is_some_and(|(opcode, _)| *opcode == CLOSE) {
                    last = read_frame(&mut socket).await;
                }
                assert_eq!(last, None, "{what}");
            };
            timeout(SOON, check).await.expect(&what);
        }
    }
}

#[tokio::test]
async fn websockets_by_wharfs_own_handshake_speak_as_they_should() {
    speaks_as_it_should("/own").await;
}

#[tokio::test]
async fn websockets_by_axums_extractor_speak_as_they_should() {
    speaks_as_it_should("/axum").await;
}

#[tokio::test]
async fn a_client_that_half_closes_has_its_echo_first() {
    let running = run(SOON);
    for path in ["/own", "/axum"] {
        let mut socket = open(running.address, path, &whole(TEXT, b"last words")).await;
        socket.shutdown().await.unwrap();
        let echoed = timeout(SOON, read_frame(&mut socket)).await.unwrap();
        assert_eq!(echoed, Some((TEXT, b"last words".to_vec())), "{path}");
        assert_eq!(
            timeout(SOON, read_frame(&mut socket)).await.unwrap(),
            None,
            "{path}"
        );
    }
}

#[tokio::test]
async fn tungstenites_client_sends_eight_megabytes_and_has_them_back() {
    let running = run(SOON);
    for path in ["/own", "/axum"] {
        let socket = TcpStream::connect(running.address).await.unwrap();
        let url = format!("ws://{}{path}", running.address);
        let (mut client, _) = tokio_tungstenite::client_async(url, socket).await.unwrap();
        let sent = Message::binary(vec![42; 8 << 20]);
        client.send(sent.clone()).await.unwrap();
        let back = timeout(SOON, client.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(back == sent, "{path}");
        client.close(None).await.unwrap();
        while let Some(Ok(_)) = client.next().await {}
    }
    running.handle.stop();
    let report = running.report().await;
    assert_eq!(report.closed, [("upgraded", 2)].into());
}

#[tokio::test]
async fn a_stop_waits_for_websockets_which_say_goodbye() {
    let running = run(SOON);
    let mut socket = open(running.address, "/own", &[]).await;
    running.handle.stop();
    let goodbye = timeout(SOON, read_frame(&mut socket)).await.unwrap();
    let (opcode, payload) = goodbye.expect("a close frame");
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1001u16.to_be_bytes()[..]));
    assert_eq!(running.handle.open(), 1);
    socket.write_all(&whole(CLOSE, &payload)).await.unwrap();
    let report = running.report().await;
    assert_eq!(report.closed, [("upgraded", 1)].into());
    assert!(report.cut.is_empty());
}

#[tokio::test]
async fn a_websocket_that_is_not_told_is_cut_at_the_end_and_reported() {
    let running = run(Duration::from_millis(300));
    let mut socket = open(running.address, "/axum", &[]).await;
    running.handle.stop();
    assert_eq!(timeout(SOON, read_frame(&mut socket)).await.unwrap(), None);
    let report = running.report().await;
    assert_eq!(report.cut.len(), 1);
    assert_eq!(report.cut[0].state, wharf::State::Upgraded);
}

#[tokio::test]
async fn who_asks_for_no_websocket_is_answered_and_the_connection_goes_on() {
    let running = run(SOON);
    let mut socket = TcpStream::connect(running.address).await.unwrap();
    for (path, fields, status, named) in [
        ("/own", "", 426, "upgrade: websocket"),
        (
            "/own",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\n",
            426,
            "sec-websocket-version: 13",
        ),
        (
            "/own",
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
            400,
            "Sec-WebSocket-Key",
        ),
        ("/axum", "", 400, ""),
        (
            "/hello",
            "connection: upgrade\r\nupgrade: websocket\r\n",
            200,
            "hello",
        ),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let answer = read_answer(&mut socket).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path} {fields}: {answer}"
        );
        assert!(answer.contains(named), "{path} {fields}: {answer}");
    }
}

/// One response with a Content-Length.
async fn read_answer(socket: &mut TcpStream) -> String {
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        let byte = timeout(SOON, socket.read_u8()).await.expect("an answer");
        answer.push(byte.unwrap_or_else(|_| panic!("cut after {answer}")).into());
    }
    let lower = answer.to_lowercase();
    let (_, length) = lower.split_once("content-length: ").expect(&answer);
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    answer + &String::from_utf8(body).unwrap()
}

#[tokio::test]
async fn curl_goes_through_a_connect_tunnel() {
    let (proxy, target) = (run(SOON), run(SOON));
    let curl = Command::new("curl")
        .args(["-sS", "--max-time", "10", "--noproxy", "", "--proxytunnel"])
        .args(["--proxy", &format!("http://{}", proxy.address)])
        .arg(format!("http://{}/hello", target.address))
        .output()
        .await
        .expect("curl runs");
    let complaint = String::from_utf8_lossy(&curl.stderr);
    assert_eq!(
        String::from_utf8_lossy(&curl.stdout),
        "hello",
        "{complaint}"
    );
    proxy.handle.stop();
    assert_eq!(proxy.report().await.closed, [("upgraded", 1)].into());
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_built_leaves_the_connection_with_http() {
    let running = run(SOON);
    let mut socket = TcpStream::connect(running.address).await.unwrap();
    // Nobody listens on the port that was just given back.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let head = format!("CONNECT {gone} HTTP/1.1\r\nhost: {gone}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    assert!(read_answer(&mut socket).await.starts_with("HTTP/1.1 500 "));
    socket
        .write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(read_answer(&mut socket).await.ends_with("hello"));
}
