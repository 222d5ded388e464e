//! Concurrent pipelining on a paused clock: what runs beside what, in which order the answers leave, and what waits for its turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, service_fn};
use wharf::{Body, BoxError, CloseReason, ConnReport, Http};

/// What was done, in its order: `+` and a path when its handler begins, `-` when it ends.
type Log = Arc<Mutex<Vec<String>>>;

/// Sleeps for as many milliseconds as the path says, and answers with it.
async fn wait(request: Request<Body>, log: Log) -> Result<Response<Body>, BoxError> {
    let path = request.uri().path().to_owned();
    log.lock().unwrap().push(format!("+{path}"));
    let millis: String = path.chars().filter(char::is_ascii_digit).collect();
    sleep(Duration::from_millis(millis.parse().unwrap_or(0))).await;
    if path.contains("panic") {
        panic!("as asked");
    }
    let mut response = Response::new(Body::from(path.clone()));
    if path.contains("close") {
        response
            .headers_mut()
            .insert("connection", "close".parse()?);
    }
    log.lock().unwrap().push(format!("-{path}"));
    Ok(response)
}

/// Sends all at once and reads to the end: the paths of the answers, how long that took, what was done, and the report.
struct Told {
    answers: Vec<String>,
    took: Duration,
    log: Vec<String>,
    report: ConnReport,
}

/// `most` of zero is the plain `Http`.
fn connect(most: usize, room: usize) -> (DuplexStream, Log, JoinHandle<ConnReport>) {
    let (client, server) = duplex(64 * 1024);
    let log = Log::default();
    let shared = log.clone();
    let service = ServiceBuilder::new()
        .concurrency_limit(room)
        .service(service_fn(move |request| wait(request, shared.clone())));
    let connection = if most == 0 {
        tokio::spawn(Http::new().connection(server.into(), service).unwrap())
    } else {
        let http = Http::new().concurrent_pipelining(most);
        tokio::spawn(http.connection(server.into(), service).unwrap())
    };
    (client, log, connection)
}

async fn tell(most: usize, room: usize, requests: &str) -> Told {
    let (mut client, log, connection) = connect(most, room);
    let begun = Instant::now();
    client.write_all(requests.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    let answers = got.split("HTTP/1.1 ").skip(1);
    let answers = answers.map(|answer| {
        let status = &answer[..3];
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        if status == "200" {
            body.to_owned()
        } else {
            status.to_owned()
        }
    });
    Told {
        answers: answers.collect(),
        took: begun.elapsed(),
        report: connection.await.unwrap(),
        log: log.lock().unwrap().clone(),
    }
}

fn gets(paths: &[&str]) -> String {
    let get = |path: &&str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    paths.iter().map(get).collect()
}

const PLENTY: usize = 100;

#[tokio::test(start_paused = true)]
async fn handlers_run_side_by_side_and_their_answers_leave_in_order() {
    let told = tell(4, PLENTY, &gets(&["/300", "/100", "/200"])).await;
    assert_eq!(told.answers, ["/300", "/100", "/200"]);
    assert_eq!(told.took, Duration::from_millis(300));
    assert_eq!(
        told.log,
        ["+/300", "+/100", "+/200", "-/100", "-/200", "-/300"]
    );
    assert_eq!(
        (told.report.requests, told.report.reason),
        (3, CloseReason::ClientClosed)
    );
}

#[tokio::test(start_paused = true)]
async fn it_is_off_by_default() {
    let told = tell(0, PLENTY, &gets(&["/300", "/100"])).await;
    assert_eq!(told.took, Duration::from_millis(400));
    assert_eq!(told.log, ["+/300", "-/300", "+/100", "-/100"]);
}

#[tokio::test(start_paused = true)]
async fn no_more_run_than_were_allowed() {
    for (most, took) in [(1, 400), (2, 200), (3, 200), (4, 100), (5, 100)] {
        let told = tell(most, PLENTY, &gets(&["/100"; 4])).await;
        assert_eq!(told.took, Duration::from_millis(took), "{most}");
        let running = told.log.iter().scan(0, |running, what| {
            *running += if what.starts_with('+') { 1 } else { -1 };
            Some(*running)
        });
        assert_eq!(running.max(), Some(most.min(4) as i32));
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_not_safe_or_has_a_body_is_a_barrier() {
    let post = "POST /100 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
    let delete = "DELETE /100 HTTP/1.1\r\nhost: a\r\n\r\n";
    let get_with_body = "GET /100 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
    let offer = "GET /100 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    for barrier in [post, delete, get_with_body, offer] {
        let requests = gets(&["/201", "/202"]) + barrier + &gets(&["/203", "/204"]);
        let told = tell(4, PLENTY, &requests).await;
        assert_eq!(told.answers, ["/201", "/202", "/100", "/203", "/204"]);
        assert_eq!(
            told.took,
            Duration::from_millis(202 + 100 + 204),
            "{barrier}"
        );
    }
    let head = "HEAD /100 HTTP/1.1\r\nhost: a\r\n\r\n";
    let told = tell(4, PLENTY, &(gets(&["/100"]) + head)).await;
    assert_eq!((told.answers[1].as_str(), told.took.as_millis()), ("", 100));
}

#[tokio::test(start_paused = true)]
async fn a_service_without_room_is_waited_for_in_turn() {
    let told = tell(4, 2, &gets(&["/100", "/100", "/100", "/100"])).await;
    assert_eq!(told.answers.len(), 4);
    assert_eq!(told.took, Duration::from_millis(200));
    let told = tell(4, 1, &gets(&["/100", "/100"])).await;
    assert_eq!(told.took, Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_refused_is_refused_in_its_place() {
    let requests = gets(&["/100", "/50"]) + "GET bad HTTP/1.1\r\n\r\n" + &gets(&["/1"]);
    let told = tell(4, PLENTY, &requests).await;
    assert_eq!(told.answers, ["/100", "/50", "400"]);
    assert!(matches!(told.report.reason, CloseReason::Refused(_)));
    assert_eq!(told.report.requests, 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_closes_is_the_last_and_the_rest_is_dropped() {
    let told = tell(4, PLENTY, &gets(&["/10", "/20close", "/500"])).await;
    assert_eq!(told.answers, ["/10", "/20close"]);
    assert_eq!(told.report.reason, CloseReason::HandlerAsked);
    assert!(told.log.contains(&"+/500".to_owned()) && !told.log.contains(&"-/500".to_owned()));
    assert!(told.took < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_behind_one_that_asked_for_close_is_not_served() {
    let close = "GET /10 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let old = "GET /10 HTTP/1.0\r\n\r\n";
    for last in [close, old] {
        let told = tell(4, PLENTY, &(gets(&["/20"]) + last + &gets(&["/30"]))).await;
        assert_eq!(told.answers, ["/20", "/10"]);
        assert_eq!(told.log, ["+/20", "+/10", "-/10", "-/20"]);
        assert_eq!(told.report.reason, CloseReason::ClientAsked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_its_own_request_and_those_behind_it() {
    let told = tell(4, PLENTY, &gets(&["/30", "/10panic", "/20"])).await;
    assert_eq!(told.answers, ["/30", "500"]);
    assert_eq!(told.report.reason, CloseReason::Panicked);
}

#[tokio::test(start_paused = true)]
async fn requests_join_while_others_are_under_way() {
    let (mut client, log, connection) = connect(4, PLENTY);
    let begun = Instant::now();
    for path in ["/300", "/200", "/100"] {
        client.write_all(gets(&[path]).as_bytes()).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(*log.lock().unwrap(), ["+/300", "+/200", "+/100"]);
    client.shutdown().await.unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(300));
    assert_eq!(connection.await.unwrap().requests, 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_takes_all_its_handlers_with_it() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (mut client, server) = duplex(1024);
    let service = service_fn(|_: Request<Body>| async {
        let _counted = Counted;
        std::future::pending::<Result<Response<Body>, BoxError>>().await
    });
    let connection = tokio::spawn(
        Http::new()
            .concurrent_pipelining(4)
            .connection(server.into(), service)
            .unwrap(),
    );
    client
        .write_all(gets(&["/", "/", "/"]).as_bytes())
        .await
        .unwrap();
    sleep(Duration::from_millis(10)).await;
    connection.abort();
    assert!(connection.await.unwrap_err().is_cancelled());
    assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_bound_that_cannot_work_is_refused() {
    for (most, works) in [(0, false), (1, true), (256, true), (257, false)] {
        let http = Http::new().concurrent_pipelining(most);
        let service = service_fn(|request| wait(request, Log::default()));
        let connection = http.connection(duplex(1).1.into(), service);
        assert_eq!(connection.is_ok(), works, "{most}");
    }
}
