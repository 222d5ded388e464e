use std::convert::Infallible;
use std::future::{pending, ready};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, Uri, Version};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use serde_json::Value;
use tower::{ServiceExt, service_fn};
use wharf::{BoxError, Http};

use super::*;
use crate::mock::{Picky, converse, honours_readiness};

const LONG: Duration = Duration::from_secs(60);

/// What was written, for the test to look at.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self, log: &AccessLog) -> String {
        assert!(log.flush(LONG), "written in time");
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(all.clone()).expect("UTF-8")
    }

    fn values(&self, log: &AccessLog) -> Vec<Value> {
        let text = self.text(log);
        text.lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    /// The only line there is.
    fn value(&self, log: &AccessLog) -> Value {
        let mut values = self.values(log);
        assert_eq!(values.len(), 1, "{values:?}");
        values.remove(0)
    }
}

fn logging(log: AccessLog) -> (AccessLog, Written) {
    let written = Written::default();
    (log.to_writer(written.clone()), written)
}

fn get(uri: &str) -> Request<()> {
    let mut info = ConnInfo::default();
    info.id = 17;
    info.peer = Address::Socket("[::ffff:203.0.113.7]:80".parse().expect("an address"));
    let request = Request::get(uri)
        .header(HOST, "a.example")
        .header(REFERER, "https://u:p@b.example/?token=abc")
        .header(USER_AGENT, "agent \"x\"\u{e9}")
        .header(AUTHORIZATION, "Basic c2VjcmV0");
    request.extension(info).body(()).expect("a request")
}

/// A service that answers with `body`.
fn answering<B: Body + Clone>(
    body: B,
) -> impl Service<Request<()>, Response = Response<B>, Error = Infallible> + Clone {
    service_fn(move |_| ready(Ok(Response::new(body.clone()))))
}

async fn read<B: Body<Data: std::fmt::Debug, Error: std::fmt::Debug>>(response: Response<B>) {
    let mut body = std::pin::pin!(response.into_body());
    while body.frame().await.is_some() {}
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let (log, written) = logging(AccessLog::common());
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    honours_readiness(log.layer(inner), || get("/")).await;
    assert_eq!(written.text(&log).lines().count(), 3);
}

#[tokio::test]
async fn each_format_has_its_line() {
    for (log, expected) in [
        (
            AccessLog::common(),
            r#"203.0.113.7 - - [] "GET /a?b=c HTTP/1.1" 200 5"#,
        ),
        (
            AccessLog::combined(),
            r#"203.0.113.7 - - [] "GET /a?b=c HTTP/1.1" 200 5 "https://***@b.example/?token=***" "agent \"x\"é""#,
        ),
    ] {
        let (log, written) = logging(log);
        let service = log.layer(answering(Full::<Bytes>::from("hello")));
        read(service.oneshot(get("/a?b=c")).await.unwrap()).await;
        let text = written.text(&log);
        let (before, after) = text.split_once('[').unwrap();
        let (time, after) = after.split_once(']').unwrap();
        assert_eq!(format!("{before}[]{after}"), format!("{expected}\n"));
        assert_eq!(time.len(), "24/Nov/2026:04:01:59 +0000".len());
    }
}

#[tokio::test(start_paused = true)]
async fn json_says_it_all() {
    let (log, written) = logging(
        AccessLog::json()
            .field(HeaderName::from_static("x-id"))
            .field(AUTHORIZATION),
    );
    let pieces = futures_util::stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let piece = http_body::Frame::data(Bytes::from("0123456789"));
        (n < 3).then_some((Ok::<_, Infallible>(piece), n + 1))
    });
    let mut answer = Some(Response::new(StreamBody::new(pieces)));
    let service = log.layer(service_fn(move |_| {
        let answer = answer.take().expect("one call");
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok::<_, Infallible>(answer)
        }
    }));
    let mut request = get("/a?b=c&password=d");
    request
        .headers_mut()
        .insert("x-id", HeaderValue::from_static("7\t7"));
    read(service.oneshot(request).await.unwrap()).await;

    let mut value = written.value(&log);
    let time = value["time"].take();
    assert!(
        time.as_str()
            .is_some_and(|time| time.ends_with('Z') && time.len() == 24),
        "{time}"
    );
    let expected = serde_json::json!({
        "time": null, "client": "203.0.113.7", "connection": 17, "method": "GET", "target": "/a?b=c&password=***",
        "version": "HTTP/1.1", "host": "a.example", "status": 200, "bytes": 30, "first_byte_us": 5_000,
        "duration_us": 45_000, "ended": "complete", "referer": "https://***@b.example/?token=***",
        "user_agent": "agent \"x\"é", "fields": { "x-id": "7\t7", "authorization": "***" },
    });
    assert_eq!(value, expected);
}

#[tokio::test]
async fn the_line_says_how_it_ended() {
    async fn ended<B, E: 'static>(
        service: impl Service<Request<()>, Response = Response<B>, Error = E>,
        request: Request<()>,
        frames: usize,
    ) -> (String, Value, u64)
    where
        B: Body<Data = Bytes>,
    {
        let (log, written) = logging(AccessLog::json());
        let answer = log.layer(service).oneshot(request).await;
        if let Ok(response) = answer {
            let mut body = Box::pin(response.into_body());
            for _ in 0..frames {
                body.frame().await;
            }
        }
        let mut value = written.value(&log);
        let ended = value["ended"].as_str().unwrap().to_owned();
        (
            ended,
            value["status"].take(),
            value["bytes"].as_u64().unwrap(),
        )
    }
    let three = || {
        let piece = |text| Ok(http_body::Frame::data(Bytes::from_static(text)));
        let broken: io::Error = ErrorKind::Other.into();
        StreamBody::new(futures_util::stream::iter([
            piece(b"a"),
            piece(b"b"),
            Err(broken),
        ]))
    };
    let once = |body| {
        let mut body = Some(body);
        service_fn(move |_| {
            ready(Ok::<_, Infallible>(Response::new(
                body.take().expect("one call"),
            )))
        })
    };
    let head = || Request::head("/").body(()).unwrap();
    let complete = |bytes| ("complete".to_owned(), Value::from(200), bytes);

    let hello = || answering(Full::<Bytes>::from("hello"));
    assert_eq!(ended(hello(), get("/"), 2).await, complete(5));
    // A server needn't ask for the end of what is at its declared length, or has no body at all.
    assert_eq!(ended(hello(), get("/"), 1).await, complete(5));
    assert_eq!(ended(hello(), head(), 0).await, complete(0));
    assert_eq!(
        ended(answering(Empty::new()), get("/"), 0).await,
        complete(0)
    );

    /// Doesn't know that its only frame was the last.
    #[derive(Clone)]
    struct Declared(Option<Bytes>);
    impl Body for Declared {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
        }
    }
    let declared = |text: &'static str| answering(Declared(Some(Bytes::from(text))));
    assert_eq!(ended(declared("hello"), get("/"), 1).await, complete(5));
    assert_eq!(ended(declared(""), get("/"), 0).await, complete(0));

    let aborted = |bytes| ("aborted".to_owned(), Value::from(200), bytes);
    assert_eq!(ended(hello(), get("/"), 0).await, aborted(0));
    assert_eq!(ended(once(three()), get("/"), 2).await, aborted(2));
    let error = ("error".to_owned(), Value::from(200), 2);
    assert_eq!(ended(once(three()), get("/"), 3).await, error);
    let failing = service_fn(|_| ready(Err::<Response<Full<Bytes>>, _>(())));
    assert_eq!(
        ended(failing, get("/"), 0).await,
        ("error".to_owned(), Value::Null, 0)
    );
    // wharf's own type of error: the log knows what wharf makes of it.
    let shed = service_fn(|_| {
        let overloaded = tower::load_shed::error::Overloaded::new();
        ready(Err::<Response<Full<Bytes>>, BoxError>(overloaded.into()))
    });
    assert_eq!(
        ended(shed, get("/"), 0).await,
        ("error".to_owned(), Value::from(503), 0)
    );

    for status in [
        StatusCode::NOT_MODIFIED,
        StatusCode::NO_CONTENT,
        StatusCode::SWITCHING_PROTOCOLS,
    ] {
        let service = service_fn(move |_| {
            let mut response = Response::new(Full::<Bytes>::from("ignored"));
            *response.status_mut() = status;
            ready(Ok::<_, Infallible>(response))
        });
        let expected = ("complete".to_owned(), Value::from(status.as_u16()), 0);
        assert_eq!(ended(service, get("/"), 0).await, expected);
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_has_its_line() {
    let (log, written) = logging(AccessLog::json());
    let never = service_fn(|_| pending::<Result<Response<Empty<Bytes>>, Infallible>>());
    let mut call = Box::pin(log.layer(never).oneshot(get("/")));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    assert_eq!(written.text(&log), "");
    drop(call);
    let value = written.value(&log);
    assert_eq!(
        (&value["ended"], &value["status"]),
        (&"aborted".into(), &Value::Null)
    );
}

#[tokio::test]
async fn a_panic_is_told_from_a_client_that_went_away() {
    let in_call = service_fn(
        |_: Request<wharf::Body>| -> std::future::Ready<Result<Response<wharf::Body>, Infallible>> {
            panic!("on purpose");
        },
    );
    let in_future = service_fn(
        async |_: Request<wharf::Body>| -> Result<Response<wharf::Body>, Infallible> {
            panic!("on purpose");
        },
    );
    let in_body = service_fn(async |_: Request<wharf::Body>| {
        let body =
            futures_util::stream::poll_fn(|_| -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                panic!("on purpose");
            });
        Ok::<_, Infallible>(Response::new(wharf::Body::new(StreamBody::new(body))))
    });
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (log, written) = logging(AccessLog::json());
    let said = converse(log.layer(in_call), request).await;
    assert!(said.starts_with("HTTP/1.1 500"), "{said}");
    converse(log.layer(in_future), request).await;
    converse(log.layer(in_body), request).await;
    let values = written.values(&log);
    assert_eq!(values.len(), 3);
    assert!(
        values.iter().all(|value| value["ended"] == "panicked"),
        "{values:?}"
    );
}

/// One conversation with wharf that is logged; the lines it leaves.
async fn on_wharf(bytes: &[u8]) -> (String, Vec<Value>) {
    let (log, written) = logging(AccessLog::json());
    let hello = service_fn(|_: Request<wharf::Body>| {
        ready(Ok::<_, Infallible>(Response::new(wharf::Body::from(
            "hello",
        ))))
    });
    let layer = Http::new().on_refused(log.refused());
    let said = converse_through(layer, log.layer(hello), bytes).await;
    (said, written.values(&log))
}

async fn converse_through<S>(http: Http, service: S, bytes: &[u8]) -> String
where
    S: Service<
            Request<wharf::Body>,
            Response = Response<LoggedBody<wharf::Body>>,
            Error = Infallible,
        > + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let conn = wharf::Conn::from(server);
    let connection = http.layer(service).oneshot(conn);
    let connection = tokio::spawn(async move { connection.await.is_ok() });
    client.write_all(bytes).await.expect("the server reads");
    client.shutdown().await.expect("in memory");
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.expect("in memory");
    drop(client);
    assert!(connection.await.expect("no panic"));
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn requests_on_a_connection_are_numbered_and_refused_ones_too() {
    let requests = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /?token=\x1b[2J&a=\"\x80 HTTP/1.1\r\n\r\n";
    let (said, values) = on_wharf(requests).await;
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "{said}");
    assert_eq!(said.matches("HTTP/1.1 400").count(), 1, "{said}");
    assert_eq!(values.len(), 3, "{values:?}");
    for (value, number) in values.iter().zip(1..) {
        assert_eq!(value["request"], number, "{value}");
    }
    let refused = &values[2];
    assert_eq!(
        (&refused["status"], &refused["ended"]),
        (&400.into(), &"refused".into())
    );
    assert_eq!(refused["line"], "GET /?token=***&a=\"\\x80 HTTP/1.1");
    assert!(
        refused["refused"]
            .as_str()
            .is_some_and(|why| why.contains("target")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_field_in_the_place_of_a_request_line_is_not_shown() {
    for secret in [
        "Authorization: Basic c2VjcmV0",
        "x cOOkie: c2VjcmV0",
        "GET /x Proxy-Authorization:c2VjcmV0",
    ] {
        let (_, values) = on_wharf(format!("{secret}\r\n\r\n").as_bytes()).await;
        assert_eq!(values.len(), 1, "{values:?}");
        assert!(!values[0].to_string().contains("c2VjcmV0"), "{values:?}");
    }
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let directory = std::env::temp_dir().join(format!("wharf-reopen-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (path, moved) = (directory.join("log"), directory.join("log.1"));
    let log = AccessLog::common().to_file(&path).unwrap();
    let line = |name| {
        let mut facts = some_facts();
        facts.request = Asked::Path(Method::GET, format!("/{name}"));
        log.start().write(&facts);
        assert!(log.flush(LONG));
    };
    line("first");
    std::fs::rename(&path, &moved).unwrap();
    line("second");
    log.reopen().unwrap();
    line("third");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(log.reopen().is_err(), "a directory is no log");
    line("fourth");

    let moved = std::fs::read_to_string(moved).unwrap();
    assert!(
        moved.contains("/first") && moved.contains("/second"),
        "{moved}"
    );
    assert_eq!(moved.lines().count(), 2);
    assert_eq!(log.dropped(), 0);
    drop(log);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_log_that_is_dropped_has_all_its_lines() {
    let (log, written) = logging(AccessLog::json());
    let start = log.start();
    (0..1_000).for_each(|_| start.write(&some_facts()));
    drop((log, start));
    let all = written.0.lock().unwrap();
    assert_eq!(all.iter().filter(|byte| **byte == b'\n').count(), 1_000);
}

#[test]
fn the_log_says_in_its_own_words_that_lines_were_dropped() {
    let time = SystemTime::UNIX_EPOCH;
    let mut out = Vec::new();
    line::dropped_json(&mut out, time, 12);
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        value,
        serde_json::json!({ "time": "1970-01-01T00:00:00.000Z", "dropped": 12 })
    );
    out.clear();
    line::dropped_comment(&mut out, time, 12);
    let expected = "# [01/Jan/1970:00:00:00 +0000] 12 lines were dropped: the log could not be written as fast\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[cfg(feature = "tracing")]
#[test]
fn each_line_is_an_event_for_the_subscriber_that_was_there() {
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber, subscriber};

    struct Messages(Written);

    impl Visit for Messages {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            assert_eq!(field.name(), "message");
            writeln!(self.0, "{value:?}").unwrap();
        }
    }

    impl Subscriber for Messages {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            assert_eq!(event.metadata().target(), "access_log");
            event.record(&mut Self(self.0.clone()));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    let written = Written::default();
    let log =
        subscriber::with_default(Messages(written.clone()), || AccessLog::json().to_tracing());
    let start = log.start();
    (0..3).for_each(|_| start.write(&some_facts()));
    assert_eq!(written.values(&log).len(), 3);
}

fn some_facts() -> Facts {
    Facts {
        time: SystemTime::now(),
        client: Client::Ip(Ipv4Addr::LOCALHOST.into()),
        connection: Some(1),
        number: Some(1),
        request: Asked::Path(Method::GET, "/".into()),
        referer: None,
        user_agent: None,
        fields: Vec::new(),
        status: Some(StatusCode::OK),
        bytes: 0,
        first_byte: None,
        duration: None,
        ended: Ended::Complete,
        refused: None,
    }
}

/// Numbers that are always the same ones (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Any bytes, and pieces that mean something to one of the layers between here and a reader.
    fn bytes(&mut self) -> Vec<u8> {
        const PIECES: [&[u8]; 24] = [
            b"\"",
            b"\\",
            b"\r\n",
            b"\n",
            b"\0",
            b"\x1b[31m",
            b"\x7f",
            b"\xc2\x85",
            b"\xe2\x80\xa8",
            b"\xe2\x80\xa9",
            b"\xe2\x80\xae",
            b"\xff",
            b"\xc3",
            b"\xf0\x9f\xa6\x80",
            b"?token=",
            b"&",
            b"://",
            b"@",
            b"#",
            b";",
            b"\\u0022",
            b"\",\"x\":\"",
            b"} {",
            b"\t",
        ];
        let mut bytes = Vec::new();
        for _ in 0..self.below(12) {
            match self.below(4) {
                0 => bytes.push(self.next() as u8),
                1 => {
                    // Short ones for the most part, and now and then more than a field takes.
                    let most = if self.below(32) == 0 { 2_000 } else { 8 };
                    let count = self.below(most) as usize;
                    bytes.extend(std::iter::repeat_n(self.next() as u8, count));
                }
                2 => bytes.extend_from_slice(b"/path"),
                _ => bytes.extend_from_slice(PIECES[self.below(24) as usize]),
            }
        }
        bytes
    }

    fn value(&mut self) -> Option<HeaderValue> {
        let mut bytes = self.bytes();
        bytes.retain(|byte| HeaderValue::from_bytes(&[*byte]).is_ok());
        HeaderValue::from_bytes(&bytes)
            .ok()
            .filter(|_| self.below(4) > 0)
    }

    fn facts(&mut self) -> Facts {
        let bytes = self.bytes();
        let request = match self.below(3) {
            0 => {
                let mut method = self.bytes();
                method.retain(|byte| Method::from_bytes(&[*byte]).is_ok());
                let method = Method::from_bytes(&method).unwrap_or(Method::GET);
                let mut target = vec![b'/'];
                let allowed =
                    |byte: &u8| matches!(byte, b'!'..=b'~' | 0x80..) && !b"<>\\^`".contains(byte);
                target.extend(bytes.iter().copied().filter(allowed));
                let uri = Uri::try_from(target.as_slice()).unwrap_or_default();
                Asked::Request(method, uri, Version::HTTP_11, self.value())
            }
            1 => Asked::Path(Method::GET, String::from_utf8_lossy(&bytes).into_owned()),
            // No more than this of a head is shown by the container.
            _ => Asked::Unread(bytes[..bytes.len().min(1024)].to_vec()),
        };
        Facts {
            request,
            referer: self.value(),
            user_agent: self.value(),
            fields: vec![self.value(), self.value()],
            connection: (self.below(2) == 0).then(|| self.next()),
            bytes: self.next(),
            ..some_facts()
        }
    }
}

#[test]
fn one_request_is_one_line_whatever_it_is_made_of() {
    let name = |name| HeaderName::from_bytes(name).expect("a token");
    let settings = |format| Settings {
        format,
        masked: mask::PARAMETERS.map(str::to_owned).into(),
        fields: vec![name(b"x-id"), name(b"!#$%&'*+-.^_`|~")],
    };
    let (json, combined) = (settings(Format::Json), settings(Format::Combined));
    let mut random = Random(0x5eed);
    let (mut line, mut longest) = (Vec::new(), 0);
    for case in 0..100_000 {
        let facts = random.facts();
        let mut write = |settings: &Settings| {
            line.clear();
            settings.write(&mut line, &facts);
            let text = std::str::from_utf8(&line).expect("UTF-8");
            let text = text.strip_suffix('\n').expect("a whole line");
            let harmful = |c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c);
            assert!(!text.contains(harmful), "{case}: {text}");
            longest = longest.max(text.len());
            line.clone()
        };
        let value: Value =
            serde_json::from_slice(&write(&json)).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(value["bytes"], facts.bytes, "{case}");
        assert_eq!(value["ended"], "complete", "{case}");
        assert!(value.get("x").is_none(), "{case}: {value}");
        assert_eq!(quoted_parts(&write(&combined)), 3, "{case}");
    }
    // Six fields of at most 1 KiB, and what stands around them.
    assert!((2 * 1024..7 * 1024).contains(&longest), "{longest}");
}

/// How many strings in quotes a line has, by the rules of whoever reads the combined format.
fn quoted_parts(line: &[u8]) -> usize {
    let (mut quotes, mut bytes) = (0, line.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quotes += 1,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    assert_eq!(quotes % 2, 0);
    quotes / 2
}

#[tokio::test]
async fn any_bytes_on_a_connection_leave_one_line_for_each_answer() {
    let mut random = Random(0xb0a7);
    for _ in 0..2_000 {
        let mut bytes = b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n".repeat(random.below(3) as usize);
        bytes.extend(random.bytes());
        bytes.extend_from_slice(b"\r\n\r\n");
        let (said, values) = on_wharf(&bytes).await;
        assert_eq!(
            said.matches("HTTP/1.1 ").count(),
            values.len(),
            "{bytes:?}: {said}"
        );
    }
}
