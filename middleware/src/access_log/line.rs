//! A request's facts as one line, in one of three formats. Nothing here knows services or bodies.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, StatusCode, Uri, Version};

use super::escape::{Field, Style};
use super::{mask, stamp};
use crate::follow::Ended;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Common,
    Combined,
    Json,
}

/// What decides how lines are written.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) format: Format,
    /// Names of query parameters, in lower case.
    pub(super) masked: Vec<String>,
    /// Further fields of requests that are shown (JSON only).
    pub(super) fields: Vec<HeaderName>,
}

/// What a line says.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) time: SystemTime,
    pub(super) client: Client,
    pub(super) connection: Option<u64>,
    pub(super) number: Option<u64>,
    pub(super) request: Asked,
    pub(super) referer: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
    /// The values of [`Settings::fields`].
    pub(super) fields: Vec<Option<HeaderValue>>,
    pub(super) status: Option<StatusCode>,
    pub(super) bytes: u64,
    /// From the call to the response's head.
    pub(super) first_byte: Option<Duration>,
    pub(super) duration: Option<Duration>,
    pub(super) ended: Ended,
    pub(super) refused: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Ip(IpAddr),
    Unix,
    Unknown,
}

/// What was asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// A request, with the value of its `Host`.
    Request(Method, Uri, Version, Option<HeaderValue>),
    /// A request of which the target's path is known.
    Path(Method, String),
    /// A head that could not be read: its first line.
    Unread(Vec<u8>),
}

impl Settings {
    /// Appends one line.
    pub(super) fn write(&self, out: &mut Vec<u8>, facts: &Facts) {
        match self.format {
            Format::Common => self.common(out, facts),
            Format::Combined => {
                self.common(out, facts);
                self.quoted_or_dash(out, facts.referer.as_ref(), true);
                self.quoted_or_dash(out, facts.user_agent.as_ref(), false);
            }
            Format::Json => self.json(out, facts),
        }
        out.push(b'\n');
    }

    /// `client - - [time] "method target version" status bytes`; the two dashes are names that nobody is trusted with.
    fn common(&self, out: &mut Vec<u8>, facts: &Facts) {
        let _ = match facts.client {
            Client::Ip(ip) => write!(out, "{ip}"),
            Client::Unix => out.write_all(b"unix"),
            Client::Unknown => out.write_all(b"-"),
        };
        out.extend_from_slice(b" - - [");
        stamp::common(out, facts.time);
        out.extend_from_slice(b"] \"");
        match &facts.request {
            Asked::Request(method, _, version, _) => {
                escape(out, Style::Bytes, method.as_str().as_bytes());
                out.push(b' ');
                self.target(out, Style::Bytes, &facts.request);
                let _ = write!(out, " {version:?}");
            }
            Asked::Path(method, path) => {
                escape(out, Style::Bytes, method.as_str().as_bytes());
                out.push(b' ');
                escape(out, Style::Bytes, path.as_bytes());
            }
            Asked::Unread(_) => self.target(out, Style::Bytes, &facts.request),
        }
        out.extend_from_slice(b"\" ");
        let _ = match facts.status {
            Some(status) => write!(out, "{} {}", status.as_u16(), facts.bytes),
            None => write!(out, "- {}", facts.bytes),
        };
    }

    fn quoted_or_dash(&self, out: &mut Vec<u8>, value: Option<&HeaderValue>, is_url: bool) {
        out.extend_from_slice(b" \"");
        match value {
            Some(value) => self.value(out, Style::Bytes, value, is_url),
            None => out.push(b'-'),
        }
        out.push(b'"');
    }

    fn json(&self, out: &mut Vec<u8>, facts: &Facts) {
        out.extend_from_slice(b"{\"time\":\"");
        stamp::rfc3339(out, facts.time);
        out.push(b'"');
        let _ = match facts.client {
            Client::Ip(ip) => write!(out, ",\"client\":\"{ip}\""),
            Client::Unix => out.write_all(b",\"client\":\"unix\""),
            Client::Unknown => Ok(()),
        };
        number(out, "connection", facts.connection);
        number(out, "request", facts.number);
        match &facts.request {
            Asked::Request(method, _, version, host) => {
                text(out, "method", |out| {
                    escape(out, Style::Json, method.as_str().as_bytes())
                });
                text(out, "target", |out| {
                    self.target(out, Style::Json, &facts.request)
                });
                let _ = write!(out, ",\"version\":\"{version:?}\"");
                if let Some(host) = host {
                    text(out, "host", |out| self.value(out, Style::Json, host, true));
                }
            }
            Asked::Path(method, path) => {
                text(out, "method", |out| {
                    escape(out, Style::Json, method.as_str().as_bytes())
                });
                text(out, "target", |out| {
                    escape(out, Style::Json, path.as_bytes())
                });
            }
            Asked::Unread(_) => {
                text(out, "line", |out| {
                    self.target(out, Style::Json, &facts.request)
                });
            }
        }
        number(
            out,
            "status",
            facts.status.map(|status| status.as_u16().into()),
        );
        number(out, "bytes", Some(facts.bytes));
        number(out, "first_byte_us", facts.first_byte.map(micros));
        number(out, "duration_us", facts.duration.map(micros));
        text(out, "ended", |out| {
            out.extend_from_slice(facts.ended.as_str().as_bytes())
        });
        if let Some(why) = facts.refused {
            text(out, "refused", |out| {
                escape(out, Style::Json, why.as_bytes())
            });
        }
        if let Some(referer) = &facts.referer {
            text(out, "referer", |out| {
                self.value(out, Style::Json, referer, true)
            });
        }
        if let Some(agent) = &facts.user_agent {
            text(out, "user_agent", |out| {
                self.value(out, Style::Json, agent, false)
            });
        }
        if !self.fields.is_empty() {
            self.further_fields(out, facts);
        }
        out.push(b'}');
    }

    fn further_fields(&self, out: &mut Vec<u8>, facts: &Facts) {
        out.extend_from_slice(b",\"fields\":{");
        let mut comma = "";
        for (name, value) in self.fields.iter().zip(&facts.fields) {
            if let Some(value) = value {
                // A name is a token: it has nothing that JSON would escape, but it may be long.
                let _ = write!(out, "{comma}\"");
                escape(out, Style::Json, name.as_str().as_bytes());
                out.extend_from_slice(b"\":\"");
                if [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name) {
                    out.extend_from_slice(b"***");
                } else {
                    self.value(out, Style::Json, value, false);
                }
                out.push(b'"');
                comma = ",";
            }
        }
        out.push(b'}');
    }

    /// What was asked for, without credentials.
    fn target(&self, out: &mut Vec<u8>, style: Style, asked: &Asked) {
        let mut field = Field::new(out, style);
        match asked {
            Asked::Request(_, uri, ..) => {
                if let Some(scheme) = uri.scheme_str() {
                    field.push(scheme.as_bytes());
                    field.push(b"://");
                }
                if let Some(authority) = uri.authority() {
                    mask::authority(authority.as_str().as_bytes(), |piece| field.push(piece));
                }
                if let Some(rest) = uri.path_and_query() {
                    let rest = rest.as_str().as_bytes();
                    mask::path_and_query(rest, &self.masked, |piece| field.push(piece));
                }
            }
            Asked::Path(_, path) => field.push(path.as_bytes()),
            Asked::Unread(line) if mask::holds_a_secret_field(line) => field.push(b"***"),
            Asked::Unread(line) => {
                let mut words = line.split_inclusive(|byte| *byte == b' ');
                field.push(words.next().unwrap_or_default());
                words.for_each(|word| mask::url(word, &self.masked, |piece| field.push(piece)));
            }
        }
    }

    fn value(&self, out: &mut Vec<u8>, style: Style, value: &HeaderValue, is_url: bool) {
        let mut field = Field::new(out, style);
        if value.is_sensitive() {
            field.push(b"***");
        } else if is_url {
            mask::url(value.as_bytes(), &self.masked, |piece| field.push(piece));
        } else {
            field.push(value.as_bytes());
        }
    }
}

/// So many lines were dropped, in the words of a JSON log.
pub(super) fn dropped_json(out: &mut Vec<u8>, time: SystemTime, lines: u64) {
    out.extend_from_slice(b"{\"time\":\"");
    stamp::rfc3339(out, time);
    let _ = writeln!(out, "\",\"dropped\":{lines}}}");
}

/// The same in a log for which there is no such word: as a comment.
pub(super) fn dropped_comment(out: &mut Vec<u8>, time: SystemTime, lines: u64) {
    out.extend_from_slice(b"# [");
    stamp::common(out, time);
    let _ = writeln!(
        out,
        "] {lines} lines were dropped: the log could not be written as fast"
    );
}

fn escape(out: &mut Vec<u8>, style: Style, text: &[u8]) {
    Field::new(out, style).push(text);
}

fn number(out: &mut Vec<u8>, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        let _ = write!(out, ",\"{name}\":{value}");
    }
}

fn text(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    let _ = write!(out, ",\"{name}\":\"");
    write(out);
    out.push(b'"');
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
