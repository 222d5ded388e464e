//! What a newcomer sees first: where it listens, what it keeps where, what bounds there are, the way of a request from the
//! socket to the handler, and three commands to try.

use std::fmt::{self, Write};

use wharf::Limits;

use crate::live::Facts;
use crate::settings::{Settings, Size};

/// The banner, to be printed.
pub struct Banner<'a> {
    /// What doesn't change.
    pub facts: &'a Facts,
    /// What was set.
    pub settings: &'a Settings,
    /// The bounds of a connection.
    pub limits: &'a Limits,
    /// Connections at a time, where that is set.
    pub workers: usize,
    /// The parser.
    pub codec: &'static str,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { facts, settings, limits, workers, codec } = self;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, text: String| {
            writeln!(f, "  {name:<10}{text}")
        };
        writeln!(f, "dockyard {}, a build cache on wharf\n", facts.version)?;
        let listening: Vec<_> = facts.listening.iter().map(|one| url(one)).collect();
        line(f, "listening", listening.join("  "))?;
        let (budget, largest) = (settings.budget, settings.largest);
        line(f, "store", format!("{}; keeps {budget}, blobs to {largest}", facts.store))?;
        let head = Size(limits.head_bytes as u64);
        let (head_time, idle) = (limits.head_timeout, limits.idle_timeout);
        line(f, "limits", format!("head {head} in {head_time:?}, idle {idle:?}, stalled {:?}, at least {} bytes a second", limits.stall_timeout, limits.rate_floor))?;
        line(f, "codec", (*codec).to_owned())?;
        let threads = if *workers == 1 { "thread" } else { "threads" };
        line(f, "workers", format!("{workers} {threads}, each accepts and keeps its own connections"))?;
        writeln!(f, "\n  from socket to handler")?;
        for (name, what) in &facts.layers {
            writeln!(f, "    {name:<18}{what}")?;
        }
        let base = listening.first().map_or("http://127.0.0.1:8888", String::as_str);
        writeln!(f, "\n  try")?;
        f.write_str(&commands(base))?;
        writeln!(f, "  the live page is at {base}/; Ctrl-C finishes what runs and stops")
    }
}

fn commands(base: &str) -> String {
    let mut text = String::new();
    let _ = match base.strip_prefix("unix:") {
        Some(path) => writeln!(text, "    curl --unix-socket {path} -T README.md http://localhost/b/docs/README.md"),
        None => writeln!(
            text,
            "    curl -T README.md {base}/b/docs/README.md\n    curl {base}/b/docs/README.md -r 0-99\n    CCACHE_REMOTE_STORAGE={base}/cache ccache gcc -c hello.c\n"
        ),
    };
    text
}

/// An address as a client writes it.
fn url(address: &str) -> String {
    if address.starts_with("unix:") {
        return address.to_owned();
    }
    let address = address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    format!("http://{address}")
}
