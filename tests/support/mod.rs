//! What the tests of the wire share: a client in memory, a strict reader of answers, named handlers, and the notation
//! of the transcripts. None of it uses code of the server, so that a mistake there can't hide itself here.

// Each test file uses its own part of this module.
#![allow(dead_code, unreachable_pub)]

pub mod answer;
pub mod handlers;
pub mod notation;
pub mod pipe;
pub mod transcript;

use std::time::Duration;

use tokio::task::JoinHandle;
use wharf::{CloseReason, ConnReport};

/// The clock stands still until everything waits, so a connection that never ends takes no time to find out.
pub const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// The report of a connection that should have come to its end.
pub async fn report(connection: JoinHandle<ConnReport>) -> ConnReport {
    tokio::time::timeout(FOREVER, connection)
        .await
        .expect("the connection never ended")
        .expect("the connection panicked")
}

/// A close reason as the transcripts write it: without its figures, a refusal with its own reason.
pub fn reason(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Refused(reject) => format!("Refused({:?})", reject.reason()),
        other => {
            let text = format!("{other:?}");
            text.split(" {").next().unwrap_or(&text).to_owned()
        }
    }
}

/// Bytes as one can read them: CR LF as a line's end, everything odd escaped.
pub fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\r' if after.first() == Some(&b'\n') => {
                text.push('\n');
                rest = &after[1..];
            }
            b'\n' => text.push_str("\\n\n"),
            b'\r' => text.push_str("\\r"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        text.push_str("\\\n");
    }
    text
}

/// Random numbers that a seed repeats (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `below`, exclusive.
    pub fn below(&mut self, below: usize) -> usize {
        (self.next() % below.max(1) as u64) as usize
    }
}
