//! The PROXY header: bytes in, addresses out. Version 1 is a line, version 2 a block that says its length. What is
//! taken is judged the same however it was sliced, and no more is ever asked for than the header has.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use proxy_header::{ParseConfig, ProxyHeader};

use crate::conn::{Address, ProxyClient, ProxyError};

const LINE: &[u8] = b"PROXY ";
const BLOCK: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// `PROXY UNKNOWN` and a line's end.
const LINE_AT_LEAST: usize = 15;
/// With the longest IPv6 addresses, or as much text behind `UNKNOWN` (specification, section 2.1).
const LINE_AT_MOST: usize = 107;
/// Signature, command, family and length.
const BLOCK_AT_LEAST: usize = 16;
/// The format's own bound of 64 KiB is a place to hide in; what balancers send has a few hundred bytes.
const BLOCK_AT_MOST: usize = 4096;

/// A path of the `AF_UNIX` family.
const PATH: usize = 108;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) client: ProxyClient,
    /// Of the client, and the one that it connected to.
    pub(super) addresses: Option<(Address, Address)>,
    pub(super) tlvs: Bytes,
}

/// How many bytes are missing at the least; none, if the header is whole.
///
/// So nothing that follows it is read, and nothing has to be given back.
pub(super) fn missing(head: &[u8]) -> Result<usize, ProxyError> {
    if head.is_empty() {
        Ok(LINE_AT_LEAST)
    } else if begins(head, LINE) {
        missing_of_line(head)
    } else if begins(head, BLOCK) {
        missing_of_block(head)
    } else {
        Err(ProxyError::Missing)
    }
}

fn begins(head: &[u8], signature: &[u8]) -> bool {
    head.iter().zip(signature).all(|(one, other)| one == other)
}

fn missing_of_line(line: &[u8]) -> Result<usize, ProxyError> {
    let missing = match line {
        _ if line.len() < LINE_AT_LEAST => LINE_AT_LEAST - line.len(),
        [.., b'\r', b'\n'] => return Ok(0),
        [text @ .., b'\r'] if !text.contains(&b'\r') => 1,
        text if text.contains(&b'\r') => return Err(ProxyError::Malformed),
        text if text.starts_with(b"PROXY UNKNOWN") => 2,
        // Each word that is to come has a byte behind its space.
        text => 2 + 2 * 5usize.saturating_sub(text.iter().filter(|byte| **byte == b' ').count()),
    };
    if line.len() + missing > LINE_AT_MOST {
        return Err(ProxyError::TooLarge);
    }
    Ok(missing)
}

fn missing_of_block(block: &[u8]) -> Result<usize, ProxyError> {
    let Some(length) = block.get(14..).and_then(<[u8]>::first_chunk) else {
        return Ok(BLOCK_AT_LEAST - block.len());
    };
    let whole = BLOCK_AT_LEAST + usize::from(u16::from_be_bytes(*length));
    if whole > BLOCK_AT_MOST {
        return Err(ProxyError::TooLarge);
    }
    Ok(whole.saturating_sub(block.len()))
}

/// What a whole header says.
pub(super) fn decode(head: &[u8]) -> Result<Header, ProxyError> {
    // The command LOCAL: whatever else the block holds is to be discarded unseen (section 2.2).
    if head.starts_with(BLOCK) && head.get(12) == Some(&0x20) {
        return Ok(Header {
            client: ProxyClient::Itself,
            addresses: None,
            tlvs: Bytes::new(),
        });
    }
    let parsed = ProxyHeader::parse(head, ParseConfig::default());
    let (header, length) = parsed.map_err(|_| ProxyError::Malformed)?;
    if length != head.len() {
        return Err(ProxyError::Malformed);
    }
    let told = header.proxied_address().map(|told| {
        let (source, destination) = (told.source, told.destination);
        (source.into(), destination.into())
    });
    if head.starts_with(LINE) {
        check_numbers(head)?;
        return Ok(Header {
            client: told
                .as_ref()
                .map_or(ProxyClient::Unknown, |_| ProxyClient::Told),
            addresses: told,
            tlvs: Bytes::new(),
        });
    }
    let Some((fixed, block)) = head.split_first_chunk::<BLOCK_AT_LEAST>() else {
        return Err(ProxyError::Malformed);
    };
    let (addresses, length) = match fixed[13] {
        0x11 => (told, 12),
        0x21 => (told, 36),
        0x31 => (unix(block), 2 * PATH),
        // Without a family nobody knows where addresses would end and fields begin.
        0x00 => (None, block.len()),
        // Datagrams don't come as a stream.
        _ => return Err(ProxyError::Malformed),
    };
    if addresses.is_some() && header.tlvs().any(|field| field.is_err()) {
        return Err(ProxyError::Malformed);
    }
    Ok(Header {
        client: addresses
            .as_ref()
            .map_or(ProxyClient::Unknown, |_| ProxyClient::Told),
        addresses,
        tlvs: Bytes::copy_from_slice(block.get(length..).unwrap_or_default()),
    })
}

/// Refuses what the specification forbids and the standard library's numbers allow: `+80` and `080`.
fn check_numbers(line: &[u8]) -> Result<(), ProxyError> {
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ').skip(1);
    if words.next() == Some(b"UNKNOWN") {
        return Ok(());
    }
    let is_port = |word: &[u8]| word == b"0" || matches!(word.first(), Some(b'1'..=b'9'));
    match words.skip(2).all(is_port) {
        true => Ok(()),
        false => Err(ProxyError::Malformed),
    }
}

fn unix(block: &[u8]) -> Option<(Address, Address)> {
    let (source, behind) = block.split_at_checked(PATH)?;
    let destination = behind.get(..PATH)?;
    Some((path(source), path(destination)))
}

fn path(bytes: &[u8]) -> Address {
    match bytes.split(|byte| *byte == 0).next() {
        None | Some([]) => Address::Unnamed,
        Some(path) => Address::Unix(OsStr::from_bytes(path).into()),
    }
}

#[cfg(test)]
mod tests;
