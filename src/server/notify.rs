//! Telling a supervisor how the server is (sd_notify(3)): a datagram to `NOTIFY_SOCKET`. Knows nothing of the server but
//! what it is told, says nothing without the feature `inherited`, and never fails the server: without a supervisor that
//! listens there is nobody to tell.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::conn::Address;

/// A supervisor whose queue is full must not hold up the server for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The server listens on all of its sockets.
pub(super) fn ready(listening: &[Address]) {
    let addresses: Vec<_> = listening.iter().map(Address::to_string).collect();
    let addresses = addresses.join(", ");
    // A path may hold anything, and a line is a message.
    let addresses = addresses.replace('\n', " ");
    tell(&format!("READY=1\nSTATUS=listening on {addresses}"));
}

/// The shutdown begins, with so many connections open.
pub(super) fn stopping(open: usize) {
    tell(&format!(
        "STOPPING=1\nSTATUS=shutting down, {open} connections open"
    ));
}

fn tell(state: &str) {
    if !cfg!(feature = "inherited") {
        return;
    }
    if let Some(path) = env::var_os("NOTIFY_SOCKET") {
        let _ = send(&path, state);
    }
}

/// `@` at the start of `path` stands for the zero byte of an abstract name.
fn send(path: &OsStr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => abstract_address(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;

    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}
