//! The example `edge` as its operators use it: a process that is probed, measured, told to open its log anew, and stopped.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

struct Edge {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    service: String,
    operators: String,
}

impl Edge {
    fn start(log: &Path) -> Self {
        let mut child = Command::new(example("edge"))
            .args(["127.0.0.1:0", "127.0.0.1:0"])
            .arg(log)
            .arg("600")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("edge does not start ({error}): `cargo build -p wharf-middleware --examples` makes it")
            });
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = || {
            let line = said.next().expect("a line").unwrap();
            line.split_once("http://").expect("an address").1.to_owned()
        };
        let (service, operators) = (address(), address());
        Self {
            child,
            said,
            service,
            operators,
        }
    }

    fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        let kill = Command::new("kill").args(["-s", name, &process]).status();
        assert!(kill.expect("kill").success());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Beside the test, where cargo puts the examples of the same build.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE");
    profile.join("examples").join(name)
}

/// Status and body.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .expect("a status")
        .parse()
        .expect("a number");
    (status, body.to_owned())
}

fn until<T>(reached: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = reached() {
            return value;
        }
        assert!(Instant::now() < deadline, "not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_is_probed_measured_rotated_and_stopped() {
    let directory = std::env::temp_dir().join(format!("wharf-edge-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (log, moved) = (directory.join("access.log"), directory.join("access.log.1"));
    let mut edge = Edge::start(&log);

    until(|| (get(&edge.operators, "/readyz").0 == 200).then_some(()));
    assert_eq!(get(&edge.service, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(&edge.service, "/before").0, 200);
    let (status, page) = get(&edge.operators, "/metrics");
    assert_eq!(status, 200);
    // Only what isn't a probe.
    assert!(
        page.contains("http_requests_total{method=\"GET\",status=\"2xx\"} 1\n"),
        "{page}"
    );
    assert!(page.contains("overload_refused_total 0\n"), "{page}");

    fs::rename(&log, &moved).unwrap();
    edge.signal("HUP");
    assert_eq!(
        edge.said.next().unwrap().unwrap(),
        "the access log is opened anew"
    );
    assert_eq!(get(&edge.service, "/after").0, 200);

    edge.signal("TERM");
    let (status, said) =
        until(|| Some(get(&edge.operators, "/readyz")).filter(|(status, _)| *status != 200));
    assert_eq!((status, &*said), (503, "not ready: lame duck\n"));
    assert_eq!(get(&edge.operators, "/livez"), (200, "alive\n".to_owned()));
    // The second signal ends what the first one began.
    edge.signal("TERM");
    assert!(edge.child.wait().unwrap().success());
    let report = edge.said.next().unwrap().unwrap();
    assert!(
        report.starts_with("3 requests on 3 connections"),
        "{report}"
    );
    // Written to the end before the process was: what came before the signal in the old file, and what came after in the new one.
    let (old, new) = (
        fs::read_to_string(moved).unwrap(),
        fs::read_to_string(log).unwrap(),
    );
    assert_eq!(
        (old.lines().count(), new.lines().count()),
        (1, 1),
        "{old}{new}"
    );
    assert!(
        old.contains("/before") && new.contains("/after"),
        "{old}{new}"
    );
    fs::remove_dir_all(directory).unwrap();
}
