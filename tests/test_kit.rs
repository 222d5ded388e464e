//! `wharf::test` itself: what its client does and sees, on a paused clock and on a running one, and every sentence with
//! which it fails a test.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, advance, sleep};
use tower::{ServiceBuilder, service_fn};
use wharf::test::{Client, Trailers, connect, connect_as, connect_to, encode};
use wharf::{Body, BoxError, CloseReason, Conn, ConnInfo, ConnReport, Http, Limits, Stream};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

/// Answers by path, with everything a client has to understand.
async fn answer(mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let path = request.uri().path().to_owned();
    let mut response = Response::new(Body::from("hello"));
    match path.as_str() {
        "/echo" => response = Response::new(request.into_body()),
        "/target" => response = Response::new(Body::from(format!("{request:?}"))),
        "/stream" | "/cut" => {
            let frames = ["hel", "lo"].map(|data| Ok(Frame::data(Bytes::from(data))));
            let mut trailers = HeaderMap::new();
            trailers.insert("checksum", HeaderValue::from_static("5d41"));
            let last = if path == "/cut" {
                Err("cut")
            } else {
                Ok(Frame::trailers(trailers))
            };
            let frames = stream::iter(frames.into_iter().chain([last]));
            response = Response::new(Body::new(StreamBody::new(frames)));
        }
        "/204" => *response.status_mut() = StatusCode::NO_CONTENT,
        "/304" => *response.status_mut() = StatusCode::NOT_MODIFIED,
        "/close" => {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        "/hints" => {
            let mut hints = HeaderMap::new();
            hints.insert(header::LINK, HeaderValue::from_static("</a.css>"));
            wharf::interim(&request).early_hints(hints).await?;
        }
        "/late" => sleep(5 * SECOND).await,
        "/never" => pending().await,
        "/endless" => {
            let data = Bytes::from_static(&[b'x'; 64 * 1024]);
            let frame = move || Ok::<_, Infallible>(Frame::data(data.clone()));
            let frames = stream::iter(std::iter::repeat_with(frame));
            response = Response::new(Body::new(StreamBody::new(frames)));
        }
        "/upgrade" => {
            let upgrade = wharf::upgrade::on(&mut request).ok_or("no offer")?;
            tokio::spawn(async move {
                let mut socket = upgrade.await?;
                let (mut reads, mut writes) = tokio::io::split(&mut socket);
                tokio::io::copy(&mut reads, &mut writes).await?;
                Ok::<_, BoxError>(())
            });
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let protocol = HeaderValue::from_static("echo");
            response.headers_mut().insert(header::UPGRADE, protocol);
        }
        _ => {}
    }
    Ok(response)
}

fn client() -> Client {
    connect(Http::new(), service_fn(answer))
}

/// The sentence with which a test fails.
async fn failure<T>(test: impl Future<Output = T>) -> String {
    let panic = AssertUnwindSafe(test).catch_unwind().await;
    let Err(panic) = panic else {
        panic!("the test should have failed")
    };
    match panic.downcast::<String>() {
        Ok(sentence) => *sentence,
        Err(panic) => (*panic.downcast::<&str>().expect("a sentence")).to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_gets_408() {
    let mut client = client();
    client.send(b"GET / HT").await;
    advance(11 * SECOND).await;
    assert_eq!(client.response().await.status(), 408);
    assert!(matches!(
        client.closed().await.reason,
        CloseReason::HeadTimeout { got: 8, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_fires_before_the_next_byte_arrives() {
    let mut client = client();
    client.get("/").await;
    advance(80 * SECOND).await;
    client.send(GET).await;
    assert_eq!(client.received().await, "", "75 seconds are enough");
    let report = client.closed().await;
    assert_eq!(report.reason, CloseReason::Idle { after: 75 * SECOND });
    assert_eq!(report.requests, 1);
    assert_eq!(client.report().map(|report| report.requests), Some(1));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_were_put_are_there_before_a_deadline_is_seen() {
    let mut client = client();
    client.get("/").await;
    client.put(GET);
    assert_eq!(client.unread(), GET.len());
    advance(80 * SECOND).await;
    assert_eq!(client.response().await.body(), "hello");
}

#[tokio::test(start_paused = true)]
async fn timers_fire_at_their_instant_during_a_wait() {
    let mut client = client();
    client.get("/").await;
    client.during(sleep(100 * SECOND)).await;
    assert_eq!(client.closed().await.age, 75 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_framing_of_every_response_is_understood() {
    let mut client = client();
    assert_eq!(client.get("/").await.body(), "hello");

    let streamed = client.get("/stream").await;
    assert_eq!(streamed.body(), "hello");
    assert_eq!(streamed.headers()[header::TRANSFER_ENCODING], "chunked");
    let Trailers(trailers) = streamed.extensions().get().expect("trailers");
    assert_eq!(trailers["checksum"], "5d41");

    let head = Request::head("/").body("").unwrap();
    let head = client.request(head).await;
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "5");
    assert_eq!(head.body(), "");
    for path in ["/204", "/304"] {
        assert_eq!(client.get(path).await.body(), "", "{path}");
    }

    // HTTP/1.0 knows no chunks: the end of the connection is the end of the response.
    let old = Request::get("/stream").version(Version::HTTP_10);
    let old = client.request(old.body("").unwrap()).await;
    assert_eq!(old.body(), "hello");
    assert!(old.headers().get(header::CONTENT_LENGTH).is_none());
    assert_eq!(client.closed().await.reason, CloseReason::ClientAsked);
    assert!(!client.is_reset());
}

#[tokio::test(start_paused = true)]
async fn interim_responses_are_seen_or_passed_over() {
    let mut client = client();
    client.send("GET /hints HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let hints = client.interim().await;
    assert_eq!(hints.status(), StatusCode::EARLY_HINTS);
    assert_eq!(hints.headers()[header::LINK], "</a.css>");
    assert_eq!(client.response().await.body(), "hello");
    assert_eq!(client.get("/hints").await.body(), "hello");

    client
        .send("POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await;
    assert_eq!(client.interim().await.status(), StatusCode::CONTINUE);
    client.send("ahoy").await;
    assert_eq!(client.response().await.body(), "ahoy");
}

#[tokio::test(start_paused = true)]
async fn requests_are_written_as_a_client_writes_them() {
    let mut client = client();
    for (request, body) in [
        (Request::post("/echo"), "hello"),
        (Request::post("http://a.example/echo"), "hello"),
        (
            Request::post("/echo").header("transfer-encoding", "chunked"),
            "hello",
        ),
        (
            Request::post("/echo").header("transfer-encoding", "chunked"),
            "",
        ),
        (
            Request::post("/echo").header("content-length", "5"),
            "hello",
        ),
        (Request::post("/echo"), ""),
    ] {
        assert_eq!(
            client.request(request.body(body).unwrap()).await.body(),
            body
        );
    }
    for (request, bytes) in [
        (
            Request::get("/a?b"),
            "GET /a?b HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ),
        (
            Request::get("http://me@a:81/").version(Version::HTTP_10),
            "GET / HTTP/1.0\r\nhost: a:81\r\n\r\n",
        ),
        (
            Request::options("*").header("host", "b"),
            "OPTIONS * HTTP/1.1\r\nhost: b\r\n\r\n",
        ),
        (
            Request::builder().method(Method::CONNECT).uri("a:80"),
            "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
        ),
    ] {
        assert_eq!(encode(request.body("").unwrap()), bytes);
    }
    let pipelined = ["/", "/stream", "/"].map(|path| encode(Request::get(path).body("").unwrap()));
    client.send(pipelined.concat()).await;
    for _ in 0..3 {
        assert_eq!(client.response().await.body(), "hello");
    }
    assert_eq!(client.close().await.requests, 9);
}

#[tokio::test(start_paused = true)]
async fn a_byte_at_a_time_is_the_same_request() {
    let mut client = client();
    client
        .dribble("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    client.dribble("5\r\nhello\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.body(), "hello");
    assert_eq!(client.unread(), 0);
}

#[tokio::test(start_paused = true)]
async fn raw_bytes_come_as_they_are() {
    let mut client = client();
    client
        .send("GET /stream HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!(client.receive(12).await, "HTTP/1.1 200");
    let rest = client.receive_to_end().await;
    assert!(
        rest.ends_with(b"\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nchecksum: 5d41\r\n\r\n"),
        "{rest:?}"
    );
    assert_eq!(client.received().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_finished_client_is_still_answered() {
    let mut client = client();
    client.send("GET /late HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.finish().await;
    assert_eq!(client.response().await.body(), "hello");
    assert_eq!(client.closed().await.reason, CloseReason::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_resets_or_has_closed_is_noticed() {
    let reset = CloseReason::Io(std::io::ErrorKind::ConnectionReset);
    let mut gone = client();
    gone.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(gone.report().is_none());
    gone.reset().await;
    assert_eq!(gone.report().map(|report| &report.reason), Some(&reset));

    // What is written to a client that has closed comes back as a reset, not before.
    let mut closed = client();
    closed.take_only(0).await;
    closed
        .send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert_eq!(closed.close().await.reason, reset);

    let mut idle = client();
    idle.get("/").await;
    assert_eq!(idle.close().await.reason, CloseReason::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_cut_does_not_look_complete() {
    let mut client = client();
    client.send("GET /cut HTTP/1.0\r\n\r\n").await;
    assert!(client.receive_to_end().await.ends_with(b"\r\n\r\nhello"));
    assert!(client.is_reset());
    assert_eq!(client.closed().await.reason, CloseReason::ResponseFailed);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_holds_the_server_up() {
    let mut client = client();
    client.take_only(1000).await;
    client
        .send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    client.send(GET).await;
    assert_eq!(client.received().await.len(), 1000);
    client.take_only(10).await;
    assert_eq!(client.received().await.len(), 10);
    assert_eq!(client.closed().await.reason, CloseReason::WriteTimeout);
    assert_eq!(client.report().map(|report| report.bytes_out), Some(1010));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_reads_nothing_leaves_bytes_unread() {
    let mut client = client();
    client
        .send("POST /never HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
        .await;
    client.send(vec![b'x'; 1_000_000]).await;
    assert!(client.unread() > 900_000, "{}", client.unread());
}

#[tokio::test(start_paused = true)]
async fn a_stack_is_told_what_its_server_would_tell() {
    let mut idle = client();
    idle.get("/").await;
    idle.lame_duck().await;
    let last = idle.get("/").await;
    assert_eq!(last.headers()[header::CONNECTION], "close");
    assert_eq!(idle.closed().await.reason, CloseReason::Shutdown);

    let mut idle = client();
    idle.get("/").await;
    idle.drain().await;
    assert_eq!(idle.closed().await.reason, CloseReason::Shutdown);

    let mut busy = client();
    busy.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    busy.drain().await;
    assert!(busy.report().is_none());
    busy.cut().await;
    assert_eq!(busy.closed().await.reason, CloseReason::Cut);
}

#[tokio::test(start_paused = true)]
async fn what_follows_an_upgrade_is_a_stream() {
    let mut client = client();
    client.send("GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly ").await;
    assert_eq!(
        client.response().await.status(),
        StatusCode::SWITCHING_PROTOCOLS
    );
    client.send("late").await;
    assert_eq!(client.receive(10).await, "early late");

    client.write_all(b"through AsyncWrite").await.unwrap();
    let mut back = [0; 18];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"through AsyncWrite");
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut back).await.unwrap(), 0);
    assert!(client.write_all(b"x").await.is_err());
    assert_eq!(client.closed().await.reason, CloseReason::Upgraded);
}

#[tokio::test(start_paused = true)]
async fn other_clients_run_over_it() {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(client()))
            .await
            .unwrap();
    let exchange = async move {
        let request = Request::post("/echo")
            .header("host", "a")
            .body("ahoy".to_owned())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let (_, body) = tokio::join!(connection, exchange);
    assert_eq!(body, "ahoy");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_stack_need_be_send() {
    let calls = Rc::new(Cell::new(0));
    let count = calls.clone();
    let service = service_fn(move |_: Request<Body>| {
        count.set(count.get() + 1);
        let count = count.clone();
        async move { Ok::<_, BoxError>(Response::new(Body::from(count.get().to_string()))) }
    });
    let mut client = connect(Http::new(), service);
    client.get("/").await;
    assert_eq!(client.get("/").await.body(), "2");
    assert_eq!(calls.get(), 2);
}

/// The stack type that a server takes, named as users name it.
fn stack()
-> impl tower::Service<Conn<Stream>, Response = ConnReport, Error = BoxError, Future: Send> + Clone
{
    ServiceBuilder::new()
        .map_err(BoxError::from)
        .layer(Http::new().limits(Limits {
            header_fields: 2,
            ..Limits::default()
        }))
        .service(service_fn(|request: Request<Body>| async move {
            let info = ConnInfo::of(&request).map(|info| format!("{} {}", info.id, info.listener));
            Ok::<_, BoxError>(Response::new(Body::from(info.unwrap_or_default())))
        }))
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_the_facts_that_it_was_given() {
    let mut info = ConnInfo::default();
    (info.id, info.listener) = (7, "admin".into());
    let mut client = connect_as(info, stack());
    assert_eq!(client.get("/").await.body(), "7 admin");
    let refused = Request::get("/")
        .header("a", "b")
        .header("c", "d")
        .body("")
        .unwrap();
    assert_eq!(client.request(refused).await.status(), 431);
    let report = client.closed().await;
    assert_eq!((report.info.id, &*report.info.listener), (7, "admin"));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_connection_plane_is_reported_as_a_server_does() {
    let mut info = ConnInfo::default();
    info.id = 7;
    let refuse = service_fn(|_: Conn<Stream>| async { Err::<ConnReport, BoxError>("no".into()) });
    let mut client = connect_as(info, refuse);
    let report = client.closed().await;
    assert_eq!(
        (report.info.id, report.reason),
        (7, CloseReason::BeforeHttp("no".into()))
    );
}

#[tokio::test]
async fn it_works_on_a_running_clock() {
    let begun = Instant::now();
    let mut client = client();
    client.dribble(GET).await;
    assert_eq!(client.response().await.body(), "hello");
    client.during(sleep(Duration::from_millis(20))).await;
    assert_eq!(client.get("/stream").await.body(), "hello");
    assert_eq!(client.close().await.requests, 2);
    assert!(
        (20..5_000).contains(&begun.elapsed().as_millis()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_among_threads() {
    let service = service_fn(|request: Request<Body>| async {
        // Another thread answers.
        tokio::spawn(answer(request)).await?
    });
    let mut client = connect(Http::new(), service);
    for _ in 0..100 {
        assert_eq!(client.get("/stream").await.body(), "hello");
    }
    client
        .send("GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    client.response().await;
    client.send("ahoy").await;
    assert_eq!(client.receive(4).await, "ahoy");
}

#[tokio::test(start_paused = true)]
async fn what_never_comes_is_told_with_its_place_and_what_came() {
    let mut waiting = client();
    waiting.get("/").await;
    waiting.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let begun = Instant::now();
    let (line, sentence) = (line!(), failure(waiting.response()).await);
    assert_eq!(
        sentence,
        format!(
            "tests/test_kit.rs:{line}:54: waited for response 2, to GET: it did not come within 86400s; \
             the connection is open (requests: 2); what came is \"\""
        )
    );
    assert_eq!(begun.elapsed(), 24 * 3600 * SECOND);

    // The response to HEAD, mistaken for one to GET.
    let mut mistaken = client().patience(3 * SECOND);
    mistaken.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let sentence = failure(mistaken.response()).await;
    assert!(
        sentence.contains("response 1, to GET: it did not come within 3s; "),
        "{sentence}"
    );
    assert!(
        sentence.contains("what came is \"HTTP/1.1 200 OK\\r\\ncontent-length: 5\\r\\n"),
        "{sentence}"
    );
    assert_eq!(
        mistaken.response_to(Method::HEAD).await.status(),
        200,
        "nothing was lost"
    );
}

#[tokio::test]
async fn on_a_running_clock_patience_is_shorter() {
    let mut client = client().patience(Duration::from_millis(20));
    client.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let sentence = failure(client.receive(1)).await;
    assert!(
        sentence.contains("waited for 1 bytes: it did not come within 20ms; "),
        "{sentence}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_any_more_is_told_at_once() {
    let begun = Instant::now();
    let mut over = client();
    over.get("/close").await;
    let sentence = failure(over.get("/")).await;
    assert!(
        sentence.ends_with(
            "waited for response 2, to GET: it can't come any more; \
             the connection has ended: the handler asked for it; what came is \"\""
        ),
        "{sentence}"
    );
    let mut cut = client();
    cut.send("GET /cut HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let sentence = failure(cut.response()).await;
    assert!(
        sentence.contains(
            "it can't come any more; the connection has ended: the response body failed midway;"
        ),
        "{sentence}"
    );
    assert!(
        sentence.ends_with("3\\r\\nhel\\r\\n2\\r\\nlo\\r\\n\""),
        "{sentence}"
    );
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn each_wait_has_its_own_words() {
    let patience = 3 * SECOND;
    let mut open = client().patience(patience);
    let sentence = failure(open.interim()).await;
    assert!(
        sentence.contains("waited for an interim response: it did not come within 3s; "),
        "{sentence}"
    );
    let sentence = failure(open.receive_to_end()).await;
    assert!(
        sentence.contains("waited for the end of what is sent: "),
        "{sentence}"
    );
    let sentence = failure(open.during(pending::<()>())).await;
    assert!(
        sentence.contains("waited for what `during` was given: "),
        "{sentence}"
    );

    let mut idle = client().patience(patience);
    idle.get("/").await;
    let sentence = failure(idle.closed()).await;
    assert!(
        sentence.contains("waited for the connection's end: "),
        "{sentence}"
    );
    assert!(
        sentence.contains("the connection is open (requests: 1)"),
        "{sentence}"
    );

    let mut busy = client().patience(patience);
    busy.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let sentence = failure(busy.close()).await;
    assert!(
        sentence.contains("waited for the end of a closed connection: "),
        "{sentence}"
    );
    assert!(
        sentence.contains("the client has finished sending"),
        "{sentence}"
    );

    let mut final_one = client();
    final_one.send(GET).await;
    let sentence = failure(final_one.interim()).await;
    assert!(
        sentence.contains("waited for an interim response: a final one came, 200 OK; "),
        "{sentence}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_without_end_is_told_apart_from_one_that_is_slow() {
    let mut client = client();
    let sentence = failure(client.get("/endless")).await;
    assert!(
        sentence.starts_with("the server has sent ") && sentence.contains("doesn't stop"),
        "{sentence}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_is_told() {
    for (bytes, sentence) in [
        ("SSH-2.0-x\r\n", "what came is not a response ("),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "a content-length that is no number: \"x\"",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            "the response's length is declared more than once",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "the response's length is declared more than once",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "a transfer coding that this client doesn't know: \"gzip\"",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+1\r\na\r\n",
            "not a chunk's size: \"+1\"",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
            "a chunk of 1 bytes doesn't end after them",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n:\r\n\r\n",
            "the trailers can't be read (",
        ),
    ] {
        let stack = service_fn(move |mut conn: Conn<Stream>| async move {
            conn.io_mut().write_all(bytes.as_bytes()).await?;
            pending::<Result<ConnReport, BoxError>>().await
        });
        let told = failure(connect_to(stack).response()).await;
        assert!(told.contains(sentence), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn misuse_is_told() {
    let sentence = failure(async { client().get("no target").await }).await;
    assert!(
        sentence.starts_with("`no target` is no target of a request: "),
        "{sentence}"
    );
    let sentence =
        failure(async { encode(Request::get("/").version(Version::HTTP_2).body("").unwrap()) })
            .await;
    assert_eq!(
        sentence,
        "this client speaks HTTP/1.1 and HTTP/1.0, not HTTP/2.0"
    );
    let limits = Limits {
        header_fields: 0,
        ..Limits::default()
    };
    let sentence =
        failure(async { connect(Http::new().limits(limits.clone()), service_fn(answer)) }).await;
    assert!(
        sentence.starts_with("limits: header_fields must be "),
        "{sentence}"
    );
    let stack = ServiceBuilder::new()
        .layer(Http::new().limits(limits))
        .service(service_fn(answer));
    let sentence = failure(connect_to(stack).closed()).await;
    assert!(
        sentence.starts_with("the stack failed in poll_ready: limits: "),
        "{sentence}"
    );
}
