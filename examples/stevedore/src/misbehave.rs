//! Clients that misbehave, beside the good ones and on a thread of their own: each meets the server again and again in
//! the same bad way, and notes how it was ended. Nothing here is fast, and nothing is more than a client could do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpSocket, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use crate::dial::Socket;
use crate::plan::{Bad, Plan};
use crate::random::Random;
use crate::target::{Address, Target};
use crate::worker::Signal;

/// What a bad client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Misbehavior {
    /// A head that goes on and on, one field a second.
    Slowloris,
    /// A body of a mebibyte, one byte a second.
    SlowBody,
    /// Requests without end; of the answers one byte a second is read.
    SlowRead,
    /// Whole requests, a byte at a time, every 20 milliseconds.
    Dribble,
    /// A whole request, then the end of what it sends; it still reads.
    HalfClose,
    /// A whole request, then a reset before the answer.
    Abort,
    /// Bytes that aren't HTTP, or nearly.
    Garbage,
}

/// How a meeting ended, from the bad client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// Closed or reset after an answer of this status.
    Answered(u16),
    Closed,
    Reset,
    /// Ended by the server while it was still reading, slower than its end could reach it.
    CutOff,
    /// It left, as it meant to.
    Left,
    NotLetIn,
    /// The run was over before the server did anything.
    StillOpen,
}

/// How often something ended in one way, and how long it took.
#[derive(Debug, Clone)]
pub(crate) struct Endings {
    pub(crate) count: u64,
    /// In milliseconds.
    pub(crate) after: Histogram<u64>,
}

/// What became of the bad clients.
pub(crate) type Fates = BTreeMap<Ending, Endings>;

/// Between two meetings of one client.
const PAUSE: Duration = Duration::from_millis(10);
const A_SECOND: Duration = Duration::from_secs(1);
/// In milliseconds; whoever was ended later was ended then.
const AN_HOUR: u64 = 3_600_000;

impl fmt::Display for Misbehavior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slowloris => "slowloris",
            Self::SlowBody => "slow-body",
            Self::SlowRead => "slow-read",
            Self::Dribble => "dribble",
            Self::HalfClose => "half-close",
            Self::Abort => "abort",
            Self::Garbage => "garbage",
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "answered {status}, then ended"),
            Self::Closed => f.write_str("closed without an answer"),
            Self::Reset => f.write_str("reset without an answer"),
            Self::CutOff => f.write_str("ended while answers were unread"),
            Self::Left => f.write_str("left before the answer, as it meant to"),
            Self::NotLetIn => f.write_str("no connection"),
            Self::StillOpen => f.write_str("still open when the run ended"),
        }
    }
}

/// Runs bad clients until the signal says stop.
pub(crate) async fn misbehave(
    plan: Arc<Plan>,
    bad: Bad,
    mut signal: watch::Receiver<Signal>,
) -> Fates {
    let fates = Rc::new(RefCell::new(Fates::new()));
    let set = LocalSet::new();
    set.run_until(async {
        if signal
            .wait_for(|signal| *signal != Signal::Prepare)
            .await
            .is_err()
        {
            return;
        }
        let mut clients = JoinSet::new();
        for number in 0..bad.clients {
            let (plan, fates, signal) = (plan.clone(), fates.clone(), signal.clone());
            clients.spawn_local(be_bad(plan, bad.how, number, fates, signal));
        }
        while clients.join_next().await.is_some() {}
    })
    .await;
    fates.take()
}

/// One bad client's life.
async fn be_bad(
    plan: Arc<Plan>,
    how: Misbehavior,
    number: usize,
    fates: Rc<RefCell<Fates>>,
    mut signal: watch::Receiver<Signal>,
) {
    let mut random = Random::new(plan.seed ^ number as u64);
    for turn in number.. {
        let target = &plan.targets[turn % plan.targets.len()];
        let began = Instant::now();
        let (ending, over) = tokio::select! {
            ending = meet(how, &plan.addresses[target.address], target, &mut random, turn) => (ending, false),
            _ = signal.wait_for(|signal| *signal == Signal::Stop) => (Ending::StillOpen, true),
        };
        note(&mut fates.borrow_mut(), ending, began.elapsed());
        if over {
            break;
        }
        sleep(PAUSE).await;
    }
}

fn note(fates: &mut Fates, ending: Ending, after: Duration) {
    let endings = fates.entry(ending).or_insert_with(|| Endings {
        count: 0,
        after: Histogram::new_with_bounds(1, AN_HOUR, 3).expect("bounds that are constants"),
    });
    endings.count += 1;
    endings.after.saturating_record(after.as_millis() as u64);
}

/// One connection, from its opening to its end.
async fn meet(
    how: Misbehavior,
    address: &Address,
    target: &Target,
    random: &mut Random,
    turn: usize,
) -> Ending {
    let Ok(Ok(mut socket)) = timeout(A_SECOND * 5, connect(address, how)).await else {
        return Ending::NotLetIn;
    };
    if how == Misbehavior::Abort {
        return abort(&mut socket, target).await;
    }
    let (ears, mouth) = split(socket);
    tokio::select! {
        ending = listen(ears, how) => ending,
        ending = speak(mouth, how, target, random, turn) => ending,
    }
}

async fn connect(address: &Address, how: Misbehavior) -> io::Result<Socket> {
    match address {
        Address::Tcp(address) => {
            let socket = match address.is_ipv4() {
                true => TcpSocket::new_v4()?,
                false => TcpSocket::new_v6()?,
            };
            if how == Misbehavior::SlowRead {
                socket.set_recv_buffer_size(1)?; // The kernel makes its least of it.
            }
            let stream = socket.connect(*address).await?;
            stream.set_nodelay(true)?;
            Ok(Socket::Tcp(stream))
        }
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
    }
}

/// Asks, and is gone. On TCP the server sees a reset.
async fn abort(socket: &mut Socket, target: &Target) -> Ending {
    if socket.write_all(&target.repeated(1)).await.is_err() {
        return Ending::Reset;
    }
    match socket {
        Socket::Tcp(stream) if stream.set_zero_linger().is_err() => Ending::Closed,
        _ => Ending::Left,
    }
}

/// What is said, and how. Silent when it is said, or when nobody wants to hear more: the ears know when it is over. Only
/// who reads slowly learns it by speaking: what it has not read yet stands before the end.
async fn speak(
    mut mouth: impl AsyncWrite + Unpin,
    how: Misbehavior,
    target: &Target,
    random: &mut Random,
    turn: usize,
) -> Ending {
    let host = target
        .url
        .authority()
        .map_or("", |authority| authority.as_str());
    let path = target.url.path();
    let said = match how {
        Misbehavior::Slowloris => {
            let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n");
            drip(&mut mouth, head.as_bytes(), b"x-and-on: and on\r\n").await
        }
        Misbehavior::SlowBody => {
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1048576\r\n\r\n");
            drip(&mut mouth, head.as_bytes(), b"x").await
        }
        Misbehavior::SlowRead => {
            let many = target.repeated(64);
            loop {
                if let Err(error) = mouth.write_all(&many).await {
                    break Err(error);
                }
            }
        }
        Misbehavior::Dribble => dribble(&mut mouth, &closing(target)).await,
        Misbehavior::HalfClose => match mouth.write_all(&target.repeated(1)).await {
            Ok(()) => mouth.shutdown().await,
            failed => failed,
        },
        Misbehavior::Garbage => mouth.write_all(&garbage(host, random, turn)).await,
        Misbehavior::Abort => Ok(()),
    };
    if how == Misbehavior::SlowRead && said.is_err() {
        return Ending::CutOff;
    }
    std::future::pending().await
}

/// A beginning, then the same piece every second for ever.
async fn drip(mouth: &mut (impl AsyncWrite + Unpin), first: &[u8], piece: &[u8]) -> io::Result<()> {
    mouth.write_all(first).await?;
    loop {
        sleep(A_SECOND).await;
        mouth.write_all(piece).await?;
    }
}

async fn dribble(mouth: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        mouth.write_all(&[*byte]).await?;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The target's request, with the wish to end the connection behind it.
fn closing(target: &Target) -> Vec<u8> {
    let head = target.head.strip_suffix(b"\r\n").unwrap_or(&target.head);
    [head, b"Connection: close\r\n\r\n", &target.content].concat()
}

/// In turn: noise, a version nobody speaks, two framings at once, a NUL in a field.
fn garbage(host: &str, random: &mut Random, turn: usize) -> Vec<u8> {
    match turn % 4 {
        0 => (0..512).map(|_| random.next() as u8).chain(*b"\r\n\r\n").collect(),
        1 => format!("GET / HTTP/9.9\r\nHost: {host}\r\n\r\n").into_bytes(),
        2 => format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            .into_bytes(),
        _ => format!("GET / HTTP/1.1\r\nHost: {host}\r\na: b\0c\r\n\r\n").into_bytes(),
    }
}

/// Reads to the end, as fast as this kind of client does, and remembers the status it was given.
async fn listen(mut ears: impl AsyncRead + Unpin, how: Misbehavior) -> Ending {
    let mut first = Vec::new();
    let mut buffer = [0; 4096];
    let room = if how == Misbehavior::SlowRead {
        1
    } else {
        buffer.len()
    };
    loop {
        let status = first
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        match ears.read(&mut buffer[..room]).await {
            Ok(0) => return status.map_or(Ending::Closed, Ending::Answered),
            Ok(read) => first.extend(
                buffer[..read]
                    .iter()
                    .take(12usize.saturating_sub(first.len())),
            ),
            Err(_) => return status.map_or(Ending::Reset, Ending::Answered),
        }
        if how == Misbehavior::SlowRead {
            sleep(A_SECOND).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AN_HOUR, Ending, Fates, note};

    #[test]
    fn how_long_a_bad_client_was_borne_is_kept_with_three_digits() {
        for (millis, kept) in [
            (0, 0),
            (2_047, 2_047),
            (2_048, 2_048),
            (30_000, 30_000),
            (AN_HOUR * 2, AN_HOUR),
        ] {
            let mut fates = Fates::new();
            note(&mut fates, Ending::Closed, Duration::from_millis(millis));
            let longest = fates[&Ending::Closed].after.max();
            assert!(
                longest.abs_diff(kept) <= kept / 1_000,
                "{millis}: {longest}"
            );
        }
    }
}
