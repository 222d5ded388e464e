//! The house rules that a machine can check: a small tree of dependencies, no `unsafe`, nothing unexpected at the root.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages that a user of `wharf` builds with its default features, `wharf` itself included.
const PACKAGES_AT_MOST: usize = 30;

/// What may lie at the root, beside folders whose name starts with a dot and what git ignores.
const ROOT: [&str; 12] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "benches",
    "examples",
    "middleware",
    "src",
    "tests",
];

#[test]
fn the_default_tree_has_at_most_thirty_packages() {
    let cargo = std::env::var_os("CARGO").expect("cargo runs its tests with CARGO set");
    let tree = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--package",
            "wharf",
            "--edges",
            "normal",
        ])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    let complaint = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "cargo tree: {complaint}");

    let lines = String::from_utf8(tree.stdout).expect("cargo prints UTF-8");
    let packages: BTreeSet<&str> = lines
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    assert!(
        packages
            .iter()
            .any(|package| package.starts_with("tokio v")),
        "not a tree: {lines}"
    );
    let count = packages.len();
    println!("{count} packages");
    assert!(count <= PACKAGES_AT_MOST, "{count} packages: {packages:#?}");
}

#[test]
fn no_source_of_wharf_says_unsafe() {
    let mut files = Vec::new();
    for folder in ["src", "middleware/src"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 10, "only {} sources found", files.len());
    for file in files {
        let text = fs::read_to_string(&file).expect("sources are UTF-8");
        for (line, number) in text.lines().zip(1..) {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let found = words.any(|word| word == "unsafe");
            assert!(!found, "{}:{number}: {line}", file.display());
        }
    }
}

/// The lint is what counts, since it sees through macros; the words above only fail sooner.
#[test]
fn unsafe_code_is_forbidden_by_the_lints() {
    let manifest = read("Cargo.toml");
    let lints = section(&manifest, "[workspace.lints.rust]");
    assert!(
        lints.contains("unsafe_code = \"forbid\""),
        "the lint is off: {lints}"
    );
    for manifest in ["Cargo.toml", "middleware/Cargo.toml"] {
        let text = read(manifest);
        let lints = section(&text, "[lints]");
        assert!(
            lints.contains("workspace = true"),
            "{manifest} goes its own way: {lints}"
        );
    }
}

#[test]
fn the_root_holds_nothing_unexpected() {
    let target = target();
    for entry in fs::read_dir(root()).expect("the root can be listed") {
        let entry = entry.expect("an entry has a name");
        let name = entry.file_name();
        let name = name.to_str().expect("names are UTF-8");
        let expected =
            name.starts_with('.') || ROOT.contains(&name) || target.starts_with(entry.path());
        assert!(expected, "`{name}` lies at the root");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo builds, which may be inside the root under any name.
fn target() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary
        .parent()
        .expect("target/tmp has a parent")
        .to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).expect("the manifests can be read")
}

/// The lines under `heading`, up to the next heading.
fn section<'a>(manifest: &'a str, heading: &str) -> &'a str {
    let (_, below) = manifest
        .split_once(heading)
        .unwrap_or_else(|| panic!("no {heading}"));
    below.split("\n[").next().unwrap_or_default()
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("an entry has a name").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension() == Some(OsStr::new("rs")) {
            files.push(path);
        }
    }
}
