//! How many connections a server takes by default: what the process may open, less what else it needs.

/// More than a default should promise memory for.
const MOST: u64 = 10_000;
/// Left for listeners, logs and what handlers open.
const OTHERS: u64 = 64;
/// Assumed where the system doesn't tell.
const USUAL: u64 = 1024;

pub(super) fn default_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    connections(open_files(&limits).unwrap_or(USUAL))
}

fn connections(open_files: u64) -> usize {
    let left = open_files.saturating_sub(OTHERS).max(open_files / 2);
    left.clamp(1, MOST) as usize
}

/// The soft limit: `Max open files            1024                 524288               files`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_of_files_still_serves() {
        for (files, wanted) in [
            (0, 1),
            (64, 32),
            (128, 64),
            (256, 192),
            (1024, 960),
            (20_000, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(connections(files), wanted, "{files}");
        }
    }

    #[test]
    fn the_soft_limit_is_read() {
        let line =
            "Max processes 1 2 p\nMax open files            1024                 524288 files\n";
        assert_eq!(open_files(line), Some(1024));
        assert_eq!(
            open_files("Max open files  unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files(""), None);
        assert!(default_connections() > 0);
    }
}
