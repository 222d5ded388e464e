//! Section 13 of RFC 9110, sentence by sentence, as a table; and the layer.

use std::convert::Infallible;
use std::future::ready;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{ServiceExt, service_fn};
use tower_layer::Layer;

use super::*;
use crate::mock::{Picky, converse, honours_readiness};

const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const CHANGED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn changed() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}

/// Lines of `name: value`, where `<`, `=` and `>` stand for the times around the last change.
fn fields(lines: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines
        .split('|')
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (name, value) = line.split_once(": ").expect("a field");
        let name: HeaderName = name.parse().expect("a name");
        let value = match value {
            "<" => BEFORE,
            "=" => CHANGED,
            ">" => AFTER,
            value => value,
        };
        fields.append(
            name,
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        );
    }
    fields
}

/// What is there: `-` nothing, `*` something without validators, else a tag and perhaps `@`, a date.
fn current(text: &str) -> Option<Validators> {
    if text == "-" {
        return None;
    }
    let mut validators = Validators::new();
    if text.ends_with('@') {
        validators = validators.last_modified(changed() + Duration::from_millis(900));
    }
    let tag = text.trim_end_matches('@').trim_start_matches('*');
    if !tag.is_empty() {
        let value = HeaderValue::from_bytes(tag.as_bytes()).expect("a value");
        validators = validators.etag(ETag::parse(&value).expect("a tag"));
    }
    Some(validators)
}

/// What there is, method, fields, status.
const TABLE: &[(&str, &str, &str, u16)] = &[
    // Nothing asked.
    (r#""a"@"#, "GET", "", 200),
    ("-", "PUT", "", 200),
    // If-Match (13.1.1): strong comparison, any of the list, `*` for whatever is there.
    (r#""a""#, "PUT", r#"if-match: "a""#, 200),
    (r#""a""#, "PUT", r#"if-match: "b""#, 412),
    (r#""a""#, "PUT", r#"if-match: "A""#, 412),
    (r#""a""#, "GET", r#"if-match: "b""#, 412),
    (r#""a""#, "PUT", r#"if-match: "b", "a""#, 200),
    (r#""a""#, "PUT", r#"if-match: "b" | if-match: "a""#, 200),
    (r#""a""#, "PUT", r#"if-match: W/"a""#, 412),
    (r#"W/"a""#, "PUT", r#"if-match: "a""#, 412),
    (r#"W/"a""#, "PUT", r#"if-match: W/"a""#, 412),
    (r#""a""#, "PUT", "if-match: *", 200),
    ("*", "DELETE", "if-match: *", 200),
    ("-", "PUT", "if-match: *", 412),
    ("-", "PUT", r#"if-match: "a""#, 412),
    ("*", "PUT", r#"if-match: "a""#, 412),
    // Malformed: it matches nothing.
    (r#""a""#, "PUT", "if-match: a", 412),
    (r#""a""#, "PUT", r#"if-match: "a", b"#, 412),
    (r#""a""#, "PUT", r#"if-match: *, "a""#, 412),
    (r#""a""#, "PUT", r#"if-match: "a" "b""#, 412),
    (r#""a""#, "PUT", r#"if-match: w/"a""#, 412),
    (r#""a""#, "PUT", r#"if-match: "a"#, 412),
    // Lists: empty members, spaces, commas and spaces within tags, bytes beyond ASCII.
    (r#""a""#, "PUT", r#"if-match: ,, "b" ,	"a" ,"#, 200),
    (r#""a,b""#, "PUT", r#"if-match: "a,b""#, 200),
    (r#""b""#, "PUT", r#"if-match: "a,"b","c""#, 412),
    (r#""é""#, "PUT", r#"if-match: "é""#, 200),
    (r#""""#, "PUT", r#"if-match: """#, 200),
    // If-Unmodified-Since (13.1.4).
    ("*@", "PUT", "if-unmodified-since: =", 200),
    ("*@", "PUT", "if-unmodified-since: >", 200),
    ("*@", "PUT", "if-unmodified-since: <", 412),
    ("*@", "GET", "if-unmodified-since: <", 412),
    ("*", "PUT", "if-unmodified-since: <", 200),
    ("-", "PUT", "if-unmodified-since: <", 200),
    ("*@", "PUT", "if-unmodified-since: yesterday", 200),
    (
        "*@",
        "PUT",
        "if-unmodified-since: < | if-unmodified-since: <",
        200,
    ),
    (
        "*@",
        "PUT",
        "if-unmodified-since: Sunday, 06-Nov-94 08:49:36 GMT",
        412,
    ),
    (
        "*@",
        "PUT",
        "if-unmodified-since: Sun Nov  6 08:49:36 1994",
        412,
    ),
    // If-Match goes before it.
    (
        r#""a"@"#,
        "PUT",
        r#"if-match: "a" | if-unmodified-since: <"#,
        200,
    ),
    (
        r#""a"@"#,
        "PUT",
        r#"if-match: "b" | if-unmodified-since: >"#,
        412,
    ),
    // If-None-Match (13.1.2): weak comparison; 304 for GET and HEAD, 412 for others.
    (r#""a""#, "GET", r#"if-none-match: "a""#, 304),
    (r#""a""#, "HEAD", r#"if-none-match: "a""#, 304),
    (r#""a""#, "PUT", r#"if-none-match: "a""#, 412),
    (r#""a""#, "GET", r#"if-none-match: "b""#, 200),
    (r#""a""#, "GET", r#"if-none-match: W/"a""#, 304),
    (r#"W/"a""#, "GET", r#"if-none-match: "a""#, 304),
    (r#"W/"a""#, "GET", r#"if-none-match: W/"a""#, 304),
    (
        r#""a""#,
        "GET",
        r#"if-none-match: "b", W/"c" | if-none-match: "a""#,
        304,
    ),
    ("*", "GET", "if-none-match: *", 304),
    ("*", "PUT", "if-none-match: *", 412),
    ("-", "PUT", "if-none-match: *", 200),
    ("-", "PUT", r#"if-none-match: "a""#, 200),
    ("*", "GET", r#"if-none-match: "a""#, 200),
    // Malformed: read it, but change nothing.
    (r#""a""#, "GET", "if-none-match: a", 200),
    (r#""a""#, "GET", r#"if-none-match: *, "a""#, 200),
    (r#""a""#, "PUT", r#"if-none-match: *, "b""#, 412),
    // If-Modified-Since (13.1.3): GET and HEAD only, and only without If-None-Match.
    ("*@", "GET", "if-modified-since: =", 304),
    ("*@", "HEAD", "if-modified-since: =", 304),
    ("*@", "GET", "if-modified-since: >", 304),
    ("*@", "GET", "if-modified-since: <", 200),
    ("*@", "PUT", "if-modified-since: >", 200),
    ("*", "GET", "if-modified-since: >", 200),
    ("*@", "GET", "if-modified-since: 0", 200),
    ("*@", "GET", "if-modified-since: =, =", 200),
    (
        r#""a"@"#,
        "GET",
        r#"if-none-match: "b" | if-modified-since: >"#,
        200,
    ),
    (
        r#""a"@"#,
        "GET",
        r#"if-none-match: "a" | if-modified-since: <"#,
        304,
    ),
    (
        r#""a"@"#,
        "PUT",
        r#"if-none-match: "b" | if-modified-since: >"#,
        200,
    ),
    // The order (13.2.2): what the client has seen first, then what it has.
    (
        r#""a"@"#,
        "GET",
        r#"if-match: "a" | if-none-match: "a""#,
        304,
    ),
    (
        r#""a"@"#,
        "GET",
        r#"if-match: "b" | if-none-match: "a""#,
        412,
    ),
    (
        r#""a"@"#,
        "GET",
        "if-unmodified-since: = | if-modified-since: =",
        304,
    ),
    (
        r#""a"@"#,
        "GET",
        "if-unmodified-since: < | if-modified-since: =",
        412,
    ),
    (
        r#""a"@"#,
        "PUT",
        r#"if-match: "a" | if-none-match: "a""#,
        412,
    ),
    // Methods that have nothing to do with a representation (13.2.1).
    (r#""a""#, "OPTIONS", r#"if-match: "b""#, 200),
    (r#""a""#, "TRACE", r#"if-none-match: "a""#, 200),
    (r#""a""#, "CONNECT", r#"if-match: "b""#, 200),
];

#[test]
fn conditions_are_evaluated_in_the_order_of_the_standard() {
    for (there, method, lines, status) in TABLE {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let current = current(there);
        let decision = evaluate(&method, &fields(lines), current.as_ref());
        assert_eq!(decision.status(), *status, "{there} {method} {lines}");
    }
}

#[test]
fn a_list_of_any_length_costs_linear_time() {
    // A head may hold this much; quadratic it would take minutes.
    let many = r#""b","#.repeat(16_000);
    let listed = fields(&format!(r#"if-none-match: {many}"a""#));
    let current = current(r#""a""#);
    assert_eq!(
        evaluate(&Method::GET, &listed, current.as_ref()),
        Decision::NotModified
    );
}

#[test]
fn a_tag_is_one_or_nothing() {
    for text in [r#""a""#, r#"W/"a""#, r#""""#, r#""a,b""#] {
        let value = HeaderValue::from_str(text).expect("a value");
        let etag = ETag::parse(&value).expect(text);
        assert_eq!(etag.to_string(), text);
        assert_eq!(etag.is_weak(), text.starts_with('W'));
    }
    for text in [
        "a",
        "*",
        "",
        r#"""#,
        r#""a"b"#,
        r#""a b""#,
        r#"w/"a""#,
        r#""a", "b""#,
        "W/",
    ] {
        let value = HeaderValue::from_str(text).expect("a value");
        assert_eq!(ETag::parse(&value), None, "{text}");
    }
    for text in ["a b", "a\"", "a\nb", "\u{7f}"] {
        assert!(
            ETag::strong(text).is_err() && ETag::weak(text).is_err(),
            "{text:?}"
        );
    }
    let value = HeaderValue::from(ETag::weak("x").expect("a tag"));
    assert_eq!(value, r#"W/"x""#);
}

#[test]
fn validators_survive_the_way_through_a_response() {
    let own = Validators::new()
        .etag(ETag::weak("x").expect("a tag"))
        .last_modified(changed() + Duration::from_millis(10));
    let mut fields = HeaderMap::new();
    own.write(&mut fields);
    assert_eq!(fields["last-modified"], CHANGED);
    assert_eq!(Validators::of(&fields), own);
}

#[test]
fn a_time_that_http_cannot_write_is_unknown() {
    let second = Duration::from_secs(1);
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    for (time, written) in [
        (SystemTime::UNIX_EPOCH - second, None),
        (
            SystemTime::UNIX_EPOCH,
            Some("Thu, 01 Jan 1970 00:00:00 GMT"),
        ),
        (last, Some("Fri, 31 Dec 9999 23:59:59 GMT")),
        (last + second, None),
    ] {
        let mut fields = HeaderMap::new();
        Validators::new().last_modified(time).write(&mut fields);
        let value = fields
            .get("last-modified")
            .map(|value| value.to_str().unwrap());
        assert_eq!(value, written);
    }
}

#[test]
fn a_date_is_good_for_a_range_once_its_second_is_over() {
    let current = current("*@").expect("something");
    let fields = fields("if-range: =");
    let millis = Duration::from_millis(1);
    for (passed, good) in [(999, false), (1000, true), (1001, true)] {
        let now = || changed() + passed * millis;
        assert_eq!(
            current.are_those_of_if_range(&fields, now),
            good,
            "{passed}"
        );
    }
}

/// Answers with a page and all the fields that one may have.
async fn page(_: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    let response = Response::builder()
        .header("etag", r#""a""#)
        .header("last-modified", CHANGED)
        .header("cache-control", "max-age=60")
        .header("content-encoding", "gzip")
        .header("content-language", "en")
        .header("content-length", "4")
        .header("content-location", "/page")
        .header("content-type", "text/html")
        .header("expires", AFTER)
        .header("set-cookie", "a=b")
        .header("vary", "accept-encoding");
    Ok(response.body(Full::from("page")).expect("a response"))
}

async fn ask(request: http::request::Builder) -> Response<Bytes> {
    let service = Conditional.layer(service_fn(page));
    let request = request.body(()).expect("a request");
    let (head, body) = service.oneshot(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn a_304_keeps_what_a_cache_needs_and_nothing_about_the_content() {
    let response = ask(Request::get("/").header("if-none-match", r#""a""#)).await;
    assert_eq!(response.status(), 304);
    assert!(response.body().is_empty());
    let mut names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let kept = [
        "cache-control",
        "content-location",
        "etag",
        "expires",
        "set-cookie",
        "vary",
    ];
    assert_eq!(names, kept);
}

#[tokio::test]
async fn a_304_without_an_etag_keeps_the_date() {
    let service = service_fn(|_: Request<()>| {
        let response = Response::builder().header("last-modified", CHANGED);
        ready(Ok::<_, Infallible>(
            response.body(Full::<Bytes>::from("page")).unwrap(),
        ))
    });
    let request = Request::get("/")
        .header("if-modified-since", CHANGED)
        .body(())
        .unwrap();
    let response = Conditional.layer(service).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 304);
    assert_eq!(response.headers()["last-modified"], CHANGED);
}

#[tokio::test]
async fn a_page_that_is_new_to_the_client_is_sent_whole() {
    for request in [
        Request::get("/"),
        Request::get("/").header("if-none-match", r#""b""#),
    ] {
        let response = ask(request).await;
        assert_eq!(
            (response.status().as_u16(), response.body().as_ref()),
            (200, &b"page"[..])
        );
        assert_eq!(response.headers()["content-length"], "4");
    }
}

#[tokio::test]
async fn a_read_whose_condition_fails_is_a_412() {
    let response = ask(Request::get("/").header("if-match", r#""b""#)).await;
    assert_eq!(response.status(), 412);
    assert!(response.body().is_empty() && !response.headers().contains_key("content-type"));
}

#[tokio::test]
async fn for_methods_that_change_something_the_layer_would_come_too_late() {
    let response = ask(Request::put("/").header("if-match", r#""b""#)).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn what_would_not_have_succeeded_anyway_is_not_conditional() {
    let service = service_fn(|_: Request<()>| {
        let response = Response::builder().status(404).header("etag", r#""a""#);
        ready(Ok::<_, Infallible>(response.body(String::new()).unwrap()))
    });
    let request = Request::get("/")
        .header("if-none-match", r#""a""#)
        .body(())
        .unwrap();
    let response = Conditional.layer(service).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(()))));
    honours_readiness(Conditional.layer(inner), || Request::new(())).await;
}

#[tokio::test]
async fn on_wharf_a_304_has_no_content_and_no_length() {
    let service = Conditional.layer(service_fn(|request: Request<wharf::Body>| {
        page(request.map(drop))
    }));
    let said = converse(
        service,
        b"GET / HTTP/1.1\r\nhost: a\r\nif-none-match: \"a\"\r\n\r\nHEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    let (first, second) = said.split_once("\r\n\r\n").expect("two answers");
    assert!(
        first.starts_with("HTTP/1.1 304") && !first.contains("content-length"),
        "{said}"
    );
    assert!(
        second.starts_with("HTTP/1.1 200") && second.contains("content-length: 4"),
        "{said}"
    );
}
