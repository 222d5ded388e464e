//! The examples as a newcomer runs them: as processes, told by arguments and signals, judged by what they print.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

#[tokio::test]
async fn echo_tells_how_many_requests_it_served_when_it_is_interrupted() {
    for arguments in [&["--port", "0"][..], &["--port", "0", "--local"]] {
        let mut echo = Running::start("echo", arguments, &[]).await;
        let mut stream = echo.connect().await;
        let friendly = ask(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(friendly.contains("wharf's echo service"), "{friendly}");
        let back = ask(
            &mut stream,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/x-ahoy\r\nContent-Length: 4\r\n\r\nahoy",
        )
        .await;
        assert!(
            back.contains("content-type: text/x-ahoy\r\n") && back.ends_with("ahoy"),
            "{back}"
        );

        let end = echo.signal("INT").await;
        assert!(
            end.contains("2 requests on 1 connection"),
            "{arguments:?}: {end}"
        );
    }
}

#[tokio::test]
async fn echo_logs_requests_and_ends_of_connections_with_debug() {
    let mut echo = Running::start("echo", &["127.0.0.1:0", "--debug"], &[]).await;
    let mut stream = echo.connect().await;
    ask(&mut stream, "GET /where HTTP/1.1\r\nHost: a\r\n\r\n").await;
    echo.signal("INT").await;
    let log = echo.complaints().await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "connection 1: GET /where", "{log}");
    assert!(
        lines[1].starts_with("connection 1 from 127.0.0.1:"),
        "{log}"
    );
    assert!(lines[1].contains(": 1 request"), "{log}");
}

#[tokio::test]
async fn echo_explains_itself_and_refuses_what_it_does_not_know() {
    let help = finished("echo", &["--help"], &[]).await;
    assert!(help.status.success());
    assert!(
        String::from_utf8_lossy(&help.stdout).contains("usage: echo"),
        "{help:?}"
    );

    for (arguments, sentence) in [
        (&["--prot", "1"][..], "there is no option `--prot`"),
        (&["--port"], "--port wants a number"),
        (
            &["--port", "70000"],
            "--port wants a number from 0 to 65535, not `70000`",
        ),
        (&["somewhere"], "`somewhere` is not an address"),
    ] {
        let refused = finished("echo", arguments, &[]).await;
        let complaint = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {complaint}");
        assert!(complaint.contains(sentence), "{arguments:?}: {complaint}");
    }
}

#[tokio::test]
async fn the_contract_service_drains_when_it_is_terminated() {
    for (codec, runtime) in [
        ("httparse", "shared"),
        ("strict", "shared"),
        ("httparse", "local"),
        ("strict", "local"),
    ] {
        let settings = [
            ("PORT", "0"),
            ("WORKERS", "1"),
            ("CODEC", codec),
            ("RUNTIME", runtime),
        ];
        let mut contract = Running::start("contract", &[], &settings).await;
        let mut slow = contract.connect().await;
        let mut idle = contract.connect().await;
        ask(&mut idle, "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n").await;
        slow.write_all(b"GET /sleep/300 HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        // The second answer on another connection says that the first request had its turn.
        ask(&mut idle, "GET /sleep/100 HTTP/1.1\r\nHost: a\r\n\r\n").await;

        // Read as a client does, and closed when the service has closed.
        let slow = tokio::spawn(async move {
            let mut answer = String::new();
            slow.read_to_string(&mut answer).await.unwrap();
            answer
        });
        let end = contract.signal("TERM").await;
        assert!(
            end.contains("3 requests on 2 connections"),
            "{codec}, {runtime}: {end}"
        );
        let answer = slow.await.unwrap();
        assert!(
            answer.ends_with("slept\n"),
            "{codec}, {runtime}: what was running was cut: {answer}"
        );
        assert_eq!(
            idle.read(&mut [0]).await.unwrap(),
            0,
            "{codec}, {runtime}: idle connections are closed"
        );
    }
}

#[tokio::test]
async fn the_contract_service_refuses_settings_without_meaning() {
    for (name, value) in [
        ("PORT", "x"),
        ("CODEC", "fast"),
        ("WORKERS", "0"),
        ("RUNTIME", "remote"),
    ] {
        let refused = finished("contract", &[], &[(name, value)]).await;
        let complaint = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(
            refused.status.code(),
            Some(2),
            "{name}={value}: {complaint}"
        );
        assert!(
            complaint.contains(name) && complaint.contains(value),
            "{complaint}"
        );
    }
}

/// An example that listens.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Running {
    /// Starts an example and waits until it says where it listens.
    async fn start(example: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut child = command(example, arguments, settings)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{example} does not start ({error}): `cargo build --examples` makes it")
            });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line())
            .await
            .expect("in time")
            .unwrap();
        let line = line.unwrap_or_else(|| panic!("{example} ended without listening"));
        let (_, address) = line
            .split_once("listening on http://")
            .expect("where it listens");
        let address = address.to_owned();
        Self {
            child,
            lines,
            address,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("it listens")
    }

    /// Sends a signal, waits for the end, and returns what was printed since the first line.
    async fn signal(&mut self, name: &str) -> String {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .await
            .unwrap();
        assert!(sent.success());
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends in time")
            .unwrap();
        assert!(status.success(), "{status}");
        let mut rest = String::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            rest = rest + &line + "\n";
        }
        rest
    }

    /// What it wrote to its standard error; call it after the end.
    async fn complaints(&mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut text).await.unwrap();
        text
    }
}

async fn finished(example: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let output = command(example, arguments, settings).output();
    timeout(PATIENCE, output)
        .await
        .expect("it ends in time")
        .unwrap_or_else(|error| {
            panic!("{example} does not start ({error}): `cargo build --examples` makes it")
        })
}

fn command(example: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(built(example));
    command
        .args(arguments)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Where cargo put an example of the profile that this test was built with.
fn built(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.ancestors().nth(2).unwrap_or(Path::new("."));
    profile.join("examples").join(example)
}

/// Sends one request and returns its response, which must say its length.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    loop {
        let read = timeout(PATIENCE, stream.read_buf(&mut response))
            .await
            .expect("in time")
            .unwrap();
        let text = String::from_utf8_lossy(&response);
        assert!(read > 0, "closed after {text}");
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let chunked = head.contains("transfer-encoding: chunked");
        let whole = match length {
            Some(length) => body.len() == length.parse::<usize>().unwrap(),
            None => chunked && body.ends_with("0\r\n\r\n"),
        };
        if whole {
            return text.into_owned();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
