use super::*;

/// Content, trailers and how it ended.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    content: Vec<u8>,
    trailers: Option<HeaderMap>,
    end: Result<End, Reason>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Incomplete,
    /// Complete, with that many bytes behind it.
    Complete(usize),
}

fn limits() -> Limits {
    Limits {
        chunk_line_bytes: 64,
        chunk_overhead_bytes: 100,
        trailer_bytes: 40,
        trailer_fields: 2,
        body_bytes: 1 << 20,
        ..Limits::default()
    }
}

fn decode_cut(limits: &Limits, bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut decoder = BodyDecoder::new(Length::Chunked, limits.into());
    let mut outcome = Outcome {
        content: Vec::new(),
        trailers: None,
        end: Ok(End::Incomplete),
    };
    let mut input = BytesMut::new();
    let mut from = 0;
    for &to in cuts.iter().chain(&[bytes.len()]) {
        input.extend_from_slice(&bytes[from..to]);
        from = to;
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(Piece::Data(data))) => {
                    assert!(!data.is_empty() && outcome.trailers.is_none());
                    outcome.content.extend_from_slice(&data);
                }
                Ok(Some(Piece::Trailers(trailers))) => outcome.trailers = Some(trailers),
                Ok(Some(Piece::End)) => {
                    outcome.end = Ok(End::Complete(input.len() + bytes.len() - to));
                    return outcome;
                }
                Ok(None) => break,
                Err(reject) => {
                    outcome.end = Err(reject.reason());
                    return outcome;
                }
            }
        }
    }
    outcome
}

/// The one outcome: whole, cut anywhere once, and a byte at a time.
fn outcome_within(limits: &Limits, bytes: &[u8]) -> Outcome {
    let whole = decode_cut(limits, bytes, &[]);
    for cut in 1..bytes.len() {
        assert_eq!(
            decode_cut(limits, bytes, &[cut]),
            whole,
            "cut at {cut}: {}",
            bytes.escape_ascii()
        );
    }
    let each: Vec<_> = (1..bytes.len()).collect();
    assert_eq!(
        decode_cut(limits, bytes, &each),
        whole,
        "in bytes: {}",
        bytes.escape_ascii()
    );
    whole
}

fn content(bytes: &str) -> Result<String, Reason> {
    let outcome = outcome_within(&limits(), bytes.as_bytes());
    assert_eq!(outcome.trailers, None);
    assert_eq!(outcome.end?, End::Complete(0), "{bytes:?}");
    Ok(String::from_utf8(outcome.content).unwrap())
}

fn refused(bytes: &str) -> Option<Reason> {
    outcome_within(&limits(), bytes.as_bytes()).end.err()
}

#[test]
fn chunks_are_joined() {
    assert_eq!(content("0\r\n\r\n").unwrap(), "");
    assert_eq!(content("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n").unwrap(), "abc");
    assert_eq!(
        content("00a\r\n0123456789\r\n000\r\n\r\n").unwrap(),
        "0123456789"
    );
    assert_eq!(
        content("A\r\n0123456789\r\n0000000000000000\r\n\r\n").unwrap(),
        "0123456789"
    );
}

#[test]
fn what_follows_the_body_is_left() {
    let outcome = outcome_within(&limits(), b"1\r\na\r\n0\r\n\r\nGET");
    assert_eq!(outcome.end, Ok(End::Complete(3)));
}

#[test]
fn a_body_that_stops_anywhere_is_not_complete() {
    let whole = "1\r\na\r\n0\r\nx: y\r\n\r\n";
    for len in 0..whole.len() {
        assert_eq!(
            decode_cut(&limits(), &whole.as_bytes()[..len], &[]).end,
            Ok(End::Incomplete)
        );
    }
}

#[test]
fn malformed_chunks_are_refused() {
    for bad in [
        "\r\n",
        "\n",
        "1\n",
        "1\na\n0\n\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        "1_0\r\n",
        " 1\r\n",
        "1 \r\n",
        "1\t\r\n",
        "1 ;a\r\n",
        "1\r\r\n",
        "1\u{b}\r\n",
        "1,\r\n",
        "\u{661}\r\n",
        "11111111111111111\r\n",
        "00000000000000001\r\n",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\r\r",
        "1\r\na0\r\n",
        "1;\r\n",
        "1;a\n",
        "1;a\rb\r\n",
        "1;a=\r\n",
        "1;a=\"\r\n",
        "1;a=\"\n\"\r\n",
        "1;a=\"\r\n\"\r\n",
        "1;a=\"b\\\r\n",
        "1;a=\"b\"c\r\n",
        "1;a=\0\r\n",
        "1;\u{1}\r\n",
        "1;a=\"\u{7f}\"\r\n",
        "1;a b\r\n",
        "1;=b\r\n",
        "1;a;\r\n",
        "1;a \r\n",
        "1a;b;;c\r\n",
        "1;\"a\"\r\n",
        "1=a\r\n",
        "1;a=\"\\\0\"\r\n",
        "1;a=\"\\\u{7f}\"\r\n",
    ] {
        assert_eq!(refused(bad), Some(Reason::Chunk), "{bad:?}");
    }
}

#[test]
fn extensions_are_skipped() {
    for good in [
        "a",
        "a=b",
        "a=\"b\"",
        "a=\"\"",
        " a ; b\t=\tc",
        "a=\"\\\"; \\\\ \u{e9}\t\"",
        "a;b;c=d",
    ] {
        assert_eq!(
            content(&format!("1;{good}\r\nx\r\n0;{good}\r\n\r\n")).unwrap(),
            "x",
            "{good:?}"
        );
    }
}

/// All lines of up to four bytes against the grammar, written the slow way.
#[test]
fn each_short_size_line_is_read_by_the_grammar() {
    fn naive(line: &str) -> Option<u64> {
        let (size, extension) = match line.split_once(';') {
            Some((size, extension)) => (size, Some(extension)),
            None => (line, None),
        };
        let is_size = !size.is_empty() && size.chars().all(|c| c.is_ascii_hexdigit());
        let is_token = |token: &str| {
            !token.is_empty()
                && token
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-+_".contains(c))
        };
        let is_extension = |extension: &str| match extension.split_once('=') {
            Some((name, value)) => {
                is_token(name.trim_matches([' ', '\t']))
                    && is_token(value.trim_start_matches([' ', '\t']))
            }
            None => is_token(extension.trim_start_matches([' ', '\t'])),
        };
        let is_valid = is_size && extension.is_none_or(|all| all.split(';').all(is_extension));
        is_valid.then(|| u64::from_str_radix(size, 16).unwrap())
    }
    let alphabet = b"019afAFgxX;=\" \t-+_\r\0";
    let bounds = Bounds::from(&limits());
    let mut lines = vec![Vec::new()];
    for _ in 0..4 {
        let shorter = lines.clone();
        lines = shorter
            .iter()
            .flat_map(|line| {
                alphabet
                    .iter()
                    .map(move |byte| [line.as_slice(), &[*byte]].concat())
            })
            .collect();
        for line in &lines {
            let mut decoder = Chunked::new(bounds);
            let whole = [line, b"\r\n".as_slice()].concat();
            let read = decoder
                .size_line(&whole)
                .ok()
                .map(|read| read.expect("whole").1);
            let expected = naive(std::str::from_utf8(line).unwrap());
            assert_eq!(read, expected, "{}", line.escape_ascii());
        }
    }
}

#[test]
fn a_size_line_may_be_as_long_as_the_limit() {
    for (len, expected) in [(63, None), (64, None), (65, Some(Reason::ChunkOverhead))] {
        let line = format!("1;{}\r\n", "a".repeat(len - 4));
        assert_eq!(refused(&line), expected, "{len}");
    }
    assert_eq!(refused(&"0".repeat(64)), Some(Reason::ChunkOverhead));
}

#[test]
fn a_size_without_extensions_may_be_as_long_as_the_limit() {
    for limit in 2..10 {
        let limits = Limits {
            chunk_line_bytes: limit,
            ..limits()
        };
        for digits in 1..10 {
            let line = format!("{:0>digits$}\r\n", 1);
            let expected = match line.len() <= limit {
                true => Ok(End::Incomplete),
                false => Err(Reason::ChunkOverhead),
            };
            assert_eq!(
                outcome_within(&limits, line.as_bytes()).end,
                expected,
                "{digits} digits, at most {limit} bytes"
            );
        }
    }
}

#[test]
fn framing_beyond_the_allowance_is_bounded_in_all() {
    // A chunk of one byte excuses 18 bytes; this line is 20 longer than that.
    let chunk = format!("1;{}\r\na\r\n", "x".repeat(34));
    assert_eq!(refused(&chunk.repeat(5)), None);
    assert_eq!(refused(&chunk.repeat(6)), Some(Reason::ChunkOverhead));
}

#[test]
fn an_allowance_cannot_be_saved_up() {
    let chunk = format!("1;{}\r\na\r\n", "x".repeat(34));
    let big = format!("1000\r\n{}\r\n", "a".repeat(4096));
    let each = [big.as_bytes(), chunk.repeat(6).as_bytes()].concat();
    assert_eq!(
        decode_cut(&limits(), &each, &[]).end,
        Err(Reason::ChunkOverhead)
    );
}

#[test]
fn content_may_be_as_large_as_the_limit() {
    let limits = Limits {
        body_bytes: 10,
        ..limits()
    };
    for (chunks, expected) in [
        ("9\r\n012345678\r\n", Ok(End::Incomplete)),
        ("5\r\n01234\r\n5\r\n56789\r\n", Ok(End::Incomplete)),
        ("5\r\n01234\r\n6\r\n", Err(Reason::BodyTooLarge)),
        ("b\r\n", Err(Reason::BodyTooLarge)),
        (
            "5\r\n01234\r\nffffffffffffffff\r\n",
            Err(Reason::BodyTooLarge),
        ),
    ] {
        assert_eq!(
            outcome_within(&limits, chunks.as_bytes()).end,
            expected,
            "{chunks:?}"
        );
    }
}

#[test]
fn sizes_that_overflow_in_sum_are_refused() {
    let limits = Limits::default();
    let outcome = decode_cut(&limits, b"1\r\na\r\nffffffffffffffff\r\n", &[]);
    assert_eq!(outcome.end, Err(Reason::BodyTooLarge));
}

#[test]
fn small_chunks_come_together_and_large_ones_uncopied() {
    let mut decoder = Chunked::new((&limits()).into());
    let mut input = BytesMut::from("1\r\na\r\n".repeat(5000).as_str());
    let mut sizes = Vec::new();
    while let Some(Piece::Data(data)) = decoder.decode(&mut input).unwrap() {
        sizes.push(data.len());
    }
    assert_eq!(sizes, [5000]);

    input.extend_from_slice(format!("2000\r\n{}\r\n", "a".repeat(8192)).as_bytes());
    let content = input[6..].as_ptr();
    let Some(Piece::Data(data)) = decoder.decode(&mut input).unwrap() else {
        panic!("no data");
    };
    assert_eq!((data.len(), data.as_ptr()), (8192, content));
}

#[test]
fn as_many_small_chunks_as_fit_come_together() {
    for (size, together) in [(512, TOGETHER), (511, 32 * 511), (513, 31 * 513)] {
        let chunk = format!("{size:x}\r\n{}\r\n", "a".repeat(size));
        let mut decoder = Chunked::new((&limits()).into());
        let mut input = BytesMut::from(chunk.repeat(100).as_str());
        let mut sizes = Vec::new();
        while let Some(Piece::Data(data)) = decoder.decode(&mut input).unwrap() {
            sizes.push(data.len());
        }
        let rest = 100 * size - 3 * together;
        assert_eq!(sizes, [together, together, together, rest], "{size}");
    }
}

#[test]
fn chunks_of_all_sizes_give_the_same_content_however_sliced() {
    let mut wire = Vec::new();
    let mut content = Vec::new();
    for size in [1, 5, 1023, 1024, 1, 1, 2000, 3, 700, 700, 1025] {
        let chunk: Vec<u8> = (0..size).map(|at| at as u8).collect();
        wire.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        wire.extend_from_slice(&chunk);
        wire.extend_from_slice(b"\r\n");
        content.extend_from_slice(&chunk);
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    for step in [1, 2, 3, 7, 500, 1024, 1500, 100_000] {
        let cuts: Vec<_> = (1..wire.len()).filter(|at| at % step == 0).collect();
        let outcome = decode_cut(&limits(), &wire, &cuts);
        assert_eq!(
            (outcome.end, outcome.content == content),
            (Ok(End::Complete(0)), true),
            "{step}"
        );
    }
}

#[test]
fn a_size_line_in_bytes_is_looked_at_once() {
    let limits = Limits::default();
    let mut decoder = Chunked::new((&limits).into());
    let mut input = BytesMut::from("1;");
    for len in 3..4000 {
        input.extend_from_slice(b"a");
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert_eq!(decoder.looked, len);
    }
}

#[test]
fn trailers_are_delivered_apart() {
    let outcome = outcome_within(
        &limits(),
        b"1\r\na\r\n0\r\nX-Sum:  1\t\r\nx-sum: \xff\r\n\r\nGET",
    );
    let trailers = outcome.trailers.unwrap();
    let values: Vec<_> = trailers
        .get_all("x-sum")
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    assert_eq!(
        (values, trailers.len()),
        (vec![b"1".as_slice(), b"\xff"], 2)
    );
    assert_eq!(
        (outcome.content, outcome.end),
        (b"a".to_vec(), Ok(End::Complete(3)))
    );
}

#[test]
fn malformed_trailers_are_refused() {
    for bad in [
        "\n",
        "x\r\n",
        ": a\r\n",
        "x : a\r\n",
        "x: a\n",
        " x: a\r\n",
        "x: a\r\n b\r\n",
        "x: \0\r\n",
        "x: a\rb\r\n",
        "x\0: a\r\n",
    ] {
        assert_eq!(
            refused(&format!("0\r\n{bad}\r\n")),
            Some(Reason::Trailer),
            "{bad:?}"
        );
    }
}

#[test]
fn trailers_that_frame_route_authenticate_or_modify_are_refused() {
    for name in [
        "Transfer-Encoding",
        "content-length",
        "Host",
        "Trailer",
        "TE",
        "Connection",
        "Upgrade",
        "Keep-Alive",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Expect",
        "Range",
        "If-Match",
        "If-None-Match",
        "Max-Forwards",
        "Cache-Control",
        "Pragma",
        "X-Forwarded-For",
        "Forwarded",
        "Via",
        "Date",
        "Content-Anything",
        "Accept",
    ] {
        assert_eq!(
            refused(&format!("0\r\n{name}: 1\r\n\r\n")),
            Some(Reason::Trailer),
            "{name}"
        );
    }
    for name in [
        "Content-Digest",
        "Server-Timing",
        "ETag",
        "Grpc-Status",
        "X-Checksum",
        "Hosts",
    ] {
        assert_eq!(refused(&format!("0\r\n{name}: 1\r\n\r\n")), None, "{name}");
    }
}

#[test]
fn trailers_are_bounded_in_bytes_and_number() {
    for (len, expected) in [(39, None), (40, None), (41, Some(Reason::TrailersTooLarge))] {
        let section = format!("x: {}\r\n\r\n", "a".repeat(len - 7));
        assert_eq!(section.len(), len);
        assert_eq!(refused(&format!("0\r\n{section}")), expected, "{len}");
    }
    for (count, expected) in [(1, None), (2, None), (3, Some(Reason::TrailersTooLarge))] {
        assert_eq!(
            refused(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(count))),
            expected,
            "{count}"
        );
    }
    assert_eq!(
        refused(&format!("0\r\n{}", "x".repeat(40))),
        Some(Reason::TrailersTooLarge)
    );
}

#[test]
fn a_known_length_ends_where_it_was_declared() {
    let mut decoder = BodyDecoder::new(Length::Known(3), (&limits()).into());
    let mut input = BytesMut::from("a");
    assert_eq!(decoder.remaining(), Some(3));
    assert_eq!(
        decoder.decode(&mut input),
        Ok(Some(Piece::Data(Bytes::from_static(b"a"))))
    );
    assert_eq!(decoder.decode(&mut input), Ok(None));
    input.extend_from_slice(b"bcGET");
    assert_eq!(decoder.remaining(), Some(2));
    assert_eq!(
        decoder.decode(&mut input),
        Ok(Some(Piece::Data(Bytes::from_static(b"bc"))))
    );
    assert_eq!(decoder.decode(&mut input), Ok(Some(Piece::End)));
    assert_eq!((&input[..], decoder.remaining()), (&b"GET"[..], Some(0)));
}

/// The advisories about reading bodies, one each.
#[test]
fn advisories_are_kept_refused() {
    for (chunks, reason) in [
        // RUSTSEC-2021-0079: a size that overflows.
        ("f0000000000000003\r\nabc\r\n0\r\n\r\n", Reason::Chunk),
        // RUSTSEC-2020-0048, CVE-2025-22871: a bare line feed ends a size line, or hides in an extension.
        ("1\na\n0\n\n", Reason::Chunk),
        ("1;a\nb\r\na\r\n0\r\n\r\n", Reason::Chunk),
        // CVE-2025-55315: another line end within an extension.
        ("1;a\r\r\na\r\n0\r\n\r\n", Reason::Chunk),
        // CVE-2025-43859: what follows the content isn't looked at.
        ("1\r\naXX0\r\n\r\n", Reason::Chunk),
    ] {
        assert_eq!(refused(chunks), Some(reason), "{chunks:?}");
    }
}
