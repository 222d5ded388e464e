//! A thread's work against wharf, in memory and on a clock that stands still: what is measured is known to the millisecond.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version};
use http_body_util::BodyExt;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tower::service_fn;
use wharf::Body;

use super::{Cue, Dial, Signal, work};
use crate::fault::FaultKind;
use crate::gauge::{Gauge, Reading};
use crate::plan::{End, Load, Plan, tests::plan};
use crate::recorder::Tally;
use crate::schedule::{Arrivals, Pacer};
use crate::target::{Address, Form, parse_url};

/// Answers the request of this number, counted from zero.
type Handler = Rc<dyn Fn(u64, Request<Body>) -> Answer>;
type Answer = std::pin::Pin<Box<dyn Future<Output = Response<Body>>>>;

/// Connects to a handler behind wharf, through memory.
struct Memory {
    handler: Handler,
    requests: Rc<Cell<u64>>,
    dials: Rc<RefCell<Vec<String>>>,
}

impl Dial for Memory {
    type Io = DuplexStream;

    async fn dial(&self, address: &Address) -> io::Result<DuplexStream> {
        self.dials.borrow_mut().push(address.to_string());
        let (client, server) = duplex(64 * 1024);
        let (handler, requests) = (self.handler.clone(), self.requests.clone());
        let service = service_fn(move |request| {
            let number = requests.replace(requests.get() + 1);
            let answer = handler(number, request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::task::spawn_local(wharf::serve_connection(server, service));
        Ok(client)
    }
}

struct Measured {
    tally: Tally,
    dials: Vec<String>,
    reading: Reading,
}

async fn measure<F>(plan: Plan, handler: impl Fn(u64, Request<Body>) -> F + 'static) -> Measured
where
    F: Future<Output = Response<Body>> + 'static,
{
    let dials = Rc::new(RefCell::new(Vec::new()));
    let memory = Memory {
        handler: Rc::new(move |number, request| Box::pin(handler(number, request))),
        requests: Rc::default(),
        dials: dials.clone(),
    };
    let (_signal, signal) = watch::channel(Signal::Go(Instant::now()));
    let (prepared, _prepared) = mpsc::unbounded_channel();
    let gauge = Arc::new(Gauge::new());
    let share = plan.shares().remove(0);
    let cue = Cue { signal, prepared };
    let done = work(
        Arc::new(plan),
        share,
        memory,
        Pacer::coarse(),
        gauge.clone(),
        cue,
    )
    .await;
    Measured {
        tally: done.tally,
        dials: dials.take(),
        reading: Reading::of([gauge.as_ref()]),
    }
}

async fn after(millis: u64) -> Response<Body> {
    sleep(Duration::from_millis(millis)).await;
    Response::new(Body::from("hello"))
}

fn requests(requests: u64) -> Plan {
    Plan {
        end: End::Requests(requests),
        ..plan()
    }
}

/// A plan whose contents are to be echoed.
fn verify(requests: u64, pipeline: usize) -> Plan {
    let form = Form {
        method: http::Method::POST,
        fields: Vec::new(),
        content: b" and some more".to_vec(),
        http_1_0: false,
        keep_alive: true,
        verify: true,
    };
    let targets = vec![form.target(parse_url("http://127.0.0.1:1/").unwrap(), 0)];
    Plan {
        targets,
        verify: true,
        pipeline,
        end: End::Requests(requests),
        ..plan()
    }
}

/// A request every 10 ms.
const EVERY_10_MS: Load = Load::Open {
    rate: 100.0,
    arrivals: Arrivals::Even,
};

#[track_caller]
fn near(nanos: u64, millis: f64) {
    let measured = nanos as f64 / 1e6;
    assert!(
        (measured / millis - 1.0).abs() < 0.02,
        "{measured} ms instead of {millis} ms"
    );
}

#[tokio::test(start_paused = true)]
async fn percentiles_agree_with_the_truth() {
    let slow = |number: u64| match number % 100 {
        0 => 500,
        1..=9 => 90,
        _ => 20,
    };
    let plan = Plan {
        connections: 10,
        ..requests(2_000)
    };
    let tally = measure(plan, move |number, _| after(slow(number)))
        .await
        .tally;
    assert_eq!(tally.answered(), 2_000);
    for (percentile, truth) in [
        (50.0, 20.0),
        (89.9, 20.0),
        (90.5, 90.0),
        (98.9, 90.0),
        (99.1, 500.0),
        (100.0, 500.0),
    ] {
        near(tally.latency.value_at_percentile(percentile), truth);
        near(tally.service.value_at_percentile(percentile), truth);
    }
    near(
        tally.latency.mean() as u64,
        0.9 * 20.0 + 0.09 * 90.0 + 0.01 * 500.0,
    );
}

#[tokio::test(start_paused = true)]
async fn latency_counts_from_when_a_request_was_due() {
    // One connection, a request every 10 ms, 20 ms each: the one after waits ever longer, and a closed loop wouldn't tell.
    let tally = measure(
        Plan {
            load: EVERY_10_MS,
            ..requests(10)
        },
        |_, _| after(20),
    )
    .await
    .tally;
    near(tally.latency.min(), 20.0);
    near(tally.latency.max(), 9.0 * 10.0 + 20.0);
    near(tally.latency.mean() as u64, 20.0 + 10.0 * 4.5);
    near(tally.service.min(), 20.0);
    near(tally.service.max(), 20.0);
    assert_eq!((tally.late, tally.late_by_itself), (9, 0));
}

#[tokio::test(start_paused = true)]
async fn enough_connections_leave_no_gap() {
    let tally = measure(
        Plan {
            load: EVERY_10_MS,
            connections: 3,
            ..requests(50)
        },
        |_, _| after(20),
    )
    .await
    .tally;
    near(tally.latency.max(), 20.0);
    assert_eq!(tally.late, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_due_and_found_no_connection_is_unfinished() {
    let plan = Plan {
        load: EVERY_10_MS,
        end: End::After(Duration::from_secs(1)),
        ..plan()
    };
    let tally = measure(plan, |_, _| after(3_600_000)).await.tally;
    assert_eq!(
        (tally.answered(), tally.failed(), tally.unfinished),
        (0, 0, 100)
    );
}

#[tokio::test(start_paused = true)]
async fn requests_under_way_at_the_end_are_waited_for_on_request() {
    let plan = Plan {
        end: End::After(Duration::from_millis(50)),
        connections: 2,
        ..plan()
    };
    let cut = measure(plan.clone(), |_, _| after(30)).await.tally;
    assert_eq!((cut.answered(), cut.unfinished), (2, 2));
    let waited = measure(Plan { wait: true, ..plan }, |_, _| after(30))
        .await
        .tally;
    assert_eq!((waited.answered(), waited.unfinished), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_a_fault_and_the_next_request_gets_another_connection() {
    let plan = Plan {
        timeout: Duration::from_secs(1),
        ..requests(3)
    };
    let measured = measure(plan, |number, _| {
        after(if number == 1 { 3_600_000 } else { 1 })
    })
    .await;
    assert_eq!(measured.tally.answered(), 2);
    assert_eq!(measured.tally.fault(FaultKind::Timeout), 1);
    assert_eq!(measured.dials.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_go_out_together() {
    // Each is answered 10 ms after the one before it; all were sent, and due, at the same time.
    let tally = measure(
        Plan {
            pipeline: 4,
            ..requests(8)
        },
        |_, _| after(10),
    )
    .await
    .tally;
    assert_eq!(tally.answered(), 8);
    near(tally.latency.min(), 10.0);
    near(tally.latency.max(), 40.0);
}

#[tokio::test(start_paused = true)]
async fn requests_behind_an_announced_close_are_sent_again() {
    let measured = measure(
        Plan {
            pipeline: 4,
            ..requests(8)
        },
        |number, _| async move {
            let mut response = after(1).await;
            if number == 1 {
                response
                    .headers_mut()
                    .insert("connection", http::HeaderValue::from_static("close"));
            }
            response
        },
    )
    .await;
    assert_eq!((measured.tally.answered(), measured.tally.failed()), (8, 0));
    assert_eq!(measured.tally.sent_again, 2);
    assert_eq!(measured.dials.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_keep_alive_each_request_has_its_connection() {
    let measured = measure(
        Plan {
            keep_alive: false,
            ..requests(5)
        },
        |_, _| after(1),
    )
    .await;
    assert_eq!((measured.tally.answered(), measured.dials.len()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn http_1_0_is_spoken() {
    let form = Form {
        method: http::Method::GET,
        fields: Vec::new(),
        content: Vec::new(),
        http_1_0: true,
        keep_alive: true,
        verify: false,
    };
    let targets = vec![form.target(parse_url("http://127.0.0.1:1/").unwrap(), 0)];
    let measured = measure(
        Plan {
            targets,
            ..requests(3)
        },
        |_, request| async move {
            let status = if request.version() == Version::HTTP_10 {
                200
            } else {
                400
            };
            Response::builder()
                .status(status)
                .body(Body::from("x"))
                .unwrap()
        },
    )
    .await;
    assert_eq!(measured.tally.statuses, [(200, 3)].into());
    assert_eq!(
        measured.dials.len(),
        1,
        "it is kept alive, because it was asked for"
    );
}

#[tokio::test(start_paused = true)]
async fn several_addresses_are_asked_in_turn() {
    let form = Form {
        method: http::Method::GET,
        fields: Vec::new(),
        content: Vec::new(),
        http_1_0: false,
        keep_alive: true,
        verify: false,
    };
    let url = |port: u16| parse_url(&format!("http://127.0.0.1:{port}/")).unwrap();
    let asked = Rc::new(RefCell::new(Vec::new()));
    let plan = Plan {
        targets: vec![form.target(url(1), 0), form.target(url(2), 1)],
        addresses: [1, 2]
            .map(|port| Address::Tcp(([127, 0, 0, 1], port).into()))
            .into(),
        ..requests(4)
    };
    let notes = asked.clone();
    let measured = measure(plan, move |_, request| {
        notes
            .borrow_mut()
            .push(request.headers()["host"].to_str().unwrap().to_owned());
        after(1)
    })
    .await;
    assert_eq!(
        asked.take(),
        ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"]
    );
    assert_eq!(measured.dials, ["127.0.0.1:1", "127.0.0.1:2"]);
}

async fn echo(request: Request<Body>) -> Response<Body> {
    Response::new(request.into_body())
}

#[tokio::test(start_paused = true)]
async fn verify_is_content_with_an_echo() {
    for pipeline in [1, 5] {
        let tally = measure(verify(20, pipeline), |_, request| echo(request))
            .await
            .tally;
        assert_eq!((tally.answered(), tally.failed()), (20, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn verify_finds_an_answer_that_was_given_to_another_request() {
    let last = Rc::new(RefCell::new(None));
    let tally = measure(verify(10, 2), move |number, request| {
        let last = last.clone();
        async move {
            let content = request.into_body().collect().await.unwrap().to_bytes();
            let before = last.replace(Some(content.clone()));
            // One answer in the middle is the one before it once more.
            let answer = if number == 5 {
                before.unwrap()
            } else {
                content
            };
            Response::new(Body::from(answer))
        }
    })
    .await
    .tally;
    assert_eq!((tally.answered(), tally.fault(FaultKind::Crossed)), (9, 1));
}

#[tokio::test(start_paused = true)]
async fn verify_finds_an_answer_that_is_no_echo() {
    let tally = measure(verify(4, 1), |_, _| after(1)).await.tally;
    assert_eq!(tally.fault(FaultKind::Differs), 4);
}

#[tokio::test(start_paused = true)]
async fn the_gauge_says_the_same_as_the_tally_and_no_connection_is_left() {
    let Measured { tally, reading, .. } = measure(
        Plan {
            connections: 3,
            ..requests(30)
        },
        |_, _| after(5),
    )
    .await;
    assert_eq!(reading.answered, tally.answered());
    assert_eq!(reading.received, tally.received);
    assert_eq!(reading.classes, [0, 30, 0, 0, 0]);
    assert_eq!(reading.grid.iter().sum::<u64>(), 30);
    assert_eq!(reading.states, [0; 4]);
}
