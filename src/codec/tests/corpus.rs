//! Heads, good and bad, and what must come of them.

use http::{HeaderMap, StatusCode};

use super::*;
use crate::codec::Output;

const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\x01",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.9\r\nHost: a\r\n\r\n",
    "\r\nGET / HTTP/1.5\r\nHost: a\r\n\r\n",
    "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n",
    "get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "!#$%&'*+-.^_`|~09azAZ-LONGER / HTTP/1.1\r\nHost: a\r\n\r\n",
    "PRI / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a/b;c=d,e/%7Ef?x=1&y=%20+/?:@!$'()*-._~ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET //double HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /? HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b/ HTTP/1.1\r\nHost:\r\n\r\n",
    "GET HTTPS://b:443/p?q HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n",
    "GET http://[::1]:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://b/ HTTP/1.0\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    "CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhOsT: a.example:8080\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \r\nY:\t\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\tb  c:d\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX-Very-Own-Name-That-Is-Not-Standard: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nA: 3\r\na: 4\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close ,y\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n",
    "POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nTRANSFER-ENCODING:chunked\r\nHost: a\r\n\r\n",
];

const INCOMPLETE: &[&str] = &[
    "",
    "\r",
    "\r\n",
    "G",
    "GET / HTTP/1.1",
    "GET / HTTP/1.1\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r",
    "PRI * HTTP/2.",
];

const BAD: &[(&str, Reason)] = &[
    ("\n", Reason::LineEnding),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::LineEnding),
    ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::LineEnding),
    ("\r\n\r\n\r\n\r\n\r", Reason::RequestLine),
    (
        "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Reason::RequestLine,
    ),
    (" ", Reason::Method),
    ("\0", Reason::Method),
    ("\x16", Reason::TlsHandshake),
    ("\x16\x03\x01\x02\0\x01", Reason::TlsHandshake),
    ("{", Reason::Method),
    ("PRI * HTTP/2.0", Reason::Http2Preface),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason::Http2Preface),
    ("PRI * HTTP/2.0\n", Reason::Http2Preface),
    ("GET\r\n", Reason::Method),
    ("GET /\r\n", Reason::RequestLine),
    ("GET / \r\n", Reason::Version),
    ("GET  / HTTP/1.1\r\n", Reason::Target),
    ("GET /  HTTP/1.1\r\n", Reason::Target),
    ("GET / HTTP/1.1 \r\n", Reason::Target),
    ("GET\t/ HTTP/1.1\r\n", Reason::Method),
    ("GET /\tHTTP/1.1\r\n", Reason::RequestLine),
    ("GET / HTTP/1.1\n", Reason::LineEnding),
    ("GET / HTTP/1.1\nHost: a\n\n", Reason::LineEnding),
    ("GET / HTTP/1.1\r\r\n", Reason::Version),
    ("G\"T / HTTP/1.1\r\n", Reason::Method),
    ("GET / HTTP/1.10\r\n", Reason::Version),
    ("GET / HTTP/11\r\n", Reason::Version),
    ("GET / HTTP/1\r\n", Reason::Version),
    ("GET / http/1.1\r\n", Reason::Version),
    ("GET / HTTP 1.1\r\n", Reason::Version),
    ("GET / HTTPS/1.1\r\n", Reason::Version),
    ("GET / HTTP/2.0\r\n", Reason::UnsupportedVersion),
    ("GET / HTTP/3.0\r\n", Reason::UnsupportedVersion),
    ("GET / HTTP/0.9\r\n", Reason::UnsupportedVersion),
    ("GET a HTTP/1.1\r\n", Reason::Target),
    ("GET * HTTP/1.1\r\n", Reason::Target),
    ("GET a:80 HTTP/1.1\r\n", Reason::Target),
    ("GET /#f HTTP/1.1\r\n", Reason::Target),
    ("GET /a b HTTP/1.1\r\n", Reason::Target),
    ("GET /\u{e9} HTTP/1.1\r\n", Reason::Target),
    ("GET /\0 HTTP/1.1\r\n", Reason::Target),
    ("GET /%zz HTTP/1.1\r\n", Reason::Target),
    ("GET http:/// HTTP/1.1\r\n", Reason::Target),
    ("GET http://:80/ HTTP/1.1\r\n", Reason::Target),
    ("GET http://u@b/ HTTP/1.1\r\n", Reason::Target),
    ("GET ftp://b/ HTTP/1.1\r\n", Reason::Target),
    ("CONNECT / HTTP/1.1\r\n", Reason::Target),
    ("CONNECT a HTTP/1.1\r\n", Reason::Target),
    ("CONNECT http://a:80/ HTTP/1.1\r\n", Reason::Target),
    ("GET / HTTP/1.1\r\n\r\n", Reason::Host),
    ("GET http://a/ HTTP/1.1\r\n\r\n", Reason::Host),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Reason::Host),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", Reason::Host),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n", Reason::Host),
    ("GET http://b/ HTTP/1.1\r\nHost: a b\r\n", Reason::Host),
    ("GET / HTTP/1.1\r\nHost: a,b c\r\n", Reason::Host),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n", Reason::Host),
    ("GET / HTTP/1.1\r\nHost: a:65536\r\n", Reason::Host),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n", Reason::Host),
    ("GET / HTTP/1.1\r\nHost: http://a\r\n", Reason::Host),
    ("GET / HTTP/1.1\r\n Host: a\r\n", Reason::ObsoleteFolding),
    (
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n",
        Reason::ObsoleteFolding,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n",
        Reason::ObsoleteFolding,
    ),
    ("GET / HTTP/1.1\r\nHost : a\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\n: a\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\nHost\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\nno colon\r\nHost: a\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\nX\0: a\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\nX\u{e9}: a\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\nHost: a\n", Reason::LineEnding),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n",
        Reason::LineEnding,
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n", Reason::LineEnding),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", Reason::LineEnding),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n",
        Reason::LineEnding,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n",
        Reason::LineEnding,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n",
        Reason::LineEnding,
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \x0b\r\n", Reason::Field),
    ("GET / HTTP/1.1\r\nX: \0\r\nno colon\r\n", Reason::Field),
    (
        "GET / HTTP/1.1\r\nX: \x01\r\nHost: a\r\nHost: b\r\n",
        Reason::Field,
    ),
    ("GET / HTTP/1.1\r\nX: \x01\r\n\r\n", Reason::Field),
    (
        "POST / HTTP/1.1\r\nContent-Length: +1\r\n",
        Reason::ContentLength,
    ),
    (
        "POST / HTTP/1.1\r\nContent-Length:\r\n",
        Reason::ContentLength,
    ),
    (
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        Reason::ContentLength,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        Reason::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        Reason::UnknownCoding,
    ),
    (
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        Reason::TransferEncoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        Reason::LengthAndCoding,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
        Reason::Expectation,
    ),
];

#[test]
fn good_heads_are_accepted_alike_however_sliced() {
    for bytes in GOOD {
        accepted(bytes.as_bytes());
    }
}

#[test]
fn bad_heads_are_refused_for_their_first_error_however_sliced() {
    for (bytes, reason) in BAD {
        assert_eq!(
            refused(bytes.as_bytes()),
            Some(*reason),
            "{}",
            bytes.escape_debug()
        );
    }
}

#[test]
fn half_heads_ask_for_more() {
    for bytes in INCOMPLETE {
        assert_eq!(
            outcome(bytes.as_bytes()),
            Outcome::Incomplete,
            "{}",
            bytes.escape_debug()
        );
    }
}

#[test]
fn what_follows_a_bad_head_does_not_change_the_answer() {
    let more = "\r\nHost: b\r\n \0\n\nX\r\n\r\nGET / HTTP/1.1\r\n\r\n".as_bytes();
    for (bytes, reason) in BAD {
        if bytes.ends_with('\r') {
            continue;
        }
        let bytes = [bytes.as_bytes(), more].concat();
        assert_eq!(refused(&bytes), Some(*reason), "{}", bytes.escape_ascii());
    }
}

#[test]
fn any_byte_exchanged_in_a_head_gives_one_outcome() {
    let limits = Limits::default();
    let good = b"GET /a?b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nOwn: b\r\nContent-Length: 1\r\n\r\n";
    for at in 0..good.len() {
        for other in 0..=u8::MAX {
            let mut bytes = good.to_vec();
            bytes[at] = other;
            let whole = decode_cut(Strict::new(&limits), &bytes, &[]);
            let shown = bytes.escape_ascii();
            assert_eq!(
                decode_cut(Httparse::new(&limits), &bytes, &[]),
                whole,
                "{shown}"
            );
            let each: Vec<_> = (1..bytes.len()).collect();
            assert_eq!(
                decode_cut(Strict::new(&limits), &bytes, &each),
                whole,
                "{shown}"
            );
            assert_eq!(
                decode_cut(Httparse::new(&limits), &bytes, &each[at..]),
                whole,
                "{shown}"
            );
        }
    }
}

#[test]
fn any_two_bytes_put_into_a_head_give_one_outcome() {
    let limits = Limits::default();
    let odd = b"\r\n\t\0 :,;%/?#@[]*A1\x7f\x80";
    let good = b"GET /a HTTP/1.1\r\nHost: a\r\nOwn: b\r\n\r\n";
    for at in 0..=good.len() {
        for first in odd {
            for second in odd {
                let mut bytes = good.to_vec();
                bytes.splice(at..at, [*first, *second]);
                let whole = decode_cut(Strict::new(&limits), &bytes, &[]);
                let shown = bytes.escape_ascii();
                assert_eq!(
                    decode_cut(Httparse::new(&limits), &bytes, &[]),
                    whole,
                    "{shown}"
                );
                let each: Vec<_> = (1..bytes.len()).collect();
                assert_eq!(
                    decode_cut(Strict::new(&limits), &bytes, &each),
                    whole,
                    "{shown}"
                );
            }
        }
    }
}

#[test]
fn obs_text_is_kept() {
    let decoded = accepted(b"GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\r\n\r\n");
    assert_eq!(decoded.fields[1], ("x".to_owned(), b"\x80\xff".to_vec()));
}

#[test]
fn only_spaces_and_tabs_around_a_value_are_trimmed() {
    let decoded = accepted(b"GET / HTTP/1.1\r\nHost: a\r\nX: \t b\t c \t\r\n\r\n");
    assert_eq!(decoded.fields[1].1, b"b\t c");
}

#[test]
fn an_absolute_target_overrides_host() {
    let decoded = accepted(b"GET http://b:81?q HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n");
    assert_eq!(decoded.fields[1], ("host".to_owned(), b"b:81".to_vec()));
    assert_eq!(decoded.uri, "http://b:81/?q");
    assert_eq!(decoded.uri_parts.2.as_deref(), Some("/?q"));
}

#[test]
fn a_higher_minor_version_is_served_as_1_1() {
    for minor in 1..=9 {
        let bytes = format!("GET / HTTP/1.{minor}\r\nHost: a\r\n\r\n");
        assert_eq!(accepted(bytes.as_bytes()).version, Version::HTTP_11);
    }
    assert_eq!(
        accepted(b"GET / HTTP/1.0\r\n\r\n").version,
        Version::HTTP_10
    );
}

#[test]
fn a_head_leaves_what_follows() {
    let decoded = accepted(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b");
    assert_eq!(decoded.consumed, 29);
}

#[test]
fn a_codec_serves_one_head_after_another() {
    fn each<C: Codec>(mut codec: C) -> Vec<String> {
        let mut input =
            BytesMut::from("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.0\r\n\r\n\r\nGET /c");
        let mut parts = blank();
        let mut seen = Vec::new();
        for more in [
            " HTTP/1.1\r\nHo",
            "st: a\r\n\r\nGET /d HTTP/1.0\r\n\r\n",
            "",
        ] {
            while codec.decode_head(&mut input, &mut parts).unwrap().is_some() {
                seen.push(parts.uri.to_string());
                parts = blank();
            }
            input.extend_from_slice(more.as_bytes());
        }
        seen
    }
    let limits = Limits::default();
    assert_eq!(each(Strict::new(&limits)), ["/a", "/b", "/c", "/d"]);
    assert_eq!(each(Httparse::new(&limits)), ["/a", "/b", "/c", "/d"]);
}

/// The advisories about reading heads, one each; the reading of bodies has its own beside the decoder.
#[test]
fn advisories_are_kept_refused() {
    let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let table = [
        // RUSTSEC-2017-0002: a line feed in a value.
        ("X: a\nY: b", Reason::LineEnding),
        // RUSTSEC-2020-0008, CVE-2025-58056: a bare line feed, and codings a proxy reads otherwise.
        (
            "Transfer-Encoding: identity, chunked\nX: y",
            Reason::LineEnding,
        ),
        ("Transfer-Encoding: xchunked", Reason::UnknownCoding),
        // RUSTSEC-2020-0031: white space before the colon.
        ("Content-Length : 5", Reason::Field),
        ("Transfer-Encoding\t: chunked", Reason::Field),
        // RUSTSEC-2020-0093: one of the two is taken.
        (
            "Content-Length: 5\r\nContent-Length: 6",
            Reason::ContentLength,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            Reason::LengthAndCoding,
        ),
        // RUSTSEC-2021-0020: only the first of two lines is read.
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            Reason::TransferEncoding,
        ),
        // RUSTSEC-2021-0078: a sign in front.
        ("Content-Length: +5", Reason::ContentLength),
        ("Content-Length: -5", Reason::ContentLength),
        // RUSTSEC-2021-0081, CVE-2023-47627: something around the digits.
        ("Content-Length: 5\x0b", Reason::ContentLength),
        ("Content-Length: 0_5", Reason::ContentLength),
        ("Content-Length: 5, 5", Reason::ContentLength),
        // RUSTSEC-2022-0055, CVE-2023-40518: TE in one form or another.
        (
            "Transfer-Encoding: chunked, chunked",
            Reason::TransferEncoding,
        ),
        ("Transfer-Encoding: ,chunked", Reason::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", Reason::TransferEncoding),
    ];
    for (fields, reason) in table {
        assert_eq!(refused(head(fields).as_bytes()), Some(reason), "{fields:?}");
    }
}

#[test]
fn a_refusal_points_at_the_byte_that_it_is_for() {
    for (head, reason) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: ab^\0c\r\n\r\n",
            Reason::Field,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: ^\0c\r\n\r\n",
            Reason::Field,
        ),
        ("G^\0T / HTTP/1.1\r\n", Reason::Method),
        ("\r\nGET ^a HTTP/1.1\r\n", Reason::Target),
        ("\r\nGET /a ^HTTP/3.1\r\n", Reason::UnsupportedVersion),
    ] {
        let at = head.find('^').unwrap();
        let expected = Outcome::Refused(reason, at);
        assert_eq!(outcome(head.replace('^', "").as_bytes()), expected);
    }
}

#[test]
fn both_codecs_write_interim_heads() {
    fn written<C: Codec>(mut codec: C) -> Vec<u8> {
        let mut output = Output::default();
        let fields = HeaderMap::new();
        codec
            .encode_interim(StatusCode::CONTINUE, &fields, &mut output)
            .unwrap();
        output.as_slice().unwrap().to_vec()
    }
    let limits = Limits::default();
    assert_eq!(
        written(Strict::new(&limits)),
        b"HTTP/1.1 100 Continue\r\n\r\n"
    );
    assert_eq!(
        written(Httparse::new(&limits)),
        written(Strict::new(&limits))
    );
}
