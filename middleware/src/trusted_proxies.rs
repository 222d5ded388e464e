//! The client's address behind proxies: what a header says is believed only as far as trusted hands wrote it.
//!
//! `Forwarded` (RFC 7239) and `X-Forwarded-For` are lists: each proxy appends the address it was called from, and what
//! a client sent to begin with stays in front. So the list is read from its end. Its last entry was written by the
//! peer; if the peer is in a listed network, that entry is true, and if the address in it is in a listed network too,
//! the entry before it is as good. The first address that is in none is the client; whatever stands before it the
//! client may have made up. A peer that isn't listed is the client itself, and its headers say nothing.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use wharf_middleware::{ClientAddress, TrustedProxies};
//!
//! async fn whoami(request: Request<String>) -> Result<Response<String>, Infallible> {
//!     let client = ClientAddress::of(&request);
//!     Ok(Response::new(client.map_or("?".into(), |client| client.ip().to_string())))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = ServiceBuilder::new()
//!     .layer(TrustedProxies::x_forwarded_for().trust(["10.0.0.0/8", "2001:db8::/32"])?)
//!     .service(service_fn(whoami));
//! # let app = ServiceBuilder::new()
//! #     .layer(TrustedProxies::x_forwarded_for().trust(["10.0.0.0/8"])?.peer_from(|extensions| extensions.get().copied()))
//! #     .service(service_fn(whoami));
//!
//! let request = Request::get("/").header("x-forwarded-for", "1.1.1.1, 203.0.113.7, 10.0.0.2");
//! # let request = request.extension(std::net::SocketAddr::from(([10, 0, 0, 1], 4711)));
//! // The connection comes from 10.0.0.1: `1.1.1.1` is only what the client at 203.0.113.7 said.
//! let response = app.oneshot(request.body(String::new())?).await?;
//! assert_eq!(response.body(), "203.0.113.7");
//! # Ok(())
//! # }
//! ```
//!
//! Which header is read is chosen, never guessed: a proxy that writes one of them passes the others on as the client
//! sent them. For the same reason `X-Forwarded-Proto` and `X-Forwarded-Host` are believed only if asked for, and of
//! several values only the last one. An element of `Forwarded` is written as a whole, so its `proto` and `host` are as
//! true as its `for`.
//!
//! A trusted proxy that hides the address (`for=unknown`, `for=_hidden`) or writes something that is no address ends
//! the reading: its own address stands for the client. So does the farthest proxy when every address is a trusted one,
//! and where a bound is reached: [`MAX_ELEMENTS`] and [`MAX_BYTES`] are read. Elements of `Forwarded` are read from
//! their ends as well, which makes a quote that a client left open its own problem and not that of what follows.
//!
//! The peer's address is the connection's on wharf; elsewhere tell where it is with
//! [`peer_from`](TrustedProxies::peer_from). Without it nobody is trusted and no address found. Cost: each request gets
//! an extension, which allocates, and so does a host that is believed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{HeaderMap, HeaderName};
use http::uri::{Authority, Scheme};
use http::{Extensions, Request};
use ipnet::IpNet;
use tower_layer::Layer;
use tower_service::Service;
use wharf::{Address, ConnInfo};

mod forwarded;
mod node;
#[cfg(test)]
mod tests;
mod x_forwarded;

/// As many elements of a list are read, from its end.
pub const MAX_ELEMENTS: usize = 32;

/// As many bytes of a list are read, from its end.
pub const MAX_BYTES: usize = 4096;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The layer: who is believed, and which header. See [the module](self).
#[derive(Debug, Clone)]
#[must_use]
pub struct TrustedProxies {
    header: Header,
    proto: bool,
    host: bool,
    networks: Arc<[IpNet]>,
    unix_sockets: bool,
    peer_from: Option<fn(&Extensions) -> Option<SocketAddr>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Forwarded,
    XForwardedFor,
}

impl TrustedProxies {
    /// Reads `Forwarded` (RFC 7239), with its `proto` and `host`.
    pub fn forwarded() -> Self {
        Self::of(Header::Forwarded)
    }

    /// Reads `X-Forwarded-For`.
    pub fn x_forwarded_for() -> Self {
        Self::of(Header::XForwardedFor)
    }

    fn of(header: Header) -> Self {
        Self {
            header,
            proto: false,
            host: false,
            networks: Arc::default(),
            unix_sockets: false,
            peer_from: None,
        }
    }

    /// Believes the proxies of these networks (`10.0.0.0/8`) and at these addresses, in addition to those named before.
    ///
    /// # Errors
    ///
    /// [`BadNetwork`] for what is neither a network in CIDR notation nor an address.
    pub fn trust<I>(mut self, networks: I) -> Result<Self, BadNetwork>
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let mut all = self.networks.to_vec();
        for text in networks {
            all.push(network(text.as_ref())?);
        }
        self.networks = all.into();
        Ok(self)
    }

    /// Believes whoever connects by a Unix socket: its file's permissions say who can.
    pub fn trust_unix_sockets(mut self) -> Self {
        self.unix_sockets = true;
        self
    }

    /// Believes `X-Forwarded-Proto` too: only if the nearest proxy sets it, or removes what a client sent.
    ///
    /// Without effect for [`forwarded`](Self::forwarded), whose elements say it themselves.
    pub fn x_forwarded_proto(mut self) -> Self {
        self.proto = true;
        self
    }

    /// Believes `X-Forwarded-Host` too: only if the nearest proxy sets it, or removes what a client sent.
    ///
    /// Without effect for [`forwarded`](Self::forwarded), whose elements say it themselves.
    pub fn x_forwarded_host(mut self) -> Self {
        self.host = true;
        self
    }

    /// Where to find the peer's address under another server; under axum, say,
    /// `|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0)`.
    pub fn peer_from(mut self, find: fn(&Extensions) -> Option<SocketAddr>) -> Self {
        self.peer_from = Some(find);
        self
    }

    /// The client of a request that `peer` sent with these fields.
    fn client(&self, peer: Peer, fields: &HeaderMap) -> Option<ClientAddress> {
        match (self.header, self.believes(peer)) {
            (_, false) => peer.ip().map(ClientAddress::direct),
            (Header::Forwarded, true) => self.walk(peer, forwarded::from_the_end(fields)),
            (Header::XForwardedFor, true) => {
                let mut client = self.walk(peer, x_forwarded::from_the_end(fields))?;
                client.scheme = x_forwarded::last(fields, &X_FORWARDED_PROTO, self.proto)
                    .and_then(node::scheme);
                client.host =
                    x_forwarded::last(fields, &X_FORWARDED_HOST, self.host).and_then(node::host);
                client.forwarded |= client.scheme.is_some() || client.host.is_some();
                Some(client)
            }
        }
    }

    /// Goes from hop to hop, nearest first, as long as whoever wrote the next one is believed.
    fn walk(&self, peer: Peer, hops: impl Iterator<Item = Hop>) -> Option<ClientAddress> {
        let mut client = peer.ip().map(ClientAddress::direct);
        for hop in hops.take(MAX_ELEMENTS) {
            let Some(ip) = hop.ip.or(client.as_ref().map(ClientAddress::ip)) else {
                break;
            };
            client = Some(ClientAddress {
                ip,
                scheme: hop.scheme,
                host: hop.host,
                forwarded: true,
            });
            if hop.ip.is_none() || !self.believes(Peer::Ip(ip)) {
                break;
            }
        }
        client
    }

    fn believes(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(ip) => self.networks.iter().any(|network| network.contains(&ip)),
            Peer::Unix => self.unix_sockets,
            Peer::Unknown => false,
        }
    }
}

/// A network, or a single address, in the form that [`canonical`] gives addresses.
fn network(text: &str) -> Result<IpNet, BadNetwork> {
    let single = || text.parse::<IpAddr>().map(|ip| IpNet::from(canonical(ip)));
    let network = text.parse::<IpNet>().or_else(|_| single());
    let network = network.map_err(|_| BadNetwork { text: text.into() })?;
    match network {
        // `::ffff:10.0.0.0/104` is 10.0.0.0/8 in other words.
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), v6.prefix_len() - 96)
                .map_err(|_| BadNetwork { text: text.into() }),
            None => Ok(network),
        },
        _ => Ok(network),
    }
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is the same address.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Neither a network nor an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadNetwork {
    text: String,
}

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a network such as 10.0.0.0/8 or 2001:db8::/32, or an address, not {:?}",
            self.text
        )
    }
}

impl std::error::Error for BadNetwork {}

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
enum Peer {
    Ip(IpAddr),
    Unix,
    Unknown,
}

impl Peer {
    fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            _ => None,
        }
    }
}

impl From<&Address> for Peer {
    fn from(address: &Address) -> Self {
        match address {
            Address::Socket(address) => Self::Ip(canonical(address.ip())),
            Address::Unix(_) => Self::Unix,
            _ => Self::Unknown,
        }
    }
}

/// What one element says, if anything: who called the proxy that wrote it, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Hop {
    ip: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<Authority>,
}

/// The address of a request's client, as far as it can be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAddress {
    ip: IpAddr,
    scheme: Option<Scheme>,
    host: Option<Authority>,
    forwarded: bool,
}

impl ClientAddress {
    /// What [`TrustedProxies`] found; without that layer, or before it, the peer of wharf's connection.
    pub fn of<B: 'static>(request: &Request<B>) -> Option<Self> {
        if let Some(found) = request.extensions().get::<Self>() {
            return Some(found.clone());
        }
        let peer = Peer::from(&ConnInfo::find(request)?.peer);
        peer.ip().map(Self::direct)
    }

    fn direct(ip: IpAddr) -> Self {
        Self {
            ip,
            scheme: None,
            host: None,
            forwarded: false,
        }
    }

    /// The address; an IPv4 one never in the disguise of IPv6.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// How the client called, `http` or `https`, if a trusted proxy said so.
    pub fn scheme(&self) -> Option<&Scheme> {
        self.scheme.as_ref()
    }

    /// The host that the client asked for, if a trusted proxy said so.
    pub fn host(&self) -> Option<&Authority> {
        self.host.as_ref()
    }

    /// Whether this is a trusted proxy's word, and not just the connection's peer.
    pub fn is_forwarded(&self) -> bool {
        self.forwarded
    }
}

impl<S> Layer<S> for TrustedProxies {
    type Service = WithClientAddress<S>;

    fn layer(&self, inner: S) -> WithClientAddress<S> {
        WithClientAddress {
            inner,
            proxies: self.clone(),
        }
    }
}

/// The service that [`TrustedProxies`] makes.
#[derive(Debug, Clone)]
pub struct WithClientAddress<S> {
    inner: S,
    proxies: TrustedProxies,
}

impl<S, B: 'static> Service<Request<B>> for WithClientAddress<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let told = self
            .proxies
            .peer_from
            .and_then(|find| find(request.extensions()));
        let peer = match (told, ConnInfo::find(&request)) {
            (Some(address), _) => Peer::Ip(canonical(address.ip())),
            (None, Some(info)) => Peer::from(&info.peer),
            (None, None) => Peer::Unknown,
        };
        // One that stands there already was found by a layer around this one, with less trust.
        request.extensions_mut().remove::<ClientAddress>();
        if let Some(client) = self.proxies.client(peer, request.headers()) {
            request.extensions_mut().insert(client);
        }
        self.inner.call(request)
    }
}

/// The lines of a list field from the last to the first, together no more than [`MAX_BYTES`] of them; a line that is
/// only in part within the bound loses its front.
fn lines<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let mut left = MAX_BYTES;
    fields
        .get_all(name)
        .into_iter()
        .rev()
        .map_while(move |value| {
            if left == 0 {
                return None;
            }
            let line = value.as_bytes();
            let kept = &line[line.len().saturating_sub(left)..];
            left -= kept.len();
            // A front that was cut in the midst of an element must not be read as a shorter one.
            if kept.len() < line.len() {
                left = 0;
                let comma = kept.iter().position(|byte| *byte == b',')?;
                return Some(&kept[comma..]);
            }
            Some(kept)
        })
}

fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_space(byte));
    let end = text.iter().rposition(|byte| !is_space(byte));
    match (start, end) {
        (Some(start), Some(end)) => &text[start..=end],
        _ => &[],
    }
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
    &text[..end.map_or(0, |last| last + 1)]
}
