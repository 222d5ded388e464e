//! Tools that people have: ccache and Bazel building small projects, and curl.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Dockyard, run};

/// A small project: a program of four files.
fn project(folder: &Path) {
    fs::write(
        folder.join("dock.h"),
        "int crane(int); int quay(int); int ship(int);\n",
    )
    .unwrap();
    for name in ["crane", "quay", "ship"] {
        let source = format!(
            "#include \"dock.h\"\nint {name}(int n) {{ return n * {}; }}\n",
            name.len()
        );
        fs::write(folder.join(format!("{name}.c")), source).unwrap();
    }
    let main = "#include <stdio.h>\n#include \"dock.h\"\nint main(void) { printf(\"%d\\n\", crane(1) + quay(2) + ship(3)); return 0; }\n";
    fs::write(folder.join("main.c"), main).unwrap();
}

/// Builds it with an empty local cache, so that only the server's can help; returns ccache's figures.
fn build(storage: &str, project: &Path) -> String {
    let local = tempfile::tempdir().unwrap();
    let ccache = || {
        let mut command = Command::new("ccache");
        command
            .current_dir(project)
            .env("CCACHE_DIR", local.path())
            .env("CCACHE_REMOTE_STORAGE", storage);
        command
            .env("CCACHE_NODIRECT", "")
            .env_remove("CCACHE_NODIRECT")
            .env("CCACHE_BASEDIR", project);
        command.env("no_proxy", "*");
        command
    };
    let mut objects = Vec::new();
    for name in ["crane", "quay", "ship", "main"] {
        let (source, object) = (format!("{name}.c"), format!("{name}.o"));
        run(ccache().args(["gcc", "-O1", "-c", &source, "-o", &object]));
        objects.push(object);
    }
    run(Command::new("gcc")
        .current_dir(project)
        .args(&objects)
        .args(["-o", "dock"]));
    assert_eq!(run(&mut Command::new(project.join("dock"))).trim(), "25");
    run(ccache().args(["--print-stats"]))
}

fn figure(stats: &str, name: &str) -> u64 {
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.unwrap_or_else(|| panic!("{name}: {stats}"))
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn ccache_builds_a_project_from_the_cache_the_second_time() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path());
    for layout in ["subdirs", "flat", "bazel"] {
        let dockyard = Dockyard::in_memory(&[]);
        let base = if layout == "bazel" { "" } else { "/cache" };
        let storage = format!("{}|layout={layout}", dockyard.url(base));
        let first = build(&storage, folder.path());
        assert_eq!(figure(&first, "remote_storage_hit"), 0, "{layout}: {first}");
        assert_eq!(
            figure(&first, "remote_storage_error"),
            0,
            "{layout}: {first}"
        );
        let second = build(&storage, folder.path());
        assert_eq!(
            figure(&second, "remote_storage_hit"),
            4,
            "{layout}: {second}"
        );
        assert_eq!(
            figure(&second, "remote_storage_miss"),
            0,
            "{layout}: {second}"
        );
        assert_eq!(figure(&second, "cache_miss"), 0, "{layout}: {second}");
        let bucket = if layout == "bazel" { "ac" } else { "cache" };
        assert!(
            dockyard.get(&format!("/b/{bucket}")).json()["blobs"]
                .as_array()
                .unwrap()
                .len()
                >= 4
        );
    }
}

#[test]
fn bazel_builds_a_target_from_the_cache_the_second_time() {
    let dockyard = Dockyard::in_memory(&[]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("WORKSPACE"), "").unwrap();
    fs::write(folder.path().join("crane.txt"), "lift\n").unwrap();
    let rules = r#"
genrule(name = "loud", srcs = ["crane.txt"], outs = ["loud.txt"], cmd = "tr a-z A-Z < $< > $@")
genrule(name = "twice", srcs = ["loud.txt"], outs = ["twice.txt"], cmd = "cat $< $< > $@")
"#;
    fs::write(folder.path().join("BUILD"), rules).unwrap();
    // Each build knows nothing of the one before: it has a folder for its results, and a server, of its own.
    let build = || {
        let own = tempfile::tempdir().unwrap();
        let bazel = |arguments: &[&str]| {
            let mut command = Command::new("bazel");
            command.current_dir(folder.path()).env("no_proxy", "*");
            command.arg(format!("--output_user_root={}", own.path().display()));
            command.arg("--max_idle_secs=60").args(arguments);
            run(&mut command)
        };
        let cache = format!("--remote_cache={}", dockyard.url(""));
        let quiet = ["--color=no", "--noshow_progress", "--spawn_strategy=local"];
        let said = bazel(&[&["build", "//:twice", &cache], &quiet[..]].concat());
        let built = folder.path().join("bazel-bin/twice.txt");
        assert_eq!(fs::read_to_string(built).unwrap(), "LIFT\nLIFT\n");
        bazel(&["shutdown"]);
        said
    };
    let first = build();
    assert!(
        first.contains("2 local") && !first.contains("cache hit"),
        "{first}"
    );
    let second = build();
    assert!(
        second.contains("2 remote cache hit, 1 internal."),
        "{second}"
    );
}

#[test]
fn curl_uploads_downloads_resumes_and_asks_for_parts() {
    let store = tempfile::tempdir().unwrap();
    let dockyard = Dockyard::start(&[
        "--store",
        store.path().to_str().unwrap(),
        "--largest",
        "8MiB",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let content: Vec<u8> = (0..3_000_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(file("up"), &content).unwrap();
    fs::write(file("huge"), vec![0; 9 << 20]).unwrap();
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command
            .current_dir(folder.path())
            .args(["-sS", "--noproxy", "*", "--max-time", "60"])
            .args(arguments);
        run(&mut command)
    };
    let url = dockyard.url("/b/x/file");
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    assert_eq!(curl(&[&status[..], &["-T", "up", &url]].concat()), "201");
    curl(&["-o", "down", &url]);
    assert!(fs::read(file("down")).unwrap() == content);

    curl(&["-o", "part", "-r", "1000000-1999999", &url]);
    assert!(fs::read(file("part")).unwrap() == content[1_000_000..2_000_000]);
    fs::write(file("begun"), &content[..1_234_567]).unwrap();
    curl(&["-o", "begun", "-C", "-", &url]);
    assert!(fs::read(file("begun")).unwrap() == content);
    let several = curl(&[
        "-r",
        "0-1,5-6",
        "-o",
        "/dev/null",
        "-w",
        "%{content_type} %{http_code}",
        &url,
    ]);
    assert!(
        several.starts_with("multipart/byteranges") && several.ends_with("206"),
        "{several}"
    );

    let tag = curl(&["-o", "/dev/null", "-w", "%header{etag}", &url]);
    let unchanged = format!("if-none-match: {tag}");
    assert_eq!(
        curl(&[&status[..], &["-H", &unchanged, &url]].concat()),
        "304"
    );
    // curl asks before it sends that much, and learns that it needn't.
    let huge = curl(&[
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_upload}",
        "-T",
        "huge",
        &dockyard.url("/b/x/huge"),
    ]);
    assert_eq!(huge, "413 0");
    assert_eq!(
        curl(&[&status[..], &["-X", "DELETE", &url]].concat()),
        "204"
    );
    assert_eq!(curl(&[&status[..], &[&url]].concat()), "404");
}
