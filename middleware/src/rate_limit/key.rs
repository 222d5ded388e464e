//! By what clients are told apart.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use http::Request;

use crate::ClientAddress;

/// By what the limit tells clients apart: [`ClientIp`], or a closure from a request to something that can be hashed.
pub trait Key<B> {
    /// The hash of this request's key; `None` if it is not limited.
    fn hash(&self, request: &Request<B>, hasher: &RandomState) -> Option<u64>;
}

impl<F, B, T> Key<B> for F
where
    F: Fn(&Request<B>) -> Option<T>,
    T: Hash,
{
    fn hash(&self, request: &Request<B>, hasher: &RandomState) -> Option<u64> {
        self(request).map(|key| hasher.hash_one(key))
    }
}

/// The client's IP address: what [`TrustedProxies`](crate::TrustedProxies) found if that layer is outside of this one,
/// else the other end of the connection.
///
/// Behind a proxy and without that layer all clients have one address, the proxy's, and share one budget. What the
/// connection's other end is comes with every request on wharf; under another server, tell that layer where to find it. An IPv6 address stands for its /64: so many belong to one customer. All requests whose address is not
/// known share one budget, so that a limit that can't work is noticed instead of letting everybody through.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientIp;

impl<B: 'static> Key<B> for ClientIp {
    fn hash(&self, request: &Request<B>, hasher: &RandomState) -> Option<u64> {
        Some(hasher.hash_one(address(request).map(network)))
    }
}

fn address<B: 'static>(request: &Request<B>) -> Option<IpAddr> {
    ClientAddress::of(request).map(|client| client.ip())
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_stands_for_its_64_and_a_mapped_one_for_ipv4() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            let (address, expected): (IpAddr, IpAddr) =
                (address.parse().unwrap(), expected.parse().unwrap());
            assert_eq!(network(address), expected);
        }
    }
}
