//! Sockets that a supervisor passes: this file's tests are the supervisor, and run their own binary again as the server,
//! through a shell that puts the sockets where `LISTEN_FDS` says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{Request, Response};
use wharf::{Body, BoxError, ConnInfo, Listener, Server};

/// What a test waits for at most; nothing should come near it.
const SOON: Duration = Duration::from_secs(20);
const CHILD: &str = "WHARF_TEST_CHILD";

/// Not a test by itself: the server that the tests run. Answers with the listener's name and the address accepted on.
#[tokio::test]
async fn child_that_serves_what_it_inherits() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let answer = tower::service_fn(|request: Request<Body>| async move {
        let info = ConnInfo::of(&request).expect("it came on a connection");
        let body = Body::from(format!("{} {}", info.listener, info.local));
        Ok::<_, BoxError>(Response::new(body))
    });
    let stack = tower_layer::Layer::layer(&wharf::Http::new(), answer);
    let server = Server::new().inherited().expect("sockets");
    assert_eq!(
        Listener::inherited().expect("an answer").len(),
        0,
        "taken twice"
    );
    server.serve(stack).await.expect("a server");
}

/// A server that runs with a TCP socket as descriptor 3 and a Unix socket as 4.
struct Activated(Child);

impl Activated {
    fn start(tcp: &TcpListener, unix: &UnixListener, notify: &str) -> Self {
        let script = "exec 3<&0 4<&1 0</dev/null 1>&2; \
                      export LISTEN_FDS=2 LISTEN_FDNAMES=web:local LISTEN_PID=$$; exec \"$0\" \"$@\"";
        Self::run(script, tcp, unix, notify)
    }

    fn run(script: &str, tcp: &TcpListener, unix: &UnixListener, notify: &str) -> Self {
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_serves_what_it_inherits"])
            .env(CHILD, "1")
            .env("NOTIFY_SOCKET", notify)
            .stdin(OwnedFd::from(tcp.try_clone().unwrap()))
            .stdout(OwnedFd::from(unix.try_clone().unwrap()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let kill = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(kill.success());
    }

    /// Returns when it stands still.
    fn stop(&self) {
        self.signal("-STOP");
        let facts = format!("/proc/{}/stat", self.0.id());
        let begun = Instant::now();
        while !std::fs::read_to_string(&facts).unwrap().contains(") T ") {
            assert!(begun.elapsed() < SOON, "it doesn't stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < SOON, "it doesn't end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A path of its own, removed with what is there.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("wharf-inherited-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn told(supervisor: &UnixDatagram) -> String {
    supervisor.set_read_timeout(Some(SOON)).unwrap();
    let mut message = [0; 4096];
    let length = supervisor.recv(&mut message).expect("word from the server");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

/// A queue as long as the system allows.
fn bind() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&socket).listen(4096).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn ask(stream: &mut (impl Read + Write)) -> String {
    say(stream);
    answer(stream)
}

fn say(stream: &mut impl Write) {
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
}

fn answer(stream: &mut impl Read) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
}

#[test]
fn tcp_and_unix_sockets_are_served_under_the_names_they_were_passed_with() {
    let (tcp, address) = bind();
    let (path, notify) = (Scratch::new("named"), Scratch::new("notify"));
    let unix = UnixListener::bind(&path.0).unwrap();
    let supervisor = UnixDatagram::bind(&notify.0).unwrap();

    let mut server = Activated::start(&tcp, &unix, notify.text());
    let path = path.text();
    assert_eq!(
        told(&supervisor),
        format!("READY=1\nSTATUS=listening on {address}, unix:{path}")
    );
    let mut client = TcpStream::connect(address).unwrap();
    assert_eq!(ask(&mut client), format!("web {address}"));
    let mut client = UnixStream::connect(path).unwrap();
    assert_eq!(ask(&mut client), format!("local unix:{path}"));

    server.signal("-TERM");
    let last = told(&supervisor);
    let rest = last.strip_prefix("STOPPING=1\nSTATUS=shutting down, ");
    assert!(
        rest.is_some_and(|rest| rest.ends_with(" connections open")),
        "{last}"
    );
    assert!(server.end().success());
    assert!(
        std::fs::exists(path).unwrap(),
        "the supervisor's file was removed"
    );
}

#[test]
fn a_supervisor_may_have_an_abstract_address() {
    let (tcp, _) = bind();
    let path = Scratch::new("abstract");
    let unix = UnixListener::bind(&path.0).unwrap();
    let name = format!("wharf-notify-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).unwrap();
    let supervisor = UnixDatagram::bind_addr(&address).unwrap();

    let mut server = Activated::start(&tcp, &unix, &format!("@{name}"));
    assert!(told(&supervisor).starts_with("READY=1\n"));
    server.signal("-TERM");
    assert!(told(&supervisor).starts_with("STOPPING=1\n"));
    assert!(server.end().success());
}

#[test]
fn what_was_not_passed_to_this_server_is_refused_with_a_sentence() {
    let (tcp, _) = bind();
    let path = Scratch::new("refused");
    let unix = UnixListener::bind(&path.0).unwrap();
    for (script, sentence) in [
        // Without `exec` the server is a child of the shell.
        (
            "exec 3<&0 1>&2; export LISTEN_FDS=1 LISTEN_PID=$$; \"$0\" \"$@\"",
            "the sockets of LISTEN_FDS were passed to process ",
        ),
        (
            "exec 3</dev/null 1>&2; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"",
            "descriptor 3 is no listening TCP or Unix socket",
        ),
        // By then the runtime has a descriptor of that number.
        (
            "exec 3<&- 1>&2; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"",
            "LISTEN_FDS passes descriptor 3, which this process has opened itself",
        ),
        (
            "exec 3<&0 1>&2; unset LISTEN_FDS; exec \"$0\" \"$@\"",
            "a server needs something to listen on",
        ),
    ] {
        let mut server = Activated::run(script, &tcp, &unix, "");
        let mut said = String::new();
        let mut stderr = server.0.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert!(said.contains(sentence), "{script}: {said}");
        assert!(!server.end().success(), "{script}");
    }
}

/// Asks for what the limit of open files and the system's longest queue allow.
fn queue_length() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    let queue = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    let length = 4000.min(files.unwrap_or(4000) - 200).min(queue);
    assert!(length >= 800, "too few for a test: {length}");
    length
}

#[test]
fn whoever_is_queued_is_served_by_the_next_server_however_the_last_one_ended() {
    let (tcp, address) = bind();
    let (path, notify) = (Scratch::new("restart"), Scratch::new("restarts"));
    let unix = UnixListener::bind(&path.0).unwrap();
    let supervisor = UnixDatagram::bind(&notify.0).unwrap();
    let queued = queue_length();
    println!("{queued} queued");
    for ending in ["-TERM", "-KILL"] {
        let mut first = Activated::start(&tcp, &unix, notify.text());
        assert!(told(&supervisor).starts_with("READY=1\n"));
        ask(&mut TcpStream::connect(address).unwrap());
        let connect = || TcpStream::connect(address).unwrap();
        let mut clients: Vec<_> = if ending == "-TERM" {
            first.signal(ending);
            assert!(told(&supervisor).starts_with("STOPPING=1\n"));
            assert!(first.end().success());
            (0..queued).map(|_| connect()).collect()
        } else {
            // Stopped at once, so that it accepts none of them before its end.
            first.stop();
            let clients = (0..queued).map(|_| connect()).collect();
            first.signal(ending);
            assert!(!first.end().success());
            clients
        };
        clients.iter_mut().for_each(say);

        let _second = Activated::start(&tcp, &unix, notify.text());
        assert!(told(&supervisor).starts_with("READY=1\n"));
        let wanted = format!("web {address}");
        for client in &mut clients {
            client.set_read_timeout(Some(SOON)).unwrap();
            assert_eq!(answer(client), wanted);
        }
    }
}

#[test]
fn restarts_under_load_lose_no_new_connection() {
    let (tcp, address) = bind();
    let (path, notify) = (Scratch::new("rolling"), Scratch::new("rollings"));
    let unix = UnixListener::bind(&path.0).unwrap();
    let supervisor = UnixDatagram::bind(&notify.0).unwrap();
    let wanted = format!("web {address}");
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let ask_on = || {
            while !stop.load(Relaxed) {
                let mut client = TcpStream::connect(address).unwrap();
                client.set_read_timeout(Some(SOON)).unwrap();
                assert_eq!(ask(&mut client), wanted);
                answered.fetch_add(1, Relaxed);
            }
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask_on)).collect();
        for _ in 0..5 {
            let mut server = Activated::start(&tcp, &unix, notify.text());
            assert!(told(&supervisor).starts_with("READY=1\n"));
            let before = answered.load(Relaxed);
            let begun = Instant::now();
            while answered.load(Relaxed) < before + 100 {
                assert!(begun.elapsed() < SOON, "nobody is served");
                std::thread::sleep(Duration::from_millis(1));
            }
            server.signal("-TERM");
            assert!(told(&supervisor).starts_with("STOPPING=1\n"));
            assert!(server.end().success());
        }
        // Whoever waits now is the last server's.
        stop.store(true, Relaxed);
        let _server = Activated::start(&tcp, &unix, notify.text());
        assert!(told(&supervisor).starts_with("READY=1\n"));
        for client in clients {
            client.join().expect("nobody is lost");
        }
    });
}
