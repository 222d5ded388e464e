//! The page and the picture in a real browser. Pictures of them are left in `target/stevedore-page`.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::Value;
use tokio::time::sleep;
use wharf::Body;
use wharf_browser::{Browser, Look};

use support::{Served, folder, stevedore};

/// The files of one run.
struct Files {
    html: PathBuf,
    svg: PathBuf,
    json: Value,
}

/// A run that has everything to show: an open loop, waits of 1 to 40 ms, an answer in twenty an error.
fn measured(name: &str, flags: &[&str]) -> Files {
    let number = Arc::new(AtomicU64::new(0));
    let served = Served::start(move |_| {
        let number = number.fetch_add(1, SeqCst);
        async move {
            sleep(Duration::from_millis(1 + number * 37 % 40)).await;
            let mut response = Response::new(Body::from("ahoy\n"));
            if number % 20 == 7 {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok(response)
        }
    });
    let folder = folder(name);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (html, svg, json) = (path("a.html"), path("a.svg"), path("a.json"));
    let files = ["--html", &html, "--svg", &svg, "--json", &json];
    stevedore(&[&files, flags, &[served.url().as_str()]].concat()).ends_with(0);
    Files {
        json: serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap(),
        html: html.into(),
        svg: svg.into(),
    }
}

const OPEN: [&str; 6] = ["-z", "3s", "--rate", "400", "-c", "20"];

fn url(file: &Path) -> String {
    format!("file://{}", file.display())
}

fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../stevedore-page");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The cells of the rows below a heading.
fn rows(browser: &Browser, heading: &str) -> Vec<Vec<String>> {
    let script = format!(
        "const heading = [...document.querySelectorAll('h2')].find(h => h.textContent === '{heading}');
         return [...heading.nextElementSibling.querySelectorAll('tr')].slice(1).map(tr => [...tr.cells].map(c => c.innerText));"
    );
    serde_json::from_value(browser.run(&script)).unwrap()
}

fn count(text: &str) -> u64 {
    text.replace(',', "")
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A latency is shown with three digits.
fn is_shown(text: &str, nanos: &Value) -> bool {
    let (number, unit) = text.split_once(' ').unwrap();
    let unit = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => panic!("{text}"),
    };
    (number.parse::<f64>().unwrap() * unit / nanos.as_f64().unwrap() - 1.0).abs() < 0.006
}

#[test]
fn the_page_shows_the_figures_of_the_json_and_fetches_nothing() {
    let Files { html, json, .. } = measured("page", &OPEN);
    let browser = Browser::start();
    browser.look(&Look::desktop());
    browser.fetched();
    browser.open(&url(&html));

    let title = browser.run("return document.querySelector('h1').innerText");
    let words: Vec<&str> = title.as_str().unwrap().split(' ').collect();
    assert_eq!(count(words[0]), json["requests"], "{title}");
    let rate = json["requests_per_second"].as_f64().unwrap();
    assert_eq!(count(words[5]), rate.round() as u64, "{title}");

    let latencies = rows(&browser, "Latency");
    assert_eq!(latencies.len(), 10);
    for row in &latencies {
        let [name, latency, service] = &row[..] else {
            panic!("{row:?}");
        };
        for (kind, shown) in [("latency", latency), ("service", service)] {
            let part: &Value = &json[kind];
            let nanos = match name.as_str() {
                "min" => &part["min_ns"],
                "max" => &part["max_ns"],
                "mean" => &part["mean_ns"],
                percentile => &part["percentiles_ns"][percentile],
            };
            assert!(is_shown(shown, nanos), "{kind} {name}: {shown}, {nanos}");
        }
    }
    for row in rows(&browser, "Answers") {
        assert_eq!(count(&row[1]), json["statuses"][&row[0]], "{row:?}");
    }
    let errors = rows(&browser, "Errors");
    let errors = errors.iter().map(|row| count(&row[1])).sum::<u64>();
    assert_eq!(errors, json["errors"]);

    // A cell for each step of each slice, in the picture as in the JSON.
    let slices = json["timeline"].as_array().unwrap();
    let steps = slices
        .iter()
        .map(|slice| slice["steps"].as_array().unwrap().len());
    let cells = browser.run("return document.querySelectorAll('svg .h').length");
    assert_eq!(cells, steps.sum::<usize>());

    assert_eq!(browser.fetched(), [url(&html)]);
    assert_eq!(browser.run("return document.scripts.length"), 0);
    assert_eq!(browser.errors(), [] as [&str; 0]);
}

/// No two texts of a picture lie on each other, and none is cut off by its edge.
const TEXTS_COLLIDE: &str = "
    const edge = document.querySelector('svg').getBoundingClientRect();
    const all = [...document.querySelectorAll('svg text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    const out = all.filter(([, r]) => r.left < edge.left || r.right > edge.right || r.top < edge.top || r.bottom > edge.bottom);
    const pairs = all.flatMap(([a, r], i) => all.slice(i + 1).filter(([, s]) =>
        r.left < s.right && s.left < r.right && r.top + 2 < s.bottom && s.top + 2 < r.bottom).map(([b]) => a + ' / ' + b));
    return out.map(([t]) => t).concat(pairs);";

/// Pixels that the smallest text of the picture is high, as it is shown.
const SMALLEST_TEXT: &str = "
    const svg = document.querySelector('svg');
    return Math.min(...[...svg.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize)))
        * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;";

#[test]
fn the_page_fits_every_width_theme_and_the_printer() {
    let bad = [
        "-z",
        "4s",
        "-c",
        "4",
        "--misbehave",
        "half-close",
        "--bad",
        "3",
    ];
    let files = [
        ("open", measured("looks-open", &OPEN)),
        ("bad", measured("looks-bad", &bad)),
    ];
    let browser = Browser::start();
    for (run, Files { html, .. }) in &files {
        browser.open(&url(html));
        for (name, look) in [
            ("desktop", Look::desktop()),
            ("phone", Look::phone()),
            (
                "paper",
                Look {
                    width: 794,
                    height: 1123,
                    print: true,
                    grey: true,
                    ..Look::desktop()
                },
            ),
        ] {
            for (theme, dark) in [("light", false), ("dark", true)] {
                browser.look(&Look { dark, ..look });
                let fits = "return document.documentElement.scrollWidth <= window.innerWidth";
                assert_eq!(browser.run(fits), true, "{run} {name}");
                let ground = browser.run("return getComputedStyle(document.body).backgroundColor");
                let wanted = match (look.print, dark) {
                    (true, _) => "rgb(255, 255, 255)",
                    (false, true) => "rgb(20, 23, 26)",
                    (false, false) => "rgba(0, 0, 0, 0)",
                };
                assert_eq!(ground, wanted, "{run} {name} {theme}");
                assert_eq!(
                    browser.run(TEXTS_COLLIDE),
                    serde_json::json!([]),
                    "{run} {name}"
                );
                let height = browser.run(SMALLEST_TEXT).as_f64().unwrap();
                assert!(height >= 9.0, "{run} {name}: {height} px");
                browser.picture(&pictures().join(format!("{run}-{name}-{theme}.png")));
            }
        }
    }
    assert_eq!(browser.errors(), [] as [&str; 0]);
}

#[test]
fn the_picture_alone_is_readable_without_colours() {
    let Files { svg, .. } = measured("svg", &OPEN);
    let browser = Browser::start();
    browser.fetched();
    browser.open(&url(&svg));
    assert_eq!(
        browser.run("return document.documentElement.localName"),
        "svg"
    );
    for (name, look) in [
        ("light", Look::desktop()),
        (
            "dark",
            Look {
                dark: true,
                ..Look::desktop()
            },
        ),
        (
            "grey",
            Look {
                grey: true,
                ..Look::desktop()
            },
        ),
    ] {
        browser.look(&look);
        assert_eq!(browser.run(TEXTS_COLLIDE), serde_json::json!([]), "{name}");
        browser.picture(&pictures().join(format!("svg-{name}.png")));
    }
    let texts = browser
        .run("return [...document.querySelectorAll('text')].map(t => t.textContent).join('\\n')");
    for part in [
        "Answers a second",
        "Latency over time",
        "Latency by percentile",
        "p99.9",
    ] {
        assert!(texts.as_str().unwrap().contains(part), "{part}: {texts}");
    }
    // Of the lines in one panel no two have the same dashes, and each has its name in words.
    let dashes = browser.run(
        "return [...document.querySelectorAll('path.l')].map(l => getComputedStyle(l).strokeDasharray)",
    );
    let dashes: Vec<String> = serde_json::from_value(dashes).unwrap();
    let [_rate, median, p99, slowest, latency, service] = &dashes[..] else {
        panic!("{dashes:?}");
    };
    assert!(
        median != p99 && p99 != slowest && slowest != median && latency != service,
        "{dashes:?}"
    );
    for name in [
        "dotted: p50",
        "dashed: p99",
        "solid: slowest",
        "solid: latency",
        "dashed: service",
    ] {
        assert!(texts.as_str().unwrap().contains(name), "{name}: {texts}");
    }
    assert_eq!(browser.fetched(), [url(&svg)]);
    assert_eq!(browser.errors(), [] as [&str; 0]);
}
