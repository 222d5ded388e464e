//! Section 14 of RFC 9110, as a table; what is sent; and sources.

use std::io::Write;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;

use super::*;
use crate::conditional::ETag;
use crate::mock::converse;

const DIGITS: Bytes = Bytes::from_static(b"0123456789");
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn full<S>(source: S) -> Response<S> {
    Response::builder()
        .header("etag", r#""a""#)
        .header("last-modified", DATE)
        .header("content-type", "text/plain")
        .body(source)
        .expect("a response")
}

fn fields(lines: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines
        .split('|')
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (name, value) = line.split_once(": ").expect("a field");
        fields.append(
            name.parse::<http::HeaderName>().expect("a name"),
            value.parse().expect("a value"),
        );
    }
    fields
}

async fn get<S: Source>(method: &Method, lines: &str, full: Response<S>) -> Response<Bytes> {
    let (head, body) = respond(method, &fields(lines), full).into_parts();
    let announced = body.size_hint().exact();
    let body = body.collect().await.expect("a whole body").to_bytes();
    assert_eq!(announced, Some(body.len() as u64), "{lines}");
    Response::from_parts(head, body)
}

/// `Range` and the like, status, `Content-Range`, content; of ten digits with the tag `"a"`.
const TABLE: &[(&str, u16, &str, &str)] = &[
    ("", 200, "", "0123456789"),
    ("range: bytes=0-0", 206, "bytes 0-0/10", "0"),
    ("range: bytes=2-4", 206, "bytes 2-4/10", "234"),
    ("range: bytes=9-9", 206, "bytes 9-9/10", "9"),
    ("range: bytes=0-9", 206, "bytes 0-9/10", "0123456789"),
    ("range: bytes=0-8", 206, "bytes 0-8/10", "012345678"),
    ("range: bytes=0-10", 206, "bytes 0-9/10", "0123456789"),
    ("range: bytes=8-99999", 206, "bytes 8-9/10", "89"),
    ("range: bytes=8-", 206, "bytes 8-9/10", "89"),
    ("range: bytes=9-", 206, "bytes 9-9/10", "9"),
    ("range: bytes=-1", 206, "bytes 9-9/10", "9"),
    ("range: bytes=-9", 206, "bytes 1-9/10", "123456789"),
    ("range: bytes=-10", 206, "bytes 0-9/10", "0123456789"),
    ("range: bytes=-11", 206, "bytes 0-9/10", "0123456789"),
    ("range: bytes=007-008", 206, "bytes 7-8/10", "78"),
    ("range: BYTES=1-2", 206, "bytes 1-2/10", "12"),
    (
        "range: bytes=0-18446744073709551615",
        206,
        "bytes 0-9/10",
        "0123456789",
    ),
    (
        "range: bytes=0-99999999999999999999999",
        206,
        "bytes 0-9/10",
        "0123456789",
    ),
    (
        "range: bytes=-99999999999999999999999",
        206,
        "bytes 0-9/10",
        "0123456789",
    ),
    // Nothing of it is there.
    ("range: bytes=10-", 416, "bytes */10", ""),
    ("range: bytes=10-12", 416, "bytes */10", ""),
    ("range: bytes=-0", 416, "bytes */10", ""),
    (
        "range: bytes=99999999999999999999999-",
        416,
        "bytes */10",
        "",
    ),
    ("range: bytes=10-,20-30", 416, "bytes */10", ""),
    // Malformed, or another unit: as if it weren't there.
    ("range: bytes=", 200, "", "0123456789"),
    ("range: bytes=,", 200, "", "0123456789"),
    ("range: bytes=-", 200, "", "0123456789"),
    ("range: bytes=3-2", 200, "", "0123456789"),
    ("range: bytes=a-2", 200, "", "0123456789"),
    ("range: bytes=1-b", 200, "", "0123456789"),
    ("range: bytes=1", 200, "", "0123456789"),
    ("range: bytes=1 - 2", 200, "", "0123456789"),
    ("range: bytes=+1-2", 200, "", "0123456789"),
    ("range: bytes=--1", 200, "", "0123456789"),
    ("range: bytes=1-2-3", 200, "", "0123456789"),
    ("range: bytes 1-2", 200, "", "0123456789"),
    ("range: bytes=0-1,x", 200, "", "0123456789"),
    ("range: lines=1-2", 200, "", "0123456789"),
    ("range: bytes=1-2 | range: bytes=1-2", 200, "", "0123456789"),
    // Several of which one is there, and empty members.
    ("range: bytes=1-2,20-", 206, "bytes 1-2/10", "12"),
    ("range: bytes=-0, 4-4", 206, "bytes 4-4/10", "4"),
    ("range: bytes=,, 1-2 ,", 206, "bytes 1-2/10", "12"),
    // Overlapping: the whole is less.
    ("range: bytes=0-4,4-6", 200, "", "0123456789"),
    ("range: bytes=0-,0-", 200, "", "0123456789"),
    ("range: bytes=5-6,-5", 200, "", "0123456789"),
    // If-Range: strong, and exactly this version.
    (
        r#"range: bytes=1-2 | if-range: "a""#,
        206,
        "bytes 1-2/10",
        "12",
    ),
    (r#"range: bytes=1-2 | if-range: "b""#, 200, "", "0123456789"),
    (
        r#"range: bytes=1-2 | if-range: W/"a""#,
        200,
        "",
        "0123456789",
    ),
    (
        "range: bytes=1-2 | if-range: Sun, 06 Nov 1994 08:49:37 GMT",
        206,
        "bytes 1-2/10",
        "12",
    ),
    (
        "range: bytes=1-2 | if-range: Sun, 06 Nov 1994 08:49:38 GMT",
        200,
        "",
        "0123456789",
    ),
    (
        "range: bytes=1-2 | if-range: Sun, 06 Nov 1994 08:49:36 GMT",
        200,
        "",
        "0123456789",
    ),
    (
        "range: bytes=1-2 | if-range: whenever",
        200,
        "",
        "0123456789",
    ),
    (
        r#"range: bytes=1-2 | if-range: "a", "b""#,
        200,
        "",
        "0123456789",
    ),
    (
        r#"range: bytes=1-2 | if-range: "a" | if-range: "a""#,
        200,
        "",
        "0123456789",
    ),
    (r#"range: bytes=20- | if-range: "b""#, 200, "", "0123456789"),
    (r#"if-range: "b""#, 200, "", "0123456789"),
    // Conditions go first.
    (r#"range: bytes=1-2 | if-none-match: "a""#, 304, "", ""),
    (r#"range: bytes=20- | if-none-match: "a""#, 304, "", ""),
    (r#"range: bytes=1-2 | if-match: "b""#, 412, "", ""),
    (
        r#"range: bytes=1-2 | if-match: "a""#,
        206,
        "bytes 1-2/10",
        "12",
    ),
    (
        r#"range: bytes=1-2 | if-none-match: "b" | if-range: "a""#,
        206,
        "bytes 1-2/10",
        "12",
    ),
];

#[tokio::test]
async fn each_request_gets_its_part() {
    for (lines, status, place, content) in TABLE {
        let response = get(&Method::GET, lines, full(DIGITS)).await;
        let told = response.headers().get("content-range");
        let told = told.map_or("", |value| value.to_str().unwrap());
        let heard = (response.status().as_u16(), told, &response.body()[..]);
        assert_eq!(heard, (*status, *place, content.as_bytes()), "{lines}");
    }
}

#[tokio::test]
async fn the_fields_of_each_status_are_those_that_belong_to_it() {
    for (lines, expected) in [
        (
            "",
            "accept-ranges content-length content-type etag last-modified",
        ),
        (
            "range: bytes=1-2",
            "accept-ranges content-length content-range content-type etag last-modified",
        ),
        (
            "range: bytes=20-",
            "accept-ranges content-length content-range etag last-modified",
        ),
        (r#"if-none-match: "a""#, "etag"),
        (r#"if-match: "b""#, "etag last-modified"),
    ] {
        let response = get(&Method::GET, lines, full(DIGITS)).await;
        let mut names: Vec<_> = response
            .headers()
            .keys()
            .map(|name| name.as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(names.join(" "), expected, "{lines}");
    }
}

#[tokio::test]
async fn several_parts_are_one_multipart_in_the_order_they_were_asked_for() {
    let response = get(&Method::GET, "range: bytes=7-8, 0-0,-1", full(DIGITS)).await;
    assert_eq!(response.status(), 206);
    assert!(!response.headers().contains_key("content-range"));
    let length = response.body().len().to_string();
    assert_eq!(response.headers()["content-length"], length.as_str());
    let kind = response.headers()["content-type"].to_str().unwrap();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .expect(kind);
    let part = |place: &str, content: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {place}/10\r\n\r\n{content}\r\n"
        )
    };
    let all = [part("7-8", "78"), part("0-0", "0"), part("9-9", "9")].concat();
    assert_eq!(response.body(), &format!("{all}--{boundary}--\r\n"));
}

#[tokio::test]
async fn what_is_left_is_known_at_any_time_and_the_end_with_the_last_byte() {
    let request = fields("range: bytes=0-1,5-6");
    let response = respond(&Method::GET, &request, full(DIGITS));
    let mut body = response.into_body();
    let mut left = body.size_hint().exact().expect("known");
    while !body.is_end_stream() {
        let frame = body.frame().await.expect("not the end").expect("no error");
        left -= frame.data_ref().expect("data").len() as u64;
        assert_eq!(body.size_hint().exact(), Some(left));
    }
    assert_eq!(left, 0);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn no_two_multiparts_have_the_same_boundary() {
    let ask = || get(&Method::GET, "range: bytes=0-0,2-2", full(DIGITS));
    let (one, other) = (ask().await, ask().await);
    assert_ne!(
        one.headers()["content-type"],
        other.headers()["content-type"]
    );
}

#[tokio::test]
async fn up_to_the_limit_ranges_are_served_and_beyond_it_the_whole() {
    let source = Bytes::from(vec![b'x'; 1000]);
    for (count, status) in [
        (MAX_RANGES - 1, 206),
        (MAX_RANGES, 206),
        (MAX_RANGES + 1, 200),
    ] {
        let specs: Vec<_> = (0..count).map(|n| format!("{0}-{0}", 2 * n)).collect();
        let lines = format!("range: bytes={}", specs.join(","));
        let response = get(&Method::GET, &lines, full(source.clone())).await;
        assert_eq!(response.status(), status, "{count}");
    }
    // Those that don't exist count too: they cost the same to look at.
    let lines = format!("range: bytes=0-0{}", ",2000-".repeat(MAX_RANGES));
    assert_eq!(get(&Method::GET, &lines, full(source)).await.status(), 200);
}

#[tokio::test]
async fn of_nothing_there_is_an_end_but_no_first_byte() {
    for (lines, status) in [
        ("", 200),
        ("range: bytes=-5", 200),
        ("range: bytes=0-", 416),
        ("range: bytes=-0", 416),
    ] {
        let response = get(&Method::GET, lines, full(Bytes::new())).await;
        assert_eq!(response.status(), status, "{lines}");
        assert!(response.body().is_empty());
    }
}

#[tokio::test]
async fn only_a_get_has_ranges_and_head_says_what_a_get_would() {
    let response = get(&Method::HEAD, "range: bytes=1-2", full(DIGITS)).await;
    assert_eq!(
        (response.status().as_u16(), response.body().len()),
        (200, 0)
    );
    assert_eq!(response.headers()["content-length"], "10");
    assert_eq!(response.headers()["accept-ranges"], "bytes");
    let response = get(&Method::POST, "range: bytes=1-2", full(DIGITS)).await;
    assert_eq!(
        (response.status().as_u16(), response.body()),
        (200, &DIGITS)
    );
    let response = get(&Method::HEAD, r#"if-none-match: "a""#, full(DIGITS)).await;
    assert_eq!(response.status(), 304);
}

#[tokio::test]
async fn a_handler_that_wants_no_ranges_or_no_200_has_its_way() {
    let mut none = full(DIGITS);
    none.headers_mut()
        .insert("accept-ranges", "none".parse().unwrap());
    let response = get(&Method::GET, "range: bytes=1-2", none).await;
    assert_eq!(
        (response.status().as_u16(), response.body()),
        (200, &DIGITS)
    );
    assert_eq!(response.headers()["accept-ranges"], "none");

    let mut missing = full(DIGITS);
    *missing.status_mut() = StatusCode::NOT_FOUND;
    let lines = r#"range: bytes=1-2 | if-none-match: "a""#;
    let response = get(&Method::GET, lines, missing).await;
    assert_eq!(
        (response.status().as_u16(), response.body()),
        (404, &DIGITS)
    );
    assert!(!response.headers().contains_key("accept-ranges"));
}

#[test]
fn whatever_is_asked_for_the_parts_are_there_and_none_is_there_twice() {
    const PIECES: [&str; 6] = ["0", "3", "9", "-", ",", " "];
    const LENGTH: u64 = 10;
    let (current, mut counts) = (Validators::new(), [0; 4]);
    for number in 0..6u32.pow(7) {
        let pieces = (0..7).map(|place| PIECES[(number / 6u32.pow(place) % 6) as usize]);
        let lines = format!("range: bytes={}", pieces.collect::<String>());
        let parts = match select(&Method::GET, &fields(&lines), &current, LENGTH) {
            Selection::Whole => {
                counts[0] += 1;
                continue;
            }
            Selection::Unsatisfiable => {
                counts[1] += 1;
                continue;
            }
            Selection::One(part) => {
                counts[2] += 1;
                vec![part]
            }
            Selection::Many(parts) => {
                counts[3] += 1;
                assert!(parts.len() > 1, "{lines}");
                parts
            }
        };
        let mut places: Vec<_> = parts.iter().cloned().flatten().collect();
        assert!(
            parts
                .iter()
                .all(|part| part.start < part.end && part.end <= LENGTH),
            "{lines}"
        );
        places.sort_unstable();
        places.dedup();
        let bytes: u64 = parts.iter().map(|part| part.end - part.start).sum();
        assert_eq!(places.len() as u64, bytes, "{lines}");
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn places_beyond_what_can_be_counted_do_no_harm() {
    let selected = select(
        &Method::GET,
        &fields("range: bytes=18446744073709551613-18446744073709551615"),
        &Validators::new().etag(ETag::strong("a").unwrap()),
        u64::MAX,
    );
    assert_eq!(selected, Selection::One(u64::MAX - 2..u64::MAX));
}

/// Says it has ten bytes.
struct Liar(Bytes);

impl Source for Liar {
    fn length(&self) -> u64 {
        10
    }

    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: Range<u64>,
    ) -> Poll<io::Result<Bytes>> {
        Poll::Ready(Ok(std::mem::take(&mut self.get_mut().0)))
    }
}

#[tokio::test]
async fn a_source_that_ends_early_never_looks_complete() {
    let body = respond(
        &Method::GET,
        &HeaderMap::new(),
        full(Liar(Bytes::from("12345"))),
    );
    let error = body.into_body().collect().await.expect_err("half of it");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_source_that_gives_more_than_was_asked_for_is_cut() {
    let lines = "range: bytes=0-2";
    let response = get(&Method::GET, lines, full(Liar(Bytes::from("12345")))).await;
    assert_eq!(response.body(), "123");
}

fn file(content: &[u8]) -> (tempfile::TempPath, std::fs::File) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(content).expect("room");
    let open = file.reopen().expect("the same file");
    (file.into_temp_path(), open)
}

#[tokio::test]
async fn a_file_is_read_in_pieces_from_any_place() {
    let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let (path, open) = file(&content);
    let whole = get(&Method::GET, "", full(FileSource::new(open).unwrap())).await;
    assert!(whole.body() == &content);
    for (lines, part) in [
        ("range: bytes=1000-", 1000..300_000),
        ("range: bytes=131071-131073", 131_071..131_074),
        ("range: bytes=-1", 299_999..300_000),
    ] {
        let source = FileSource::open(&path).await.unwrap();
        assert!(source.modified().is_some());
        let response = get(&Method::GET, lines, full(source)).await;
        assert!(response.body() == &content[part], "{lines}");
    }
    let source = FileSource::open(&path).await.unwrap();
    let lines = "range: bytes=299999-, 0-200000";
    let response = get(&Method::GET, lines, full(source)).await;
    assert!(response.body().len() > 200_002);
}

#[tokio::test]
async fn a_file_that_became_shorter_breaks_the_response_off() {
    let (path, open) = file(b"0123456789");
    let response = respond(
        &Method::GET,
        &HeaderMap::new(),
        full(FileSource::new(open).unwrap()),
    );
    std::fs::write(&path, b"012").unwrap();
    let error = response
        .into_body()
        .collect()
        .await
        .expect_err("three of ten");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_directory_is_not_a_source() {
    let refused = FileSource::open(std::env::temp_dir()).await;
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let missing = FileSource::open("there is no such file").await;
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn on_wharf_a_part_is_framed_by_its_length() {
    let service = tower::service_fn(|request: Request<wharf::Body>| {
        let response = respond(request.method(), request.headers(), full(DIGITS));
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let said = converse(
        service,
        b"GET / HTTP/1.1\r\nhost: a\r\nrange: bytes=2-3\r\n\r\n\
          HEAD / HTTP/1.1\r\nhost: a\r\n\r\n\
          GET / HTTP/1.1\r\nhost: a\r\nrange: bytes=20-\r\nconnection: close\r\n\r\n",
    )
    .await;
    let heads: Vec<_> = said.split("HTTP/1.1 ").skip(1).collect();
    assert!(
        heads[0].starts_with("206") && heads[0].ends_with("\r\n\r\n23"),
        "{said}"
    );
    assert!(heads[0].contains("content-length: 2\r\n"), "{said}");
    assert!(
        heads[1].starts_with("200") && heads[1].contains("content-length: 10\r\n"),
        "{said}"
    );
    assert!(
        heads[2].starts_with("416") && heads[2].contains("content-range: bytes */10\r\n"),
        "{said}"
    );
}
