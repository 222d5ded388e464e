//! kill -9, again and again, while clients write: what was acknowledged is there, and nothing that is there is torn.

mod support;

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::time::Duration;

use support::{Client, Dockyard};

/// Small ones in the index, large ones as files.
const SIZES: [usize; 4] = [100, 40_000, 70_000, 900_000];
const WRITERS: u64 = 4;
/// Keys of a writer: each is written many times, so that replacing is interrupted too.
const KEYS: u64 = 12;

/// The content of a version of a blob: it says which one it is, and any part of another would show.
fn content(key: &str, version: u64) -> Vec<u8> {
    let head = format!("{key} {version}\n");
    let mut state = version.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let body = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    let size = SIZES[(version % SIZES.len() as u64) as usize];
    head.into_bytes()
        .into_iter()
        .chain(body.take(size))
        .collect()
}

/// What clients know: the version that was acknowledged last, and the one that was under way.
#[derive(Default)]
struct Known {
    acknowledged: HashMap<String, u64>,
    attempted: HashMap<String, u64>,
}

/// Writes until the server dies; returns what it knows.
fn write_until_it_dies(
    address: std::net::SocketAddr,
    writer: u64,
    mut version: u64,
) -> (Known, u64) {
    let mut known = Known::default();
    let Ok(mut client) = Client::try_connect(address) else {
        return (known, version);
    };
    loop {
        let key = format!("{writer}-{}", version % KEYS);
        let path = format!("/b/x/{key}");
        known.attempted.insert(key.clone(), version);
        match client.try_ask("PUT", &path, &[], &content(&key, version)) {
            Ok(answer) if matches!(answer.status, 201 | 204) => {
                known.acknowledged.insert(key, version);
            }
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => return (known, version + 1),
        }
        version += 1;
    }
}

#[test]
fn whatever_is_acknowledged_survives_and_nothing_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let store = ["--store", folder.path().to_str().unwrap()];
    let rounds = std::env::var("DOCKYARD_CRASHES").map_or(12, |rounds| rounds.parse().unwrap());
    let mut acknowledged = HashMap::new();
    let mut attempted: HashMap<String, Vec<u64>> = HashMap::new();
    let mut versions = [0; WRITERS as usize];
    for round in 0..rounds {
        let mut dockyard = Dockyard::start(&store);
        check(&dockyard, &acknowledged, &attempted);
        let (tell, told) = channel();
        for writer in 0..WRITERS {
            let (tell, address, version) =
                (tell.clone(), dockyard.address, versions[writer as usize]);
            std::thread::spawn(move || {
                let _ = tell.send((writer, write_until_it_dies(address, writer, version)));
            });
        }
        drop(tell);
        // Each round dies at another point; how long it lives decides nothing but that.
        std::thread::sleep(Duration::from_millis(60 + 97 * (round * 7 % 11)));
        dockyard.child.kill().unwrap();
        dockyard.child.wait().unwrap();
        for (writer, (known, next)) in told {
            versions[writer as usize] = next;
            for (key, version) in known.acknowledged {
                acknowledged.insert(key.clone(), version);
                attempted.insert(key, Vec::new());
            }
            for (key, version) in known.attempted {
                if acknowledged.get(&key) != Some(&version) {
                    attempted.entry(key).or_default().push(version);
                }
            }
        }
    }
    let dockyard = Dockyard::start(&store);
    check(&dockyard, &acknowledged, &attempted);
    assert!(
        acknowledged.len() >= KEYS as usize,
        "hardly anything was written: {acknowledged:?}"
    );
}

/// Each blob is the version that was acknowledged last, or one that was under way when the server died after that.
fn check(
    dockyard: &Dockyard,
    acknowledged: &HashMap<String, u64>,
    attempted: &HashMap<String, Vec<u64>>,
) {
    let mut client = Client::connect(dockyard.address);
    for key in attempted.keys() {
        let answer = client.ask("GET", &format!("/b/x/{key}"), &[], b"");
        let due = acknowledged.get(key);
        if answer.status == 404 {
            assert_eq!(due, None, "{key} was acknowledged and is gone");
            continue;
        }
        assert_eq!(answer.status, 200, "{key}");
        let candidates = due.into_iter().chain(&attempted[key]);
        let is_whole = candidates
            .into_iter()
            .any(|version| answer.content == content(key, *version));
        let head =
            String::from_utf8_lossy(&answer.content[..answer.content.len().min(20)]).into_owned();
        assert!(
            is_whole,
            "{key} is neither version {due:?} nor {:?}: {head}",
            attempted[key]
        );
    }
}
