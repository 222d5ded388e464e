//! Replays the transcripts of `tests/conversations`: each under both codecs, one after the other and with
//! concurrent pipelining, whole, byte by byte and in random cuts, and over TLS,
//! and demands the same bytes, the same end and the same requests every time. What a case means is written in the
//! transcripts alone; nothing here knows a rule of HTTP.
//!
//! `CASE=text cargo test --test conversations` replays only the cases whose place or title contains the text.

mod support;

use std::ops::Range;
use std::path::{Path, PathBuf};

use support::answer::canonical;
#[cfg(feature = "tls")]
use support::encrypted::{self, Encrypted};
use support::handlers::{self, Seen};
use support::pipe::{Client, pipe};
use support::transcript::{self, Case, End, Step};
use support::{FOREVER, Random, readable, reason, report};
use tokio::task::JoinHandle;
use tower::service_fn;
#[cfg(feature = "tls")]
use tower::{ServiceBuilder, ServiceExt};
use wharf::codec::{Httparse, Strict};
#[cfg(feature = "tls")]
use wharf::{Conn, Tls};
use wharf::{ConnReport, Http, Limits};

/// Seeds of the random cuts.
const SEEDS: Range<u64> = 0..4;

/// A head of more bytes than this isn't played byte by byte: its cuts are random, as those of the seeds.
const BYTE_BY_BYTE: usize = 40_000;

/// The same over TLS, where each byte becomes a record.
#[cfg(feature = "tls")]
const RECORD_BY_RECORD: usize = 4_000;

#[test]
fn conversations_go_as_written() {
    // A handler that panics, as some cases ask for, needn't print where.
    std::panic::set_hook(Box::new(|info| {
        if !info.to_string().contains("as it should") {
            eprintln!("{info}");
        }
    }));
    let failures: Vec<String> = documents()
        .iter()
        .flat_map(|path| replay_document(path))
        .collect();
    let shown = failures
        .iter()
        .take(20)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        failures.is_empty(),
        "{} cases went otherwise\n{shown}",
        failures.len()
    );
}

fn documents() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of the transcripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "md")
                && !path.ends_with("README.md")
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcripts");
    paths
}

/// Replays all cases of a document in all ways; what went otherwise, one text a case.
fn replay_document(path: &Path) -> Vec<String> {
    let wanted = std::env::var("CASE").unwrap_or_default();
    let cases = transcript::read(path);
    let (mut count, mut runs, mut failures) = (0, 0, vec![]);
    for case in cases
        .iter()
        .filter(|case| case.place.contains(&wanted) || case.title.contains(&wanted))
    {
        let ways = ways(case);
        count += 1;
        runs += ways.len();
        failures.extend(replay(case, &ways).err());
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    println!(
        "{name:>18}: {count:>4} cases, {runs:>5} runs, {} otherwise",
        failures.len()
    );
    failures
}

/// A kind of server and a way of cutting what the client sends.
#[derive(Debug, Clone, Copy)]
struct Way {
    server: Kind,
    cuts: Cuts,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Httparse,
    Strict,
    /// The strict codec, and pipelined requests handled concurrently.
    Concurrent,
    /// The strict codec over TLS; a read of the socket finds so many bytes at most.
    #[cfg(feature = "tls")]
    Tls(usize),
}

#[derive(Debug, Clone, Copy)]
enum Cuts {
    Whole,
    EachByte,
    Random(u64),
}

fn ways(case: &Case) -> Vec<Way> {
    let mut cuts = vec![Cuts::Whole];
    if !case.is_whole_only {
        if sent(case) <= BYTE_BY_BYTE {
            cuts.push(Cuts::EachByte);
        }
        cuts.extend(SEEDS.map(Cuts::Random));
    }
    let plain = [Kind::Httparse, Kind::Strict, Kind::Concurrent];
    let ways = plain
        .into_iter()
        .flat_map(|server| cuts.iter().map(move |&cuts| Way { server, cuts }));
    #[cfg(feature = "tls")]
    let ways = ways.chain(ways_over_tls(case));
    ways.collect()
}

/// In few records and in many, which arrive in one piece, byte by byte, and seven bytes at a time.
#[cfg(feature = "tls")]
fn ways_over_tls(case: &Case) -> Vec<Way> {
    let mut ways = vec![(usize::MAX, Cuts::Whole), (1, Cuts::Whole)];
    if !case.is_whole_only {
        if sent(case) <= RECORD_BY_RECORD {
            ways.push((usize::MAX, Cuts::EachByte));
        }
        ways.push((7, Cuts::Random(0)));
    }
    let way = |(piece, cuts)| Way {
        server: Kind::Tls(piece),
        cuts,
    };
    ways.into_iter().map(way).collect()
}

/// How many bytes the client sends.
fn sent(case: &Case) -> usize {
    let sends = case.steps.iter().filter_map(|step| match step {
        Step::Send(bytes) => Some(bytes.len()),
        _ => None,
    });
    sends.sum()
}

/// Plays a case in all ways; the first that goes otherwise is told.
fn replay(case: &Case, ways: &[Way]) -> Result<(), String> {
    let expected: Vec<u8> = case
        .steps
        .iter()
        .flat_map(|step| {
            if let Step::Expect(b) = step {
                &b[..]
            } else {
                &[]
            }
        })
        .copied()
        .collect();
    let mut first: Option<Outcome> = None;
    for way in ways {
        let tell = |what: &str| {
            Err(format!(
                "\n{}: {}\n  {way:?}: {what}",
                case.place, case.title
            ))
        };
        let played = std::panic::catch_unwind(|| play(case, *way));
        let Ok(outcome) = played else {
            return tell("the connection panicked or never ended");
        };
        if outcome.answers != expected || outcome.end != case.end {
            return tell(&difference(&expected, &case.end, &outcome));
        }
        let first = first.get_or_insert_with(|| outcome.clone());
        // Safe requests behind one that ends the connection may have been begun beside it.
        let begun_beside = way.server == Kind::Concurrent && outcome.seen.starts_with(&first.seen);
        if first.seen != outcome.seen && !begun_beside {
            return tell(&format!(
                "the handler saw {:?}, and {:?} at first",
                outcome.seen, first.seen
            ));
        }
    }
    Ok(())
}

fn difference(expected: &[u8], end: &End, outcome: &Outcome) -> String {
    let indent = |text: String| {
        text.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    let common = expected
        .iter()
        .zip(&outcome.answers)
        .take_while(|(a, b)| a == b)
        .count();
    format!(
        "differs from byte {common} on\n  expected, and then {end:?}:\n{}  got, and then {:?}:\n{}  the handler saw {:?}",
        indent(readable(expected)),
        outcome.end,
        indent(readable(&outcome.answers)),
        outcome.seen
    )
}

/// How a conversation went.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    /// All that the server sent, in canonical form.
    answers: Vec<u8>,
    end: End,
    seen: Vec<String>,
}

/// Plays a case once, on a clock of its own that only moves when everything waits.
fn play(case: &Case, way: Way) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let (client, stream) = pipe();
        let seen = Seen::default();
        let connection = serve(way.server, &case.limits, stream, seen.clone());
        speak(&client, case, way.cuts).await;
        let is_closed = client.is_over();
        let is_clean = client.is_finished();
        client.finish();
        let report = report(connection).await;
        let why = reason(&report.reason);
        let end = match (is_closed, is_clean) {
            (false, _) if why == "ClientClosed" => End::Kept,
            (_, true) => End::Closed(why),
            _ => End::Cut(why),
        };
        let seen = seen.lock().unwrap().clone();
        Outcome {
            answers: canonical(&client.received()),
            end,
            seen,
        }
    })
}

fn serve(
    server: Kind,
    limits: &Limits,
    stream: support::pipe::Stream,
    seen: Seen,
) -> JoinHandle<ConnReport> {
    let service = service_fn(move |request| handlers::answer(request, seen.clone()));
    let http = Http::new().limits(limits.clone());
    let strict = http.clone().codec(Strict::new);
    let works = "limits that work";
    match server {
        Kind::Httparse => {
            let http = http.codec(Httparse::new);
            tokio::spawn(http.connection(stream.into(), service).expect(works))
        }
        Kind::Strict => tokio::spawn(strict.connection(stream.into(), service).expect(works)),
        Kind::Concurrent => {
            let http = strict.concurrent_pipelining(4);
            tokio::spawn(http.connection(stream.into(), service).expect(works))
        }
        #[cfg(feature = "tls")]
        Kind::Tls(piece) => {
            let (config, _) = encrypted::ends();
            let stack = ServiceBuilder::new()
                .layer(Tls::new(config.clone()))
                .layer(strict)
                .service(service);
            let stream = Encrypted::new(stream, piece);
            tokio::spawn(async { stack.oneshot(Conn::from(stream)).await.expect(works) })
        }
    }
}

/// The client's side of a case. Before it says the next thing the server has done all it could with the last.
async fn speak(client: &Client, case: &Case, cuts: Cuts) {
    let mut expected = 0;
    for step in &case.steps {
        match step {
            Step::Send(bytes) => {
                for slice in cut(bytes, cuts) {
                    client.send_and_settle(slice).await;
                }
            }
            Step::Expect(bytes) => {
                expected += bytes.len();
                let enough = client.until(|received| canonical(received).len() >= expected);
                let _ = tokio::time::timeout(FOREVER, enough).await;
            }
            Step::Finish => client.finish(),
            Step::Reset => client.reset(),
            Step::Wait(time) => tokio::time::sleep(*time).await,
        }
        client.settle().await;
    }
    // A server that means to close has done so by now, or does it without another word of the client.
    if case.end != End::Kept {
        let _ = tokio::time::timeout(FOREVER, client.over()).await;
    }
}

fn cut(bytes: &[u8], cuts: Cuts) -> Vec<&[u8]> {
    let mut random = match cuts {
        Cuts::Whole => return vec![bytes],
        Cuts::EachByte => return bytes.chunks(1).collect(),
        Cuts::Random(seed) => Random(seed ^ bytes.len() as u64),
    };
    // Few cuts in some runs, many in others.
    let longest = [3, 20, 200, bytes.len()][random.below(4)].max(2);
    let mut slices = vec![];
    let mut rest = bytes;
    while !rest.is_empty() {
        let (slice, after) = rest.split_at((1 + random.below(longest)).min(rest.len()));
        slices.push(slice);
        rest = after;
    }
    slices
}
