//! Runs many seeds, in groups of those that share a script: a steady one must have the same answers in each.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::bugs::Bug;
use crate::generate;
use crate::player::{Played, play};
use crate::script::{Kind, Script};
use crate::timing::Timing;

/// So many neighbouring seeds share a script and differ in timing.
pub const GROUP: u64 = 4;

/// What a hunt tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum News<'a> {
    /// So many seeds were played.
    Done(u64),
    /// One failed.
    Found(&'a Found),
}

/// A seed that fails, and why.
#[derive(Debug, Clone)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub wrong: String,
}

/// How seeds are played.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// With this bug switched on.
    pub bug: Option<Bug>,
    /// Over TLS.
    pub tls: bool,
}

/// Script and timing of a seed.
pub fn scenario(seed: u64, how: How) -> (Arc<Script>, Timing) {
    let script = generate::script(seed / GROUP);
    let timing = timing(seed, &script, how);
    (Arc::new(script), timing)
}

/// The timing that the others of a seed's group are held against: that of its first seed, in plain text.
pub fn beside(seed: u64, script: &Script) -> Timing {
    timing(seed - seed % GROUP, script, How::default())
}

fn timing(seed: u64, script: &Script, how: How) -> Timing {
    let bytes = script
        .asked
        .iter()
        .map(|asked| 90 + asked.content.bytes())
        .sum();
    Timing {
        over_tls: how.tls,
        ..Timing::of(seed, bytes)
    }
}

/// Plays one seed and tells all of it.
pub fn replay(seed: u64, how: How) -> (Arc<Script>, Timing, Played) {
    let (script, timing) = scenario(seed, how);
    let played = play(&script, &timing, how.bug, true);
    (script, timing, played)
}

/// Plays the seeds of a group; the first that fails.
pub fn group(first: u64, how: How) -> Option<Found> {
    let script = Arc::new(generate::script(first / GROUP));
    let is_steady = script.kind == Kind::Steady;
    let mut digest = (how.tls && is_steady)
        .then(|| play(&script, &beside(first, &script), how.bug, false).digest);
    for seed in first..first + GROUP {
        let played = play(&script, &timing(seed, &script, how), how.bug, false);
        if let Some(wrong) = played.wrong {
            return Some(Found { seed, wrong });
        }
        if is_steady && *digest.get_or_insert(played.digest) != played.digest {
            let plain = if how.tls { " in plain text" } else { "" };
            let wrong = format!(
                "timing: other answers than those of seed {first}{plain}, which has the same script"
            );
            return Some(Found { seed, wrong });
        }
    }
    None
}

/// Runs `count` seeds from `from` on, on so many threads; stops at the first that fails, if it is to. `tell` is called
/// with each failure and now and then with the number done so far.
pub fn run(
    from: u64,
    count: u64,
    threads: usize,
    how: How,
    tell: &(dyn Fn(News<'_>) + Sync),
) -> Vec<Found> {
    const MOST_FOUND: usize = 20;
    /// Groups that a thread takes at a time.
    const BATCH: u64 = 250;
    let groups = count.div_ceil(GROUP);
    let next = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    let work = || {
        loop {
            let begin = next.fetch_add(BATCH, Relaxed);
            let enough = found.lock().expect("no panic in here").len()
                >= if how.bug.is_some() { 1 } else { MOST_FOUND };
            if begin >= groups || enough {
                return;
            }
            for at in begin..groups.min(begin + BATCH) {
                if let Some(failed) = group((from / GROUP + at) * GROUP, how) {
                    tell(News::Found(&failed));
                    found.lock().expect("no panic in here").push(failed);
                    if how.bug.is_some() {
                        return;
                    }
                }
            }
            tell(News::Done((begin + BATCH).min(groups) * GROUP));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut found = found.into_inner().expect("no panic in here");
    found.sort_by_key(|failed| failed.seed);
    found
}
