//! As much of an HTTP/1.1 client as the demonstration needs, for a server that frames by Content-Length or closes.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// A head beyond this is none of this server's.
const LONGEST_HEAD: usize = 16 * 1024;

/// Where the server is to be found.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<TlsConnector>,
}

/// A connection.
pub(super) struct Client {
    io: Box<dyn Io>,
    unread: Vec<u8>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Client {
    pub(super) async fn connect(to: &Door) -> io::Result<Self> {
        let socket = TcpStream::connect(to.address).await?;
        socket.set_nodelay(true)?;
        let io: Box<dyn Io> = match &to.tls {
            None => Box::new(socket),
            Some(tls) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Box::new(tls.connect(name, socket).await?)
            }
        };
        let unread = Vec::new();
        Ok(Self { io, unread })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Sends a request and reads the answer; an error once the server closes.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &str,
        content: &[u8],
    ) -> io::Result<()> {
        let length = content.len();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: demo\r\nuser-agent: dockyard-demo\r\n{fields}"
        );
        if method == "PUT" {
            request += &format!("content-length: {length}\r\n");
        }
        request += "\r\n";
        self.send(&[request.as_bytes(), content].concat()).await?;
        self.answer(method).await
    }

    /// Asks for all of these at once.
    pub(super) async fn ask_all(&mut self, paths: &[String]) -> io::Result<()> {
        let request = |path| {
            format!("GET {path} HTTP/1.1\r\nhost: demo\r\nuser-agent: dockyard-demo\r\n\r\n")
        };
        let requests: String = paths.iter().map(request).collect();
        self.send(requests.as_bytes()).await?;
        for _ in paths {
            self.answer("GET").await?;
        }
        Ok(())
    }

    /// Reads an answer to its end.
    pub(super) async fn answer(&mut self, method: &str) -> io::Result<()> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if self.unread.len() > LONGEST_HEAD || self.io.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&self.unread[..end]).to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = field("content-length: ").and_then(|length| length.parse().ok());
        let closes = field("connection: close").is_some();
        let has_none = method == "HEAD" || head.starts_with("http/1.1 304");
        self.unread.drain(..end);
        self.skip(length.filter(|_| !has_none).unwrap_or(0)).await?;
        match closes {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    async fn skip(&mut self, mut length: usize) -> io::Result<()> {
        loop {
            let here = self.unread.len().min(length);
            self.unread.drain(..here);
            length -= here;
            if length == 0 {
                return Ok(());
            }
            if self.io.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
