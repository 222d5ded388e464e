//! What the client understands of what it gets, by RFC 9112 sections 4 to 7 and nothing laxer. Knows what was asked, and
//! whose content each byte must be; the first thing that is wrong is kept.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::script::{Asked, Read, Script, TRAILER, replied, sent};

/// A final response, as far as it has come.
#[derive(Debug, Clone, Default)]
pub struct Final {
    /// The status.
    pub status: u16,
    /// Made by the handler of this request; `None`: by the container.
    pub id: Option<usize>,
    /// Says that the connection ends.
    pub says_close: bool,
    /// Bytes of content.
    pub bytes: usize,
    /// Its end was seen.
    pub is_complete: bool,
    /// Only the end of the connection shows its end.
    pub until_close: bool,
    /// Came with the trailer.
    pub trailer: bool,
    /// `100 Continue` had come before it.
    pub after_continue: bool,
}

/// Reads the answers of one connection.
#[derive(Debug)]
pub struct Answers {
    script: Arc<Script>,
    /// Where each request begins in the client's stream.
    begins: Vec<usize>,
    /// How much of that stream the server has read.
    pub read: usize,
    /// Came and wasn't understood yet.
    rest: Vec<u8>,
    stage: Stage,
    /// The final responses, the last one under way perhaps.
    pub finals: Vec<Final>,
    /// `100 Continue` came for the request that is answered next.
    pub continued: bool,
    hints: usize,
    /// What came behind the switch to another protocol.
    pub tunnel: Vec<u8>,
    /// All that came.
    pub bytes: usize,
    /// All answers in the form that is compared, hashed: without dates, interim responses and the sizes of chunks.
    pub digest: u64,
    /// What is wrong with them.
    pub wrong: Option<String>,
    /// What the trace has told: heads and whole answers.
    told: (usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Length(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    Trailers,
    UntilClose,
    Tunnel,
    /// Nothing may follow.
    Over,
}

impl Answers {
    /// Nothing came yet.
    pub fn new(script: Arc<Script>, begins: Vec<usize>) -> Self {
        Self {
            script,
            begins,
            read: 0,
            rest: Vec::new(),
            stage: Stage::Head,
            finals: Vec::new(),
            continued: false,
            hints: 0,
            tunnel: Vec::new(),
            bytes: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            wrong: None,
            told: (0, 0),
        }
    }

    /// What came since this was asked last, in words.
    pub fn news(&mut self) -> Vec<String> {
        let (heads, wholes) = self.told;
        let complete = self.complete();
        self.told = (self.finals.len(), complete);
        let mut news = Vec::new();
        for (at, answer) in self.finals.iter().enumerate() {
            let close = if answer.says_close {
                ", says close"
            } else {
                ""
            };
            if at >= heads {
                news.push(format!(
                    "has the head of answer {at}: {}{close}",
                    answer.status
                ));
            }
            if at >= wholes && answer.is_complete {
                news.push(format!(
                    "has answer {at}, {} bytes of content",
                    answer.bytes
                ));
            }
        }
        news
    }

    /// How many final responses have come whole.
    pub fn complete(&self) -> usize {
        self.finals
            .iter()
            .filter(|answer| answer.is_complete)
            .count()
    }

    /// The client speaks another protocol now.
    pub fn is_tunnel(&self) -> bool {
        self.stage == Stage::Tunnel
    }

    /// An answer is under way.
    pub fn is_midway(&self) -> bool {
        !self.rest.is_empty() || !matches!(self.stage, Stage::Head | Stage::Over | Stage::Tunnel)
    }

    /// Takes bytes that came.
    pub fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut at = 0;
        while self.wrong.is_none() {
            match self.step(&rest[at..]) {
                Ok(0) => break,
                Ok(taken) => at += taken,
                Err(wrong) => self.wrong = Some(wrong),
            }
        }
        rest.drain(..at);
        self.rest = rest;
    }

    /// Nothing more comes; `cleanly` if the server said so.
    pub fn end(&mut self, cleanly: bool) {
        if self.stage == Stage::UntilClose && cleanly {
            self.complete_last();
        }
        self.note(if cleanly { b"end" } else { b"reset" });
        if let Some(last) = self.finals.last() {
            let cut = format!("{} of {}", last.is_complete, last.bytes);
            self.note(cut.as_bytes());
        }
        let tunnel = std::mem::take(&mut self.tunnel);
        self.note(&tunnel);
        self.tunnel = tunnel;
    }

    /// Understands the next piece at the front of `bytes` and says how long it is: 0 if it isn't all there.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, String> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match self.stage {
            Stage::Over => Err(format!(
                "bytes behind an answer that said close: {}",
                Shown(bytes)
            )),
            Stage::Tunnel => {
                self.tunnel.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Stage::Head => self.head(bytes),
            Stage::Length(left) => {
                let taken = self.content(&bytes[..left.min(bytes.len())])?;
                self.stage = Stage::Length(left - taken);
                if left == taken {
                    self.complete_last();
                }
                Ok(taken)
            }
            Stage::UntilClose => self.content(bytes),
            Stage::ChunkSize => {
                let Some(line) = line(bytes)? else {
                    return Ok(0);
                };
                let is_size = !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
                let size = usize::from_str_radix(line, 16).ok().filter(|_| is_size);
                let size = size.ok_or_else(|| format!("not a chunk size: {line:?}"))?;
                self.stage = if size == 0 {
                    Stage::Trailers
                } else {
                    Stage::ChunkData(size)
                };
                Ok(line.len() + 2)
            }
            Stage::ChunkData(left) => {
                let taken = self.content(&bytes[..left.min(bytes.len())])?;
                let left = left - taken;
                self.stage = if left == 0 {
                    Stage::ChunkEnd
                } else {
                    Stage::ChunkData(left)
                };
                Ok(taken)
            }
            Stage::ChunkEnd if bytes.len() < 2 => Ok(0),
            Stage::ChunkEnd if bytes.starts_with(b"\r\n") => {
                self.stage = Stage::ChunkSize;
                Ok(2)
            }
            Stage::ChunkEnd => Err("a chunk is longer than it says".to_owned()),
            Stage::Trailers => {
                let Some(line) = line(bytes)? else {
                    return Ok(0);
                };
                if line.is_empty() {
                    self.complete_last();
                } else if line == format!("{}: {}", TRAILER.0, TRAILER.1) {
                    self.last().trailer = true;
                    self.note(b"trailer");
                } else {
                    return Err(format!("a trailer that nobody sent: {line:?}"));
                }
                Ok(line.len() + 2)
            }
        }
    }

    fn last(&mut self) -> &mut Final {
        self.finals.last_mut().expect("an answer is under way")
    }

    fn complete_last(&mut self) {
        let last = self.last();
        last.is_complete = true;
        let is_last = last.says_close;
        self.stage = if is_last { Stage::Over } else { Stage::Head };
        self.continued = false;
        self.hints = 0;
        self.note(b"complete");
    }

    /// Content must be that of this very response.
    fn content(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let last = self.finals.last_mut().expect("an answer is under way");
        let from = last.bytes;
        last.bytes += bytes.len();
        match last.id {
            None => {
                let is_text = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
                if !is_text || last.bytes > 200 {
                    return Err(format!("no text of the container: {}", Shown(bytes)));
                }
            }
            Some(id) => {
                let echoes = self.script.asked[id].plan.read == Read::Echo;
                let of = if echoes { sent(id) } else { replied(id) };
                if of.get(from..from + bytes.len()) != Some(bytes) {
                    return Err(format!(
                        "content that isn't of answer {id} at {from}: {}",
                        Shown(bytes)
                    ));
                }
            }
        }
        Ok(bytes.len())
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            let is_long = bytes.len() > 16 * 1024;
            return if is_long {
                Err("a head without end".to_owned())
            } else {
                Ok(0)
            };
        };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that isn't text")?;
        let mut lines = head.split("\r\n");
        let status = status(lines.next().unwrap_or_default())?;
        let at = self.finals.len();
        let script = self.script.clone();
        let asked = script.asked.get(at);
        let mut fields = Fields::default();
        let mut answer = Final {
            status,
            ..Final::default()
        };
        let mut shape = format!("{status}");
        for line in lines {
            fields.take(line, &mut answer)?;
            if !line.starts_with("date: ") {
                let _ = write!(shape, "\n{line}");
            }
        }
        if status < 200 && status != 101 {
            self.interim(status, asked, &fields)?;
            return Ok(end + 4);
        }
        self.note(shape.as_bytes());
        self.check(&answer, asked, &fields)?;
        // Of a head that never got whole the server may not even know the method.
        let is_known = self
            .begins
            .get(at)
            .is_some_and(|begin| begin + b"HEAD ".len() <= self.read);
        let is_head = is_known && asked.is_some_and(|asked| asked.method == "HEAD");
        let is_connect = asked.is_some_and(|asked| asked.method == "CONNECT");
        let switches = status == 101 || is_connect && (200..300).contains(&status);
        let is_empty = is_head || matches!(status, 204 | 304);
        answer.after_continue = self.continued;
        answer.until_close = !switches && !is_empty && !fields.chunked && fields.length.is_none();
        let stage = match fields.length {
            _ if switches => Stage::Tunnel,
            _ if is_empty => Stage::Length(0),
            _ if fields.chunked => Stage::ChunkSize,
            Some(length) => Stage::Length(length),
            None => Stage::UntilClose,
        };
        self.finals.push(answer);
        self.stage = stage;
        match stage {
            Stage::Length(0) => self.complete_last(),
            Stage::Tunnel => self.last().is_complete = true,
            _ => {}
        }
        Ok(end + 4)
    }

    fn interim(
        &mut self,
        status: u16,
        asked: Option<&Asked>,
        fields: &Fields,
    ) -> Result<(), String> {
        let asked = asked.ok_or("an interim answer to nothing")?;
        if asked.is_http10 {
            return Err(format!("{status} to HTTP/1.0"));
        }
        if fields.length.is_some() || fields.chunked {
            return Err(format!("{status} speaks of content"));
        }
        match status {
            100 if !asked.expects => Err("a 100 that nobody asked for".to_owned()),
            100 if std::mem::replace(&mut self.continued, true) => Err("a second 100".to_owned()),
            100 => Ok(()),
            103 if self.hints < asked.plan.hints => {
                self.hints += 1;
                Ok(())
            }
            _ => Err(format!("an interim {status} that nobody sent")),
        }
    }

    /// What must hold for a final head, whatever the handler said.
    fn check(&self, answer: &Final, asked: Option<&Asked>, fields: &Fields) -> Result<(), String> {
        let status = answer.status;
        if !fields.dated && (200..500).contains(&status) {
            return Err(format!("a {status} without a date"));
        }
        if fields.chunked && fields.length.is_some() {
            return Err("an answer framed in both ways".to_owned());
        }
        if fields.chunked && asked.is_none_or(|asked| asked.is_http10) {
            return Err("chunks to HTTP/1.0".to_owned());
        }
        if matches!(status, 101 | 204) && (fields.chunked || fields.length.is_some()) {
            return Err(format!("a {status} that speaks of content"));
        }
        match answer.id {
            Some(id) if id != self.finals.len() => Err(format!(
                "the answer to request {id} in the place of {}",
                self.finals.len()
            )),
            Some(id) if asked.is_none() => {
                Err(format!("an answer to request {id}, which nobody sent"))
            }
            Some(_) => Ok(()),
            // The container's own answers say by themselves how long they are.
            None if fields.length.is_none() => Err(format!("an own {status} without a length")),
            None if status < 400 => Err(format!("an own {status}")),
            None => Ok(()),
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().chain(b"\0") {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[derive(Debug, Default)]
struct Fields {
    length: Option<usize>,
    chunked: bool,
    dated: bool,
    connection: bool,
}

impl Fields {
    fn take(&mut self, line: &str, answer: &mut Final) -> Result<(), String> {
        let (name, value) = line
            .split_once(": ")
            .ok_or_else(|| format!("no field: {line:?}"))?;
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("no field name: {name:?}"));
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(format!("no field value: {value:?}"));
        }
        let twice = match name {
            "content-length" => {
                let is_number =
                    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let length = value.parse().ok().filter(|_| is_number);
                let length = length.ok_or_else(|| format!("no length: {value:?}"))?;
                self.length.replace(length).is_some()
            }
            "transfer-encoding" if value == "chunked" => std::mem::replace(&mut self.chunked, true),
            "transfer-encoding" => return Err(format!("a coding: {value:?}")),
            "date" => {
                if !is_date(value) {
                    return Err(format!("no date: {value:?}"));
                }
                std::mem::replace(&mut self.dated, true)
            }
            "connection" => {
                answer.says_close = value.split(", ").any(|token| token == "close");
                std::mem::replace(&mut self.connection, true)
            }
            "x-id" => {
                let id = value.parse().map_err(|_| format!("no id: {value:?}"))?;
                answer.id.replace(id).is_some()
            }
            _ => false,
        };
        if twice {
            Err(format!("{name} comes twice"))
        } else {
            Ok(())
        }
    }
}

fn status(line: &str) -> Result<u16, String> {
    let code = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.split_once(' '));
    let code = code
        .filter(|(code, _)| code.len() == 3)
        .and_then(|(code, _)| code.parse().ok());
    code.filter(|code| (100..600).contains(code))
        .ok_or_else(|| format!("no status line: {line:?}"))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn is_date(value: &str) -> bool {
    let pattern = b"Www, 00 Www 0000 00:00:00 GMT";
    let fits = |(byte, kind): (u8, &u8)| match kind {
        b'0' => byte.is_ascii_digit(),
        b'W' | b'w' => byte.is_ascii_alphabetic(),
        exact => byte == *exact,
    };
    value.len() == pattern.len() && value.bytes().zip(pattern).all(fits)
}

/// The line at the front, if its end has come.
fn line(bytes: &[u8]) -> Result<Option<&str>, String> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        let is_long = bytes.len() > 256;
        return if is_long {
            Err("a line without end".to_owned())
        } else {
            Ok(None)
        };
    };
    std::str::from_utf8(&bytes[..end])
        .map(Some)
        .map_err(|_| "a line that isn't text".to_owned())
}

/// The first bytes, readably.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 72;
        let first = &self.0[..self.0.len().min(MOST)];
        let more = if self.0.len() > MOST { "..." } else { "" };
        write!(f, "\"{}\"{more}", first.escape_ascii())
    }
}
