//! Reads answers, strictly, by RFC 9112 sections 4 to 7. Anything that isn't exactly an answer is a failed test.

/// One answer as a client understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The end of the body was seen. Not so for a cut answer, or one that only the end of the connection ends.
    pub is_complete: bool,
}

impl Answer {
    /// The first answer in `bytes` and its length, if it is whole.
    pub fn read(bytes: &[u8], method: &str) -> Option<(Self, usize)> {
        let (mut answer, head) = Self::head(bytes)?;
        let rest = &bytes[head..];
        let length = match answer.framing(method) {
            Framing::None => 0,
            Framing::Length(length) => {
                answer.body = rest.get(..length)?.to_vec();
                length
            }
            Framing::Chunked => answer.read_chunks(rest)?,
            Framing::UntilClose => return None,
        };
        answer.is_complete = true;
        Some((answer, head + length))
    }

    /// What came of an answer that isn't whole.
    pub fn cut(bytes: &[u8], method: &str) -> Option<(Self, usize)> {
        let (mut answer, head) = Self::head(bytes)?;
        match answer.framing(method) {
            Framing::Chunked => {
                answer.read_chunks(&bytes[head..]);
            }
            _ => answer.body = bytes[head..].to_vec(),
        }
        Some((answer, bytes.len()))
    }

    /// The value of a field that must not come twice.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self
            .fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str());
        let value = values.next();
        assert!(
            values.next().is_none(),
            "{name} comes twice in {:?}",
            self.fields
        );
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn head(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let mut lines = text.split("\r\n");
        let status_line = lines.next().unwrap();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.split_once(' '))
            .filter(|(code, _)| code.len() == 3)
            .and_then(|(code, _)| code.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let fields = fields(lines);
        Some((
            Self {
                status,
                fields,
                body: vec![],
                trailers: vec![],
                is_complete: false,
            },
            end + 4,
        ))
    }

    fn framing(&self, method: &str) -> Framing {
        let length = self.field("content-length");
        let coding = self.field("transfer-encoding");
        assert!(
            length.is_none() || coding.is_none(),
            "both ways of framing in {:?}",
            self.fields
        );
        let is_tunnel = method == "CONNECT" && (200..300).contains(&self.status);
        match self.status {
            100..=199 | 204 => {
                assert!(
                    length.is_none() && coding.is_none(),
                    "{} with {:?}",
                    self.status,
                    self.fields
                );
                Framing::None
            }
            304 => Framing::None,
            _ if method == "HEAD" || is_tunnel => Framing::None,
            _ if coding == Some("chunked") => Framing::Chunked,
            _ => match length {
                Some(length) => Framing::Length(length.parse().expect("a length is a number")),
                None => Framing::UntilClose,
            },
        }
    }

    /// Reads chunks and trailers; the length, if they are whole. What came stays in `body` either way.
    fn read_chunks(&mut self, bytes: &[u8]) -> Option<usize> {
        self.body.clear();
        let mut at = 0;
        loop {
            let line = line(&bytes[at..])?;
            at += line.len() + 2;
            let size = usize::from_str_radix(line, 16)
                .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            let data = &bytes[at..];
            self.body.extend_from_slice(&data[..size.min(data.len())]);
            let end = data.get(size..size + 2)?;
            assert_eq!(end, b"\r\n", "a chunk is longer than it says");
            at += size + 2;
        }
        let mut trailers = vec![];
        loop {
            let line = line(&bytes[at..])?;
            at += line.len() + 2;
            if line.is_empty() {
                break;
            }
            trailers.push(line);
        }
        self.trailers = fields(trailers.into_iter());
        Some(at)
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .map(|line| {
            let (name, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("not a field: {line:?}"));
            assert!(
                !value.contains(['\r', '\n', '\0']),
                "a control character in {line:?}"
            );
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn line(bytes: &[u8]) -> Option<&str> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some(std::str::from_utf8(&bytes[..end]).expect("a line is text"))
}

/// The `date` that stands for any other in comparisons.
pub const DATE: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

/// All answers of a connection in the one form that is compared: every valid `date` of this century is [`DATE`], and
/// successive chunks are one, because where a handler's frames end depends on how the request was cut.
pub fn canonical(bytes: &[u8]) -> Vec<u8> {
    merge_chunks(&mask_dates(bytes))
}

fn mask_dates(bytes: &[u8]) -> Vec<u8> {
    const FIELD: &[u8] = b"\r\ndate: ";
    let mut masked = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = masked[at..]
        .windows(FIELD.len())
        .position(|window| window == FIELD)
    {
        at += found + FIELD.len();
        let Some(date) = masked.get_mut(at..at + DATE.len()) else {
            break;
        };
        if is_date(date) {
            date.copy_from_slice(DATE.as_bytes());
        }
    }
    masked
}

fn is_date(date: &[u8]) -> bool {
    let pattern = b"Www, 00 Www 2000 00:00:00 GMT";
    date.iter().zip(pattern).all(|(byte, kind)| match kind {
        b'0' => byte.is_ascii_digit(),
        b'W' | b'w' => byte.is_ascii_alphabetic(),
        exact => byte == exact,
    })
}

fn merge_chunks(bytes: &[u8]) -> Vec<u8> {
    const FIELD: &[u8] = b"\r\ntransfer-encoding: chunked\r\n";
    let mut merged = Vec::new();
    let mut rest = bytes;
    while let Some(found) = rest.windows(FIELD.len()).position(|window| window == FIELD) {
        let Some(head) = rest[found..]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        else {
            break;
        };
        let (before, after) = rest.split_at(found + head + 4);
        merged.extend_from_slice(before);
        let (content, taken) = leading_chunks(after);
        if !content.is_empty() {
            merged.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
            merged.extend_from_slice(&content);
            merged.extend_from_slice(b"\r\n");
        }
        rest = &after[taken..];
    }
    merged.extend_from_slice(rest);
    merged
}

/// The content of the whole chunks at the front, and how many bytes they take, without the last chunk.
fn leading_chunks(bytes: &[u8]) -> (Vec<u8>, usize) {
    let (mut content, mut at) = (vec![], 0);
    while let Some(line) = bytes[at..].windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[at..at + line]).ok();
        let Some(size) = size
            .and_then(|size| usize::from_str_radix(size, 16).ok())
            .filter(|size| *size > 0)
        else {
            break;
        };
        let data = at + line + 2;
        if bytes.get(data + size..data + size + 2) != Some(b"\r\n") {
            break;
        }
        content.extend_from_slice(&bytes[data..data + size]);
        at = data + size + 2;
    }
    (content, at)
}
