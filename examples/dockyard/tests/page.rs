//! The page in a real browser. Pictures of it are left in `target/dockyard-page`.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use support::{Client, Dockyard, wait_until};
use wharf_browser::{Browser, Look};

fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../dockyard-page");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The number that an element begins with.
fn number(browser: &Browser, id: &str) -> f64 {
    let text = browser.text(id).replace([',', '\u{a0}'], "");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text[..digits].parse().unwrap_or(-1.0)
}

fn rows(browser: &Browser, table: &str) -> usize {
    let script = format!("return document.querySelectorAll('#{table} tbody tr').length");
    browser.run(&script).as_u64().unwrap() as usize
}

#[test]
fn its_figures_move_and_it_fits_every_width_and_theme() {
    let dockyard = Dockyard::in_memory(&["--demo"]);
    let browser = Browser::start();
    browser.look(&Look::desktop());
    browser.open(&dockyard.url("/"));

    wait_until("requests come in", || number(&browser, "rate") > 10.0);
    assert_eq!(browser.text("phase"), "serving");
    wait_until("quantiles are shown", || number(&browser, "p999") > 0.0);
    wait_until("every panel has something to say", || {
        let empty = "return ['time','states','rejects','per-conn','depths','closes','writer','way'].filter(id => !document.getElementById(id).innerText.trim() || document.getElementById(id).innerText.includes('nothing was')).join()";
        browser.run(empty) == ""
    });
    let parts = browser.text("time");
    for part in [
        "head",
        "ready",
        "access log",
        "keep-alive",
        "overload",
        "time-out",
        "handler",
        "body",
    ] {
        assert!(parts.contains(part), "{parts}");
    }
    let (frames, served) = (
        number(&browser, "frames"),
        browser.run("return seen.lines.length"),
    );
    assert!(served.as_u64().unwrap() > 0);
    wait_until("frames go on", || {
        number(&browser, "frames") >= frames + 8.0
    });
    wait_until("it has a history to show", || {
        browser.run("return seen.columns.length").as_u64().unwrap() >= 20
    });
    // What it misses, it says: here it is made to believe that it saw three frames less.
    let missed = || {
        let said = browser.text("lost");
        let count = said.strip_prefix("this page was too slow for ");
        count.map_or(0, |count| count.split(' ').next().unwrap().parse().unwrap())
    };
    let before: u64 = missed();
    browser.run("seen.number -= 3");
    wait_until("it says how many it has missed", || missed() >= before + 3);

    for (name, look) in [("desktop", Look::desktop()), ("phone", Look::phone())] {
        for theme in ["light", "dark"] {
            browser.look(&Look {
                dark: theme == "dark",
                ..look
            });
            let fits = "return document.documentElement.scrollWidth <= window.innerWidth";
            wait_until("it fits", || browser.run(fits) == true);
            let ground = browser.run("return getComputedStyle(document.body).backgroundColor");
            let is_dark = ground.as_str().unwrap().starts_with("rgb(14,");
            assert_eq!(is_dark, theme == "dark", "{ground}");
            browser.picture(&pictures().join(format!("{name}-{theme}.png")));
        }
    }
    assert_eq!(browser.errors(), [] as [&str; 0]);
}

#[test]
fn over_tls_a_browser_speaks_http_2_and_the_page_says_so() {
    let dockyard = Dockyard::in_memory(&["--tls", "--demo"]);
    let browser = Browser::start();
    browser.look(&Look::desktop());
    browser.open(&dockyard.url("/"));
    wait_until("requests come in", || number(&browser, "rate") > 10.0);
    let spoken = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.run(spoken), "h2");
    // The browser's connection is one, the demonstration's are others.
    let protocols = "return [...new Set([...document.querySelectorAll('#conns tbody tr')].map(row => row.cells[2].textContent))].sort().join('; ')";
    wait_until("each connection says what it speaks", || {
        browser.run(protocols) == "h2, TLS 1.3; http/1.1, TLS 1.3"
    });
    let own = "const row = [...document.querySelectorAll('#conns tbody tr')].find(row => row.cells[2].textContent.startsWith('h2')); if (row) row.click(); return !!row";
    wait_until("the browser's own is chosen", || browser.run(own) == true);
    wait_until("it is shown closely", || {
        let detail = browser.text("detail");
        detail.contains("h2, TLS 1.3") && detail.contains("GET /live")
    });
    let way = browser.text("way");
    assert!(way.contains("TLS"), "{way}");
    browser.picture(&pictures().join("http2.png"));
    assert_eq!(browser.errors(), [] as [&str; 0]);

    // The drain is seen to its end on the connection that it goes through.
    browser.click("#drain");
    browser.accept_question();
    wait_until("it has stopped", || browser.text("phase") == "stopped");
    assert!(dockyard.ended().success());
}

#[test]
fn a_page_of_a_server_that_nobody_has_asked_says_what_to_try() {
    let dockyard = Dockyard::in_memory(&[]);
    let browser = Browser::start();
    browser.look(&Look::desktop());
    browser.open(&dockyard.url("/"));
    let is_shown = || browser.run("return !document.getElementById('nothing').hidden") == true;
    wait_until("it says what to try", is_shown);
    let said = browser.text("nothing");
    assert!(
        said.contains(&dockyard.url("/b/docs")) && said.contains("--demo"),
        "{said}"
    );
    browser.picture(&pictures().join("idle.png"));
    dockyard.put("/b/docs/a", b"hello");
    wait_until("it shows what was tried", || {
        browser.text("log").contains("/b/docs/a") && !is_shown()
    });
    assert_eq!(browser.errors(), [] as [&str; 0]);
}

#[test]
fn the_log_can_be_filtered_and_paused_and_a_connection_be_looked_at_and_closed() {
    let dockyard = Dockyard::in_memory(&[]);
    let mut client = Client::connect(dockyard.address);
    client.ask("PUT", "/b/x/apple", &[], b"red");
    client.ask("GET", "/b/x/apple", &[], b"");
    client.ask("GET", "/b/x/pear", &[], b"");
    let browser = Browser::start();
    browser.look(&Look {
        dark: true,
        ..Look::desktop()
    });
    browser.open(&dockyard.url("/"));
    wait_until("the lines are there", || {
        browser.text("log").contains("/b/x/pear")
    });

    browser.run("document.getElementById('filter').value = 'apple'; document.getElementById('filter').oninput()");
    assert_eq!(rows(&browser, "log"), 2);
    browser.run(
        "document.getElementById('filter').value = ''; document.getElementById('filter').oninput()",
    );
    browser.click("#only-errors");
    assert_eq!(rows(&browser, "log"), 1);
    browser.click("#only-errors");

    browser.click("#pause");
    let before = rows(&browser, "log");
    client.ask("GET", "/b/x/plum", &[], b"");
    wait_until("it says that there is more", || {
        browser.text("log-n").contains("newer")
    });
    assert_eq!(rows(&browser, "log"), before);
    browser.click("#pause");
    assert!(browser.text("log").contains("/b/x/plum"));

    let id = browser.run("return seen.lines.find(line => line.target === '/b/x/plum').connection");
    let row = format!("#conns tr[data-id='{id}']");
    wait_until("the connection is listed", || {
        browser.run(&format!("return !!document.querySelector(\"{row}\")")) == true
    });
    browser.run(&format!("document.querySelector(\"{row}\").click()"));
    wait_until("it is shown closely", || {
        let detail = browser.text("detail");
        detail.contains(&format!("Connection #{id}"))
            && detail.contains("/b/x/plum")
            && detail.contains("idle")
    });
    browser.picture(&pictures().join("connection.png"));
    browser.click("#detail .risky");
    wait_until("it has ended", || {
        browser.text("detail").contains("has ended")
    });
    assert!(client.try_ask("GET", "/b/x/apple", &[], b"").is_err());
    // The browser itself reports the answer 404 about a connection that has ended.
    let errors = browser.errors();
    assert!(
        errors
            .iter()
            .all(|error| error.contains("/live/connections/")),
        "{errors:?}"
    );
}

#[test]
fn the_drain_button_shows_the_drain_and_the_server_ends() {
    let dockyard = Dockyard::in_memory(&["--drain", "30"]);
    // An upload that hasn't come to its end holds the drain up; it is slow, but not too slow to be borne.
    let mut slow = Client::connect(dockyard.address);
    let (done, is_done) = std::sync::mpsc::channel();
    let upload = std::thread::spawn(move || {
        let head = "PUT /b/x/slow HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        slow.send(head.as_bytes()).unwrap();
        while is_done.recv_timeout(Duration::from_millis(100)).is_err() {
            slow.send(format!("64\r\n{}\r\n", "x".repeat(100)).as_bytes())
                .unwrap();
        }
        slow.send(b"0\r\n\r\n").unwrap();
        slow.answer("PUT").unwrap().status
    });
    let browser = Browser::start();
    browser.look(&Look::desktop());
    browser.open(&dockyard.url("/"));
    wait_until("it serves", || browser.text("phase") == "serving");

    browser.click("#drain");
    browser.accept_question();
    wait_until("it drains", || browser.text("phase") == "draining");
    wait_until("it says for whom it waits", || {
        browser
            .text("notice")
            .contains("1 connection left, 1 running")
    });
    browser.picture(&pictures().join("draining.png"));

    done.send(()).unwrap();
    assert_eq!(upload.join().unwrap(), 201);
    wait_until("it has stopped", || browser.text("phase") == "stopped");
    browser.picture(&pictures().join("stopped.png"));
    assert!(dockyard.ended().success());
}

#[test]
fn a_slow_viewer_loses_frames_and_nobody_waits_for_it() {
    let dockyard = Dockyard::in_memory(&[]);
    /// The next frame.
    fn frame(client: &mut Client) -> serde_json::Value {
        loop {
            let line = client.line();
            if let Some(data) = line.strip_prefix("data: {\"number\"") {
                return serde_json::from_str(&format!("{{\"number\"{data}")).unwrap();
            }
        }
    }
    let number = |client: &mut Client| frame(client)["number"].as_u64().unwrap();
    let watch = |mut client: Client| {
        client
            .send(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .unwrap();
        client
    };
    let mut slow = watch(Client::with_small_window(dockyard.address));
    let mut seen = number(&mut slow);
    // One reads an eighth of what the other does, and each frame is a large one: however much the kernel holds for it, it
    // falls behind. The other goes on, and everybody else is answered.
    let mut quick = watch(Client::connect(dockyard.address));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || while tell.send(number(&mut quick)).is_ok() {});
    let mut last = told.recv().unwrap();
    let mut others = Client::connect(dockyard.address);
    let path = format!("/b/x/{}", "k".repeat(900));
    wait_until("the slow one goes on with the newest", || {
        for _ in 0..8 {
            for _ in 0..60 {
                assert_eq!(others.ask("GET", &path, &[], b"").status, 404);
            }
            let next = told.recv().unwrap();
            assert!(next > last);
            last = next;
        }
        let next = number(&mut slow);
        let gap = next - seen - 1;
        seen = next;
        gap >= 4
    });
    wait_until("the server has counted it", || {
        frame(&mut slow)["lost"].as_u64().unwrap() > 0
    });
}

#[test]
fn controls_are_for_the_page_itself_on_this_machine() {
    let dockyard = Dockyard::in_memory(&[]);
    let hello = |host: &str, more: &str| {
        let mut client = Client::connect(dockyard.address);
        let request = format!("GET /live HTTP/1.1\r\nhost: {host}\r\n{more}\r\n");
        client.send(request.as_bytes()).unwrap();
        (0..40)
            .map(|_| client.line())
            .find(|line| line.starts_with("data: {\"facts\""))
            .unwrap()
    };
    let own = hello("localhost", "");
    let token = own
        .split("\"controls\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(hello("evil.example", "").contains("\"controls\":null"));
    assert!(hello("localhost", "x-forwarded-for: 10.0.0.1\r\n").contains("\"controls\":null"));

    let drain = |host: &str, token: &str| {
        let mut client = Client::connect(dockyard.address);
        let request = format!(
            "POST /live/drain HTTP/1.1\r\nhost: {host}\r\nx-dockyard-token: {token}\r\ncontent-length: 0\r\n\r\n"
        );
        client.send(request.as_bytes()).unwrap();
        client.answer("POST").unwrap().status
    };
    assert_eq!(drain("localhost", "guessed"), 403);
    assert_eq!(drain("evil.example", token), 403);
    assert_eq!(drain("localhost", token), 202);
    assert!(dockyard.ended().success());
}
