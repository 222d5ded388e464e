//! Responses out of bytes, strictly: RFC 9112 and nothing more. It knows no socket and no clock, keeps no more than the
//! head under way and never looks at a byte twice.

use memchr::{memchr, memmem};

/// Bytes of a response head at most, the empty line included.
pub(crate) const MOST_HEAD: usize = 64 * 1024;

/// Bytes of a chunk's size line at most, and of a trailer section.
const MOST_LINE: usize = 4 * 1024;

/// A whole response, as far as a load client cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Another request may be sent on the connection.
    pub(crate) keep: bool,
}

/// What is wrong with a response, as a sentence's end.
pub(crate) type Malformed = &'static str;

/// Takes one response after the other out of a connection's bytes.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    phase: Phase,
    /// Bytes of the unfinished head that hold no empty line.
    looked: usize,
    /// The final head of the response under way.
    head: Head,
    /// The last final head to a request that wasn't HEAD. Servers repeat themselves, and the same bytes mean the same.
    known: Vec<u8>,
    known_head: Head,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Head,
    Length(u64),
    Chunk(Chunk),
    /// The connection's end is the body's.
    ToEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        line: usize,
    },
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailer section: bytes so far, and bytes of this line.
    Trailer {
        bytes: usize,
        line: usize,
    },
    TrailerLf {
        bytes: usize,
        line: usize,
    },
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    keep: bool,
    body: Body,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Body {
    #[default]
    None,
    Length(u64),
    Chunked,
    ToEnd,
}

impl Scanner {
    /// Whether a response has begun and not ended.
    pub(crate) fn is_within(&self) -> bool {
        self.phase != Phase::Head || self.looked > 0
    }

    /// Takes bytes off the front of `input`, up to the end of one response. `None` asks for more bytes; what is left
    /// in `input` then belongs to an unfinished head and is to be shown again. Content is appended to `content`.
    pub(crate) fn advance(
        &mut self,
        input: &mut &[u8],
        to_head: bool,
        mut content: Option<&mut Vec<u8>>,
    ) -> Result<Option<Answer>, Malformed> {
        loop {
            match self.phase {
                Phase::Head => {
                    let Some(head) = self.take_head(input, to_head)? else {
                        return Ok(None);
                    };
                    self.head = head;
                    self.phase = match head.body {
                        Body::None | Body::Length(0) => return Ok(Some(self.finish())),
                        Body::Length(length) => Phase::Length(length),
                        Body::Chunked => Phase::Chunk(Chunk::start()),
                        Body::ToEnd => Phase::ToEnd,
                    };
                }
                Phase::Length(left) => {
                    let taken = take(input, left, &mut content);
                    self.phase = Phase::Length(left - taken);
                    if left == taken {
                        return Ok(Some(self.finish()));
                    }
                    return Ok(None);
                }
                Phase::Chunk(chunk) => match chunk.advance(input, &mut content)? {
                    Some(next) => {
                        self.phase = Phase::Chunk(next);
                        if input.is_empty() {
                            return Ok(None);
                        }
                    }
                    None => return Ok(Some(self.finish())),
                },
                Phase::ToEnd => {
                    take(input, u64::MAX, &mut content);
                    return Ok(None);
                }
            }
        }
    }

    /// The connection has ended: a response that only this could end is whole now.
    pub(crate) fn end(&mut self) -> Option<Answer> {
        (self.phase == Phase::ToEnd).then(|| self.finish())
    }

    fn finish(&mut self) -> Answer {
        self.phase = Phase::Head;
        Answer {
            status: self.head.status,
            keep: self.head.keep,
        }
    }

    /// The next final head; interim ones before it are passed over.
    fn take_head(&mut self, input: &mut &[u8], to_head: bool) -> Result<Option<Head>, Malformed> {
        loop {
            if !to_head && !self.known.is_empty() && input.starts_with(&self.known) {
                *input = &input[self.known.len()..];
                self.looked = 0;
                return Ok(Some(self.known_head));
            }
            let from = self.looked.saturating_sub(3);
            let Some(at) = memmem::find(&input[from..], b"\r\n\r\n") else {
                self.looked = input.len();
                return if input.len() >= MOST_HEAD {
                    Err("its head has no end within 64 KiB")
                } else if input.first().is_some_and(|first| *first != b'H') {
                    Err("it doesn't begin with HTTP/1")
                } else {
                    Ok(None)
                };
            };
            let (bytes, rest) = input.split_at(from + at + 4);
            *input = rest;
            self.looked = 0;
            let head = Head::parse(bytes, to_head)?;
            if head.status == 101 {
                return Err("it switches protocols, which nobody asked for");
            }
            if head.status >= 200 {
                if !to_head {
                    self.known.clear();
                    self.known.extend_from_slice(bytes);
                    self.known_head = head;
                }
                return Ok(Some(head));
            }
        }
    }
}

/// Moves at most `most` bytes from the front of `input` to `content`.
fn take(input: &mut &[u8], most: u64, content: &mut Option<&mut Vec<u8>>) -> u64 {
    let length = usize::try_from(most).map_or(input.len(), |most| most.min(input.len()));
    let (taken, rest) = input.split_at(length);
    if let Some(content) = content {
        content.extend_from_slice(taken);
    }
    *input = rest;
    length as u64
}

impl Head {
    /// `bytes` end with the empty line.
    fn parse(bytes: &[u8], to_head: bool) -> Result<Self, Malformed> {
        let mut lines = Lines(bytes);
        let (minor, status) = status_line(lines.next().unwrap_or(Ok(b""))?)?;
        let mut facts = Facts::default();
        for line in lines {
            match line? {
                b"" => break,
                line => facts.field(line)?,
            }
        }
        let body = if to_head || status < 200 || status == 204 || status == 304 {
            Body::None
        } else {
            facts.body(minor)?
        };
        let keep = match minor {
            0 => facts.keep_alive && !facts.close,
            _ => !facts.close,
        };
        Ok(Self {
            status,
            keep: keep && body != Body::ToEnd,
            body,
        })
    }
}

/// Lines that end with CR LF, without it. A bare CR or LF is an error (RFC 9112 section 2.2).
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Some(Err("a line of its head ends without CR"));
        };
        if memchr(b'\r', line).is_some() || memchr(0, line).is_some() {
            return Some(Err("its head has a CR or NUL within a line"));
        }
        Some(Ok(line))
    }
}

fn status_line(line: &[u8]) -> Result<(u8, u16), Malformed> {
    let minor = match line.get(..9) {
        Some(b"HTTP/1.1 ") => 1,
        Some(b"HTTP/1.0 ") => 0,
        _ => return Err("it doesn't begin with HTTP/1.1 or HTTP/1.0"),
    };
    // The space behind the status must be there, the reason needn't (RFC 9112 section 4); many leave both out.
    let (digits, rest) = line[9..].split_at_checked(3).unwrap_or_default();
    if !matches!(rest.first(), None | Some(b' ')) {
        return Err("its status isn't three digits");
    }
    let mut status = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err("its status isn't three digits");
        }
        status = status * 10 + u16::from(digit - b'0');
    }
    match status {
        100..=599 => Ok((minor, status)),
        _ => Err("its status isn't between 100 and 599"),
    }
}

/// What the fields say about the body and the connection.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    chunked: Option<bool>,
    close: bool,
    keep_alive: bool,
}

impl Facts {
    fn field(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let colon = memchr(b':', line).ok_or("a field has no colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(|byte| !is_token(*byte)) {
            return Err("a field's name isn't a token");
        }
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value).ok_or("its Content-Length isn't a number")?;
                if self.length.is_some_and(|other| other != length) {
                    return Err("it has two Content-Lengths that differ");
                }
                self.length = Some(length);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let last = value
                    .rsplit(|byte| *byte == b',')
                    .next()
                    .unwrap_or_default();
                self.chunked = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 section 6.3, without its indulgence.
    fn body(&self, minor: u8) -> Result<Body, Malformed> {
        match (self.chunked, self.length) {
            (Some(_), Some(_)) => Err("it has both Content-Length and Transfer-Encoding"),
            (Some(_), None) if minor == 0 => Err("it has Transfer-Encoding and is HTTP/1.0"),
            (Some(true), None) => Ok(Body::Chunked),
            (None, Some(length)) => Ok(Body::Length(length)),
            (Some(false) | None, None) => Ok(Body::ToEnd),
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

impl Chunk {
    fn start() -> Self {
        Self::Size { size: 0, digits: 0 }
    }

    /// One step; `None` behind the last one.
    fn advance(
        self,
        input: &mut &[u8],
        content: &mut Option<&mut Vec<u8>>,
    ) -> Result<Option<Self>, Malformed> {
        if let Self::Data(left) = self {
            let left = left - take(input, left, content);
            return Ok(Some(if left == 0 {
                Self::DataCr
            } else {
                Self::Data(left)
            }));
        }
        let Some((byte, rest)) = input.split_first() else {
            return Ok(Some(self));
        };
        *input = rest;
        Ok(Some(match (self, *byte) {
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeEnd(size),
            (Self::Size { digits: 1.., size }, b';' | b' ' | b'\t') => {
                Self::Extension { size, line: 0 }
            }
            (Self::Size { digits: 16.., .. }, _) => {
                return Err("a chunk's size has more than 16 digits");
            }
            (Self::Size { size, digits }, byte) => {
                let digit = char::from(byte)
                    .to_digit(16)
                    .ok_or("a chunk's size isn't a number")?;
                Self::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (Self::Extension { size, .. }, b'\r') => Self::SizeEnd(size),
            (Self::Extension { .. }, b'\n') => return Err("a chunk's size line ends without CR"),
            (Self::Extension { line, .. }, _) if line >= MOST_LINE => {
                return Err("a chunk's size line is longer than 4 KiB");
            }
            (Self::Extension { size, line }, _) => Self::Extension {
                size,
                line: line + 1,
            },
            (Self::SizeEnd(0), b'\n') => Self::Trailer { bytes: 0, line: 0 },
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::SizeEnd(_), _) => return Err("a chunk's size line ends without LF"),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::start(),
            (Self::DataCr | Self::DataLf, _) => return Err("a chunk is longer than its size"),
            (Self::Trailer { bytes, line }, b'\r') => Self::TrailerLf { bytes, line },
            (Self::Trailer { .. }, b'\n') => return Err("a line of its trailers ends without CR"),
            (Self::Trailer { bytes, .. }, _) if bytes >= MOST_LINE => {
                return Err("its trailers are longer than 4 KiB");
            }
            (Self::Trailer { bytes, line }, _) => Self::Trailer {
                bytes: bytes + 1,
                line: line + 1,
            },
            (Self::TrailerLf { line: 0, .. }, b'\n') => return Ok(None),
            (Self::TrailerLf { bytes, .. }, b'\n') => Self::Trailer {
                bytes: bytes + 1,
                line: 0,
            },
            (Self::TrailerLf { .. }, _) => return Err("a line of its trailers has a CR within"),
            (Self::Data(_), _) => Self::Data(0),
        }))
    }
}

#[cfg(test)]
mod tests;
