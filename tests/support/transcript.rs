//! The transcripts in `tests/conversations`, as its README explains them: text in, cases out. It knows nothing of servers;
//! what the codecs would make of the bytes is none of its business.

use std::path::Path;
use std::time::Duration;

use wharf::{Limits, Reason};

use super::answer::DATE;
use super::notation::{Row, Section, sections, wire};

/// One conversation.
#[derive(Debug, Clone)]
pub struct Case {
    /// `file:line` of its heading, or of its row in a table.
    pub place: String,
    pub title: String,
    pub limits: Limits,
    pub steps: Vec<Step>,
    pub end: End,
    /// What is said depends on how it is cut, so it is only played whole.
    pub is_whole_only: bool,
}

#[derive(Debug, Clone)]
pub enum Step {
    Send(Vec<u8>),
    /// The server must have sent these bytes since the last such step.
    Expect(Vec<u8>),
    Finish,
    Reset,
    Wait(Duration),
}

#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The connection stays open until the client closes it.
    Kept,
    /// The server finishes sending, for this reason.
    Closed(String),
    /// The connection ends without a clean finish, for this reason.
    Cut(String),
}

/// All cases of a document.
pub fn read(path: &Path) -> Vec<Case> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = format!(
        "tests/conversations/{}",
        path.file_name().unwrap().to_string_lossy()
    );
    let mut found = vec![];
    for section in sections(&text) {
        cases(&section, &file, &mut found);
    }
    found
}

/// The cases of a section: one a row of its table.
fn cases(section: &Section<'_>, file: &str, cases: &mut Vec<Case>) {
    if section.blocks.is_empty() {
        return;
    }
    for (line, row) in section.rows(file) {
        let title = match row.first() {
            Some(cell) => format!("{} [{cell}]", section.title),
            None => section.title.to_owned(),
        };
        cases.push(case(section, format!("{file}:{line}"), title, &row));
    }
}

fn case(section: &Section<'_>, place: String, title: String, row: &Row<'_>) -> Case {
    let mut case = Case {
        place,
        title,
        limits: Limits::default(),
        steps: vec![],
        end: End::Kept,
        is_whole_only: section
            .prose
            .iter()
            .any(|line| line.starts_with("*Only whole")),
    };
    for block in &section.blocks {
        let lines: Vec<String> = block
            .lines
            .iter()
            .map(|line| row.substitute(line))
            .collect();
        match block.kind {
            "limits" => lines.iter().for_each(|line| limit(line, &mut case.limits)),
            "client" => client(&lines, &mut case.steps),
            "server" => server(&lines, &mut case),
            other => panic!(
                "{} (line {}): no block is called {other:?}",
                case.place, block.line
            ),
        }
    }
    case
}

fn limit(line: &str, limits: &mut Limits) {
    let (name, value) = line
        .split_once(" = ")
        .unwrap_or_else(|| panic!("not a limit: {line:?}"));
    let value: u64 = value
        .parse()
        .unwrap_or_else(|_| panic!("not a number: {line:?}"));
    let size = value as usize;
    match name {
        "head_bytes" => limits.head_bytes = size,
        "request_line_bytes" => limits.request_line_bytes = size,
        "header_fields" => limits.header_fields = size,
        "leading_bytes" => limits.leading_bytes = size,
        "body_bytes" => limits.body_bytes = value,
        "chunk_line_bytes" => limits.chunk_line_bytes = size,
        "chunk_overhead_bytes" => limits.chunk_overhead_bytes = value,
        "trailer_bytes" => limits.trailer_bytes = size,
        "trailer_fields" => limits.trailer_fields = size,
        "write_buffer_bytes" => limits.write_buffer_bytes = size,
        "drain_bytes" => limits.drain_bytes = value,
        _ => panic!("no limit is called {name:?}"),
    }
}

fn client(lines: &[String], steps: &mut Vec<Step>) {
    let mut bytes = vec![];
    for line in lines {
        let Some(action) = line.strip_prefix("~~ ") else {
            bytes.extend(wire(line));
            continue;
        };
        if !bytes.is_empty() {
            steps.push(Step::Send(std::mem::take(&mut bytes)));
        }
        steps.push(match action.split_once(' ') {
            None if action == "fin" => Step::Finish,
            None if action == "reset" => Step::Reset,
            Some(("wait", seconds)) => {
                Step::Wait(Duration::from_secs(seconds.parse().expect("seconds")))
            }
            _ => panic!("a client can't {action:?}"),
        });
    }
    if !bytes.is_empty() {
        steps.push(Step::Send(bytes));
    }
}

fn server(lines: &[String], case: &mut Case) {
    let mut bytes = vec![];
    let mut lines = lines.iter().peekable();
    while let Some(line) = lines.next() {
        if let Some(end) = line.strip_prefix("~~ ") {
            case.end = match end.split_once(' ') {
                Some(("closed", why)) => End::Closed(why.to_owned()),
                Some(("cut", why)) => End::Cut(why.to_owned()),
                None if end == "kept" => End::Kept,
                _ => panic!("a connection can't end {end:?}"),
            };
        } else if let Some(short) = line.strip_prefix("= ") {
            bytes.extend(shorthand(short, &mut case.end));
        } else if !line.starts_with("HTTP/1.1 ") {
            // Not an answer: what a tunnel or another protocol says.
            bytes.extend(wire(line));
        } else {
            let mut head = wire(line);
            let mut body: Option<Vec<u8>> = None;
            while let Some(line) = lines.next_if(|line| !starts_anew(line)) {
                match &mut body {
                    None if line.is_empty() => body = Some(vec![]),
                    None => head.extend(wire(&line.replace("date: *", &format!("date: {DATE}")))),
                    Some(body) => body.extend(wire(line)),
                }
            }
            let body = body.unwrap_or_else(|| panic!("{}: an empty line ends a head", case.place));
            bytes.extend(fill_length(head, body.len()));
            bytes.extend(b"\r\n");
            bytes.extend(body);
        }
    }
    case.steps.push(Step::Expect(bytes));
}

fn starts_anew(line: &str) -> bool {
    line.starts_with("HTTP/1.1 ") || line.starts_with("= ") || line.starts_with("~~ ")
}

/// `content-length: #` says how long the body in the transcript is.
fn fill_length(head: Vec<u8>, length: usize) -> Vec<u8> {
    let head = String::from_utf8(head).expect("a head is text");
    head.replace("content-length: #", &format!("content-length: {length}"))
        .into_bytes()
}

/// `400 Target`: the whole refusal, and the connection's end with it. `200 "text"`: a whole answer with this body;
/// `close` or `keep-alive` behind it is its `connection` field.
fn shorthand(short: &str, end: &mut End) -> Vec<u8> {
    let (status, rest) = short
        .split_once(' ')
        .unwrap_or_else(|| panic!("not a shorthand: {short:?}"));
    let status = http::StatusCode::from_bytes(status.as_bytes()).expect("a status");
    let line = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("")
    );
    let Some(rest) = rest.strip_prefix('"') else {
        let reason = named(rest);
        assert_eq!(reason.status(), status, "{short}");
        *end = End::Closed(format!("Refused({rest})"));
        return refusal(&line, reason);
    };
    let (text, connection) = rest.rsplit_once('"').expect("text in quotation marks");
    let body = wire(&format!("{text}\\"));
    let mut answer = format!("{line}content-length: {}\r\ndate: {DATE}\r\n", body.len());
    if !connection.trim().is_empty() {
        answer.push_str(&format!("connection: {}\r\n", connection.trim()));
    }
    answer.push_str("\r\n");
    [answer.into_bytes(), body].concat()
}

/// The container's own answer to a refused request; `responses.md` spells it out.
fn refusal(line: &str, reason: Reason) -> Vec<u8> {
    let text = reason.explain();
    let length = text.len();
    format!(
        "{line}content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\ndate: {DATE}\r\n\
         connection: close\r\n\r\n{text}"
    )
    .into_bytes()
}

fn named(name: &str) -> Reason {
    const ALL: &[Reason] = &[
        Reason::RequestLine,
        Reason::Method,
        Reason::Target,
        Reason::TargetTooLong,
        Reason::Version,
        Reason::UnsupportedVersion,
        Reason::Http2Preface,
        Reason::TlsHandshake,
        Reason::Field,
        Reason::LineEnding,
        Reason::ObsoleteFolding,
        Reason::HeadTooLarge,
        Reason::TooManyFields,
        Reason::Host,
        Reason::ContentLength,
        Reason::TransferEncoding,
        Reason::UnknownCoding,
        Reason::LengthAndCoding,
        Reason::Expectation,
        Reason::Chunk,
        Reason::ChunkOverhead,
        Reason::Trailer,
        Reason::TrailersTooLarge,
        Reason::BodyTooLarge,
        Reason::Misdirected,
        Reason::HeadTimeout,
        Reason::BodyTimeout,
        Reason::NotReady,
    ];
    let found = ALL
        .iter()
        .copied()
        .find(|reason| format!("{reason:?}") == name);
    found.unwrap_or_else(|| panic!("no reason is called {name:?}"))
}
