//! The values in the lists: bytes in, an address, scheme or host out. What isn't exactly one is none.

use std::net::IpAddr;

use http::uri::{Authority, Scheme};

use super::canonical;

/// `node` of RFC 7239 section 6: an address, IPv6 in brackets, with or without port. `unknown` and obfuscated names
/// have none.
pub(super) fn address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    let (ip, port) = match node.strip_prefix('[') {
        Some(node) => {
            let (ip, port) = node.split_once(']')?;
            (IpAddr::V6(ip.parse().ok()?), port)
        }
        None => {
            let (ip, port) = node.split_at(node.find(':').unwrap_or(node.len()));
            (IpAddr::V4(ip.parse().ok()?), port)
        }
    };
    let has_port = port.strip_prefix(':').is_some_and(is_port);
    (port.is_empty() || has_port).then(|| canonical(ip))
}

/// The same, and IPv6 without brackets too, as most write it into `X-Forwarded-For`.
pub(super) fn bare_address(node: &[u8]) -> Option<IpAddr> {
    let bare = || std::str::from_utf8(node).ok()?.parse::<IpAddr>().ok();
    address(node).or_else(|| bare().map(canonical))
}

/// `node-port`: a number, or a name that begins with an underscore.
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => {
            let obfuscated = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !name.is_empty() && name.bytes().all(obfuscated)
        }
        None => {
            (1..=5).contains(&port.len())
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok()
        }
    }
}

/// `http` or `https`; another scheme is none that a server of HTTP could go by.
pub(super) fn scheme(value: &[u8]) -> Option<Scheme> {
    if value.eq_ignore_ascii_case(b"https") {
        Some(Scheme::HTTPS)
    } else if value.eq_ignore_ascii_case(b"http") {
        Some(Scheme::HTTP)
    } else {
        None
    }
}

/// What could stand in a `Host` field: no user information.
pub(super) fn host(value: &[u8]) -> Option<Authority> {
    if value.is_empty() || value.contains(&b'@') {
        return None;
    }
    Authority::try_from(value).ok()
}
