//! A dockyard as a child process, and a client that sees every byte of its answers.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::borrow::BorrowMut;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// How long something may take that takes a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running dockyard; killed when it is dropped.
pub(crate) struct Dockyard {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// What it said at its start.
    pub(crate) banner: String,
    errors: Arc<Mutex<String>>,
}

impl Dockyard {
    /// In memory.
    pub(crate) fn in_memory(arguments: &[&str]) -> Self {
        Self::start(&[&["--memory"], arguments].concat())
    }

    /// With these arguments, on a port of its own.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dockyard"));
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        Self::spawn(command).unwrap_or_else(|said| panic!("it doesn't start: {said}"))
    }

    /// By this command; what it said if it ends instead.
    pub(crate) fn spawn(mut command: impl BorrowMut<Command>) -> Result<Self, String> {
        let mut child = command
            .borrow_mut()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        let is_whole = lines.by_ref().map_while(Result::ok).any(|line| {
            banner += &line;
            banner += "\n";
            line.contains("Ctrl-C")
        });
        let mut errors = child.stderr.take().unwrap();
        if !is_whole {
            let mut said = String::new();
            errors.read_to_string(&mut said).unwrap();
            child.wait().unwrap();
            return Err(said);
        }
        let listening = banner.split_once("://").expect("an address").1;
        let address = listening.split_whitespace().next().unwrap();
        let address = address.parse().expect("an address");
        // Whoever isn't read from stands still one day.
        std::thread::spawn(move || lines.for_each(drop));
        let heard = Arc::<Mutex<String>>::default();
        let ear = heard.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                eprintln!("{line}");
                *ear.lock().unwrap() += &(line + "\n");
            }
        });
        let dockyard = Self {
            child,
            address,
            banner,
            errors: heard,
        };
        wait_until("it answers", || TcpStream::connect(address).is_ok());
        Ok(dockyard)
    }

    /// What it has said on standard error since its start.
    pub(crate) fn said(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.banner.contains("https://") {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}{path}", self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, method: &str, path: &str, fields: &[&str], content: &[u8]) -> Answer {
        let mut client = Client::connect(self.address);
        client.ask(method, path, fields, content)
    }

    pub(crate) fn put(&self, path: &str, content: &[u8]) -> Answer {
        self.ask("PUT", path, &[], content)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// As a supervisor does.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> std::process::ExitStatus {
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Dockyard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) content: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.content).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.content).unwrap()
    }
}

/// A connection to a server.
pub(crate) struct Client {
    io: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.io.get_ref().local_addr().unwrap()
    }

    /// One that takes little before it is read from.
    pub(crate) fn with_small_window(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            io: BufReader::new(socket.into()),
        }
    }

    pub(crate) fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let io = TcpStream::connect(address)?;
        io.set_read_timeout(Some(PATIENCE))?;
        io.set_nodelay(true)?;
        Ok(Self {
            io: BufReader::new(io),
        })
    }

    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[&str],
        content: &[u8],
    ) -> Answer {
        self.try_ask(method, path, fields, content).unwrap()
    }

    pub(crate) fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[&str],
        content: &[u8],
    ) -> std::io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        for field in fields {
            head += &format!("{field}\r\n");
        }
        let says_length = fields.iter().any(|field| {
            field.starts_with("content-length") || field.starts_with("transfer-encoding")
        });
        if method == "PUT" && !says_length {
            head += &format!("content-length: {}\r\n", content.len());
        }
        head += "\r\n";
        self.send(&[head.as_bytes(), content].concat())?;
        self.answer(method)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.io.get_mut().write_all(bytes)
    }

    /// Reads the next answer, an interim one too.
    pub(crate) fn answer(&mut self, method: &str) -> std::io::Result<Answer> {
        let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let mut line = || {
            let mut line = String::new();
            match self.io.read_line(&mut line)? {
                0 => Err(broken()),
                _ => Ok(line.trim_end().to_owned()),
            }
        };
        let status = line()?
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(broken)?;
        let mut fields = Vec::new();
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer {
            status,
            fields,
            content: Vec::new(),
        };
        if method == "HEAD" || status < 200 || matches!(status, 204 | 304) {
            return Ok(answer);
        }
        if let Some(length) = answer.field("content-length") {
            answer.content = vec![0; length.parse().unwrap()];
            self.io.read_exact(&mut answer.content)?;
        } else if answer.field("transfer-encoding").is_none() {
            self.io.read_to_end(&mut answer.content)?;
        }
        Ok(answer)
    }

    /// Reads a line of an answer that goes on.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.io.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

/// Runs a tool; its output, or a failed test.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}
