//! What handlers do to a connection, and what it does to them: panics, errors, lies, bodies left unread or read elsewhere,
//! clients that go away, sockets that leave HTTP. In memory, on a paused clock.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf, duplex};
use tokio::time::sleep;
use tower::{Service, ServiceBuilder, service_fn};
use wharf::{Body, BoxError, CloseReason, Conn, ConnReport, Http, Limits, Reason, Reject};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Sends all of `bytes` and FIN; what came back, and how the connection ended.
async fn exchange<S, B>(bytes: &str, service: S) -> (String, ConnReport)
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + 'static,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    exchange_over(Http::new(), bytes, service).await
}

async fn exchange_over<S, B>(http: Http, bytes: &str, service: S) -> (String, ConnReport)
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + 'static,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    let mut client = wharf::test::connect(http, service);
    client.send(bytes).await;
    client.finish().await;
    let answer = client.receive_to_end().await;
    let answer = String::from_utf8(answer.into()).expect("text");
    (answer, client.closed().await)
}

fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status")
}

async fn hello(_: Request<Body>) -> Result<Response<Body>, BoxError> {
    Ok(Response::new(Body::from("hello")))
}

/// A body of these frames, its length not known.
fn frames(frames: Vec<Result<&'static str, &'static str>>) -> Body {
    let frames = frames
        .into_iter()
        .map(|frame| frame.map(|data| Frame::data(Bytes::from_static(data.as_bytes()))));
    Body::new(StreamBody::new(stream::iter(frames)))
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_call_or_in_the_future_is_500_and_the_end_of_the_connection() {
    let in_call = service_fn(
        |_: Request<Body>| -> std::future::Ready<Result<Response<Body>, BoxError>> {
            panic!("in call")
        },
    );
    let in_future = service_fn(|_: Request<Body>| async {
        if true {
            panic!("in the future")
        } else {
            hello(Request::default()).await
        }
    });
    for (answer, report) in [
        exchange(&GET.repeat(2), in_call).await,
        exchange(&GET.repeat(2), in_future).await,
    ] {
        assert_eq!(status(&answer), 500, "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"));
        assert_eq!(
            answer.matches("HTTP/1.1").count(),
            1,
            "nothing is served after it"
        );
        assert_eq!(report.reason, CloseReason::Panicked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_response_body_never_looks_like_its_end() {
    let service = service_fn(|_: Request<Body>| async {
        let body = stream::iter(0..2).map(|at| {
            if at == 0 {
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"half")))
            } else {
                panic!("in the body")
            }
        });
        Ok::<_, BoxError>(Response::new(Body::new(StreamBody::new(body))))
    });
    use futures_util::StreamExt;
    let (answer, report) = exchange(GET, service).await;
    assert!(answer.ends_with("4\r\nhalf\r\n"), "{answer}");
    assert_eq!(report.reason, CloseReason::Panicked);
}

/// A service whose `poll_ready` does what it is told.
struct Ready<F>(F);

impl<F: FnMut() -> Poll<Result<(), BoxError>>> Service<Request<Body>> for Ready<F> {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        (self.0)()
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(hello(request))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_or_fails_in_poll_ready_costs_the_connection() {
    let (answer, report) = exchange(&GET.repeat(2), Ready(|| panic!("in poll_ready"))).await;
    assert_eq!(
        (status(&answer), report.reason),
        (500, CloseReason::Panicked)
    );
    let (answer, report) = exchange(
        &GET.repeat(2),
        Ready(|| Poll::Ready(Err("for good".into()))),
    )
    .await;
    assert_eq!(
        (status(&answer), report.reason),
        (500, CloseReason::ServiceFailed)
    );
    assert_eq!(answer.matches("HTTP/1.1").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_is_asked_for_readiness_once_a_head_is_there_and_not_before() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = Ready(move || {
        count.fetch_add(1, Relaxed);
        Poll::Ready(Ok(()))
    });
    let (mut client, server) = duplex(4096);
    let connection = tokio::spawn(wharf::serve_connection(server, service));
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(asked.load(Relaxed), 0);
    client
        .write_all(b"host: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!((status(&answer), asked.load(Relaxed)), (200, 1));
    connection.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn errors_of_towers_layers_are_503_and_others_500() {
    let slow = || service_fn(|_: Request<Body>| pending::<Result<Response<Body>, BoxError>>());
    let timed = ServiceBuilder::new()
        .timeout(Duration::from_secs(1))
        .service(slow());
    let (answer, _) = exchange(GET, timed).await;
    assert_eq!(status(&answer), 503);
    let full = ServiceBuilder::new()
        .load_shed()
        .service(Ready(|| Poll::Pending));
    let (answer, _) = exchange(GET, full).await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    let failing =
        service_fn(|_: Request<Body>| async { Err::<Response<Body>, BoxError>("no".into()) });
    let (answer, report) = exchange(&GET.repeat(2), failing).await;
    assert_eq!(
        (status(&answer), answer.matches("HTTP/1.1 500").count()),
        (500, 2),
        "the connection goes on"
    );
    assert_eq!(report.reason, CloseReason::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn refusals_and_failures_can_be_said_in_ones_own_words() {
    let http = Http::new()
        .on_error(|error: &BoxError| {
            Response::builder()
                .status(502)
                .body(format!("{{\"error\":\"{error}\"}}"))
                .unwrap()
        })
        .on_reject(|reject: &Reject| {
            Response::builder()
                .status(reject.status())
                .body("{}".to_owned())
                .unwrap()
        });
    let failing =
        service_fn(|_: Request<Body>| async { Err::<Response<Body>, BoxError>("no".into()) });
    let (answer, _) = exchange_over(http, &format!("{GET}GET / HTTP/1.1\r\n\r\n"), failing).await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("{\"error\":\"no\"}HTTP/1.1 400 "),
        "{answer}"
    );
    assert!(answer.ends_with("connection: close\r\n\r\n{}"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_is_replaced_by_the_default() {
    let http = Http::new().on_reject(|_: &Reject| -> Response<String> { panic!("in the hook") });
    let (answer, _) = exchange_over(http, "GET / HTTP/1.1\r\n\r\n", service_fn(hello)).await;
    assert_eq!(status(&answer), 400);
}

#[tokio::test(start_paused = true)]
async fn no_lie_about_a_length_reaches_the_next_response() {
    fn lying(length: &'static str, body: Body) -> Response<Body> {
        Response::builder()
            .header(header::CONTENT_LENGTH, length)
            .body(body)
            .unwrap()
    }
    type Make = fn() -> Response<Body>;
    let cases: [(Make, &str, CloseReason); 4] = [
        (
            || lying("9", frames(vec![Ok("hello")])),
            "hello",
            CloseReason::ResponseLength,
        ),
        (
            || lying("3", frames(vec![Ok("hello")])),
            "hel",
            CloseReason::ResponseLength,
        ),
        (
            || lying("3", frames(vec![Ok("hel"), Ok("lo")])),
            "hel",
            CloseReason::ResponseLength,
        ),
        (
            || lying("5", frames(vec![Ok("he"), Ok(""), Ok("llo")])),
            "hello",
            CloseReason::ClientClosed,
        ),
    ];
    for (make, content, reason) in cases {
        let (answer, report) = exchange(
            GET,
            service_fn(move |_: Request<Body>| async move { Ok::<_, BoxError>(make()) }),
        )
        .await;
        assert!(answer.ends_with(&format!("\r\n\r\n{content}")), "{answer}");
        assert_eq!(report.reason, reason, "{answer}");
    }
    let exact =
        service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(lying("9", Body::from("hello"))) });
    let (answer, report) = exchange(&GET.repeat(2), exact).await;
    assert_eq!(
        answer.matches("HTTP/1.1 500").count(),
        2,
        "noticed before the head is sent: {answer}"
    );
    assert_eq!(report.reason, CloseReason::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn unread_bodies_are_drained_up_to_256_kib_as_declared() {
    const MOST: usize = 256 * 1024;
    for (length, is_kept) in [(MOST - 1, true), (MOST, true), (MOST + 1, false)] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{}{GET}",
            "x".repeat(length)
        );
        let (answer, report) = exchange(&request, service_fn(hello)).await;
        assert_eq!(
            answer.matches("HTTP/1.1 200").count(),
            if is_kept { 2 } else { 1 },
            "{length}"
        );
        assert_eq!(answer.contains("connection: close"), !is_kept);
        assert_eq!(
            report.reason,
            if is_kept {
                CloseReason::ClientClosed
            } else {
                CloseReason::BodyUnread
            }
        );
    }
}

/// A future that is ready at once and holds the request until it is dropped, as those of some layers do.
struct Holds(#[allow(dead_code, reason = "held, not used")] Request<Body>);

impl Future for Holds {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Response::new(Body::from("early"))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_only_the_answered_future_holds_is_unread() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 262145\r\n\r\nsome";
    let (answer, report) = exchange(head, service_fn(Holds)).await;
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(report.reason, CloseReason::BodyUnread);
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_closes_by_its_length_and_not_by_how_early_it_came() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n";
    for (drain_bytes, closes) in [(10, true), (11, false), (12, false)] {
        for cut in [0, head.len(), head.len() + 5] {
            let http = Http::new().limits(Limits {
                drain_bytes,
                ..Limits::default()
            });
            let mut client = wharf::test::connect(http, service_fn(hello));
            let request = format!("{head}hello world");
            let (early, late) = request.split_at(cut);
            client.send(early).await;
            client.send(late).await;
            let response = client.response().await;
            let says_close = response.headers().contains_key(header::CONNECTION);
            assert_eq!(says_close, closes, "{drain_bytes} bytes, cut at {cut}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_read_elsewhere_after_the_response() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let service = service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            tokio::spawn(async move {
                sleep(Duration::from_secs(1)).await;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                sender.send(body.len()).await.unwrap();
            });
            hello(Request::default()).await
        }
    });
    let upload = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\n{}{GET}",
        "x".repeat(500_000)
    );
    let (answer, _) = exchange(&upload, service).await;
    assert_eq!(receiver.recv().await, Some(500_000));
    assert_eq!(
        answer.matches("HTTP/1.1 200").count(),
        2,
        "and the connection goes on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_read_elsewhere_fails_when_its_connection_ends() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Body>| {
        let tell = tell.clone();
        tokio::spawn(async move {
            let whole = request.into_body().collect().await;
            let error = whole.expect_err("the body was cut");
            let reason = error.downcast_ref::<Reject>().map(Reject::reason);
            tell.send(reason).expect("the test listens");
        });
        hello(Request::new(Body::empty()))
    });
    for way in 0..3 {
        let mut client = wharf::test::connect(Http::new(), service.clone());
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhe")
            .await;
        match way {
            0 => client.reset().await,
            1 => client.cut().await,
            _ => drop(client),
        }
        assert_eq!(told.recv().await, Some(Some(Reason::BodyCut)), "way {way}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_and_response_stream_at_once() {
    let (client, server) = duplex(64);
    let echo = service_fn(|request: Request<Body>| async {
        Ok::<_, BoxError>(Response::new(request.into_body()))
    });
    let connection = tokio::spawn(wharf::serve_connection(server, echo));
    let (mut reads, mut writes) = tokio::io::split(client);
    let send = async {
        writes.write_all(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
        writes.write_all(&[b'x'; 100_000]).await.unwrap();
    };
    let mut answer = Vec::new();
    let (_, got) = tokio::join!(send, reads.read_to_end(&mut answer));
    got.unwrap();
    assert!(
        answer.ends_with(&[b'x'; 100_000]),
        "far more than any buffer holds"
    );
    assert_eq!(connection.await.unwrap().reason, CloseReason::ClientAsked);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_before_an_idle_connection_was_told_to_stop_is_served() {
    let (mut client, server) = duplex(1024);
    let conn = Conn::from(server);
    let control = wharf::test::Control::of(&conn);
    let connection = Http::new().connection(conn, service_fn(hello)).unwrap();
    let talk = async {
        let mut answers = String::new();
        client.write_all(GET.as_bytes()).await.unwrap();
        let mut first = [0; 4];
        client.read_exact(&mut first).await.unwrap();
        client.write_all(GET.as_bytes()).await.unwrap();
        control.drain();
        client.read_to_string(&mut answers).await.unwrap();
        answers
    };
    let (answers, report) = tokio::join!(talk, connection);
    assert!(answers.contains("connection: close"), "{answers}");
    assert_eq!((report.requests, report.reason), (2, CloseReason::Shutdown));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_read_to_its_trailers_was_read() {
    let echo = service_fn(|request: Request<Body>| async {
        Ok::<_, BoxError>(Response::new(request.into_body()))
    });
    let post = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nb: c\r\n\r\n";
    let (answers, report) = exchange(&format!("{post}{post}"), echo).await;
    assert_eq!(answers.matches("1\r\na\r\n0\r\nb: c\r\n\r\n").count(), 2);
    assert_eq!(report.reason, CloseReason::ClientClosed);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_finished_sending_gets_its_answer_fast_or_slow() {
    for wait in [0, 300] {
        let slow = service_fn(move |request: Request<Body>| async move {
            sleep(Duration::from_millis(wait)).await;
            hello(request).await
        });
        let (answer, report) = exchange(GET, slow).await;
        assert!(answer.ends_with("hello"), "{wait} ms: {answer}");
        assert_eq!(report.reason, CloseReason::ClientClosed);
    }
}

/// A stream that gives one request and is then reset.
struct Reset(&'static [u8]);

impl AsyncRead for Reset {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        into.put_slice(std::mem::take(&mut self.0));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Reset {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Counts its drops.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_drops_the_handler_and_the_body_that_it_reads() {
    let drops = Arc::new(AtomicUsize::new(0));
    for request in [
        GET,
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhel",
    ] {
        let counter = drops.clone();
        let service = service_fn(move |request: Request<Body>| {
            let guard = Dropped(counter.clone());
            async move {
                let _guard = guard;
                let _ = request.into_body().collect().await;
                pending::<Result<Response<Body>, BoxError>>().await
            }
        });
        let report = wharf::serve_connection(Reset(request.as_bytes()), service).await;
        assert_eq!(
            report.reason,
            CloseReason::Io(std::io::ErrorKind::ConnectionReset)
        );
    }
    assert_eq!(drops.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_buffers_is_flushed_though_the_connection_is_idle() {
    let (mut client, server) = duplex(16);
    let conn = Conn::from(BufWriter::new(server));
    let connection = Http::new().connection(conn, service_fn(hello)).unwrap();
    let talk = async {
        client.write_all(GET.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
        }
        client.shutdown().await.unwrap();
    };
    let (_, report) = tokio::join!(talk, connection);
    assert_eq!(report.reason, CloseReason::ClientClosed);
    assert_eq!(report.age, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_connection_drops_its_handler() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counter = drops.clone();
    let service = service_fn(move |_: Request<Body>| {
        let guard = Dropped(counter.clone());
        async move {
            let _guard = guard;
            pending::<Result<Response<Body>, BoxError>>().await
        }
    });
    let (mut client, server) = duplex(4096);
    let connection = tokio::spawn(wharf::serve_connection(server, service));
    client.write_all(GET.as_bytes()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(drops.load(Relaxed), 0);
    connection.abort();
    assert!(connection.await.is_err());
    assert_eq!(drops.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn early_hints_go_before_the_answer_to_1_1_and_to_nobody_else() {
    let service = service_fn(|request: Request<Body>| async move {
        let mut hints = HeaderMap::new();
        hints.insert(header::LINK, HeaderValue::from_static("</a.css>"));
        let interim = wharf::interim(&request);
        // From another task, so that it reaches a connection that waits.
        let sent = tokio::spawn(async move { interim.early_hints(hints).await.is_ok() }).await?;
        Ok::<_, BoxError>(Response::new(Body::from(sent.to_string())))
    });
    let (answer, _) = exchange(GET, service).await;
    assert!(
        answer.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("true"));
    let (answer, _) = exchange("GET / HTTP/1.0\r\n\r\n", service).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("false"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn hints_after_the_answer_are_refused_and_leave_nobody_waiting() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let service = service_fn(move |request: Request<Body>| {
        let (sender, interim) = (sender.clone(), wharf::interim(&request));
        async move {
            tokio::spawn(async move {
                sleep(Duration::from_secs(1)).await;
                sender
                    .send(
                        interim
                            .send(StatusCode::PROCESSING, HeaderMap::new())
                            .await
                            .is_ok(),
                    )
                    .await
                    .unwrap();
            });
            hello(request).await
        }
    });
    let (answer, _) = exchange(GET, service).await;
    assert!(!answer.contains(" 102 "), "{answer}");
    assert_eq!(receiver.recv().await, Some(false));
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_socket_has_the_early_bytes_and_nothing_before_101() {
    for (request, answered) in [
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly ",
            "HTTP/1.1 101 ",
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\nearly ",
            "HTTP/1.1 200 ",
        ),
    ] {
        let service = service_fn(|mut request: Request<Body>| async move {
            let upgrade = wharf::upgrade::on(&mut request).expect("an offer");
            tokio::spawn(async move {
                let mut socket = upgrade.await.unwrap();
                let mut got = [0; 10];
                socket.read_exact(&mut got).await.unwrap();
                socket.write_all(&got).await.unwrap();
            });
            let is_connect = request.method() == http::Method::CONNECT;
            let status = if is_connect {
                StatusCode::OK
            } else {
                StatusCode::SWITCHING_PROTOCOLS
            };
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            if !is_connect {
                response
                    .headers_mut()
                    .insert(header::UPGRADE, HeaderValue::from_static("echo"));
            }
            Ok::<_, BoxError>(response)
        });
        let (mut client, server) = duplex(4096);
        let connection = tokio::spawn(wharf::serve_connection(server, service));
        client.write_all(request.as_bytes()).await.unwrap();
        client.write_all(b"late").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(answered) && answer.ends_with("\r\n\r\nearly late"),
            "{answer}"
        );
        let report = connection.await.unwrap();
        assert_eq!(report.reason, CloseReason::Upgraded);
        assert_eq!(
            report.bytes_in as usize,
            request.len() + 4,
            "counted to the end"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_101_that_nobody_asked_for_is_500_and_the_connection_stays_http() {
    let service = service_fn(|_: Request<Body>| async {
        let response = Response::builder()
            .status(101)
            .header(header::UPGRADE, "echo")
            .body(Body::empty());
        response.map_err(BoxError::from)
    });
    let (answer, _) = exchange(&GET.repeat(2), service).await;
    assert_eq!(answer.matches("HTTP/1.1 500").count(), 2, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_offer_leaves_http_as_it_was() {
    let service = service_fn(|mut request: Request<Body>| async move {
        let upgrade = wharf::upgrade::on(&mut request);
        let answer = hello(request).await;
        tokio::spawn(async move {
            if let Some(upgrade) = upgrade {
                assert!(upgrade.await.is_err());
            }
        });
        answer
    });
    let offer = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    let (answer, report) = exchange(&format!("{offer}{GET}"), service).await;
    assert_eq!(
        (answer.matches("HTTP/1.1 200").count(), report.requests),
        (2, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_pipelines_and_does_not_read_is_not_served_beyond_the_write_bound() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let service = service_fn(move |_: Request<Body>| {
        count.fetch_add(1, Relaxed);
        async { Ok::<_, BoxError>(Response::new(Body::from(vec![b'x'; 2000]))) }
    });
    let (mut client, server) = duplex(16 * 1024);
    let connection = tokio::spawn(wharf::serve_connection(server, service));
    let flood = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            client.write_all(GET.as_bytes()).await.unwrap();
        }
    });
    assert!(flood.await.is_err(), "back-pressure reaches the client");
    // What the stream holds, the bound of 64 KiB, and the one answer that went beyond it.
    let most = (16 + 64) * 1024 / 2000 + 2;
    assert!(
        calls.load(Relaxed) <= most,
        "{} answers",
        calls.load(Relaxed)
    );
    drop(client);
    connection.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn more_than_64_kib_are_gathered_only_for_a_reader_that_keeps_up() {
    const FRAME: usize = 16 * 1024;
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let service = service_fn(move |_: Request<Body>| {
        let count = count.clone();
        let frames = stream::iter(std::iter::repeat_with(move || {
            count.fetch_add(FRAME, Relaxed);
            let data = Bytes::from_static(&[b'x'; FRAME]);
            Ok::<_, BoxError>(Frame::data(data))
        }));
        async { Ok::<_, BoxError>(Response::new(Body::new(StreamBody::new(frames)))) }
    });
    let mut client = wharf::test::connect(Http::new(), service);
    client.take_only(0).await;
    client.send(GET).await;
    let mut taken = 0;
    let mut held_after = async |more: usize| {
        taken += more;
        client.take_only(more).await;
        client.receive(more).await;
        given.load(Relaxed) - taken
    };
    let little = 64 * 1024 - FRAME..64 * 1024 + FRAME;
    assert!(little.contains(&held_after(0).await));
    // Its kernel may have taken this unread.
    assert!(little.contains(&held_after(300 * 1024).await));
    let much = held_after(16 << 20).await;
    assert!(much > little.end && much <= 512 * 1024 + FRAME, "{much}");
    for _ in 0..64 {
        held_after(8 * 1024).await;
    }
    assert!(little.contains(&held_after(8 * 1024).await));
}

#[tokio::test(start_paused = true)]
async fn a_connection_answers_at_most_sixteen_requests_before_others_have_their_turn() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let service = service_fn(move |request: Request<Body>| {
        count.fetch_add(1, Relaxed);
        hello(request)
    });
    let (mut client, server) = duplex(1 << 16);
    client.write_all(GET.repeat(100).as_bytes()).await.unwrap();
    let mut connection = Box::pin(wharf::serve_connection(server, service));
    let mut before = 0;
    for _ in 0..6 {
        let waker = futures_util::task::noop_waker_ref();
        assert!(
            connection
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_pending()
        );
        let now = calls.load(Relaxed);
        assert!(now - before <= 16, "{} in one poll", now - before);
        before = now;
    }
    assert!(before > 16, "and goes on");
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

#[tokio::test]
async fn a_panic_in_a_drop_ends_its_connection_and_no_other() {
    let service = service_fn(|request: Request<Body>| async move {
        let bomb = (request.uri().path() == "/bomb").then(|| Bomb);
        let answer = hello(request).await;
        drop(bomb);
        answer
    });
    let in_drop = service_fn(|_: Request<Body>| {
        let bomb = Bomb;
        async move {
            let _bomb = bomb;
            pending::<Result<Response<Body>, BoxError>>().await
        }
    });
    let (mut other, server) = duplex(4096);
    let sound = tokio::spawn(wharf::serve_connection(server, service));
    // Dropped by the handler itself, within a poll: an answer can still be made.
    let (answer, report) = exchange("GET /bomb HTTP/1.1\r\nhost: a\r\n\r\n", service).await;
    assert_eq!(
        (status(&answer), report.reason),
        (500, CloseReason::Panicked)
    );
    // Dropped by the connection, which a reset ends: that task is lost, as with any future.
    let lost = tokio::spawn(wharf::serve_connection(Reset(GET.as_bytes()), in_drop));
    assert!(lost.await.unwrap_err().is_panic());
    other.write_all(GET.as_bytes()).await.unwrap();
    other.shutdown().await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 200);
    assert_eq!(sound.await.unwrap().reason, CloseReason::ClientClosed);
}
