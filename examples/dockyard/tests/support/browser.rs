//! A headless Chromium, driven by WebDriver: JSON over HTTP, as chromedriver speaks it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Client, wait_until};

/// A browser with a profile of its own; gone when it is dropped.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver can't be run ({error}): install chromium-driver")
            });
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let port = line.split_once("started successfully on port ")?.1;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver says its port")));
        wait_until("chromedriver answers", || {
            Client::try_connect(address).is_ok()
        });
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            address,
            session: String::new(),
            _profile: profile,
        };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let session = browser.command("POST", "/session", &json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                "--no-proxy-server", profile,
            ] },
        } } }));
        browser.session = format!(
            "/session/{}",
            session["sessionId"].as_str().expect("a session")
        );
        browser
    }

    fn command(&self, method: &str, path: &str, arguments: &Value) -> Value {
        let content = if method == "POST" {
            arguments.to_string()
        } else {
            String::new()
        };
        let length = format!("content-length: {}", content.len());
        let fields = [
            "content-type: application/json",
            &length,
            "connection: close",
        ];
        let mut client = Client::connect(self.address);
        let answer = client.ask(method, path, &fields, content.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["value"].clone()
    }

    fn post(&self, path: &str, arguments: &Value) -> Value {
        self.command("POST", &format!("{}{path}", self.session), arguments)
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// What a script returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of an element, as it is shown.
    pub(crate) fn text(&self, id: &str) -> String {
        let text = self.run(&format!("return document.getElementById('{id}').innerText"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// A click with all that belongs to it.
    pub(crate) fn click(&self, selector: &str) {
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

    pub(crate) fn accept_question(&self) {
        self.post("/alert/accept", &json!({}));
    }

    /// The size of the page's window, and how the system says that it is themed.
    pub(crate) fn look_as(&self, width: u32, height: u32, theme: &str) {
        let command = |name: &str, params: Value| {
            self.post(
                "/goog/cdp/execute",
                &json!({ "cmd": name, "params": params }),
            );
        };
        command(
            "Emulation.setDeviceMetricsOverride",
            json!({
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 640,
            }),
        );
        command(
            "Emulation.setEmulatedMedia",
            json!({
                "features": [{ "name": "prefers-color-scheme", "value": theme }],
            }),
        );
    }

    /// The whole page as PNG.
    pub(crate) fn picture(&self, file: &std::path::Path) {
        let params = json!({ "captureBeyondViewport": true });
        let picture = self.post(
            "/goog/cdp/execute",
            &json!({ "cmd": "Page.captureScreenshot", "params": params }),
        );
        let picture = picture["data"].as_str().expect("a picture");
        let png = base64::engine::general_purpose::STANDARD
            .decode(picture)
            .unwrap();
        std::fs::write(file, png).unwrap();
    }

    /// What the browser's console says at the level of an error.
    pub(crate) fn errors(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().expect("a log").iter();
        let errors = lines.filter(|line| line["level"] == "SEVERE");
        errors.map(|line| line["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty()
            && let Ok(mut client) = Client::try_connect(self.address)
        {
            let _ = client.try_ask("DELETE", &self.session, &[], b"");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
