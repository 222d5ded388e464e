use std::net::SocketAddr;

use super::*;

/// Reads as the layer does, at most `step` bytes at a time; and how many bytes were read.
fn read(bytes: &[u8], step: usize) -> (Result<Header, ProxyError>, usize) {
    let mut read = 0;
    loop {
        match missing(&bytes[..read]) {
            Err(error) => return (Err(error), read),
            Ok(0) => return (decode(&bytes[..read]), read),
            Ok(_) if read == bytes.len() => return (Err(ProxyError::Truncated), read),
            Ok(missing) => read = bytes.len().min(read + missing.min(step)),
        }
    }
}

fn header(client: ProxyClient, addresses: Option<[&str; 2]>, tlvs: &[u8]) -> Header {
    let address = |text: &str| match text.parse::<SocketAddr>() {
        Ok(socket) => Address::Socket(socket),
        Err(_) if text.is_empty() => Address::Unnamed,
        Err(_) => Address::Unix(text.into()),
    };
    Header {
        client,
        addresses: addresses.map(|[peer, local]| (address(peer), address(local))),
        tlvs: Bytes::copy_from_slice(tlvs),
    }
}

/// Command and family, then what the length counts.
fn block(fixed: [u8; 2], parts: &[&[u8]]) -> Vec<u8> {
    let rest = parts.concat();
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [BLOCK, &fixed, &length, &rest].concat()
}

fn unix_path(path: &str) -> [u8; PATH] {
    let mut bytes = [0; PATH];
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    bytes
}

const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0xd4, 0x31, 0, 80];
const V4_TOLD: Option<[&str; 2]> = Some(["192.0.2.1:54321", "198.51.100.2:80"]);
const V6: &[u8] = &[
    0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 2, 0, 1, 1, 0xbb,
];
const V6_TOLD: Option<[&str; 2]> = Some(["[2001:db8::1]:1", "[2001:db8::2]:443"]);

fn good() -> Vec<(Vec<u8>, Header)> {
    use ProxyClient::{Itself, Told, Unknown};

    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest_line = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
    let longest_told = format!("[{longest}]:65535");
    let most_text = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_AT_MOST - 16));
    assert_eq!(most_text.len(), LINE_AT_MOST);
    let tlvs = b"\x01\0\x02h2\x02\0\x01a\x05\0\x02id";
    let bomb = [4, 0, 0].repeat((BLOCK_AT_MOST - 16 - 12) / 3);
    let padding = BLOCK_AT_MOST - 16 - 12 - 3;
    let padded = [
        &[4, (padding >> 8) as u8, padding as u8][..],
        &vec![0; padding],
    ]
    .concat();
    let paths = [unix_path("/run/client"), unix_path("/run/front.sock")].concat();
    let long_path = "p".repeat(PATH);
    vec![
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.2 54321 80\r\n".to_vec(),
            header(Told, V4_TOLD, b""),
        ),
        (
            b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(),
            header(Told, Some(["0.0.0.0:0", "0.0.0.0:0"]), b""),
        ),
        (
            b"PROXY TCP6 :: ::1 0 65535\r\n".to_vec(),
            header(Told, Some(["[::]:0", "[::1]:65535"]), b""),
        ),
        (
            longest_line.into_bytes(),
            header(Told, Some([&longest_told, &longest_told]), b""),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), header(Unknown, None, b"")),
        (most_text.into_bytes(), header(Unknown, None, b"")),
        (block([0x21, 0x11], &[V4]), header(Told, V4_TOLD, b"")),
        (
            block([0x21, 0x11], &[V4, tlvs]),
            header(Told, V4_TOLD, tlvs),
        ),
        (
            block([0x21, 0x21], &[V6, tlvs]),
            header(Told, V6_TOLD, tlvs),
        ),
        (
            block([0x21, 0x11], &[V4, &bomb]),
            header(Told, V4_TOLD, &bomb),
        ),
        (
            block([0x21, 0x11], &[V4, &padded]),
            header(Told, V4_TOLD, &padded),
        ),
        (
            block([0x21, 0x31], &[&paths, tlvs]),
            header(Told, Some(["/run/client", "/run/front.sock"]), tlvs),
        ),
        (
            block([0x21, 0x31], &[&unix_path(""), &unix_path(&long_path)]),
            header(Told, Some(["", &long_path]), b""),
        ),
        (block([0x21, 0x00], &[]), header(Unknown, None, b"")),
        (
            block([0x21, 0x00], &[b"anything"]),
            header(Unknown, None, b""),
        ),
        (block([0x20, 0x00], &[]), header(Itself, None, b"")),
        // What LOCAL says beside that isn't looked at.
        (block([0x20, 0x11], &[b"short"]), header(Itself, None, b"")),
        (block([0x20, 0xff], &[V4, tlvs]), header(Itself, None, b"")),
    ]
}

#[test]
fn a_header_is_understood_and_nothing_behind_it_is_asked_for_at_any_split() {
    for (bytes, wanted) in good() {
        for split in 0..bytes.len() {
            let missing = missing(&bytes[..split]).unwrap();
            let left = bytes.len() - split;
            assert!(
                (1..=left).contains(&missing),
                "{bytes:?} at {split}: {missing}"
            );
        }
        let with_request = [&bytes[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        for step in [1, 2, 5, 107, usize::MAX] {
            let (read, length) = read(&with_request, step);
            assert_eq!(read.as_ref(), Ok(&wanted), "{bytes:?}");
            assert_eq!(length, bytes.len());
        }
    }
}

#[test]
fn what_is_no_header_is_refused_the_same_however_it_is_sliced() {
    use ProxyError::{Malformed, Missing, TooLarge, Truncated};

    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_AT_MOST - 15));
    let over = BLOCK_AT_MOST - 16 - 12 - 3 + 1;
    let over = [&[4, (over >> 8) as u8, over as u8][..], &vec![0; over]].concat();
    for (bytes, wanted) in [
        (&b""[..], Truncated),
        (b"GET / HTTP/1.1\r\n\r\n", Missing),
        (b"PUT / HTTP/1.1\r\n\r\n", Missing),
        (b"POST / HTTP/1.1\r\n\r\n", Missing),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc", Missing),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Missing),
        (b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Missing),
        (b"PROXY\tTCP4 1.1.1.1 2.2.2.2 1 2\r\n", Missing),
        (b" PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", Missing),
        (b"\r\n\r\n\0\r\nQUIT\r", Missing),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2", Truncated),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r", Truncated),
        (b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n   ", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", Malformed),
        (b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rx", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 +2\r\n", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 -2\r\n", Malformed),
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n", Malformed),
        (b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", Malformed),
        (b"PROXY TCP4 1.1.1 2.2.2.2.2.2 1 2\r\n", Malformed),
        (b"PROXY TCP4 ::1 ::2 1 2\r\n         ", Malformed),
        (b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", Malformed),
        (b"PROXY TCP6 ::1%lo ::2 1 2\r\n    ", Malformed),
        (b"PROXY TCP4 \xff\xfe 2.2.2.2 1 2\r\n  ", Malformed),
        (b"PROXY UNKNOWN a\rb\r\n", Malformed),
        (too_long.as_bytes(), TooLarge),
        (&block([0x21, 0x11], &[V4])[..20], Truncated),
        (&block([0x11, 0x11], &[V4]), Malformed),
        (&block([0x22, 0x11], &[V4]), Malformed),
        (&block([0x21, 0x12], &[V4]), Malformed),
        (&block([0x21, 0x22], &[V6]), Malformed),
        (&block([0x21, 0x32], &[&[0; 2 * PATH]]), Malformed),
        (&block([0x21, 0x41], &[V6]), Malformed),
        (&block([0x21, 0x11], &[&V4[..11]]), Malformed),
        (&block([0x21, 0x21], &[&V6[..35]]), Malformed),
        (&block([0x21, 0x31], &[&[0; 2 * PATH - 1]]), Malformed),
        (&block([0x21, 0x11], &[V4, b"\x05"]), Malformed),
        (&block([0x21, 0x11], &[V4, b"\x05\0\x02i"]), Malformed),
        (&block([0x21, 0x11], &[V4, b"\x05\xff\xff"]), Malformed),
        (&block([0x21, 0x11], &[V4, b"\x02\0\x01\xff"]), Malformed),
        (
            &block([0x21, 0x31], &[&[0; 2 * PATH], b"\x05\0"]),
            Malformed,
        ),
        (&block([0x21, 0x11], &[V4, &over]), TooLarge),
        (&[BLOCK, b"\x20\0\xff\xff"].concat(), TooLarge),
    ] {
        for step in [1, 2, 5, 107, usize::MAX] {
            let text = bytes.escape_ascii();
            assert_eq!(read(bytes, step).0, Err(wanted), "{text} by {step}");
        }
    }
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn damaged_headers_and_noise_are_judged_without_panic_and_regardless_of_slicing() {
    let good = good();
    let spice = b"\r\n \0\x20\x21\x11\x31PRXY:.+0129\xff";
    let mut random = Random(1);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..40_000 {
        let mut bytes = match round % 4 {
            0 => (0..random.below(40))
                .map(|_| random.below(256) as u8)
                .collect(),
            _ => good[random.below(good.len())].0.clone(),
        };
        bytes.truncate(600);
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() + 1);
            let byte = spice[random.below(spice.len())];
            match random.below(3) {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        let (whole, length) = read(&bytes, usize::MAX);
        assert!(length <= BLOCK_AT_MOST);
        let (by_one, _) = read(&bytes, 1);
        let (by_seven, _) = read(&bytes, 7);
        let text = bytes.escape_ascii();
        assert_eq!(whole.as_ref().ok(), by_one.as_ref().ok(), "{text}");
        assert_eq!(whole.as_ref().ok(), by_seven.as_ref().ok(), "{text}");
        match whole {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        taken > 5_000 && refused > 5_000,
        "{taken} taken, {refused} refused"
    );
}
