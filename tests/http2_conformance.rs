//! What a server of HTTP/2 must do with what it is sent, case by case: RFC 9113 sections 3 to 8, RFC 7541, RFC 8441. Each
//! case is what a client sends behind its preface and settings, and what must come back; it is played whole and byte by byte,
//! and unless the connection has ended, it must still answer at the end.

mod support;

#[allow(dead_code, unreachable_pub)]
#[path = "support/http2.rs"]
mod wire;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use support::pipe::{Client, pipe};
use tower::service_fn;
use wharf::{Body, BoxError, Http};
use wire::*;

/// What must have come back.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// A response with this status, complete.
    Status(u32, u16),
    /// A complete response with this content.
    Content(u32, &'static str),
    /// The stream was reset, or refused with 400: a malformed message may be answered so (RFC 9113 section 8.1.1).
    Malformed(u32),
    /// The stream was reset with this code.
    Reset(u32, u32),
    /// The connection ended with this code.
    GoAway(u32),
    /// An acknowledged PING with this payload.
    Pong(&'static [u8; 8]),
    /// So many acknowledged SETTINGS, the client's first included.
    Acks(usize),
    /// Nothing at all on this stream.
    Silence(u32),
}
use Want::*;

struct Case {
    title: &'static str,
    sent: Vec<u8>,
    wanted: Vec<Want>,
    /// The preface and the settings are part of what is sent.
    is_all: bool,
}

fn case<const N: usize>(title: &'static str, sent: Vec<u8>, wanted: [Want; N]) -> Case {
    Case {
        title,
        sent,
        wanted: wanted.to_vec(),
        is_all: false,
    }
}

/// A conversation from its first byte on.
fn from_the_start<const N: usize>(title: &'static str, sent: Vec<u8>, wanted: [Want; N]) -> Case {
    Case {
        is_all: true,
        ..case(title, sent, wanted)
    }
}

fn join<const N: usize>(parts: [Vec<u8>; N]) -> Vec<u8> {
    parts.concat()
}

/// A GET whose field block is this.
fn block(stream: u32, block: impl AsRef<[u8]>) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block)
}

/// A GET with these fields instead of the usual ones.
fn only(pairs: &[(&str, &str)]) -> Vec<u8> {
    block(1, fields(pairs))
}

/// A GET with one more field.
fn with(name: &str, value: &str) -> Vec<u8> {
    get_with(1, "/", &[(name, value)])
}

/// A POST that echoes a few bytes and whose trailers are these.
fn trailing(pairs: &[(&str, &str)]) -> Vec<u8> {
    join([
        post_with(1, "/read", &[]),
        data(1, "abc"),
        frame(HEADERS, END_STREAM | END_HEADERS, 1, fields(pairs)),
    ])
}

#[rustfmt::skip]
fn preface() -> Vec<Case> {
    let start = |rest: Vec<u8>| [PREFACE, &rest].concat();
    vec![
        from_the_start("3.4 the preface and empty settings", start(join([settings(&[]), get(1)])), [Status(1, 200), Acks(1)]),
        from_the_start("3.4 settings with values", start(join([settings(&[(3, 10), (4, 70_000), (5, 20_000)]), get(1)])), [Status(1, 200)]),
        from_the_start("3.4 a preface of another version", b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n".to_vec(), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 a preface that is wrong at its end", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!".to_vec(), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 a request of HTTP/1.1", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 HEADERS first", start(join([get(1), settings(&[])])), [GoAway(PROTOCOL_ERROR), Silence(1)]),
        from_the_start("3.4 PING first", start(join([ping(b"12345678"), settings(&[])])), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 WINDOW_UPDATE first", start(join([window_update(0, 1), settings(&[])])), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 PRIORITY first", start(frame(PRIORITY, 0, 1, [0, 0, 0, 0, 16])), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 DATA first", start(data(1, "x")), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 GOAWAY first", start(frame(GOAWAY, 0, 0, [0; 8])), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 an unknown frame first", start(frame(0xf0, 0, 0, [])), [GoAway(PROTOCOL_ERROR)]),
        from_the_start("3.4 an acknowledgement first", start(frame(SETTINGS, ACK, 0, [])), [GoAway(PROTOCOL_ERROR)]),
    ]
}

#[rustfmt::skip]
fn framing() -> Vec<Case> {
    let largest = vec![b'x'; 16_384];
    let longer = vec![b'x'; 16_385];
    vec![
        case("4.1 a frame of an unknown type", join([frame(0xf0, 0xff, 0, "what"), get(1)]), [Status(1, 200)]),
        case("4.1 one on a stream", join([frame(0xf0, 0, 77, "what"), get(1)]), [Status(1, 200)]),
        case("4.1 flags that mean nothing", join([frame(PING, 0xfe, 0, "12345678"), get(1)]), [Pong(b"12345678"), Status(1, 200)]),
        case("4.1 the reserved bit is ignored", frame(HEADERS, 5, 1 | 1 << 31, pseudo("GET", "/")), [Status(1, 200)]),
        case("4.1 the reserved bit of a PING", frame(PING, 0, 1 << 31, "12345678"), [Pong(b"12345678")]),
        case("4.2 DATA of the largest size", join([post_with(1, "/length", &[]), last_data(1, &largest)]), [Content(1, "16384")]),
        case("4.2 DATA beyond it", join([post_with(1, "/length", &[]), last_data(1, &longer)]), [GoAway(FRAME_SIZE_ERROR)]),
        case("4.2 HEADERS beyond it", frame(HEADERS, 5, 1, &longer), [GoAway(FRAME_SIZE_ERROR)]),
        case("4.2 an unknown frame beyond it", frame(0xf0, 0, 0, &longer), [GoAway(FRAME_SIZE_ERROR)]),
        case("4.2 SETTINGS beyond it", frame(SETTINGS, 0, 0, vec![0; 16_386]), [GoAway(FRAME_SIZE_ERROR)]),
        case("4.3 a block in two frames", join([frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")), frame(CONTINUATION, END_HEADERS, 1, fields(&[("a", "b")]))]), [Status(1, 200)]),
        case("4.3 a block cut within a field", join([frame(HEADERS, END_STREAM, 1, &pseudo("GET", "/")[..9]), frame(CONTINUATION, END_HEADERS, 1, &pseudo("GET", "/")[9..])]), [Status(1, 200)]),
        case("4.3 an empty first fragment", join([frame(HEADERS, END_STREAM, 1, ""), frame(CONTINUATION, END_HEADERS, 1, pseudo("GET", "/"))]), [Status(1, 200)]),
        case("4.3 an empty last fragment", join([frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")), frame(CONTINUATION, END_HEADERS, 1, "")]), [Status(1, 200)]),
        case("4.3 PING within a block", join([frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")), ping(b"12345678")]), [GoAway(PROTOCOL_ERROR)]),
        case("4.3 an unknown frame within a block", join([frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")), frame(0xf0, 0, 1, "")]), [GoAway(PROTOCOL_ERROR)]),
        case("4.3 HEADERS within a block", join([frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")), get(3)]), [GoAway(PROTOCOL_ERROR)]),
        case("4.3 DATA within a block", join([frame(HEADERS, 0, 1, pseudo("POST", "/")), data(1, "x")]), [GoAway(PROTOCOL_ERROR)]),
        case("4.3 the continuation of another stream", join([frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")), frame(CONTINUATION, END_HEADERS, 3, "")]), [GoAway(PROTOCOL_ERROR)]),
    ]
}

#[rustfmt::skip]
fn streams() -> Vec<Case> {
    vec![
        case("5.1 DATA on an idle stream", data(1, "x"), [GoAway(PROTOCOL_ERROR)]),
        case("5.1 RST_STREAM on an idle stream", reset(1, CANCEL), [GoAway(PROTOCOL_ERROR)]),
        case("5.1 WINDOW_UPDATE on an idle stream", window_update(1, 1), [GoAway(PROTOCOL_ERROR)]),
        case("5.1 CONTINUATION on an idle stream", frame(CONTINUATION, END_HEADERS, 1, pseudo("GET", "/")), [GoAway(PROTOCOL_ERROR)]),
        case("5.1 PRIORITY on an idle stream", join([frame(PRIORITY, 0, 1, [0, 0, 0, 0, 16]), get(1)]), [Status(1, 200)]),
        case("5.1 HEADERS on a half-closed stream", join([get_with(1, "/wait", &[]), get(1)]), [GoAway(STREAM_CLOSED)]),
        case("5.1 DATA on a half-closed stream", join([get_with(1, "/wait", &[]), data(1, "x")]), [GoAway(STREAM_CLOSED)]),
        case("5.1 HEADERS on a closed stream", join([get(1), get(3), get(1)]), [GoAway(STREAM_CLOSED)]),
        case("5.1 CONTINUATION behind an ended block", join([get(1), frame(CONTINUATION, END_HEADERS, 1, "")]), [GoAway(PROTOCOL_ERROR)]),
        case("5.1 WINDOW_UPDATE on a closed stream", join([get(1), window_update(1, 1), get(3)]), [Status(1, 200), Status(3, 200)]),
        case("5.1 RST_STREAM on a closed stream", join([get(1), reset(1, CANCEL), get(3)]), [Status(3, 200)]),
        case("5.1 PRIORITY on a closed stream", join([get(1), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1]), get(3)]), [Status(3, 200)]),
        case("5.1 a stream given up", join([get_with(1, "/wait", &[]), reset(1, CANCEL), get(3)]), [Silence(1), Status(3, 200)]),
        case("5.1 given up within its content", join([post_with(1, "/length", &[]), data(1, "x"), reset(1, CANCEL), get(3)]), [Silence(1), Status(3, 200)]),
        case("5.1.1 a stream with an even number", get(2), [GoAway(PROTOCOL_ERROR)]),
        case("5.1.1 a lower number than before", join([get(5), get(3)]), [GoAway(PROTOCOL_ERROR)]),
        case("5.1.1 numbers left out", join([get(1), get(9), get(1001)]), [Status(1, 200), Status(9, 200), Status(1001, 200)]),
        case("5.1.1 the highest number", get(0x7fff_ffff), [Status(0x7fff_ffff, 200)]),
        case("5.1.2 a stream too many", join([(0..101).flat_map(|n| get_with(2 * n + 1, "/wait", &[])).collect::<Vec<_>>(), ping(b"12345678")]), [Reset(201, REFUSED_STREAM), Pong(b"12345678")]),
        case("5.3 priority in HEADERS", frame(HEADERS, 5 | WITH_PRIORITY, 1, [&[0, 0, 0, 0, 200][..], &pseudo("GET", "/")].concat()), [Status(1, 200)]),
        case("5.4 an error of one stream is that stream's", join([only(&[(":method", "GET")]), get(3)]), [Malformed(1), Status(3, 200)]),
        case("5.5 a setting that nobody knows", join([settings(&[(0xbeef, 7)]), get(1)]), [Acks(2), Status(1, 200)]),
    ]
}

#[rustfmt::skip]
fn frames() -> Vec<Case> {
    let padded = |pad: u8, rest: Vec<u8>| [vec![pad], rest, vec![0; pad.into()]].concat();
    let post = || post_with(1, "/read", &[]);
    vec![
        case("6.1 DATA on stream 0", data(0, "x"), [GoAway(PROTOCOL_ERROR)]),
        case("6.1 padded DATA", join([post(), frame(DATA, 9, 1, padded(5, b"abc".to_vec()))]), [Content(1, "abc")]),
        case("6.1 DATA of nothing but padding", join([post(), frame(DATA, 8, 1, padded(5, vec![])), last_data(1, "abc")]), [Content(1, "abc")]),
        case("6.1 padding as long as the frame", join([post(), frame(DATA, 9, 1, [4, 0, 0, 0])]), [GoAway(PROTOCOL_ERROR)]),
        case("6.1 padding without its length", join([post(), frame(DATA, 9, 1, "")]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.1 empty DATA at the end", join([post(), data(1, "abc"), last_data(1, "")]), [Content(1, "abc")]),
        case("6.1 empty DATA within", join([post(), data(1, ""), data(1, "ab"), data(1, ""), last_data(1, "c")]), [Content(1, "abc")]),
        case("6.2 HEADERS on stream 0", get(0), [GoAway(PROTOCOL_ERROR)]),
        case("6.2 padded HEADERS", frame(HEADERS, 5 | PADDED, 1, padded(9, pseudo("GET", "/"))), [Status(1, 200)]),
        case("6.2 padding and priority", frame(HEADERS, 5 | PADDED | WITH_PRIORITY, 1, padded(3, [&[0, 0, 0, 0, 9][..], &pseudo("GET", "/")].concat())), [Status(1, 200)]),
        case("6.2 too much padding", frame(HEADERS, 5 | PADDED, 1, [200, 0x82]), [GoAway(PROTOCOL_ERROR)]),
        case("6.2 padding without its length", frame(HEADERS, 5 | PADDED, 1, ""), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.2 priority cut short", frame(HEADERS, 5 | WITH_PRIORITY, 1, [0, 0]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, [0, 0, 0, 1, 1]), [GoAway(PROTOCOL_ERROR)]),
        case("6.3 a short PRIORITY", frame(PRIORITY, 0, 1, [0, 0, 0, 1]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.4 RST_STREAM on stream 0", reset(0, CANCEL), [GoAway(PROTOCOL_ERROR)]),
        case("6.4 a short RST_STREAM", join([post(), frame(RST_STREAM, 0, 1, [0, 0, 0])]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.4 a long RST_STREAM", join([post(), frame(RST_STREAM, 0, 1, [0; 5])]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.4 an unknown code", join([post(), reset(1, 0xdead), get(3)]), [Silence(1), Status(3, 200)]),
        case("6.5 SETTINGS are acknowledged each", join([settings(&[]), settings(&[(3, 1)])]), [Acks(3)]),
        case("6.5 an acknowledgement is not", join([frame(SETTINGS, ACK, 0, []), get(1)]), [Acks(1), Status(1, 200)]),
        case("6.5 an acknowledgement with content", frame(SETTINGS, ACK, 0, [0; 6]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, []), [GoAway(PROTOCOL_ERROR)]),
        case("6.5 SETTINGS of an odd length", frame(SETTINGS, 0, 0, [0; 5]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.5.2 ENABLE_PUSH of 2", settings(&[(2, 2)]), [GoAway(PROTOCOL_ERROR)]),
        case("6.5.2 ENABLE_PUSH of 0 and 1", settings(&[(2, 0), (2, 1)]), [Acks(2)]),
        case("6.5.2 a window beyond the largest", settings(&[(4, 1 << 31)]), [GoAway(FLOW_CONTROL_ERROR)]),
        case("6.5.2 the largest window", join([settings(&[(4, (1 << 31) - 1)]), get(1)]), [Acks(2), Status(1, 200)]),
        case("6.5.2 frames below the smallest", settings(&[(5, 16_383)]), [GoAway(PROTOCOL_ERROR)]),
        case("6.5.2 the smallest and largest frames", settings(&[(5, 16_384), (5, 16_777_215)]), [Acks(2)]),
        case("6.5.2 frames beyond the largest", settings(&[(5, 16_777_216)]), [GoAway(PROTOCOL_ERROR)]),
        case("6.5.2 the last of equal settings counts", join([settings(&[(4, 0), (4, 100)]), get(1)]), [Status(1, 200)]),
        case("6.5.2 an offence behind good settings", settings(&[(3, 1), (4, 5), (2, 7)]), [GoAway(PROTOCOL_ERROR)]),
        case("6.6 PUSH_PROMISE of a client", frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &pseudo("GET", "/")].concat()), [GoAway(PROTOCOL_ERROR)]),
        case("6.7 PING is answered with its payload", ping(b"abcdefgh"), [Pong(b"abcdefgh")]),
        case("6.7 an answer to no PING", join([frame(PING, ACK, 0, "abcdefgh"), get(1)]), [Status(1, 200)]),
        case("6.7 PING on a stream", frame(PING, 0, 1, "abcdefgh"), [GoAway(PROTOCOL_ERROR)]),
        case("6.7 a short PING", frame(PING, 0, 0, "abcdefg"), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.7 a long PING", frame(PING, 0, 0, "abcdefghi"), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, [0; 8]), [GoAway(PROTOCOL_ERROR)]),
        case("6.8 a short GOAWAY", frame(GOAWAY, 0, 0, [0; 7]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.8 streams before a GOAWAY are answered", join([get(1), frame(GOAWAY, 0, 0, [0; 8])]), [Status(1, 200), GoAway(NO_ERROR)]),
        case("6.9 a short WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, [0, 0, 1]), [GoAway(FRAME_SIZE_ERROR)]),
        case("6.9 an increment of 0 for all", window_update(0, 0), [GoAway(PROTOCOL_ERROR)]),
        case("6.9 an increment of 0 for a stream", join([post(), window_update(1, 0)]), [GoAway(PROTOCOL_ERROR)]),
        case("6.9.1 a window that overflows, of all", join([window_update(0, 0x7fff_ffff), window_update(0, 0x7fff_ffff)]), [GoAway(FLOW_CONTROL_ERROR)]),
        case("6.9.1 a window that overflows, of a stream", join([get_with(1, "/wait", &[]), window_update(1, 0x7fff_ffff), get(3)]), [Reset(1, FLOW_CONTROL_ERROR), Status(3, 200)]),
        case("6.9.1 content is sent as far as the window goes", join([settings(&[(4, 3)]), get(1), window_update(1, 100)]), [Content(1, "hello, world")]),
        case("6.9.2 a later setting moves the window", join([settings(&[(4, 1)]), get(1), settings(&[(4, 100)])]), [Content(1, "hello, world")]),
        case("6.9.2 a window below zero", join([settings(&[(4, 5)]), get(1), settings(&[(4, 0)]), window_update(1, 100)]), [Content(1, "hello, world")]),
        case("6.10 CONTINUATION on stream 0", frame(CONTINUATION, END_HEADERS, 0, ""), [GoAway(PROTOCOL_ERROR)]),
        case("6.10 CONTINUATION behind DATA", join([post(), data(1, "x"), frame(CONTINUATION, END_HEADERS, 1, "")]), [GoAway(PROTOCOL_ERROR)]),
    ]
}

#[rustfmt::skip]
fn messages() -> Vec<Case> {
    let post = |more: &[(&str, &str)]| post_with(1, "/read", more);
    let usual = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a"),
    ];
    let without = |name: &str| {
        only(
            &usual
                .iter()
                .copied()
                .filter(|field| field.0 != name)
                .collect::<Vec<_>>(),
        )
    };
    let instead = |name: &str, value: &'static str| {
        only(&usual.map(|field| {
            if field.0 == name {
                (field.0, value)
            } else {
                field
            }
        }))
    };
    let and = |more: &[(&'static str, &'static str)]| only(&[&usual[..], more].concat());
    let mut cases = vec![
        case("8.1 content and trailers", trailing(&[("sum", "1")]), [Content(1, "abc sum=1")]),
        case("8.1 trailers without content", join([post(&[]), frame(HEADERS, 5, 1, fields(&[("sum", "1")]))]), [Content(1, " sum=1")]),
        case("8.1 trailers that don't end the stream", join([post(&[]), frame(HEADERS, END_HEADERS, 1, fields(&[("sum", "1")]))]), [Reset(1, PROTOCOL_ERROR)]),
        case("8.1 a pseudo-field in trailers", trailing(&[(":path", "/")]), [GoAway(PROTOCOL_ERROR)]),
        case("8.1 one of the static table in trailers", join([post(&[]), frame(HEADERS, 5, 1, [0x84])]), [GoAway(PROTOCOL_ERROR)]),
        case("8.1 an unknown pseudo-field in trailers", join([trailing(&[("a", "b")]), get(3)]), [Status(1, 200), Status(3, 200)]),
        case("8.1 an early answer", join([post_with(1, "/early", &[]), data(1, "x")]), [Content(1, "early"), Reset(1, NO_ERROR)]),
        case("8.1.1 less content than declared", join([post(&[("content-length", "4")]), last_data(1, "abc")]), [Malformed(1)]),
        case("8.1.1 more content than declared", join([post(&[("content-length", "2")]), last_data(1, "abc")]), [Malformed(1)]),
        case("8.1.1 more in several frames", join([post(&[("content-length", "3")]), data(1, "ab"), data(1, "cd")]), [Malformed(1)]),
        case("8.1.1 as much as declared", join([post(&[("content-length", "3")]), data(1, "ab"), last_data(1, "c")]), [Content(1, "abc")]),
        case("8.1.1 a length, and no content", with("content-length", "3"), [Malformed(1)]),
        case("8.1.1 less, and trailers", join([post(&[("content-length", "3")]), frame(HEADERS, 5, 1, fields(&[("a", "b")]))]), [Malformed(1)]),
        case("8.1.1 a length that is no number", join([post(&[("content-length", "3x")]), last_data(1, "abc")]), [Malformed(1)]),
        case("8.1.1 a length with a sign", join([post(&[("content-length", "+3")]), last_data(1, "abc")]), [Malformed(1)]),
        case("8.1.1 two lengths", join([post(&[("content-length", "3"), ("content-length", "4")]), last_data(1, "abc")]), [Malformed(1)]),
        case("8.1.1 a list of lengths", join([post(&[("content-length", "3, 3")]), last_data(1, "abc")]), [Malformed(1)]),
        case("8.2.1 a name that is empty", with("", "x"), [GoAway(PROTOCOL_ERROR)]),
        case("8.2.2 TE that asks for trailers", with("te", "trailers"), [Status(1, 200)]),
        case("8.3 a pseudo-field behind a field", only(&[("a", "b"), (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]), [Malformed(1)]),
        case("8.3 one of several behind", only(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("a", "b"), (":authority", "a")]), [Malformed(1)]),
        case("8.3 one that is unknown", and(&[(":other", "x")]), [GoAway(PROTOCOL_ERROR)]),
        case("8.3 one of responses", and(&[(":status", "200")]), [Malformed(1)]),
        case("8.3.1 no :method", without(":method"), [Malformed(1)]),
        case("8.3.1 no :scheme", without(":scheme"), [Malformed(1)]),
        case("8.3.1 no :path", without(":path"), [Malformed(1)]),
        case("8.3.1 neither :authority nor Host", without(":authority"), [Malformed(1)]),
        case("8.3.1 Host alone", only(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")]), [Status(1, 200)]),
        case("8.3.1 both, and the same", and(&[("host", "a")]), [Status(1, 200)]),
        case("8.3.1 both, and not the same", and(&[("host", "b")]), [Malformed(1)]),
        case("8.3.1 two Hosts", and(&[("host", "a"), ("host", "a")]), [Malformed(1)]),
        case("8.3.1 :method twice", and(&[(":method", "GET")]), [Malformed(1)]),
        case("8.3.1 :path twice", and(&[(":path", "/")]), [Malformed(1)]),
        case("8.3.1 :scheme twice", and(&[(":scheme", "http")]), [Malformed(1)]),
        case("8.3.1 :authority twice", and(&[(":authority", "a")]), [Malformed(1)]),
        case("8.3.1 an empty :path", instead(":path", ""), [Malformed(1)]),
        case("8.3.1 a :path without its slash", instead(":path", "index"), [Malformed(1)]),
        case("8.3.1 a :path with a space", instead(":path", "/a b"), [Malformed(1)]),
        case("8.3.1 `*` without OPTIONS", instead(":path", "*"), [Malformed(1)]),
        case("8.3.1 `*` with OPTIONS", only(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a")]), [Status(1, 200)]),
        case("8.3.1 a query", instead(":path", "/?a=b&c"), [Status(1, 200)]),
        case("8.3.1 user information in :authority", instead(":authority", "u@a"), [Malformed(1)]),
        case("8.3.1 an :authority with a space", instead(":authority", "a b"), [Malformed(1)]),
        case("8.3.1 an empty :authority", instead(":authority", ""), [Malformed(1)]),
        case("8.3.1 an :authority with a port", instead(":authority", "a:8080"), [Status(1, 200)]),
        case("8.3.1 a :scheme that is none", instead(":scheme", "1:"), [Malformed(1)]),
        case("8.3.1 a :method with a space", instead(":method", "G T"), [GoAway(PROTOCOL_ERROR)]),
        case("8.3.1 a method of one's own", instead(":method", "BREW"), [Status(1, 200)]),
        case("8.5 CONNECT with :scheme and :path", only(&[(":method", "CONNECT"), (":scheme", "http"), (":path", "/"), (":authority", "a:1")]), [Malformed(1)]),
        case("8.5 CONNECT without :authority", only(&[(":method", "CONNECT")]), [Malformed(1)]),
        case("8.5 CONNECT without a port", only(&[(":method", "CONNECT"), (":authority", "a")]), [Malformed(1)]),
        case("8.5 CONNECT that is refused", frame(HEADERS, END_HEADERS, 1, fields(&[(":method", "CONNECT"), (":authority", "a:1")])), [Status(1, 404)]),
        case("9110 HEAD gets no content", join([frame(HEADERS, 5, 1, pseudo("HEAD", "/")), get(3)]), [Content(1, ""), Content(3, "hello, world")]),
        case("9110 204 has no content", get_with(1, "/status/204", &[]), [Content(1, "")]),
        case("9110 304 has no content", get_with(1, "/status/304", &[]), [Content(1, "")]),
        case("9110 205 has no content", get_with(1, "/status/205", &[]), [Content(1, "")]),
        case("9110 an expectation that nobody meets", with("expect", "miracles"), [Status(1, 417)]),
        case("8441 a protocol on a request that isn't CONNECT", only(&[(":method", "GET"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"), (":authority", "a")]), [Malformed(1)]),
        case("8441 a protocol without :path", only(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a")]), [Malformed(1)]),
        case("8441 a protocol without :scheme", only(&[(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/"), (":authority", "a")]), [Malformed(1)]),
        case("8441 a protocol without :authority", only(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/")]), [Malformed(1)]),
        case("8441 a tunnel", join([frame(HEADERS, END_HEADERS, 1, fields(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/tunnel"), (":authority", "a")])), data(1, "ab"), last_data(1, "c")]), [Content(1, "websocket: abc")]),
        case("8441 ENABLE_CONNECT_PROTOCOL of 2", settings(&[(8, 2)]), [GoAway(PROTOCOL_ERROR)]),
        case("8441 ENABLE_CONNECT_PROTOCOL of 1", settings(&[(8, 1)]), [Acks(2)]),
    ];
    for (title, name, value) in [
        ("8.2.2 Connection", "connection", "close"),
        ("8.2.2 Proxy-Connection", "proxy-connection", "keep-alive"),
        ("8.2.2 Keep-Alive", "keep-alive", "timeout=5"),
        ("8.2.2 Transfer-Encoding", "transfer-encoding", "chunked"),
        ("8.2.2 Upgrade", "upgrade", "h2c"),
        ("8.2.2 TE that asks for more", "te", "trailers, gzip"),
        ("8.2.1 a space before a value", "a", " b"),
        ("8.2.1 a space behind a value", "a", "b "),
        ("8.2.1 a tab before a value", "a", "\tb"),
        ("8.2.1 a tab behind a value", "a", "b\t"),
        ("8.2.1 a value of a space", "a", " "),
    ] {
        cases.push(case(title, with(name, value), [Malformed(1)]));
        cases.push(case(title, trailing(&[(name, value)]), [Malformed(1)]));
    }
    for (title, name, value) in [
        ("8.2.1 a name in upper case", "Name", "x"),
        ("8.2.1 a name with a space", "a b", "x"),
        ("8.2.1 a name with a colon within", "a:b", "x"),
        ("8.2.1 a name with a control character", "a\x01", "x"),
        ("8.2.1 a value with CR", "a", "b\rc"),
        ("8.2.1 a value with LF", "a", "b\nc"),
        ("8.2.1 a value with NUL", "a", "b\0c"),
        ("8.2.1 a value with DEL", "a", "b\x7fc"),
    ] {
        // h2 ends the connection for these, which the RFC allows (section 5.4.1).
        cases.push(case(title, with(name, value), [GoAway(PROTOCOL_ERROR)]));
    }
    cases
}

#[rustfmt::skip]
fn compression() -> Vec<Case> {
    let behind = |more: &[u8]| block(1, [&pseudo("GET", "/")[..], more].concat());
    let literal = |first: &[u8], value: Vec<u8>| [first, &value].concat();
    // :method GET, :scheme http, :path / by the static table.
    let short = |more: &[u8]| [&[0x82, 0x86, 0x84][..], more].concat();
    let host = || [&[0x41][..], &text(b"a.example")].concat();
    let broken = [GoAway(COMPRESSION_ERROR)];
    vec![
        case("7541 2.3.1 the static table", block(1, short(&host())), [Status(1, 200)]),
        case("7541 2.3.2 an entry that was added", join([block(1, short(&host())), block(3, short(&[0xbe]))]), [Status(1, 200), Status(3, 200)]),
        case("7541 2.3.3 an entry beyond both tables", behind(&[0xbe]), broken),
        case("7541 2.3.3 a name beyond both tables", behind(&[0x7e, 1, b'x']), broken),
        case("7541 2.3.3 the last entry of the static table", behind(&[0xbd]), [Status(1, 200)]),
        case("7541 5.1 an integer in several bytes", join([block(1, [short(&host()), literal(&[0x40, 1, b'x'], text(&[b'v'; 300]))].concat()), block(3, short(&[0xbf]))]), [Status(1, 200), Status(3, 200)]),
        case("7541 5.1 an integer that overflows", behind(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), broken),
        case("7541 5.1 an integer without end", behind(&[0x7f, 0x80, 0x80]), broken),
        case("7541 5.2 Huffman's code", behind(&literal(&[0, 1, b'x'], huffman_text(b"www.example.com"))), [Status(1, 200)]),
        case("7541 5.2 a name in Huffman's code", behind(&[&[0][..], &huffman_text(b"custom"), &text(b"x")].concat()), [Status(1, 200)]),
        case("7541 5.2 a bad name in Huffman's code", behind(&[&[0][..], &huffman_text(b"Custom"), &text(b"x")].concat()), [GoAway(PROTOCOL_ERROR)]),
        case("7541 5.2 a whole byte of padding", behind(&[0, 1, b'x', 0x83, 0x64, 0x02, 0xff]), broken),
        case("7541 5.2 padding of zeros", behind(&[0, 1, b'x', 0x81, 0x18]), broken),
        case("7541 5.2 EOS within a string", behind(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]), broken),
        case("7541 5.2 a string cut short", behind(&[0, 1, b'x', 5, b'a']), broken),
        case("7541 5.2 an empty string", behind(&[0, 1, b'x', 0]), [Status(1, 200)]),
        case("7541 6.1 index 0", behind(&[0x80]), broken),
        case("7541 6.2.1 a field that is added", behind(&[0x40, 1, b'x', 1, b'y']), [Status(1, 200)]),
        case("7541 6.2.2 a field that is not", behind(&[0x00, 1, b'x', 1, b'y']), [Status(1, 200)]),
        case("7541 6.2.3 a field that never is", behind(&[0x10, 1, b'x', 1, b'y']), [Status(1, 200)]),
        case("7541 6.2.2 one not added has no index", join([behind(&[0x00, 1, b'x', 1, b'y']), block(3, [&pseudo("GET", "/")[..], &[0xbe]].concat())]), [GoAway(COMPRESSION_ERROR)]),
        case("7541 6.3 a table of no size", block(1, [&[0x20][..], &pseudo("GET", "/")].concat()), [Status(1, 200)]),
        case("7541 6.3 a smaller table evicts", join([block(1, short(&host())), block(3, [&[0x20][..], &short(&[0xbe])].concat())]), [GoAway(COMPRESSION_ERROR)]),
        case("7541 6.3 a table of the largest size", block(1, [integer(0x20, 5, 4096), pseudo("GET", "/")].concat()), [Status(1, 200)]),
        case("7541 6.3 a table beyond it", block(1, [integer(0x20, 5, 4097), pseudo("GET", "/")].concat()), broken),
        case("7541 4.2 a new size behind a field", behind(&[0x20]), broken),
        case("7541 4.4 an entry larger than the table empties it", join([block(1, short(&host())), block(3, [&pseudo("GET", "/")[..], &[0x40, 1, b'x'], &text(&[b'v'; 4096])].concat()), block(5, short(&[0xbe]))]), [GoAway(COMPRESSION_ERROR)]),
        case("7541 a block of nothing", block(1, ""), [Malformed(1)]),
        case("7541 the table lives on behind a refused stream", join([block(1, [&[0x40, 5][..], b":path", &text(b"no"), &short(&host())].concat()), block(3, short(&[0xbe]))]), [Malformed(1), Status(3, 200)]),
        case("9113 4.3 the table lives on behind a stream given up", join([frame(HEADERS, END_HEADERS, 1, short(&host())), reset(1, CANCEL), block(3, short(&[0xbe]))]), [Status(3, 200)]),
    ]
}

async fn answer(mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let path = request.uri().path().to_owned();
    if let Some(status) = path.strip_prefix("/status/") {
        let mut response = Response::new(Body::from("content"));
        *response.status_mut() = StatusCode::from_bytes(status.as_bytes())?;
        return Ok(response);
    }
    Ok(match &*path {
        "/tunnel" => tunnel(&mut request),
        "/wait" => std::future::pending().await,
        "/early" => Response::new(Body::from("early")),
        "/length" => {
            let content = request.into_body().collect().await?.to_bytes();
            Response::new(Body::from(content.len().to_string()))
        }
        "/read" => {
            let whole = request.into_body().collect().await?;
            let trailers = whole.trailers().cloned().unwrap_or_default();
            let mut text = String::from_utf8(whole.to_bytes().to_vec())?;
            append(&mut text, &trailers);
            Response::new(Body::from(text))
        }
        _ if request.method() == http::Method::CONNECT => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
        _ => Response::new(Body::from("hello, world")),
    })
}

fn append(text: &mut String, trailers: &HeaderMap) {
    for (name, value) in trailers {
        text.push_str(&format!(" {name}={}", value.to_str().unwrap_or("?")));
    }
}

/// Sends back what it gets, behind the protocol's name.
fn tunnel(request: &mut Request<Body>) -> Response<Body> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let protocol = request.extensions().get::<wharf::upgrade::Protocol>();
    let name = protocol
        .map_or("none", |protocol| protocol.as_str())
        .to_owned();
    let upgrade = wharf::upgrade::on(request).expect("a promise");
    tokio::spawn(async move {
        let mut stream = upgrade.await.unwrap();
        let mut text = format!("{name}: ");
        stream.read_to_string(&mut text).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    Response::new(Body::empty())
}

const LAST: u32 = 0x7fff_fff1;

/// Plays a case; what came back, and whether the connection has ended.
async fn play(case: &Case, slice: usize) -> (Vec<Frame>, bool) {
    let (client, stream) = pipe();
    let http = Http::new().only_http2();
    let connection = http.connection(stream.into(), service_fn(answer)).unwrap();
    let connection = tokio::spawn(connection);
    if !case.is_all {
        client.send([PREFACE, &settings(&[])].concat());
    }
    for slice in case.sent.chunks(slice) {
        client.send_and_settle(slice).await;
    }
    settle(&client).await;
    let ended = client.is_over();
    if !ended
        && !case
            .wanted
            .iter()
            .any(|want| matches!(want, Status(0x7fff_ffff, _)))
    {
        // No content, for which there may be no window.
        let last = frame(HEADERS, END_STREAM | END_HEADERS, LAST, pseudo("HEAD", "/"));
        client
            .send_and_settle(join([ping(b"the end!"), last]))
            .await;
        settle(&client).await;
    }
    client.finish();
    settle(&client).await;
    connection.abort();
    (read(&client.received()), ended)
}

async fn settle(client: &Client) {
    for _ in 0..4 {
        client.settle().await;
    }
}

/// The content of a response that is complete.
fn content(frames: &[Frame], stream: u32) -> Option<(u16, String)> {
    let of_stream = || frames.iter().filter(|frame| frame.stream == stream);
    let head = of_stream().find(|frame| frame.kind == HEADERS)?;
    let data = of_stream().filter(|frame| frame.kind == DATA);
    let is_complete =
        of_stream().any(|frame| matches!(frame.kind, HEADERS | DATA) && frame.has(END_STREAM));
    let text = data.flat_map(|frame| frame.payload.clone()).collect();
    let status = head.field(":status")?.parse().ok()?;
    is_complete.then(|| (status, String::from_utf8(text).unwrap()))
}

fn is_met(want: Want, frames: &[Frame], ended: bool) -> bool {
    let reset = |stream| {
        let found = frames
            .iter()
            .find(|one| one.kind == RST_STREAM && one.stream == stream);
        found.map(|one| one.number(0))
    };
    match want {
        Status(stream, status) => content(frames, stream).is_some_and(|found| found.0 == status),
        Content(stream, text) => content(frames, stream).is_some_and(|found| found.1 == text),
        Malformed(stream) => {
            reset(stream) == Some(PROTOCOL_ERROR)
                || content(frames, stream).is_some_and(|found| found.0 == 400)
        }
        Reset(stream, code) => reset(stream) == Some(code),
        GoAway(code) => {
            let last = frames.iter().rfind(|one| one.kind == GOAWAY);
            ended && last.is_some_and(|one| one.number(4) == code)
        }
        Pong(payload) => frames
            .iter()
            .any(|one| one.kind == PING && one.has(ACK) && one.payload == payload),
        Acks(count) => {
            frames
                .iter()
                .filter(|one| one.kind == SETTINGS && one.has(ACK))
                .count()
                == count
        }
        Silence(stream) => !frames.iter().any(|one| one.stream == stream),
    }
}

/// A connection that has not ended must go on.
fn goes_on(case: &Case, frames: &[Frame], ended: bool) -> bool {
    let ends = case.wanted.iter().any(|want| matches!(want, GoAway(_)));
    let is_full = case.title.starts_with("5.1.2") || case.title.ends_with("the highest number");
    ends == ended && (ended || is_full || content(frames, LAST).is_some_and(|found| found.0 == 200))
}

#[tokio::test(start_paused = true)]
async fn each_case_goes_as_the_rfc_says() {
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    let cases = [
        preface(),
        framing(),
        streams(),
        frames(),
        messages(),
        compression(),
    ];
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases.iter().flatten() {
        count += 1;
        for slice in [usize::MAX, 1] {
            if slice == 1 && case.sent.len() > 8_000 {
                continue;
            }
            let (frames, ended) = play(case, slice).await;
            let unmet: Vec<_> = case
                .wanted
                .iter()
                .filter(|want| !is_met(**want, &frames, ended))
                .collect();
            if !unmet.is_empty() || !goes_on(case, &frames, ended) {
                let slices = if slice == 1 { "byte by byte" } else { "whole" };
                let seen: Vec<_> = frames
                    .iter()
                    .map(|one| {
                        (
                            one.kind,
                            one.flags,
                            one.stream,
                            String::from_utf8_lossy(&one.payload).into_owned(),
                            &one.fields,
                        )
                    })
                    .collect();
                failures.push(format!(
                    "{} ({slices}): not {unmet:?}; ended: {ended}; came: {seen:?}",
                    case.title
                ));
                break;
            }
        }
    }
    println!("{count} cases, {} otherwise", failures.len());
    assert!(count >= 150, "only {count}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
