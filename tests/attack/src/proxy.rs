//! A network that fails: a proxy that delays, slices, stalls, resets and half-closes what goes through it. Bytes are never
//! changed nor reordered, as TCP wouldn't.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::Failure;

/// What happens to each connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fault {
    /// Each piece, both ways, takes so long.
    pub(crate) delay: Duration,
    /// Pieces of no more than so many bytes, both ways; zero: as they come.
    pub(crate) slice: usize,
    /// After so many bytes from the client, something happens.
    pub(crate) after: Option<(usize, Event)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Nothing comes any more, and nothing ends.
    Stall,
    /// Both sides see a reset.
    Reset,
    /// The server sees the end of the client's sending.
    HalfClose,
}

/// A proxy at work, until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(port: u16, upstream: SocketAddr, fault: Fault) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            // Dropped with this task, they end with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, upstream, fault));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// `wharf-attack proxy UPSTREAM [--OPTION VALUE]…`, until it is killed.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> Result<(), Failure> {
    let upstream = words.next().ok_or("to which address?")?.parse()?;
    let (mut fault, mut port) = (Fault::default(), 0);
    while let Some(option) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--port" => port = value.parse()?,
            "--delay-ms" => fault.delay = Duration::from_millis(value.parse()?),
            "--slice" => fault.slice = value.parse()?,
            "--stall-after" => fault.after = Some((value.parse()?, Event::Stall)),
            "--reset-after" => fault.after = Some((value.parse()?, Event::Reset)),
            "--half-close-after" => fault.after = Some((value.parse()?, Event::HalfClose)),
            other => return Err(format!("no option of proxy is called {other}").into()),
        }
    }
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let proxy = Proxy::start(port, upstream, fault).await?;
        println!("listening {}", proxy.address);
        std::future::pending().await
    })
}

async fn pass(client: TcpStream, upstream: SocketAddr, fault: Fault) -> io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let back = Fault {
        after: None,
        ..fault
    };
    // An error of one direction ends both: the sockets close, with a reset if that is what was asked for.
    tokio::try_join!(
        carry(from_client, to_server, fault),
        carry(from_server, to_client, back)
    )?;
    Ok(())
}

/// Carries bytes until one side ends, or the event comes; keeps what it is given until both directions are done.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: Fault,
) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let mut piece = vec![0; 16 * 1024];
    let mut carried = 0;
    loop {
        let mut room = match fault.slice {
            0 => piece.len(),
            slice => slice.min(piece.len()),
        };
        if let Some((after, event)) = fault.after {
            room = room.min(after - carried);
            if room == 0 {
                happen(&from, &mut to, event).await?;
                return Ok((from, to));
            }
        }
        let read = from.read(&mut piece[..room]).await?;
        if read == 0 {
            to.shutdown().await?;
            return Ok((from, to));
        }
        if !fault.delay.is_zero() {
            sleep(fault.delay).await;
        }
        to.write_all(&piece[..read]).await?;
        carried += read;
    }
}

async fn happen(from: &OwnedReadHalf, to: &mut OwnedWriteHalf, event: Event) -> io::Result<()> {
    match event {
        Event::Stall => std::future::pending().await,
        Event::HalfClose => to.shutdown().await,
        Event::Reset => {
            socket2::SockRef::from(to.as_ref()).set_linger(Some(Duration::ZERO))?;
            socket2::SockRef::from(from.as_ref()).set_linger(Some(Duration::ZERO))?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
}
