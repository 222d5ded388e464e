//! A field block looked at once more, after h2 could not take it: is the compression broken, which ends the connection with
//! COMPRESSION_ERROR (RFC 9113 section 4.3), or is it sound and holds a field that no message may? Nothing is kept from
//! block to block: an index that leads nowhere is all that needs the table, and is what is left.

use super::frames::{Head, kind};

const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The static table's entries (RFC 7541 appendix A).
const STATIC: usize = 61;
/// No more than that of a string is looked at.
const LONGEST: usize = 64 * 1024;

/// Bits of each symbol's code, EOS at the end (RFC 7541 appendix B). The codes follow from them: in the order of length,
/// then of the symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// Appends what of a frame's payload is field block, by the bytes before it and its flags.
pub(super) fn keep(block: &mut Vec<u8>, head: Head, before: u32, piece: &[u8]) {
    let mut skip = 0;
    if head.kind == kind::HEADERS {
        let padded = u32::from(head.has(PADDED));
        skip = padded + if head.has(PRIORITY) { 5 } else { 0 };
    }
    // Padding at the end stays: the block is only looked at for what offends first.
    let skip = skip.saturating_sub(before) as usize;
    block.extend_from_slice(piece.get(skip..).unwrap_or_default());
}

/// A sound block, up to a literal field that no message may hold.
pub(super) fn has_bad_field(block: &[u8]) -> bool {
    let mut rest = block;
    while let Some(&first) = rest.first() {
        let (bits, is_literal) = kind_of(first);
        let Some(index) = integer(&mut rest, bits) else {
            return false;
        };
        if !is_literal {
            continue;
        }
        let name = match index {
            0 => match string(&mut rest) {
                Some(name) if !is_name(&name) => return true,
                Some(name) => Some(name),
                None => return false,
            },
            _ => None,
        };
        match string(&mut rest) {
            None => return false,
            Some(value) if is_bad_value(name.as_deref(), index, &value) => return true,
            Some(_) => {}
        }
    }
    false
}

/// Whether a sound block names a pseudo-field, as far as that shows without the table: h2 passes over them in trailers.
pub(super) fn has_pseudo_field(block: &[u8]) -> bool {
    const PSEUDO: std::ops::RangeInclusive<usize> = 1..=14;
    let mut rest = block;
    while let Some(&first) = rest.first() {
        let (bits, is_literal) = kind_of(first);
        let Some(index) = integer(&mut rest, bits) else {
            return false;
        };
        if PSEUDO.contains(&index) && !(0x20..0x40).contains(&first) {
            return true;
        }
        if !is_literal {
            continue;
        }
        if index == 0 && string(&mut rest).is_some_and(|name| name.starts_with(b":")) {
            return true;
        }
        if string(&mut rest).is_none() {
            return false;
        }
    }
    false
}

/// How many bits of the first byte belong to its integer, and whether strings follow (RFC 7541 section 6).
fn kind_of(first: u8) -> (u32, bool) {
    match first {
        0x80.. => (7, false),
        0x40.. => (6, true),
        0x20.. => (5, false),
        _ => (4, true),
    }
}

fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let (&first, mut tail) = rest.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(first) & most;
    if value == most {
        for shift in (0..28).step_by(7) {
            let (&byte, after) = tail.split_first()?;
            tail = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                *rest = tail;
                return Some(value);
            }
        }
        return None;
    }
    *rest = tail;
    Some(value)
}

fn string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let is_huffman = rest.first()? & 0x80 != 0;
    let len = integer(rest, 7)?;
    let (text, after) = rest.split_at_checked(len.min(LONGEST))?;
    *rest = after;
    if is_huffman {
        decode(text)
    } else {
        Some(text.to_vec())
    }
}

/// Huffman's code; `None` where it is broken: EOS within, or padding that isn't the shortest run of ones.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut symbols = Vec::with_capacity(text.len() * 2);
    let (mut code, mut len) = (0_u32, 0_u8);
    for byte in text {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            len += 1;
            match symbol(code, len) {
                Some(256) => return None,
                Some(symbol) => {
                    symbols.push(symbol as u8);
                    (code, len) = (0, 0);
                }
                None if len > 30 => return None,
                None => {}
            }
        }
    }
    let is_padding = len < 8 && code == (1 << len) - 1;
    is_padding.then_some(symbols)
}

/// The symbol of a code with that many bits.
fn symbol(code: u32, len: u8) -> Option<usize> {
    let len = usize::from(len);
    let nth = code.checked_sub(*CODES.first.get(len)?)? as usize;
    (nth < CODES.count[len]).then(|| CODES.symbols[CODES.before[len] + nth])
}

/// The codes of each length: the first of them, how many there are, and how many shorter ones.
struct Codes {
    first: [u32; 31],
    count: [usize; 31],
    before: [usize; 31],
    /// In the order of their codes.
    symbols: [usize; 257],
}

const CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes {
        first: [0; 31],
        count: [0; 31],
        before: [0; 31],
        symbols: [0; 257],
    };
    let (mut len, mut sorted, mut next) = (1, 0, 0);
    while len <= 30 {
        next <<= 1;
        (codes.first[len], codes.before[len]) = (next, sorted);
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == len {
                codes.symbols[sorted] = symbol;
                (sorted, next) = (sorted + 1, next + 1);
                codes.count[len] += 1;
            }
            symbol += 1;
        }
        len += 1;
    }
    codes
}

/// A field's name in lower case, or one of the pseudo-fields of a message.
fn is_name(name: &[u8]) -> bool {
    match name {
        [b':', pseudo @ ..] => matches!(
            pseudo,
            b"method" | b"scheme" | b"authority" | b"path" | b"status" | b"protocol"
        ),
        _ => http::HeaderName::from_lowercase(name).is_ok(),
    }
}

fn is_bad_value(name: Option<&[u8]>, index: usize, value: &[u8]) -> bool {
    let is_text = std::str::from_utf8(value).is_ok();
    match (name, index) {
        (Some(b":method"), _) | (None, 2 | 3) => http::Method::from_bytes(value).is_err(),
        (Some(b":status"), _) | (None, 8..=14) => http::StatusCode::from_bytes(value).is_err(),
        (Some([b':', ..]), _) | (None, 1 | 4..=7) => !is_text,
        // The name of an entry of the table is the client's own secret; of its value the rule is the same.
        (None, index) if index > STATIC => http::HeaderValue::from_bytes(value).is_err(),
        _ => http::HeaderValue::from_bytes(value).is_err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, appendices C.4.1 and C.6.1.
    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        let text = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(decode(&text).unwrap(), b"www.example.com");
        assert_eq!(decode(&[0x64, 0x02]).unwrap(), b"302");
        assert_eq!(decode(&[0xae, 0xc3, 0x77, 0x1a, 0x4b]).unwrap(), b"private");
    }

    #[test]
    fn padding_is_ones_and_less_than_a_byte() {
        assert_eq!(decode(&[0xae, 0xc3, 0x77, 0x1a, 0x4a]), None, "a zero");
        assert_eq!(decode(&[0x64, 0x02, 0xff]), None, "a byte of ones");
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), None, "EOS");
        assert_eq!(decode(&[]).unwrap(), b"");
    }

    #[test]
    fn a_bad_field_is_told_from_broken_compression() {
        for (block, is_bad) in [
            (&b"\x00\x01a\x01b"[..], false),
            (b"\x00\x01A\x01b", true),
            (b"\x00\x01a\x01\n", true),
            (b"\x00\x06:other\x01b", true),
            (b"\x02\x03G T", true),
            // An index from nowhere, a string cut short, a number without end, and bad fields behind.
            (b"\xff\x80\x00", false),
            (b"\x00\x05a", false),
            (b"\x7f\x80\x80\x80\x80\x80\x00\x01A\x01b", false),
            (b"\x00\x81\x00\x01A", false),
        ] {
            assert_eq!(has_bad_field(block), is_bad, "{block:x?}");
        }
    }
}
