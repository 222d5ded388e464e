//! The payloads, read from the documents in `payloads/`, as the README there explains them: what is sent, what is meant by it, and
//! which rule refuses the rest. What a server would make of the bytes is none of its business.

use std::collections::BTreeMap;
use std::path::Path;

use crate::notation::{Row, Section, sections, wire};
use crate::request::Request;

/// What is sent on one connection, and what it means.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    /// The section's first word, and the first cell of the row.
    pub(crate) name: String,
    /// What the client sends.
    pub(crate) bytes: Vec<u8>,
    /// The requests that it means; whatever follows them must be refused, if `rule` says why.
    pub(crate) meant: Vec<Request>,
    /// Whatever is behind the meant requests must be refused by this rule.
    pub(crate) rule: Option<String>,
    /// The most that a lenient reader may take it for.
    pub(crate) lenient: Vec<Request>,
}

impl Payload {
    /// All of it is valid, so that every server ought to take it as meant.
    pub(crate) fn is_valid(&self) -> bool {
        self.rule.is_none()
    }

    /// The most answers that there can be: one for each request line that is written somewhere in it.
    pub(crate) fn answers(&self) -> usize {
        match self.is_valid() {
            true => self.meant.len(),
            false => {
                let ends = self.bytes.windows(6).filter(|six| *six == b" HTTP/");
                ends.count().max(1)
            }
        }
    }
}

/// A rule by which wharf refuses.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Where it stands.
    pub(crate) source: String,
    /// What it says.
    pub(crate) text: String,
}

/// A valid payload that another server refuses or reads in its own way, and why that is no fault of wharf's.
#[derive(Debug, Clone)]
pub(crate) struct Exception {
    /// The server or proxy.
    pub(crate) server: String,
    /// The payload's name.
    pub(crate) payload: String,
    /// Where the RFCs say that the payload is valid.
    pub(crate) source: String,
    /// What the server does.
    pub(crate) text: String,
}

/// All of the documents.
#[derive(Debug, Clone)]
pub struct Documents {
    /// In the order of their documents.
    pub(crate) payloads: Vec<Payload>,
    /// By name.
    pub(crate) rules: BTreeMap<String, Rule>,
    /// Each names one payload and one server.
    pub(crate) exceptions: Vec<Exception>,
}

impl Documents {
    /// Reads them.
    ///
    /// # Panics
    ///
    /// When they aren't written as their README says.
    pub fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("payloads");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder of the payloads")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        let mut documents = Self {
            payloads: vec![],
            rules: BTreeMap::new(),
            exceptions: vec![],
        };
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a document");
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            match &*name {
                "README.md" => {}
                "rules.md" => documents.read_rules(&text),
                "others.md" => documents.read_exceptions(&text),
                _ => documents.read_payloads(&name, &text),
            }
        }
        documents.check();
        documents
    }

    /// How many payloads there are.
    pub fn count(&self) -> usize {
        self.payloads.len()
    }

    fn read_payloads(&mut self, file: &str, text: &str) {
        for section in sections(text)
            .iter()
            .filter(|section| !section.blocks.is_empty())
        {
            for (line, row) in section.rows(file) {
                self.payloads
                    .push(payload(section, &row, &format!("{file}:{line}")));
            }
        }
    }

    fn read_rules(&mut self, text: &str) {
        for (_, row) in sections(text)
            .iter()
            .flat_map(|section| section.rows("rules.md"))
        {
            let Some(name) = row.cell("rule") else {
                continue;
            };
            let rule = Rule {
                source: cell(&row, "source"),
                text: cell(&row, "what it says"),
            };
            self.rules.insert(name.to_owned(), rule);
        }
    }

    fn read_exceptions(&mut self, text: &str) {
        for (_, row) in sections(text)
            .iter()
            .flat_map(|section| section.rows("others.md"))
        {
            let Some(payload) = row.cell("payload") else {
                continue;
            };
            self.exceptions.push(Exception {
                server: cell(&row, "server"),
                payload: payload.to_owned(),
                source: cell(&row, "valid by"),
                text: cell(&row, "what it does"),
            });
        }
    }

    /// Names are names of something.
    fn check(&self) {
        let mut names: Vec<_> = self.payloads.iter().map(|payload| &payload.name).collect();
        names.sort();
        for two in names.windows(2) {
            assert_ne!(two[0], two[1], "two payloads have one name");
        }
        for payload in &self.payloads {
            if let Some(rule) = &payload.rule {
                let name = &payload.name;
                assert!(
                    self.rules.contains_key(rule),
                    "{name}: no rule is called {rule}"
                );
            }
        }
        for Exception { payload, .. } in &self.exceptions {
            let named = self.payloads.iter().find(|other| other.name == *payload);
            let named =
                named.unwrap_or_else(|| panic!("others.md: no payload is called {payload}"));
            assert!(named.is_valid(), "others.md: {payload} isn't valid");
        }
    }
}

fn cell(row: &Row<'_>, column: &str) -> String {
    let cell = row.cell(column);
    cell.unwrap_or_else(|| panic!("a table without {column}"))
        .to_owned()
}

fn payload(section: &Section<'_>, row: &Row<'_>, place: &str) -> Payload {
    let id = section.title.split(':').next().unwrap_or_default();
    let mut payload = Payload {
        name: row
            .first()
            .map_or(id.to_owned(), |first| format!("{id}/{first}")),
        bytes: vec![],
        meant: vec![],
        rule: None,
        lenient: vec![],
    };
    for block in &section.blocks {
        let lines = block.lines.iter().map(|line| row.substitute(line));
        match block.kind {
            "sent" => payload.bytes = lines.flat_map(|line| wire(&line)).collect(),
            "meant" => {
                for line in lines {
                    match line.strip_prefix("~~ refused by ") {
                        Some(rule) => payload.rule = Some(rule.to_owned()),
                        None => payload.meant.push(request(&line, place)),
                    }
                }
            }
            "lenient" => payload.lenient = lines.map(|line| request(&line, place)).collect(),
            other => panic!("{place}: no block is called {other:?}"),
        }
    }
    assert!(!payload.bytes.is_empty(), "{place}: nothing is sent");
    assert!(
        payload.lenient.is_empty() || !payload.is_valid(),
        "{place}: valid, so it has one reading"
    );
    payload
}

/// `METHOD TARGET CONTENT`, written as in a `sent` block but for the line's end.
fn request(line: &str, place: &str) -> Request {
    let bytes = wire(&format!("{line}\\"));
    let mut words = bytes.splitn(3, |byte| *byte == b' ');
    let mut text = || {
        let word = words.next().and_then(|word| std::str::from_utf8(word).ok());
        word.unwrap_or_else(|| panic!("{place}: no request: {line}"))
    };
    let (method, target) = (text(), text());
    Request::new(method, target, words.next().unwrap_or_default())
}
