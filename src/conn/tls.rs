//! What is known of a connection's TLS, and why a handshake failed. Only the vocabulary: who speaks TLS is a layer's
//! business.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// What a client and this server agreed upon in their TLS handshake.
///
/// ```
/// use wharf::{Body, ConnInfo};
///
/// fn server_name(request: &http::Request<Body>) -> Option<&str> {
///     ConnInfo::of(request)?.tls.as_ref()?.server_name.as_deref()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The host that the client asked for (SNI, RFC 6066 section 3), in lower case.
    pub server_name: Option<String>,
    /// The protocol that was agreed upon (ALPN, RFC 7301): `h2`, `http/1.1`.
    pub alpn: Option<Bytes>,
    /// The version.
    pub version: TlsVersion,
    /// The cipher suite by its IANA name.
    pub cipher_suite: &'static str,
    /// The client's certificates in DER, its own first; verified, where there are any.
    pub peer_certificates: Vec<Bytes>,
}

impl TlsInfo {
    /// The facts, for a layer of one's own that speaks TLS.
    pub fn new(version: TlsVersion) -> Self {
        Self {
            server_name: None,
            alpn: None,
            version,
            cipher_suite: "",
            peer_certificates: Vec::new(),
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}

/// Why a connection that must begin with a TLS handshake was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// It began with a request in plain text, which was answered with 400.
    PlainHttp,
    /// The handshake took too long.
    Late {
        /// How many bytes of the client's first message had come.
        got: usize,
    },
    /// The peer closed in the middle of the handshake.
    Truncated,
    /// The two could not agree, or the peer broke the protocol: in words.
    Failed(Arc<str>),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlainHttp => "a request in plain text on a port that speaks TLS",
            Self::Truncated => "the peer closed in the middle of the TLS handshake",
            Self::Late { got } => {
                return write!(
                    f,
                    "the TLS handshake took too long, {got} bytes of its first message had come"
                );
            }
            Self::Failed(why) => return write!(f, "the TLS handshake failed: {why}"),
        })
    }
}

impl std::error::Error for TlsError {}
