//! What a newcomer sees first: where it listens, what it keeps where, what bounds there are, the way of a request from the
//! socket to the handler, and three commands to try.

use std::fmt;

use wharf::Limits;

use crate::live::Facts;
use crate::settings::{Settings, Size};
use crate::tls::Secure;

/// What is served, in words that don't change: for the banner and for the page.
pub fn facts(
    settings: &Settings,
    listening: &[String],
    secure: Option<&Secure>,
    store: String,
) -> Facts {
    let layer = |name: &str, what: String| (name.to_owned(), what);
    let mut layers = Vec::new();
    if !settings.proxy_protocol.is_empty() {
        let from = settings.proxy_protocol.join(", ");
        layers.push(layer(
            "PROXY protocol",
            format!("the real peer, as {from} tells it"),
        ));
    }
    let (per_peer, requests) = (settings.per_peer, settings.requests);
    let trusted = match settings.trust.join(", ") {
        none if none.is_empty() => "is the peer; X-Forwarded-For is not believed".to_owned(),
        these => format!("as X-Forwarded-For from {these} says"),
    };
    layers.push(layer(
        "per peer",
        format!("at most {per_peer} connections of one address"),
    ));
    if secure.is_some() {
        layers.push(layer(
            "TLS",
            "1.3 or 1.2; what is inside comes out, HTTP/2 is offered".into(),
        ));
    }
    layers.extend([
        layer(
            "HTTP",
            "1.1 or 2: connections become requests; broken ones are refused here".into(),
        ),
        layer("metrics", "what /metrics and the page show".into()),
        layer("client address", trusted),
        layer(
            "access log",
            "one line a request, when its response has ended".into(),
        ),
        layer(
            "keep-alive",
            "connections are kept, for less long when it is crowded".into(),
        ),
        layer(
            "overload",
            format!("{requests} requests at a time, a short queue, then 503"),
        ),
        layer(
            "time-out",
            "a response that stands still for 30 s is given up".into(),
        ),
        layer("handler", "blobs, caches, events, this page".into()),
    ]);
    let listening: Vec<_> = listening
        .iter()
        .map(|one| url(one, secure.is_some()))
        .collect();
    let first = listening.first().map_or("", String::as_str);
    Facts {
        tries: commands(first, secure.is_some()),
        listening,
        certificate: secure.map_or_else(Vec::new, |secure| secure.certificate.clone()),
        store,
        layers,
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// The banner, to be printed.
#[derive(Debug)]
pub struct Banner<'a> {
    settings: &'a Settings,
    facts: &'a Facts,
    limits: &'a Limits,
}

impl<'a> Banner<'a> {
    /// Of a server that is about to serve.
    pub fn new(settings: &'a Settings, facts: &'a Facts, limits: &'a Limits) -> Self {
        Self {
            settings,
            facts,
            limits,
        }
    }
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (facts, settings, limits) = (self.facts, self.settings, self.limits);
        let base = facts.listening.first().map_or("", String::as_str);
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = match settings.workers.unwrap_or_else(cores) {
            1 => "1 thread accepts and serves".to_owned(),
            workers => format!("{workers} threads, each accepts and keeps its own connections"),
        };
        let (head, idle) = (Size(limits.head_bytes as u64), limits.idle_timeout);
        let (time, stall) = (limits.head_timeout, limits.stall_timeout);
        let lines = [
            ("listening", facts.listening.join("  ")),
            ("store", facts.store.clone()),
            (
                "keeps",
                format!(
                    "{}, blobs of at most {}; what was not used for longest goes",
                    settings.budget, settings.largest
                ),
            ),
            (
                "limits",
                format!("head {head} in {time:?}, idle {idle:?}, standing still {stall:?}"),
            ),
            (
                "codec",
                "HTTP/1.1, strict: what could be read in two ways is refused; HTTP/2 too".into(),
            ),
            ("workers", workers),
        ];
        let certificate = facts.certificate.iter().enumerate();
        let certificate = certificate.map(|(at, line)| {
            let name = if at == 0 { "certificate" } else { "" };
            (name, line.clone())
        });
        let (first, others) = lines.split_at(1);
        let lines = first
            .iter()
            .cloned()
            .chain(certificate)
            .chain(others.iter().cloned());
        writeln!(f, "dockyard {}, a build cache on wharf\n", facts.version)?;
        for (name, what) in lines {
            writeln!(f, "  {name:<12}{what}")?;
        }
        writeln!(f, "\n  from socket to handler")?;
        for (name, what) in &facts.layers {
            writeln!(f, "    {name:<16}{what}")?;
        }
        writeln!(f, "\n  try")?;
        for command in &facts.tries {
            writeln!(f, "    {command}")?;
        }
        match base.starts_with("unix:") {
            true => writeln!(f, "\nCtrl-C finishes what runs, and stops.\n"),
            false => writeln!(
                f,
                "\nThe live page is at {base}/ - Ctrl-C finishes what runs, and stops.\n"
            ),
        }
    }
}

/// Something is stored, a part of it read, and then what it is all for; where ccache can't go (a Unix socket, TLS), a listing.
fn commands(base: &str, is_secure: bool) -> [String; 3] {
    let (curl, base) = match (base.strip_prefix("unix:"), is_secure) {
        (Some(path), false) => (format!("curl --unix-socket {path}"), "http://localhost"),
        (Some(path), true) => (format!("curl -k --unix-socket {path}"), "https://localhost"),
        (None, false) => ("curl".to_owned(), base),
        (None, true) => ("curl -k".to_owned(), base),
    };
    let last = match curl == "curl" {
        true => format!("CCACHE_REMOTE_STORAGE={base}/cache ccache gcc -c hello.c"),
        false => format!("{curl} '{base}/b/docs?limit=10'"),
    };
    [
        format!("{curl} -T Cargo.toml {base}/b/docs/Cargo.toml"),
        format!("{curl} -r 0-99 {base}/b/docs/Cargo.toml"),
        last,
    ]
}

/// An address as a client writes it.
fn url(address: &str, is_secure: bool) -> String {
    if address.starts_with("unix:") {
        return address.to_owned();
    }
    let address = address
        .replace("0.0.0.0:", "127.0.0.1:")
        .replace("[::]:", "[::1]:");
    let scheme = if is_secure { "https" } else { "http" };
    format!("{scheme}://{address}")
}
