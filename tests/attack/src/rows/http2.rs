//! T28: the floods of HTTP/2, in frames made by hand. Each connection that floods is to be closed within a second, while one
//! that means well doesn't notice. axum is served by hyper-util, with its defaults.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Found;
use crate::Failure;
use crate::child::{Kind, SOON, Start, in_turn};
use crate::figures::{quantile, seconds};
use crate::run::Plan;
use crate::verdict::{Seen, Verdict};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `:method`, `:scheme`, `:authority` and `:path` (RFC 7541: the first two are in the static table).
fn fields(method: u8, path: &str) -> Vec<u8> {
    let path = [&[0x04, path.len() as u8], path.as_bytes()].concat();
    [&[method, 0x86, 0x01, 1, b'a'], &path[..]].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// How a connection is used up: what comes once, and what comes again and again.
struct Flood {
    name: &'static str,
    first: fn() -> Vec<u8>,
    next: fn(u32) -> Vec<u8>,
    /// Part of the quick form.
    is_quick: bool,
}

/// The `n`th stream of a client.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

fn slow(n: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream(n), &fields(GET, "/sleep/5000"))
}

const FLOODS: [Flood; 7] = [
    Flood {
        name: "rapid reset",
        is_quick: true,
        first: Vec::new,
        next: |n| {
            let reset = frame(RST_STREAM, 0, stream(n), &CANCEL);
            [slow(n, END_STREAM | END_HEADERS), reset].concat()
        },
    },
    Flood {
        name: "MadeYouReset",
        is_quick: false,
        first: Vec::new,
        // A window that is opened too far is an error of the stream, which the server has to reset.
        next: |n| {
            let open = frame(WINDOW_UPDATE, 0, stream(n), &[0x7f, 0xff, 0xff, 0xff]);
            [slow(n, END_STREAM | END_HEADERS), open].concat()
        },
    },
    Flood {
        name: "CONTINUATION",
        is_quick: true,
        first: || slow(0, END_STREAM),
        next: |_| frame(CONTINUATION, 0, 1, &b"\x00\x01x\x01y".repeat(20)),
    },
    Flood {
        name: "empty DATA",
        is_quick: false,
        first: || frame(HEADERS, END_HEADERS, 1, &fields(POST, "/swallow")),
        next: |_| frame(DATA, 0, 1, b""),
    },
    Flood {
        name: "SETTINGS",
        is_quick: false,
        first: Vec::new,
        next: |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
    },
    Flood {
        name: "PING",
        is_quick: true,
        first: Vec::new,
        next: |_| frame(PING, 0, 0, b"12345678"),
    },
    Flood {
        name: "HPACK bomb",
        is_quick: false,
        // A field of 3,900 bytes goes into the table, and each byte after that stands for all of it.
        first: || {
            let long = [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d][..], &[b'y'; 3_900]].concat();
            let block = [fields(GET, "/"), long].concat();
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
        },
        next: |n| {
            let block = [fields(GET, "/"), vec![0xbe; 16_000]].concat();
            frame(HEADERS, END_STREAM | END_HEADERS, stream(n + 1), &block)
        },
    },
];

/// Floods until the connection is closed, and says when that was. Nothing is ever read.
async fn flood(address: SocketAddr, flood: &Flood) -> io::Result<Option<Duration>> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut stream = TcpStream::connect(address).await?;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let begin = [&preface[..], &frame(SETTINGS, 0, 0, b""), &(flood.first)()].concat();
    stream.write_all(&begin).await?;
    let begun = Instant::now();
    let send = async {
        for number in (0..).step_by(32) {
            let many: Vec<u8> = (number..number + 32).flat_map(flood.next).collect();
            send(&stream, &many).await?;
            // What succeeds at once gives nobody else the thread.
            tokio::task::yield_now().await;
        }
        io::Result::Ok(())
    };
    // What the server has sent isn't read; that it has finished is seen all the same.
    let finished = async {
        while !stream.ready(Interest::READABLE).await?.is_read_closed() {
            sleep(Duration::from_millis(1)).await;
        }
        io::Result::Ok(())
    };
    let closed = async {
        tokio::select! {
            _ = send => {}
            _ = finished => {}
        }
    };
    let end = timeout(PATIENCE, closed).await;
    Ok(end.is_ok().then(|| begun.elapsed()))
}

async fn send(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One request after the other on one connection: how long each took.
async fn polite(address: SocketAddr, count: usize) -> Result<Vec<Duration>, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let request = http::Request::get("http://a/").body(())?;
        let (response, _) = client.send_request(request, true)?;
        let mut body = response.await?.into_body();
        while let Some(bytes) = body.data().await {
            body.flow_control().release_capacity(bytes?.len())?;
        }
        times.push(begun.elapsed());
        client = client.ready().await?;
        sleep(Duration::from_millis(2)).await;
    }
    drop(client);
    connection.abort();
    Ok(times)
}

struct Suffered {
    closed: Seen,
    mebibytes: f64,
    ratio: f64,
    lost: usize,
}

/// Four connections flood again and again, for as long as the polite one asks.
async fn suffer(kind: Kind, number: usize, asked: usize) -> Result<Suffered, Failure> {
    let child = Start::of(kind).with("http2", true).start()?;
    let address = child.address;
    let mut before = polite(address, asked).await?;
    let memory = child.memory_kib()?;
    let goes_on = Arc::new(AtomicBool::new(true));
    let mut floods = JoinSet::new();
    for _ in 0..4 {
        let goes_on = goes_on.clone();
        floods.spawn(async move {
            let mut slowest = Some(Duration::ZERO);
            while goes_on.load(Relaxed) {
                let end = flood(address, &FLOODS[number]).await?;
                slowest = slowest.zip(end).map(|(one, other)| one.max(other));
                sleep(Duration::from_millis(100)).await;
            }
            io::Result::Ok(slowest)
        });
    }
    let mut most = 0.0_f64;
    let watch = async {
        loop {
            most = most.max(child.memory_kib()? - memory);
            sleep(Duration::from_millis(5)).await;
        }
    };
    // On a thread of its own.
    let during = tokio::spawn(async move { timeout(SOON, polite(address, asked)).await });
    let during = tokio::select! {
        end = watch => { let end: Result<(), Failure> = end; end?; unreachable!("it never ends") }
        end = during => end?,
    };
    goes_on.store(false, Relaxed);
    let mut closed = Seen::Figure(0.0);
    while let Some(slowest) = floods.join_next().await {
        closed = match (closed, slowest??) {
            (Seen::Figure(one), Some(other)) => Seen::Figure(one.max(seconds(other))),
            _ => Seen::Beyond(2.0),
        };
    }
    let lost = usize::from(!matches!(during, Ok(Ok(_))));
    let mut during = during.ok().and_then(Result::ok).unwrap_or_default();
    Ok(Suffered {
        closed,
        mebibytes: most / 1024.0,
        ratio: seconds(quantile(&mut during, 0.99)) / seconds(quantile(&mut before, 0.99)),
        lost,
    })
}

pub(super) async fn floods(plan: Plan) -> Found {
    let asked = plan.of(1_000, 50);
    let mut verdicts = Vec::new();
    for (number, flood) in FLOODS.iter().enumerate() {
        if plan.quick && !flood.is_quick {
            continue;
        }
        let (wharf, axum) = in_turn(async |kind| suffer(kind, number, asked).await).await?;
        let what = |text: &str| format!("HTTP/2, {}: {text}", flood.name);
        verdicts.extend([
            Verdict::new("T28", what("closed after"), "s", wharf.closed)
                .axum(axum.closed)
                .at_most(1.0),
            Verdict::new("T28", what("memory grows by"), "MiB", wharf.mebibytes)
                .axum(axum.mebibytes)
                .at_most(8.0),
            plan.timed(
                Verdict::new(
                    "T28",
                    what("p99 of another, times that without"),
                    "",
                    wharf.ratio,
                )
                .axum(axum.ratio)
                .at_most_or_as_axum(3.0),
            ),
            Verdict::new("T28", what("others cut off"), "", wharf.lost)
                .axum(axum.lost)
                .at_most(0.0),
        ]);
    }
    Ok(verdicts)
}
