//! Where connections come from: bound TCP and Unix sockets, one or several, inherited ones among them. Knows how to
//! bind and how to accept one stream; when to accept, and what to do when that fails, is the server's business.

use std::fmt;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::conn::{Address, Live};
use crate::error::Error;
use crate::test::Pipe;

mod bind;
#[cfg(feature = "inherited")]
mod inherited;

use bind::SocketFile;

/// A bound socket with its name.
///
/// ```
/// # fn main() -> Result<(), wharf::Error> {
/// use wharf::Listener;
///
/// let public = Listener::tcp("127.0.0.1:0")?.named("public");
/// println!("listening on {}", public.local());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    local: Address,
    name: Arc<str>,
    file: Option<Arc<SocketFile>>,
    /// Bound here, so that nobody else has the socket.
    is_own: bool,
}

/// Not yet known to any runtime, so that binding needs none.
#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpListener),
    Unix(unix::net::UnixListener),
}

impl Listener {
    /// Binds an address: `"0.0.0.0:80"`, `"[::1]:8080"`, `"localhost:3000"`, a `SocketAddr`. The first that can be
    /// bound is taken where a name has several.
    ///
    /// # Errors
    ///
    /// A sentence that says what can't be bound and why.
    pub fn tcp(address: impl ToSocketAddrs + fmt::Display) -> Result<Self, Error> {
        let socket = bind::tcp(address)?;
        let mut listener = Self::over_tcp(socket)?;
        listener.is_own = true;
        Ok(listener)
    }

    /// Binds a Unix socket. The file that an earlier server left behind is replaced, and this one's is removed when
    /// the server ends. Who may connect is what the process's umask leaves: with the usual `022` nobody but its user.
    ///
    /// # Errors
    ///
    /// A sentence that says what can't be bound and why: another server is listening there, say.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::over_file(path.as_ref(), None)
    }

    /// The same with a mode for the file, whatever the umask: `0o660` lets the group connect, `0o666` everybody. Not
    /// for a moment is it open to more.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), wharf::Error> {
    /// use wharf::{Listener, Server};
    ///
    /// let server = Server::new().listen(Listener::unix_with_mode("/run/app/app.sock", 0o660)?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`unix`](Self::unix), and when the mode is above `0o777`.
    pub fn unix_with_mode(path: impl AsRef<Path>, mode: u32) -> Result<Self, Error> {
        Self::over_file(path.as_ref(), Some(mode))
    }

    fn over_file(path: &Path, mode: Option<u32>) -> Result<Self, Error> {
        let socket = bind::unix(path, mode)?;
        let mut listener = Self::over_unix(socket)?;
        listener.file = SocketFile::at(path).map(Arc::new);
        Ok(listener)
    }

    /// Gives this a name, found in [`ConnInfo::listener`](crate::ConnInfo::listener) of each of its connections.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The address it is bound to.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// One for each of `count` workers.
    ///
    /// A TCP socket that was bound here gets others beside it (`SO_REUSEPORT`): the kernel shares connections out among
    /// them, each has a queue of its own, and workers don't meet. When such a socket closes, what waits in its queue is
    /// reset; so that is no way to hand a port over, and a socket that somebody else has too, who may go on when this
    /// server ends, stays the only one: its workers share its queue, as those of a Unix socket do.
    pub(crate) fn shards(self, count: usize) -> Result<Vec<Self>, Error> {
        let mut shards = vec![self];
        while shards.len() < count {
            let shard = shards[0].another();
            shards.push(shard.map_err(|error| Error::bind(bind::UNUSABLE, error))?);
        }
        Ok(shards)
    }

    fn another(&self) -> io::Result<Self> {
        let socket = match &self.socket {
            Socket::Tcp(socket) if self.is_own && cfg!(target_os = "linux") => {
                // A kernel that can't do this can still let all accept from one queue.
                Socket::Tcp(bind::beside(socket).or_else(|_| socket.try_clone())?)
            }
            Socket::Tcp(socket) => Socket::Tcp(socket.try_clone()?),
            Socket::Unix(socket) => Socket::Unix(socket.try_clone()?),
        };
        Ok(Self {
            socket,
            local: self.local.clone(),
            name: self.name.clone(),
            file: self.file.clone(),
            is_own: self.is_own,
        })
    }

    fn over_tcp(socket: std::net::TcpListener) -> Result<Self, Error> {
        bind::prepare(&socket, true).map_err(|error| Error::bind(bind::UNUSABLE, error))?;
        let local = socket
            .local_addr()
            .map_err(|error| Error::bind(bind::UNUSABLE, error))?;
        Ok(Self {
            socket: Socket::Tcp(socket),
            local: local.into(),
            name: Arc::default(),
            file: None,
            is_own: false,
        })
    }

    fn over_unix(socket: unix::net::UnixListener) -> Result<Self, Error> {
        bind::prepare(&socket, false).map_err(|error| Error::bind(bind::UNUSABLE, error))?;
        let local = socket
            .local_addr()
            .map_err(|error| Error::bind(bind::UNUSABLE, error))?;
        Ok(Self {
            local: unix_address(local.as_pathname()),
            socket: Socket::Unix(socket),
            name: Arc::default(),
            file: None,
            is_own: false,
        })
    }

    /// Hands the socket to the runtime that this is called in.
    pub(crate) fn open(self) -> Result<OpenListener, Error> {
        let socket = match self.socket {
            Socket::Tcp(socket) => TcpListener::from_std(socket).map(OpenSocket::Tcp),
            Socket::Unix(socket) => UnixListener::from_std(socket).map(OpenSocket::Unix),
        };
        Ok(OpenListener {
            socket: socket.map_err(|error| Error::bind(bind::UNUSABLE, error))?,
            local: self.local,
            name: self.name,
            is_own: self.is_own,
            _file: self.file,
        })
    }
}

/// What can be listened on: an address, a bound socket of tokio or of the standard library, a [`Listener`], or several
/// of one kind in an array or `Vec`.
///
/// A string is an address, or `unix:` and the path of a Unix socket.
pub trait IntoListeners {
    /// Binds what isn't bound yet.
    ///
    /// # Errors
    ///
    /// A sentence that says what can't be bound and why.
    fn into_listeners(self) -> Result<Vec<Listener>, Error>;
}

impl IntoListeners for &str {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        let listener = match self.strip_prefix("unix:") {
            Some(path) => Listener::unix(path)?,
            None => Listener::tcp(self)?,
        };
        Ok(vec![listener])
    }
}

impl IntoListeners for String {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        self.as_str().into_listeners()
    }
}

impl IntoListeners for SocketAddr {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        Ok(vec![Listener::tcp(self)?])
    }
}

impl IntoListeners for Listener {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        Ok(vec![self])
    }
}

impl IntoListeners for std::net::TcpListener {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        Ok(vec![Listener::over_tcp(self)?])
    }
}

impl IntoListeners for unix::net::UnixListener {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        Ok(vec![Listener::over_unix(self)?])
    }
}

impl IntoListeners for TcpListener {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        let socket = self.into_std();
        let socket = socket.map_err(|error| Error::bind(bind::UNUSABLE, error))?;
        socket.into_listeners()
    }
}

impl IntoListeners for UnixListener {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        let socket = self.into_std();
        let socket = socket.map_err(|error| Error::bind(bind::UNUSABLE, error))?;
        socket.into_listeners()
    }
}

impl<L: IntoListeners> IntoListeners for Vec<L> {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        let mut all = Vec::with_capacity(self.len());
        for one in self {
            all.extend(one.into_listeners()?);
        }
        Ok(all)
    }
}

impl<L: IntoListeners, const N: usize> IntoListeners for [L; N] {
    fn into_listeners(self) -> Result<Vec<Listener>, Error> {
        Vec::from(self).into_listeners()
    }
}

/// What was accepted, with what is known of it.
#[derive(Debug)]
pub(crate) struct Accepted<Io> {
    pub(crate) io: Io,
    pub(crate) peer: Address,
    pub(crate) local: Address,
    pub(crate) listener: Arc<str>,
    pub(crate) live: Arc<Live>,
}

/// A [`Listener`] that a runtime watches.
#[derive(Debug)]
pub(crate) struct OpenListener {
    socket: OpenSocket,
    local: Address,
    name: Arc<str>,
    /// Nobody else may go on listening on it.
    is_own: bool,
    // Dropped after the socket, so that nobody finds a file that nobody listens on.
    _file: Option<Arc<SocketFile>>,
}

#[derive(Debug)]
enum OpenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl OpenListener {
    /// Waits for a connection.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted<Stream>>> {
        let (io, peer) = match &self.socket {
            OpenSocket::Tcp(socket) => {
                let (io, peer) = ready!(socket.poll_accept(cx))?;
                (Transport::tcp(io)?, peer.into())
            }
            OpenSocket::Unix(socket) => {
                let (io, peer) = ready!(socket.poll_accept(cx))?;
                (Transport::Unix(io), unix_address(peer.as_pathname()))
            }
        };
        Poll::Ready(Ok(self.accepted(io, peer)))
    }

    /// The socket is about to be closed: no connection begins any more, and those in its queue can still be accepted.
    ///
    /// A socket that somebody else has too is left as it is, since they go on where this server ends.
    pub(crate) fn admit_no_more(&self) {
        #[cfg(target_os = "linux")]
        if let OpenSocket::Tcp(socket) = &self.socket
            && self.is_own
        {
            // Without it, what comes while it is closed is reset.
            let _ = bind::admit_no_more(socket);
        }
    }

    /// Asks the kernel itself for a connection that is queued already: the runtime knows of those only that it has
    /// heard of.
    pub(crate) fn accept_queued(&self) -> io::Result<Accepted<Stream>> {
        let (io, peer) = match &self.socket {
            OpenSocket::Tcp(socket) => {
                let (io, peer) = socket2::SockRef::from(socket).accept()?;
                io.set_nonblocking(true)?;
                let peer = peer.as_socket().map_or(Address::Unnamed, Address::from);
                (Transport::tcp(TcpStream::from_std(io.into())?)?, peer)
            }
            OpenSocket::Unix(socket) => {
                let (io, peer) = socket2::SockRef::from(socket).accept()?;
                io.set_nonblocking(true)?;
                let io = UnixStream::from_std(io.into())?;
                (Transport::Unix(io), unix_address(peer.as_pathname()))
            }
        };
        Ok(self.accepted(io, peer))
    }

    fn accepted(&self, io: Transport, peer: Address) -> Accepted<Stream> {
        let live = Arc::new(Live::new());
        Accepted {
            io: Stream::new(io, live.clone()),
            live,
            peer,
            local: self.local.clone(),
            listener: self.name.clone(),
        }
    }
}

fn unix_address(path: Option<&Path>) -> Address {
    path.map_or(Address::Unnamed, |path| Address::Unix(path.to_owned()))
}

/// An accepted stream: the `Io` that a [`Server`](crate::Server) calls its services with, and so does
/// [`test::connect_to`](crate::test::connect_to), where it is one in memory.
///
/// Dropped after a response that had to be cut, it is reset, so that what the peer got can't look complete.
#[derive(Debug)]
pub struct Stream {
    io: Transport,
    live: Arc<Live>,
    reader: Reader,
}

/// What is known of a peer's reading, which decides how much of a response the kernel may hold.
#[derive(Debug, Clone, Copy)]
enum Reader {
    /// Nothing, or that it is slow.
    Unknown,
    /// Since then the kernel has waited for it.
    Awaited(Instant),
    /// It reads, and made room at once: the kernel may hold what the system allows.
    Quick,
}

/// A reader that makes room in this time is quick: 8 KiB or more of it, so some 80 kB/s.
const QUICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// A test's, see [`crate::test`].
    Memory(Pipe),
}

impl Transport {
    /// Without Nagle's delay: answers are written whole.
    fn tcp(io: TcpStream) -> io::Result<Self> {
        // Linux hands the listener's setting down, which spares a system call a connection.
        if !cfg!(target_os = "linux") {
            io.set_nodelay(true)?;
        }
        Ok(Self::Tcp(io))
    }
}

impl Stream {
    /// A stream in memory.
    pub(crate) fn memory(pipe: Pipe, live: Arc<Live>) -> Self {
        Self::new(Transport::Memory(pipe), live)
    }

    fn new(io: Transport, live: Arc<Live>) -> Self {
        let reader = match io {
            Transport::Tcp(_) if cfg!(target_os = "linux") => Reader::Unknown,
            _ => Reader::Quick,
        };
        Self { io, live, reader }
    }

    /// What became of a write.
    ///
    /// Until its reader is known to be quick the kernel holds little; from then on it may hold megabytes, and says that it
    /// has room only when a third of them is gone. To a reader that has become slow that is minutes, so at the deadline of
    /// writing the kernel is asked for the room that there is.
    #[inline]
    fn wrote(&mut self, heard: Poll<io::Result<usize>>, rest: &[u8]) -> Poll<io::Result<usize>> {
        match (self.reader, heard.is_pending()) {
            (Reader::Quick, _) | (Reader::Unknown, false) | (Reader::Awaited(_), true) => {}
            (Reader::Unknown, true) => self.reader = Reader::Awaited(Instant::now()),
            (Reader::Awaited(since), false) => self.judge(since.elapsed()),
        }
        self.or_ask(heard, |socket| bind::send_piece(socket, rest))
    }

    #[cold]
    fn judge(&mut self, waited: Duration) {
        self.reader = Reader::Unknown;
        #[cfg(target_os = "linux")]
        if let Transport::Tcp(io) = &self.io
            && waited < QUICK
            && self.live.is_read()
        {
            // A kernel that can't is asked no more.
            let _ = bind::hold_much(io);
            self.reader = Reader::Quick;
        }
    }

    /// Asks the kernel itself once a deadline has passed: a process that was stopped hears of its timers before its
    /// sockets, and whoever was in time must not pay for it.
    #[inline]
    fn or_ask<T>(
        &self,
        heard: Poll<io::Result<T>>,
        ask: impl FnOnce(&socket2::Socket) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if heard.is_pending() && self.live.is_last_look() {
            self.ask(ask)
        } else {
            heard
        }
    }

    #[cold]
    fn ask<T>(&self, ask: impl FnOnce(&socket2::Socket) -> io::Result<T>) -> Poll<io::Result<T>> {
        let asked = match &self.io {
            Transport::Tcp(io) => ask(&socket2::SockRef::from(io)),
            Transport::Unix(io) => ask(&socket2::SockRef::from(io)),
            Transport::Memory(_) => return Poll::Pending,
        };
        match asked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            asked => Poll::Ready(asked),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let is_aborted = self.live.is_aborted();
        match &self.io {
            // With a linger time of zero, closing sends RST instead of FIN. If that can't be set, it is a FIN.
            Transport::Tcp(io) if is_aborted => {
                let _ = socket2::SockRef::from(io).set_linger(Some(Duration::ZERO));
            }
            Transport::Memory(pipe) => pipe.close(is_aborted),
            Transport::Tcp(_) | Transport::Unix(_) => {}
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let heard = match &mut this.io {
            Transport::Tcp(io) => Pin::new(io).poll_read(cx, into),
            Transport::Unix(io) => Pin::new(io).poll_read(cx, into),
            Transport::Memory(pipe) => pipe.poll_read(cx, into),
        };
        this.or_ask(heard, |mut socket| {
            let read = socket.read(into.initialize_unfilled())?;
            into.advance(read);
            Ok(())
        })
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let heard = match &mut this.io {
            Transport::Tcp(io) => Pin::new(io).poll_write(cx, from),
            Transport::Unix(io) => Pin::new(io).poll_write(cx, from),
            Transport::Memory(pipe) => pipe.poll_write(cx, &[io::IoSlice::new(from)]),
        };
        this.wrote(heard, from)
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let heard = match &mut this.io {
            Transport::Tcp(io) => Pin::new(io).poll_write_vectored(cx, from),
            Transport::Unix(io) => Pin::new(io).poll_write_vectored(cx, from),
            Transport::Memory(pipe) => pipe.poll_write(cx, from),
        };
        let first = from.iter().find(|slice| !slice.is_empty());
        this.wrote(heard, first.map_or(&[], |slice| slice))
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Transport::Tcp(io) => Pin::new(io).poll_flush(cx),
            Transport::Unix(io) => Pin::new(io).poll_flush(cx),
            Transport::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Transport::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Unix(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Memory(pipe) => {
                pipe.shutdown();
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
