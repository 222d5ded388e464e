//! Every deadline of `Limits`, on a clock that is paused: when it fires, what the client sees, and that it doesn't fire a
//! moment earlier. Nothing here takes real time.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep, timeout};
use tower::service_fn;
use wharf::test::Client;
use wharf::{Body, BoxError, CloseReason, Http, Limits};

const SECOND: Duration = Duration::from_secs(1);

/// A client of a handler with the default limits, and when its connection began.
fn connect<F, T>(handler: fn(Request<Body>) -> F) -> (Client, Since)
where
    F: Future<Output = Result<Response<T>, BoxError>> + 'static,
    T: http_body::Body<Data = Bytes, Error: Into<BoxError>> + 'static,
{
    let client = wharf::test::connect(Http::new(), service_fn(handler));
    (client, Since(Instant::now()))
}

struct Since(Instant);

impl Since {
    /// Seconds, to a tenth.
    fn seconds(&self) -> f64 {
        tenths(self.0.elapsed())
    }
}

fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

fn closes<T>(response: &Response<T>) -> bool {
    let connection = response.headers().get(header::CONNECTION);
    connection.is_some_and(|value| value == "close")
}

async fn hello(_: Request<Body>) -> Result<Response<Body>, BoxError> {
    Ok(Response::new(Body::from("hello")))
}

/// Answers with the length of the body; an error of the body is its own.
async fn read(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Body::from(body.len().to_string())))
}

/// A response that is as long as anybody wants to read.
async fn endless(_: Request<Body>) -> Result<Response<Body>, BoxError> {
    let frame = || Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(&[b'x'; 1024])));
    let frames = stream::iter(std::iter::repeat_with(frame));
    Ok(Response::new(Body::new(StreamBody::new(frames))))
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn half_a_head_is_answered_with_408_ten_seconds_after_accept() {
    let (mut client, since) = connect(hello);
    client.send("GET / HT").await;
    let answer = client.response().await;
    assert_eq!(answer.status(), 408);
    assert!(closes(&answer), "{answer:?}");
    assert_eq!(since.seconds(), 10.0);
    let reason = client.closed().await.reason;
    assert_eq!(reason, CloseReason::HeadTimeout { got: 8 });
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_does_not_extend_the_time_for_a_head() {
    let (mut client, since) = connect(hello);
    for byte in GET.as_bytes().chunks(1).take(9) {
        client.send(byte).await;
        client.during(sleep(SECOND)).await;
    }
    assert_eq!(client.response().await.status(), 408);
    assert_eq!(since.seconds(), 10.0);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_whole_in_its_last_moment_is_served() {
    let (mut client, _) = connect(hello);
    client.send("GET / HTTP/1.1\r\n").await;
    client.during(sleep(Duration::from_millis(9_900))).await;
    client.send("host: a\r\n\r\n").await;
    assert_eq!(client.response().await.body(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_says_anything_is_not_answered() {
    let (mut client, since) = connect(hello);
    assert_eq!(client.receive_to_end().await, "");
    assert_eq!(since.seconds(), 10.0);
    let reason = client.closed().await.reason;
    assert_eq!(reason, CloseReason::HeadTimeout { got: 0 });
}

#[tokio::test(start_paused = true)]
async fn the_time_for_a_later_head_begins_with_its_first_byte() {
    let (mut client, since) = connect(hello);
    client.get("/").await;
    client.during(sleep(60 * SECOND)).await;
    client.send("GET").await;
    assert_eq!(client.response().await.status(), 408);
    assert_eq!(since.seconds(), 70.0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_75_seconds() {
    let (mut client, since) = connect(hello);
    client.get("/").await;
    client.during(sleep(Duration::from_millis(74_900))).await;
    let answer = client.get("/").await;
    assert_eq!(answer.body(), "hello", "not a moment earlier");
    assert_eq!(client.receive_to_end().await, "");
    assert_eq!(since.seconds(), 149.9);
    let reason = client.closed().await.reason;
    assert_eq!(reason, CloseReason::Idle { after: 75 * SECOND });
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_never_ready_is_answered_for_after_30_seconds() {
    struct Never;
    impl tower::Service<Request<Body>> for Never {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Pending
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let mut client = wharf::test::connect(Http::new(), Never);
    let since = Instant::now();
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let answer = client.receive_to_end().await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n"), "HEAD gets no content");
    assert_eq!(since.elapsed().as_secs(), 30);
    assert_eq!(client.closed().await.reason, CloseReason::ReadyTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_is_given_up_after_30_seconds() {
    let (mut client, since) = connect(read);
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n")
        .await;
    client.send("x".repeat(10_000)).await;
    client.during(sleep(Duration::from_millis(29_900))).await;
    assert_eq!(client.received().await, "");
    assert!(client.report().is_none());
    let answer = client.response().await;
    assert_eq!(answer.status(), 408);
    assert!(closes(&answer), "{answer:?}");
    assert_eq!(since.seconds(), 30.0);
    assert_eq!(client.closed().await.reason, CloseReason::BodyTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_a_byte_a_second_is_given_up_within_eleven_seconds() {
    let (mut client, since) = connect(read);
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n")
        .await;
    let answer = loop {
        client.send("x").await;
        if let Ok(answer) = timeout(SECOND, client.response()).await {
            break answer;
        }
    };
    assert_eq!(answer.status(), 408);
    let seconds = since.seconds();
    assert!((5.0..11.0).contains(&seconds), "{seconds}");
    assert_eq!(client.closed().await.reason, CloseReason::BodyTimeout);
}

#[tokio::test(start_paused = true)]
async fn an_honest_upload_of_2_kilobytes_a_second_is_never_cut() {
    let (mut client, _) = connect(read);
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 240000\r\n\r\n")
        .await;
    for _ in 0..120 {
        client.send("x".repeat(2_000)).await;
        client.during(sleep(SECOND)).await;
    }
    assert_eq!(client.response().await.body(), "240000");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_response_is_cut() {
    let (mut client, since) = connect(endless);
    client.take_only(4096).await;
    client.send(GET).await;
    let report = timeout(35 * SECOND, client.closed())
        .await
        .expect("in time");
    assert_eq!(report.reason, CloseReason::WriteTimeout);
    // What the buffer held bought some time beyond the grace, and no more than the stall time.
    let seconds = since.seconds();
    assert!((5.0..=30.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_fast_may_stand_still_for_30_seconds() {
    let (mut client, _) = connect(endless);
    client.take_only(1_000_000).await;
    client.send(GET).await;
    assert_eq!(client.receive(1_000_000).await.len(), 1_000_000);
    client.during(sleep(Duration::from_millis(29_900))).await;
    assert!(client.report().is_none());
    client.during(sleep(Duration::from_millis(200))).await;
    let report = client.report().expect("it has ended");
    assert_eq!(report.reason, CloseReason::WriteTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_byte_a_second_is_cut_and_one_of_2_kilobytes_is_not() {
    for (rate, is_cut) in [(1, true), (2_000, false)] {
        let (mut client, _) = connect(endless);
        client.take_only(4096).await;
        client.send(GET).await;
        for _ in 0..60 {
            client.during(sleep(SECOND)).await;
            if client.report().is_some() {
                break;
            }
            client.take_only(rate).await;
        }
        let is_over = client.report().is_some();
        assert_eq!(is_over, is_cut, "{rate} bytes a second");
    }
}

#[tokio::test(start_paused = true)]
async fn long_polls_and_event_streams_are_never_cut() {
    async fn events(_: Request<Body>) -> Result<Response<Body>, BoxError> {
        sleep(600 * SECOND).await;
        let events = stream::unfold(0, |count| async move {
            sleep(600 * SECOND).await;
            let event = http_body::Frame::data(Bytes::from_static(b"data: x\n\n"));
            (count < 3).then_some((Ok::<_, Infallible>(event), count + 1))
        });
        Ok(Response::new(Body::new(StreamBody::new(events))))
    }
    let (mut client, since) = connect(events);
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!(answer.body(), "data: x\n\ndata: x\n\ndata: x\n\n");
    assert_eq!(since.seconds(), 3_000.0);
    assert_eq!(client.closed().await.reason, CloseReason::ClientAsked);
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_waited_for_two_seconds() {
    const HALF: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    let (mut client, since) = connect(hello);
    client.send(HALF).await;
    assert_eq!(client.response().await.body(), "hello");
    client.during(sleep(Duration::from_millis(1_900))).await;
    client.send(" body!").await;
    client.send(HALF).await;
    let answer = client.response().await;
    assert_eq!(answer.body(), "hello", "the connection was kept");
    assert_eq!(client.receive_to_end().await, "");
    assert_eq!(since.seconds(), 3.9);
    assert_eq!(client.closed().await.reason, CloseReason::BodyUnread);
}

#[tokio::test(start_paused = true)]
async fn a_lingering_close_waits_five_seconds_for_a_byte_and_thirty_in_all() {
    for (pause, end) in [(6, 5.0), (4, 30.0)] {
        let (mut client, _) = connect(hello);
        client.send("GET / HTTP/9.9\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 505);
        while client.report().is_none() {
            client.during(sleep(Duration::from_secs(pause))).await;
            client.send("x").await;
        }
        let report = client.report().expect("it has ended");
        assert_eq!(tenths(report.age), end);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_great_age_is_closed_politely() {
    let limits = Limits {
        max_age: 100 * SECOND,
        ..Limits::default()
    };
    let mut client = wharf::test::connect(Http::new().limits(limits), service_fn(hello));
    for (wait, is_last) in [(0, false), (44, false), (44, false), (24, true)] {
        client.during(sleep(wait * SECOND)).await;
        assert_eq!(closes(&client.get("/").await), is_last);
    }
    assert_eq!(client.closed().await.reason, CloseReason::MaxAge);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_take_as_long_as_it_likes() {
    async fn never(_: Request<Body>) -> Result<Response<Body>, BoxError> {
        pending().await
    }
    let (client, _) = connect(never);
    let mut client = client.patience(200_000 * SECOND);
    client.send(GET).await;
    client.during(sleep(100_000 * SECOND)).await;
    assert!(client.report().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_may_be_silent_for_as_long_as_it_likes() {
    async fn echo(mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let offer = wharf::upgrade::on(&mut request).ok_or("no offer")?;
        offer.spawn(|mut socket, _| async move {
            while let Ok(byte) = socket.read_u8().await {
                let _ = socket.write_u8(byte).await;
            }
        });
        let switch = Response::builder().status(101).header("upgrade", "echo");
        Ok(switch.body(Body::empty())?)
    }
    let (client, _) = connect(echo);
    let mut client = client.patience(200_000 * SECOND);
    client
        .send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status(), 101);
    client.during(sleep(100_000 * SECOND)).await;
    client.send("!").await;
    assert_eq!(client.receive(1).await, "!");
}

/// A process that was stopped wakes with all its timers over and its sockets full.
#[tokio::test(start_paused = true)]
async fn what_came_while_the_process_was_stopped_is_served_before_any_deadline_counts() {
    let (mut idle, _) = connect(hello);
    idle.get("/").await;
    let (mut head, _) = connect(hello);
    let (first, second) = GET.split_at(9);
    head.send(first).await;
    let (mut body, _) = connect(read);
    body.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab")
        .await;
    for client in [&mut idle, &mut head, &mut body] {
        client.during(sleep(SECOND)).await;
    }
    for (client, bytes) in [(&mut idle, GET), (&mut head, second), (&mut body, "cd")] {
        client.put(bytes);
    }
    tokio::time::advance(100 * SECOND).await;
    assert_eq!(idle.response().await.body(), "hello");
    assert_eq!(head.response().await.body(), "hello");
    assert_eq!(body.response().await.body(), "4");
}

/// A socket of a process that was stopped: the runtime hears of what has come only after its timers are over.
struct LateNews {
    now: &'static [u8],
    later: &'static [u8],
    from: Instant,
    was_asked: bool,
}

impl AsyncRead for LateNews {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.now.is_empty() {
            let is_time = Instant::now() >= self.from;
            if !is_time || !std::mem::replace(&mut self.was_asked, true) {
                return Poll::Pending;
            }
            self.now = std::mem::take(&mut self.later);
        }
        into.put_slice(std::mem::take(&mut self.now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LateNews {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_believed_only_after_the_sockets_were_looked_at_once_more() {
    let (first, second) = GET.split_at(9);
    let socket = LateNews {
        now: first.as_bytes(),
        later: second.as_bytes(),
        from: Instant::now() + 10 * SECOND,
        was_asked: false,
    };
    let report = wharf::serve_connection(socket, service_fn(hello)).await;
    assert_eq!(
        (report.requests, report.reason),
        (1, CloseReason::ClientClosed)
    );
}
