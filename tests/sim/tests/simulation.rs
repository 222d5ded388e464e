//! The simulation's own promises: a seed is a trace, what once failed stays mended, and bugs are found.

use std::sync::Arc;

use wharf_sim::answers::Answers;
use wharf_sim::bugs::Bug;
use wharf_sim::hunt::{self, GROUP, How};
use wharf_sim::shrink::Failing;
use wharf_sim::{generate, script::Script};

const OVER_TLS: How = How {
    bug: None,
    tls: true,
};

#[test]
fn a_seed_is_a_trace_whatever_was_played_before_and_wherever() {
    let seeds: Vec<u64> = (0..400).map(|at| at * 7919).collect();
    let play = |seeds: &mut dyn Iterator<Item = &u64>| -> Vec<(u64, String)> {
        seeds
            .map(|&seed| {
                let how = How {
                    tls: seed % 2 == 1,
                    ..How::default()
                };
                let (_, _, played) = hunt::replay(seed, how);
                let trace = played.trace.expect("it was asked for");
                assert!(!trace.is_empty(), "seed {seed}");
                (seed, trace + &format!("{:x}", played.digest))
            })
            .collect()
    };
    let first = play(&mut seeds.iter());
    let other_thread = std::thread::spawn({
        let seeds = seeds.clone();
        move || {
            let mut backwards = play(&mut seeds.iter().rev());
            backwards.reverse();
            backwards
        }
    });
    for ((seed, one), (_, other)) in first.iter().zip(other_thread.join().unwrap()) {
        assert_eq!(*one, other, "seed {seed}");
    }
}

#[test]
fn thousands_of_seeds_hold_all_promises() {
    let found = hunt::run(0, 4_000, 2, How::default(), &|_| {});
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn thousands_of_seeds_hold_all_promises_over_tls_and_have_the_answers_of_plain_text() {
    let found = hunt::run(0, 4_000, 2, OVER_TLS, &|_| {});
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_once_failed_stays_mended() {
    let seeds = include_str!("../seeds.txt");
    let lines = seeds.lines().filter(|line| !line.starts_with('#'));
    let mut replayed = 0;
    for line in lines {
        let seed = line.split_whitespace().next().expect("a seed");
        let seed: u64 = seed.parse().expect("a number");
        for how in [How::default(), OVER_TLS] {
            let failed = hunt::group(seed - seed % GROUP, how);
            assert!(failed.is_none(), "{line}, {how:?}: {failed:?}");
        }
        replayed += 1;
    }
    assert!(replayed > 0);
}

#[test]
fn each_bug_of_the_past_is_found_within_a_hundred_thousand_seeds() {
    for (name, bug) in Bug::ALL {
        let without = How {
            bug: None,
            tls: bug.is_of_tls(),
        };
        let with = How {
            bug: Some(bug),
            ..without
        };
        let found = hunt::run(0, 100_000, 1, with, &|_| {});
        let first = found
            .first()
            .unwrap_or_else(|| panic!("{name} isn't found"));
        println!("{name}: {} seeds, {}", first.seed + 1, first.wrong);
        assert!(
            hunt::group(first.seed - first.seed % GROUP, without).is_none(),
            "{name}: without it, too"
        );
    }
}

#[test]
fn a_failure_is_shrunk_to_what_it_needs() {
    let how = How {
        bug: Some(Bug::ServesAfterClose),
        tls: false,
    };
    let (small, wrong) = shrunk(how);
    assert!(wrong.contains("close"), "{wrong}");
    assert_eq!(small.script.asked.len(), 2, "{}", small.script);
    assert_eq!(small.script.steps.len(), 2, "{}", small.script);
    assert_eq!(small.wrong(), Some(wrong), "it is repeated");
}

#[test]
fn a_failure_of_tls_is_shrunk_over_tls() {
    let how = How {
        bug: Some(Bug::EndUntold),
        ..OVER_TLS
    };
    let (small, wrong) = shrunk(how);
    assert!(wrong.contains("close_notify"), "{wrong}");
    assert!(small.timing.over_tls);
    assert_eq!(small.script.asked.len(), 1, "{}", small.script);
    assert_eq!(small.wrong(), Some(wrong), "it is repeated");
}

/// The first failure within a hundred thousand seeds, made small, and what is wrong with it.
fn shrunk(how: How) -> (Failing, String) {
    let found = hunt::run(0, 100_000, 1, how, &|_| {});
    let (script, timing) = hunt::scenario(found[0].seed, how);
    let failing = Failing {
        script: (*script).clone(),
        timing,
        beside: None,
        bug: how.bug,
    };
    failing.shrink()
}

/// What the oracle says of answers to the requests of this script.
fn wrong(script: Script, answers: &str) -> Option<String> {
    let begins = vec![0; script.asked.len()];
    let mut whole = Answers::new(Arc::new(script.clone()), begins.clone());
    whole.take(answers.as_bytes());
    let mut sliced = Answers::new(Arc::new(script), begins);
    for byte in answers.bytes() {
        sliced.take(&[byte]);
    }
    assert_eq!(whole.wrong.is_some(), sliced.wrong.is_some(), "{answers}");
    assert_eq!(whole.digest, sliced.digest, "{answers}");
    whole.wrong
}

/// One plain GET of HTTP/1.1.
fn get() -> Script {
    let plain = |script: &Script| {
        script.asked.len() == 1 && script.asked[0].to_string() == "GET HTTP/1.1, None"
    };
    (0..)
        .map(generate::script)
        .find(plain)
        .expect("one of them")
}

#[test]
fn the_oracle_takes_what_is_right_and_nothing_else() {
    const DATE: &str = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    let answer = |rest: &str| format!("HTTP/1.1 200 OK\r\nx-id: 0\r\n{DATE}{rest}");
    for right in [
        "content-length: 0\r\n\r\n",
        "content-length: 3\r\n\r\nHTT",
        "transfer-encoding: chunked\r\n\r\n3\r\nHTT\r\n0\r\n\r\n",
        "connection: close\r\ncontent-length: 1\r\n\r\nH",
    ] {
        assert_eq!(wrong(get(), &answer(right)), None, "{right}");
    }
    for (what, rest) in [
        ("a line end that is missing", "content-length: 0\n\r\n\r\n"),
        ("no space behind a colon", "content-length:0\r\n\r\n"),
        (
            "two lengths",
            "content-length: 0\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "both framings",
            "content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        ("another coding", "transfer-encoding: gzip\r\n\r\n"),
        ("a signed length", "content-length: +1\r\n\r\nH"),
        ("other content", "content-length: 3\r\n\r\nhtt"),
        (
            "a size that is no number",
            "transfer-encoding: chunked\r\n\r\nx\r\n",
        ),
        (
            "a chunk that is too long",
            "transfer-encoding: chunked\r\n\r\n1\r\nHTT",
        ),
        (
            "a trailer that nobody sent",
            "transfer-encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n",
        ),
        (
            "bytes behind close",
            "connection: close\r\ncontent-length: 1\r\n\r\nHT",
        ),
        (
            "a second date",
            "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
        ),
        (
            "an answer too many",
            "content-length: 0\r\n\r\nHTTP/1.1 200 OK\r\nx-id: 1\r\ncontent-length: 0\r\n\r\n",
        ),
    ] {
        assert!(wrong(get(), &answer(rest)).is_some(), "{what}");
    }
    for (what, answer) in [
        (
            "no date",
            "HTTP/1.1 200 OK\r\nx-id: 0\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "another's answer",
            format!("HTTP/1.1 200 OK\r\nx-id: 1\r\n{DATE}content-length: 0\r\n\r\n"),
        ),
        ("no status line", "HTTP/1.1  200 OK\r\n\r\n".to_owned()),
        (
            "a 100 that nobody asked for",
            "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        ),
        (
            "a 204 with content",
            format!("HTTP/1.1 204 No Content\r\nx-id: 0\r\n{DATE}content-length: 0\r\n\r\n"),
        ),
        (
            "an own answer without a length",
            format!("HTTP/1.1 400 Bad Request\r\n{DATE}\r\n"),
        ),
        (
            "a success of nobody",
            format!("HTTP/1.1 200 OK\r\n{DATE}content-length: 0\r\n\r\n"),
        ),
    ] {
        assert!(wrong(get(), &answer).is_some(), "{what}");
    }
}
