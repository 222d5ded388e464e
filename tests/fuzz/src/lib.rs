//! One function a target: bytes in, nothing out, a panic where a promise is broken. `cargo fuzz` calls them with what it invents,
//! the ordinary tests with the corpora, a target's binary with files. Nothing here knows the inside of the container.
//!
//! ```text
//! cargo fuzz run --fuzz-dir tests/fuzz request_head        # with -- -max_total_time=60 -dict=tests/fuzz/http.dict
//! cargo run -p wharf-fuzz --bin request_head -- FILE…      # replays
//! ```

#![warn(missing_docs)]

mod chunked;
mod differential;
mod edge;
mod encode;
mod end_to_end;
mod head;
mod runtime;

#[allow(dead_code, unreachable_pub)]
#[path = "../../support/answer.rs"]
mod answer;

pub use chunked::chunked_decoder;
pub use differential::diff_hyper;
pub use edge::{forwarded, log_escape, proxy_protocol};
pub use encode::response_encode;
pub use end_to_end::conn_e2e;
pub use head::request_head;

/// A target's name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 8] = [
    ("chunked_decoder", chunked_decoder),
    ("conn_e2e", conn_e2e),
    ("diff_hyper", diff_hyper),
    ("forwarded", forwarded),
    ("log_escape", log_escape),
    ("proxy_protocol", proxy_protocol),
    ("request_head", request_head),
    ("response_encode", response_encode),
];

/// The body of a target's file: libFuzzer's entry under `cargo fuzz`, elsewhere a `main` that replays the files it is given.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::$name(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            for file in std::env::args().skip(1) {
                $crate::$name(&std::fs::read(&file)?);
                println!("{file}: held");
            }
            Ok(())
        }
    };
}

/// Where a message is cut, and the message: the input begins with a count of cuts and a byte for each.
fn cut(data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (&count, rest) = data.split_first().unwrap_or((&0, data));
    let (cuts, message) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let mut pieces = Vec::new();
    let mut left = message;
    for &cut in cuts {
        let (piece, after) = left.split_at(usize::from(cut).min(left.len()));
        pieces.push(piece);
        left = after;
    }
    pieces.push(left);
    (pieces, message)
}
