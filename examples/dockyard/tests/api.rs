//! The API by table, over real connections: what is asked, what is answered.

mod support;

use std::io::Write;

use support::{Answer, Client, Dockyard, wait_until};

/// SHA-256 of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
/// Of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Asks, in order and on one connection; each row is method, path, fields, content, status, and what must be in the answer.
type Row<'a> = (
    &'a str,
    &'a str,
    &'a [&'a str],
    &'a str,
    u16,
    &'a [(&'a str, &'a str)],
);

fn table(dockyard: &Dockyard, rows: &[Row<'_>]) {
    for (method, path, fields, content, status, wanted) in rows {
        let answer = dockyard.ask(method, path, fields, content.as_bytes());
        let what = format!("{method} {path} {fields:?}: {answer:?}");
        assert_eq!(answer.status, *status, "{what}");
        for (name, value) in *wanted {
            match *name {
                "content" => assert_eq!(answer.text(), *value, "{what}"),
                "contains" => assert!(answer.text().contains(value), "{what}"),
                "without" => assert_eq!(answer.field(value), None, "{what}"),
                _ => assert_eq!(answer.field(name), Some(*value), "{what}"),
            }
        }
    }
}

#[test]
fn a_blob_is_stored_read_replaced_and_removed() {
    let dockyard = Dockyard::in_memory(&[]);
    let tag = format!("\"{HELLO}\"");
    let text = "content-type: text/plain; charset=utf-8";
    let problem = ("content-type", "application/problem+json");
    table(
        &dockyard,
        &[
            (
                "GET",
                "/b/x/a",
                &[],
                "",
                404,
                &[problem, ("contains", "there is no such blob")],
            ),
            ("HEAD", "/b/x/a", &[], "", 404, &[]),
            ("DELETE", "/b/x/a", &[], "", 404, &[]),
            ("PUT", "/b/x/a", &[text], "hello", 201, &[("etag", &tag)]),
            (
                "GET",
                "/b/x/a",
                &[],
                "",
                200,
                &[
                    ("content", "hello"),
                    ("etag", &tag),
                    ("content-type", "text/plain; charset=utf-8"),
                    ("content-length", "5"),
                    ("accept-ranges", "bytes"),
                    ("x-content-type-options", "nosniff"),
                ],
            ),
            (
                "HEAD",
                "/b/x/a",
                &[],
                "",
                200,
                &[("content-length", "5"), ("etag", &tag)],
            ),
            ("PUT", "/b/x/a", &[], "hello", 204, &[("etag", &tag)]),
            (
                "GET",
                "/b/x/a",
                &[],
                "",
                200,
                &[("content-type", "application/octet-stream")],
            ),
            ("PUT", "/b/x/empty", &[], "", 201, &[]),
            (
                "GET",
                "/b/x/empty",
                &[],
                "",
                200,
                &[("content-length", "0")],
            ),
            (
                "PUT",
                "/b/x/chunked",
                &["transfer-encoding: chunked"],
                "5\r\nhello\r\n0\r\n\r\n",
                201,
                &[("etag", &tag)],
            ),
            (
                "PUT",
                "/b/x/deep/er/k%C3%A4se%20%3F",
                &[],
                "hello",
                201,
                &[],
            ),
            (
                "GET",
                "/b/x/deep/er/k%C3%A4se%20%3F",
                &[],
                "",
                200,
                &[("content", "hello")],
            ),
            ("GET", "/b/y/a", &[], "", 404, &[]),
            ("DELETE", "/b/x/a", &[], "", 204, &[]),
            ("GET", "/b/x/a", &[], "", 404, &[]),
        ],
    );
}

#[test]
fn conditions_are_judged_by_the_strong_tag() {
    let dockyard = Dockyard::in_memory(&[]);
    dockyard.put("/b/x/a", b"hello");
    let tag = format!("\"{HELLO}\"");
    let (same, other, weak) = (
        format!("if-none-match: {tag}"),
        "if-none-match: \"x\"",
        format!("if-none-match: W/{tag}"),
    );
    let (only, not) = (format!("if-match: {tag}"), "if-match: \"x\"");
    table(
        &dockyard,
        &[
            (
                "GET",
                "/b/x/a",
                &[&same],
                "",
                304,
                &[("etag", &tag), ("without", "content-type")],
            ),
            ("GET", "/b/x/a", &[&weak], "", 304, &[]),
            ("HEAD", "/b/x/a", &[&same], "", 304, &[]),
            ("GET", "/b/x/a", &[other], "", 200, &[("content", "hello")]),
            ("GET", "/b/x/a", &["if-none-match: *"], "", 304, &[]),
            ("GET", "/b/x/a", &[&only], "", 200, &[]),
            ("GET", "/b/x/a", &[not], "", 412, &[]),
            ("GET", "/b/x/none", &[&only], "", 412, &[]),
            ("PUT", "/b/x/a", &["if-none-match: *"], "other", 412, &[]),
            ("PUT", "/b/x/new", &["if-none-match: *"], "other", 201, &[]),
            ("PUT", "/b/x/a", &[not], "other", 412, &[]),
            ("PUT", "/b/x/none", &["if-match: *"], "other", 412, &[]),
            ("DELETE", "/b/x/a", &[not], "", 412, &[]),
            ("GET", "/b/x/a", &[], "", 200, &[("content", "hello")]),
            ("PUT", "/b/x/a", &[&only], "world", 204, &[]),
            ("PUT", "/b/x/a", &[&only], "again", 412, &[]),
            ("DELETE", "/b/x/a", &["if-match: *"], "", 204, &[]),
            ("DELETE", "/b/x/a", &["if-match: *"], "", 412, &[]),
        ],
    );
}

#[test]
fn ranges_are_answered_of_small_and_of_large_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let dockyard = Dockyard::start(&["--store", folder.path().to_str().unwrap()]);
    let large: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 249) as u8).collect();
    dockyard.put("/b/x/small", b"0123456789");
    dockyard.put("/b/x/large", &large);
    let tag = dockyard.get("/b/x/small").field("etag").unwrap().to_owned();
    let (good, stale) = (format!("if-range: {tag}"), "if-range: \"x\"");
    table(
        &dockyard,
        &[
            (
                "GET",
                "/b/x/small",
                &["range: bytes=2-4"],
                "",
                206,
                &[("content", "234"), ("content-range", "bytes 2-4/10")],
            ),
            (
                "GET",
                "/b/x/small",
                &["range: bytes=-3"],
                "",
                206,
                &[("content", "789")],
            ),
            (
                "GET",
                "/b/x/small",
                &["range: bytes=8-"],
                "",
                206,
                &[("content", "89")],
            ),
            (
                "GET",
                "/b/x/small",
                &["range: bytes=8-99"],
                "",
                206,
                &[("content", "89"), ("content-range", "bytes 8-9/10")],
            ),
            (
                "GET",
                "/b/x/small",
                &["range: bytes=10-"],
                "",
                416,
                &[("content-range", "bytes */10")],
            ),
            (
                "GET",
                "/b/x/small",
                &["range: bytes=0-1,5-6"],
                "",
                206,
                &[("contains", "bytes 5-6/10")],
            ),
            (
                "GET",
                "/b/x/small",
                &["range: lines=1-2"],
                "",
                200,
                &[("content", "0123456789")],
            ),
            (
                "GET",
                "/b/x/small",
                &["range: bytes=2-4", &good],
                "",
                206,
                &[("content", "234")],
            ),
            (
                "GET",
                "/b/x/small",
                &["range: bytes=2-4", stale],
                "",
                200,
                &[("content", "0123456789")],
            ),
            (
                "HEAD",
                "/b/x/small",
                &["range: bytes=2-4"],
                "",
                200,
                &[("content-length", "10")],
            ),
        ],
    );
    for (range, part) in [
        ("100000-399999", 100_000..400_000),
        ("999999-", 999_999..1_000_000),
        ("-5", 999_995..1_000_000),
        ("0-", 0..1_000_000),
    ] {
        let answer = dockyard.ask(
            "GET",
            "/b/x/large",
            &[&format!("range: bytes={range}")],
            b"",
        );
        assert_eq!(answer.status, 206);
        assert!(answer.content == large[part], "{range}");
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent() {
    let dockyard = Dockyard::in_memory(&["--largest", "1KiB", "--budget", "1MiB"]);
    let expects = |length: usize| {
        let mut client = Client::connect(dockyard.address);
        let head = format!(
            "PUT /b/x/{length} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        );
        client.send(head.as_bytes()).unwrap();
        let first = client.answer("PUT").unwrap();
        if first.status != 100 {
            return first;
        }
        client.send(&vec![b'x'; length]).unwrap();
        client.answer("PUT").unwrap()
    };
    assert_eq!(expects(1023).status, 201);
    assert_eq!(expects(1024).status, 201);
    let refused = expects(1025);
    assert_eq!(
        (refused.status, refused.field("connection")),
        (413, Some("close"))
    );
    assert!(refused.text().contains("at most 1024 bytes"), "{refused:?}");
    // One that doesn't say how large it is, is refused when it turns out to be.
    let body = format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025));
    let chunked = dockyard.ask(
        "PUT",
        "/b/x/chunked",
        &["transfer-encoding: chunked"],
        body.as_bytes(),
    );
    assert_eq!(chunked.status, 413);
    assert_eq!(dockyard.get("/b/x/1025").status, 404);
    assert_eq!(dockyard.get("/b/x/chunked").status, 404);
    // So is one whose condition can't be met.
    let mut client = Client::connect(dockyard.address);
    client.send(b"PUT /b/x/1024 HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nif-none-match: *\r\ncontent-length: 5\r\n\r\n").unwrap();
    assert_eq!(client.answer("PUT").unwrap().status, 412);
}

/// The most memory that a process has had, in KiB.
fn most_memory(dockyard: &Dockyard) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", dockyard.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[test]
fn a_large_blob_streams_both_ways_in_little_memory_however_slow_its_reader() {
    const SIZE: usize = 48 << 20;
    let folder = tempfile::tempdir().unwrap();
    let dockyard = Dockyard::start(&["--store", folder.path().to_str().unwrap()]);
    dockyard.put("/b/x/first", &[0; 100_000]);
    let before = most_memory(&dockyard);
    let content: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    assert_eq!(dockyard.put("/b/x/large", &content).status, 201);

    // It asks, and reads nothing yet: the server sends what the kernel takes, and waits.
    let mut reader = Client::with_small_window(dockyard.address);
    reader
        .send(b"GET /b/x/large HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let own = reader.local().to_string();
    let connection = || {
        let all = (1..20).map(|id| dockyard.get(&format!("/live/connections/{id}")));
        let mut open = all.filter(|answer| answer.status == 200);
        open.find_map(|answer| {
            let connection = answer.json()["connection"].clone();
            (connection["peer"] == own).then_some(connection)
        })
    };
    let mut sent = u64::MAX;
    wait_until("it waits for its reader", || {
        let Some(connection) = connection() else {
            return false;
        };
        sent = connection["bytes_out"].as_u64().unwrap();
        connection["state"] == "sending" && connection["in_state"].as_u64() > Some(300)
    });
    assert!(sent < SIZE as u64 / 2, "{sent}");
    assert!(reader.answer("GET").unwrap().content == content);

    let grown = most_memory(&dockyard) - before;
    assert!(grown < 16 << 10, "{grown} KiB more than before");
}

#[test]
fn what_can_not_be_a_blob_is_refused_with_a_sentence() {
    let dockyard = Dockyard::in_memory(&[]);
    let (long, longest) = ("k".repeat(1025), "k".repeat(1024));
    let (beyond, at) = (format!("/b/x/{long}"), format!("/b/x/{longest}"));
    let bucket = format!("/b/{}/a", "b".repeat(64));
    table(
        &dockyard,
        &[
            ("PUT", &at, &[], "hello", 201, &[]),
            (
                "PUT",
                &beyond,
                &[],
                "hello",
                400,
                &[("contains", "1 to 1024 bytes")],
            ),
            (
                "PUT",
                &bucket,
                &[],
                "hello",
                400,
                &[("contains", "1 to 63")],
            ),
            (
                "PUT",
                "/b/UPPER/a",
                &[],
                "hello",
                400,
                &[("contains", "a-z")],
            ),
            ("PUT", "/b/.hidden/a", &[], "hello", 400, &[]),
            (
                "PUT",
                "/b/x/%00",
                &[],
                "hello",
                400,
                &[("contains", "control characters")],
            ),
            (
                "PUT",
                "/b/x/%ff",
                &[],
                "hello",
                400,
                &[("contains", "UTF-8")],
            ),
            (
                "PUT",
                "/b/x/a",
                &["content-range: bytes 0-4/5"],
                "hello",
                400,
                &[("contains", "without Content-Range")],
            ),
            (
                "PUT",
                "/b/x/a",
                &["content-encoding: gzip"],
                "hello",
                415,
                &[],
            ),
            (
                "POST",
                "/b/x/a",
                &["content-length: 0"],
                "",
                405,
                &[("allow", "GET,HEAD,PUT,DELETE"), ("contains", "Allow")],
            ),
            (
                "GET",
                "/elsewhere",
                &[],
                "",
                404,
                &[("contains", "/openapi.json")],
            ),
            (
                "GET",
                "/b/x/a",
                &[" folded: x"],
                "",
                400,
                &[("content-type", "application/problem+json")],
            ),
        ],
    );
}

#[test]
fn a_bucket_is_listed_page_by_page() {
    let dockyard = Dockyard::in_memory(&[]);
    for key in ["a/1", "a/2", "a/3", "b"] {
        dockyard.put(&format!("/b/x/{key}"), b"hello");
    }
    let keys = |query: &str| {
        let answer = dockyard.get(&format!("/b/x?{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let listing = answer.json();
        let keys = listing["blobs"].as_array().unwrap().iter();
        let keys: Vec<_> = keys
            .map(|blob| blob["key"].as_str().unwrap().to_owned())
            .collect();
        (keys.join(" "), listing["next"].as_str().map(str::to_owned))
    };
    assert_eq!(keys(""), ("a/1 a/2 a/3 b".into(), None));
    assert_eq!(
        keys("prefix=a/&limit=2"),
        ("a/1 a/2".into(), Some("a/2".into()))
    );
    assert_eq!(keys("prefix=a/&limit=2&after=a%2F2"), ("a/3".into(), None));
    assert_eq!(keys("prefix=none"), (String::new(), None));
    let first = dockyard.get("/b/x?limit=1").json()["blobs"][0].clone();
    assert_eq!(
        (first["size"].as_u64(), first["etag"].as_str()),
        (Some(5), Some(&*format!("\"{HELLO}\"")))
    );
    for bad in ["limit=0", "limit=1001", "limit=x", "prefix=%", "colour=red"] {
        assert_eq!(dockyard.get(&format!("/b/x?{bad}")).status, 400, "{bad}");
    }
    assert_eq!(
        dockyard.get("/b/none").json()["blobs"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn bazels_caches_keep_what_is_what_it_says() {
    let dockyard = Dockyard::in_memory(&[]);
    let (cas, ac, empty) = (
        format!("/cas/{HELLO}"),
        format!("/ac/{HELLO}"),
        format!("/cas/{EMPTY}"),
    );
    table(
        &dockyard,
        &[
            (
                "PUT",
                &cas,
                &[],
                "not it",
                400,
                &[("contains", "nothing was stored")],
            ),
            ("GET", &cas, &[], "", 404, &[]),
            ("PUT", &cas, &[], "hello", 201, &[]),
            ("GET", &cas, &[], "", 200, &[("content", "hello")]),
            ("HEAD", &cas, &[], "", 200, &[("content-length", "5")]),
            ("PUT", &empty, &[], "", 201, &[]),
            ("GET", &ac, &[], "", 404, &[]),
            ("PUT", &ac, &[], "an action's result", 201, &[]),
            (
                "GET",
                &ac,
                &[],
                "",
                200,
                &[("content", "an action's result")],
            ),
            (
                "PUT",
                "/cas/abc",
                &[],
                "hello",
                400,
                &[("contains", "64 hexadecimal digits")],
            ),
            ("DELETE", &cas, &[], "", 405, &[("allow", "GET,HEAD,PUT")]),
        ],
    );
}

#[test]
fn whoever_watches_is_told_and_whoever_comes_back_gets_the_rest() {
    let dockyard = Dockyard::in_memory(&["--budget", "2KiB", "--largest", "1KiB"]);
    let watch = |fields: &[&str]| {
        let mut client = Client::connect(dockyard.address);
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        client
            .send(format!("GET /watch/x HTTP/1.1\r\nhost: a\r\n{fields}\r\n").as_bytes())
            .unwrap();
        while !client.line().is_empty() {}
        client
    };
    /// The name, the key and the id of the next event.
    fn next(client: &mut Client) -> (String, String, String) {
        let (mut name, mut key, mut id) = (String::new(), String::new(), String::new());
        loop {
            let line = client.line();
            match line.split_once(": ") {
                Some(("event", value)) => name = value.to_owned(),
                Some(("id", value)) => id = value.to_owned(),
                Some(("data", value)) => {
                    let data: serde_json::Value = serde_json::from_str(value).unwrap();
                    key = data["key"].as_str().unwrap_or_default().to_owned();
                }
                _ if line.is_empty() && !name.is_empty() => return (name, key, id),
                _ => {}
            }
        }
    }
    let mut first = watch(&[]);
    dockyard.put("/b/other/z", b"not for x");
    dockyard.put("/b/x/a", b"hello");
    let (name, key, id) = next(&mut first);
    assert_eq!((&*name, &*key), ("put", "a"));
    drop(first);

    dockyard.put("/b/x/b", &[0; 900]);
    dockyard.ask("DELETE", "/b/x/b", &[], b"");
    let mut again = watch(&[&format!("last-event-id: {id}")]);
    let told = |client: &mut Client| {
        let (name, key, _) = next(client);
        format!("{name} {key}")
    };
    assert_eq!(told(&mut again), "put b");
    assert_eq!(told(&mut again), "deleted b");
    dockyard.put("/b/x/c", &[0; 900]);
    dockyard.put("/b/x/d", &[0; 900]);
    assert_eq!(told(&mut again), "put c");
    // The order within a commit is: what was asked for, then what had to make room.
    assert_eq!([told(&mut again), told(&mut again)], ["put d", "evicted a"]);
    dockyard.signal("TERM");
    wait_until("a watcher doesn't hold up the end", || {
        again.answer("GET").is_err()
    });
    assert!(dockyard.ended().success());
}

#[test]
fn those_who_run_it_learn_how_it_is() {
    let dockyard = Dockyard::in_memory(&[]);
    dockyard.put("/b/x/a", b"hello");
    dockyard.get("/b/x/a");
    dockyard.get("/b/x/none");
    assert_eq!(dockyard.get("/healthz").status, 200);
    assert_eq!(dockyard.get("/readyz").status, 200);
    let metrics = dockyard.get("/metrics");
    for line in [
        "dockyard_hits_total 1",
        "dockyard_misses_total 1",
        "dockyard_blobs 1",
        "dockyard_received_bytes_total 5",
        "dockyard_sent_bytes_total 5",
        "dockyard_writable 1",
        "http_requests_total{method=\"PUT\",status=\"2xx\"} 1",
    ] {
        assert!(
            metrics.text().lines().any(|own| own == line),
            "{line}\n{}",
            metrics.text()
        );
    }
    let document = dockyard.get("/openapi.json");
    assert_eq!(document.field("content-type"), Some("application/json"));
    assert_eq!(document.json()["openapi"], "3.1.0");
    let page = dockyard.get("/");
    assert!(page.text().contains("<title>dockyard</title>"));
    assert!(
        page.field("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
}

#[test]
fn the_access_log_has_every_request_and_is_opened_anew_on_hang_up() {
    let folder = tempfile::tempdir().unwrap();
    let (log, old) = (
        folder.path().join("access.log"),
        folder.path().join("access.log.1"),
    );
    let dockyard = Dockyard::in_memory(&["--access-log", log.to_str().unwrap()]);
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    dockyard.get("/b/x/first");
    dockyard.ask("GET", "/b/x/bad", &["no-colon"], b"");
    wait_until("both are logged", || {
        read(&log).contains("/b/x/first") && read(&log).contains("\"ended\":\"refused\"")
    });
    std::fs::rename(&log, &old).unwrap();
    dockyard.signal("HUP");
    wait_until("there is a new file", || log.exists());
    dockyard.get("/b/x/second");
    wait_until("lines go there", || read(&log).contains("/b/x/second"));
    assert!(!read(&old).contains("/b/x/second"));
}

#[test]
fn an_upload_that_breaks_off_stores_nothing() {
    let dockyard = Dockyard::in_memory(&[]);
    let mut broken = std::net::TcpStream::connect(dockyard.address).unwrap();
    broken
        .write_all(b"PUT /b/x/a HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf")
        .unwrap();
    drop(broken);
    let ended = || {
        dockyard
            .get("/metrics")
            .text()
            .lines()
            .any(|line| line.starts_with("dockyard_changes_total 0"))
    };
    wait_until("the server has noticed", || {
        dockyard.get("/live/connections/1").status == 404
    });
    assert!(ended());
    let Answer { status, .. } = dockyard.get("/b/x/a");
    assert_eq!(status, 404);
}
