use super::{Answer, MOST_HEAD, Malformed, Scanner};

/// All answers in `bytes`, which arrive `step` at a time, and the content of all of them.
fn scan(bytes: &[u8], step: usize, to_head: bool) -> Result<(Vec<Answer>, Vec<u8>), Malformed> {
    let mut scanner = Scanner::default();
    let (mut answers, mut content, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        held.extend_from_slice(piece);
        let mut input = held.as_slice();
        while let Some(answer) = scanner.advance(&mut input, to_head, Some(&mut content))? {
            answers.push(answer);
            if input.is_empty() {
                break;
            }
        }
        held = input.to_vec();
    }
    answers.extend(scanner.end());
    Ok((answers, content))
}

/// The same however the bytes are sliced.
fn in_any_slices(bytes: &str) -> Result<(Vec<Answer>, Vec<u8>), Malformed> {
    let whole = scan(bytes.as_bytes(), bytes.len().max(1), false);
    for step in 1..=7 {
        assert_eq!(
            scan(bytes.as_bytes(), step, false),
            whole,
            "in steps of {step}"
        );
    }
    whole
}

fn answer(status: u16, keep: bool) -> Answer {
    Answer { status, keep }
}

#[test]
fn content_length_ends_a_body_and_the_next_answer_follows() {
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n";
    let (answers, content) = in_any_slices(two).unwrap();
    assert_eq!(answers, [answer(200, true), answer(404, true)]);
    assert_eq!(content, b"hello");
}

#[test]
fn the_same_head_again_is_framed_the_same() {
    let one = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let (answers, content) = in_any_slices(&one.repeat(3)).unwrap();
    assert_eq!(answers.len(), 3);
    assert_eq!(content, b"hihihi");
}

#[test]
fn chunks_are_joined_and_extensions_and_trailers_passed_over() {
    let bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;a=\"b\"\r\nabc\r\n0a\r\n0123456789\r\n0\r\nx: y\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    let (answers, content) = in_any_slices(bytes).unwrap();
    assert_eq!(answers, [answer(200, true), answer(204, true)]);
    assert_eq!(content, b"abc0123456789");
}

#[test]
fn interim_answers_are_passed_over() {
    let bytes = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(in_any_slices(bytes).unwrap().0, [answer(200, true)]);
}

#[test]
fn a_body_without_length_goes_to_the_end() {
    let (answers, content) = in_any_slices("HTTP/1.1 200 OK\r\n\r\nrest").unwrap();
    assert_eq!(answers, [answer(200, false)]);
    assert_eq!(content, b"rest");
}

#[test]
fn http_1_0_is_kept_only_when_it_says_so() {
    let kept = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(in_any_slices(kept).unwrap().0, [answer(200, true)]);
    let closed = "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(in_any_slices(closed).unwrap().0, [answer(200, false)]);
}

#[test]
fn close_among_other_options_is_seen() {
    let bytes = "HTTP/1.1 200 OK\r\nconnection: foo, Close\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(in_any_slices(bytes).unwrap().0, [answer(200, false)]);
}

#[test]
fn an_answer_to_head_has_no_content() {
    let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n";
    let (answers, _) = scan(bytes, 3, true).unwrap();
    assert_eq!(answers, [answer(200, true), answer(304, true)]);
}

#[test]
fn what_is_not_http_is_refused_in_a_sentence() {
    let cases = [
        (
            "hello\r\n\r\n",
            "it doesn't begin with HTTP/1.1 or HTTP/1.0",
        ),
        (
            "HTTP/2 200\r\n\r\n",
            "it doesn't begin with HTTP/1.1 or HTTP/1.0",
        ),
        ("HTTP/1.1 20x OK\r\n\r\n", "its status isn't three digits"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "its status isn't three digits"),
        (
            "HTTP/1.1 600 OK\r\n\r\n",
            "its status isn't between 100 and 599",
        ),
        (
            "HTTP/1.1 101 Up\r\n\r\n",
            "it switches protocols, which nobody asked for",
        ),
        (
            "HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n",
            "a line of its head ends without CR",
        ),
        (
            "HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
            "its head has a CR or NUL within a line",
        ),
        ("HTTP/1.1 200 OK\r\nab\r\n\r\n", "a field has no colon"),
        (
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "a field's name isn't a token",
        ),
        (
            "HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
            "a field's name isn't a token",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "its Content-Length isn't a number",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "its Content-Length isn't a number",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "it has two Content-Lengths that differ",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "it has both Content-Length and Transfer-Encoding",
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "it has Transfer-Encoding and is HTTP/1.0",
        ),
    ];
    for (bytes, sentence) in cases {
        let whole = scan(bytes.as_bytes(), bytes.len(), false);
        assert_eq!(whole, Err(sentence), "{bytes:?}");
    }
}

#[test]
fn broken_chunks_are_refused_in_a_sentence() {
    let cases = [
        ("x\r\n", "a chunk's size isn't a number"),
        ("\r\n", "a chunk's size isn't a number"),
        (
            "00000000000000001\r\n",
            "a chunk's size has more than 16 digits",
        ),
        ("1\n", "a chunk's size isn't a number"),
        ("1\rx", "a chunk's size line ends without LF"),
        ("1;\n", "a chunk's size line ends without CR"),
        ("1\r\nab", "a chunk is longer than its size"),
        ("0\r\nx\n", "a line of its trailers ends without CR"),
        ("0\r\nx\ry", "a line of its trailers has a CR within"),
    ];
    for (body, sentence) in cases {
        let bytes = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        assert_eq!(in_any_slices(&bytes), Err(sentence), "{body:?}");
    }
}

#[test]
fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
    let head = |length: usize| {
        let fixed = "HTTP/1.1 204 No Content\r\nx: \r\n\r\n".len();
        format!(
            "HTTP/1.1 204 No Content\r\nx: {}\r\n\r\n",
            "a".repeat(length - fixed)
        )
    };
    for length in [MOST_HEAD - 1, MOST_HEAD] {
        let whole = head(length);
        assert_eq!(
            scan(whole.as_bytes(), length, false).unwrap().0,
            [answer(204, true)]
        );
    }
    let endless = &head(MOST_HEAD + 1).into_bytes()[..MOST_HEAD];
    assert_eq!(
        scan(endless, MOST_HEAD, false),
        Err("its head has no end within 64 KiB")
    );
}

#[test]
fn chunk_lines_and_trailers_may_be_as_long_as_the_limit_and_no_longer() {
    let with = |body: String| {
        let bytes = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        scan(bytes.as_bytes(), bytes.len(), false).map(|(answers, _)| answers.len())
    };
    let extension = |length| with(format!("0;{}\r\n\r\n", "a".repeat(length)));
    assert_eq!(extension(4095), Ok(1));
    assert_eq!(extension(4096), Ok(1));
    assert_eq!(
        extension(4097),
        Err("a chunk's size line is longer than 4 KiB")
    );
    let trailer = |length| with(format!("0\r\n{}\r\n\r\n", "a".repeat(length)));
    assert_eq!(trailer(4095), Ok(1));
    assert_eq!(trailer(4096), Ok(1));
    assert_eq!(trailer(4097), Err("its trailers are longer than 4 KiB"));
}

#[test]
fn a_head_byte_by_byte_is_looked_at_once() {
    // Quadratic work on 64 KiB would be 2 * 10^9 byte comparisons; this returns at once.
    let head = format!(
        "HTTP/1.1 204 No Content\r\nx: {}\r\n\r\n",
        "a".repeat(MOST_HEAD - 64)
    );
    let mut scanner = Scanner::default();
    for end in 1..head.len() {
        let mut input = &head.as_bytes()[..end];
        assert_eq!(scanner.advance(&mut input, false, None), Ok(None));
        assert_eq!(scanner.looked, end);
    }
}
