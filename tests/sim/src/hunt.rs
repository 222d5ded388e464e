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

/// Script and timing of a seed.
pub fn scenario(seed: u64) -> (Arc<Script>, Timing) {
    let script = generate::script(seed / GROUP);
    let timing = timing(seed, &script);
    (Arc::new(script), timing)
}

fn timing(seed: u64, script: &Script) -> Timing {
    let bytes = script
        .asked
        .iter()
        .map(|asked| 90 + asked.content.bytes())
        .sum();
    Timing::of(seed, bytes)
}

/// Plays one seed and tells all of it.
pub fn replay(seed: u64, bug: Option<Bug>) -> (Arc<Script>, Timing, Played) {
    let (script, timing) = scenario(seed);
    let played = play(&script, &timing, bug, true);
    (script, timing, played)
}

/// Plays the seeds of a group; the first that fails.
pub fn group(first: u64, bug: Option<Bug>) -> Option<Found> {
    let script = Arc::new(generate::script(first / GROUP));
    let mut digest = None;
    for seed in first..first + GROUP {
        let played = play(&script, &timing(seed, &script), bug, false);
        if let Some(wrong) = played.wrong {
            return Some(Found { seed, wrong });
        }
        if script.kind == Kind::Steady && *digest.get_or_insert(played.digest) != played.digest {
            let wrong = format!(
                "timing: other answers than those of seed {first}, which has the same script"
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
    bug: Option<Bug>,
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
                >= if bug.is_some() { 1 } else { MOST_FOUND };
            if begin >= groups || enough {
                return;
            }
            for at in begin..groups.min(begin + BATCH) {
                if let Some(failed) = group((from / GROUP + at) * GROUP, bug) {
                    tell(News::Found(&failed));
                    found.lock().expect("no panic in here").push(failed);
                    if bug.is_some() {
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
