//! The PROXY protocol as a layer of the connection plane: who a balancer says is at the other end. It reads one header
//! and not a byte more; whether a header comes is what the listener's owner says, never what the bytes suggest.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ipnet::IpNet;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};
use tower_layer::Layer;
use tower_service::Service;

use crate::conn::{Address, CloseReason, Conn, ConnReport, ProxyError, ProxyInfo, Told};
use crate::error::Error;

mod header;

use header::Header;

/// Bytes read at once: most headers are shorter.
const CHUNK: usize = 256;

/// Takes a connection's addresses from the PROXY header that a balancer sends ahead, in version 1 or 2 of the
/// [protocol](https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt) (with the feature `proxy-protocol`).
///
/// Each connection must begin with a header. One that doesn't, or comes from an address that isn't trusted, is closed:
/// a client that could choose between speaking for itself and for others would forge its address. So a listener is
/// either behind balancers or it isn't; serve direct clients on another server.
///
/// What was told becomes [`ConnInfo::peer`](crate::ConnInfo::peer) and [`local`](crate::ConnInfo::local); the
/// balancer's own address and the fields of version 2 are in [`ConnInfo::proxy`](crate::ConnInfo::proxy). A header that
/// tells no addresses (`UNKNOWN`, `AF_UNSPEC`, and `LOCAL` in health checks) leaves those of the socket: the peer is the
/// balancer then, so whoever lets addresses in looks at [`ProxyInfo::client`] too. Checksums (CRC32c) are not verified.
///
/// Waiting for a header is part of the connection's own future: it never holds up `accept()`. The layer goes above
/// TLS and [`Http`](crate::Http), and the stream keeps its type, so tower's `option_layer` can switch it.
///
/// ```
/// use tower::ServiceBuilder;
/// use wharf::{Body, Http, ProxyProtocol};
///
/// # fn main() -> Result<(), wharf::Error> {
/// let stack = ServiceBuilder::new()
///     .layer(ProxyProtocol::required().trust(["10.0.0.0/8", "fd00::/8", "192.0.2.7"])?)
///     .layer(Http::new())
///     .service_fn(|_: http::Request<Body>| async { Ok::<_, wharf::BoxError>(http::Response::new(Body::from("hello"))) });
/// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ProxyProtocol {
    settings: Arc<Settings>,
}

#[derive(Debug, Clone)]
struct Settings {
    networks: Vec<IpNet>,
    unix: bool,
    time: Duration,
}

impl ProxyProtocol {
    /// Requires a header of each connection, within five seconds. Nobody is trusted to send one yet.
    pub fn required() -> Self {
        Self {
            settings: Arc::new(Settings {
                networks: Vec::new(),
                unix: false,
                time: Duration::from_secs(5),
            }),
        }
    }

    /// Trusts these networks and addresses too: `"10.0.0.0/8"`, `"2001:db8::/32"`, `"192.0.2.7"`.
    ///
    /// # Errors
    ///
    /// A sentence that names what is neither.
    pub fn trust<N>(mut self, networks: impl IntoIterator<Item = N>) -> Result<Self, Error>
    where
        N: AsRef<str>,
    {
        let trusted = &mut Arc::make_mut(&mut self.settings).networks;
        for network in networks {
            trusted.push(parse(network.as_ref())?);
        }
        Ok(self)
    }

    /// Trusts whoever connects by a Unix socket: the socket file's permissions say who can.
    pub fn trust_unix(mut self) -> Self {
        Arc::make_mut(&mut self.settings).unix = true;
        self
    }

    /// How long the header may take. Default 5 s.
    pub fn timeout(mut self, time: Duration) -> Self {
        Arc::make_mut(&mut self.settings).time = time;
        self
    }
}

fn parse(network: &str) -> Result<IpNet, Error> {
    let address = || network.parse().map(|address: IpAddr| address.into());
    network.parse().or_else(|_| address()).map_err(|_| {
        Error::config(format!(
            "`{network}` is neither a network like 10.0.0.0/8 nor an IP address"
        ))
    })
}

impl Settings {
    fn trusts(&self, peer: &Address) -> bool {
        match peer.socket() {
            None => self.unix,
            Some(peer) => {
                // On a socket for both families IPv4 comes as ::ffff:10.0.0.1.
                let peer = peer.ip().to_canonical();
                self.networks.iter().any(|network| network.contains(&peer))
            }
        }
    }
}

impl<S> Layer<S> for ProxyProtocol {
    type Service = Proxied<S>;

    fn layer(&self, service: S) -> Proxied<S> {
        Proxied {
            settings: self.settings.clone(),
            service,
        }
    }
}

/// The service that [`ProxyProtocol`] makes.
#[derive(Debug, Clone)]
pub struct Proxied<S> {
    settings: Arc<Settings>,
    service: S,
}

impl<S, Io> Service<Conn<Io>> for Proxied<S>
where
    S: Service<Conn<Io>, Response = ConnReport> + Clone,
    Io: AsyncRead + Unpin,
{
    type Response = ConnReport;
    type Error = S::Error;
    type Future = Proxying<S, Io, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, conn: Conn<Io>) -> Self::Future {
        // The one that is ready is called, later; the next connection asks the clone.
        let next = self.service.clone();
        let service = std::mem::replace(&mut self.service, next);
        let trusted = self.settings.trusts(&conn.info().peer);
        Proxying {
            phase: Phase::Reading {
                conn,
                service,
                trusted,
                head: Vec::new(),
                late: sleep(self.settings.time),
            },
        }
    }
}

pin_project! {
    /// A connection's life: its PROXY header, then what the service below makes of it.
    pub struct Proxying<S, Io, F> {
        #[pin]
        phase: Phase<S, Io, F>,
    }
}

pin_project! {
    #[project = PhaseProjection]
    #[project_replace = PhaseOwned]
    enum Phase<S, Io, F> {
        Reading {
            conn: Conn<Io>,
            service: S,
            trusted: bool,
            head: Vec<u8>,
            #[pin]
            late: Sleep,
        },
        Serving {
            #[pin]
            serving: F,
        },
        Ended,
    }
}

impl<S, Io> Future for Proxying<S, Io, S::Future>
where
    S: Service<Conn<Io>, Response = ConnReport>,
    Io: AsyncRead + Unpin,
{
    type Output = Result<ConnReport, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut phase = self.project().phase;
        loop {
            let end = match phase.as_mut().project() {
                PhaseProjection::Reading { trusted: false, .. } => {
                    Err(CloseReason::Proxy(ProxyError::Untrusted))
                }
                PhaseProjection::Reading {
                    conn, head, late, ..
                } => ready!(poll_header(cx, conn, head, late)),
                PhaseProjection::Serving { serving } => return serving.poll(cx),
                PhaseProjection::Ended => panic!("polled after its end"),
            };
            let PhaseOwned::Reading {
                conn, mut service, ..
            } = phase.as_mut().project_replace(Phase::Ended)
            else {
                continue;
            };
            match end {
                Ok(header) => {
                    let serving = service.call(told(conn, header));
                    phase.set(Phase::Serving { serving });
                }
                Err(reason) => return Poll::Ready(Ok(conn.end(reason))),
            }
        }
    }
}

/// Reads until the header is whole, the time is over or the server wants its connections to end.
fn poll_header<Io: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    conn: &mut Conn<Io>,
    head: &mut Vec<u8>,
    late: Pin<&mut Sleep>,
) -> Poll<Result<Header, CloseReason>> {
    loop {
        let missing = header::missing(head).map_err(CloseReason::Proxy)?;
        if missing == 0 {
            return Poll::Ready(header::decode(head).map_err(CloseReason::Proxy));
        }
        let mut chunk = [0; CHUNK];
        let mut into = ReadBuf::new(&mut chunk[..missing.min(CHUNK)]);
        match Pin::new(conn.io_mut()).poll_read(cx, &mut into) {
            Poll::Pending => break,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(CloseReason::Io(error.kind()))),
            Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                head.extend_from_slice(into.filled());
            }
            // A balancer's check that somebody listens sends nothing at all.
            Poll::Ready(Ok(())) if head.is_empty() => {
                return Poll::Ready(Err(CloseReason::ClientClosed));
            }
            Poll::Ready(Ok(())) => {
                return Poll::Ready(Err(CloseReason::Proxy(ProxyError::Truncated)));
            }
        }
    }
    if conn.live().watch(cx).0 >= Told::Drain {
        return Poll::Ready(Err(conn.live().told_why()));
    }
    late.poll(cx).map(|()| {
        let got = head.len();
        Err(CloseReason::Proxy(ProxyError::Late { got }))
    })
}

/// The connection, as the balancer says it is.
fn told<Io>(mut conn: Conn<Io>, header: Header) -> Conn<Io> {
    let info = conn.info_mut();
    let (peer, local) = (info.peer.clone(), info.local.clone());
    if let Some((source, destination)) = header.addresses {
        (info.peer, info.local) = (source, destination);
    }
    let proxy = ProxyInfo::new(header.client, peer, local, header.tlvs);
    info.proxy = Some(Arc::new(proxy));
    conn
}

#[cfg(test)]
mod tests;
