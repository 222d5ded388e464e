//! A connection of HTTP/2 in time and under attack, on a paused clock and with frames made by hand: deadlines, rates,
//! floods, goodbyes, and what a handler can do.

mod support;

#[allow(dead_code, unreachable_pub)]
#[path = "support/http2.rs"]
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use support::handlers::Frames;
use support::pipe::{Client, pipe};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use wharf::{Body, BoxError, CloseReason, ConnReport, Http, Limits, OnlyHttp2};
use wire::*;

struct Talk {
    client: Client,
    connection: JoinHandle<ConnReport>,
}

async fn talk_over(http: OnlyHttp2) -> Talk {
    let (client, stream) = pipe();
    let connection = http.connection(stream.into(), service_fn(answer)).unwrap();
    let connection = tokio::spawn(connection);
    let mut talk = Talk { client, connection };
    talk.send([PREFACE, &settings(&[])].concat()).await;
    talk
}

async fn talk() -> Talk {
    talk_over(Http::new().only_http2()).await
}

impl Talk {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.send(bytes);
        self.settle().await;
    }

    async fn settle(&self) {
        for _ in 0..4 {
            self.client.settle().await;
        }
    }

    fn frames(&self) -> Vec<Frame> {
        read(&self.client.received())
    }

    fn of(&self, stream: u32, kind: u8) -> Vec<Frame> {
        let mut frames = self.frames();
        frames.retain(|one| one.stream == stream && one.kind == kind);
        frames
    }

    /// The content of a stream, and whether it is complete.
    fn content(&self, stream: u32) -> (String, bool) {
        let frames = self.frames();
        let mine = || frames.iter().filter(|one| one.stream == stream);
        let data = mine().filter(|one| one.kind == DATA);
        let bytes = data.flat_map(|one| one.payload.clone()).collect();
        let is_whole = mine().any(|one| matches!(one.kind, DATA | HEADERS) && one.has(END_STREAM));
        (String::from_utf8(bytes).unwrap(), is_whole)
    }

    fn status(&self, stream: u32) -> Option<String> {
        let heads = self.of(stream, HEADERS);
        heads.last()?.field(":status").map(str::to_owned)
    }

    fn was_reset(&self, stream: u32) -> Option<u32> {
        self.of(stream, RST_STREAM).first().map(|one| one.number(0))
    }

    /// The codes of all goodbyes.
    fn goodbyes(&self) -> Vec<u32> {
        let goaways = self.of(0, GOAWAY);
        goaways.iter().map(|one| one.number(4)).collect()
    }

    /// Answers the last PING that came.
    async fn pong(&mut self) {
        let ping = self.of(0, PING).pop().expect("a PING");
        self.send(frame(PING, ACK, 0, ping.payload)).await;
    }

    /// Waits for the end, and since when that takes.
    async fn report(self) -> (ConnReport, Duration) {
        let begun = Instant::now();
        let report = support::report(self.connection).await;
        (report, begun.elapsed())
    }
}

async fn answer(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let path = request.uri().path().to_owned();
    let with = |name: &'static str, value| {
        let mut response = Response::new(Body::from("hello"));
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        response
    };
    Ok(match &*path {
        "/wait" => std::future::pending().await,
        "/slow" => {
            sleep(Duration::from_secs(20)).await;
            Response::new(Body::from("slept"))
        }
        "/read" => {
            let whole = request.into_body().collect().await?;
            let length = whole.to_bytes().len();
            Response::new(Body::from(length.to_string()))
        }
        "/echo" => Response::new(request.into_body()),
        "/ignore" => Response::new(Body::new(Frames::default().holding(request.into_body()))),
        "/close" => with("connection", "close"),
        "/keep" => with("keep-alive", "timeout=4"),
        "/trailers" => {
            let frames = Frames::of(["some ", "content"]).trailers(&[("grpc-status", "0")]);
            Response::new(Body::new(frames))
        }
        "/big" => Response::new(Body::from(vec![b'.'; 200_000])),
        "/cut" => Response::new(Body::new(Frames::of(["half"]).failing())),
        "/short" => {
            let mut response = Response::new(Body::new(Frames::of(["half"])));
            response.headers_mut().insert("content-length", 100.into());
            response
        }
        "/long" => {
            let mut response = Response::new(Body::new(Frames::of(["too long"])));
            response.headers_mut().insert("content-length", 3.into());
            response
        }
        "/lie" => with("content-length", "7"),
        "/panic" => panic!("as it should"),
        "/fail" => return Err("the handler failed".into()),
        "/hints" => {
            let mut hints = HeaderMap::new();
            hints.insert("link", HeaderValue::from_static("</a.css>"));
            wharf::interim(&request).early_hints(hints).await?;
            Response::new(Body::from("hello"))
        }
        "/facts" => {
            let authority = wharf::authority(&request).unwrap_or("none").to_owned();
            let number = wharf::ConnInfo::request_number(&request);
            Response::new(Body::from(format!("{authority} {}", number.unwrap_or(0))))
        }
        _ => Response::new(Body::from("hello")),
    })
}

// Deadlines.

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_half_a_preface_is_closed_after_ten_seconds() {
    let silent: &[u8] = b"";
    for sent in [silent, &PREFACE[..20], PREFACE] {
        for auto in [false, true] {
            let (client, stream) = pipe();
            let service = service_fn(answer);
            let connection = if auto {
                let http = Http::new().with_http2();
                tokio::spawn(http.connection(stream.into(), service).unwrap())
            } else {
                let http = Http::new().only_http2();
                tokio::spawn(http.connection(stream.into(), service).unwrap())
            };
            client.send(sent);
            let begun = Instant::now();
            let report = support::report(connection).await;
            let took = begun.elapsed().as_millis();
            // What may still be HTTP/1 is listened to for a while, as there.
            let answered = if auto && sent.len() < PREFACE.len() {
                5_000
            } else {
                0
            };
            let latest = 11_100 + answered;
            assert!((10_000..=latest).contains(&took), "{took} ms, {auto}");
            let got = sent.len();
            assert_eq!(report.reason, CloseReason::HeadTimeout { got }, "{auto}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_or_block_that_stops_halfway_is_closed_after_ten_seconds() {
    let halves = [
        get(1)[..4].to_vec(),
        get(1)[..20].to_vec(),
        ping(b"12345678")[..12].to_vec(),
        frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")),
        [
            frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")),
            frame(CONTINUATION, 0, 1, ""),
        ]
        .concat(),
    ];
    for half in halves {
        let mut talk = talk().await;
        talk.send(get_with(0x7fff_fffd, "/wait", &[])[..0].to_vec())
            .await;
        sleep(Duration::from_secs(3)).await;
        talk.send(&half).await;
        let (report, took) = talk.report().await;
        assert!(
            matches!(report.reason, CloseReason::HeadTimeout { .. }),
            "{}: {half:?}",
            report.reason
        );
        assert!(
            (10_000..=11_100).contains(&took.as_millis()),
            "{took:?}: {half:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_a_byte_at_a_time_has_ten_seconds_in_all() {
    let mut talk = talk().await;
    for byte in get_with(1, "/", &[("long", &"x".repeat(400))]) {
        talk.send([byte]).await;
        sleep(Duration::from_millis(100)).await;
        if talk.client.is_over() {
            break;
        }
    }
    let (report, _) = talk.report().await;
    assert!(matches!(report.reason, CloseReason::HeadTimeout { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_stream_is_closed_when_it_was_idle_for_long_enough() {
    let mut talk = talk().await;
    talk.send(get(1)).await;
    // PINGs are no use of it.
    for _ in 0..7 {
        sleep(Duration::from_secs(10)).await;
        talk.send(ping(b"12345678")).await;
    }
    let goodbyes = talk.client.received().len();
    let (report, took) = talk.report().await;
    let after = Duration::from_secs(75);
    assert_eq!(report.reason, CloseReason::Idle { after });
    assert!((5_000..=6_100).contains(&took.as_millis()), "{took:?}");
    assert!(goodbyes > 0);
}

#[tokio::test(start_paused = true)]
async fn a_response_says_how_long_the_connection_may_be_idle() {
    let mut talk = talk().await;
    talk.send(get_with(1, "/keep", &[])).await;
    assert_eq!(talk.of(1, HEADERS)[0].field("keep-alive"), None);
    let (report, _) = talk.report().await;
    let after = Duration::from_secs(5);
    assert_eq!(report.reason, CloseReason::Idle { after });
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_take_its_time() {
    let mut talk = talk().await;
    talk.send(get_with(1, "/slow", &[])).await;
    sleep(Duration::from_secs(21)).await;
    talk.settle().await;
    assert_eq!(talk.content(1), ("slept".to_owned(), true));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_is_the_handlers_to_answer() {
    let mut talk = talk().await;
    talk.send([post_with(1, "/read", &[]), data(1, "x")].concat())
        .await;
    sleep(Duration::from_millis(4_900)).await;
    talk.settle().await;
    assert_eq!(talk.status(1), None);
    sleep(Duration::from_millis(300)).await;
    talk.settle().await;
    assert_eq!(talk.status(1).as_deref(), Some("408"));
    // The connection and its other streams go on.
    talk.send(get(3)).await;
    assert_eq!(talk.status(3).as_deref(), Some("200"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_slow_but_steady_is_read() {
    let mut talk = talk().await;
    talk.send(post_with(1, "/read", &[])).await;
    // One frame of 16 KiB, at 2 kB a second.
    for piece in last_data(1, [b'x'; 16_384]).chunks(200) {
        talk.send(piece).await;
        sleep(Duration::from_millis(100)).await;
    }
    talk.settle().await;
    assert_eq!(talk.content(1), ("16384".to_owned(), true));
}

#[tokio::test(start_paused = true)]
async fn content_at_a_byte_a_second_is_too_slow() {
    let mut talk = talk().await;
    talk.send(post_with(1, "/ignore", &[])).await;
    let mut sent = 0;
    for byte in data(1, [b'x'; 100]) {
        talk.send([byte]).await;
        sleep(Duration::from_secs(1)).await;
        sent += 1;
        if talk.client.is_over() {
            break;
        }
    }
    assert!(sent < 20, "{sent}");
    let (report, _) = talk.report().await;
    assert!(
        matches!(
            report.reason,
            CloseReason::BodyTimeout | CloseReason::HeadTimeout { .. }
        ),
        "{}",
        report.reason
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_that_no_window_is_opened_for_is_given_up() {
    let mut talk = talk().await;
    talk.send([settings(&[(4, 0)]), get(1)].concat()).await;
    sleep(Duration::from_millis(4_900)).await;
    talk.settle().await;
    assert_eq!(talk.was_reset(1), None);
    sleep(Duration::from_millis(300)).await;
    talk.settle().await;
    assert_eq!(talk.was_reset(1), Some(CANCEL));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_bytes_is_cut() {
    let mut talk = talk().await;
    talk.client.take_only(0);
    talk.send([window_update(0, 1 << 20), get_with(1, "/big", &[])].concat())
        .await;
    let (report, took) = talk.report().await;
    assert_eq!(report.reason, CloseReason::WriteTimeout);
    assert!(took <= Duration::from_secs(35), "{took:?}");
}

// Floods.

/// Sends until the connection ends; with which code, and after how many.
async fn flood(mut talk: Talk, mut next: impl FnMut(u32) -> Vec<u8>) -> (Option<u32>, u32) {
    let mut count = 0;
    while count < 20_000 && !talk.client.is_over() {
        let burst: Vec<u8> = (0..10)
            .flat_map(|_| {
                count += 1;
                next(count)
            })
            .collect();
        talk.send(burst).await;
    }
    let code = talk.goodbyes().last().copied();
    let (report, took) = talk.report().await;
    assert!(took <= Duration::from_millis(1_100), "{took:?}");
    assert!(
        matches!(report.reason, CloseReason::Http2(_)),
        "{}",
        report.reason
    );
    (code, count)
}

#[tokio::test(start_paused = true)]
async fn floods_are_answered_with_enhance_your_calm() {
    let calm = Some(ENHANCE_YOUR_CALM);
    let rapid = flood(talk().await, |n| {
        [get_with(2 * n - 1, "/wait", &[]), reset(2 * n - 1, CANCEL)].concat()
    });
    let (code, count) = rapid.await;
    assert_eq!(code, calm, "rapid reset");
    assert!((200..=210).contains(&count), "{count} resets");

    // MadeYouReset: the server resets, because of what the client does.
    let made = flood(talk().await, |n| {
        let stream = 2 * n - 1;
        [
            get_with(stream, "/wait", &[]),
            window_update(stream, 0x7fff_ffff),
        ]
        .concat()
    });
    let (code, count) = made.await;
    assert_eq!(code, calm, "MadeYouReset");
    assert!(count <= 210, "{count} streams");

    let malformed = flood(talk().await, |n| {
        get_with(2 * n - 1, "/", &[("connection", "close")])
    });
    assert_eq!(malformed.await.0, calm, "malformed requests");

    for (name, bytes) in [
        ("PING", ping(b"12345678")),
        ("PING ACK", frame(PING, ACK, 0, "12345678")),
        ("SETTINGS", settings(&[])),
        ("PRIORITY", frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1])),
        ("an unknown frame", frame(0xf0, 0, 0, "")),
        ("WINDOW_UPDATE", window_update(0, 1)),
    ] {
        let (code, count) = flood(talk().await, |_| bytes.clone()).await;
        assert_eq!(code, calm, "{name}");
        assert!((1_000..=1_020).contains(&count), "{count} of {name}");
    }

    let mut open = talk().await;
    open.send(post_with(1, "/read", &[])).await;
    let (code, count) = flood(open, |_| data(1, "")).await;
    assert_eq!(code, calm, "empty DATA");
    assert!(count <= 1_020, "{count}");

    let mut open = talk().await;
    open.send(post_with(1, "/read", &[])).await;
    let padding = flood(open, |_| frame(DATA, PADDED, 1, [2, 0, 0]));
    assert_eq!(padding.await.0, calm, "DATA of padding");

    let mut open = talk().await;
    open.send(frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")))
        .await;
    let (code, count) = flood(open, |_| frame(CONTINUATION, 0, 1, "")).await;
    assert_eq!(code, calm, "CONTINUATION");
    assert!(count <= 1_020, "{count}");

    let mut open = talk().await;
    open.send(frame(HEADERS, END_STREAM, 1, pseudo("GET", "/")))
        .await;
    let more = fields(&[("a", &"b".repeat(8_000))]);
    let (code, count) = flood(open, |_| frame(CONTINUATION, 0, 1, &more)).await;
    assert_eq!(code, calm, "CONTINUATION with fields");
    assert!(count <= 10, "{count}");
}

#[tokio::test(start_paused = true)]
async fn as_many_resets_as_are_allowed_end_nothing_and_time_forgives() {
    let limits = Limits {
        http2_resets: 20,
        ..Limits::default()
    };
    let mut talk = talk_over(Http::new().limits(limits).only_http2()).await;
    let mut stream = 1;
    for _ in 0..3 {
        for _ in 0..20 {
            talk.send([get_with(stream, "/wait", &[]), reset(stream, CANCEL)].concat())
                .await;
            stream += 2;
        }
        assert_eq!(talk.goodbyes(), []);
        sleep(Duration::from_secs(11)).await;
    }
    for _ in 0..21 {
        talk.send([get_with(stream, "/wait", &[]), reset(stream, CANCEL)].concat())
            .await;
        stream += 2;
    }
    assert_eq!(talk.goodbyes(), [ENHANCE_YOUR_CALM]);
}

/// How far a connection comes in each of its turns with what was sent in one piece.
async fn turns(flood: Vec<u8>, whole: usize, done: impl Fn(&Talk) -> usize) -> Vec<usize> {
    let talk = talk().await;
    talk.client.send(flood);
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < whole {
        let so_far = done(&talk);
        tokio::task::yield_now().await;
        turns.push(done(&talk) - so_far);
        assert!(turns.len() < 1_000, "{turns:?}");
    }
    turns.retain(|&done| done > 0);
    turns
}

#[tokio::test(start_paused = true)]
async fn others_have_the_thread_after_sixteen_requests_or_256_frames() {
    let requests: Vec<u8> = (0..70).flat_map(|n| get(2 * n + 1)).collect();
    let answers = |talk: &Talk| {
        let frames = talk.frames();
        frames.iter().filter(|one| one.kind == HEADERS).count()
    };
    assert_eq!(turns(requests, 70, answers).await, [16, 16, 16, 16, 6]);

    let pings: Vec<u8> = (0..600).flat_map(|_| ping(b"12345678")).collect();
    let pongs = |talk: &Talk| talk.of(0, PING).len();
    assert_eq!(turns(pings, 600, pongs).await, [256, 256, 88]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_to_the_next_turn_is_cut_wherever_it_came() {
    let uploads = |n: u32| {
        let fields = pseudo("POST", "/read");
        let stream = 2 * n + 1;
        let head = frame(HEADERS, END_HEADERS, stream, fields);
        [head, frame(DATA, END_STREAM, stream, [b'x'; 700])].concat()
    };
    let flood: Vec<u8> = (0..90).flat_map(uploads).collect();
    for slice in [usize::MAX, 8_191, 1_000, 13] {
        let talk = talk().await;
        for slice in flood.chunks(slice.min(flood.len())) {
            talk.client.send(slice);
        }
        while talk.of(179, HEADERS).is_empty() {
            talk.settle().await;
        }
        for n in 0..90 {
            assert_eq!(talk.content(2 * n + 1), ("700".to_owned(), true), "{n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bomb_of_fields_is_refused() {
    // One field of 4,000 bytes, and then a byte for each time that it is repeated.
    let mut talk = talk().await;
    let large = [&[0x40][..], &text(b"x"), &text(&[b'y'; 3_900])].concat();
    let block = [pseudo("GET", "/"), large, vec![0xbe; 3]].concat();
    talk.send(frame(HEADERS, 5, 1, block)).await;
    assert_eq!(talk.status(1).as_deref(), Some("200"), "below the limit");
    let block = [pseudo("GET", "/"), vec![0xbe; 5]].concat();
    talk.send(frame(HEADERS, 5, 3, block)).await;
    assert_eq!(talk.status(3).as_deref(), Some("431"), "above it");
    let block = [pseudo("GET", "/"), vec![0xbe; 16_000]].concat();
    talk.send(frame(HEADERS, 5, 5, block)).await;
    assert_eq!(talk.goodbyes(), [ENHANCE_YOUR_CALM], "far above it");
}

#[tokio::test(start_paused = true)]
async fn fields_are_counted() {
    let limits = Limits {
        header_fields: 5,
        ..Limits::default()
    };
    let mut talk = talk_over(Http::new().limits(limits).only_http2()).await;
    let names = ["a", "b", "c", "d", "e", "f"];
    for (at, count) in [(1, 4), (3, 5), (5, 6)] {
        let more: Vec<_> = names[..count].iter().map(|name| (*name, "x")).collect();
        talk.send(get_with(at, "/", &more)).await;
    }
    let statuses = [1, 3, 5].map(|stream| talk.status(stream).unwrap());
    assert_eq!(statuses, ["200", "200", "431"]);
}

// Goodbyes.

#[tokio::test(start_paused = true)]
async fn connection_close_of_a_handler_is_a_goodbye_behind_what_is_under_way() {
    let mut talk = talk().await;
    talk.send([get_with(1, "/slow", &[]), get_with(3, "/close", &[])].concat())
        .await;
    assert_eq!(talk.of(3, HEADERS)[0].field("connection"), None);
    assert_eq!(talk.goodbyes(), [NO_ERROR]);
    assert_eq!(
        talk.of(0, GOAWAY)[0].number(0),
        0x7fff_ffff,
        "no stream is lost"
    );
    // One that was on its way is served.
    talk.send(get(5)).await;
    talk.pong().await;
    assert_eq!(talk.status(5).as_deref(), Some("200"));
    assert_eq!(talk.goodbyes(), [NO_ERROR, NO_ERROR]);
    assert_eq!(talk.of(0, GOAWAY)[1].number(0), 5);
    talk.send(get(7)).await;
    assert_eq!(talk.status(7), None);
    sleep(Duration::from_secs(20)).await;
    talk.settle().await;
    assert_eq!(talk.content(1), ("slept".to_owned(), true));
    let (report, _) = talk.report().await;
    assert_eq!(report.reason, CloseReason::HandlerAsked);
    assert_eq!(report.requests, 3);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_told_to_go() {
    let limits = Limits {
        max_age: Duration::from_secs(60),
        ..Limits::default()
    };
    let mut talk = talk_over(Http::new().limits(limits).only_http2()).await;
    sleep(Duration::from_secs(50)).await;
    talk.send(get(1)).await;
    assert_eq!(talk.goodbyes(), []);
    sleep(Duration::from_secs(20)).await;
    talk.send(get(3)).await;
    assert_eq!(talk.goodbyes(), [NO_ERROR]);
    // A client that doesn't say that it knows is closed nevertheless.
    let (report, took) = talk.report().await;
    assert_eq!(report.reason, CloseReason::MaxAge);
    assert!(took <= Duration::from_millis(2_100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_finishes_is_answered() {
    let mut talk = talk().await;
    talk.send(get_with(1, "/slow", &[])).await;
    talk.client.finish();
    sleep(Duration::from_secs(21)).await;
    talk.settle().await;
    assert_eq!(talk.content(1), ("slept".to_owned(), true));
    let (report, _) = talk.report().await;
    assert_eq!(report.reason, CloseReason::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_the_client_leaves_unfinished_is_an_error() {
    let mut talk = talk().await;
    talk.send([post_with(1, "/read", &[]), data(1, "x")].concat())
        .await;
    talk.client.finish();
    talk.settle().await;
    assert_eq!(talk.status(1).as_deref(), Some("400"));
}

#[tokio::test(start_paused = true)]
async fn a_reset_drops_the_handlers() {
    let (client, stream) = pipe();
    let alive = Arc::new(());
    let held = alive.clone();
    let service = service_fn(move |_: Request<Body>| {
        let held = held.clone();
        async move {
            let _held = held;
            std::future::pending::<Result<Response<Body>, BoxError>>().await
        }
    });
    let http = Http::new().only_http2();
    let connection = tokio::spawn(http.connection(stream.into(), service).unwrap());
    client.send([PREFACE, &settings(&[]), &get(1), &get(3)].concat());
    client.settle().await;
    assert_eq!(Arc::strong_count(&alive), 4);
    client.send_and_settle(reset(1, CANCEL)).await;
    assert_eq!(Arc::strong_count(&alive), 3, "of one stream");
    client.reset();
    let report = support::report(connection).await;
    let kind = std::io::ErrorKind::ConnectionReset;
    assert_eq!(report.reason, CloseReason::Io(kind));
    assert_eq!(Arc::strong_count(&alive), 1, "of all");
}

// What a handler can do.

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_finished_does_not_look_complete() {
    for (path, code) in [
        ("/cut", INTERNAL_ERROR),
        ("/short", INTERNAL_ERROR),
        ("/long", INTERNAL_ERROR),
    ] {
        let mut talk = talk().await;
        talk.send(get_with(1, path, &[])).await;
        assert_eq!(talk.was_reset(1), Some(code), "{path}");
        assert!(!talk.content(1).1, "{path}");
        assert_eq!(
            talk.status(1).as_deref(),
            Some("200"),
            "what there was is sent"
        );
        talk.send(get(3)).await;
        assert_eq!(talk.status(3).as_deref(), Some("200"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_an_error_and_a_lie_cost_one_stream() {
    std::panic::set_hook(Box::new(|info| {
        if !info.to_string().contains("as it should") {
            eprintln!("{info}");
        }
    }));
    let mut talk = talk().await;
    talk.send(
        [
            get_with(1, "/panic", &[]),
            get_with(3, "/fail", &[]),
            get_with(5, "/lie", &[]),
            get(7),
        ]
        .concat(),
    )
    .await;
    let statuses = [1, 3, 5, 7].map(|stream| talk.status(stream).unwrap());
    assert_eq!(statuses, ["500", "500", "500", "200"]);
}

#[tokio::test(start_paused = true)]
async fn trailers_follow_on_the_content() {
    let mut talk = talk().await;
    talk.send(get_with(1, "/trailers", &[])).await;
    assert_eq!(talk.content(1), ("some content".to_owned(), true));
    let trailers = talk.of(1, HEADERS).pop().unwrap();
    assert_eq!(trailers.field("grpc-status"), Some("0"));
    assert!(trailers.has(END_STREAM));
}

#[tokio::test(start_paused = true)]
async fn an_interim_response_comes_before_the_final_one() {
    let mut talk = talk().await;
    talk.send([get_with(1, "/hints", &[]), get_with(3, "/hints", &[])].concat())
        .await;
    for stream in [1, 3] {
        let heads = talk.of(stream, HEADERS);
        let statuses: Vec<_> = heads
            .iter()
            .filter_map(|head| head.field(":status"))
            .collect();
        assert_eq!(statuses, ["103", "200"]);
        assert_eq!(heads[0].field("link"), Some("</a.css>"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_asked_for_when_it_is_wanted() {
    let mut talk = talk().await;
    let expecting = [("expect", "100-continue")];
    talk.send(
        [
            post_with(1, "/read", &expecting),
            post_with(3, "/none", &expecting),
        ]
        .concat(),
    )
    .await;
    assert_eq!(talk.status(1).as_deref(), Some("100"));
    assert_eq!(talk.status(3).as_deref(), Some("200"));
    assert_eq!(talk.was_reset(3), Some(NO_ERROR), "it needn't send it");
    talk.send(last_data(1, "abc")).await;
    assert_eq!(talk.content(1), ("3".to_owned(), true));
}

#[tokio::test(start_paused = true)]
async fn a_large_body_is_echoed_under_back_pressure() {
    let mut talk = talk().await;
    talk.send([window_update(0, 1 << 24), post_with(1, "/echo", &[])].concat())
        .await;
    for _ in 0..20 {
        talk.send([data(1, [b'x'; 10_000]), window_update(1, 10_000)].concat())
            .await;
    }
    talk.send(last_data(1, "")).await;
    let (content, is_whole) = talk.content(1);
    assert_eq!((content.len(), is_whole), (200_000, true));
}

#[tokio::test(start_paused = true)]
async fn the_authority_and_the_number_of_a_request_are_known() {
    let mut talk = talk().await;
    talk.send([get(1), get_with(3, "/facts", &[])].concat())
        .await;
    assert_eq!(talk.content(3).0, "a.example 2");
}

#[tokio::test(start_paused = true)]
async fn refused_requests_are_told_and_answered_in_ones_own_words() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let http = Http::new()
        .on_reject(|reject: &wharf::Reject| {
            let mut response = Response::new(Bytes::from_static(b"mine"));
            *response.status_mut() = reject.status();
            response
        })
        .on_refused(move |refused| {
            let line = refused.request().map(ToString::to_string);
            tell.lock().unwrap().push((line, refused.status().as_u16()));
        });
    let mut talk = talk_over(http.only_http2()).await;
    talk.send(get_with(1, "/x", &[("a", " b")])).await;
    assert_eq!(talk.content(1), ("mine".to_owned(), true));
    let told = told.lock().unwrap();
    assert_eq!(*told, [(Some("GET /x".to_owned()), 400)]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_becomes_ready_is_a_503() {
    let (client, stream) = pipe();
    let service = tower::limit::ConcurrencyLimit::new(service_fn(answer), 1);
    let http = Http::new().only_http2();
    let connection = tokio::spawn(http.connection(stream.into(), service).unwrap());
    let mut talk = Talk { client, connection };
    talk.send(
        [
            PREFACE,
            &settings(&[]),
            &get_with(1, "/wait", &[]),
            &get(3),
            &get(5),
        ]
        .concat(),
    )
    .await;
    sleep(Duration::from_secs(31)).await;
    talk.settle().await;
    assert_eq!(talk.status(3).as_deref(), Some("503"));
    assert_eq!(talk.status(5), None);
    talk.send(reset(1, CANCEL)).await;
    assert_eq!(talk.status(5).as_deref(), Some("200"), "now it is ready");
}

#[tokio::test(start_paused = true)]
async fn both_protocols_are_spoken_on_one_port() {
    for slice in [1, usize::MAX] {
        for (sent, begins) in [
            ([PREFACE, &settings(&[]), &get(1)].concat(), &[0, 0][..]),
            (
                b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
                b"HTTP/1.1 200 ",
            ),
            (
                b"PUT / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
                b"HTTP/1.1 200 ",
            ),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!".to_vec(),
                b"HTTP/1.1 505 ",
            ),
        ] {
            let (client, stream) = pipe();
            let http = Http::new().with_http2();
            let connection = http.connection(stream.into(), service_fn(answer)).unwrap();
            let connection = tokio::spawn(connection);
            for slice in sent.chunks(slice) {
                client.send_and_settle(slice).await;
            }
            let received = client.received();
            assert!(
                received.starts_with(begins),
                "{:?}",
                support::readable(&received)
            );
            client.finish();
            support::report(connection).await;
        }
    }
}

/// The content of the answer to one GET on a stack of connections, which has to be HTTP/2.
async fn ask<S>(stack: S) -> (String, bool)
where
    S: Service<wharf::Conn<support::pipe::Stream>, Response = ConnReport, Error = wharf::Error>
        + 'static,
    S::Future: 'static,
{
    let (client, stream) = pipe();
    let connection = tokio::task::spawn_local(stack.oneshot(stream.into()));
    let connection = tokio::task::spawn_local(async { connection.await.unwrap().unwrap() });
    let mut talk = Talk { client, connection };
    talk.send([PREFACE, &settings(&[]), &get(1)].concat()).await;
    talk.content(1)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_send_is_served() {
    let greeting = std::rc::Rc::new("hello".to_owned());
    let local = service_fn(move |_: Request<Body>| {
        let greeting = greeting.clone();
        async move { Ok::<_, BoxError>(Response::new(greeting.to_string())) }
    });
    let run = async {
        let both = Http::new().with_http2().local().layer(local.clone());
        assert_eq!(ask(both).await, ("hello".to_owned(), true));
        let only = Http::new().only_http2().local().layer(local);
        assert_eq!(ask(only).await, ("hello".to_owned(), true));
    };
    tokio::task::LocalSet::new().run_until(run).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_is_made_for_each_connection() {
    let make = service_fn(|id: u64| async move {
        let known = service_fn(move |_: Request<Body>| async move {
            Ok::<_, BoxError>(Response::new(id.to_string()))
        });
        Ok::<_, BoxError>(known)
    });
    let run = async {
        let both = Http::new().with_http2().per_connection(|_| 7);
        assert_eq!(ask(both.layer(make)).await, ("7".to_owned(), true));
        let only = Http::new().only_http2().per_connection(|_| 8);
        assert_eq!(ask(only.layer(make)).await, ("8".to_owned(), true));
    };
    tokio::task::LocalSet::new().run_until(run).await;
}

#[test]
fn limits_that_cannot_work_are_refused() {
    type Set = fn(&mut Limits, u32);
    let with = |set: Set, value| {
        let mut limits = Limits::default();
        set(&mut limits, value);
        limits.check().is_ok()
    };
    let bounds: [(Set, u32); 6] = [
        (|limits, value| limits.http2_streams = value, 1),
        (|limits, value| limits.http2_header_list_bytes = value, 256),
        (|limits, value| limits.http2_stream_window = value, 1),
        (
            |limits, value| limits.http2_connection_window = value,
            65_535,
        ),
        (|limits, value| limits.http2_resets = value, 1),
        (|limits, value| limits.http2_idle_frames = value, 16),
    ];
    for (at, (set, least)) in bounds.into_iter().enumerate() {
        let checked = [least - 1, least, least + 1].map(|value| with(set, value));
        assert_eq!(checked, [false, true, true], "number {at}");
    }
}
