//! Payloads said to a proxy, with a recording server behind it. The proxy marks what it sends on with a number and with its own
//! reading of method and target, so that a request which it didn't mean shows: it has no mark, or another's.
//!
//! Behind each payload a fence goes through: an ordinary request of another client. It must be answered with its own answer, and what
//! was recorded before it is the payload's. Connections to the server are kept and shared, so whatever a payload left behind on one is
//! in front of the fence.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};

use crate::Failure;
use crate::child::{Child, HAPROXY, NGINX};
use crate::client::{statuses, talk};
use crate::direct::{Log, Outcome, Seen, Server, said};
use crate::payloads::Payload;
use crate::request::{Request, origin_form};

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
}

/// What came through a proxy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passage {
    /// What the server behind it took, and what the client was told.
    pub(crate) outcome: Outcome,
    /// What the server saw that the proxy didn't send, or answered to somebody else.
    pub(crate) faults: Vec<String>,
}

/// Says each payload to the proxy in front of that server.
pub(crate) async fn through(
    proxy: Proxy,
    server: Server,
    payloads: &[Payload],
) -> Result<Vec<Passage>, Failure> {
    let log = Log::default();
    let port = recorder(server, log.clone()).await?;
    let home = TempDir::new()?;
    let socket = home.path().join("proxy.sock");
    let mut child = Child::start(proxy.command(home.path(), port)?)?;
    child.listens(&socket).await?;

    let mut passages = Vec::new();
    let mut numbers = HashSet::new();
    for (at, payload) in payloads.iter().enumerate() {
        let client = UnixStream::connect(&socket).await?;
        let answers = said(
            payload,
            talk(client, &payload.bytes, payload.answers()).await,
        )?;
        let mut faults = said(payload, fence(&socket, at).await)?;
        let mut seen = std::mem::take(&mut *log.lock().expect("a log"));
        let last = seen.pop();
        if !last.is_some_and(|last| last.request == Request::new("GET", &fence_target(at), b"")) {
            faults.push("the fence isn't the last that the server saw".to_owned());
        }
        faults.extend(seen.iter().filter_map(|seen| fault(seen, &mut numbers)));
        let outcome = Outcome {
            taken: seen.into_iter().map(|seen| seen.request).collect(),
            statuses: statuses(&answers),
        };
        passages.push(Passage { outcome, faults });
    }
    Ok(passages)
}

/// Starts the server behind the proxy; its port.
async fn recorder(server: Server, log: Log) -> Result<u16, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(server.serve(stream, log.clone()));
        }
    });
    Ok(port)
}

fn fence_target(at: usize) -> String {
    format!("/fence/{at}")
}

/// Sends the fence through; what was wrong with its answer.
async fn fence(socket: &Path, at: usize) -> Result<Vec<String>, Failure> {
    let target = fence_target(at);
    let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
    let client = UnixStream::connect(socket).await?;
    let answers = talk(client, request.as_bytes(), 1).await?;
    let is_own = answers.ends_with(target.as_bytes());
    Ok(match statuses(&answers)[..] {
        [200] if is_own => vec![],
        _ => vec!["another client got an answer that isn't its own".to_owned()],
    })
}

/// What is wrong with the proxy's mark in a request: each has one, of its own, and it says what the server understood.
fn fault(seen: &Seen, numbers: &mut HashSet<String>) -> Option<String> {
    let request = &seen.request;
    let [mark] = &seen.marks[..] else {
        return Some(format!("the proxy didn't send {request}"));
    };
    let words: Vec<&str> = mark.splitn(3, ' ').collect();
    let [number, method, target] = words[..] else {
        return Some(format!("the proxy doesn't write such a mark: {mark}"));
    };
    let is_new = numbers.insert(number.to_owned());
    let is_same = method == request.method && origin_form(target) == request.target;
    (!is_new || !is_same).then(|| format!("the proxy sent {method} {target}, not {request}"))
}

impl Proxy {
    /// The command that runs it in the foreground with everything in `home`.
    fn command(self, home: &Path, port: u16) -> Result<Command, Failure> {
        let file = home.join("proxy.conf");
        let text = match self {
            Self::Nginx => include_str!("nginx.conf"),
            Self::Haproxy => include_str!("haproxy.cfg"),
        };
        let text = text
            .replace("{home}", &home.to_string_lossy())
            .replace("{port}", &port.to_string());
        std::fs::write(&file, text)?;
        Ok(match self {
            Self::Nginx => {
                let mut command = NGINX.command();
                // Before it has read the file it would log where Debian does.
                command.arg("-e").arg(home.join("error.log"));
                command.arg("-p").arg(home).arg("-c").arg(file);
                command
            }
            Self::Haproxy => {
                let mut command = HAPROXY.command();
                command.arg("-q").arg("-db").arg("-f").arg(file);
                command
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(marks: &[&str]) -> Seen {
        Seen {
            request: Request::new("GET", "/x", b""),
            marks: marks.iter().map(|mark| mark.to_string()).collect(),
        }
    }

    #[test]
    fn a_request_has_one_mark_of_its_own_that_says_what_the_server_understood() {
        let mut numbers = HashSet::new();
        assert_eq!(fault(&seen(&["1 GET /x"]), &mut numbers), None);
        for marks in [
            &[][..],
            &["1 GET /x"],
            &["2 GET /y"],
            &["3 POST /x"],
            &["4 GET /x", "5 GET /x"],
            &["6"],
        ] {
            assert!(fault(&seen(marks), &mut numbers).is_some(), "{marks:?}");
        }
    }
}
