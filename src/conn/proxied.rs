//! What a balancer says about a connection that it passes on, and why it isn't believed. Only the vocabulary: who
//! reads it from the wire is a layer's business.

use std::fmt;

use bytes::Bytes;

use super::Address;

/// What a balancer said of a connection in its PROXY header, beside the addresses that are the connection's
/// [`peer`](super::ConnInfo::peer) and [`local`](super::ConnInfo::local) since.
///
/// ```
/// use wharf::{Body, ConnInfo};
///
/// fn server_name(request: &http::Request<Body>) -> Option<&str> {
///     ConnInfo::of(request)?.proxy.as_ref()?.authority()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyInfo {
    /// Whom the balancer speaks for.
    pub client: ProxyClient,
    /// The balancer's own address.
    pub peer: Address,
    /// The address of this server that the balancer connected to.
    pub local: Address,
    tlvs: Bytes,
}

/// Whom a balancer speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyClient {
    /// A client whose addresses it told.
    Told,
    /// A client whose addresses it can't tell (`UNKNOWN`, `AF_UNSPEC`): the connection's are those of the socket.
    Unknown,
    /// Nobody but itself (`LOCAL`), in a health check: the connection's addresses are those of the socket.
    Itself,
}

impl ProxyInfo {
    /// The facts, for a layer of one's own. `tlvs` are the fields as a header of version 2 has them: a byte for the
    /// type, two for the length, the value, one behind the other. What isn't whole at the end is as good as absent.
    pub fn new(client: ProxyClient, peer: Address, local: Address, tlvs: Bytes) -> Self {
        Self {
            client,
            peer,
            local,
            tlvs,
        }
    }

    /// The host name that the client asked for: of TLS the server name indication.
    pub fn authority(&self) -> Option<&str> {
        std::str::from_utf8(self.tlv(0x02)?).ok()
    }

    /// The protocol that was agreed upon with the client, in ALPN's words: `h2`, `http/1.1`.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlv(0x01)
    }

    /// The balancer's name for the connection.
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(0x05)
    }

    /// The client speaks TLS with the balancer.
    pub fn is_tls(&self) -> bool {
        let first = self.tlv(0x20).and_then(<[u8]>::first);
        first.is_some_and(|flags| flags & 1 != 0)
    }

    /// The value of the first field of that type.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs()
            .find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// All fields in their order, each with its type.
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.tlvs[..];
        std::iter::from_fn(move || {
            let ([kind, high, low], behind) = rest.split_first_chunk()?;
            let length = u16::from_be_bytes([*high, *low]);
            let value;
            (value, rest) = behind.split_at_checked(length.into())?;
            Some((*kind, value))
        })
    }
}

/// Why a connection that must begin with a PROXY header was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// It came from an address that isn't trusted to speak for others.
    Untrusted,
    /// It began with something else.
    Missing,
    /// The header isn't as the specification wants it.
    Malformed,
    /// The header is longer than is read: 107 bytes of version 1, 4,096 of version 2.
    TooLarge,
    /// The peer closed in the middle of the header.
    Truncated,
    /// The header didn't arrive in time.
    Late {
        /// How many bytes of it had come.
        got: usize,
    },
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "this address isn't trusted to send a PROXY header",
            Self::Missing => "the connection must begin with a PROXY header",
            Self::Malformed => "the PROXY header is malformed",
            Self::TooLarge => "the PROXY header is too large",
            Self::Truncated => "the peer closed in the middle of the PROXY header",
            Self::Late { got } => {
                return write!(
                    f,
                    "the PROXY header took too long, {got} bytes of it had come"
                );
            }
        })
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(tlvs: &'static [u8]) -> ProxyInfo {
        let tlvs = Bytes::from_static(tlvs);
        ProxyInfo::new(ProxyClient::Told, Address::Unnamed, Address::Unnamed, tlvs)
    }

    #[test]
    fn fields_are_found_by_their_type_and_the_first_counts() {
        let info =
            info(b"\x01\0\x02h2\x02\0\x01a\x02\0\x01b\x05\0\0\x20\0\x05\x01\0\0\0\0\xea\0\x01x");
        assert_eq!(info.alpn(), Some(&b"h2"[..]));
        assert_eq!(info.authority(), Some("a"));
        assert_eq!(info.unique_id(), Some(&b""[..]));
        assert!(info.is_tls());
        assert_eq!(info.tlv(0xea), Some(&b"x"[..]));
        assert_eq!(info.tlv(0x30), None);
        assert_eq!(info.tlvs().count(), 6);
    }

    #[test]
    fn what_is_not_whole_is_not_there() {
        for tlvs in [&b""[..], b"\x05", b"\x05\0", b"\x05\0\x02a"] {
            assert_eq!(info(tlvs).tlvs().count(), 0, "{tlvs:?}");
        }
        assert_eq!(info(b"\x05\0\x01a\x05\xff\xff").tlvs().count(), 1);
        assert_eq!(info(b"\x02\0\x01\xff").authority(), None);
        assert!(!info(b"\x20\0\0").is_tls());
    }
}
