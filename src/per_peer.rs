//! A limit on the connections of each peer, as a layer of the connection plane. It knows addresses and counts; what a
//! connection is for it never learns.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::conn::{Address, CloseReason, Conn, ConnReport};

/// Closes connections of a peer that has as many open already as one may have, so that nobody alone can take every
/// place that [`Server::max_connections`](crate::Server::max_connections) leaves.
///
/// A peer is an IPv4 address or an IPv6 network of 64 bits, which is what one customer is given at the least. Unix
/// sockets and streams without an address aren't counted. Behind a balancer all connections have the balancer's
/// address: there, put this below `ProxyProtocol` (feature `proxy-protocol`), and it counts the real peers.
///
/// A connection above the limit is reset at once, with [`CloseReason::PeerLimit`] in its report. It gets no 503: that
/// would mean to read a request, and behind TLS a handshake first, for the one peer that shall cost least.
///
/// Clones count together, so that the stacks of several cores or servers can share one limit. The table is locked when
/// a connection opens and when it closes, and holds only peers with open connections.
///
/// ```
/// use tower::ServiceBuilder;
/// use wharf::{Body, Http, PerPeer};
///
/// let stack = ServiceBuilder::new()
///     .layer(PerPeer::new(100))
///     .layer(Http::new())
///     .service_fn(|_: http::Request<Body>| async { Ok::<_, wharf::BoxError>(http::Response::new(Body::from("hello"))) });
/// # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct PerPeer {
    most: usize,
    ipv6_bits: u32,
    counts: Arc<Counts>,
}

impl PerPeer {
    /// At most `most` connections of a peer at a time; zero refuses everybody who has an IP address.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            ipv6_bits: 64,
            counts: Arc::default(),
        }
    }

    /// How much of an IPv6 address makes a peer. Default 64 bits; whoever is given a network of 48 or 56 bits has that
    /// many limits. Anything above 128 is the whole address.
    pub fn ipv6_prefix(mut self, bits: u8) -> Self {
        self.ipv6_bits = u32::from(bits).min(128);
        self
    }

    /// What is counted together.
    fn key(&self, peer: &Address) -> Option<Ipv6Addr> {
        // On a socket for both families IPv4 comes as ::ffff:10.0.0.1.
        Some(match peer.socket()?.ip().to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - self.ipv6_bits).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask)
            }
        })
    }
}

/// Open connections by peer.
#[derive(Default)]
struct Counts(Mutex<HashMap<Ipv6Addr, usize>>);

impl Counts {
    /// `None`: all places of this peer are taken.
    fn enter(self: &Arc<Self>, peer: Ipv6Addr, most: usize) -> Option<Place> {
        let mut table = self.lock();
        if table.get(&peer).copied().unwrap_or(0) >= most {
            return None;
        }
        *table.entry(peer).or_default() += 1;
        Some(Place {
            counts: self.clone(),
            peer,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ipv6Addr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} peers", self.lock().len())
    }
}

/// Given back when it is dropped.
#[derive(Debug)]
struct Place {
    counts: Arc<Counts>,
    peer: Ipv6Addr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.counts.lock();
        if let Entry::Occupied(mut count) = table.entry(self.peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl<S> Layer<S> for PerPeer {
    type Service = Counted<S>;

    fn layer(&self, service: S) -> Counted<S> {
        Counted {
            limit: self.clone(),
            service,
        }
    }
}

/// The service that [`PerPeer`] makes.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    limit: PerPeer,
    service: S,
}

impl<S, Io> Service<Conn<Io>> for Counted<S>
where
    S: Service<Conn<Io>, Response = ConnReport>,
{
    type Response = ConnReport;
    type Error = S::Error;
    type Future = Counting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, conn: Conn<Io>) -> Self::Future {
        let peer = self.limit.key(&conn.info().peer);
        let place = peer.map(|peer| self.limit.counts.enter(peer, self.limit.most));
        let phase = match place {
            Some(None) => Phase::Refused {
                report: Some(refuse(conn)),
            },
            counted => Phase::Served {
                serving: self.service.call(conn),
                place: counted.flatten(),
            },
        };
        Counting { phase }
    }
}

/// By a reset: a polite end would leave a socket in TIME-WAIT here for each attempt.
fn refuse<Io>(conn: Conn<Io>) -> ConnReport {
    conn.live().abort();
    conn.end(CloseReason::PeerLimit)
}

pin_project! {
    /// A connection's life, in its peer's place.
    pub struct Counting<F> {
        #[pin]
        phase: Phase<F>,
    }
}

pin_project! {
    #[project = PhaseProjection]
    enum Phase<F> {
        Served {
            #[pin]
            serving: F,
            place: Option<Place>,
        },
        Refused {
            report: Option<ConnReport>,
        },
    }
}

impl<F, E> Future for Counting<F>
where
    F: Future<Output = Result<ConnReport, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().phase.project() {
            PhaseProjection::Served { serving, place } => {
                let end = ready!(serving.poll(cx));
                drop(place.take());
                Poll::Ready(end)
            }
            PhaseProjection::Refused { report } => match report.take() {
                Some(report) => Poll::Ready(Ok(report)),
                None => panic!("polled after its end"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc::unbounded_channel;
    use tower::service_fn;

    use super::*;
    use crate::error::BoxError;
    use crate::listener::{Listener, Stream};
    use crate::server::Server;
    use crate::shutdown::Shutdown;

    fn from(peer: &str) -> Conn<()> {
        let mut conn = Conn::from(());
        if let Ok(address) = peer.parse::<SocketAddr>() {
            conn.info_mut().peer = address.into();
        }
        conn
    }

    fn endless(
        limit: &PerPeer,
    ) -> impl Service<Conn<()>, Response = ConnReport, Error = BoxError> + use<> {
        limit.layer(service_fn(|conn: Conn<()>| async {
            std::future::pending::<()>().await;
            Ok(conn.end(CloseReason::ClientClosed))
        }))
    }

    /// The reason of a connection that has ended; none for one that goes on.
    fn reason<F>(future: Pin<&mut F>) -> Option<CloseReason>
    where
        F: Future<Output = Result<ConnReport, BoxError>>,
    {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Some(end.unwrap().reason),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_peer_has_its_places_and_gets_them_back() {
        let limit = PerPeer::new(2);
        let mut service = endless(&limit);
        let mut open: Vec<_> = (0..2)
            .map(|_| Box::pin(service.call(from("192.0.2.1:1"))))
            .collect();
        for one in &mut open {
            assert_eq!(reason(one.as_mut()), None);
        }
        let mut third = Box::pin(service.call(from("192.0.2.1:2")));
        assert_eq!(reason(third.as_mut()), Some(CloseReason::PeerLimit));
        let mut other = Box::pin(service.call(from("192.0.2.2:1")));
        assert_eq!(reason(other.as_mut()), None);

        open.pop();
        let mut again = Box::pin(service.call(from("192.0.2.1:3")));
        assert_eq!(reason(again.as_mut()), None);
        assert_eq!(limit.counts.lock().len(), 2);
        drop((open, again, other, third));
        assert!(limit.counts.lock().is_empty());
    }

    #[test]
    fn places_are_given_back_by_an_end_an_error_and_a_panic() {
        let limit = PerPeer::new(1);
        let mut count = 0;
        let mut service = limit.layer(service_fn(|conn: Conn<()>| {
            count += 1;
            assert_ne!(count, 3, "as asked");
            std::future::ready(match count {
                1 => Ok(conn.end(CloseReason::ClientClosed)),
                _ => Err(BoxError::from("as asked")),
            })
        }));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let mut call = Box::pin(service.call(from("192.0.2.1:1")));
            assert!(call.as_mut().poll(&mut cx).is_ready());
            // At its end, not when the future is dropped at last.
            assert!(limit.counts.lock().is_empty());
        }
        let call = std::panic::AssertUnwindSafe(|| drop(service.call(from("192.0.2.1:1"))));
        assert!(std::panic::catch_unwind(call).is_err());
        assert!(limit.counts.lock().is_empty());
    }

    #[test]
    fn a_peer_is_an_ipv4_address_or_an_ipv6_network() {
        let limit = PerPeer::new(1);
        let same = |limit: &PerPeer, one: &str, other: &str| {
            let key = |peer: &str| limit.key(&peer.parse::<SocketAddr>().unwrap().into());
            key(one) == key(other)
        };
        for (one, other, wanted) in [
            ("192.0.2.1:1", "192.0.2.1:2", true),
            ("192.0.2.1:1", "192.0.2.0:1", false),
            ("192.0.2.1:1", "[::ffff:192.0.2.1]:1", true),
            ("[2001:db8::1]:1", "[2001:db8::ffff:1]:1", true),
            ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false),
            ("[::1]:1", "0.0.0.0:1", false),
        ] {
            assert_eq!(same(&limit, one, other), wanted, "{one} and {other}");
        }
        let [one, other] = ["[2001:db8::1]:1", "[2001:db8:0:1::1]:1"];
        assert!(same(&limit.clone().ipv6_prefix(48), one, other));
        assert!(same(&limit.clone().ipv6_prefix(0), one, "[fe80::1]:1"));
        let near = "[2001:db8::2]:1";
        assert!(!same(&limit.clone().ipv6_prefix(128), one, near));
        assert!(!same(&limit.clone().ipv6_prefix(255), one, near));
    }

    #[test]
    fn who_has_no_ip_address_is_not_counted() {
        let limit = PerPeer::new(0);
        let mut service = endless(&limit);
        let mut unix = Box::pin(service.call(from("unix")));
        assert_eq!(reason(unix.as_mut()), None);
        let mut ip = Box::pin(service.call(from("[::1]:1")));
        assert_eq!(reason(ip.as_mut()), Some(CloseReason::PeerLimit));
    }

    #[test]
    fn clones_count_together() {
        let limit = PerPeer::new(1);
        let (mut one, mut other) = (endless(&limit), endless(&limit.clone()));
        let mut first = Box::pin(one.call(from("192.0.2.1:1")));
        let mut second = Box::pin(other.call(from("192.0.2.1:1")));
        assert_eq!(reason(first.as_mut()), None);
        assert_eq!(reason(second.as_mut()), Some(CloseReason::PeerLimit));
    }

    /// Never ready, and says why.
    struct Broken;

    impl Service<Conn<()>> for Broken {
        type Response = ConnReport;
        type Error = BoxError;
        type Future = std::future::Pending<Result<ConnReport, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err("broken".into()))
        }

        fn call(&mut self, _: Conn<()>) -> Self::Future {
            panic!("called without being ready")
        }
    }

    #[test]
    fn readiness_is_that_of_the_service() {
        let mut service = PerPeer::new(1).layer(Broken);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Err(error)) = service.poll_ready(&mut cx) else {
            panic!("its error is hidden")
        };
        assert_eq!(error.to_string(), "broken");
    }

    #[tokio::test]
    async fn over_sockets_the_one_too_many_is_reset_and_reported() {
        let listener = Listener::tcp("127.0.0.1:0").unwrap();
        let address = listener.local().socket().unwrap();
        let (tell, mut reports) = unbounded_channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let echo = service_fn(|mut conn: Conn<Stream>| async {
            let byte = conn.io_mut().read_u8().await?;
            conn.io_mut().write_u8(byte).await?;
            conn.io_mut().read_u8().await?;
            Ok::<_, BoxError>(conn.end(CloseReason::HandlerAsked))
        });
        let server = Server::new()
            .listen(listener)
            .unwrap()
            .shutdown(Shutdown::when(async { stopped.await.unwrap_or_default() }))
            .on_close(move |conn| drop(tell.send(conn.reason.clone())));
        let server = tokio::spawn(server.serve(PerPeer::new(1).layer(echo)));

        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_u8(b'a').await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'a');
        let mut second = TcpStream::connect(address).await.unwrap();
        let error = second.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(reports.recv().await.unwrap(), CloseReason::PeerLimit);

        drop(first);
        let CloseReason::BeforeHttp(why) = reports.recv().await.unwrap() else {
            panic!("its error is not told")
        };
        assert_eq!(&*why, "unexpected end of file");
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(b"cc").await.unwrap();
        assert_eq!(third.read_u8().await.unwrap(), b'c');
        assert_eq!(reports.recv().await.unwrap(), CloseReason::HandlerAsked);
        stop.send(()).unwrap();
        let report = server.await.unwrap().unwrap().to_string();
        assert!(report.contains("1 over its peer's limit"), "{report}");
    }
}
