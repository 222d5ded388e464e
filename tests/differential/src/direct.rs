//! Payloads said to a server itself: wharf and hyper in this process, Node in its own. Each connection has an account of its own.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::ChildStdout;
use tokio::time::timeout;
use wharf::codec::{Httparse, Strict};
use wharf::{BoxError, Http};

use crate::Failure;
use crate::child::NODE;
use crate::client::{PATIENCE, statuses, talk};
use crate::payloads::Payload;
use crate::request::{Request, origin_form};

/// What a server made of a payload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// The requests that it took, whole, in order.
    pub(crate) taken: Vec<Request>,
    /// The statuses that the client got.
    pub(crate) statuses: Vec<u16>,
}

impl Outcome {
    /// The status of the refusal that ended the connection.
    pub(crate) fn refusal(&self) -> Option<u16> {
        self.statuses
            .last()
            .copied()
            .filter(|status| *status >= 400)
    }
}

/// Where a server in this process writes what it took.
pub(crate) type Log = Arc<Mutex<Vec<Seen>>>;

/// A request, and what a proxy wrote into it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) request: Request,
    pub(crate) marks: Vec<String>,
}

/// The field by which a proxy marks what it sends on.
pub(crate) const MARK: &str = "x-proxy";

/// One of the servers that run in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Wharf,
    WharfHttparse,
    Hyper,
}

impl Server {
    /// Serves one connection to its end, however it ends.
    pub(crate) async fn serve(self, stream: TcpStream, log: Log) {
        const WORKS: &str = "default limits work";
        let wharf = Http::new();
        match self {
            Self::Wharf => {
                let service = tower::service_fn(move |request| record(request, log.clone()));
                let wharf = wharf.codec(Strict::new);
                wharf.connection(stream.into(), service).expect(WORKS).await;
            }
            Self::WharfHttparse => {
                let service = tower::service_fn(move |request| record(request, log.clone()));
                let wharf = wharf.codec(Httparse::new);
                wharf.connection(stream.into(), service).expect(WORKS).await;
            }
            Self::Hyper => {
                let service = hyper::service::service_fn(|request| record(request, log.clone()));
                let _ = hyper::server::conn::http1::Builder::new()
                    .half_close(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        }
    }
}

/// Notes a request once its body is whole, and answers it. A tunnel isn't made, as nowhere here.
async fn record<B>(request: http::Request<B>, log: Log) -> Result<Response<Full<Bytes>>, BoxError>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let marks = request.headers().get_all(MARK).iter();
    let marks = marks
        .map(|mark| String::from_utf8_lossy(mark.as_bytes()).into_owned())
        .collect();
    let request = Request::read(request).await.map_err(Into::into)?;
    let mut response = Response::new(Full::from(request.target.clone()));
    if request.method == "CONNECT" {
        *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
    }
    log.lock().expect("a log").push(Seen { request, marks });
    Ok(response)
}

/// Says each payload to a server in this process.
pub(crate) async fn in_process(
    server: Server,
    payloads: &[Payload],
) -> Result<Vec<Outcome>, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut outcomes = Vec::new();
    for payload in payloads {
        let client = TcpStream::connect(address).await?;
        let (stream, _) = listener.accept().await?;
        let log = Log::default();
        let connection = tokio::spawn(server.serve(stream, log.clone()));
        let answers = said(
            payload,
            talk(client, &payload.bytes, payload.answers()).await,
        )?;
        timeout(PATIENCE, connection).await??;
        let taken = log.lock().expect("a log");
        outcomes.push(Outcome {
            taken: taken.iter().map(|seen| seen.request.clone()).collect(),
            statuses: statuses(&answers),
        });
    }
    Ok(outcomes)
}

/// Names the payload in a failure.
pub(crate) fn said<T>(payload: &Payload, result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|error| format!("{}: {error}", payload.name).into())
}

/// Says each payload to Node's own server.
pub(crate) async fn node(payloads: &[Payload]) -> Result<Vec<Outcome>, Failure> {
    let mut node = tokio::process::Command::from(NODE.command())
        .args(["--eval", include_str!("node.js")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(node.stdout.take().ok_or("no output of Node")?).lines();
    let port = next(&mut lines).await?["listening"].as_u64();
    let port = u16::try_from(port.ok_or("no port of Node")?)?;
    let mut outcomes = Vec::new();
    for payload in payloads {
        let client = TcpStream::connect(("127.0.0.1", port)).await?;
        let own = client.local_addr()?.port();
        let answers = said(
            payload,
            talk(client, &payload.bytes, payload.answers()).await,
        )?;
        let account = said(payload, next(&mut lines).await)?;
        if account["port"].as_u64() != Some(own.into()) {
            return Err(
                format!("{}: Node's account is of another connection", payload.name).into(),
            );
        }
        let taken = account["requests"].as_array().ok_or("no requests")?;
        let taken: Option<_> = taken.iter().map(read).collect();
        outcomes.push(Outcome {
            taken: taken.ok_or("no request")?,
            statuses: statuses(&answers),
        });
    }
    Ok(outcomes)
}

/// The next line that Node writes.
async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Value, Failure> {
    let line = timeout(PATIENCE, lines.next_line()).await;
    let line = line.map_err(|_| "Node says nothing")??;
    Ok(serde_json::from_str(&line.ok_or("Node has ended")?)?)
}

fn read(request: &Value) -> Option<Request> {
    Some(Request {
        method: request["method"].as_str()?.to_owned(),
        target: origin_form(request["target"].as_str()?),
        length: usize::try_from(request["length"].as_u64()?).ok()?,
        digest: request["digest"].as_str()?.to_owned(),
    })
}
