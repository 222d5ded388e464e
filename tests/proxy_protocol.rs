//! The real HAProxy before a server that requires the PROXY protocol: both versions, health checks, and what a client
//! that comes past the balancer gets.
//!
//! Without HAProxy these tests fail: `.ci/run` installs what is missing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::sync::oneshot;
use tower::ServiceBuilder;
use wharf::{
    Body, BoxError, CloseReason, ConnInfo, ConnReport, Http, Listener, ProxyClient, ProxyError,
    ProxyProtocol, Report, Server, Shutdown,
};

/// What a test waits for at most; nothing should come near it.
const SOON: Duration = Duration::from_secs(20);

/// A server on a thread of its own, that trusts `trusted`.
struct Wharf {
    address: SocketAddr,
    reports: Receiver<ConnReport>,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Report>,
}

impl Wharf {
    fn start(trusted: &'static str) -> Self {
        let listener = Listener::tcp("127.0.0.1:0").unwrap();
        let address = listener.local().socket().unwrap();
        let (tell, reports) = channel();
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let stack = ServiceBuilder::new()
                .layer(ProxyProtocol::required().trust([trusted])?)
                .layer(Http::new())
                .service_fn(answer);
            Server::new()
                .listen(listener)?
                .shutdown(Shutdown::when(async { stopped.await.unwrap_or_default() }))
                .on_close(move |conn| drop(tell.send(conn.clone())))
                .serve(stack)
                .await
        };
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(serve).unwrap()
        });
        Self {
            address,
            reports,
            stop,
            thread,
        }
    }

    /// The account of the next connection of which this holds.
    fn report(&self, wanted: impl Fn(&ConnReport) -> bool) -> ConnReport {
        let begun = Instant::now();
        loop {
            let report = self.reports.recv_timeout(SOON).expect("a report");
            if wanted(&report) {
                return report;
            }
            assert!(begun.elapsed() < SOON, "the last one was: {report}");
        }
    }

    fn end(self) -> Report {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// Says what the connection's facts are.
async fn answer(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let info = ConnInfo::of(&request).ok_or("no connection")?;
    let proxy = info.proxy.as_ref().ok_or("no header")?;
    let id = String::from_utf8_lossy(proxy.unique_id().unwrap_or(b"-"));
    let line = format!("{} {} {} {id}", info.peer, info.local, proxy.peer);
    Ok(Response::new(Body::from(line)))
}

/// HAProxy before `server`, on a port of its own.
struct Haproxy {
    process: Child,
    address: SocketAddr,
    config: PathBuf,
}

impl Haproxy {
    fn start(name: &str, frontend: &str, server: SocketAddr, options: &str) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let config =
            std::env::temp_dir().join(format!("wharf-haproxy-{}-{name}", std::process::id()));
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n timeout check 5s\n\
             listen wharf\n bind fd@3\n{frontend} server one {server} {options}\n"
        );
        std::fs::write(&config, text).unwrap();
        // Debian has it where only root looks.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let process = Command::new("sh")
            .args(["-c", "exec 3<&0; exec haproxy -db -q -f \"$0\""])
            .arg(&config)
            .env("PATH", path)
            .stdin(OwnedFd::from(socket))
            .stdout(Stdio::null())
            .spawn()
            .expect("a shell");
        Self {
            process,
            address,
            config,
        }
    }

    /// What a client gets, and its own address.
    fn ask(&self) -> (String, SocketAddr) {
        // Connected before HAProxy is up, it waits in the queue.
        let mut client = TcpStream::connect(self.address).unwrap();
        let own = client.local_addr().unwrap();
        (ask(&mut client), own)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

fn ask(client: &mut TcpStream) -> String {
    client.set_read_timeout(Some(SOON)).unwrap();
    let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    // A connection that is refused is reset, its request unread.
    let _ = client.read_to_string(&mut answer);
    answer
}

#[test]
fn haproxy_speaks_for_its_clients_in_version_1_and_2() {
    for (name, frontend, options, id) in [
        ("v1", "", "send-proxy", "-"),
        ("v2", "", "send-proxy-v2", "-"),
        (
            "v2-id",
            " unique-id-format id-%ci\n",
            "send-proxy-v2 proxy-v2-options unique-id,ssl,crc32c",
            "id-127.0.0.1",
        ),
    ] {
        let wharf = Wharf::start("127.0.0.0/8");
        let haproxy = Haproxy::start(name, frontend, wharf.address, options);
        for _ in 0..3 {
            let (answer, own) = haproxy.ask();
            let report = wharf.report(|_| true);
            let proxy = report.info.proxy.unwrap();
            assert_eq!(
                (proxy.client, &report.info.peer),
                (ProxyClient::Told, &own.into())
            );
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n"),
                "{name}: {answer}"
            );
            let wanted = format!("\r\n\r\n{own} {} {} {id}", haproxy.address, proxy.peer);
            assert!(answer.ends_with(&wanted), "{name}: {answer}, not {wanted}");
        }
        assert_eq!(wharf.end().requests, 3);
    }
}

#[test]
fn its_health_checks_speak_for_nobody() {
    for (name, options, wanted) in [
        // Version 1 has no word for it: the check's own addresses are told, or none.
        (
            "check-v1",
            "send-proxy check inter 100ms",
            &[ProxyClient::Told, ProxyClient::Unknown][..],
        ),
        (
            "check-v2",
            "send-proxy-v2 check inter 100ms",
            &[ProxyClient::Itself],
        ),
    ] {
        let wharf = Wharf::start("127.0.0.1");
        let _haproxy = Haproxy::start(name, "", wharf.address, options);
        let report = wharf.report(|report| report.info.proxy.is_some());
        let client = report.info.proxy.as_ref().unwrap().client;
        assert!(wanted.contains(&client), "{name}: {client:?}");
        let peer = report.info.peer.socket().unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.1");
        // HAProxy doesn't always say goodbye to a check.
        let ended = [
            CloseReason::ClientClosed,
            CloseReason::Io(ErrorKind::ConnectionReset),
        ];
        assert!(ended.contains(&report.reason), "{name}: {report}");
    }
}

#[test]
fn who_comes_past_the_balancer_or_from_an_untrusted_one_is_closed() {
    let wharf = Wharf::start("127.0.0.0/8");
    assert_eq!(ask(&mut TcpStream::connect(wharf.address).unwrap()), "");
    let report = wharf.report(|_| true);
    assert_eq!(report.reason, CloseReason::Proxy(ProxyError::Missing));
    let told = wharf.end().to_string();
    assert_eq!(
        told,
        "0 requests on 1 connection; closed: 1 for want of a PROXY header"
    );

    let wharf = Wharf::start("192.0.2.0/24");
    let haproxy = Haproxy::start("untrusted", "", wharf.address, "send-proxy-v2");
    assert_eq!(haproxy.ask().0, "");
    let report = wharf.report(|_| true);
    assert_eq!(report.reason, CloseReason::Proxy(ProxyError::Untrusted));
    assert_eq!(report.info.proxy, None);
}

#[test]
fn who_is_silent_keeps_nobody_waiting() {
    let wharf = Wharf::start("127.0.0.1");
    let mut silent: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(wharf.address).unwrap())
        .collect();
    let mut client = TcpStream::connect(wharf.address).unwrap();
    client
        .write_all(b"PROXY TCP4 192.0.2.1 198.51.100.2 1 80\r\n")
        .unwrap();
    let begun = Instant::now();
    let answer = ask(&mut client);
    let own = client.local_addr().unwrap();
    let wanted = format!("\r\n\r\n192.0.2.1:1 198.51.100.2:80 {own} -");
    assert!(answer.ends_with(&wanted), "{answer}");
    // The others have five seconds.
    assert!(begun.elapsed() < Duration::from_secs(4));

    for late in &mut silent {
        late.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
    }
    assert!(begun.elapsed() > Duration::from_secs(4));
    let late = CloseReason::Proxy(ProxyError::Late { got: 0 });
    wharf.report(|report| report.reason == late);
    let told = wharf.end().closed;
    assert_eq!(told["for want of a PROXY header"], 100);
}
