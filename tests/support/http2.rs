//! HTTP/2 by hand: frames written and read byte by byte, field blocks encoded without and decoded with all of HPACK.
//! Nothing here uses code of the server or of h2.

use std::collections::VecDeque;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const WITH_PRIORITY: u8 = 0x20;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Settings by number and value.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let entries = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat());
    frame(SETTINGS, 0, 0, entries.collect::<Vec<_>>())
}

pub fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, more.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

pub fn ping(payload: &[u8; 8]) -> Vec<u8> {
    frame(PING, 0, 0, payload)
}

/// Literal fields without indexing (RFC 7541 section 6.2.2), not compressed.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let literals = fields.iter().flat_map(|(name, value)| {
        [&[0][..], &text(name.as_bytes()), &text(value.as_bytes())].concat()
    });
    literals.collect()
}

pub fn text(text: &[u8]) -> Vec<u8> {
    [&integer(0, 7, text.len())[..], text].concat()
}

/// An integer behind the high bits of `first` (RFC 7541 section 5.1).
pub fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut bytes = vec![first | most as u8];
    let mut left = value - most;
    while left >= 128 {
        bytes.push((left % 128) as u8 | 0x80);
        left /= 128;
    }
    bytes.push(left as u8);
    bytes
}

/// The pseudo-fields of a request.
pub fn pseudo(method: &str, path: &str) -> Vec<u8> {
    fields(&[
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a.example"),
    ])
}

/// A GET of `path`, with further fields.
pub fn get_with(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let block = [pseudo("GET", path), fields(more)].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

pub fn get(stream: u32) -> Vec<u8> {
    get_with(stream, "/", &[])
}

/// The head of a POST to `path`, whose content follows.
pub fn post_with(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let block = [pseudo("POST", path), fields(more)].concat();
    frame(HEADERS, END_HEADERS, stream, block)
}

pub fn data(stream: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, 0, stream, content)
}

pub fn last_data(stream: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, content)
}

/// A frame as it was received; of `HEADERS` the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
    pub fields: Vec<(String, String)>,
}

impl Frame {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|field| field.0 == name);
        found.map(|field| &*field.1)
    }

    /// The four bytes at that place.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// Reads what a server sent: whole frames, no `CONTINUATION` (the answers here are short).
pub fn read(mut bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let len = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let Some(payload) = bytes.get(9..9 + len) else {
            break;
        };
        let mut frame = Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes(bytes[5..9].try_into().unwrap()),
            payload: payload.to_vec(),
            fields: Vec::new(),
        };
        if frame.kind == HEADERS {
            assert!(frame.has(END_HEADERS), "a short head in one frame");
            frame.fields = decoder.decode(payload);
        }
        frames.push(frame);
        bytes = &bytes[9 + len..];
    }
    frames
}

/// The whole of HPACK's decoder.
#[derive(Default)]
pub struct Decoder {
    table: VecDeque<(String, String)>,
}

impl Decoder {
    pub fn decode(&mut self, mut block: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while let Some(&first) = block.first() {
            let bits = match first {
                0x80.. => 7,
                0x40.. => 6,
                0x20.. => 5,
                _ => 4,
            };
            let index = number(&mut block, bits);
            match first {
                0x80.. => fields.push(self.entry(index)),
                0x20..0x40 => {}
                _ => {
                    let name = match index {
                        0 => string(&mut block),
                        index => self.entry(index).0,
                    };
                    let field = (name, string(&mut block));
                    if first >= 0x40 {
                        self.table.push_front(field.clone());
                    }
                    fields.push(field);
                }
            }
        }
        fields
    }

    fn entry(&self, index: usize) -> (String, String) {
        match STATIC.get(index - 1) {
            Some(entry) => {
                let (name, value) = entry.split_once('|').unwrap();
                (name.to_owned(), value.to_owned())
            }
            None => self.table[index - 1 - STATIC.len()].clone(),
        }
    }
}

fn number(block: &mut &[u8], bits: u32) -> usize {
    let most = (1 << bits) - 1;
    let mut value = usize::from(block[0]) & most;
    *block = &block[1..];
    if value == most {
        for shift in (0..).step_by(7) {
            let byte = block[0];
            *block = &block[1..];
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
    }
    value
}

fn string(block: &mut &[u8]) -> String {
    let is_huffman = block[0] & 0x80 != 0;
    let len = number(block, 7);
    let (text, rest) = block.split_at(len);
    *block = rest;
    let bytes = if is_huffman {
        plain(text)
    } else {
        text.to_vec()
    };
    String::from_utf8(bytes).unwrap()
}

/// Huffman's code: symbols in the order of their codes' length, then of their own.
fn codes() -> Vec<(u32, u8, usize)> {
    let mut order: Vec<usize> = (0..257).collect();
    order.sort_by_key(|&symbol| (LENGTHS[symbol], symbol));
    let (mut code, mut bits) = (0_u32, 0);
    let mut codes = Vec::new();
    for symbol in order {
        code <<= LENGTHS[symbol] - bits;
        bits = LENGTHS[symbol];
        codes.push((code, bits, symbol));
        code += 1;
    }
    codes
}

fn plain(text: &[u8]) -> Vec<u8> {
    let codes = codes();
    let (mut code, mut bits, mut bytes) = (0_u32, 0, Vec::new());
    for byte in text {
        for bit in (0..8).rev() {
            (code, bits) = (code << 1 | u32::from(byte >> bit & 1), bits + 1);
            if let Some(found) = codes.iter().find(|one| (one.0, one.1) == (code, bits)) {
                bytes.push(found.2 as u8);
                (code, bits) = (0, 0);
            }
        }
    }
    bytes
}

/// The same text in Huffman's code, padded with ones.
pub fn huffman(text: &[u8]) -> Vec<u8> {
    let codes = codes();
    let mut bits = Vec::new();
    for byte in text {
        let (code, len, _) = codes
            .iter()
            .find(|one| one.2 == usize::from(*byte))
            .unwrap();
        bits.extend((0..*len).rev().map(|bit| code >> bit & 1 == 1));
    }
    while bits.len() % 8 != 0 {
        bits.push(true);
    }
    let bytes = bits.chunks(8);
    bytes
        .map(|bits| bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit)))
        .collect()
}

/// A string in Huffman's code with its length.
pub fn huffman_text(text: &[u8]) -> Vec<u8> {
    let coded = huffman(text);
    [integer(0x80, 7, coded.len()), coded].concat()
}

#[rustfmt::skip]
const STATIC: [&str; 61] = [
    ":authority|", ":method|GET", ":method|POST", ":path|/", ":path|/index.html", ":scheme|http", ":scheme|https",
    ":status|200", ":status|204", ":status|206", ":status|304", ":status|400", ":status|404", ":status|500",
    "accept-charset|", "accept-encoding|gzip, deflate", "accept-language|", "accept-ranges|", "accept|",
    "access-control-allow-origin|", "age|", "allow|", "authorization|", "cache-control|", "content-disposition|",
    "content-encoding|", "content-language|", "content-length|", "content-location|", "content-range|", "content-type|",
    "cookie|", "date|", "etag|", "expect|", "expires|", "from|", "host|", "if-match|", "if-modified-since|", "if-none-match|",
    "if-range|", "if-unmodified-since|", "last-modified|", "link|", "location|", "max-forwards|", "proxy-authenticate|",
    "proxy-authorization|", "range|", "referer|", "refresh|", "retry-after|", "server|", "set-cookie|",
    "strict-transport-security|", "transfer-encoding|", "user-agent|", "vary|", "via|", "www-authenticate|",
];

#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
