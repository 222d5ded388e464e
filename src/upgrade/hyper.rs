//! `hyper::upgrade::OnUpgrade` for frameworks that ask for that very type, as axum's `WebSocketUpgrade` does. It can be made by a
//! hyper connection only: so one of its own is led, without IO and in one poll, to the point where it gives its "socket" away.
//! That socket is [`Later`]: nothing until wharf's connection has left HTTP, then the real one.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker, ready};

use http::{Extensions, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{OnUpgrade, Promise, Upgraded};
use crate::body::Body;

/// The request that hyper's connection reads.
const OFFER: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n";

/// Puts hyper's promise beside wharf's own. Whoever takes one of them first has the socket.
pub(crate) fn promise(extensions: &mut Extensions, promise: &Promise) {
    if let Some(minted) = mint(promise.clone()) {
        extensions.insert(minted);
    }
}

/// Nothing here waits, so one poll does it; `None` if hyper ever came to see that differently.
fn mint(promise: Promise) -> Option<hyper::upgrade::OnUpgrade> {
    let (send, minted) = mpsc::channel();
    let accept = hyper::service::service_fn(move |mut request: Request<_>| {
        let _ = send.send(hyper::upgrade::on(&mut request));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let given = Arc::new(AtomicBool::new(false));
    let later = Later {
        offer: OFFER,
        given: given.clone(),
        socket: Socket::Promised(promise),
    };
    let mut connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(later), accept)
        .with_upgrades();
    let led = Pin::new(&mut connection).poll(&mut Context::from_waker(Waker::noop()));
    given.store(true, Relaxed);
    led.is_ready().then(|| minted.recv().ok()).flatten()
}

/// What hyper takes for a socket. Until it has been given away it reads as the offer and swallows the answer; from then on it
/// is the connection's socket, as soon as there is one.
struct Later {
    offer: &'static [u8],
    given: Arc<AtomicBool>,
    socket: Socket,
}

enum Socket {
    Promised(Promise),
    Coming(OnUpgrade),
    Here(Upgraded),
}

impl Later {
    fn is_given(&self) -> bool {
        self.given.load(Relaxed)
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Upgraded>>> {
        loop {
            self.socket = match &mut self.socket {
                Socket::Promised(promise) => Socket::Coming(promise.take().ok_or_else(taken)?),
                Socket::Coming(upgrade) => {
                    let socket = ready!(Pin::new(upgrade).poll(cx));
                    let failed = |error| io::Error::new(io::ErrorKind::NotConnected, error);
                    Socket::Here(socket.map_err(failed)?)
                }
                Socket::Here(_) => break,
            };
        }
        match &mut self.socket {
            Socket::Here(socket) => Poll::Ready(Ok(Pin::new(socket))),
            _ => Poll::Pending, // Only a socket that is here breaks the loop.
        }
    }
}

fn taken() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the socket was taken by `wharf::upgrade::on`",
    )
}

impl AsyncRead for Later {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_given() {
            return ready!(self.poll_socket(cx)?).poll_read(cx, buf);
        }
        let (now, rest) = self.offer.split_at(self.offer.len().min(buf.remaining()));
        if now.is_empty() {
            return Poll::Pending;
        }
        buf.put_slice(now);
        self.offer = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Later {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_given() {
            return ready!(self.poll_socket(cx)?).poll_write(cx, buf);
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_given() {
            return ready!(self.poll_socket(cx)?).poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_given() {
            return ready!(self.poll_socket(cx)?).poll_shutdown(cx);
        }
        Poll::Ready(Ok(()))
    }
}
