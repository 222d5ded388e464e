//! Requests as bytes, right or flawed, and what they and their answers carry.

use std::sync::LazyLock;

use super::{Asked, BodyFlaw, Content, HeadFlaw};

/// The value of `Keep-Alive`'s trailers and fields that only simulations send.
pub const TRAILER: (&str, &str) = ("x-checksum", "5d41");

/// What requests carry: more requests, for whoever loses the place.
pub fn sent(request: usize) -> &'static [u8] {
    static TEXT: LazyLock<&'static [u8]> = LazyLock::new(|| {
        repeated("GET /smuggled HTTP/1.1\r\nhost: evil\r\nx-smuggled: 1\r\n\r\n0\r\n\r\n")
    });
    &TEXT[(request * 37) % 997..]
}

/// What responses carry: more responses, for whoever loses the place.
pub fn replied(request: usize) -> &'static [u8] {
    static TEXT: LazyLock<&'static [u8]> = LazyLock::new(|| {
        repeated("HTTP/1.1 200 OK\r\nx-id: 99\r\ncontent-length: 0\r\n\r\n0\r\n\r\n")
    });
    &TEXT[(request * 41) % 997..]
}

/// No content is longer.
pub const MOST: usize = 256 * 1024;

fn repeated(text: &str) -> &'static [u8] {
    Vec::leak(text.repeat((MOST + 1000) / text.len() + 1).into_bytes())
}

impl Asked {
    /// Writes the request, the `at`th of its connection; returns the length of its head.
    pub fn write(&self, at: usize, bytes: &mut Vec<u8>) -> usize {
        let begin = bytes.len();
        self.write_head(at, bytes);
        let head = bytes.len() - begin;
        let content = sent(at);
        match &self.content {
            Content::None => {}
            Content::Length(length) => bytes.extend_from_slice(&content[..*length]),
            Content::Chunked {
                sizes,
                extended,
                trailer,
            } => {
                let mut from = 0;
                for size in sizes {
                    let extension = if *extended { ";a=\"b;c\"" } else { "" };
                    put(bytes, &format!("{size:x}{extension}\r\n"));
                    bytes.extend_from_slice(&content[from..from + size]);
                    put(bytes, "\r\n");
                    from += size;
                }
                match self.body_flaw() {
                    None if *trailer => {
                        put(bytes, &format!("0\r\n{}: {}\r\n\r\n", TRAILER.0, TRAILER.1));
                    }
                    None => put(bytes, "0\r\n\r\n"),
                    Some(BodyFlaw::NoSize) => put(bytes, "xyz\r\nabc\r\n0\r\n\r\n"),
                    Some(BodyFlaw::Overflow) => {
                        put(bytes, "10000000000000003\r\nabc\r\n0\r\n\r\n");
                    }
                    Some(BodyFlaw::SpaceBehindSize) => put(bytes, "3 \r\nabc\r\n0\r\n\r\n"),
                    Some(BodyFlaw::LongData) => {
                        put(bytes, "3\r\n");
                        bytes.extend_from_slice(&content[from..from + 5]);
                        put(bytes, "\r\n0\r\n\r\n");
                    }
                    Some(BodyFlaw::BareLf) => put(bytes, "3\nabc\r\n0\r\n\r\n"),
                    Some(BodyFlaw::FramingTrailer) => put(bytes, "0\r\ncontent-length: 3\r\n\r\n"),
                }
            }
        }
        head
    }

    fn write_head(&self, at: usize, bytes: &mut Vec<u8>) {
        let flaw = self.head_flaw();
        if flaw == Some(HeadFlaw::Garbage) {
            return put(bytes, "\x16\x03\x01\x02\r\n\r\n");
        }
        put(bytes, &"\r\n".repeat(self.empty_lines));
        put(bytes, self.method);
        put(
            bytes,
            if flaw == Some(HeadFlaw::TwoSpaces) {
                "  "
            } else {
                " "
            },
        );
        if self.method == "CONNECT" {
            put(bytes, "a.example:443");
        } else {
            put(bytes, &format!("/{at}?q"));
        }
        put(
            bytes,
            match flaw {
                Some(HeadFlaw::Version2) => " HTTP/2.0",
                _ if self.is_http10 => " HTTP/1.0",
                _ => " HTTP/1.1",
            },
        );
        put(
            bytes,
            if flaw == Some(HeadFlaw::BareLf) {
                "\n"
            } else {
                "\r\n"
            },
        );
        if flaw != Some(HeadFlaw::NoHost) {
            put(
                bytes,
                if self.method == "CONNECT" {
                    "host: a.example:443\r\n"
                } else {
                    "host: a\r\n"
                },
            );
        }
        put(bytes, &format!("x-id: {at}\r\n"));
        match &self.content {
            Content::None => {}
            Content::Length(length) => put(bytes, &format!("content-length: {length}\r\n")),
            Content::Chunked { .. } => put(bytes, "transfer-encoding: chunked\r\n"),
        }
        if self.expects {
            put(bytes, "expect: 100-continue\r\n");
        }
        if self.offers_upgrade {
            put(bytes, "upgrade: echo\r\nconnection: upgrade\r\n");
        }
        if let Some(value) = self.connection {
            put(bytes, &format!("connection: {value}\r\n"));
        }
        put(
            bytes,
            match flaw {
                Some(HeadFlaw::BothFramings) => {
                    "content-length: 3\r\ntransfer-encoding: chunked\r\n"
                }
                Some(HeadFlaw::TwoLengths) => "content-length: 3\r\ncontent-length: 3\r\n",
                Some(HeadFlaw::SignedLength) => "content-length: +3\r\n",
                Some(HeadFlaw::CodingTwice) => "transfer-encoding: chunked, chunked\r\n",
                Some(HeadFlaw::UnknownCoding) => "transfer-encoding: gzip, chunked\r\n",
                Some(HeadFlaw::TwoHosts) => "host: a\r\n",
                Some(HeadFlaw::Folded) => "x-folded: a\r\n b\r\n",
                Some(HeadFlaw::SpaceBeforeColon) => "x-space : a\r\n",
                Some(HeadFlaw::NoColon) => "x-nothing\r\n",
                Some(HeadFlaw::Nul) => "x-nul: a\0b\r\n",
                Some(HeadFlaw::OtherExpectation) => "expect: the-unexpected\r\n",
                _ => "",
            },
        );
        put(bytes, "\r\n");
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(text.as_bytes());
}
