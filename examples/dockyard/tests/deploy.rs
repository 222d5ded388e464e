//! What is in `deploy/`: systemd takes the units; three instances behind HAProxy and behind nginx, one of which is stopped
//! and started again under load.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use support::{Client, Dockyard, run, wait_until};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

#[test]
fn systemd_takes_the_units() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["dockyard.service", "dockyard.socket"] {
        let unit = std::fs::read_to_string(deploy(name)).unwrap();
        // It is installed nowhere here.
        let unit = unit.replace("/usr/local/bin/dockyard", env!("CARGO_BIN_EXE_dockyard"));
        std::fs::write(folder.path().join(name), unit).unwrap();
    }
    let units = ["dockyard.service", "dockyard.socket"].map(|name| folder.path().join(name));
    let said = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&units));
    let about_these: Vec<_> = said
        .lines()
        .filter(|line| line.contains("dockyard"))
        .collect();
    assert_eq!(about_these, [] as [&str; 0]);
}

/// A program that is killed when this is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn();
        let mut running =
            Self(child.unwrap_or_else(|error| panic!("{command:?} can't be run: {error}")));
        wait_until("it listens", || {
            let ended = running.0.try_wait().unwrap();
            assert_eq!(ended, None, "{command:?} has ended");
            Client::try_connect(address).is_ok()
        });
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

struct Instance {
    folder: tempfile::TempDir,
    dockyard: Option<Dockyard>,
    address: SocketAddr,
    arguments: Vec<String>,
}

impl Instance {
    fn start(arguments: &[&str]) -> Self {
        let mut instance = Self {
            folder: tempfile::tempdir().unwrap(),
            dockyard: None,
            address: free_address(),
            arguments: arguments
                .iter()
                .map(|argument| (*argument).to_owned())
                .collect(),
        };
        instance.go_on();
        instance
    }

    fn go_on(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dockyard"));
        command
            .args(["--listen", &self.address.to_string(), "--store"])
            .arg(self.folder.path());
        command
            .arg("--access-log")
            .arg(self.log())
            .args(&self.arguments);
        self.dockyard = Some(Dockyard::spawn(command).unwrap());
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    fn stop(&mut self) {
        let dockyard = self.dockyard.take().unwrap();
        dockyard.signal("TERM");
        assert!(dockyard.ended().success());
    }

    /// A figure of its own, asked for past the balancer.
    fn figure(&self, name: &str) -> u64 {
        let mut client = Client::connect(self.address);
        if self.arguments.contains(&"--proxy-protocol".to_owned()) {
            client.send(b"PROXY UNKNOWN\r\n").unwrap();
        }
        let metrics = client.ask("GET", "/metrics", &[], b"");
        let line = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("{name}: {metrics:?}"))
    }
}

/// Clients that store and read through a balancer, and count what goes wrong.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(front: SocketAddr) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = (0..8_u64).map(|client| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || work(front, client, &stop, &done))
        });
        let threads = threads.collect();
        Self {
            stop,
            done,
            threads,
        }
    }

    /// Waits until so many more requests are answered.
    fn go_on_for(&self, requests: u64) {
        let wanted = self.done.load(Relaxed) + requests;
        wait_until("requests are answered", || {
            self.done.load(Relaxed) >= wanted
        });
    }

    /// What went wrong.
    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        let failed = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        let failed = failed.collect();
        (self.done.load(Relaxed), failed)
    }
}

fn work(front: SocketAddr, client: u64, stop: &AtomicBool, done: &AtomicU64) -> Vec<String> {
    let (mut failed, mut connection) = (Vec::new(), None);
    for number in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let path = format!("/b/load/{client}-{}", number % 40);
        let content = format!("{path} ").repeat(20 + (number % 7) as usize * 200);
        let method = if number % 3 == 0 { "PUT" } else { "GET" };
        let sent = if method == "PUT" {
            content.as_bytes()
        } else {
            b""
        };
        let mut on = connection.take().unwrap_or_else(|| Client::connect(front));
        match on.try_ask(method, &path, &[], sent) {
            // A blob whose instance is away isn't found elsewhere: a miss, as caches have.
            Ok(answer)
                if matches!(answer.status, 201 | 204 | 404)
                    || (answer.status == 200 && answer.content.starts_with(path.as_bytes())) =>
            {
                if answer.field("connection") != Some("close") {
                    connection = Some(on);
                }
            }
            Ok(answer) => failed.push(format!(
                "{method} {path}: {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.content)
            )),
            Err(error) => failed.push(format!("{method} {path}: {error}")),
        }
        done.fetch_add(1, Relaxed);
    }
    failed
}

/// One is stopped and started again while clients work; nobody notices, and each path has one place.
fn a_restart_under_load_fails_nobody(instances: &mut [Instance; 3], front: SocketAddr) {
    let mut client = Client::connect(front);
    for number in 0..60 {
        assert_eq!(
            client
                .ask("PUT", &format!("/b/place/{number}"), &[], b"x")
                .status,
            201
        );
    }
    for number in 0..60 {
        assert_eq!(
            client
                .ask("GET", &format!("/b/place/{number}"), &[], b"")
                .status,
            200
        );
    }
    let places: Vec<_> = instances
        .iter()
        .map(|one| one.figure("dockyard_blobs"))
        .collect();
    assert_eq!(places.iter().sum::<u64>(), 60, "{places:?}");
    assert!(places.iter().all(|blobs| *blobs > 0), "{places:?}");

    let load = Load::start(front);
    load.go_on_for(500);
    instances[1].stop();
    load.go_on_for(500);
    instances[1].go_on();
    wait_until("it has its share again", || {
        instances[1].figure("dockyard_received_bytes_total") > 0
    });
    load.go_on_for(500);
    let (done, failed) = load.end();
    println!("{done} requests, {} failed", failed.len());
    assert_eq!(failed, [] as [&str; 0]);
}

/// From an address of its own, so that it can be told from the balancer.
fn ask_from_elsewhere(front: SocketAddr) {
    let url = format!("http://{front}/b/place/elsewhere");
    run(Command::new("curl").args([
        "-sS",
        "--noproxy",
        "*",
        "--max-time",
        "30",
        "--interface",
        "127.0.0.9",
        &url,
    ]));
}

fn somebody_logged(instances: &[Instance; 3], what: &str) {
    wait_until("the client's address is logged", || {
        instances.iter().any(|one| {
            std::fs::read_to_string(one.log())
                .unwrap_or_default()
                .lines()
                .any(|line| line.contains("/b/place/elsewhere") && line.contains(what))
        })
    });
}

#[test]
fn three_behind_haproxy_lose_nothing_when_one_is_restarted() {
    let mut instances =
        [(); 3].map(|()| Instance::start(&["--proxy-protocol", "127.0.0.1", "--lame-duck", "2"]));
    let front = free_address();
    let mut haproxy = Command::new("haproxy");
    haproxy.env(
        "PATH",
        format!("{}:/usr/sbin", std::env::var("PATH").unwrap()),
    );
    haproxy
        .arg("-f")
        .arg(deploy("haproxy.cfg"))
        .arg("-db")
        .env("DOCKYARD_FRONT", front.to_string());
    for (number, one) in instances.iter().enumerate() {
        haproxy.env(format!("DOCKYARD_{}", number + 1), one.address.to_string());
    }
    let _haproxy = Running::start(&mut haproxy, front);
    wait_until("HAProxy has found them ready", || {
        Client::connect(front)
            .ask("GET", "/readyz", &[], b"")
            .status
            == 200
    });
    ask_from_elsewhere(front);
    somebody_logged(&instances, "\"client\":\"127.0.0.9\"");
    a_restart_under_load_fails_nobody(&mut instances, front);
}

#[test]
fn three_behind_nginx_lose_nothing_when_one_is_restarted() {
    let mut instances = [(); 3].map(|()| Instance::start(&["--trust", "127.0.0.1"]));
    let (front, folder) = (free_address(), tempfile::tempdir().unwrap());
    let mut configuration = std::fs::read_to_string(deploy("nginx.conf")).unwrap();
    configuration = configuration.replace("0.0.0.0:8888", &front.to_string());
    for (number, one) in instances.iter().enumerate() {
        configuration = configuration.replace(
            &format!("10.0.0.{}:8888", number + 1),
            &one.address.to_string(),
        );
    }
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.env(
        "PATH",
        format!("{}:/usr/sbin", std::env::var("PATH").unwrap()),
    );
    let globals = format!(
        "daemon off; pid {0}/pid; error_log stderr warn;",
        folder.path().display()
    );
    nginx
        .arg("-p")
        .arg(folder.path())
        .arg("-c")
        .arg(&file)
        .args(["-g", &globals]);
    let _nginx = Running::start(&mut nginx, front);
    wait_until("nginx answers", || {
        Client::connect(front)
            .ask("GET", "/readyz", &[], b"")
            .status
            == 200
    });
    ask_from_elsewhere(front);
    somebody_logged(&instances, "\"client\":\"127.0.0.9\"");
    a_restart_under_load_fails_nobody(&mut instances, front);
}
