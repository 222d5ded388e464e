//! The servers: how each is started, and what the kernel says of it. A server is a child on one core and ends with its
//! value.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{BoxError, Places};

/// Who is compared, as the rows call it and as readers do.
pub const NAMES: [(&str, &str); 15] = [
    ("floor", "raw epoll, no HTTP at all"),
    ("wharf", "wharf"),
    ("wharf-httparse", "wharf, `Httparse` codec"),
    ("wharf-bare", "wharf without server, deadlines far away"),
    ("hyper", "hyper, `pipeline_flush(true)`"),
    ("hyper-default", "hyper"),
    ("wharf-axum", "axum `Router` on wharf"),
    ("axum", "axum `Router` on `axum::serve`"),
    ("actix", "actix-web"),
    ("ntex", "ntex"),
    ("xitca", "xitca-web"),
    ("may", "may_minihttp"),
    ("nginx", "nginx"),
    ("fasthttp", "Go fasthttp"),
    ("nethttp", "Go net/http"),
];

/// What a peer can't do, or is not asked to.
pub fn serves(server: &str, workload: &str) -> bool {
    let bodies = matches!(workload, "post" | "echo" | "upload");
    match server {
        "floor" => !bodies && !matches!(workload, "json" | "down"),
        "nginx" => !bodies,
        "may" => !matches!(workload, "upload" | "down" | "connection"),
        "xitca" => !matches!(workload, "upload" | "down"),
        _ => true,
    }
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Only nginx has one, for its configuration and the file that it sends.
    home: Option<PathBuf>,
}

impl Server {
    /// Starts it on these cores, as `taskset` calls them; `None` when it isn't installed here.
    pub fn start(
        places: &Places,
        name: &str,
        cores: &str,
        workers: usize,
    ) -> Result<Option<Self>, BoxError> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).env("GOMAXPROCS", "1");
        let mut home = None;
        let binary = match name {
            "nginx" => match ["/usr/sbin/nginx", "/usr/bin/nginx"]
                .map(Path::new)
                .into_iter()
                .find(|at| at.exists())
            {
                Some(at) => at.to_owned(),
                None => return Ok(None),
            },
            "actix" | "ntex" | "xitca" | "may" => places.binaries.join(format!("peer-{name}")),
            "nethttp" | "fasthttp" => places.binaries.join(name),
            _ => places.binaries.join("peer-tokio"),
        };
        if !binary.exists() {
            return Ok(None);
        }
        command.arg(binary);
        match name {
            "nginx" => {
                let at = places.measured.join(format!("nginx-{}", address.port()));
                nginx(&at, address)?;
                command
                    .arg("-p")
                    .arg(&at)
                    .arg("-c")
                    .arg(at.join("nginx.conf"));
                home = Some(at);
            }
            "actix" | "ntex" | "xitca" | "may" | "nethttp" | "fasthttp" => {
                command.arg(address.to_string());
            }
            _ => {
                command.args([name, &address.to_string(), &workers.to_string()]);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self {
            child,
            address,
            home,
        };
        server.await_listening(name)?;
        Ok(Some(server))
    }

    fn await_listening(&self, name: &str) -> Result<(), BoxError> {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if start.elapsed() > Duration::from_secs(5) {
                return Err(format!("{name} doesn't listen on {}", self.address).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time of all its threads, by the scheduler's own account, in nanoseconds.
    pub fn cpu(&self) -> io::Result<Duration> {
        let mut total = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let account = fs::read_to_string(thread?.path().join("schedstat"))?;
            let ran = account.split(' ').next().and_then(|ran| ran.parse().ok());
            total += ran.unwrap_or(0u64);
        }
        Ok(Duration::from_nanos(total))
    }

    /// Bytes of memory in use. The kernel counts pages for this, where `VmRSS` may be some behind.
    pub fn resident(&self) -> io::Result<u64> {
        let pages = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id()))?;
        let line = pages.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::other("smaps_rollup has no Rss"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(home) = &self.home {
            let _ = fs::remove_dir_all(home);
        }
    }
}

/// One process, no log, the file of `/down` made here.
fn nginx(at: &Path, address: SocketAddr) -> io::Result<()> {
    fs::create_dir_all(at.join("files"))?;
    fs::write(at.join("files/down"), vec![b'x'; 10 << 20])?;
    let at_text = at.display();
    let configuration = format!(
        "daemon off; master_process off; pid {at_text}/pid; error_log /dev/null;\n\
         events {{ worker_connections 18000; }}\n\
         http {{\n  access_log off; keepalive_requests 1000000000; sendfile on; tcp_nodelay on; root {at_text}/files;\n  \
         client_body_temp_path {at_text}/a; proxy_temp_path {at_text}/b; fastcgi_temp_path {at_text}/c;\n  \
         uwsgi_temp_path {at_text}/d; scgi_temp_path {at_text}/e;\n  \
         server {{\n    listen {address} backlog=1024;\n    \
         location = / {{ default_type text/plain; return 200 \"Hello, World!\"; }}\n    \
         location = /json {{ default_type application/json; return 200 '{{\"message\":\"Hello, World!\"}}'; }}\n  }}\n}}\n"
    );
    fs::write(at.join("nginx.conf"), configuration)
}
