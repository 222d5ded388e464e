//! The stream as the standard's own parser sees it, the ring, those who are slow, and the end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use http::Request;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, advance, timeout};
use tower::ServiceBuilder;
use tower::service_fn;
use wharf::{Address, Http, Server, Shutdown};

use super::*;
use crate::BoxError;

const SECOND: Duration = Duration::from_secs(1);

/// What a client dispatches: the algorithm of the WHATWG HTML standard, section 9.2.6, for a whole stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Client {
    dispatched: Vec<(String, String)>,
    last_id: String,
    retry: Option<u64>,
}

impl Client {
    fn hear(stream: &[u8]) -> Self {
        let text = std::str::from_utf8(stream)
            .expect("UTF-8")
            .replace("\r\n", "\n");
        let mut client = Self::default();
        let (mut data, mut kind, mut id) = (String::new(), String::new(), String::new());
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.split(['\n', '\r']) {
            if line.is_empty() {
                client.last_id.clone_from(&id);
                if !data.is_empty() {
                    data.pop();
                    let kind = if kind.is_empty() { "message" } else { &kind };
                    client.dispatched.push((kind.to_owned(), data.clone()));
                }
                data.clear();
                kind.clear();
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => value.clone_into(&mut kind),
                "data" => data.extend([value, "\n"]),
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    client.retry = value.parse().ok();
                }
                _ => {}
            }
        }
        client
    }

    fn data(&self) -> Vec<&str> {
        self.dispatched
            .iter()
            .map(|(_, data)| data.as_str())
            .collect()
    }
}

fn heard(event: Event) -> Client {
    Client::hear(&event.into_bytes())
}

#[test]
fn a_text_arrives_as_it_was_whatever_its_line_ends() {
    for (text, arrives) in [
        ("", ""),
        ("one", "one"),
        (" two spaces stay", " two spaces stay"),
        ("a\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("a\n", "a\n"),
        ("\n", "\n"),
        ("\r\n\r\n", "\n\n"),
        ("a\n\nevent: forged\ndata: x", "a\n\nevent: forged\ndata: x"),
        (": no comment", ": no comment"),
        ("\u{feff}é\0\u{2028}", "\u{feff}é\0\u{2028}"),
    ] {
        let client = heard(Event::new(text));
        let expected = [("message".to_owned(), arrives.to_owned())];
        assert_eq!(client.dispatched, expected, "{text:?}");
    }
}

#[test]
fn nobody_breaks_out_of_a_line() {
    // Each pair and triple of what matters to the syntax.
    let parts = ["\r", "\n", ":", " ", "\0", "data", "id: 1", "x"];
    for one in parts {
        for two in parts {
            for three in parts {
                let text = [one, two, three].concat();
                let arrives = text.replace("\r\n", "\n").replace('\r', "\n");
                let client = heard(Event::new(&text));
                assert_eq!(client.data(), [arrives.as_str()], "{text:?}");
                assert_eq!(client.last_id, "");
                assert_eq!(heard(Event::comment(&text)), Client::default(), "{text:?}");
                if let Ok(event) = Event::new("d").name(&text) {
                    assert_eq!(heard(event).data(), ["d"], "{text:?}");
                }
                if let Ok(event) = Event::new("d").id(&text) {
                    let client = heard(event);
                    assert_eq!((client.data(), &client.last_id), (vec!["d"], &text));
                }
            }
        }
    }
}

#[test]
fn names_and_ids_that_cannot_be_written_are_refused() {
    for bad in ["a\nb", "a\rb", "\n", "\r\n"] {
        assert!(
            Event::new("").name(bad).is_err() && Event::new("").id(bad).is_err(),
            "{bad:?}"
        );
    }
    assert!(Event::new("").id("a\0b").is_err());
    assert!(Event::new("").name("a\0b").is_ok());
}

#[test]
fn name_id_and_retry_are_told() {
    let event = Event::new("x").name("tick").unwrap().id("7").unwrap();
    let client = heard(event);
    assert_eq!(client.dispatched, [("tick".to_owned(), "x".to_owned())]);
    assert_eq!(client.last_id, "7");
    assert_eq!(heard(Event::retry(2 * SECOND)).retry, Some(2000));
}

#[test]
fn the_last_event_id_is_what_the_client_says() {
    for (value, id) in [
        (&b"7"[..], Some("7")),
        ("é".as_bytes(), Some("é")),
        (b"", None),
        (b"\xff", None),
    ] {
        let mut fields = HeaderMap::new();
        fields.insert(
            "last-event-id",
            http::HeaderValue::from_bytes(value).unwrap(),
        );
        assert_eq!(last_event_id(&fields), id);
    }
    assert_eq!(last_event_id(&HeaderMap::new()), None);
}

/// What is there now, and whether the stream has ended.
fn drain(subscription: Pin<&mut Subscription>) -> (Client, bool) {
    let (bytes, ended) = drain_bytes(subscription);
    (Client::hear(&bytes.concat()), ended)
}

fn drain_bytes(mut subscription: Pin<&mut Subscription>) -> (Vec<Bytes>, bool) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut bytes = Vec::new();
    loop {
        match subscription.as_mut().poll_next(&mut cx) {
            Poll::Ready(Some(Ok(event))) => bytes.push(event),
            Poll::Ready(None) => return (bytes, true),
            Poll::Pending => return (bytes, false),
        }
    }
}

fn publish(hub: &Hub, numbers: std::ops::Range<u32>) {
    for number in numbers {
        hub.publish(Event::new(number.to_string()));
    }
}

#[test]
fn all_who_listen_share_the_same_bytes() {
    let hub = Hub::new();
    let (mut one, mut other) = (pin!(hub.subscribe(None)), pin!(hub.subscribe(None)));
    publish(&hub, 0..3);
    let (one, other) = (drain_bytes(one.as_mut()).0, drain_bytes(other.as_mut()).0);
    assert_eq!(one.len(), 3);
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.as_ptr(), other.as_ptr(), "encoded twice");
    }
}

#[tokio::test]
async fn who_waits_is_woken() {
    let hub = Hub::new();
    let mut listener = pin!(hub.subscribe(None));
    let publisher = hub.clone();
    let waits = async { poll_fn(|cx| listener.as_mut().poll_next(cx)).await };
    let publishes = async {
        tokio::task::yield_now().await;
        publish(&publisher, 1..2);
    };
    let (event, ()) = timeout(SECOND, async { tokio::join!(waits, publishes) })
        .await
        .expect("woken");
    assert_eq!(Client::hear(&event.unwrap().unwrap()).data(), ["1"]);
}

#[test]
fn who_comes_gets_what_comes() {
    let hub = Hub::new();
    publish(&hub, 0..2);
    let mut listener = pin!(hub.subscribe(None));
    assert_eq!(drain(listener.as_mut()), (Client::default(), false));
    publish(&hub, 2..3);
    assert_eq!(drain(listener.as_mut()).0.data(), ["2"]);
}

#[test]
fn who_comes_back_goes_on_where_it_was() {
    let hub = Hub::new();
    let mut before = pin!(hub.subscribe(None));
    publish(&hub, 0..2);
    let (client, _) = drain(before.as_mut());
    publish(&hub, 2..4);
    let mut after = pin!(hub.subscribe(Some(&client.last_id)));
    let (client, _) = drain(after.as_mut());
    assert_eq!(client.data(), ["2", "3"]);
    let mut again = pin!(hub.subscribe(Some(&client.last_id)));
    assert_eq!(
        drain(again.as_mut()).0.data(),
        Vec::<&str>::new(),
        "it has seen all"
    );
}

#[test]
fn who_missed_more_than_the_ring_holds_is_told_how_much() {
    // Four are held. Whoever has seen the first misses none of five, none of six but one of those that follow.
    for (published, missed) in [(4, None), (5, None), (6, Some("1")), (7, Some("2"))] {
        let hub = Hub::builder().events(4).build();
        let mut before = pin!(hub.subscribe(None));
        publish(&hub, 0..1);
        let (client, _) = drain(before.as_mut());
        publish(&hub, 1..published);
        let mut after = pin!(hub.subscribe(Some(&client.last_id)));
        let (client, _) = drain(after.as_mut());
        let told = client.dispatched.iter().find(|(kind, _)| kind == "missed");
        assert_eq!(told.map(|(_, count)| count.as_str()), missed, "{published}");
        let last = (published - 1).to_string();
        assert_eq!(client.data().last(), Some(&last.as_str()));
    }
}

#[test]
fn what_was_missed_is_told_once() {
    let hub = Hub::builder().events(1).build();
    let mut first = pin!(hub.subscribe(None));
    publish(&hub, 0..1);
    let (client, _) = drain(first.as_mut());
    publish(&hub, 1..3);
    let mut second = pin!(hub.subscribe(Some(&client.last_id)));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(told))) = second.as_mut().poll_next(&mut cx) else {
        panic!("told nothing")
    };
    // It breaks off right behind that.
    let id = Client::hear(&told).last_id;
    let mut third = pin!(hub.subscribe(Some(&id)));
    assert_eq!(drain(third.as_mut()).0.data(), ["2"]);
}

#[test]
fn an_id_of_another_run_or_of_nobody_is_told_so_and_gets_all_there_is() {
    let hub = Hub::new();
    let mut listener = pin!(hub.subscribe(None));
    publish(&hub, 0..2);
    let own = drain(listener.as_mut()).0.last_id;
    let (run, _) = own.split_once('-').expect("two parts");
    let other = if run == "00000000" {
        "00000001-1"
    } else {
        "00000000-1"
    };
    let not_yet = format!("{run}-3");
    let huge = format!("{run}-18446744073709551615");
    let long = format!("0{run}-1");
    for id in [other, &not_yet, &huge, &long, "1", "-", "x-y", "é"] {
        let mut back = pin!(hub.subscribe(Some(id)));
        let (client, _) = drain(back.as_mut());
        assert_eq!(client.data(), ["unknown", "0", "1"], "{id}");
        assert_eq!(client.dispatched[0].0, "missed");
    }
}

#[test]
fn who_is_slow_loses_the_oldest_and_is_told_how_many() {
    let hub = Hub::builder().events(3).lag(Lag::DropOldest).build();
    let (mut slow, mut quick) = (pin!(hub.subscribe(None)), pin!(hub.subscribe(None)));
    for number in 0..5 {
        publish(&hub, number..number + 1);
        assert_eq!(drain(quick.as_mut()).0.data(), [number.to_string()]);
    }
    let (client, ended) = drain(slow.as_mut());
    assert_eq!(client.data(), ["2", "2", "3", "4"]);
    assert_eq!(client.dispatched[0].0, "missed");
    assert!(!ended);
    assert_eq!(hub.missed(), 2);
}

#[test]
fn where_each_event_is_a_state_who_is_slow_gets_the_newest() {
    let hub = Hub::builder().events(3).lag(Lag::Coalesce).build();
    let mut empty = pin!(hub.subscribe(None));
    assert_eq!(drain(empty.as_mut()).0.data(), Vec::<&str>::new());
    let mut slow = pin!(hub.subscribe(None));
    publish(&hub, 0..2);
    assert_eq!(
        drain(slow.as_mut()).0.data(),
        ["1"],
        "although both are there"
    );
    publish(&hub, 2..10);
    let (client, ended) = drain(slow.as_mut());
    assert_eq!(client.data(), ["9"]);
    assert!(!ended);
    assert_eq!(hub.missed(), 1 + 7);
    // Who comes gets the state, unless it has it.
    let mut new = pin!(hub.subscribe(None));
    assert_eq!(drain(new.as_mut()).0.data(), ["9"]);
    let mut back = pin!(hub.subscribe(Some(&client.last_id)));
    assert_eq!(drain(back.as_mut()).0.data(), Vec::<&str>::new());
    let mut lost = pin!(hub.subscribe(Some("nobody's")));
    assert_eq!(drain(lost.as_mut()).0.data(), ["9"]);
}

#[test]
fn who_is_slow_is_sent_away_if_the_hub_says_so_and_may_come_back() {
    let hub = Hub::builder().events(3).lag(Lag::Close).build();
    let mut slow = pin!(hub.subscribe(None));
    publish(&hub, 0..1);
    let (seen, _) = drain(slow.as_mut());
    publish(&hub, 1..4);
    let mut just = pin!(hub.subscribe(Some(&seen.last_id)));
    assert_eq!(
        drain(slow.as_mut()).0.data(),
        ["1", "2", "3"],
        "three is what there is room for"
    );
    publish(&hub, 4..8);
    assert_eq!(drain(slow.as_mut()), (Client::default(), true));
    assert_eq!(drain(just.as_mut()), (Client::default(), true));
    let mut back = pin!(hub.subscribe(Some(&seen.last_id)));
    let (client, ended) = drain(back.as_mut());
    assert_eq!(
        client.data(),
        ["4", "5", "6", "7"],
        "four missed, and what is there"
    );
    assert_eq!(client.dispatched[0].0, "missed");
    assert!(!ended);
}

#[test]
fn the_ring_is_bounded_in_bytes_and_keeps_the_newest_whatever_its_size() {
    let hub = Hub::builder().bytes(1000).build();
    let (mut slow, first) = (pin!(hub.subscribe(None)), hub.subscribe(None));
    for _ in 0..10 {
        hub.publish(Event::new("x".repeat(200)));
    }
    let (kept, _) = drain_bytes(slow.as_mut());
    let bytes: usize = kept[1..].iter().map(Bytes::len).sum();
    assert!((800..=1000).contains(&bytes), "{bytes}");
    hub.publish(Event::new("x".repeat(5000)));
    let mut first = pin!(first);
    let (kept, _) = drain_bytes(first.as_mut());
    assert_eq!(kept.len(), 2, "what was missed, and the newest");
}

#[test]
fn nobody_holds_up_who_publishes_and_memory_stays_bounded() {
    let hub = Hub::builder().events(16).build();
    // A thousand that never read.
    let slow: Vec<_> = (0..1000).map(|_| hub.subscribe(None)).collect();
    publish(&hub, 0..10_000);
    assert_eq!(hub.kept(), 16);
    assert_eq!(hub.subscribers(), 1000);
    drop(slow);
    assert_eq!(hub.subscribers(), 0);
}

#[test]
fn a_closed_hub_ends_its_responses_behind_what_was_published() {
    let hub = Hub::new();
    let mut listener = pin!(hub.subscribe(None));
    publish(&hub, 0..2);
    hub.close();
    publish(&hub, 2..3);
    let (client, ended) = drain(listener.as_mut());
    assert_eq!(client.data(), ["0", "1"]);
    assert!(ended);
    let mut late = pin!(hub.subscribe(None));
    assert_eq!(drain(late.as_mut()), (Client::default(), true));
}

#[tokio::test]
async fn when_the_last_handle_is_gone_the_responses_end() {
    let hub = Hub::new();
    let response = hub.clone().answer(&Request::new(()));
    let body = tokio::spawn(response.into_body().collect());
    tokio::task::yield_now().await;
    drop(hub);
    let body = timeout(SECOND, body).await.expect("it ends").unwrap();
    assert!(body.unwrap().to_bytes().is_empty());
}

#[test]
fn the_response_says_what_it_is() {
    let hub = Hub::builder().retry(5 * SECOND).build();
    let response = hub.answer(&Request::new(()));
    let fields = response.headers();
    assert_eq!(fields["content-type"], "text/event-stream");
    assert_eq!(fields["cache-control"], "no-cache");
    assert_eq!(fields["x-accel-buffering"], "no");
    let mut body = pin!(response.into_body());
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(first))) = body.as_mut().poll_frame(&mut cx) else {
        panic!("nothing first")
    };
    assert_eq!(Client::hear(first.data_ref().unwrap()).retry, Some(5000));
}

/// The next frame, and how long it took.
async fn next<B: Body<Data = Bytes, Error = BoxError>>(body: Pin<&mut B>) -> (Bytes, Duration) {
    let begun = Instant::now();
    let mut body = body;
    let frame = body
        .as_mut()
        .frame()
        .await
        .expect("not the end")
        .expect("no error");
    (frame.into_data().expect("data"), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_comes_only_where_nothing_else_does() {
    let hub = Hub::builder().heartbeat(10 * SECOND).build();
    let mut body = pin!(hub.answer(&Request::new(())).into_body());
    for _ in 0..2 {
        let (beat, waited) = next(body.as_mut()).await;
        assert_eq!((&beat[..], waited), (&b":\n\n"[..], 10 * SECOND));
        assert_eq!(Client::hear(&beat), Client::default());
    }
    // An event after nine seconds begins the ten anew.
    let publisher = hub.clone();
    tokio::spawn(async move {
        tokio::time::sleep(9 * SECOND).await;
        publisher.publish(Event::new("x"));
    });
    let (event, waited) = next(body.as_mut()).await;
    assert_eq!(
        (Client::hear(&event).data(), waited),
        (vec!["x"], 9 * SECOND)
    );
    let (beat, waited) = next(body.as_mut()).await;
    assert_eq!((&beat[..], waited), (&b":\n\n"[..], 10 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn without_a_heartbeat_there_is_none() {
    let hub = Hub::builder().without_heartbeat().build();
    let mut body = pin!(hub.answer(&Request::new(())).into_body());
    let waits = timeout(100_000 * SECOND, body.frame()).await;
    assert!(waits.is_err());
}

#[tokio::test]
async fn any_stream_of_events_is_a_body_and_its_error_breaks_off() {
    let events = [Ok(Event::new("1")), Err("broken"), Ok(Event::new("2"))];
    let mut body = pin!(Sse::new(stream::iter(events)));
    let (first, _) = next(body.as_mut()).await;
    assert_eq!(first, "data: 1\n\n");
    let error = body.frame().await.expect("an error").expect_err("broken");
    assert_eq!(error.to_string(), "broken");
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

/// A server on which everything is a stream of `hub`'s, and a client that has had one event.
async fn served(
    hub: &Hub,
    drain: Duration,
) -> (
    wharf::Handle,
    tokio::task::JoinHandle<Result<wharf::Report, wharf::Error>>,
    TcpStream,
) {
    let listener = wharf::Listener::tcp("127.0.0.1:0").unwrap();
    let Address::Socket(address) = *listener.local() else {
        panic!("not TCP")
    };
    let server = Server::new()
        .listen(listener)
        .unwrap()
        .shutdown(Shutdown::never().drain(drain));
    let handle = server.handle();
    let answering = hub.clone();
    let stack = ServiceBuilder::new().layer(Http::new()).service(service_fn(
        move |request: Request<wharf::Body>| {
            let response = answering.answer(&request);
            std::future::ready(Ok::<_, Infallible>(response))
        },
    ));
    let server = tokio::spawn(server.serve(stack));
    let client = timeout(10 * SECOND, listen(address, hub)).await;
    let client = client.expect("an event");
    (handle, server, client)
}

async fn listen(address: SocketAddr, hub: &Hub) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        said.push(client.read_u8().await.expect("a head"));
    }
    hub.publish(Event::new("x"));
    while !said.ends_with(b"\n\n\r\n") {
        said.push(client.read_u8().await.expect("an event"));
    }
    client
}

#[tokio::test]
async fn on_wharf_a_stream_ends_whole_when_the_server_drains() {
    let hub = Hub::builder().without_heartbeat().build();
    let (handle, server, mut client) = served(&hub, 60 * SECOND).await;
    handle.stop();
    let mut rest = Vec::new();
    let ends = timeout(10 * SECOND, client.read_to_end(&mut rest)).await;
    ends.expect("long before the drain is over").unwrap();
    assert_eq!(rest, b"0\r\n\r\n", "the end of a whole response");
    drop(client);
    let report = timeout(10 * SECOND, server)
        .await
        .expect("it stops")
        .unwrap();
    let closed = report.unwrap().closed;
    assert!(!closed.contains_key("cut"), "{closed:?}");
    assert_eq!(hub.subscribers(), 0);
}

#[tokio::test]
async fn on_wharf_a_stream_ends_when_an_operator_closes_its_connection() {
    let hub = Hub::builder().without_heartbeat().build();
    let (handle, _server, mut client) = served(&hub, SECOND).await;
    assert!(handle.close(1));
    let mut rest = Vec::new();
    let ends = timeout(10 * SECOND, client.read_to_end(&mut rest)).await;
    ends.expect("it ends").unwrap();
    assert_eq!(rest, b"0\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_neither_holds_up_the_others_nor_takes_memory() {
    let hub = Hub::builder().events(8).without_heartbeat().build();
    let answering = hub.clone();
    let (mut lazy, server) = tokio::io::duplex(1024);
    let service = service_fn(move |request: Request<wharf::Body>| {
        std::future::ready(Ok::<_, Infallible>(answering.answer(&request)))
    });
    let connection = tokio::spawn(wharf::serve_connection(server, service));
    lazy.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    while hub.subscribers() == 0 {
        tokio::task::yield_now().await;
    }
    let mut quick = pin!(hub.subscribe(None));
    let text = "x".repeat(10_000);
    for _ in 0..100 {
        hub.publish(Event::new(&text));
        let (client, _) = drain(quick.as_mut());
        assert_eq!(client.data(), [text.as_str()]);
        tokio::task::yield_now().await;
    }
    assert_eq!(hub.kept(), 8);
    // The server's own deadline for writing ends it.
    advance(600 * SECOND).await;
    let _ = timeout(SECOND, connection).await.expect("it ended");
    assert_eq!(hub.subscribers(), 1);
}
