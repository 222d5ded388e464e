//! Every deadline of `Limits`, on a clock that is paused: when it fires, what the client sees, and that it doesn't fire a
//! moment earlier. Nothing here takes real time.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::service_fn;
use wharf::{Body, BoxError, CloseReason, Conn, ConnReport, Http, Limits};

const SECOND: Duration = Duration::from_secs(1);

/// A client's end, and the connection at the other.
struct Client {
    io: DuplexStream,
    connection: JoinHandle<ConnReport>,
    since: Instant,
}

impl Client {
    fn new<F, T>(limits: Limits, buffer: usize, handler: fn(Request<Body>) -> F) -> Self
    where
        F: Future<Output = Result<Response<T>, BoxError>> + Send + 'static,
        T: http_body::Body<Data = Bytes> + Send + 'static,
        T::Error: Into<BoxError>,
    {
        let (io, server) = duplex(buffer);
        let connection = Http::new()
            .limits(limits)
            .connection(Conn::from(server), service_fn(handler));
        let connection = tokio::spawn(connection.expect("the limits work"));
        Self {
            io,
            connection,
            since: Instant::now(),
        }
    }

    async fn send(&mut self, bytes: &str) {
        self.io.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// One whole response whose body is as short as its `content-length` says.
    async fn response(&mut self) -> String {
        let mut got = Vec::new();
        loop {
            got.push(self.io.read_u8().await.expect("a response"));
            let text = String::from_utf8_lossy(&got);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split("content-length: ").nth(1).map_or(0, |rest| {
                    rest.lines()
                        .next()
                        .unwrap_or_default()
                        .parse()
                        .expect("a length")
                });
                if body.len() == length {
                    return text.into_owned();
                }
            }
        }
    }

    /// All that still comes, until the server finishes.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.io.read_to_end(&mut rest).await;
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Whole seconds since the connection began.
    fn seconds(&self) -> f64 {
        (self.since.elapsed().as_secs_f64() * 10.0).round() / 10.0
    }

    async fn report(self) -> ConnReport {
        drop(self.io);
        self.connection.await.expect("the connection doesn't panic")
    }
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
    let mut client = Client::new(Limits::default(), 4096, hello);
    client.send("GET / HT").await;
    let answer = client.response().await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"),
        "{answer}"
    );
    assert_eq!(client.seconds(), 10.0);
    assert_eq!(
        client.report().await.reason,
        CloseReason::HeadTimeout { got: 8 }
    );
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_does_not_extend_the_time_for_a_head() {
    let mut client = Client::new(Limits::default(), 4096, hello);
    for byte in GET.as_bytes().iter().take(9) {
        client.io.write_u8(*byte).await.unwrap();
        sleep(SECOND).await;
    }
    assert!(client.response().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.seconds(), 10.0);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_whole_in_its_last_moment_is_served() {
    let mut client = Client::new(Limits::default(), 4096, hello);
    client.send("GET / HTTP/1.1\r\n").await;
    sleep(Duration::from_millis(9_900)).await;
    client.send("host: a\r\n\r\n").await;
    assert!(client.response().await.ends_with("hello"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_says_anything_is_not_answered() {
    let mut client = Client::new(Limits::default(), 4096, hello);
    assert_eq!(client.rest().await, "");
    assert_eq!(client.seconds(), 10.0);
    assert_eq!(
        client.report().await.reason,
        CloseReason::HeadTimeout { got: 0 }
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_for_a_later_head_begins_with_its_first_byte() {
    let mut client = Client::new(Limits::default(), 4096, hello);
    client.send(GET).await;
    client.response().await;
    sleep(60 * SECOND).await;
    client.send("GET").await;
    assert!(client.response().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(client.seconds(), 70.0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_75_seconds() {
    let mut client = Client::new(Limits::default(), 4096, hello);
    client.send(GET).await;
    client.response().await;
    sleep(Duration::from_millis(74_900)).await;
    client.send(GET).await;
    assert!(
        client.response().await.ends_with("hello"),
        "not a moment earlier"
    );
    assert_eq!(client.rest().await, "");
    assert_eq!(client.seconds(), 149.9);
    assert_eq!(
        client.report().await.reason,
        CloseReason::Idle { after: 75 * SECOND }
    );
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
    let (mut io, server) = duplex(4096);
    let connection = tokio::spawn(wharf::serve_connection(server, Never));
    let since = Instant::now();
    io.write_all(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n"), "HEAD gets no content");
    assert_eq!(since.elapsed().as_secs(), 30);
    drop(io);
    assert_eq!(connection.await.unwrap().reason, CloseReason::ReadyTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_is_given_up_after_30_seconds() {
    let mut client = Client::new(Limits::default(), 65_536, read);
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n")
        .await;
    client.send(&"x".repeat(10_000)).await;
    sleep(Duration::from_millis(29_900)).await;
    assert!(!client.connection.is_finished());
    let answer = client.response().await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"),
        "{answer}"
    );
    assert_eq!(client.seconds(), 30.0);
    assert_eq!(client.report().await.reason, CloseReason::BodyTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_a_byte_a_second_is_given_up_within_eleven_seconds() {
    let mut client = Client::new(Limits::default(), 4096, read);
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n")
        .await;
    let answer = loop {
        client.io.write_u8(b'x').await.unwrap();
        if let Ok(answer) = timeout(SECOND, client.response()).await {
            break answer;
        }
    };
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        (5.0..11.0).contains(&client.seconds()),
        "{}",
        client.seconds()
    );
    assert_eq!(client.report().await.reason, CloseReason::BodyTimeout);
}

#[tokio::test(start_paused = true)]
async fn an_honest_upload_of_2_kilobytes_a_second_is_never_cut() {
    let mut client = Client::new(Limits::default(), 4096, read);
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 240000\r\n\r\n")
        .await;
    for _ in 0..120 {
        client.send(&"x".repeat(2_000)).await;
        sleep(SECOND).await;
    }
    assert!(client.response().await.ends_with("240000"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_response_is_cut() {
    let mut client = Client::new(Limits::default(), 4096, endless);
    client.send(GET).await;
    let report = timeout(35 * SECOND, &mut client.connection)
        .await
        .expect("in time")
        .unwrap();
    assert_eq!(report.reason, CloseReason::WriteTimeout);
    // What the buffer held bought some time beyond the grace, and no more than the stall time.
    let seconds = client.seconds();
    assert!((5.0..=30.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_fast_may_stand_still_for_30_seconds() {
    let mut client = Client::new(Limits::default(), 65_536, endless);
    client.send(GET).await;
    let mut taken = vec![0; 1_000_000];
    client.io.read_exact(&mut taken).await.unwrap();
    sleep(Duration::from_millis(29_900)).await;
    assert!(!client.connection.is_finished());
    sleep(Duration::from_millis(200)).await;
    assert_eq!(
        (&mut client.connection).await.unwrap().reason,
        CloseReason::WriteTimeout
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_byte_a_second_is_cut_and_one_of_2_kilobytes_is_not() {
    for (rate, is_cut) in [(1, true), (2_000, false)] {
        let mut client = Client::new(Limits::default(), 4096, endless);
        client.send(GET).await;
        let mut taken = vec![0; rate];
        for _ in 0..60 {
            sleep(SECOND).await;
            if client.io.read_exact(&mut taken).await.is_err() || client.connection.is_finished() {
                break;
            }
        }
        assert_eq!(
            client.connection.is_finished(),
            is_cut,
            "{rate} bytes a second"
        );
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
    let mut client = Client::new(Limits::default(), 4096, events);
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.rest().await.matches("data: x").count(), 3);
    assert_eq!(client.seconds(), 3_000.0);
    assert_eq!(client.report().await.reason, CloseReason::ClientAsked);
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_waited_for_two_seconds() {
    let mut client = Client::new(Limits::default(), 4096, hello);
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    assert!(client.response().await.ends_with("hello"));
    sleep(Duration::from_millis(1_900)).await;
    client.send(" body!").await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf")
        .await;
    assert!(
        client.response().await.ends_with("hello"),
        "the connection was kept"
    );
    assert_eq!(client.rest().await, "");
    assert_eq!(client.seconds(), 3.9);
    assert_eq!(client.report().await.reason, CloseReason::BodyUnread);
}

#[tokio::test(start_paused = true)]
async fn a_lingering_close_waits_five_seconds_for_a_byte_and_thirty_in_all() {
    for (pause, end) in [(6, 5.0), (4, 30.0)] {
        let mut client = Client::new(Limits::default(), 4096, hello);
        client.send("GET / HTTP/9.9\r\n\r\n").await;
        assert!(client.response().await.starts_with("HTTP/1.1 505 "));
        while !client.connection.is_finished() {
            let _ = timeout(Duration::from_secs(pause), &mut client.connection).await;
            if !client.connection.is_finished() && client.io.write_u8(b'x').await.is_err() {
                break;
            }
        }
        assert_eq!(client.seconds(), end);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_great_age_is_closed_politely() {
    let limits = Limits {
        max_age: 100 * SECOND,
        ..Limits::default()
    };
    let mut client = Client::new(limits, 4096, hello);
    for (wait, is_last) in [(0, false), (44, false), (44, false), (24, true)] {
        sleep(wait * SECOND).await;
        client.send(GET).await;
        assert_eq!(
            client.response().await.contains("connection: close"),
            is_last
        );
    }
    assert_eq!(client.report().await.reason, CloseReason::MaxAge);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_take_as_long_as_it_likes() {
    async fn never(_: Request<Body>) -> Result<Response<Body>, BoxError> {
        pending().await
    }
    let mut client = Client::new(Limits::default(), 4096, never);
    client.send(GET).await;
    sleep(100_000 * SECOND).await;
    assert!(!client.connection.is_finished());
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
    let mut client = Client::new(Limits::default(), 4096, echo);
    client
        .send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    assert!(client.response().await.starts_with("HTTP/1.1 101"));
    sleep(100_000 * SECOND).await;
    client.send("!").await;
    assert_eq!(client.io.read_u8().await.unwrap(), b'!');
}

/// A process that was stopped wakes with all its timers over and its sockets full.
#[tokio::test(start_paused = true)]
async fn what_came_while_the_process_was_stopped_is_served_before_any_deadline_counts() {
    let mut idle = Client::new(Limits::default(), 4096, hello);
    idle.send(GET).await;
    idle.response().await;
    let mut head = Client::new(Limits::default(), 4096, hello);
    let (first, second) = GET.split_at(9);
    head.send(first).await;
    let mut body = Client::new(Limits::default(), 4096, read);
    body.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab")
        .await;
    sleep(SECOND).await;
    // No wait between these two: the server hasn't run when the clock has moved on.
    for (client, bytes) in [(&mut idle, GET), (&mut head, second), (&mut body, "cd")] {
        client.send(bytes).await;
    }
    tokio::time::advance(100 * SECOND).await;
    assert!(idle.response().await.ends_with("hello"));
    assert!(head.response().await.ends_with("hello"));
    assert!(body.response().await.ends_with("\r\n\r\n4"));
}
