//! Framing: which body a request has, and what its connection does next. Told one field at a time, decided once.
//! RFC 9112 section 6.3 in order; a rule that isn't here isn't applied, and after this nobody reads
//! `Content-Length` again.
//!
//! Where the RFC lets a recipient repair, this refuses: a repeated or listed `Content-Length` even of equal values,
//! `Transfer-Encoding` beside `Content-Length`, in HTTP/1.0, empty, or with an empty list element.
//!
//! ```
//! use http::HeaderName;
//! use wharf::codec::framing::{Field, Framing, Request};
//! use wharf::codec::{Kind, Length, target::Form};
//!
//! let mut framing = Framing::default();
//! for (name, value) in [("host", "a"), ("content-length", "12")] {
//!     framing.field(Field::of(&HeaderName::from_static(name)), value.as_bytes()).unwrap();
//! }
//! let request = Request { http10: false, method: Kind::Other, form: Form::Origin };
//! let (exchange, length) = framing.decide(request, u64::MAX).unwrap();
//! assert_eq!((length, exchange.close), (Length::Known(12), None));
//! ```

use http::HeaderName;

use super::field::{is_token, trimmed};
use super::target::{self, Form, Host};
use super::{Close, Exchange, Kind, Length};
use crate::error::Reason;

/// The fields that decide about framing, connection and routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `Host`
    Host,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Connection`
    Connection,
    /// `Expect`
    Expect,
    /// `Upgrade`
    Upgrade,
    /// Any other; nothing here looks at it.
    Other,
}

/// What the request line says that framing depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The version is HTTP/1.0.
    pub http10: bool,
    /// The method, where it matters.
    pub method: Kind,
    /// The form of the request target.
    pub form: Form,
}

/// What the fields of one head said so far.
#[derive(Debug, Clone, Default)]
pub struct Framing {
    length: Option<u64>,
    codings: Codings,
    host: Option<Host>,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    expects: Expects,
}

/// All `Transfer-Encoding` lines, as one list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Codings {
    #[default]
    None,
    /// Exactly `chunked`.
    Chunked,
    /// Another coding; `chunked` may still follow.
    Unknown,
    /// Another coding, then `chunked`.
    UnknownChunked,
    Malformed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Expects {
    #[default]
    Nothing,
    Continue,
    Other,
}

impl Field {
    /// The kind of the field of that name.
    pub fn of(name: &HeaderName) -> Self {
        match name.as_str() {
            "host" => Self::Host,
            "content-length" => Self::ContentLength,
            "transfer-encoding" => Self::TransferEncoding,
            "connection" => Self::Connection,
            "expect" => Self::Expect,
            "upgrade" => Self::Upgrade,
            _ => Self::Other,
        }
    }
}

impl Framing {
    /// Takes note of one field line; `value` is trimmed of SP and HTAB.
    ///
    /// # Errors
    ///
    /// What is wrong whatever else follows: a malformed or repeated `Host` or `Content-Length`.
    pub fn field(&mut self, field: Field, value: &[u8]) -> Result<(), Reason> {
        match field {
            Field::Other => {}
            Field::Host => self.host(target::host(value).ok_or(Reason::Host)?)?,
            Field::Connection => self.connection(value),
            Field::ContentLength => {
                let length = decimal(value).ok_or(Reason::ContentLength)?;
                // RFC 9112 section 6.3 allows to merge equal values; two readings of one head are not worth it.
                if self.length.replace(length).is_some() {
                    return Err(Reason::ContentLength);
                }
            }
            Field::TransferEncoding => {
                for coding in value.split(|&b| b == b',') {
                    self.codings = self.codings.and(trimmed(coding));
                }
            }
            Field::Upgrade => self.upgrade = true,
            Field::Expect => {
                let is_continue = value.eq_ignore_ascii_case(b"100-continue");
                if !is_continue {
                    self.expects = Expects::Other;
                } else if self.expects == Expects::Nothing {
                    self.expects = Expects::Continue;
                }
            }
        }
        Ok(())
    }

    /// Takes note of a valid `Host`; more than one is none.
    #[inline]
    pub(super) fn host(&mut self, host: Host) -> Result<(), Reason> {
        match self.host.replace(host) {
            None => Ok(()),
            Some(_) => Err(Reason::Host),
        }
    }

    /// The decision, once all fields were told.
    ///
    /// # Errors
    ///
    /// In this order: `Host` (RFC 9112 section 3.2), the body's framing (section 6.3), an expectation that isn't
    /// met here (RFC 9110 section 10.1.1), a declared length above `body_bytes`.
    pub fn decide(&self, request: Request, body_bytes: u64) -> Result<(Exchange, Length), Reason> {
        self.check_host(request)?;
        let length = self.length(request.http10)?;
        if self.expects == Expects::Other {
            return Err(Reason::Expectation);
        }
        if matches!(length, Length::Known(declared) if declared > body_bytes) {
            return Err(Reason::BodyTooLarge);
        }
        let has_body = length != Length::Known(0);
        let kept = !self.close && (!request.http10 || self.keep_alive);
        let exchange = Exchange {
            http10: request.http10,
            method: request.method,
            close: (!kept).then_some(Close::ClientAsked),
            expects_continue: self.expects == Expects::Continue && !request.http10 && has_body,
            upgrade: self.upgrade && self.connection_upgrade && !request.http10 && !has_body,
            keep_alive: None,
        };
        Ok((exchange, length))
    }

    /// An empty `Host` names no `http` resource (RFC 9110 section 4.2.1), unless an absolute target overrides it.
    fn check_host(&self, request: Request) -> Result<(), Reason> {
        match self.host {
            Some(Host::Named) => Ok(()),
            Some(Host::Empty) if request.form == Form::Absolute => Ok(()),
            None if request.http10 => Ok(()),
            Some(Host::Empty) | None => Err(Reason::Host),
        }
    }

    fn length(&self, http10: bool) -> Result<Length, Reason> {
        if self.codings == Codings::None {
            return Ok(Length::Known(self.length.unwrap_or(0)));
        }
        // A client of 1.0 that sends chunks has a proxy before it that doesn't know them (RFC 9112 section 6.1).
        if http10 || self.codings == Codings::Malformed {
            return Err(Reason::TransferEncoding);
        }
        if self.length.is_some() {
            return Err(Reason::LengthAndCoding);
        }
        match self.codings {
            Codings::Chunked => Ok(Length::Chunked),
            _ => Err(Reason::UnknownCoding),
        }
    }

    /// Whole tokens only; others name hop-by-hop fields and don't matter here (RFC 9110 section 7.6.1).
    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&b| b == b',') {
            let option = trimmed(option);
            match option.len() {
                5 => self.close |= option.eq_ignore_ascii_case(b"close"),
                10 => self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive"),
                7 => self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade"),
                _ => {}
            }
        }
    }
}

impl Codings {
    /// The list with one more element. Nothing may follow `chunked`, not even itself (RFC 9112 section 6.1).
    fn and(self, element: &[u8]) -> Self {
        let name_end = element.iter().position(|&b| b == b';');
        let name = element
            .get(..name_end.unwrap_or(element.len()))
            .unwrap_or(element);
        let name = trimmed(name);
        let is_chunked = name.eq_ignore_ascii_case(b"chunked");
        if !is_token(name) || (is_chunked && name_end.is_some()) {
            return Self::Malformed;
        }
        match (self, is_chunked) {
            (Self::None, true) => Self::Chunked,
            (Self::None | Self::Unknown, false) => Self::Unknown,
            (Self::Unknown, true) => Self::UnknownChunked,
            (Self::Chunked | Self::UnknownChunked | Self::Malformed, _) => Self::Malformed,
        }
    }
}

/// Digits only: no sign, no list, no space, and a value that fits.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests;
