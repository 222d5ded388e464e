//! Heads as they usually are: whole at once, within the limits, and right. One pass, which can say yes but not why
//! not: whatever isn't surely right is left to the [scan](super::scan), whose word is the law.
//!
//! What is found here is found by the scan, too, and decided alike; the tests hold the two against each other.

use super::Kind;
use super::field::{self, Span};
use super::framing::{Field, Framing};
use super::lines::{Lines, Slot};
use super::names;
use super::scan::{self, Bounds, RequestLine};
use super::target::{self, Form};

/// A whole head: where everything is in it, and what its fields say about framing.
#[derive(Debug)]
pub(super) struct Usual {
    pub(super) len: usize,
    pub(super) request: RequestLine,
    pub(super) framing: Framing,
    /// Nothing of its bytes is needed: a GET of `/`, and each line kept.
    pub(super) is_kept: bool,
}

/// A field, as it was found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// Its line is kept there.
    Kept(Slot),
    Fresh(Fresh),
}

/// A line that isn't kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh {
    pub(super) span: Span,
    /// Where the next line begins.
    pub(super) next: u32,
    /// Where it would be kept.
    pub(super) slot: Slot,
}

/// Finds a usual head at the front of `input`, and its fields. Values are not looked into.
#[inline(always)]
pub(super) fn find(
    input: &[u8],
    bounds: &Bounds,
    lines: &Lines,
    fields: &mut Vec<Found>,
) -> Option<Usual> {
    let input = input.get(..bounds.head_bytes).unwrap_or(input);
    let (request, mut at) = request_line(input)?;
    if at > bounds.request_line_bytes {
        return None;
    }
    let mut framing = Framing::default();
    let mut is_kept = request.is_plain;
    loop {
        let line = input.get(at..)?;
        if let [b'\r', b'\n', ..] = line {
            return Some(Usual {
                len: at + 2,
                request,
                framing,
                is_kept,
            });
        }
        if fields.len() == bounds.header_fields {
            return None;
        }
        let slot = Slot::of(line)?;
        if let Some(kept) = lines.find(slot, line) {
            match (kept.host, kept.known.field) {
                (Some(host), _) => framing.host(host).ok()?,
                (None, Field::Other) => {}
                (None, field) => framing.field(field, kept.value.as_bytes()).ok()?,
            }
            fields.push(Found::Kept(slot));
            at += kept.len();
            continue;
        }
        is_kept = false;
        let (span, next) = fresh(input, at)?;
        if let Some(known) = span.known
            && known.field != Field::Other
        {
            let value = input.get(span.value as usize..span.value_end as usize)?;
            framing.field(known.field, value).ok()?;
        }
        let next = next as u32;
        fields.push(Found::Fresh(Fresh { span, next, slot }));
        at = next as usize;
    }
}

/// Reads the field line at `at`, and tells where the next one begins.
#[inline(always)]
fn fresh(input: &[u8], at: usize) -> Option<(Span, usize)> {
    let line = input.get(at..)?;
    let colon = field::position(b':', line)?;
    let known = names::find(input, at, at + colon);
    if known.is_none() && !field::is_name(line.get(..colon)?) {
        return None;
    }
    let (value, value_end, next) = value(line, colon + 1)?;
    let span = Span {
        known,
        name: at as u32,
        colon: (at + colon) as u32,
        value: (at + value) as u32,
        value_end: (at + value_end) as u32,
    };
    Some((span, at + next))
}

/// `method SP path SP HTTP/1.x CR LF`, and where the next line begins.
#[inline(always)]
fn request_line(input: &[u8]) -> Option<(RequestLine, usize)> {
    let is_get = input.first_chunk()? == b"GET ";
    let method_end = if is_get {
        b"GET".len()
    } else {
        input.iter().position(|&b| !field::is_tchar(b))?
    };
    let target = method_end + 1;
    let [b' ', rest @ ..] = input.get(method_end..)? else {
        return None;
    };
    let target_end = target + target::path_and_query_len(rest)?;
    // Two comparisons of eight bytes, where a pattern of eleven would be eleven of one.
    let version = input.get(target_end..)?.first_chunk::<11>()?;
    let end = version.last_chunk::<8>()?;
    let http10 = end == b"TP/1.0\r\n";
    if !http10 && end != b"TP/1.1\r\n" {
        return None;
    }
    if version.first_chunk::<8>()? != b" HTTP/1." {
        return None;
    }
    let kind = scan::kind(input.get(..method_end)?);
    // `CONNECT` has no path, and no method has no name.
    if method_end == 0 || kind == Kind::Connect {
        return None;
    }
    let request = RequestLine {
        kind,
        method: 0,
        target,
        target_end,
        form: Form::Origin,
        http10,
        is_plain: is_get && target_end == b"GET /".len(),
    };
    Some((request, target_end + version.len()))
}

/// The place of the value that begins behind a colon, without the white space around it, and the next line's.
#[inline(always)]
fn value(line: &[u8], mut start: usize) -> Option<(usize, usize, usize)> {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    while line.get(start).is_some_and(is_space) {
        start += 1;
    }
    let rest = line.get(start..)?;
    let line_end = field::position_far(b'\r', rest)?;
    let (value, [b'\r', b'\n', ..]) = rest.split_at_checked(line_end)? else {
        return None;
    };
    let mut len = value.len();
    while len > 0 && value.get(len - 1).is_some_and(is_space) {
        len -= 1;
    }
    Some((start, start + len, start + line_end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    /// Name and value of each field, if the head is found here and not left to the scan.
    fn found(head: &str, limits: &Limits) -> Option<(Usual, Vec<(String, String)>)> {
        let mut fields = Vec::new();
        let usual = find(
            head.as_bytes(),
            &Bounds::from(limits),
            &Lines::default(),
            &mut fields,
        )?;
        let text = |from: u32, to: u32| head[from as usize..to as usize].to_owned();
        let fields = fields.into_iter().map(|field| match field {
            Found::Fresh(Fresh { span, .. }) => (
                text(span.name, span.colon),
                text(span.value, span.value_end),
            ),
            Found::Kept(_) => unreachable!("no line is kept yet"),
        });
        Some((usual, fields.collect()))
    }

    #[test]
    fn a_usual_head_is_found_here_with_all_that_is_in_it() {
        let head = "GET /a?b HTTP/1.1\r\nHost: a\r\nUser-Agent:\t c  d \t\r\nx-own:\r\n\r\nbehind";
        let (usual, fields) = found(head, &Limits::default()).unwrap();
        assert_eq!(&head[usual.len..], "behind");
        assert!(!usual.is_kept);
        let request = usual.request;
        assert_eq!(&head[request.target..request.target_end], "/a?b");
        assert_eq!((request.kind, request.http10), (Kind::Other, false));
        assert!(!request.is_plain);
        let fields: Vec<_> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            fields,
            [("Host", "a"), ("User-Agent", "c  d"), ("x-own", "")]
        );
    }

    #[test]
    fn what_is_usual_is_left_to_nobody_else() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "HEAD /a HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "POST /%2F HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "PUT /a/b/c;d=e?f=g&h HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let (usual, _) = found(head, &Limits::default()).expect(head);
            assert_eq!(usual.len, head.len());
            let is_root = head.starts_with("GET / ");
            assert_eq!(usual.request.is_plain, is_root, "{head}");
            assert_eq!(usual.request.http10, head.contains("/1.0"), "{head}");
        }
    }

    #[test]
    fn what_is_not_surely_right_is_left_to_the_scan() {
        for head in [
            "",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            " / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /% HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / xTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(found(head, &Limits::default()).is_none(), "{head:?}");
        }
    }

    #[test]
    fn limits_hold_here_as_in_the_scan() {
        let head = "GET /aaaa HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
        let line = head.find('\n').unwrap() + 1;
        for (more, is_found) in [(-1, false), (0, true), (1, true)] {
            let of = |exact: usize| exact.checked_add_signed(more).unwrap();
            let change: [fn(&mut Limits, usize); 3] = [
                |limits, value| limits.head_bytes = value,
                |limits, value| limits.request_line_bytes = value,
                |limits, value| limits.header_fields = value,
            ];
            for (change, exact) in change.into_iter().zip([head.len(), line, 2]) {
                let mut limits = Limits::default();
                change(&mut limits, of(exact));
                assert_eq!(found(head, &limits).is_some(), is_found, "{limits:?}");
            }
        }
    }

    #[test]
    fn a_line_that_comes_again_and_again_is_kept() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: b c\r\n\r\n";
        let bounds = Bounds::from(&Limits::default());
        let mut lines = Lines::default();
        let mut kept = 0;
        for _ in 0..100 {
            let mut fields = Vec::new();
            let usual = find(head.as_bytes(), &bounds, &lines, &mut fields).unwrap();
            kept = 0;
            for field in fields {
                match field {
                    Found::Kept(slot) => {
                        kept += 1;
                        let line = lines.at(slot).unwrap();
                        let at = head.find(line.value.to_str().unwrap()).unwrap();
                        assert!(at > 0 && line.len() > line.value.len());
                    }
                    Found::Fresh(fresh) => {
                        let known = fresh.span.known.unwrap();
                        lines.note(known, &fresh, head.as_bytes());
                    }
                }
            }
            assert_eq!(usual.is_kept, kept == 2);
        }
        assert_eq!(kept, 2, "both lines are kept");
    }
}
