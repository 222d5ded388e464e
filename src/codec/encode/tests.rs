//! Every combination of what a handler may say, read back by a reader that follows RFC 9112 section 6.3 from the
//! client's side and shares no code with the encoder.

use bytes::{Buf, Bytes};
use http::Response;

use super::*;
use crate::codec::EncodeBody;
use crate::date::LINE;

const DATE: &[u8; LINE] = b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

fn exchange() -> Exchange {
    Exchange {
        http10: false,
        method: Kind::Other,
        close: None,
        expects_continue: false,
        upgrade: false,
        keep_alive: None,
    }
}

fn parts(status: u16, fields: &[(&str, &str)]) -> response::Parts {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap().into_parts().0
}

/// The head as text, without the date line.
fn say(
    exchange: &mut Exchange,
    status: u16,
    fields: &[(&str, &str)],
    length: Option<u64>,
) -> Result<String, EncodeError> {
    let mut output = Output::default();
    output.put(b"before");
    let head = parts(status, fields);
    let reply = Reply {
        head: &head,
        length,
        date: DATE,
    };
    let before = exchange.clone();
    let encoder = super::head(exchange, reply, &mut output);
    let text = String::from_utf8(output.as_slice().unwrap().to_vec()).unwrap();
    if let Err(error) = encoder {
        assert_eq!(text, "before");
        assert_eq!(*exchange, before);
        return Err(error);
    }
    let text = text.strip_prefix("before").unwrap();
    assert!(text.ends_with("\r\n\r\n"));
    Ok(text.replace(std::str::from_utf8(DATE).unwrap(), ""))
}

#[test]
fn a_head_has_status_fields_length_and_date() {
    let head = parts(
        200,
        &[("content-type", "text/plain"), ("x-a", "b\tc \u{e9}")],
    );
    let reply = Reply {
        head: &head,
        length: Some(5),
        date: DATE,
    };
    let mut output = Output::default();
    super::head(&mut exchange(), reply, &mut output).unwrap();
    assert_eq!(
        String::from_utf8(output.as_slice().unwrap().to_vec()).unwrap(),
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-a: b\tc \u{e9}\r\ncontent-length: 5\r\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
    );
}

#[test]
fn a_status_without_a_known_reason_keeps_its_space() {
    let text = say(&mut exchange(), 299, &[], Some(0)).unwrap();
    assert_eq!(text, "HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn the_date_of_the_handler_wins_and_is_said_once() {
    let date = ("date", "Mon, 07 Nov 1994 08:49:37 GMT");
    let text = say(&mut exchange(), 200, &[date, date], Some(0)).unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\ndate: Mon, 07 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n"
    );
}

#[test]
fn content_length_is_one_number_or_an_error() {
    for bad in [
        "",
        "+5",
        "-5",
        "5,5",
        "5 ",
        " 5",
        "0x5",
        "5.0",
        "18446744073709551616",
    ] {
        for (status, method) in [(200, Kind::Other), (200, Kind::Head), (304, Kind::Other)] {
            let mut exchange = Exchange {
                method,
                ..exchange()
            };
            let said = say(&mut exchange, status, &[("content-length", bad)], None);
            // `http` trims nothing in a value made from a string, so the spaces do arrive here.
            assert_eq!(said, Err(EncodeError::ContentLength), "{bad:?}");
        }
    }
    let twice = [("content-length", "5"), ("content-length", "5")];
    let said = say(&mut exchange(), 200, &twice, Some(5));
    assert_eq!(said, Err(EncodeError::ContentLength));
    let said = say(
        &mut exchange(),
        200,
        &[("content-length", "18446744073709551615")],
        None,
    );
    assert!(
        said.unwrap()
            .contains("content-length: 18446744073709551615\r\n")
    );
}

#[test]
fn content_length_must_be_the_length_of_the_body() {
    let (declared, length) = (6, 5);
    let said = say(&mut exchange(), 200, &[("content-length", "6")], Some(5));
    assert_eq!(said, Err(EncodeError::LengthMismatch { declared, length }));
    let said = say(&mut exchange(), 200, &[("content-length", "005")], Some(5));
    assert_eq!(
        said.unwrap(),
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    );
}

#[test]
fn head_keeps_the_length_it_was_given() {
    let head = || Exchange {
        method: Kind::Head,
        ..exchange()
    };
    let of_get = [("content-length", "1234")];
    for (fields, length, line) in [
        (&of_get[..], Some(0), "content-length: 1234\r\n"),
        (&of_get[..], None, "content-length: 1234\r\n"),
        (&[], Some(7), "content-length: 7\r\n"),
        (&[], Some(0), ""),
        (&[], None, ""),
    ] {
        let text = say(&mut head(), 200, fields, length).unwrap();
        assert_eq!(text, format!("HTTP/1.1 200 OK\r\n{line}\r\n"));
    }
}

#[test]
fn statuses_without_content_say_nothing_of_any() {
    let fields = [
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("etag", "\"a\""),
    ];
    let text = say(&mut exchange(), 204, &fields, Some(5)).unwrap();
    assert_eq!(text, "HTTP/1.1 204 No Content\r\netag: \"a\"\r\n\r\n");
    let text = say(&mut exchange(), 205, &fields, Some(5)).unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 205 Reset Content\r\netag: \"a\"\r\ncontent-length: 0\r\n\r\n"
    );
    let text = say(&mut exchange(), 304, &fields, Some(0)).unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 5\r\n\r\n"
    );
    let text = say(&mut exchange(), 304, &[], Some(9)).unwrap();
    assert_eq!(text, "HTTP/1.1 304 Not Modified\r\n\r\n");
}

#[test]
fn a_successful_connect_opens_a_tunnel() {
    let mut exchange = Exchange {
        method: Kind::Connect,
        ..exchange()
    };
    let text = say(&mut exchange, 200, &[("content-length", "0")], Some(0)).unwrap();
    assert_eq!(text, "HTTP/1.1 200 OK\r\n\r\n");
    let text = say(&mut exchange, 404, &[], Some(3)).unwrap();
    assert_eq!(text, "HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\n");
}

#[test]
fn interim_statuses_are_not_final() {
    for status in [100, 102, 103, 150, 199] {
        assert_eq!(
            say(&mut exchange(), status, &[], None),
            Err(EncodeError::Status)
        );
    }
}

#[test]
fn switching_protocols_needs_offer_and_name() {
    let websocket = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "x"),
    ];
    let offered = || Exchange {
        upgrade: true,
        ..exchange()
    };
    assert_eq!(
        say(&mut exchange(), 101, &websocket, None),
        Err(EncodeError::Upgrade)
    );
    assert_eq!(
        say(&mut offered(), 101, &[], None),
        Err(EncodeError::Upgrade)
    );
    assert_eq!(
        say(&mut offered(), 101, &websocket, Some(0)).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\
         connection: upgrade\r\n\r\n"
    );
    assert_eq!(
        say(&mut exchange(), 426, &websocket[..1], Some(0)).unwrap(),
        "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\ncontent-length: 0\r\nconnection: upgrade\r\n\r\n"
    );
    let mut last = Exchange {
        close: Some(Close::ClientAsked),
        ..exchange()
    };
    let text = say(&mut last, 426, &websocket[..1], Some(0)).unwrap();
    assert!(text.contains("\r\nconnection: upgrade, close\r\n"));
    let text = say(&mut offered(), 200, &websocket[..2], Some(0)).unwrap();
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn one_connection_line_says_what_is_true() {
    let client = Some(Close::ClientAsked);
    let handler = Some(Close::HandlerAsked);
    for (http10, close, asked, after, line) in [
        (false, None, "", None, ""),
        (false, None, "keep-alive, x-a", None, ""),
        (false, None, "CLOSE", handler, "connection: close\r\n"),
        (
            false,
            None,
            "foo ,\tclose",
            handler,
            "connection: close\r\n",
        ),
        (false, None, "closed", None, ""),
        (false, client, "keep-alive", client, "connection: close\r\n"),
        (false, client, "close", client, "connection: close\r\n"),
        (true, None, "", None, "connection: keep-alive\r\n"),
        (true, None, "close", handler, "connection: close\r\n"),
        (true, client, "keep-alive", client, "connection: close\r\n"),
    ] {
        let mut exchange = Exchange {
            http10,
            close,
            ..exchange()
        };
        let fields = [("connection", asked), ("proxy-connection", "keep-alive")];
        let text = say(&mut exchange, 200, &fields, Some(0)).unwrap();
        let wanted = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{line}\r\n");
        assert_eq!(
            (text, exchange.close),
            (wanted, after),
            "{http10} {close:?} {asked:?}"
        );
    }
}

#[test]
fn keep_alive_is_only_promised_on_a_kept_connection() {
    let fields = [("keep-alive", "timeout=5"), ("connection", "keep-alive")];
    assert_eq!(
        say(&mut exchange(), 200, &fields, Some(0)).unwrap(),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\nkeep-alive: timeout=5\r\n\r\n"
    );
    let fields = [("keep-alive", "timeout=5"), ("connection", "close")];
    assert_eq!(
        say(&mut exchange(), 200, &fields, Some(0)).unwrap(),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn an_unknown_length_is_chunked_or_ends_the_connection() {
    let fields = [("transfer-encoding", "gzip, chunked")];
    let text = say(&mut exchange(), 200, &fields, None).unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let mut old = Exchange {
        http10: true,
        ..exchange()
    };
    let text = say(&mut old, 200, &fields, None).unwrap();
    assert_eq!(text, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
    assert_eq!(old.close, Some(Close::Unframed));
}

#[test]
fn no_control_character_leaves_in_a_value() {
    for length in 0..40 {
        for at in 0..length {
            for byte in (0..=b'!').chain([b'~', 127, 128, 160, 255]) {
                let mut value = vec![b'v'; length];
                value[at] = byte;
                let mut output = Output::default();
                let wanted = byte >= b' ' || byte == b'\t';
                assert_eq!(
                    line(b"x", &value, &mut output).is_ok(),
                    wanted,
                    "{byte} at {at}"
                );
            }
        }
    }
}

#[test]
fn a_byte_below_a_space_is_told_from_all_others() {
    for length in 0..40 {
        assert!(!has_control(&vec![b'v'; length]));
        for at in 0..length {
            for byte in 0..=u8::MAX {
                let mut value = vec![b'v'; length];
                value[at] = byte;
                assert_eq!(has_control(&value), byte < b' ', "{byte} at {at}");
            }
        }
    }
}

#[test]
fn interim_heads_carry_their_fields_only() {
    let fields = parts(
        200,
        &[
            ("link", "</a>"),
            ("content-length", "3"),
            ("connection", "close"),
        ],
    )
    .headers;
    let mut output = Output::default();
    interim(StatusCode::CONTINUE, &HeaderMap::new(), &mut output).unwrap();
    interim(StatusCode::EARLY_HINTS, &fields, &mut output).unwrap();
    let wanted = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    assert_eq!(output.as_slice().unwrap(), wanted);
    for status in [101, 200, 404] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(
            interim(status, &fields, &mut output),
            Err(EncodeError::Status)
        );
    }
    assert_eq!(output.len(), wanted.len());
}

#[test]
fn trailers_go_out_with_chunks_only_and_without_forbidden_names() {
    let trailers = parts(
        200,
        &[
            ("grpc-status", "0"),
            ("content-length", "9"),
            ("host", "a"),
            ("etag", "b"),
        ],
    )
    .headers;
    let mut output = Output::default();
    let mut chunked = BodyEncoder::new(State::Chunked);
    chunked.data(&b"hello"[..], &mut output).unwrap();
    chunked.trailers(&trailers, &mut output).unwrap();
    assert!(chunked.is_done());
    chunked.end(&mut output).unwrap();
    assert_eq!(
        output.as_slice().unwrap(),
        b"5\r\nhello\r\n0\r\ngrpc-status: 0\r\netag: b\r\n\r\n"
    );
    for (state, ends) in [
        (State::Silent, Ok(())),
        (State::Known(0), Ok(())),
        (State::Known(1), Err(EncodeError::TooShort)),
        (State::UntilClose, Ok(())),
    ] {
        let mut output = Output::default();
        assert_eq!(
            BodyEncoder::new(state).trailers(&trailers, &mut output),
            ends
        );
        assert!(output.is_empty());
    }
}

#[test]
fn an_empty_frame_does_not_end_a_chunked_body() {
    let mut output = Output::default();
    let mut encoder = BodyEncoder::new(State::Chunked);
    encoder.data(Bytes::new(), &mut output).unwrap();
    assert!(output.is_empty() && !encoder.is_done());
    encoder
        .data(Bytes::from(vec![b'x'; 0x1f]), &mut output)
        .unwrap();
    encoder.data(Bytes::new(), &mut output).unwrap();
    encoder.end(&mut output).unwrap();
    assert!(encoder.is_done());
    let wanted = [b"1f\r\n", &[b'x'; 0x1f][..], b"\r\n0\r\n\r\n"].concat();
    assert_eq!(output.as_slice().unwrap(), wanted);
    assert_eq!(
        encoder.data(&b"late"[..], &mut output),
        Err(EncodeError::TooLong)
    );
    assert_eq!(output.len(), wanted.len());
}

#[test]
fn a_large_chunk_is_not_copied() {
    let data = Bytes::from(vec![b'x'; 65_536]);
    let mut output = Output::default();
    BodyEncoder::new(State::Chunked)
        .data(data.clone(), &mut output)
        .unwrap();
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    assert_eq!(output.slices(&mut slices), 3);
    assert_eq!(&*slices[0], b"10000\r\n");
    assert_eq!(slices[1].as_ptr(), data.as_ptr());
    assert_eq!(&*slices[2], b"\r\n");
}

/// What a client reads from one response: its content, or `None` where it is seen to be cut; and what follows.
fn client_reads(wire: &[u8], method: Kind, is_closed: bool) -> (Option<Vec<u8>>, Vec<u8>) {
    let end = wire
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    let head = std::str::from_utf8(&wire[..end])
        .unwrap()
        .to_ascii_lowercase();
    let rest = &wire[end..];
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let status: u16 = head[9..12].parse().unwrap();
    if method == Kind::Head || status == 204 || status == 304 {
        return (Some(vec![]), rest.to_vec());
    }
    if field("transfer-encoding:").is_some() {
        return client_reads_chunks(rest);
    }
    match field("content-length:") {
        Some(length) => {
            let length: usize = length.parse().unwrap();
            match rest.get(..length) {
                Some(content) => (Some(content.to_vec()), rest[length..].to_vec()),
                None => (None, vec![]),
            }
        }
        None => (is_closed.then(|| rest.to_vec()), vec![]),
    }
}

fn client_reads_chunks(mut rest: &[u8]) -> (Option<Vec<u8>>, Vec<u8>) {
    let mut content = vec![];
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return (None, vec![]);
        };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if rest.len() < size + 2 {
            return (None, vec![]);
        }
        content.extend_from_slice(&rest[..size]);
        assert_eq!(&rest[size..size + 2], b"\r\n");
        rest = &rest[size + 2..];
        if size == 0 {
            return (Some(content), rest.to_vec());
        }
    }
}

/// Writes a whole response as a connection would and says whether it ended well.
fn write(
    exchange: &mut Exchange,
    head: &response::Parts,
    length: Option<u64>,
    frames: &[usize],
    output: &mut Output,
) -> Result<(), EncodeError> {
    let reply = Reply {
        head,
        length,
        date: DATE,
    };
    let mut encoder = super::head(exchange, reply, output)?;
    for &frame in frames {
        if encoder.is_done() {
            return Ok(());
        }
        encoder.data(Bytes::from(vec![b'\n'; frame]), output)?;
    }
    encoder.end(output)
}

#[test]
fn no_byte_of_one_response_becomes_part_of_the_next() {
    const FRAMES: [&[usize]; 9] = [
        &[],
        &[0],
        &[5],
        &[0, 5, 0],
        &[2, 3],
        &[4],
        &[6],
        &[3, 3],
        &[5000, 0, 1],
    ];
    const DECLARED: [&[&str]; 6] = [&[], &["0"], &["5"], &["6"], &["5001"], &["5", "6"]];
    let mut seen = 0;
    for case in 0..(9 * 6 * 3 * 8 * 2 * 4) {
        let frames = FRAMES[case % 9];
        let declared = DECLARED[case / 9 % 6];
        let sum: usize = frames.iter().sum();
        let length = [None, Some(sum as u64), Some(5)][case / 54 % 3];
        let status = [200, 204, 205, 299, 304, 404, 500, 999][case / 162 % 8];
        let http10 = case / 1296 % 2 == 1;
        let method = [Kind::Other, Kind::Head, Kind::Connect, Kind::Other][case / 2592 % 4];
        if method == Kind::Connect && status < 300 {
            continue;
        }
        let fields: Vec<_> = declared
            .iter()
            .map(|value| ("content-length", *value))
            .collect();
        let head = parts(status, &fields);
        let mut exchange = Exchange {
            http10,
            method,
            ..exchange()
        };
        let mut output = Output::default();
        let ended = write(&mut exchange, &head, length, frames, &mut output);
        let is_kept = ended.is_ok() && exchange.close.is_none();
        if is_kept {
            output.put(b"NEXT");
        }
        if output.is_empty() {
            continue; // Nothing was sent: a 500 can take its place.
        }
        let mut slices = [std::io::IoSlice::new(&[]); 16];
        let filled = output.slices(&mut slices);
        let wire: Vec<u8> = slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        let (content, rest) = client_reads(&wire, method, ended.is_ok());
        let context =
            format!("{status} {http10} {method:?} {declared:?} {length:?} {frames:?} {ended:?}");
        assert_eq!(rest, if is_kept { &b"NEXT"[..] } else { b"" }, "{context}");
        match ended {
            // Too much was offered: what was declared is there, and the connection ends.
            Err(EncodeError::TooLong) => assert!(content.is_some(), "{context}"),
            Err(_) => assert_eq!(content, None, "{context}"),
            Ok(()) => assert!(
                content.unwrap().iter().all(|&byte| byte == b'\n'),
                "{context}"
            ),
        }
        seen += 1;
    }
    assert!(seen > 3000, "{seen}");
}

/// Says that it has four bytes, and has three.
struct Short(&'static [u8]);

impl Buf for Short {
    fn remaining(&self) -> usize {
        self.0.len() + 1
    }

    fn chunk(&self) -> &[u8] {
        self.0
    }

    fn advance(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }
}

#[test]
fn a_buf_that_has_less_than_it_said_is_an_error_however_the_body_is_framed() {
    for state in [
        State::Known(4),
        State::Known(9),
        State::Chunked,
        State::UntilClose,
    ] {
        let mut encoder = BodyEncoder::new(state);
        let mut output = Output::default();
        let error = encoder.data(Short(b"abc"), &mut output).unwrap_err();
        assert_eq!(error, EncodeError::TooShort, "{encoder:?}");
    }
}

/// Says that it has as much as can be said, and has nothing.
struct Boast;

impl Buf for Boast {
    fn remaining(&self) -> usize {
        usize::MAX
    }

    fn chunk(&self) -> &[u8] {
        b""
    }

    fn advance(&mut self, _: usize) {}
}

#[test]
fn a_chunk_of_any_size_has_its_digits() {
    let mut encoder = BodyEncoder::new(State::Chunked);
    let mut output = Output::default();
    let error = encoder.data(Boast, &mut output).unwrap_err();
    assert_eq!(error, EncodeError::TooShort);
    assert_eq!(output.as_slice().unwrap(), b"ffffffffffffffff\r\n");
}

#[test]
fn each_error_says_what_is_wrong() {
    let mismatch = EncodeError::LengthMismatch {
        declared: 5,
        length: 6,
    };
    for (error, word) in [
        (EncodeError::Status, "1xx"),
        (EncodeError::Upgrade, "101"),
        (EncodeError::FieldValue, "control characters"),
        (EncodeError::ContentLength, "one decimal number"),
        (mismatch, "says 5, but the body has 6 bytes"),
        (EncodeError::TooLong, "longer"),
        (EncodeError::TooShort, "shorter"),
    ] {
        assert!(error.to_string().contains(word), "{error:?}: {error}");
    }
}

#[test]
fn the_timeout_of_keep_alive_is_read_from_its_parameters() {
    for (value, expected) in [
        ("timeout=5", Some(5)),
        ("Timeout = 5, max=100", Some(5)),
        ("max=100, timeout=75", Some(75)),
        ("timeout=0", Some(0)),
        ("max=100", None),
        ("timeout=+5", None),
        ("timeout=4294967296", None),
        ("timeout", None),
    ] {
        let value = HeaderValue::from_static(value);
        assert_eq!(timeout(&value), expected, "{value:?}");
    }
}

#[test]
fn content_goes_out_as_its_framing_says() {
    for (state, expected) in [
        (State::Silent, ""),
        (State::Known(3), "abc"),
        (State::Known(9), "abc"),
        (State::Chunked, "3\r\nabc\r\n"),
        (State::UntilClose, "abc"),
    ] {
        let mut encoder = BodyEncoder::new(state);
        let mut output = Output::default();
        encoder.data(&b"abc"[..], &mut output).unwrap();
        assert_eq!(output.as_slice().unwrap(), expected.as_bytes());
    }
}

#[test]
fn only_a_body_that_the_close_ends_is_not_framed() {
    for (state, is_framed) in [
        (State::Silent, true),
        (State::Known(3), true),
        (State::Chunked, true),
        (State::UntilClose, false),
    ] {
        let encoder = BodyEncoder::new(state);
        assert_eq!(encoder.is_framed(), is_framed, "{encoder:?}");
    }
}
