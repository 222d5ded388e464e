//! `Forwarded`, RFC 7239 section 4, read from the end.
//!
//! Read from the front, a quote that a client left open would swallow what proxies append. From the end each element
//! stands on its own, and for a well-formed list both ways find the same elements: within a quoted string a quote
//! follows an odd number of backslashes, and its first quote follows `=`.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::FORWARDED;

use super::{Hop, lines, node, trim_end};

/// The hops of `Forwarded`, the nearest first; one that isn't well-formed says nothing, and so ends the way.
pub(super) fn from_the_end(fields: &HeaderMap) -> impl Iterator<Item = Hop> {
    let elements = lines(fields, &FORWARDED).flat_map(|line| Elements { rest: Some(line) });
    elements.map(|element| element.as_ref().map(Element::hop).unwrap_or_default())
}

/// An element's pairs that matter here; `by` and extensions are only checked for their form.
#[derive(Debug, Default)]
struct Element<'a> {
    name: Option<Cow<'a, [u8]>>,
    proto: Option<Cow<'a, [u8]>>,
    host: Option<Cow<'a, [u8]>>,
    by: Option<Cow<'a, [u8]>>,
    any: bool,
}

impl Element<'_> {
    fn hop(&self) -> Hop {
        Hop {
            ip: self.name.as_deref().and_then(node::address),
            scheme: self.proto.as_deref().and_then(node::scheme),
            host: self.host.as_deref().and_then(node::host),
        }
    }
}

/// The elements of a line, the last one first; `None` for one that isn't well-formed, which ends them.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Option<Element<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let element = last_element(self.rest.take()?);
            match element {
                None => return Some(None),
                Some((element, rest)) => {
                    self.rest = rest;
                    // Empty elements are no hops (RFC 9110 section 5.6.1.2).
                    if element.any {
                        return Some(Some(element));
                    }
                }
            }
        }
    }
}

/// Takes the last element off `text`; what remains is `None` if it was the only one.
fn last_element(mut text: &[u8]) -> Option<(Element<'_>, Option<&[u8]>)> {
    let mut element = Element::default();
    loop {
        text = trim_end(text);
        if !matches!(text.last(), None | Some(b',' | b';')) {
            text = last_pair(text, &mut element)?;
        }
        text = trim_end(text);
        match text.split_last() {
            None => return Some((element, None)),
            Some((b',', rest)) => return Some((element, Some(rest))),
            Some((b';', rest)) => text = rest,
            Some(_) => return None,
        }
    }
}

/// Takes `token "=" value` off the end of `text`.
fn last_pair<'a>(text: &'a [u8], element: &mut Element<'a>) -> Option<&'a [u8]> {
    let (value, rest) = match text.split_last() {
        Some((b'"', inside)) => last_quoted(inside)?,
        _ => {
            let (token, rest) = last_token(text)?;
            (Cow::Borrowed(token), rest)
        }
    };
    let (name, rest) = last_token(rest.strip_suffix(b"=")?)?;
    element.any = true;
    let place = match name {
        name if name.eq_ignore_ascii_case(b"for") => &mut element.name,
        name if name.eq_ignore_ascii_case(b"proto") => &mut element.proto,
        name if name.eq_ignore_ascii_case(b"host") => &mut element.host,
        name if name.eq_ignore_ascii_case(b"by") => &mut element.by,
        _ => return Some(rest),
    };
    // A parameter must not be there twice: which of the two would be meant?
    place.replace(value).is_none().then_some(rest)
}

/// Takes a token off the end; `None` if there is none.
fn last_token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = text.iter().rposition(|byte| !is_token(*byte));
    let (rest, token) = text.split_at(start.map_or(0, |last| last + 1));
    (!token.is_empty()).then_some((token, rest))
}

/// Takes a quoted string off the end of `text`, whose closing quote is off already.
fn last_quoted(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut end = text.len();
    let open = loop {
        let quote = text[..end].iter().rposition(|byte| *byte == b'"')?;
        let backslashes = text[..quote]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\');
        let backslashes = backslashes.count();
        if backslashes.is_multiple_of(2) {
            break quote;
        }
        // The quote and its backslashes are inside; each is counted once.
        end = quote - backslashes;
    };
    let (rest, inside) = (&text[..open], &text[open + 1..]);
    Some((unquote(inside)?, rest))
}

/// `*( qdtext / quoted-pair )`, RFC 9110 section 5.6.4.
fn unquote(inside: &[u8]) -> Option<Cow<'_, [u8]>> {
    let is_text = |byte: u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !inside.contains(&b'\\') {
        return inside
            .iter()
            .all(|byte| is_text(*byte))
            .then_some(inside.into());
    }
    let mut text = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter().copied();
    while let Some(byte) = bytes.next() {
        let meant = if byte == b'\\' { bytes.next()? } else { byte };
        if !is_text(meant) {
            return None;
        }
        text.push(meant);
    }
    Some(text.into())
}

/// `tchar`, RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
