//! Real clients of HTTP/2 against the contract service: curl, nghttp and h2load, by prior knowledge and by ALPN, and
//! conversations of HTTP/1 over the same TLS.
//!
//! A client that isn't installed fails its tests: `.ci/run` installs what is missing.

#[path = "../examples/contract.rs"]
#[allow(dead_code, reason = "its `main` is not run here")]
mod contract;

#[allow(dead_code, unreachable_pub)]
#[path = "support/tls.rs"]
mod support;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use support::Authority;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::oneshot;
use tower::{ServiceBuilder, service_fn};
use wharf::{Handle, Http, Report, Server, Shutdown, Tls};

struct Wharf {
    address: SocketAddr,
    authority: Authority,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Report>,
    handle: Handle,
}

impl Wharf {
    async fn start(over_tls: bool) -> Self {
        let authority = Authority::new();
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let (certificate, key) = authority.issue("localhost");
        let tls = Tls::from_pem_files(certificate, key).and_then(Tls::with_http2);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stack = ServiceBuilder::new()
            .option_layer(over_tls.then_some(tls.unwrap()))
            .layer(Http::new().with_http2())
            .service(service_fn(contract::answer));
        let server = Server::new().listen(listener).unwrap();
        let server = server.shutdown(Shutdown::when(async { stopped.await.unwrap_or_default() }));
        let handle = server.handle();
        let task = tokio::spawn(async { server.serve(stack).await.unwrap() });
        Self {
            address,
            authority,
            stop,
            task,
            handle,
        }
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }

    async fn curl(&self, args: &[&str]) -> String {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--ipv4",
                "--noproxy",
                "*",
                "--max-time",
                "30",
                "--cacert",
            ])
            .arg(self.authority.pem())
            .args(args)
            .output()
            .await
            .expect("curl");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        String::from_utf8_lossy(&output.stdout).into_owned() + &error
    }

    async fn end(self) -> Report {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

async fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().await;
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn curl_knows_and_asks() {
    let plain = Wharf::start(false).await;
    let url = plain.url("http", "/plaintext");
    let version = ["-w", "\n%{http_version} %{http_code}\n"];
    let knows = plain
        .curl(&[&version[..], &["--http2-prior-knowledge", &url]].concat())
        .await;
    assert_eq!(knows, "Hello, World!\n2 200\n");
    let old = plain
        .curl(&[&version[..], &["--http1.1", &url]].concat())
        .await;
    assert_eq!(old, "Hello, World!\n1.1 200\n");

    let tls = Wharf::start(true).await;
    let url = tls.url("https", "/plaintext");
    let asks = tls.curl(&[&version[..], &[&url]].concat()).await;
    assert_eq!(asks, "Hello, World!\n2 200\n");
    let old = tls
        .curl(&[&version[..], &["--http1.1", &url]].concat())
        .await;
    assert_eq!(old, "Hello, World!\n1.1 200\n");
    tls.end().await;
    plain.end().await;
}

#[tokio::test]
async fn curl_uploads_and_sees_each_kind_of_answer() {
    let tls = Wharf::start(true).await;
    let file = tls.authority.path("upload");
    let content: Vec<u8> = (0..2_000_000_u32)
        .map(|at| b'a' + (at % 23) as u8)
        .collect();
    std::fs::write(&file, &content).unwrap();
    let upload = format!("@{}", file.display());
    let echoed = tls
        .curl(&["--data-binary", &upload, &tls.url("https", "/echo")])
        .await;
    assert!(echoed.as_bytes() == content, "the same bytes");
    let head = tls.curl(&["-I", &tls.url("https", "/plaintext")]).await;
    assert!(
        head.starts_with("HTTP/2 200") && head.contains("content-length: 13"),
        "{head}"
    );
    let cut = tls.curl(&[&tls.url("https", "/cut")]).await;
    assert!(
        cut.starts_with("the first half") && cut.contains("INTERNAL_ERROR"),
        "{cut}"
    );
    // curl of 2023 passes over an answer that is there before its upload is done; nghttp says what came.
    let path = file.to_str().unwrap();
    let refused = run("nghttp", &["-v", "-d", path, &tls.url("https", "/refuse")]).await;
    assert!(refused.contains(":status: 413"), "{refused}");
    assert!(refused.contains("error_code=NO_ERROR"), "{refused}");
    let panics = tls
        .curl(&[
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &tls.url("https", "/panic"),
        ])
        .await;
    assert_eq!(panics, "500");
    tls.end().await;
}

#[tokio::test]
async fn h2load_and_nghttp_get_all_that_they_ask_for() {
    for (over_tls, scheme) in [(false, "http"), (true, "https")] {
        let wharf = Wharf::start(over_tls).await;
        let url = wharf.url(scheme, "/plaintext");
        let load = run("h2load", &["-n", "3000", "-c", "8", "-m", "50", &url]).await;
        assert!(
            load.contains("3000 succeeded, 0 failed, 0 errored"),
            "{load}"
        );
        let bytes = wharf.url(scheme, "/bytes/500000");
        let large = run("h2load", &["-n", "40", "-c", "2", "-m", "10", &bytes]).await;
        assert!(
            large.contains("40 succeeded, 0 failed, 0 errored"),
            "{large}"
        );
        assert!(large.contains("(20000000) data"), "{large}");
        let talk = run("nghttp", &["-nv", &url]).await;
        assert!(talk.contains(":status: 200"), "{talk}");
        assert_eq!(wharf.end().await.requests, 3041);
    }
}

#[tokio::test]
async fn a_shutdown_loses_no_request_of_a_busy_client() {
    let wharf = Wharf::start(false).await;
    let url = wharf.url("http", "/sleep/2000");
    let load =
        tokio::spawn(
            async move { run("h2load", &["-n", "40", "-c", "4", "-m", "10", &url]).await },
        );
    let all_are_under_way = async {
        let requests = || {
            wharf
                .handle
                .connections()
                .iter()
                .map(|one| one.requests)
                .sum::<u64>()
        };
        while requests() < 40 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let soon = Duration::from_secs(20);
    tokio::time::timeout(soon, all_are_under_way)
        .await
        .expect("40 requests");
    assert!(wharf.handle.connections().iter().all(|one| one.is_http2));
    let report = wharf.end().await;
    let load = load.await.unwrap();
    assert!(
        load.contains("40 succeeded, 0 failed, 0 errored"),
        "{load}\n{report}"
    );
    assert_eq!(report.cut.len(), 0);
}

/// Python's h2 shares no code with the server, and judges what it is sent.
#[tokio::test]
async fn python_h2_is_answered_and_told_to_go() {
    let python = std::env::var("PYTHON_H2").unwrap_or_else(|_| "python3".into());
    let has_h2 = Command::new(&python)
        .args(["-c", "import h2"])
        .output()
        .await;
    assert!(
        has_h2.is_ok_and(|output| output.status.success()),
        "`{python}` has no h2: pip install h2, and name that python in PYTHON_H2"
    );
    for over_tls in [false, true] {
        let wharf = Wharf::start(over_tls).await;
        let mut client = Command::new(&python);
        client.arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/python_h2.py"
        ));
        client.arg(wharf.address.port().to_string());
        if over_tls {
            client.arg(wharf.authority.pem());
        }
        let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(client.stdout.take().unwrap()).lines();
        let is_under_way = said.next_line().await.unwrap();
        assert_eq!(is_under_way.as_deref(), Some("under way"), "{over_tls}");
        let report = wharf.end().await;
        assert!(client.wait().await.unwrap().success(), "{over_tls}");
        // The one that was reset is among them, and nobody waited for it.
        assert_eq!((report.requests, report.cut.len()), (5, 0), "{report}");
    }
}

#[tokio::test]
async fn conversations_of_http_1_go_over_tls_as_they_do_without() {
    let (plain, tls) = (Wharf::start(false).await, Wharf::start(true).await);
    let mut count = 0;
    for request in [
        "GET /plaintext HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET /plaintext HTTP/1.1\r\nhost: a\r\n\r\nGET /json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\nabc",
        "HEAD /plaintext HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET /chunked HTTP/1.0\r\n\r\n",
        "GET /cut HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        for slice in [usize::MAX, 1] {
            let mut stream = TcpStream::connect(plain.address).await.unwrap();
            let expected = talk(&mut stream, request, slice).await;
            let stream = TcpStream::connect(tls.address).await.unwrap();
            let mut stream = tls
                .authority
                .connect("localhost", &["http/1.1"], stream)
                .await;
            let got = talk(&mut stream, request, slice).await;
            assert_eq!(got, expected, "{request:?}");
            count += 1;
        }
    }
    assert_eq!(count, 20);
}

/// What comes back, without the date.
async fn talk<Io>(stream: &mut Io, request: &str, slice: usize) -> String
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    for slice in request.as_bytes().chunks(slice) {
        stream.write_all(slice).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let lines = text.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("date: ")).collect()
}
