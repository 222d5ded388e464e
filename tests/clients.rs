//! Real clients against the contract service: curl over TCP and a Unix socket, Python's http.client, hyper's client, and a
//! plain socket where no client does what is asked (pipelining).
//!
//! A client that isn't installed fails its tests: `.ci/run` installs what is missing.

#[path = "../examples/contract.rs"]
#[allow(dead_code, reason = "its `main` is not run here")]
mod contract;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::process::Command;
use tower::service_fn;
use wharf::{Body, BoxError};

mod curl {
    use super::*;

    #[tokio::test]
    async fn asks_twice_on_one_connection() {
        let base = serve().await;
        let [first, second] = [format!("{base}/plaintext"), format!("{base}/json")];
        let format = "\n%{http_code} %{num_connects}\n";
        let text = curl(&["-w", format, &first, "-w", format, &second]).await;
        assert_eq!(
            text,
            "Hello, World!\n200 1\n{\"message\":\"Hello, World!\"}\n200 0\n"
        );
    }

    #[tokio::test]
    async fn sees_the_fields_that_the_contract_names() {
        let head = curl(&["-I", &format!("{}/plaintext", serve().await)]).await;
        let mut lines: Vec<&str> = head.trim_end().lines().collect();
        assert_eq!(lines.remove(0), "HTTP/1.1 200 OK");
        lines.retain(|line| !line.starts_with("date: "));
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "content-length: 13",
                "content-type: text/plain",
                "server: wharf"
            ]
        );
    }

    #[tokio::test]
    async fn speaks_http_1_0_with_and_without_keep_alive() {
        let url = format!("{}/plaintext", serve().await);
        let format = "\n%{http_version} %{num_connects}\n";
        let closing = ["--http1.0", "-w", format, &url, &url];
        let text = curl(&closing).await;
        assert_eq!(text, "Hello, World!\n1.1 1\nHello, World!\n1.1 1\n");
        let keeping = [&["-H", "Connection: keep-alive"], &closing[..]].concat();
        let text = curl(&keeping).await;
        assert_eq!(text, "Hello, World!\n1.1 1\nHello, World!\n1.1 0\n");
    }

    #[tokio::test]
    async fn reads_a_stream_in_http_1_0_to_the_end_of_the_connection() {
        let url = format!("{}/chunked", serve().await);
        let text = curl(&["--http1.0", "-i", &url]).await;
        assert!(text.ends_with("\r\n\r\nfirst\nsecond\n"), "{text}");
        assert!(!text.contains("transfer-encoding"), "{text}");
    }

    #[tokio::test]
    async fn uploads_in_chunks_and_gets_them_back() {
        let url = format!("{}/echo", serve().await);
        let upload = pattern(1_000_000);
        let back = curl_with(&["-T", "-", "-X", "POST", &url], &upload).await;
        assert!(back == upload, "{} bytes came back", back.len());
    }

    /// curl would send the body unasked after a minute; that it ends within the test's time means that it was asked.
    #[tokio::test]
    async fn waits_for_100_continue_and_gets_it() {
        let url = format!("{}/echo", serve().await);
        let wait = [
            "-i",
            "-H",
            "Expect: 100-continue",
            "--expect100-timeout",
            "60",
        ];
        let text = curl(&[&wait[..], &["-d", "ahoy", &url]].concat()).await;
        assert!(
            text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\nahoy"), "{text}");
    }

    #[tokio::test]
    async fn sends_no_body_when_it_is_refused_before_100_continue() {
        let url = format!("{}/refuse", serve().await);
        let wait = [
            "-i",
            "-H",
            "Expect: 100-continue",
            "--expect100-timeout",
            "60",
        ];
        let format = ["-w", "%{size_upload}", "-d", "ahoy"];
        let text = curl(&[&wait[..], &format[..], &[&url]].concat()).await;
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
        assert!(text.ends_with("I read none of it.\n0"), "{text}");
    }

    #[tokio::test]
    async fn learns_that_a_large_upload_is_refused() {
        let url = format!("{}/refuse", serve().await);
        let options = ["-H", "Expect:", "-w", "%{http_code}", "--data-binary", "@-"];
        let text = curl_with(&[&options[..], &[&url]].concat(), &pattern(5_000_000)).await;
        assert_eq!(String::from_utf8_lossy(&text), "I read none of it.\n413");
    }

    #[tokio::test]
    async fn downloads_ten_mebibytes() {
        let url = format!("{}/big", serve().await);
        let text = curl_with(&[&url], b"").await;
        assert_eq!(text.len(), 10 << 20);
        assert!(text.iter().all(|byte| *byte == b'.'));
    }

    #[tokio::test]
    async fn never_takes_a_cut_response_for_a_whole_one() {
        let base = serve().await;
        for path in ["cut", "short"] {
            let output = run("curl", &with_limits(&[&format!("{base}/{path}")]), b"").await;
            assert!(!output.status.success(), "/{path} looked whole: {output:?}");
        }
    }

    #[tokio::test]
    async fn never_gets_more_than_a_response_declared() {
        let base = serve().await;
        let (long, next) = (format!("{base}/long"), format!("{base}/plaintext"));
        let format = "[%{size_download} %{num_connects}]";
        let output = run(
            "curl",
            &with_limits(&["-w", format, &long, "-w", format, &next]),
            b"",
        )
        .await;
        let text = String::from_utf8_lossy(&output.stdout);
        // Whether the first bytes arrive or none do: nothing more does, and the connection is not used again.
        assert!(
            ["to[2 1]", "[0 1]"]
                .iter()
                .any(|start| text.starts_with(start)),
            "{text}"
        );
        assert!(text.ends_with("Hello, World![13 1]"), "{text}");
    }

    #[tokio::test]
    async fn talks_over_a_unix_socket() {
        let socket = Scratch::new("curl.sock");
        let listener = UnixListener::bind(&socket.0).expect("a socket in the scratch folder");
        spawn(listener);
        let path = socket.0.to_str().expect("a path in UTF-8");
        let text = curl(&["--unix-socket", path, "http://localhost/plaintext"]).await;
        assert_eq!(text, "Hello, World!");
        let back = ["--unix-socket", path, "-d", "ahoy", "http://localhost/echo"];
        assert_eq!(curl(&back).await, "ahoy");
    }

    async fn curl(arguments: &[&str]) -> String {
        String::from_utf8(curl_with(arguments, b"").await).expect("a text")
    }

    /// Runs curl with `input` at its standard input; it must succeed.
    async fn curl_with(arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = run("curl", &with_limits(arguments), input).await;
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    fn with_limits<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [
            &["-q", "-sS", "--noproxy", "*", "--max-time", "30"],
            arguments,
        ]
        .concat()
    }
}

mod python {
    use super::*;

    /// Runs `script` with a connection to the service as `c`; what it asserts must hold.
    async fn python(script: &str) {
        let address = listen().await;
        let preamble = format!(
            "import http.client\nc = http.client.HTTPConnection('127.0.0.1', {}, timeout=30)\n",
            address.port()
        );
        let output = run("python3", &["-I", "-c", &(preamble + script)], b"").await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[tokio::test]
    async fn keeps_its_connection() {
        python(
            "
c.connect()
socket = c.sock
for path, length in [('/plaintext', 13), ('/bytes/100000', 100000), ('/chunked', 13), ('/status/204', 0), ('/', None)]:
    c.request('GET', path)
    body = c.getresponse().read()
    assert length is None or len(body) == length, (path, body[:99])
    assert c.sock is socket, 'closed after ' + path
",
        )
        .await;
    }

    #[tokio::test]
    async fn uploads_an_iterator_in_chunks() {
        python(
            "
import hashlib
pieces = [bytes([i]) * (i * 100) for i in range(1, 200)]
c.request('POST', '/sha256', iter(pieces), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
assert c.getresponse().read().decode() == hashlib.sha256(b''.join(pieces)).hexdigest()
",
        )
        .await;
    }

    #[tokio::test]
    async fn asks_for_a_head_and_reads_no_body() {
        python(
            "
for path in ['/plaintext', '/bytes/5000000', '/big', '/json']:
    c.request('HEAD', path)
    response = c.getresponse()
    assert (response.status, response.read()) == (200, b''), path
c.request('HEAD', '/bytes/5000000')
response = c.getresponse()
response.read()
assert response.headers['content-length'] == '5000000'
",
        )
        .await;
    }

    #[tokio::test]
    async fn never_takes_a_cut_response_for_a_whole_one() {
        python(
            "
for path in ['/cut', '/short']:
    c.request('GET', path)
    try:
        body = c.getresponse().read()
    except (http.client.IncompleteRead, ConnectionError):
        c.close()
    else:
        raise AssertionError('%s looked whole: %r' % (path, body))
",
        )
        .await;
    }

    #[tokio::test]
    async fn survives_a_handlers_panic() {
        python(
            "
c.request('GET', '/panic')
response = c.getresponse()
assert (response.status, response.headers['connection']) == (500, 'close')
response.read()
c.request('GET', '/plaintext')
assert c.getresponse().read() == b'Hello, World!'
",
        )
        .await;
    }
}

mod hyper_client {
    use super::*;

    async fn connect() -> SendRequest<Body> {
        let stream = TcpStream::connect(listen().await)
            .await
            .expect("the service listens");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a handshake");
        tokio::spawn(connection);
        sender
    }

    async fn ask(client: &mut SendRequest<Body>, request: Request<Body>) -> (StatusCode, Bytes) {
        client.ready().await.expect("the connection is kept");
        let (head, body) = client
            .send_request(request)
            .await
            .expect("a response")
            .into_parts();
        (
            head.status,
            body.collect().await.expect("a whole body").to_bytes(),
        )
    }

    fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        request.body(body.into()).expect("a request")
    }

    #[tokio::test]
    async fn asks_a_hundred_times_on_one_connection() {
        let mut client = connect().await;
        for _ in 0..100 {
            let (status, body) = ask(&mut client, request("GET", "/plaintext", "")).await;
            assert_eq!((status, &body[..]), (StatusCode::OK, &b"Hello, World!"[..]));
        }
    }

    #[tokio::test]
    async fn gets_back_what_it_uploads_with_and_without_a_length() {
        let mut client = connect().await;
        for size in [1, 1_000, 64 * 1024, 3_000_000] {
            let upload = Bytes::from(pattern(size));
            let (_, sized) = ask(&mut client, request("POST", "/echo", upload.clone())).await;
            assert!(sized == upload, "{} of {size} bytes came back", sized.len());

            let (mut sender, channel) = Channel::<Bytes, BoxError>::new(1);
            let pieces = upload.clone();
            tokio::spawn(async move {
                for piece in pieces.chunks(10_000) {
                    let piece = pieces.slice_ref(piece);
                    sender.send_data(piece).await.expect("the client reads on");
                }
            });
            let chunked = request("POST", "/echo", Body::new(channel));
            let (_, back) = ask(&mut client, chunked).await;
            assert!(back == upload, "{} of {size} bytes came back", back.len());
        }
    }

    #[tokio::test]
    async fn gets_every_status_and_only_the_bodies_that_may_be() {
        let mut client = connect().await;
        for code in 200..=999 {
            let path = format!("/status/{code}");
            let (status, body) = ask(&mut client, request("GET", &path, "")).await;
            assert_eq!(status, code);
            let bare = [204, 304].contains(&code);
            // RFC 9110 section 15.3.6: 205 has no content either.
            assert!(
                body.is_empty() || !bare && code != 205,
                "{code} came with {body:?}"
            );
            assert!(
                !body.is_empty() || bare || code == 205,
                "{code} came without its body"
            );
        }
    }

    #[tokio::test]
    async fn gets_500_where_a_handler_answers_with_an_interim_status() {
        for code in [100, 101, 102, 103, 199] {
            let path = format!("/status/{code}");
            let (status, _) = ask(&mut connect().await, request("GET", &path, "")).await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "for {code}");
        }
    }
}

mod plain_socket {
    use super::*;

    #[tokio::test]
    async fn pipelines_and_gets_the_answers_in_order() {
        let mut stream = TcpStream::connect(listen().await)
            .await
            .expect("the service listens");
        let mut requests = String::new();
        for count in 0..50 {
            requests += &format!("GET /bytes/{count} HTTP/1.1\r\nHost: a\r\n\r\n");
            requests += "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nahoy";
        }
        requests += "GET /plaintext HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream
            .write_all(requests.as_bytes())
            .await
            .expect("the service reads");

        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        tokio::time::timeout(Duration::from_secs(30), read)
            .await
            .expect("in time")
            .expect("a text");
        let bodies: Vec<&str> = text
            .split("HTTP/1.1 200 OK\r\n")
            .skip(1)
            .map(|response| {
                response
                    .split_once("\r\n\r\n")
                    .expect("a head and a body")
                    .1
            })
            .collect();
        assert_eq!(bodies.len(), 101);
        for (count, pair) in bodies[..100].chunks(2).enumerate() {
            assert_eq!(pair, [&".".repeat(count), "ahoy"]);
        }
        assert_eq!(bodies[100], "Hello, World!");
    }

    #[tokio::test]
    async fn gets_what_was_answered_before_a_response_was_cut() {
        let mut lost = Vec::new();
        for lie in ["cut", "short", "long", "panic"] {
            let mut stream = TcpStream::connect(listen().await)
                .await
                .expect("the service listens");
            let both = format!(
                "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\nGET /{lie} HTTP/1.1\r\nHost: a\r\n\r\n"
            );
            stream
                .write_all(both.as_bytes())
                .await
                .expect("the service reads");
            let mut received = Vec::new();
            // How it ends, by FIN or RST, is not this test's business.
            let read = stream.read_to_end(&mut received);
            let _ = tokio::time::timeout(Duration::from_secs(30), read)
                .await
                .expect("in time");
            if !String::from_utf8_lossy(&received).contains("\r\n\r\nHello, World!") {
                lost.push(lie);
            }
        }
        assert!(
            lost.is_empty(),
            "the answer before these was lost: {lost:?}"
        );
    }
}

/// The contract service on a free port.
async fn listen() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound port");
    spawn(listener);
    address
}

async fn serve() -> String {
    format!("http://{}", listen().await)
}

fn spawn(listener: impl wharf::IntoListeners + Send + 'static) {
    let serve = wharf::serve(listener, service_fn(contract::answer))
        .with_graceful_shutdown(std::future::pending());
    tokio::spawn(async move { serve.await.expect("the server runs") });
}

/// Runs a client to its end, with `input` at its standard input.
async fn run(client: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(client)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs {client}, which does not start: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A client may well leave before it has read everything.
    tokio::spawn(async move { stdin.write_all(&input).await });
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    ended
        .expect("the client ends in time")
        .expect("the client's output can be read")
}

/// Bytes in which a lost, doubled or moved piece shows.
fn pattern(size: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(size).collect()
}

/// A path that is free now and is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
