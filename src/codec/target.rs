//! The request target and `Host`: which forms exist, which bytes they hold. RFC 9112 section 3.2 and RFC 3986,
//! literally; whatever is refused for its target or its authority is refused here.
//!
//! Decided strictly, where clients are known to differ:
//! - Path and query hold what RFC 3986 allows: `"`, `<`, `>`, `\`, `^`, `` ` ``, `{`, `|`, `}`, `[`, `]`, bytes
//!   from 0x80 on and bad percent triplets are refused, in queries too. So is a fragment.
//! - The absolute form is `http` or `https`; userinfo is refused (RFC 9110 section 4.2.4), an empty path is `/`.
//! - The authority form is for `CONNECT` alone and needs a port other than 0; `CONNECT` has no other form. `*` is
//!   for `OPTIONS` alone.
//! - An authority may end in `:` without digits (RFC 3986 section 3.2.3), a port is at most 65535; an IP literal is
//!   IPv6, without a zone, as no later version exists.

use std::net::Ipv6Addr;
use std::ops::Range;

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use crate::error::Reason;

/// The four forms of a request target (RFC 9112 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `host:port`
    Authority,
    /// `*`
    Asterisk,
}

/// A valid `Host` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// It names a host.
    Named,
    /// It is empty, as where the target URI has no authority.
    Empty,
}

/// The form of `target`, if every byte of it is right for that form and `method`.
///
/// # Errors
///
/// [`Reason::Target`].
pub fn check(method: &[u8], target: &[u8]) -> Result<Form, Reason> {
    let form = match target {
        _ if method == b"CONNECT" => is_connect_authority(target).then_some(Form::Authority),
        [b'/', ..] => is_path_and_query(target).then_some(Form::Origin),
        b"*" => (method == b"OPTIONS").then_some(Form::Asterisk),
        _ => is_absolute(target).then_some(Form::Absolute),
    };
    form.ok_or(Reason::Target)
}

/// The place of the authority in a target of absolute form.
pub fn authority(target: &[u8]) -> Option<Range<usize>> {
    let start = scheme(target)?.1;
    let rest = target.get(start..)?;
    let len = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#'));
    Some(start..start + len.unwrap_or(rest.len()))
}

/// The `Uri` of a target that [`check`] found to be of that form; it shares the bytes.
///
/// # Errors
///
/// [`Reason::Target`], where `http` can't hold it.
#[inline]
pub fn uri(form: Form, target: Bytes) -> Result<Uri, Reason> {
    match form {
        // What `Uri` would find out by itself, for 60 instructions.
        Form::Origin => match PathAndQuery::from_maybe_shared(target) {
            Ok(target) => Ok(target.into()),
            Err(_) => Err(Reason::Target),
        },
        _ => other_uri(form, target).ok_or(Reason::Target),
    }
}

fn other_uri(form: Form, target: Bytes) -> Option<Uri> {
    match form {
        Form::Origin | Form::Asterisk | Form::Authority => Uri::from_maybe_shared(target).ok(),
        Form::Absolute => absolute_uri(&target),
    }
}

/// Whether `value` is a `Host` value: host, and perhaps a port (RFC 9110 section 7.2). Userinfo isn't allowed.
pub fn host(value: &[u8]) -> Option<Host> {
    match host_and_port(value)? {
        (b"", _) => Some(Host::Empty),
        _ => Some(Host::Named),
    }
}

fn is_connect_authority(target: &[u8]) -> bool {
    matches!(host_and_port(target), Some((host, Some(port))) if !host.is_empty() && port != 0)
        && Authority::try_from(target).is_ok()
}

fn is_absolute(target: &[u8]) -> bool {
    let Some(place) = authority(target) else {
        return false;
    };
    let (Some(authority), Some(rest)) = (target.get(place.clone()), target.get(place.end..)) else {
        return false;
    };
    matches!(host_and_port(authority), Some((host, _)) if !host.is_empty())
        && Authority::try_from(authority).is_ok()
        && is_path_and_query(rest)
}

/// The scheme, and where the authority starts.
fn scheme(target: &[u8]) -> Option<(Scheme, usize)> {
    let starts = |with: &[u8]| {
        target
            .get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    if starts(b"http://") {
        Some((Scheme::HTTP, b"http://".len()))
    } else if starts(b"https://") {
        Some((Scheme::HTTPS, b"https://".len()))
    } else {
        None
    }
}

fn absolute_uri(target: &Bytes) -> Option<Uri> {
    let (scheme, _) = scheme(target)?;
    let place = authority(target)?;
    let rest = target.slice(place.end..);
    let path_and_query = match rest.first() {
        None => PathAndQuery::from_static("/"),
        Some(b'/') => PathAndQuery::from_maybe_shared(rest).ok()?,
        // `http` would keep `?query` without a path, and show it so to whoever asks for path and query.
        Some(_) => PathAndQuery::from_maybe_shared([b"/", &rest[..]].concat()).ok()?,
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(Authority::from_maybe_shared(target.slice(place)).ok()?);
    parts.path_and_query = Some(path_and_query);
    Uri::from_parts(parts).ok()
}

/// Host and port; the port is `None` where there are no digits. `None` in all: not an authority.
fn host_and_port(value: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let host_len = if value.first() == Some(&b'[') {
        let len = value.iter().position(|&b| b == b']')? + 1;
        let address = std::str::from_utf8(value.get(1..len - 1)?).ok()?;
        address.parse::<Ipv6Addr>().ok()?;
        len
    } else {
        let len = value.iter().position(|&b| class(b) & REG_NAME == 0);
        let len = len.unwrap_or(value.len());
        are_triplets(value.get(..len)?).then_some(len)?
    };
    let (host, rest) = value.split_at_checked(host_len)?;
    match rest {
        [] | [b':'] => Some((host, None)),
        [b':', digits @ ..] => Some((host, Some(port(digits)?))),
        _ => None,
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |sum, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

/// The length of the path and query, in origin form, that `bytes` begin with.
#[inline(always)]
pub(super) fn path_and_query_len(bytes: &[u8]) -> Option<usize> {
    let mut all = PLAIN;
    let len = bytes.iter().position(|&b| {
        let class = class(b);
        all &= class;
        class & PATH == 0
    })?;
    let path = bytes.get(..len)?;
    (path.first() == Some(&b'/') && (all != 0 || are_triplets(path))).then_some(len)
}

/// One pass without a way out: a target is nearly always valid.
fn is_path_and_query(target: &[u8]) -> bool {
    let all = target.iter().fold(PATH | PLAIN, |all, &b| all & class(b));
    all & PATH != 0 && (all & PLAIN != 0 || are_triplets(target))
}

/// Whether each `%` is followed by two hexadecimal digits.
fn are_triplets(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|&b| b == b'%') {
        match rest.get(at..) {
            Some([_, high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = after
            }
            _ => return false,
        }
    }
    true
}

/// `pchar`, `/` and `?` (RFC 3986 sections 3.3 and 3.4).
const PATH: u8 = 1;
/// `reg-name` (RFC 3986 section 3.2.2).
const REG_NAME: u8 = 2;
/// Anything but `%`.
const PLAIN: u8 = 4;

#[inline]
fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

static CLASSES: [u8; 256] = {
    let mut table = [PLAIN; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] |= match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => PATH | REG_NAME,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b'%' => {
                PATH | REG_NAME
            }
            b':' | b'@' | b'/' | b'?' => PATH,
            _ => 0,
        };
        byte += 1;
    }
    table[b'%' as usize] &= !PLAIN;
    table
};

#[cfg(test)]
mod tests;
