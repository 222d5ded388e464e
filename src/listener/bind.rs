//! Binding. Every refusal is a sentence that names the address; a socket file is replaced only if nobody listens on
//! it, and removed only by whoever made it.

use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::error::Error;

/// Connections that the kernel completes before they are accepted; it takes less where its own bound
/// (`net.core.somaxconn`) is lower. The usual 128 loses answers in a burst of a thousand.
const BACKLOG: i32 = 4096;

/// What the kernel takes of a response beyond what is on its way, until its reader has shown to be quick: whoever doesn't
/// read holds little, and is told from a slow reader in steps of half of this.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 16 * 1024;

/// Said of a socket that was given as bound.
pub(super) const UNUSABLE: &str = "the listening socket can't be used";

/// What a socket needs, whoever bound it.
pub(super) fn prepare(socket: &impl AsFd, is_tcp: bool) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_nonblocking(true)?;
    if is_tcp {
        socket.set_tcp_nodelay(true)?;
        // Accepted sockets inherit it; a kernel that doesn't know it is no worse than before.
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    }
    socket.listen(BACKLOG)
}

/// From now on the kernel takes as much of a response as the system allows, megabytes of it: to hand an answer over whole
/// costs half of what it costs in pieces of a few kilobytes.
#[cfg(target_os = "linux")]
pub(super) fn hold_much(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(0)
}

/// Hands over a piece of `from` if the kernel has room for it that its reader has made.
///
/// Linux appends to the last piece that it holds without asking for room, up to 64 KiB: so it is told that a piece ends
/// where it ends (`MSG_EOR`), and each is taken only once about as much of what came before has arrived.
pub(super) fn send_piece(socket: &Socket, from: &[u8]) -> io::Result<usize> {
    const PIECE: usize = 4 * 1024;
    let piece = &from[..from.len().min(PIECE)];
    #[cfg(target_os = "linux")]
    {
        const MSG_EOR: i32 = 0x80;
        const MSG_NOSIGNAL: i32 = 0x4000;
        socket.send_with_flags(piece, MSG_EOR | MSG_NOSIGNAL)
    }
    #[cfg(not(target_os = "linux"))]
    {
        io::Write::write(&mut &*socket, piece)
    }
}

pub(super) fn tcp(address: impl ToSocketAddrs + fmt::Display) -> Result<TcpListener, Error> {
    let refused = |error: io::Error| {
        let message = format!("can't bind {address}: {}", explain(&error));
        Error::bind(message, error)
    };
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs().map_err(refused)? {
        match tcp_at(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(refused(last))
}

fn tcp_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Else a restart fails for as long as connections of the last run are in TIME-WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Drops what asks for a new connection (a segment with SYN), and lets through what belongs to one under way.
///
/// To close a listening socket resets what came between the last look into its queue and the close: connections that
/// their clients take for made, with requests in them. Who asks after this isn't answered, asks again a second later and
/// is refused, which every client and balancer takes as said.
#[cfg(target_os = "linux")]
pub(super) fn admit_no_more(socket: &impl AsFd) -> io::Result<()> {
    // The filter sees the TCP header; its flags are in byte 13 (RFC 9293 section 3.1).
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    let only_what_is_under_way = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    SockRef::from(socket).attach_filter(&only_what_is_under_way)
}

/// Binds another socket where `socket` listens; the kernel shares the connections out among them.
///
/// `socket` was bound as any other and says only now that it shares: so a server that was there already is noticed.
pub(super) fn beside(socket: &TcpListener) -> io::Result<TcpListener> {
    SockRef::from(socket).set_reuse_port(true)?;
    let address = socket.local_addr()?;
    let another = tcp_socket(address)?;
    another.set_reuse_port(true)?;
    another.bind(&address.into())?;
    prepare(&another, true)?;
    Ok(another.into())
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            "permission denied (ports below 1024 need a privilege)".to_owned()
        }
        ErrorKind::AddrInUse => "the address is in use".to_owned(),
        ErrorKind::AddrNotAvailable => "no interface has this address".to_owned(),
        ErrorKind::InvalidInput => "an address is a host and a port, like 0.0.0.0:80".to_owned(),
        _ => error.to_string(),
    }
}

/// `mode` is that of the file; without one it is what the process's umask leaves.
pub(super) fn unix(path: &Path, mode: Option<u32>) -> Result<UnixListener, Error> {
    let refused = |why: String, error: io::Error| {
        Error::bind(format!("can't bind unix:{}: {why}", path.display()), error)
    };
    if let Some(mode) = mode.filter(|mode| *mode > 0o777) {
        return Err(Error::config(format!(
            "the mode of unix:{} must be from 0 to 0o777, not {mode:#o}",
            path.display()
        )));
    }
    let error = match unix_at(path, mode) {
        Ok(socket) => return Ok(socket),
        Err(error) => error,
    };
    if error.kind() != ErrorKind::AddrInUse {
        let why = match error.kind() {
            ErrorKind::PermissionDenied => "permission denied".to_owned(),
            ErrorKind::NotFound => "its directory doesn't exist".to_owned(),
            _ => error.to_string(),
        };
        return Err(refused(why, error));
    }
    match occupant(path) {
        Occupant::Nobody => std::fs::remove_file(path)
            .and_then(|()| unix_at(path, mode))
            .map_err(|error| refused(error.to_string(), error)),
        Occupant::Server => Err(refused(
            "another server is listening there".to_owned(),
            error,
        )),
        Occupant::File => Err(refused(
            "a file that isn't a socket is there".to_owned(),
            error,
        )),
        Occupant::Unknown(why) => Err(refused(
            format!("a socket is there and doesn't say whether it is used ({why})"),
            error,
        )),
    }
}

fn unix_at(path: &Path, mode: Option<u32>) -> io::Result<UnixListener> {
    let mode = mode.map(Permissions::from_mode);
    let socket = unix_socket(mode.clone())?;
    socket.bind(&SockAddr::unix(path)?)?;
    if let Some(mode) = mode {
        std::fs::set_permissions(path, mode)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Linux makes the file with the mode of the socket, less the umask: so it is never open to more than is asked for.
pub(super) fn unix_socket(mode: Option<Permissions>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let Some(mode) = mode else {
        return Ok(socket);
    };
    let socket = File::from(OwnedFd::from(socket));
    // Elsewhere this may fail, and the file has its mode a moment later.
    let _ = socket.set_permissions(mode);
    Ok(OwnedFd::from(socket).into())
}

/// What keeps a path from being bound.
enum Occupant {
    Nobody,
    Server,
    File,
    Unknown(io::Error),
}

fn occupant(path: &Path) -> Occupant {
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Occupant::File,
        Ok(_) => {}
        Err(error) => return Occupant::Unknown(error),
    }
    match knock(path) {
        Ok(()) => Occupant::Server,
        // Its queue is full: somebody is behind it.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Occupant::Server,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Occupant::Nobody,
        Err(error) => Occupant::Unknown(error),
    }
}

fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// The file of a Unix socket, removed on drop if it is still the one that was bound.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have taken the path over since.
    identity: (u64, u64),
}

impl SocketFile {
    pub(super) fn at(path: &Path) -> Option<Self> {
        // A later change of directory must not lead to another file.
        let path = std::path::absolute(path).ok()?;
        let identity = identity(&path)?;
        Some(Self { path, identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}
