use std::future::poll_fn;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::error::ErrorKind::Bind;

/// A path of its own for a socket, removed with what is there.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "wharf-{}-{}.sock",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed)
        );
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn socket(listener: &Listener) -> SocketAddr {
    match listener.local() {
        Address::Socket(address) => *address,
        other => panic!("{other}"),
    }
}

#[test]
fn a_refused_address_is_named_in_a_sentence() {
    let first = Listener::tcp("127.0.0.1:0").unwrap();
    let address = socket(&first);
    let error = Listener::tcp(address).unwrap_err();
    assert_eq!(error.kind(), Bind);
    assert_eq!(
        error.to_string(),
        format!("can't bind {address}: the address is in use")
    );
    let error = Listener::tcp("192.0.2.1:0").unwrap_err();
    assert_eq!(
        error.to_string(),
        "can't bind 192.0.2.1:0: no interface has this address"
    );
    let error = Listener::tcp("no port").unwrap_err();
    assert_eq!(
        error.to_string(),
        "can't bind no port: an address is a host and a port, like 0.0.0.0:80"
    );
}

/// How many connections each has in its queue.
fn accepted(shards: &[Listener]) -> Vec<usize> {
    let count = |shard: &Listener| match &shard.socket {
        Socket::Tcp(socket) => std::iter::from_fn(|| socket.accept().ok()).count(),
        Socket::Unix(socket) => std::iter::from_fn(|| socket.accept().ok()).count(),
    };
    shards.iter().map(count).collect()
}

#[test]
fn shards_of_a_bound_address_share_its_connections_and_no_other_server_does() {
    let first = Listener::tcp("127.0.0.1:0").unwrap().named("public");
    let address = socket(&first);
    let connect = || std::net::TcpStream::connect(address).unwrap();
    let early: Vec<_> = (0..8).map(|_| connect()).collect();
    let shards = first.shards(3).unwrap();
    for shard in &shards {
        assert_eq!((socket(shard), &*shard.name), (address, "public"));
    }
    assert_eq!(accepted(&shards), [early.len(), 0, 0]);
    let clients: Vec<_> = (0..128).map(|_| connect()).collect();
    let accepted = accepted(&shards);
    assert_eq!(accepted.iter().sum::<usize>(), clients.len());
    assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");

    let refused = Listener::tcp(address).unwrap_err().to_string();
    assert_eq!(
        refused,
        format!("can't bind {address}: the address is in use")
    );
    drop(shards);
    assert_eq!(Listener::tcp(address).unwrap().shards(1).unwrap().len(), 1);
}

#[test]
fn shards_of_what_others_have_too_share_one_queue() {
    let given = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let kept = given.try_clone().unwrap();
    let address = given.local_addr().unwrap();
    let tcp = given.into_listeners().unwrap().remove(0);
    let path = Scratch::new();
    let unix = Listener::unix(&path.0).unwrap();

    let shards = tcp.shards(2).unwrap();
    let _clients: Vec<_> = (0..32)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    assert_eq!(accepted(&shards), [32, 0]);
    let _late = std::net::TcpStream::connect(address).unwrap();
    drop(shards);
    kept.accept().unwrap();

    let mut shards = unix.shards(2).unwrap();
    let _client = unix::net::UnixStream::connect(&path.0).unwrap();
    shards.pop();
    assert!(path.0.exists());
    assert_eq!(accepted(&shards), [1]);
    drop(shards);
    assert!(!path.0.exists());
}

#[test]
fn a_stale_socket_file_is_replaced_and_the_own_one_removed() {
    let path = Scratch::new();
    drop(unix::net::UnixListener::bind(&path.0).unwrap());
    assert!(path.0.exists());
    let listener = Listener::unix(&path.0).unwrap();
    assert_eq!(*listener.local(), Address::Unix(path.0.clone()));
    drop(listener);
    assert!(!path.0.exists());
}

#[test]
fn the_file_has_the_mode_that_was_asked_for_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;

    let path = Scratch::new();
    for mode in [0o600, 0o660, 0o666, 0o777] {
        let _listener = Listener::unix_with_mode(&path.0, mode).unwrap();
        let found = std::fs::metadata(&path.0).unwrap().permissions();
        assert_eq!(found.mode() & 0o7777, mode);
        unix::net::UnixStream::connect(&path.0).unwrap();
    }
    // A stale one's mode doesn't live on.
    drop(unix::net::UnixListener::bind(&path.0).unwrap());
    std::fs::set_permissions(&path.0, std::fs::Permissions::from_mode(0o666)).unwrap();
    let _listener = Listener::unix_with_mode(&path.0, 0o640).unwrap();
    let found = std::fs::metadata(&path.0).unwrap().permissions();
    assert_eq!(found.mode() & 0o7777, 0o640);

    // Nor is it open to more before it has its mode.
    #[cfg(target_os = "linux")]
    {
        let early = Scratch::new();
        let mode = std::fs::Permissions::from_mode(0o600);
        let socket = bind::unix_socket(Some(mode)).unwrap();
        let address = socket2::SockAddr::unix(&early.0).unwrap();
        socket.bind(&address).unwrap();
        let found = std::fs::metadata(&early.0).unwrap().permissions();
        assert_eq!(found.mode() & 0o177, 0);
    }

    let other = Scratch::new();
    let error = Listener::unix_with_mode(&other.0, 0o1000).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Config);
    let error = error.to_string();
    assert!(
        error.ends_with("must be from 0 to 0o777, not 0o1000"),
        "{error}"
    );
    assert!(!other.0.exists());
}

#[test]
fn a_socket_that_is_listened_on_is_left_alone() {
    let path = Scratch::new();
    let _other = unix::net::UnixListener::bind(&path.0).unwrap();
    let error = Listener::unix(&path.0).unwrap_err().to_string();
    assert!(
        error.ends_with(": another server is listening there"),
        "{error}"
    );
    assert!(path.0.exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let path = Scratch::new();
    std::fs::write(&path.0, "precious").unwrap();
    let error = Listener::unix(&path.0).unwrap_err().to_string();
    assert!(
        error.ends_with(": a file that isn't a socket is there"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path.0).unwrap(), b"precious");
    let error = Listener::unix("/nowhere/to/be.sock")
        .unwrap_err()
        .to_string();
    assert!(error.ends_with(": its directory doesn't exist"), "{error}");
}

#[test]
fn the_file_of_a_later_server_is_left_alone() {
    let path = Scratch::new();
    let first = Listener::unix(&path.0).unwrap();
    let moved = path.0.with_extension("old");
    std::fs::rename(&path.0, &moved).unwrap();
    let _second = unix::net::UnixListener::bind(&path.0).unwrap();
    drop(first);
    assert!(path.0.exists());
    std::fs::remove_file(moved).unwrap();
}

#[tokio::test]
async fn anything_bound_can_be_listened_on() {
    let std = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tokio = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(std.into_listeners().unwrap().len(), 1);
    assert_eq!([tokio].into_listeners().unwrap().len(), 1);
    assert_eq!(["127.0.0.1:0"; 3].into_listeners().unwrap().len(), 3);
    let path = Scratch::new();
    let unix = format!("unix:{}", path.0.display())
        .into_listeners()
        .unwrap();
    assert_eq!(*unix[0].local(), Address::Unix(path.0.clone()));
    assert!(vec!["127.0.0.1:0", "nonsense"].into_listeners().is_err());
}

#[tokio::test]
async fn an_accepted_stream_carries_bytes_at_once() {
    let listener = Listener::tcp("127.0.0.1:0").unwrap().named("public");
    let address = socket(&listener);
    let open = listener.open().unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let mut accepted = poll_fn(|cx| open.poll_accept(cx)).await.unwrap();
    assert_eq!(&*accepted.listener, "public");
    assert_eq!(accepted.peer, client.local_addr().unwrap().into());
    assert_eq!(accepted.local, address.into());
    let Transport::Tcp(io) = &accepted.io.io else {
        panic!("not TCP")
    };
    assert!(io.nodelay().unwrap());
    assert!(accepted.io.is_write_vectored());
    client.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    accepted.io.read_exact(&mut got).await.unwrap();
    let parts = [io::IoSlice::new(b"po"), io::IoSlice::new(b"ng")];
    assert_eq!(accepted.io.write_vectored(&parts).await.unwrap(), 4);
    accepted.io.shutdown().await.unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "pong");
}

#[tokio::test]
async fn what_the_kernel_has_queued_is_found_without_the_runtime() {
    let path = Scratch::new();
    let unix = Listener::unix(&path.0).unwrap().open().unwrap();
    let tcp = Listener::tcp("127.0.0.1:0").unwrap();
    let address = socket(&tcp);
    let tcp = tcp.open().unwrap();
    for (open, is_tcp) in [(&tcp, true), (&unix, false)] {
        assert_eq!(
            open.accept_queued().unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        let mut one: Box<dyn io::Write> = if is_tcp {
            Box::new(std::net::TcpStream::connect(address).unwrap())
        } else {
            Box::new(unix::net::UnixStream::connect(&path.0).unwrap())
        };
        one.write_all(b"x").unwrap();
        let mut accepted = open.accept_queued().unwrap();
        assert_eq!(accepted.io.read_u8().await.unwrap(), b'x');
        if let Transport::Tcp(io) = &accepted.io.io {
            assert!(io.nodelay().unwrap());
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_about_to_close_keeps_its_queue_and_takes_no_more() {
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let address = socket(&listener);
    let open = listener.open().unwrap();
    let queued = std::net::TcpStream::connect(address).unwrap();
    open.admit_no_more();
    let late = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);

    let accepted = open.accept_queued().unwrap();
    assert_eq!(accepted.peer, queued.local_addr().unwrap().into());
    assert_eq!(
        open.accept_queued().unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    drop(open);
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_that_others_have_too_goes_on_taking_connections() {
    let shared = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = shared.local_addr().unwrap();
    let listeners = shared.try_clone().unwrap().into_listeners().unwrap();
    let open = listeners.into_iter().next().unwrap().open().unwrap();
    open.admit_no_more();
    drop(open);
    let _client = std::net::TcpStream::connect(address).unwrap();
    shared.accept().unwrap();
}

/// As after a stop of the process: the kernel has what the runtime hasn't heard of.
#[tokio::test]
async fn a_last_look_asks_the_kernel_itself() {
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(socket(&listener)).unwrap();
    let open = listener.open().unwrap();
    let Accepted { io, live, .. } = poll_fn(|cx| open.poll_accept(cx)).await.unwrap();
    let mut io = pin!(io);
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = [0; 8];
    let mut into = ReadBuf::new(&mut bytes);

    assert!(io.as_mut().poll_read(&mut cx, &mut into).is_pending());
    client.write_all(b"in time").unwrap();
    assert!(io.as_mut().poll_read(&mut cx, &mut into).is_pending());
    live.look_last(true);
    assert!(io.as_mut().poll_read(&mut cx, &mut into).is_ready());
    assert_eq!(into.filled(), b"in time");
    assert!(io.as_mut().poll_read(&mut cx, &mut into).is_pending());

    live.look_last(false);
    tokio::task::yield_now().await;
    let piece = [b'x'; 64 * 1024];
    while io.as_mut().poll_write(&mut cx, &piece).is_ready() {}
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    while client.read(&mut [0; 64 * 1024]).is_ok_and(|read| read > 0) {}
    assert!(io.as_mut().poll_write(&mut cx, &piece).is_pending());
    live.look_last(true);
    assert!(io.as_mut().poll_write(&mut cx, &piece).is_ready());
    let slices = [io::IoSlice::new(&piece)];
    assert!(io.as_mut().poll_write_vectored(&mut cx, &slices).is_ready());
}
