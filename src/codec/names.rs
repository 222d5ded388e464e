//! Well-known field names, found without a copy: a perfect hash over the first and last eight bytes, made at compile
//! time. A name that isn't here costs more and is worth the same.

use http::HeaderName;

use super::framing::Field;

/// A well-known name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: HeaderName,
    pub(super) field: Field,
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
#[inline]
pub(super) fn find(bytes: &[u8], start: usize, end: usize) -> Option<&'static Entry> {
    let len = end.checked_sub(start)?;
    let last = u64::from_le_bytes(*bytes.get(..end)?.last_chunk::<8>()?);
    let key = match len {
        0 => return None,
        1..8 => {
            let name = last >> (8 * (8 - len));
            Key {
                first: name,
                last: name,
            }
        }
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

macro_rules! names {
    ($($text:literal $field:ident,)*) => {
        static ENTRIES: [Entry; COUNT] = [$(Entry {
            name: HeaderName::from_static($text),
            field: Field::$field,
            text: $text,
            key: key($text),
            cases: cases(key($text)),
        },)*];
        const KEYS: [Key; COUNT] = [$(key($text),)*];
        const COUNT: usize = [$($text,)*].len();
    };
}

names! {
    "host" Host,
    "connection" Connection,
    "content-length" ContentLength,
    "transfer-encoding" TransferEncoding,
    "expect" Expect,
    "upgrade" Upgrade,
    "accept" Other,
    "accept-charset" Other,
    "accept-encoding" Other,
    "accept-language" Other,
    "access-control-request-headers" Other,
    "access-control-request-method" Other,
    "alt-used" Other,
    "authorization" Other,
    "baggage" Other,
    "cache-control" Other,
    "cdn-loop" Other,
    "cf-connecting-ip" Other,
    "cf-ray" Other,
    "content-digest" Other,
    "content-disposition" Other,
    "content-encoding" Other,
    "content-language" Other,
    "content-location" Other,
    "content-md5" Other,
    "content-range" Other,
    "content-type" Other,
    "cookie" Other,
    "date" Other,
    "device-memory" Other,
    "dnt" Other,
    "downlink" Other,
    "dpr" Other,
    "early-data" Other,
    "forwarded" Other,
    "from" Other,
    "grpc-timeout" Other,
    "idempotency-key" Other,
    "if-match" Other,
    "if-modified-since" Other,
    "if-none-match" Other,
    "if-range" Other,
    "if-unmodified-since" Other,
    "keep-alive" Other,
    "last-event-id" Other,
    "link" Other,
    "max-forwards" Other,
    "origin" Other,
    "pragma" Other,
    "prefer" Other,
    "priority" Other,
    "proxy-authorization" Other,
    "proxy-connection" Other,
    "range" Other,
    "referer" Other,
    "rtt" Other,
    "save-data" Other,
    "sec-ch-ua" Other,
    "sec-ch-ua-arch" Other,
    "sec-ch-ua-bitness" Other,
    "sec-ch-ua-full-version-list" Other,
    "sec-ch-ua-mobile" Other,
    "sec-ch-ua-model" Other,
    "sec-ch-ua-platform" Other,
    "sec-ch-ua-platform-version" Other,
    "sec-fetch-dest" Other,
    "sec-fetch-mode" Other,
    "sec-fetch-site" Other,
    "sec-fetch-storage-access" Other,
    "sec-fetch-user" Other,
    "sec-gpc" Other,
    "sec-purpose" Other,
    "sec-websocket-extensions" Other,
    "sec-websocket-key" Other,
    "sec-websocket-protocol" Other,
    "sec-websocket-version" Other,
    "te" Other,
    "traceparent" Other,
    "tracestate" Other,
    "trailer" Other,
    "true-client-ip" Other,
    "upgrade-insecure-requests" Other,
    "user-agent" Other,
    "via" Other,
    "x-amzn-trace-id" Other,
    "x-api-key" Other,
    "x-correlation-id" Other,
    "x-csrf-token" Other,
    "x-forwarded-for" Other,
    "x-forwarded-host" Other,
    "x-forwarded-port" Other,
    "x-forwarded-prefix" Other,
    "x-forwarded-proto" Other,
    "x-http-method-override" Other,
    "x-real-ip" Other,
    "x-request-id" Other,
    "x-requested-with" Other,
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
