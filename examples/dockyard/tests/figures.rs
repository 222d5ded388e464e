//! The frames behind the page: they come four times a second, and say what was done.

mod support;

use serde_json::Value;
use support::{Client, Dockyard, wait_until};

/// Somebody who watches, as the page does.
struct Watcher(Client);

impl Watcher {
    fn of(dockyard: &Dockyard) -> Self {
        let mut client = Client::connect(dockyard.address);
        let request = b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.send(request).unwrap();
        Self(client)
    }

    fn frame(&mut self) -> Value {
        loop {
            let line = self.0.line();
            let data = line
                .strip_prefix("data: ")
                .filter(|data| data.starts_with("{\"number\""));
            if let Some(data) = data {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// The next frame of which that holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        wait_until(what, || {
            found = self.frame();
            holds(&found)
        });
        found
    }
}

#[test]
fn they_come_four_times_a_second() {
    let dockyard = Dockyard::in_memory(&[]);
    let mut watcher = Watcher::of(&dockyard);
    // Eight in two seconds; a machine that is busy otherwise may need more than one try.
    wait_until("eight frames in two seconds", || {
        let begun = watcher.frame()["up"].as_u64().unwrap();
        let ended = (0..8)
            .map(|_| watcher.frame()["up"].as_u64().unwrap())
            .last();
        (1_900..=2_100).contains(&(ended.unwrap() - begun))
    });
}

#[test]
fn whoever_watches_is_told_of_a_stop_however_quick_it_is() {
    let dockyard = Dockyard::in_memory(&[]);
    let mut watcher = Watcher::of(&dockyard);
    watcher.frame();
    dockyard.signal("TERM");
    wait_until("the last word is read", || {
        watcher.0.line() == "event: stopped"
    });
}

#[test]
fn they_say_what_connections_requests_and_the_store_have_done() {
    let dockyard = Dockyard::in_memory(&["--largest", "1KiB", "--budget", "2KiB"]);
    let mut watcher = Watcher::of(&dockyard);
    watcher.frame();

    // One connection with a put, three requests in one write, and its end; one that is refused.
    let mut client = Client::connect(dockyard.address);
    client.ask("PUT", "/b/x/a", &[], &[0; 900]);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let three = get("/b/x/a") + &get("/b/x/none") + &get("/b/x/a");
    client.send(three.as_bytes()).unwrap();
    let statuses = [(); 3].map(|()| client.answer("GET").unwrap().status);
    assert_eq!(statuses, [200, 404, 200]);
    drop(client);
    assert_eq!(dockyard.ask("GET", "/", &[" folded: x"], b"").status, 400);
    for key in ["b", "c"] {
        dockyard.put(&format!("/b/x/{key}"), &[0; 900]);
    }

    let all_is_over = |frame: &Value| frame["open"] == 1 && frame["store"]["evictions"] == 2;
    let frame = watcher.until("all is over but the watching", all_is_over);
    assert_eq!(frame["states"], serde_json::json!({ "sending": 1 }));
    let keep = &frame["keep"];
    assert_eq!(keep["closes"]["refused"], 1, "{keep}");
    assert!(
        keep["closes"]["by the client"].as_u64() >= Some(3),
        "{keep}"
    );
    // Four requests on a connection are in the third place, for 3 and 4, as are three that came together.
    assert_eq!(keep["per_connection"][2], 1, "{keep}");
    assert!(keep["depths"][2].as_u64() >= Some(1), "{keep}");
    let rejects = frame["rejects"].as_object().unwrap();
    assert_eq!(rejects.values().collect::<Vec<_>>(), [1], "{rejects:?}");
    assert!(frame["errors_all"][0].as_u64() >= Some(1), "{frame}");
    let store = &frame["store"];
    for (name, value) in [
        ("hits", 2),
        ("misses", 1),
        ("received", 2700),
        ("sent", 1800),
    ] {
        assert_eq!(store[name], value, "{name}: {store}");
    }
    assert_eq!(
        (&store["queued"], &store["blobs"]),
        (&0.into(), &1.into()),
        "{store}"
    );
    assert!(
        store["queue"].as_u64() > Some(0) && store["budget"] == 2048,
        "{store}"
    );
    let parts = frame["time"].as_array().unwrap().iter();
    let parts: Vec<_> = parts.map(|part| part["name"].as_str().unwrap()).collect();
    let inner = [
        "client address",
        "access log",
        "keep-alive",
        "overload",
        "time-out",
    ];
    let way = [&["head", "ready"], &inner[..], &["handler", "body"]].concat();
    assert_eq!(parts, way);
    assert!(frame["quantiles"][2].as_f64() >= frame["quantiles"][0].as_f64());
}

#[test]
fn the_demonstration_keeps_within_its_bounds() {
    let dockyard = Dockyard::in_memory(&["--demo"]);
    let mut watcher = Watcher::of(&dockyard);
    // It removes some as it goes, so all hundred are there for a moment only.
    watcher.until("it has stored what it stores", |frame| {
        frame["store"]["blobs"].as_u64() >= Some(60)
    });
    for _ in 0..20 {
        let frame = watcher.frame();
        // Eight of its own, and whoever watches; one that is being closed may be counted still.
        assert!(frame["open"].as_u64() <= Some(10), "{frame}");
        assert!(frame["store"]["blobs"].as_u64() <= Some(100), "{frame}");
        assert!(
            frame["store"]["bytes"].as_u64() < Some(100 * 200 * 1024),
            "{frame}"
        );
        assert!(frame["rate"].as_f64() < Some(3_000.0), "{frame}");
    }
}
