//! The command: `run` hunts, `replay` shows.
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seed = args.get(2).and_then(|s| s.parse().ok()).unwrap_or(0u64);
    if args[1] == "replay" {
        let (script, timing, played) = wharf_sim::hunt::replay(seed, None);
        println!(
            "{script:#?}\n{timing:?}\n{}\n{:?}",
            played.trace.unwrap(),
            played.wrong
        );
    } else {
        let begin = std::time::Instant::now();
        let bug = args.get(3).map(|n| wharf_sim::bugs::Bug::named(n).unwrap());
        let found = wharf_sim::hunt::run(0, seed, 1, bug, &|_| {});
        println!("{} in {:?}", found.len(), begin.elapsed());
        for f in found {
            println!("{} {}", f.seed, f.wrong);
        }
    }
}
