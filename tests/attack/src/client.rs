//! A raw client: bytes as the attack wants them, and just enough HTTP to know where a response ends.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::child::SOON;

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes()
}

/// The head of a POST that declares so many bytes.
pub(crate) fn post(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// Read and not yet part of an answer.
    got: Vec<u8>,
    pub(crate) since: Instant,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `connection: close`.
    pub(crate) closes: bool,
    pub(crate) date: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(SOON, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// From one of many addresses of the loopback network, since each has but so many ports.
    pub(crate) async fn connect_from(number: usize, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        let host = Ipv4Addr::new(127, 0, 1, (number % 200 + 1) as u8);
        socket.bind(SocketAddr::from((host, 0)))?;
        Ok(Self::over(timeout(SOON, socket.connect(address)).await??))
    }

    /// With a receive buffer of so many bytes, as far as the kernel goes along: so that what it has taken is what was
    /// read, as over a link that is slow itself.
    pub(crate) async fn connect_narrow(address: SocketAddr, bytes: u32) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        Ok(Self::over(timeout(SOON, socket.connect(address)).await??))
    }

    fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            got: Vec::new(),
            since: Instant::now(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next answer, which has to declare its length.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        let invalid = |why: &str| io::Error::new(ErrorKind::InvalidData, why);
        let end = loop {
            if let Some(at) = self.got.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.got[..end]);
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| invalid("not a response"))?;
        let field = |name: &str| {
            let mut fields = lines.clone().filter_map(|line| line.split_once(": "));
            fields.find_map(|(own, value)| own.eq_ignore_ascii_case(name).then_some(value))
        };
        let length: usize = match field("content-length") {
            Some(length) => length.parse().map_err(|_| invalid("not a length"))?,
            None => return Err(invalid("no length")),
        };
        let date = field("date").map(str::to_owned);
        let closes = field("connection").is_some_and(|value| value == "close");
        while self.got.len() < end + length {
            self.more().await?;
        }
        let body = self.got[end..end + length].to_vec();
        self.got.drain(..end + length);
        Ok(Answer {
            status,
            closes,
            date,
            body,
        })
    }

    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request).await?;
        timeout(SOON, self.answer()).await?
    }

    /// Waits for the other side to end the connection: what came until then.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        let _ = self.stream.read_to_end(&mut self.got).await;
        std::mem::take(&mut self.got)
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) -> io::Result<()> {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.got).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask_once(address: SocketAddr, request: &[u8]) -> io::Result<Answer> {
    Client::connect(address).await?.ask(request).await
}

/// Does something `count` times, no more than 200 at once: floods stay within the listen queue.
pub(crate) async fn crowd<T, E>(
    count: usize,
    each: impl AsyncFn(usize) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let each = &each;
    let mut all = stream::iter((0..count).map(|number| each(number))).buffer_unordered(200);
    let mut done = Vec::with_capacity(count);
    while let Some(one) = all.next().await {
        done.push(one?);
    }
    Ok(done)
}

/// Does something for each of them, all at once.
pub(crate) async fn each<T, U>(
    all: impl IntoIterator<Item = T>,
    one: impl AsyncFn(T) -> U,
) -> Vec<U> {
    let all: FuturesUnordered<_> = all.into_iter().map(|each| one(each)).collect();
    all.collect().await
}
