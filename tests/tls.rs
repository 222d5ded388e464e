//! TLS: handshakes over real sockets and in memory, certificates that change, and clients that never finish.
//!
//! curl and openssl are used as they are installed; without them these tests fail.

#[allow(dead_code, unreachable_pub)]
#[path = "support/tls.rs"]
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use support::{Authority, der, server_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConnection;
use tower::{ServiceBuilder, service_fn};
use wharf::{
    Body, BoxError, CloseReason, ConnInfo, ConnReport, Http, Report, Server, Shutdown, Tls,
    TlsError,
};

/// A server of its own for each test.
struct Wharf {
    address: SocketAddr,
    reports: mpsc::UnboundedReceiver<ConnReport>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Report>,
}

impl Wharf {
    async fn start(tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, reports) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let stack = ServiceBuilder::new()
            .layer(tls)
            .layer(Http::new())
            .service(service_fn(answer));
        let server = Server::new()
            .listen(listener)
            .unwrap()
            .shutdown(Shutdown::when(async { stopped.await.unwrap_or_default() }))
            .on_close(move |conn| drop(tell.send(conn.clone())));
        let task = tokio::spawn(async { server.serve(stack).await.unwrap() });
        Self {
            address,
            reports,
            stop,
            task,
        }
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The certificate that a client is shown which asks for `name`.
    async fn shown(&self, authority: &Authority, name: &str) -> Vec<u8> {
        let stream = authority.connect(name, &[], self.dial().await).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    async fn reason(&mut self) -> CloseReason {
        self.reports.recv().await.unwrap().reason
    }

    async fn end(self) -> Report {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// Says what is known of the connection's TLS.
async fn answer(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let info = ConnInfo::of(&request).ok_or("no connection")?;
    let tls = info.tls.as_ref().ok_or("no TLS")?;
    let alpn = tls.alpn.as_deref().map(String::from_utf8_lossy);
    let text = format!(
        "{} {} {} {} {}\n",
        tls.server_name.as_deref().unwrap_or("-"),
        alpn.as_deref().unwrap_or("-"),
        tls.version,
        tls.cipher_suite,
        tls.peer_certificates.len()
    );
    Ok(Response::new(Body::from(text)))
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";

/// One request and all that comes back, up to a clean end.
async fn ask(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> String {
    stream.write_all(GET).await.unwrap();
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .await
        .expect("an end that was announced");
    text
}

fn of(pair: &(PathBuf, PathBuf)) -> Tls {
    Tls::from_pem_files(&pair.0, &pair.1).unwrap()
}

#[tokio::test]
async fn a_handler_knows_what_the_handshake_agreed_upon() {
    let authority = Authority::new();
    let mut wharf = Wharf::start(of(&authority.issue("a.example"))).await;
    let stream = wharf.dial().await;
    let mut stream = authority
        .connect("a.example", &["h2", "http/1.1"], stream)
        .await;
    let answer = ask(&mut stream).await;
    let facts = "a.example http/1.1 TLS 1.3 TLS13_AES_256_GCM_SHA384 0\n";
    assert!(answer.ends_with(facts), "{answer}");
    assert_eq!(wharf.reason().await, CloseReason::ClientAsked);
}

#[tokio::test]
async fn a_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let pairs = ["a.example", "b.example", "*.c.example"].map(|name| authority.issue(name));
    let tls = of(&pairs[0])
        .certificate(&pairs[1].0, &pairs[1].1)
        .and_then(|tls| tls.certificate(&pairs[2].0, &pairs[2].1))
        .unwrap();
    let wharf = Wharf::start(tls).await;
    for (name, pair) in [
        ("a.example", &pairs[0]),
        ("b.example", &pairs[1]),
        ("any.c.example", &pairs[2]),
    ] {
        assert_eq!(
            wharf.shown(&authority, name).await,
            der(&pair.0).to_vec(),
            "{name}"
        );
    }
    // Whoever asks for another gets the first.
    let connector = TlsConnector::from(authority.client(&[], None));
    let refused = connector
        .connect(server_name("d.example"), wharf.dial().await)
        .await;
    assert!(refused.unwrap_err().to_string().contains("a.example"));
}

#[tokio::test]
async fn a_client_certificate_is_required_or_asked_for() {
    let authority = Authority::new();
    let own = authority.issue("client.example");
    let server = authority.issue("a.example");
    for required in [true, false] {
        let tls = of(&server);
        let tls = if required {
            tls.require_client_certificates(authority.pem())
        } else {
            tls.ask_for_client_certificates(authority.pem())
        };
        let mut wharf = Wharf::start(tls.unwrap()).await;
        let with = TlsConnector::from(authority.client(&[], Some(&own)));
        let stream = with.connect(server_name("a.example"), wharf.dial().await);
        let answer = ask(&mut stream.await.unwrap()).await;
        assert!(answer.ends_with(" 1\n"), "{answer}");
        assert_eq!(wharf.reason().await, CloseReason::ClientAsked);

        let stream = wharf.dial().await;
        let mut stream = authority.connect("a.example", &[], stream).await;
        let _ = stream.write_all(GET).await;
        let mut text = String::new();
        let read = stream.read_to_string(&mut text).await;
        if required {
            assert!(read.is_err(), "{text}");
            let reason = wharf.reason().await;
            let CloseReason::Tls(TlsError::Failed(why)) = &reason else {
                panic!("{reason:?}");
            };
            assert!(why.contains("certificate"), "{why}");
        } else {
            assert!(text.ends_with(" 0\n"), "{text}");
        }
    }
}

#[tokio::test]
async fn new_files_are_used_and_broken_ones_are_not() {
    let authority = Authority::new();
    let first = authority.issue_as("a.example", "server");
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let tls = of(&first).on_reload(move |outcome| {
        tell.lock()
            .unwrap()
            .push(outcome.map_err(ToString::to_string));
    });
    let wharf = Wharf::start(tls.clone()).await;
    let before = der(&first.0).to_vec();
    assert_eq!(wharf.shown(&authority, "a.example").await, before);

    fs::write(
        &first.0,
        "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await; // They are looked at once a second.
    assert_eq!(wharf.shown(&authority, "a.example").await, before);
    let error = tls.reload().unwrap_err().to_string();
    assert!(
        error.contains(&*first.0.to_string_lossy()),
        "it names the file: {error}"
    );
    assert!(
        told.lock().unwrap()[0].is_err(),
        "whoever wants to know is told"
    );

    authority.issue_as("a.example", "server");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let after = der(&first.0).to_vec();
    assert_ne!(after, before);
    assert_eq!(wharf.shown(&authority, "a.example").await, after);
    assert_eq!(told.lock().unwrap().len(), 2, "each change is told once");

    authority.issue_as("a.example", "server");
    tls.reload().unwrap();
    assert_eq!(
        wharf.shown(&authority, "a.example").await,
        der(&first.0).to_vec()
    );
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused_at_the_start() {
    let authority = Authority::new();
    let (certificate, _) = authority.issue("a.example");
    let (_, key) = authority.issue("b.example");
    let error = Tls::from_pem_files(&certificate, &key).unwrap_err();
    assert!(error.to_string().contains("b.example.key"), "{error}");
    let missing = Tls::from_pem_files(authority.path("none.pem"), &key).unwrap_err();
    assert!(missing.to_string().contains("none.pem"), "{missing}");
}

#[tokio::test]
async fn a_request_in_plain_text_is_told_where_it_is() {
    let authority = Authority::new();
    let mut wharf = Wharf::start(of(&authority.issue("a.example"))).await;
    for request in [GET, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"G"] {
        let mut stream = wharf.dial().await;
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, content) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(
            head.contains(&format!("content-length: {}", content.len())),
            "{head}"
        );
        assert!(content.contains("use https://"), "{content}");
        drop(stream);
        assert_eq!(wharf.reason().await, CloseReason::Tls(TlsError::PlainHttp));
    }
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_gets_an_alert() {
    let authority = Authority::new();
    let mut wharf = Wharf::start(of(&authority.issue("a.example"))).await;
    let mut stream = wharf.dial().await;
    stream
        .write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
        .await
        .unwrap();
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert[0], 21, "an alert: {alert:?}");
    let reason = wharf.reason().await;
    assert!(
        matches!(reason, CloseReason::Tls(TlsError::Failed(_))),
        "{reason:?}"
    );
    let mut stream = wharf.dial().await;
    stream.write_all(b"\x16\x03\x01").await.unwrap();
    drop(stream);
    assert_eq!(wharf.reason().await, CloseReason::Tls(TlsError::Truncated));
}

/// A client's first message.
fn hello(authority: &Authority) -> Vec<u8> {
    let config = authority.client(&[], None);
    let mut client = ClientConnection::new(config, server_name("a.example")).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn stack(
    tls: Tls,
) -> impl tower::Service<
    wharf::Conn<wharf::Stream>,
    Response = ConnReport,
    Error = wharf::Error,
    Future: Send,
> + Clone {
    ServiceBuilder::new()
        .layer(tls)
        .layer(Http::new())
        .service(service_fn(answer))
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stands_still_is_over_after_ten_seconds() {
    let authority = Authority::new();
    let tls = of(&authority.issue("a.example"));
    let hello = hello(&authority);
    for sent in [0, 1, 5, hello.len() - 1, hello.len()] {
        let mut client = wharf::test::connect_to(stack(tls.clone()));
        client.send(&hello[..sent]).await;
        tokio::time::advance(Duration::from_millis(9_900)).await;
        client.send("").await;
        assert!(client.report().is_none(), "too early, {sent} bytes");
        tokio::time::advance(Duration::from_millis(200)).await;
        let reason = client.closed().await.reason;
        assert_eq!(reason, CloseReason::Tls(TlsError::Late { got: sent }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_handshakes() {
    let authority = Authority::new();
    let mut client = wharf::test::connect_to(stack(of(&authority.issue("a.example"))));
    client.send(&hello(&authority)[..20]).await;
    client.drain().await;
    assert_eq!(client.closed().await.reason, CloseReason::Shutdown);
}

#[tokio::test]
async fn handshakes_that_stand_still_make_room_for_others() {
    let authority = Authority::new();
    let mut wharf = Wharf::start(of(&authority.issue("a.example"))).await;
    let hello = hello(&authority);
    let mut stuck = Vec::new();
    for _ in 0..256 {
        let mut stream = wharf.dial().await;
        stream.write_all(&hello).await.unwrap();
        // It is worked on: the server has said its part.
        stream.read_u8().await.unwrap();
        stuck.push(stream);
    }
    // None of them holds up the accept, and silent ones take no place.
    let _silent = wharf.dial().await;
    let asked = std::time::Instant::now();
    let stream = wharf.dial().await;
    let mut stream = authority.connect("a.example", &[], stream).await;
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert!(
        asked.elapsed() < Duration::from_secs(9),
        "{:?}",
        asked.elapsed()
    );
    let reason = wharf.reason().await;
    assert!(
        matches!(reason, CloseReason::Tls(TlsError::Late { .. })),
        "{reason:?}"
    );
}

#[tokio::test]
async fn the_last_response_of_a_shutdown_is_not_lost() {
    let authority = Authority::new();
    let wharf = Wharf::start(of(&authority.issue("a.example"))).await;
    let stream = wharf.dial().await;
    let mut stream = authority.connect("a.example", &[], stream).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).await.unwrap();
    let ending = tokio::spawn(wharf.end());
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    // A close without a word would be an error here.
    stream.read_to_string(&mut text).await.unwrap();
    assert!(
        text.matches("TLS 1.3").count() == 2 && text.contains("connection: close"),
        "{text}"
    );
    drop(stream);
    assert_eq!(ending.await.unwrap().requests, 2);
}

/// Passes bytes on one at a time, both ways.
async fn slicer(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        server.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let back =
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        while let Ok(byte) = from_client.read_u8().await {
            if to_server.write_u8(byte).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(to_server);
        let _ = back.await;
    });
    address
}

#[tokio::test]
async fn openssl_shakes_hands_a_byte_at_a_time() {
    let authority = Authority::new();
    let mut wharf = Wharf::start(of(&authority.issue("a.example"))).await;
    for version in ["-tls1_3", "-tls1_2"] {
        let address = slicer(wharf.address).await;
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", version])
            .args(["-servername", "a.example", "-alpn", "http/1.1", "-CAfile"])
            .arg(authority.pem())
            .arg("-connect")
            .arg(address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl");
        let mut stdin = client.stdin.take().unwrap();
        stdin.write_all(GET).await.unwrap();
        let output = client.wait_with_output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let named = version.replace("-tls1_", "TLS 1.");
        assert!(
            text.contains(&format!("a.example http/1.1 {named} ")),
            "{text}"
        );
        assert_eq!(wharf.reason().await, CloseReason::ClientAsked);
    }
}

#[tokio::test]
async fn curl_asks_over_tls_1_2_and_1_3() {
    let authority = Authority::new();
    let wharf = Wharf::start(of(&authority.issue("localhost"))).await;
    for (version, named) in [("1.2", "TLS 1.2"), ("1.3", "TLS 1.3")] {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "20", "--cacert"])
            .arg(authority.pem())
            .args([&format!("--tlsv{version}"), "--tls-max", version])
            .arg(format!("https://localhost:{}/", wharf.address.port()))
            .arg("--ipv4")
            .output()
            .await
            .expect("curl");
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.starts_with(&format!("localhost http/1.1 {named}")),
            "{text}{error}"
        );
    }
}

#[tokio::test]
async fn a_large_body_goes_both_ways() {
    let authority = Authority::new();
    let tls = of(&authority.issue("a.example"));
    let echo = ServiceBuilder::new()
        .layer(tls)
        .layer(Http::new())
        .service(service_fn(|request: Request<Body>| async {
            Ok::<_, BoxError>(Response::new(request.into_body()))
        }));
    let (client, server) = tokio::io::duplex(32 * 1024);
    let mut stack = echo;
    let serving = tokio::spawn(tower::Service::call(&mut stack, server.into()));
    let mut stream = authority.connect("a.example", &[], client).await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        content.len()
    );
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let sent = async {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&content).await.unwrap();
        write.flush().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), read) = tokio::join!(sent, read.read_to_end(&mut got));
    read.unwrap();
    assert!(got.ends_with(&content), "{} bytes", got.len());
    assert_eq!(
        serving.await.unwrap().unwrap().reason,
        CloseReason::ClientAsked
    );
}
