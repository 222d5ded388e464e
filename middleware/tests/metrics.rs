//! The metrics page of a real server, read by a strict parser of Prometheus' text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use wharf::{Address, Body, Http, Listener, Server, Shutdown};
use wharf_middleware::Metrics;

/// A family of samples.
#[derive(Debug, PartialEq)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Family {
    /// The one sample with these labels.
    fn value(&self, labels: &[(&str, &str)]) -> f64 {
        let labels = labels
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        let labels: BTreeMap<_, _> = labels.collect();
        let found = self.samples.iter().find(|sample| sample.labels == labels);
        found
            .unwrap_or_else(|| panic!("{labels:?} in {self:?}"))
            .value
    }
}

/// Reads a page; every deviation from the format is an error, also those that Prometheus lets pass.
fn parse(page: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut current: Option<String> = None;
    let mut help: Option<(String, String)> = None;
    let text = page.strip_suffix('\n').ok_or("the last line has no end")?;
    for line in text.split('\n') {
        let wrong = |what: &str| format!("{what}: {line:?}");
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment
                .split_once(' ')
                .ok_or_else(|| wrong("a bare comment"))?;
            let (name, rest) = rest
                .split_once(' ')
                .ok_or_else(|| wrong("nothing behind the name"))?;
            is_name(name, true)
                .then_some(())
                .ok_or_else(|| wrong("no name"))?;
            match (word, help.take()) {
                ("HELP", None) => help = Some((name.to_owned(), unescape(rest, false)?)),
                ("TYPE", Some((of, text))) if of == name => {
                    if !["counter", "gauge", "histogram"].contains(&rest) {
                        return Err(wrong("an unknown type"));
                    }
                    let family = Family {
                        kind: rest.to_owned(),
                        help: text,
                        samples: Vec::new(),
                    };
                    if families.insert(name.to_owned(), family).is_some() {
                        return Err(wrong("a family twice"));
                    }
                    current = Some(name.to_owned());
                }
                _ => return Err(wrong("HELP and TYPE come once each, and in this order")),
            }
            continue;
        }
        let sample = sample(line).map_err(|error| wrong(&error))?;
        let name = current
            .as_ref()
            .ok_or_else(|| wrong("a sample without a family"))?;
        let family = families.get_mut(name).ok_or_else(|| wrong("no family"))?;
        let suffix = sample
            .name
            .strip_prefix(name.as_str())
            .ok_or_else(|| wrong("another family's"))?;
        let allowed: &[&str] = if family.kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        if !allowed.contains(&suffix) || help.is_some() {
            return Err(wrong("not where it belongs"));
        }
        if family
            .samples
            .iter()
            .any(|other| (&other.name, &other.labels) == (&sample.name, &sample.labels))
        {
            return Err(wrong("a sample twice"));
        }
        family.samples.push(sample);
    }
    for (name, family) in &families {
        check(name, family).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(families)
}

/// What a family of its type has to be.
fn check(name: &str, family: &Family) -> Result<(), String> {
    let whole = |value: f64| value >= 0.0 && value.fract() == 0.0;
    match &*family.kind {
        "counter" if !name.ends_with("_total") => Err("a counter that isn't called _total".into()),
        "counter" if !family.samples.iter().all(|sample| whole(sample.value)) => {
            Err("not a count".into())
        }
        "histogram" => {
            let buckets: Vec<_> = family
                .samples
                .iter()
                .filter(|s| s.name.ends_with("_bucket"))
                .collect();
            let bounds = buckets.iter().map(|bucket| match bucket.labels.get("le") {
                Some(le) => number(le),
                None => Err("a bucket without a bound".into()),
            });
            let bounds = bounds.collect::<Result<Vec<f64>, String>>()?;
            if !bounds.is_sorted_by(|a, b| a < b) || bounds.last() != Some(&f64::INFINITY) {
                return Err("bounds don't rise to infinity".into());
            }
            if !buckets.is_sorted_by(|a, b| a.value <= b.value) {
                return Err("counts fall".into());
            }
            let of = |suffix: &str| {
                family
                    .samples
                    .iter()
                    .find(|sample| sample.name == format!("{name}{suffix}"))
            };
            let (Some(sum), Some(count)) = (of("_sum"), of("_count")) else {
                return Err("no sum or no count".into());
            };
            if buckets.last().map(|last| last.value) != Some(count.value) || sum.value < 0.0 {
                return Err("the count isn't the last bucket's".into());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    is_name(name, true).then_some(()).ok_or("no name")?;
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, value) = rest.split_once("=\"").ok_or("no label")?;
            is_name(label, false)
                .then_some(())
                .ok_or("no label's name")?;
            let end = closing_quote(value).ok_or("a quote that isn't closed")?;
            let text = unescape(&value[..end], true)?;
            if labels.insert(label.to_owned(), text).is_some() {
                return Err("a label twice".into());
            }
            rest = &value[end + 1..];
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or("labels that aren't closed")?;
    }
    let value = number(rest.strip_prefix(' ').ok_or("no space")?)?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Go's way of writing a float, without a time stamp behind it.
fn number(text: &str) -> Result<f64, String> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ if text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.e".contains(&b)) =>
        {
            text.parse().map_err(|_| format!("no number: {text}"))
        }
        _ => Err(format!("no number: {text}")),
    }
}

fn is_name(name: &str, colon: bool) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (colon && b == b':');
    name.bytes().all(plain) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

fn closing_quote(value: &str) -> Option<usize> {
    let mut escaped = false;
    value.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(text: &str, quoted: bool) -> Result<String, String> {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('\\', _) => match (chars.next(), quoted) {
                (Some('\\'), _) => out.push('\\'),
                (Some('n'), _) => out.push('\n'),
                (Some('"'), true) => out.push('"'),
                _ => return Err(format!("an unknown escape: {text:?}")),
            },
            ('"', true) => return Err(format!("a bare quote: {text:?}")),
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[test]
fn the_parser_is_strict() {
    let family = |rest: &str| format!("# HELP a_total Text.\n# TYPE a_total counter\n{rest}");
    let good = parse(&family("a_total{b=\"c\\\"\\\\\\n\",d=\"\"} 1\na_total 2\n")).unwrap();
    assert_eq!(good["a_total"].value(&[("b", "c\"\\\n"), ("d", "")]), 1.0);
    for bad in [
        "a_total 1",
        "a_total  1\n",
        "a_total one\n",
        "a_total 0x10\n",
        "a_total inf\n",
        "a_total 1.5\n",
        "a_total -1\n",
        "a_total 1 1700000000\n",
        "a_total{} 1\n",
        "a_total{b=c} 1\n",
        "a_total{b=\"c\",} 1\n",
        "a_total{b=\"c\",b=\"d\"} 1\n",
        "a_total{b=\"\\t\"} 1\n",
        "a_total{b:c=\"\"} 1\n",
        "a_total{0=\"\"} 1\n",
        "a_total 1\na_total 2\n",
        "a_total 1\n\n",
        "b_total 1\n",
        "a_total_sum 1\n",
        "# HELP a_total Text.\n# TYPE a_total counter\n",
        "# TYPE b gauge\nb 1\n",
        "# HELP b Text.\nb 1\n",
        "# HELP b Text.\n# TYPE b summary\nb 1\n",
        "# HELP b Text.\n# TYPE b counter\nb 1\n",
        "# HELP b Te\\xt.\n# TYPE b gauge\nb 1\n",
    ] {
        assert!(parse(&family(bad)).is_err(), "{bad:?}");
    }
    let histogram = |rest: &str| format!("# HELP h Text.\n# TYPE h histogram\n{rest}");
    let good = "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
    assert!(parse(&histogram(good)).is_ok());
    for (part, other) in [
        ("le=\"1\"} 1", "le=\"1\"} 3"),
        ("\"1\"", "\"+Inf\""),
        ("h_bucket{le=\"+Inf\"} 2\n", ""),
        ("h_count 2", "h_count 3"),
        ("h_sum 3\n", ""),
    ] {
        assert!(
            parse(&histogram(&good.replace(part, other))).is_err(),
            "{part} as {other}"
        );
    }
}

async fn page(metrics: &Metrics) -> BTreeMap<String, Family> {
    let response = metrics.page().oneshot(Request::new(())).await.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    parse(response.body()).unwrap_or_else(|error| panic!("{error}\n{}", response.body()))
}

#[tokio::test]
async fn a_page_is_well_formed_before_the_first_request_and_after_any() {
    let metrics = Metrics::new().follow(Server::new().handle());
    let empty = page(&metrics).await;
    let names: BTreeSet<_> = empty.keys().map(String::as_str).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        [
            "http_first_byte_seconds",
            "http_request_body_bytes",
            "http_request_duration_seconds",
            "http_requests_in_flight",
            "http_requests_refused_total",
            "http_requests_total",
            "http_response_body_bytes",
            "http_responses_total",
            "wharf_accept_errors_total",
            "wharf_connections",
            "wharf_connections_accepted_total",
            "wharf_connections_closed_total",
            "wharf_connections_max",
            "wharf_phase",
            "wharf_received_bytes_total",
            "wharf_requests_total",
            "wharf_sent_bytes_total",
        ]
    );
    assert_eq!(empty["wharf_phase"].value(&[("phase", "starting")]), 1.0);

    let service = metrics.layer(service_fn(async |_: Request<Empty<Bytes>>| {
        Ok::<_, Infallible>(Response::new("hello".to_owned()))
    }));
    // As many methods as you like make no more series.
    let series = empty["http_requests_total"].samples.len();
    for method in ["GET", "X", "Y"] {
        let request = Request::builder().method(method);
        let request = request.body(Empty::new()).unwrap();
        service.clone().oneshot(request).await.unwrap();
    }
    let full = page(&metrics).await;
    assert_eq!(full["http_requests_total"].samples.len(), series);
    assert_eq!(
        full["http_requests_total"].value(&[("method", "other"), ("status", "2xx")]),
        2.0
    );
    assert_eq!(
        full["http_requests_total"].value(&[("method", "GET"), ("status", "2xx")]),
        1.0
    );
}

#[tokio::test]
async fn numbers_of_others_are_on_the_page_whatever_they_are_called() {
    let metrics = Metrics::new()
        .counter("9 lives-total_total", "What\nis \"left\"\\", || 7)
        .gauge("queue", "First.", || 0.0)
        .gauge("queue", "Length.", || f64::NEG_INFINITY)
        .gauge("load", "", || 0.25)
        .gauge("http_requests_in_flight", "Not this one.", || 7.0);
    let page = page(&metrics).await;
    assert_eq!(page["_9_lives_total_total"].value(&[]), 7.0);
    assert_eq!(page["_9_lives_total_total"].help, "What\nis \"left\"\\");
    assert_eq!(
        (page["queue"].value(&[]), &*page["queue"].help),
        (f64::NEG_INFINITY, "Length.")
    );
    assert_eq!(page["load"].value(&[]), 0.25);
}

#[tokio::test]
async fn the_page_answers_get_and_head() {
    let mut page = Metrics::new().page();
    for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 405)] {
        let request = Request::builder().method(method).body(()).unwrap();
        assert_eq!(
            page.call(request).await.unwrap().status(),
            status,
            "{method}"
        );
    }
}

#[tokio::test]
async fn a_servers_connections_are_told_by_state_and_reason() {
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let Address::Socket(address) = *listener.local() else {
        panic!("not TCP")
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = Server::new()
        .listen(listener)
        .unwrap()
        .shutdown(Shutdown::when(async { drop(stopped.await) }));
    let handle = server.handle();
    let metrics = Metrics::new().follow(handle.clone());
    let stack = ServiceBuilder::new()
        .layer(Http::new().on_refused(metrics.refused()))
        .layer(metrics.clone())
        .service(service_fn(async |request: Request<Body>| {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, wharf::BoxError>(Response::new(Body::from(body)))
        }));
    let serving = tokio::spawn(server.serve(stack));

    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post("/")
        .header("host", "a")
        .body(Body::from("x".repeat(1_000)))
        .unwrap();
    let echo = client.send_request(request).await.unwrap();
    assert_eq!(
        echo.into_body().collect().await.unwrap().to_bytes().len(),
        1_000
    );
    until(|| handle.counts().get(&wharf::State::Idle) == Some(&1)).await;

    let open = page(&metrics).await;
    assert_eq!(open["wharf_phase"].value(&[("phase", "serving")]), 1.0);
    assert_eq!(open["wharf_phase"].value(&[("phase", "lame duck")]), 0.0);
    assert_eq!(open["wharf_connections"].value(&[("state", "idle")]), 1.0);
    assert_eq!(
        open["wharf_connections"].value(&[("state", "handling")]),
        0.0
    );
    assert_eq!(open["wharf_requests_total"].value(&[]), 1.0);
    assert_eq!(
        open["http_requests_total"].value(&[("method", "POST"), ("status", "2xx")]),
        1.0
    );
    assert_eq!(open["http_requests_in_flight"].value(&[]), 0.0);
    let sums = |name: &str| {
        open[name]
            .samples
            .iter()
            .find(|s| s.name.ends_with("_sum"))
            .unwrap()
            .value
    };
    assert_eq!(sums("http_request_body_bytes"), 1_000.0);
    assert_eq!(sums("http_response_body_bytes"), 1_000.0);
    assert!(open["wharf_received_bytes_total"].value(&[]) > 1_000.0);

    let mut broken = TcpStream::connect(address).await.unwrap();
    broken.write_all(b"no request\r\n\r\n").await.unwrap();
    let mut said = String::new();
    broken.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    drop(broken);

    drop(client);
    connection.await.unwrap().unwrap();
    until(|| handle.open() == 0).await;
    let closed = page(&metrics).await;
    assert_eq!(
        closed["wharf_connections_closed_total"].value(&[("reason", "by the client")]),
        1.0
    );
    assert_eq!(closed["wharf_connections"].value(&[("state", "idle")]), 0.0);
    // What has ended is still counted.
    assert_eq!(closed["wharf_requests_total"], open["wharf_requests_total"]);
    let received = |page: &BTreeMap<String, Family>| page["wharf_received_bytes_total"].value(&[]);
    assert_eq!(received(&closed), received(&open) + 14.0);
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    let over = page(&metrics).await;
    assert_eq!(over["wharf_phase"].value(&[("phase", "stopped")]), 1.0);
}

async fn until(reached: impl Fn() -> bool) {
    let waits = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits)
        .await
        .expect("in time");
}
