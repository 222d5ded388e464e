//! Well-known field names, found without a copy: a perfect hash over the first and last eight bytes, made at compile
//! time. A name that isn't here costs more and is worth the same.

use http::HeaderName;

use super::framing::Field;

/// A well-known name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: HeaderName,
    pub(super) field: Field,
    /// Lines of it may be [kept](super::lines).
    pub(super) is_kept: bool,
    text: &'static str,
    key: Key,
    /// Has 0x20 in the place of each letter of `key`: what differs between the cases.
    cases: Key,
}

/// The first and the last eight bytes of a name, both the whole of it where it is shorter.
#[derive(Debug, Clone, Copy)]
struct Key {
    first: u64,
    last: u64,
}

/// The entry of the name at `bytes[start..end]`, in any case. Loads run over the start of a short name, into the line
/// before it, so they need no copy.
#[inline(always)]
pub(super) fn find(bytes: &[u8], start: usize, end: usize) -> Option<&'static Entry> {
    let len = end.checked_sub(start)?;
    let last = u64::from_le_bytes(*bytes.get(..end)?.last_chunk::<8>()?);
    let key = match len {
        1..8 => {
            let name = last >> (8 * (8 - len));
            Key {
                first: name,
                last: name,
            }
        }
        // No name at all comes here, too, and no entry is as short.
        _ => {
            let first = u64::from_le_bytes(*bytes.get(start..)?.first_chunk::<8>()?);
            Key { first, last }
        }
    };
    let entry = ENTRIES.get(usize::from(SLOTS[slot(key, SEED)]))?;
    let differs = ((key.first | entry.cases.first) ^ entry.key.first)
        | ((key.last | entry.cases.last) ^ entry.key.last);
    let is_same = differs == 0
        && len == entry.text.len()
        && (len <= 16
            || bytes
                .get(start..end)?
                .eq_ignore_ascii_case(entry.text.as_bytes()));
    is_same.then_some(entry)
}

const SLOT_BITS: u32 = 10;
const NONE: u8 = u8::MAX;

const fn slot(key: Key, seed: u64) -> usize {
    // Setting 0x20 makes the cases equal; that it makes some other bytes equal too doesn't matter to a hash.
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let mixed = (key.first | LOWER) ^ (key.last | LOWER).rotate_left(29);
    (mixed.wrapping_mul(seed) >> (64 - SLOT_BITS)) as usize
}

const fn key(text: &str) -> Key {
    let bytes = text.as_bytes();
    let len = bytes.len();
    let part = if len < 8 { len } else { 8 };
    let (mut first, mut last, mut at) = (0, 0, 0);
    while at < part {
        first |= (bytes[at] as u64) << (8 * at);
        last |= (bytes[len - part + at] as u64) << (8 * at);
        at += 1;
    }
    Key { first, last }
}

/// 0x20 for each byte that is a letter; `text` is lower case.
const fn cases(key: Key) -> Key {
    const fn of(eight: u64) -> u64 {
        let (mut mask, mut at) = (0, 0);
        while at < 8 {
            if ((eight >> (8 * at)) as u8).is_ascii_lowercase() {
                mask |= 0x20 << (8 * at);
            }
            at += 1;
        }
        mask
    }
    Key {
        first: of(key.first),
        last: of(key.last),
    }
}

const SEED: u64 = {
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    while !is_perfect(seed) {
        seed = seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f)
            | 1;
    }
    seed
};

const fn is_perfect(seed: u64) -> bool {
    let mut taken = [0_u64; 1 << (SLOT_BITS - 6)];
    let mut at = 0;
    while at < ENTRIES.len() {
        let slot = slot(KEYS[at], seed);
        if taken[slot >> 6] & (1 << (slot & 63)) != 0 {
            return false;
        }
        taken[slot >> 6] |= 1 << (slot & 63);
        at += 1;
    }
    true
}

static SLOTS: [u8; 1 << SLOT_BITS] = {
    let mut slots = [NONE; 1 << SLOT_BITS];
    let mut at = 0;
    while at < KEYS.len() {
        slots[slot(KEYS[at], SEED)] = at as u8;
        at += 1;
    }
    slots
};

/// The same values come again and again, and tell nothing of a person or a session.
const KEPT: bool = true;
const FRESH: bool = false;

macro_rules! names {
    ($($text:literal $field:ident $kept:ident,)*) => {
        static ENTRIES: [Entry; COUNT] = [$(Entry {
            name: HeaderName::from_static($text),
            field: Field::$field,
            is_kept: $kept,
            text: $text,
            key: key($text),
            cases: cases(key($text)),
        },)*];
        const KEYS: [Key; COUNT] = [$(key($text),)*];
        const COUNT: usize = [$($text,)*].len();
    };
}

names! {
    "host" Host KEPT,
    "connection" Connection KEPT,
    "content-length" ContentLength FRESH,
    "transfer-encoding" TransferEncoding FRESH,
    "expect" Expect FRESH,
    "upgrade" Upgrade FRESH,
    "accept" Other KEPT,
    "accept-charset" Other KEPT,
    "accept-encoding" Other KEPT,
    "accept-language" Other KEPT,
    "access-control-request-headers" Other FRESH,
    "access-control-request-method" Other FRESH,
    "alt-used" Other FRESH,
    "authorization" Other FRESH,
    "baggage" Other FRESH,
    "cache-control" Other KEPT,
    "cdn-loop" Other FRESH,
    "cf-connecting-ip" Other FRESH,
    "cf-ray" Other FRESH,
    "content-digest" Other FRESH,
    "content-disposition" Other FRESH,
    "content-encoding" Other FRESH,
    "content-language" Other FRESH,
    "content-location" Other FRESH,
    "content-md5" Other FRESH,
    "content-range" Other FRESH,
    "content-type" Other KEPT,
    "cookie" Other FRESH,
    "date" Other FRESH,
    "device-memory" Other KEPT,
    "dnt" Other KEPT,
    "downlink" Other KEPT,
    "dpr" Other KEPT,
    "early-data" Other FRESH,
    "forwarded" Other FRESH,
    "from" Other FRESH,
    "grpc-timeout" Other FRESH,
    "idempotency-key" Other FRESH,
    "if-match" Other FRESH,
    "if-modified-since" Other FRESH,
    "if-none-match" Other FRESH,
    "if-range" Other FRESH,
    "if-unmodified-since" Other FRESH,
    "keep-alive" Other KEPT,
    "last-event-id" Other FRESH,
    "link" Other FRESH,
    "max-forwards" Other FRESH,
    "origin" Other FRESH,
    "pragma" Other KEPT,
    "prefer" Other FRESH,
    "priority" Other KEPT,
    "proxy-authorization" Other FRESH,
    "proxy-connection" Other FRESH,
    "range" Other FRESH,
    "referer" Other FRESH,
    "rtt" Other KEPT,
    "save-data" Other KEPT,
    "sec-ch-ua" Other KEPT,
    "sec-ch-ua-arch" Other KEPT,
    "sec-ch-ua-bitness" Other KEPT,
    "sec-ch-ua-full-version-list" Other KEPT,
    "sec-ch-ua-mobile" Other KEPT,
    "sec-ch-ua-model" Other KEPT,
    "sec-ch-ua-platform" Other KEPT,
    "sec-ch-ua-platform-version" Other KEPT,
    "sec-fetch-dest" Other KEPT,
    "sec-fetch-mode" Other KEPT,
    "sec-fetch-site" Other KEPT,
    "sec-fetch-storage-access" Other KEPT,
    "sec-fetch-user" Other KEPT,
    "sec-gpc" Other KEPT,
    "sec-purpose" Other KEPT,
    "sec-websocket-extensions" Other FRESH,
    "sec-websocket-key" Other FRESH,
    "sec-websocket-protocol" Other FRESH,
    "sec-websocket-version" Other KEPT,
    "te" Other KEPT,
    "traceparent" Other FRESH,
    "tracestate" Other FRESH,
    "trailer" Other FRESH,
    "true-client-ip" Other FRESH,
    "upgrade-insecure-requests" Other KEPT,
    "user-agent" Other KEPT,
    "via" Other KEPT,
    "x-amzn-trace-id" Other FRESH,
    "x-api-key" Other FRESH,
    "x-correlation-id" Other FRESH,
    "x-csrf-token" Other FRESH,
    "x-forwarded-for" Other FRESH,
    "x-forwarded-host" Other KEPT,
    "x-forwarded-port" Other KEPT,
    "x-forwarded-prefix" Other KEPT,
    "x-forwarded-proto" Other KEPT,
    "x-http-method-override" Other FRESH,
    "x-real-ip" Other FRESH,
    "x-request-id" Other FRESH,
    "x-requested-with" Other KEPT,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Option<&'static str> {
        let bytes = format!("GET / HTTP/1.1\r\n{name}: a\r\n");
        find(bytes.as_bytes(), 16, 16 + name.len()).map(|entry| entry.text)
    }

    #[test]
    fn each_name_is_found_in_any_case_and_knows_its_kind() {
        for entry in &ENTRIES {
            assert_eq!(found(entry.text), Some(entry.text));
            assert_eq!(found(&entry.text.to_ascii_uppercase()), Some(entry.text));
            assert_eq!(
                (entry.name.as_str(), entry.field),
                (entry.text, Field::of(&entry.name))
            );
        }
    }

    #[test]
    fn no_byte_can_be_exchanged() {
        for entry in &ENTRIES {
            for at in 0..entry.text.len() {
                for other in 0..=0x7f_u8 {
                    let mut name = entry.text.as_bytes().to_vec();
                    name[at] = other;
                    let name = String::from_utf8(name).unwrap();
                    if !name.eq_ignore_ascii_case(entry.text) {
                        assert_ne!(found(&name), Some(entry.text), "{name:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_name_with_a_byte_more_or_less_is_another() {
        for entry in &ENTRIES {
            assert_ne!(found(&format!("{}s", entry.text)), Some(entry.text));
            assert_ne!(found(&entry.text[1..]), Some(entry.text));
        }
        assert_eq!(found(""), None);
    }
}
