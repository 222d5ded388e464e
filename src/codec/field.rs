//! One field line: `name ":" OWS value OWS` (RFC 9112 section 5), for heads and trailers alike. It knows tokens, line
//! ends and folding; what a field means is not known here.

use memchr::memchr;

use super::names::{self, Entry};
use crate::error::Reason;

/// A field line, as offsets into the bytes it was read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The entry of a standard name.
    pub(super) known: Option<&'static Entry>,
    pub(super) name: u32,
    pub(super) colon: u32,
    pub(super) value: u32,
    pub(super) value_end: u32,
}

/// What stands at the start of a line.
pub(super) enum Line {
    /// A field, and where the next line starts.
    Field(Span, usize),
    /// The empty line, and where what follows starts.
    Empty(usize),
    /// The line isn't whole.
    Incomplete,
}

/// `http` doesn't hold longer names.
const LONGEST_NAME: usize = u16::MAX as usize;

/// Reads the line that starts at `at`. Values are not looked into: `HeaderValue` does that anyway, and only
/// [`bad_value`] says where.
///
/// `bytes` must be shorter than 4 GiB.
// Its result is too large for registers and would go through memory for each field.
#[inline(always)]
pub(super) fn line(bytes: &[u8], at: usize) -> Result<Line, Reason> {
    let Some(rest) = bytes.get(at..) else {
        return Ok(Line::Incomplete);
    };
    if let [b'\r', b'\n', ..] = rest {
        return Ok(Line::Empty(at + 2));
    }
    let Some(len) = position(b':', rest) else {
        return unusual(rest);
    };
    let colon = at + len;
    let known = names::find(bytes, at, colon);
    if known.is_none() && !is_name(&bytes[at..colon]) {
        return unusual(rest);
    }
    let after = &bytes[colon + 1..];
    let Some(line_feed) = memchr(b'\n', after) else {
        return Ok(Line::Incomplete);
    };
    let (line, _) = after.split_at(line_feed);
    let [value @ .., b'\r'] = line else {
        return unusual(rest);
    };
    let (start, end) = trim(value);
    let span = Span {
        known,
        name: at as u32,
        colon: colon as u32,
        value: (colon + 1 + start) as u32,
        value_end: (colon + 1 + end) as u32,
    };
    Ok(Line::Field(span, colon + 1 + line_feed + 1))
}

/// A line that isn't a field, or may not be one once it is whole.
#[cold]
fn unusual(rest: &[u8]) -> Result<Line, Reason> {
    let Some(line_feed) = memchr(b'\n', rest) else {
        return Ok(Line::Incomplete);
    };
    match rest.split_at(line_feed).0 {
        [b' ' | b'\t', ..] => Err(Reason::ObsoleteFolding),
        [line @ .., b'\r'] if !line.contains(&b'\r') => Err(Reason::Field),
        _ => Err(Reason::LineEnding),
    }
}

/// The first byte of `value` that no field value may hold, and what it is (RFC 9110 section 5.5).
pub(super) fn bad_value(value: &[u8]) -> Option<(usize, Reason)> {
    let at = value
        .iter()
        .position(|&b| (b < b' ' && b != b'\t') || b == 0x7f)?;
    let reason = match value.get(at) {
        Some(b'\r') => Reason::LineEnding,
        _ => Reason::Field,
    };
    Some((at, reason))
}

/// A token that `http` can hold as a field name.
pub(super) fn is_name(bytes: &[u8]) -> bool {
    bytes.len() <= LONGEST_NAME && is_token(bytes)
}

/// One or more `tchar` (RFC 9110 section 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b))
}

#[inline]
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHAR[usize::from(byte)]
}

static TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
            | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// Where `byte` is first, eight bytes at a time: for what is near, which costs less than a call.
#[inline(always)]
pub(super) fn position(byte: u8, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        if let Some(place) = place(byte, *eight) {
            return Some(at + place);
        }
        at += 8;
    }
    let tail = bytes.get(at..)?;
    Some(at + tail.iter().position(|&b| b == byte)?)
}

/// Where `byte` is first, if it may be near as well as far.
#[inline(always)]
pub(super) fn position_far(byte: u8, bytes: &[u8]) -> Option<usize> {
    let Some((near, far)) = bytes.split_first_chunk::<32>() else {
        return position(byte, bytes);
    };
    position(byte, near).or_else(|| Some(near.len() + memchr(byte, far)?))
}

/// The first of eight bytes that is `byte`.
#[inline(always)]
fn place(byte: u8, eight: [u8; 8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let other = u64::from_le_bytes(eight) ^ (ONES * byte as u64);
    // The lowest set bit marks the first byte that is zero; higher ones may be wrong.
    let found = other.wrapping_sub(ONES) & !other & (ONES << 7);
    (found != 0).then_some(found.trailing_zeros() as usize / 8)
}

/// `value` without SP and HTAB around it.
pub(super) fn trimmed(value: &[u8]) -> &[u8] {
    let (start, end) = trim(value);
    value.get(start..end).unwrap_or_default()
}

/// The place of `value` without SP and HTAB around it.
#[inline(always)]
fn trim(value: &[u8]) -> (usize, usize) {
    let is_space = |b: &u8| matches!(b, b' ' | b'\t');
    let mut start = 0;
    while value.get(start).is_some_and(is_space) {
        start += 1;
    }
    let mut end = value.len();
    while end > start && value.get(end - 1).is_some_and(is_space) {
        end -= 1;
    }
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_where_it_is_first_near_and_far() {
        for at in 0..100 {
            for behind in 0..20 {
                let mut bytes = vec![b'a'; at + behind];
                assert_eq!(position(b':', &bytes), None);
                assert_eq!(position_far(b':', &bytes), None);
                bytes.insert(at, b':');
                bytes.push(b':');
                assert_eq!(position(b':', &bytes), Some(at));
                assert_eq!(position_far(b':', &bytes), Some(at));
            }
        }
    }
}
