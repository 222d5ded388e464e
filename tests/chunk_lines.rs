//! Every chunk-size line up to so many bytes, against the grammar of RFC 9112 section 7.1 written here as that of a regular
//! language: the decoder looks ahead and takes what fits, this keeps every place where a match may stand. Nothing of the
//! decoder is used for it.
//!
//! Four bytes by default; `WHARF_CHUNK_LINE_BYTES=6 cargo test --release --test chunk_lines` tries all 67 million lines of six.

use bytes::BytesMut;
use wharf::codec::chunked::Chunked;
use wharf::{Limits, Reason};

/// What the grammar tells apart, and the neighbours of what it takes.
const ALPHABET: [u8; 20] = *b"09aF/:g;=\"\\ \t\r\n\0\x7f\x80!+";

const LONGEST: usize = 6;

#[test]
fn every_short_size_line_is_read_by_the_grammar_however_it_is_cut() {
    let longest = match std::env::var("WHARF_CHUNK_LINE_BYTES") {
        Ok(bytes) => bytes.parse().expect("WHARF_CHUNK_LINE_BYTES is a number"),
        Err(_) => 4,
    };
    assert!((1..=LONGEST).contains(&longest), "1 to {LONGEST} bytes");
    let (lines, valid) = (0..=longest).map(every_line).fold((0, 0), add);
    println!("{lines} lines of up to {longest} bytes, {valid} of them valid");
    // Alone of digits there are so many.
    assert!(valid > 4_u64.pow(longest as u32), "only {valid} are valid");
}

/// How many lines of that length there are, and how many of them are valid; the cores share them.
fn every_line(len: usize) -> (u64, u64) {
    let numbers = (ALPHABET.len() as u64).pow(len as u32);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let share = numbers.div_ceil(cores);
    let judge_all = |core| {
        let share = core * share..numbers.min((core + 1) * share);
        let judged = share.filter_map(|number| judge(len, number));
        judged.fold((0, 0), |(lines, valid), is_valid| {
            (lines + 1, valid + u64::from(is_valid))
        })
    };
    std::thread::scope(|scope| {
        let shares = (0..cores).map(|core| scope.spawn(move || judge_all(core)));
        let shares: Vec<_> = shares.collect();
        let shares = shares
            .into_iter()
            .map(|share| share.join().expect("all agree"));
        shares.fold((0, 0), add)
    })
}

fn add(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0 + other.0, one.1 + other.1)
}

/// Compares one line; `None` if it is a shorter one with something behind it.
fn judge(len: usize, mut number: u64) -> Option<bool> {
    let mut bytes = [0; LONGEST + 2];
    for byte in &mut bytes[..len] {
        *byte = ALPHABET[(number % 20) as usize];
        number /= 20;
    }
    bytes[len..len + 2].copy_from_slice(b"\r\n");
    let line = &bytes[..len + 2];
    let line_feed = line.iter().position(|&byte| byte == b'\n')?;
    let is_cut_short = line_feed > 0 && line[line_feed - 1] == b'\r' && line_feed + 1 < line.len();
    if is_cut_short {
        return None;
    }
    let expected = match line.strip_suffix(b"\r\n") {
        Some(content) if !content.contains(&b'\n') => size(content),
        _ => None,
    };
    match expected {
        None => assert_read(line, u64::MAX, Err(Reason::Chunk)),
        Some(size) => {
            assert_read(line, size, Ok(()));
            if let Some(less) = size.checked_sub(1) {
                assert_read(line, less, Err(Reason::BodyTooLarge));
            }
        }
    }
    Some(expected.is_some())
}

/// Reads a line in one piece and in bytes, where a body may have `body_bytes`: so the size shows, of which nothing else
/// tells.
fn assert_read(line: &[u8], body_bytes: u64, expected: Result<(), Reason>) {
    let limits = Limits {
        body_bytes,
        ..Limits::default()
    };
    let mut decoder = Chunked::new((&limits).into());
    let mut input = BytesMut::with_capacity(16);
    input.extend_from_slice(line);
    let whole = read(&mut decoder, &mut input);
    assert_eq!(whole, Some(expected), "{}", line.escape_ascii());

    let mut decoder = Chunked::new((&limits).into());
    input.clear();
    let mut in_bytes = None;
    for &byte in line {
        assert_eq!(in_bytes, None, "too soon: {}", line.escape_ascii());
        input.extend_from_slice(&[byte]);
        in_bytes = read(&mut decoder, &mut input);
        if in_bytes == Some(Err(Reason::Chunk)) {
            break;
        }
    }
    assert_eq!(
        in_bytes,
        Some(expected),
        "in bytes: {}",
        line.escape_ascii()
    );
}

/// What became of the line at the front: `None` while it isn't whole, which takes nothing from the input.
fn read(decoder: &mut Chunked, input: &mut BytesMut) -> Option<Result<(), Reason>> {
    let before = input.len();
    match decoder.decode(input) {
        Err(reject) => Some(Err(reject.reason())),
        Ok(None) if input.is_empty() => Some(Ok(())),
        Ok(None) => {
            assert_eq!(input.len(), before, "half a line was taken");
            None
        }
        Ok(Some(piece)) => panic!("there is only a line, but {piece:?} came of it"),
    }
}

/// Where a match may stand: bit `n` is in front of byte `n`.
type Places = u16;

/// `chunk-size [ chunk-ext ]`, and the size. Strict: no white space directly behind the size.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let text = std::str::from_utf8(&line[..digits]).ok()?;
    let size = u64::from_str_radix(text, 16).ok()?;
    let has_space_behind = matches!(line.get(digits), Some(b' ' | b'\t'));
    let ends = chunk_ext(line, 1 << digits);
    (!has_space_behind && ends & 1 << line.len() != 0).then_some(size)
}

/// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
fn chunk_ext(line: &[u8], mut places: Places) -> Places {
    loop {
        let names = token(line, bws(line, one(line, bws(line, places), |b| b == b';')));
        let values = bws(line, one(line, bws(line, names), |b| b == b'='));
        let more = places | names | token(line, values) | quoted_string(line, values);
        if more == places {
            return places;
        }
        places = more;
    }
}

/// One byte of a kind.
fn one(line: &[u8], places: Places, is: impl Fn(u8) -> bool) -> Places {
    let here = |&(place, byte): &(usize, &u8)| places & 1 << place != 0 && is(*byte);
    let ends = line.iter().enumerate().filter(here);
    ends.fold(0, |ends, (place, _)| ends | 1 << (place + 1))
}

/// Any number of them.
fn many(line: &[u8], mut places: Places, is: impl Fn(u8) -> bool) -> Places {
    for _ in line {
        places |= one(line, places, &is);
    }
    places
}

fn bws(line: &[u8], places: Places) -> Places {
    many(line, places, |byte| matches!(byte, b' ' | b'\t'))
}

/// RFC 9110 section 5.6.2.
fn token(line: &[u8], places: Places) -> Places {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    many(line, one(line, places, is_tchar), is_tchar)
}

/// RFC 9110 section 5.6.4.
fn quoted_string(line: &[u8], places: Places) -> Places {
    let is_qdtext = |byte| matches!(byte, b'\t' | b' ' | 0x21 | 0x23..=0x5b | 0x5d..=0x7e | 0x80..);
    let is_paired = |byte| matches!(byte, b'\t' | b' ' | 0x21..=0x7e | 0x80..);
    let mut inside = one(line, places, |byte| byte == b'"');
    for _ in line {
        inside |= one(line, inside, is_qdtext);
        inside |= one(line, one(line, inside, |byte| byte == b'\\'), is_paired);
    }
    one(line, inside, |byte| byte == b'"')
}
