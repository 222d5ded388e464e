//! Floods: M4, M5 pipelining without reading, M6 tiny chunks, M7 chunk extensions, M8 trailers and fields without end,
//! M12 whether polite clients notice.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Found;
use crate::Failure;
use crate::child::{Kind, SOON, Start, in_turn};
use crate::client::{Client, ask_once, crowd, each, get};
use crate::figures::{median, millis, quantile, seconds};
use crate::run::Plan;
use crate::verdict::Verdict;

/// Sends `bytes` again and again, at most `most` in all, reading nothing, until no more is taken for a while or the
/// connection ends: how many went out.
async fn pour(client: &mut Client, bytes: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        match timeout(
            Duration::from_millis(500),
            client.stream.write(&bytes[sent % bytes.len()..]),
        )
        .await
        {
            Ok(Ok(written)) if written > 0 => sent += written,
            _ => break,
        }
    }
    sent
}

/// How many bytes a connection of this machine has been given that its peer's kernel hasn't taken.
fn unsent(own: SocketAddr, peer: SocketAddr) -> Result<usize, Failure> {
    // As the kernel writes it: the address in its own order, in hexadecimal.
    let named = |address| match address {
        SocketAddr::V4(address) => {
            let host = u32::from_ne_bytes(address.ip().octets());
            Ok(format!("{host:08X}:{:04X}", address.port()))
        }
        SocketAddr::V6(_) => Err("not IPv4"),
    };
    let ends = format!("{} {}", named(own)?, named(peer)?);
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let line = table
        .lines()
        .find_map(|line| line.split_once(&ends).map(|(_, rest)| rest));
    // The state, and then what waits to be sent and to be read.
    let queues = line.and_then(|rest| rest.split_whitespace().nth(1));
    let queue = queues.and_then(|queues| queues.split(':').next());
    Ok(usize::from_str_radix(
        queue.ok_or("the socket isn't there")?,
        16,
    )?)
}

/// M4, M5, T8: requests without end from clients that read no answer.
pub(super) async fn pipelining(plan: Plan) -> Found {
    let clients = 50;
    let requests = get("/big/65536").repeat(2_000);
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        ask_once(child.address, &get("/")).await?;
        let memory = child.memory_kib()?;
        let flood = crowd(clients, async |_| {
            let mut client = Client::connect(child.address).await?;
            let sent = pour(&mut client, &requests, 64 << 20).await;
            io::Result::Ok((client, sent))
        })
        .await?;
        let held = (child.memory_kib()? - memory) / clients as f64;
        let (cpu, begun) = (child.cpu()?, Instant::now());
        sleep(Duration::from_secs(plan.of(3, 1))).await;
        let busy = 100.0 * seconds(child.cpu()? - cpu) / seconds(begun.elapsed());
        let (mut taken, mut whole) = (0, 0);
        for (client, sent) in &flood {
            let waits = unsent(client.stream.local_addr()?, child.address)?;
            taken = taken.max(sent.saturating_sub(waits));
            whole = whole.max(*sent);
        }
        let kib = |bytes: usize| bytes as f64 / 1024.0;
        Ok((held, kib(taken), kib(whole), busy))
    })
    .await?;
    let what = |text: &str| format!("{clients} pipelining, reading nothing: {text}");
    Ok(vec![
        Verdict::new("M4", what("memory for each"), "KiB", wharf.0)
            .axum(axum.0)
            .at_most(96.0),
        Verdict::new(
            "M5",
            what("most taken from one by server and kernel"),
            "KiB",
            wharf.1,
        )
        .axum(axum.1)
        .at_most(1_000.0),
        // How much that is, is up to the client's kernel.
        Verdict::new(
            "M5",
            what("the same with what waits at the client"),
            "KiB",
            wharf.2,
        )
        .axum(axum.2),
        Verdict::new("M5", what("processor time once blocked"), "%", wharf.3)
            .axum(axum.3)
            .at_most(0.5),
    ])
}

const CHUNKED: &[u8] = b"POST /swallow HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";

/// M6, T12: a body in chunks of one byte.
pub(super) async fn tiny_chunks(plan: Plan) -> Found {
    let chunks = plan.of(1_000_000, 200_000);
    let rounds = plan.of(5, 3);
    let body = b"1\r\nx\r\n".repeat(chunks);
    let (mut wharf, mut axum) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (one, other) = in_turn(async |kind| {
            let child = Start::of(kind).start()?;
            let mut client = Client::connect(child.address).await?;
            let cpu = child.cpu()?;
            client.send(CHUNKED).await?;
            client.send(&body).await?;
            client.send(b"0\r\n\r\n").await?;
            let answer = timeout(SOON, client.answer()).await??;
            if answer.body != chunks.to_string().as_bytes() {
                return Err("the body was misread".into());
            }
            Ok((child.cpu()? - cpu).as_nanos() as f64 / body.len() as f64)
        })
        .await?;
        wharf.push(one);
        axum.push(other);
    }
    let what = "chunks of one byte: processor time for a byte on the wire";
    Ok(vec![
        Verdict::new("M6", what, "ns", median(&mut wharf))
            .axum(median(&mut axum))
            .at_most(12.0),
    ])
}

/// How far the endless requests came, and what was answered.
struct End {
    /// The most that one could send until it was answered.
    sent: usize,
    /// The same for all, or zero.
    status: u16,
    /// For each.
    memory: f64,
}

/// Twenty clients send `start` and then `more` for as long as the server goes along, at most 4 MiB each.
async fn endless(kind: Kind, start: &[u8], more: &[u8]) -> Result<End, Failure> {
    const CLIENTS: usize = 20;
    let child = Start::of(kind).start()?;
    crowd(CLIENTS, async |_| ask_once(child.address, &get("/")).await).await?;
    let memory = child.memory_kib()?;
    let ends = crowd(CLIENTS, async |_| {
        pour_until_answered(child.address, start, more).await
    })
    .await?;
    let memory = (child.memory_kib()? - memory) / CLIENTS as f64;
    let first = ends[0].1;
    Ok(End {
        sent: ends.iter().map(|end| end.0).max().unwrap_or(0),
        status: if ends.iter().all(|end| end.1 == first) {
            first
        } else {
            0
        },
        memory,
    })
}

/// How much was sent until the answer came, and its status.
async fn pour_until_answered(
    address: SocketAddr,
    start: &[u8],
    more: &[u8],
) -> io::Result<(usize, u16)> {
    const MOST: usize = 4 << 20;
    let mut client = Client::connect(address).await?;
    client.send(start).await?;
    let (mut reader, mut writer) = client.stream.split();
    let pieces = more.repeat(1024usize.div_ceil(more.len()));
    let (mut sent, mut said) = (0, Vec::new());
    while sent < MOST && said.is_empty() {
        match timeout(Duration::from_secs(1), writer.write_all(&pieces)).await {
            Ok(Ok(())) => sent += pieces.len(),
            _ => break,
        }
        let _ = timeout(Duration::from_millis(2), reader.read_buf(&mut said)).await;
    }
    if said.is_empty() {
        let _ = timeout(Duration::from_secs(1), reader.read_buf(&mut said)).await;
    }
    let said = String::from_utf8_lossy(&said);
    let status = said.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((sent, status.unwrap_or(0)))
}

/// M7, M8, T10, T11, T13: framing and fields without end. Each is refused early, and the answer can be read.
pub(super) async fn endless_framing(_: Plan) -> Found {
    let extension = format!("1;{}\r\nx\r\n", "e".repeat(1020));
    let trailers = [CHUNKED, b"0\r\n"].concat();
    let long = b"GET / HTTP/1.1\r\nhost: a\r\nx: ";
    let mut verdicts = Vec::new();
    for (id, what, start, more, status, most) in [
        (
            "M7",
            "1 KiB of extension for each chunk of a byte",
            CHUNKED,
            extension.as_bytes(),
            400,
            32.0,
        ),
        (
            "M7",
            "one chunk extension without end",
            &[CHUNKED, b"1;"].concat(),
            b"e",
            400,
            16.0,
        ),
        (
            "M8",
            "trailers without end",
            &trailers,
            b"x: y\r\n",
            431,
            16.0,
        ),
        (
            "M8",
            "one trailer without end",
            &[&trailers[..], b"x: "].concat(),
            b"y",
            431,
            16.0,
        ),
        (
            "M8",
            "fields without end",
            b"GET / HTTP/1.1\r\nhost: a\r\n",
            b"x: y\r\n",
            431,
            48.0,
        ),
        ("M8", "one field without end", long, b"y", 431, 48.0),
        ("T10", "a target without end", b"GET /", b"y", 414, 16.0),
        ("T12", "empty lines without end", b"", b"\r\n", 400, 8.0),
    ] {
        let (wharf, axum) = in_turn(async |kind| endless(kind, start, more).await).await?;
        verdicts.push(
            Verdict::new(
                id,
                format!("{what}: answered"),
                "",
                usize::from(wharf.status),
            )
            .axum(usize::from(axum.status))
            .between(f64::from(status), f64::from(status)),
        );
        let kib = |end: &End| end.sent as f64 / 1024.0;
        verdicts.push(
            Verdict::new(id, format!("{what}: sent until then"), "KiB", kib(&wharf))
                .axum(kib(&axum))
                .at_most(most),
        );
        verdicts.push(
            Verdict::new(id, format!("{what}: memory held"), "KiB", wharf.memory)
                .axum(axum.memory)
                .at_most(128.0),
        );
    }
    Ok(verdicts)
}

/// M12, T9: eight connections with 512 requests under way, and a client that asks one thing at a time.
pub(super) async fn fairness(plan: Plan) -> Found {
    let rounds = plan.of(5, 1);
    let (mut wharf, mut axum) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (one, other) = in_turn(async |kind| {
            let child = Start::of(kind).start()?;
            let mut hot = JoinSet::new();
            (0..8).for_each(|_| drop(hot.spawn(keep_hot(child.address))));
            sleep(Duration::from_millis(100)).await;
            // On a thread of its own, where the hot ones' runtime doesn't hold it up.
            let (address, count) = (child.address, plan.of(1_000, 300));
            let mut times = tokio::task::spawn_blocking(move || polite(address, count)).await??;
            hot.abort_all();
            while let Some(end) = hot.join_next().await {
                if !end.is_err_and(|error| error.is_cancelled()) {
                    return Err("a hot connection was closed".into());
                }
            }
            Ok((
                millis(quantile(&mut times, 0.99)),
                millis(quantile(&mut times, 1.0)),
            ))
        })
        .await?;
        wharf.push(one);
        axum.push(other);
    }
    let p99 = |all: &[(f64, f64)]| median(&mut all.iter().map(|one| one.0).collect::<Vec<_>>());
    let slowest = |all: &[(f64, f64)]| median(&mut all.iter().map(|one| one.1).collect::<Vec<_>>());
    let what = |text: &str| format!("8 hot connections of 512 requests: a polite client's {text}");
    Ok(vec![
        plan.timed(
            Verdict::new("M12", what("p99"), "ms", p99(&wharf))
                .axum(p99(&axum))
                .at_most_or_as_axum(3.5),
        ),
        plan.timed(
            Verdict::new("M12", what("slowest"), "ms", slowest(&wharf))
                .axum(slowest(&axum))
                .at_most_or_as_axum(12.0),
        ),
    ])
}

/// How long each of some requests takes, one after the other.
fn polite(address: SocketAddr, count: usize) -> io::Result<Vec<Duration>> {
    let mut client = std::net::TcpStream::connect(address)?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(SOON))?;
    let mut piece = [0; 1024];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        client.write_all(&get("/"))?;
        let mut read = 0;
        while !piece[..read].ends_with(b"hello") {
            match client.read(&mut piece[read..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        times.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(times)
}

/// Keeps 512 requests under way, whose answers are all as long as the first.
async fn keep_hot(address: SocketAddr) -> io::Result<()> {
    const DEPTH: usize = 512;
    let mut client = std::net::TcpStream::connect(address)?;
    client.write_all(&get("/"))?;
    let mut answer = [0; 1024];
    let mut length = 0;
    while !answer[..length].ends_with(b"hello") {
        length += client.read(&mut answer[length..])?;
    }
    client.set_nonblocking(true)?;
    let mut client = tokio::net::TcpStream::from_std(client)?;
    let requests = get("/").repeat(DEPTH);
    let (one, mut read) = (requests.len() / DEPTH, 0);
    let mut piece = vec![0; 256 << 10];
    AsyncWriteExt::write_all(&mut client, &requests).await?;
    loop {
        match AsyncReadExt::read(&mut client, &mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
        let answered = (read / length).min(DEPTH);
        read -= answered * length;
        AsyncWriteExt::write_all(&mut client, &requests[..answered * one]).await?;
    }
}

/// T7: a burst of connections, all at once, each with a request.
pub(super) async fn burst(plan: Plan) -> Found {
    let count = plan.of(4_000, 1_000);
    let (wharf, axum) = in_turn(async |kind| {
        let child = Start::of(kind).start()?;
        let begun = Instant::now();
        let one = async |number| {
            let mut client = Client::connect_from(number, child.address).await?;
            client.ask(&get("/")).await
        };
        let answered = each(0..count, one)
            .await
            .into_iter()
            .filter(Result::is_ok)
            .count();
        Ok((count - answered, seconds(begun.elapsed())))
    })
    .await?;
    let what = |text: &str| format!("{count} connections at once: {text}");
    Ok(vec![
        Verdict::new("T7", what("lost"), "", wharf.0)
            .axum(axum.0)
            .at_most(0.0),
        // A connection that finds the queue full tries again a second later.
        Verdict::new("T7", what("all are served in"), "s", wharf.1)
            .axum(axum.1)
            .at_most_or_as_axum(1.0),
    ])
}
