//! A headless Chromium for the tests of pages, driven by WebDriver: JSON over HTTP, as chromedriver speaks it. It knows no
//! page, and whatever doesn't work is a panic with a sentence: there is nothing that a test could do about it.
//!
//! ```no_run
//! use wharf_browser::{Browser, Look};
//!
//! let browser = Browser::start();
//! browser.look(&Look { dark: true, ..Look::phone() });
//! browser.open("http://127.0.0.1:8888/");
//! assert_eq!(browser.run("return document.title"), "wharf");
//! assert!(browser.errors().is_empty());
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser with a profile of its own, gone when it is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

/// How a page is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Of the window, in CSS pixels.
    pub width: u32,
    /// Of the window, in CSS pixels.
    pub height: u32,
    /// The system prefers dark colours.
    pub dark: bool,
    /// As on paper.
    pub print: bool,
    /// Without colours.
    pub grey: bool,
}

impl Look {
    /// A light window of 1440 by 1000.
    pub fn desktop() -> Self {
        Self {
            width: 1440,
            height: 1000,
            dark: false,
            print: false,
            grey: false,
        }
    }

    /// A light screen of 390 by 844.
    pub fn phone() -> Self {
        Self {
            width: 390,
            height: 844,
            ..Self::desktop()
        }
    }
}

impl Browser {
    /// Starts `chromedriver`, and by it Chromium.
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver can't be run ({error}): install chromium-driver")
            });
        let mut lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let port = line.split_once("started successfully on port ")?.1;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        let port = port.expect("chromedriver says its port");
        let profile = tempfile::tempdir().expect("a folder for the profile");
        let folder = format!("--user-data-dir={}", profile.path().display());
        let mut browser = Self {
            driver,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            session: "/session".to_owned(),
            _profile: profile,
        };
        let session = browser.post(
            "",
            &json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--no-proxy-server", folder,
            ] },
        } } }),
        );
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser
    }

    /// Goes there and waits until the page is loaded.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of an element, as it is shown.
    pub fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').innerText"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// A click with all that belongs to it.
    pub fn click(&self, selector: &str) {
        let found = self.post(
            "/element",
            &json!({ "using": "css selector", "value": selector }),
        );
        let element = found
            .as_object()
            .and_then(|found| found.values().next()?.as_str());
        let element = element.expect("an element").to_owned();
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Says yes to what the page asks in a window of its own.
    pub fn accept_question(&self) {
        self.post("/alert/accept", &json!({}));
    }

    /// From now on pages are shown like this.
    pub fn look(&self, look: &Look) {
        self.devtools("Emulation.setDeviceMetricsOverride", &json!({
            "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 640,
        }));
        let theme = if look.dark { "dark" } else { "light" };
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({
                "media": if look.print { "print" } else { "screen" },
                "features": [{ "name": "prefers-color-scheme", "value": theme }],
            }),
        );
        let sight = if look.grey { "achromatopsia" } else { "none" };
        self.devtools(
            "Emulation.setEmulatedVisionDeficiency",
            &json!({ "type": sight }),
        );
    }

    /// Writes the whole page as PNG.
    pub fn picture(&self, file: &Path) {
        let all = json!({ "captureBeyondViewport": true });
        let picture = self.devtools("Page.captureScreenshot", &all);
        let picture = picture["data"].as_str().expect("a picture");
        let png = base64::engine::general_purpose::STANDARD.decode(picture);
        std::fs::write(file, png.expect("base64")).expect("the picture can be written");
    }

    /// What the console said at the level of an error since it was asked last.
    pub fn errors(&self) -> Vec<String> {
        let errors = self.log("browser").into_iter();
        let errors = errors.filter(|line| line["level"] == "SEVERE");
        errors.map(|line| line["message"].to_string()).collect()
    }

    /// What was fetched since it was asked last, from a file or over a network: neither what the browser brings along nor
    /// what the page itself holds.
    pub fn fetched(&self) -> Vec<String> {
        let urls = self.log("performance").into_iter().filter_map(|line| {
            let event: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let event = &event["message"];
            let is_request = event["method"] == "Network.requestWillBeSent";
            let url = event["params"]["request"]["url"].as_str()?.to_owned();
            let is_inside = url.starts_with("chrome:") || url.starts_with("data:");
            (is_request && !is_inside).then_some(url)
        });
        urls.collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        match self.post("/se/log", &json!({ "type": kind })) {
            Value::Array(lines) => lines,
            other => panic!("no log: {other}"),
        }
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let command = json!({ "cmd": command, "params": parameters });
        self.post("/goog/cdp/execute", &command)
    }

    fn post(&self, path: &str, arguments: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        let answer = ask(self.address, "POST", &path, &arguments.to_string());
        let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        let answer: Value = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ask(self.address, "DELETE", &self.session, "");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// One request on a connection of its own; what it is answered with, whatever the status.
fn ask(address: SocketAddr, method: &str, path: &str, content: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{content}",
        content.len()
    )?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 0 && line != "\r\n" {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        line.clear();
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer)?;
    String::from_utf8(answer).map_err(std::io::Error::other)
}
