//! One field of a line: any bytes in, at most [`LIMIT`] bytes out, none of which can end the line or the field, steer a
//! terminal, or turn the direction of text.

/// The most that a field takes up in a line.
pub(super) const LIMIT: usize = 1024;

/// The end of a field that was cut.
const CUT: &str = "…";

/// How what must not stand in a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As Apache does: `\xHH` for each byte.
    Bytes,
    /// As JSON does: `\uHHHH` for each character; `\xHH`, with its backslash escaped, for bytes that are none.
    Json,
}

/// Writes a field piece by piece.
pub(super) struct Field<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
    start: usize,
    /// Where the field ends if it has to be cut.
    cut_at: usize,
    full: bool,
}

impl<'a> Field<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, style: Style) -> Self {
        let start = out.len();
        Self {
            out,
            style,
            start,
            cut_at: start,
            full: false,
        }
    }

    /// Adds `text`, which is no part of a longer sequence of UTF-8.
    pub(super) fn push(&mut self, text: &[u8]) {
        // A byte is never written as less than one: more need not be looked at, in order to know that it is too much.
        let text = &text[..text.len().min(LIMIT + 4)];
        if self.full {
            return;
        }
        let fits = self.out.len() - self.start + text.len() <= LIMIT - CUT.len();
        if fits && text.iter().all(|byte| is_plain(*byte)) {
            self.out.extend_from_slice(text);
            self.cut_at = self.out.len();
            return;
        }
        for chunk in text.utf8_chunks() {
            for character in chunk.valid().chars() {
                self.character(character);
            }
            for byte in chunk.invalid() {
                let slash: &[u8] = if self.style == Style::Json {
                    b"\\"
                } else {
                    b""
                };
                let [high, low] = hex(*byte);
                self.unit(&[slash, &[b'\\', b'x', high, low]]);
            }
        }
    }

    fn character(&mut self, character: char) {
        let mut utf8 = [0; 4];
        let utf8 = character.encode_utf8(&mut utf8).as_bytes();
        match character {
            '"' | '\\' => self.unit(&[b"\\", utf8]),
            _ if !is_harmful(character) => self.unit(&[utf8]),
            _ if self.style == Style::Json => {
                let [high, low] = (character as u32 as u16).to_be_bytes();
                self.unit(&[b"\\u", &hex(high), &hex(low)]);
            }
            _ => {
                let mut bytes = [0; 16];
                for (escaped, byte) in bytes.chunks_exact_mut(4).zip(utf8) {
                    let [high, low] = hex(*byte);
                    escaped.copy_from_slice(&[b'\\', b'x', high, low]);
                }
                self.unit(&[&bytes[..4 * utf8.len()]]);
            }
        }
    }

    /// Adds what must not be cut in two.
    fn unit(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let end = self.out.len() + length;
        if self.full {
            return;
        }
        if end - self.start > LIMIT {
            self.full = true;
            self.out.truncate(self.cut_at);
            self.out.extend_from_slice(CUT.as_bytes());
            return;
        }
        for part in parts {
            self.out.extend_from_slice(part);
        }
        if end - self.start <= LIMIT - CUT.len() {
            self.cut_at = end;
        }
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// C0, DEL and C1; separators of lines; marks that turn the direction of text or can't be seen. All of them are below
/// U+10000.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}' | '\u{61c}' | '\u{feff}'
        )
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(style: Style, text: &[u8]) -> String {
        let mut out = b"before".to_vec();
        Field::new(&mut out, style).push(text);
        String::from_utf8(out)
            .expect("UTF-8")
            .split_off("before".len())
    }

    #[test]
    fn what_could_end_a_field_or_a_line_is_escaped() {
        for (text, bytes, json) in [
            (&b"plain /?a=b ~"[..], "plain /?a=b ~", "plain /?a=b ~"),
            (b"\"\\", "\\\"\\\\", "\\\"\\\\"),
            (
                b"\0\r\n\t\x1b\x7f",
                "\\x00\\x0d\\x0a\\x09\\x1b\\x7f",
                "\\u0000\\u000d\\u000a\\u0009\\u001b\\u007f",
            ),
            (
                "\u{85}\u{9b}".as_bytes(),
                "\\xc2\\x85\\xc2\\x9b",
                "\\u0085\\u009b",
            ),
            (
                "\u{2028}\u{2029}".as_bytes(),
                "\\xe2\\x80\\xa8\\xe2\\x80\\xa9",
                "\\u2028\\u2029",
            ),
            (
                "\u{202e}\u{feff}".as_bytes(),
                "\\xe2\\x80\\xae\\xef\\xbb\\xbf",
                "\\u202e\\ufeff",
            ),
            ("grüße 🦀".as_bytes(), "grüße 🦀", "grüße 🦀"),
            (
                b"\xff\xc3\xe2\x80",
                "\\xff\\xc3\\xe2\\x80",
                "\\\\xff\\\\xc3\\\\xe2\\\\x80",
            ),
        ] {
            assert_eq!(escaped(Style::Bytes, text), bytes);
            assert_eq!(escaped(Style::Json, text), json);
        }
    }

    #[test]
    fn a_field_is_cut_between_characters_and_says_so() {
        for unit in ["a", "\"", "\n", "ü", "🦀", "\u{2028}"] {
            for style in [Style::Bytes, Style::Json] {
                let one = escaped(style, unit.as_bytes());
                for count in LIMIT / one.len() - 1..LIMIT / one.len() + 3 {
                    let text = escaped(style, unit.repeat(count).as_bytes());
                    if count * one.len() <= LIMIT {
                        assert_eq!(text, one.repeat(count));
                    } else {
                        let kept = (LIMIT - CUT.len()) / one.len();
                        assert_eq!(text, one.repeat(kept) + CUT, "{unit:?} {count}");
                    }
                }
            }
        }
    }

    #[test]
    fn pieces_share_the_limit() {
        for sizes in [
            [LIMIT - 4, 4, 0],
            [LIMIT - 3, 1, 3],
            [1_000, 24, 1],
            [LIMIT, 1, 1],
        ] {
            let mut out = Vec::new();
            let mut field = Field::new(&mut out, Style::Json);
            sizes
                .iter()
                .for_each(|size| field.push(&b"x".repeat(*size)));
            let total: usize = sizes.iter().sum();
            let expected = if total <= LIMIT {
                "x".repeat(total)
            } else {
                "x".repeat(LIMIT - CUT.len()) + CUT
            };
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{sizes:?}");
        }
    }
}
