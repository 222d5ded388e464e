//! What a newcomer sees first, and what comes of doing what it says.

mod support;

use std::process::Command;

use support::{Dockyard, run};

/// The commands that a banner suggests.
fn commands(dockyard: &Dockyard) -> Vec<String> {
    let lines = dockyard.banner.lines();
    let after = lines.skip_while(|line| line.trim() != "try").skip(1);
    after
        .map(|line| line.trim().to_owned())
        .take_while(|line| !line.is_empty())
        .collect()
}

/// Runs them in a folder that has what they speak of.
fn tried(dockyard: &Dockyard) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("Cargo.toml"),
        "[package]\nname = \"docks\"\n",
    )
    .unwrap();
    std::fs::write(
        folder.path().join("hello.c"),
        "int main(void) { return 0; }\n",
    )
    .unwrap();
    let commands = commands(dockyard);
    assert_eq!(commands.len(), 3, "{commands:?}");
    let run_one = |command: &String| {
        let mut shell = Command::new("sh");
        shell.current_dir(folder.path()).args(["-ec", command]);
        shell
            .env("no_proxy", "*")
            .env("CCACHE_DIR", folder.path().join("ccache"));
        run(&mut shell)
    };
    commands.iter().map(run_one).collect()
}

#[test]
fn it_says_where_what_and_how_much_and_the_way_through_the_layers() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().to_str().unwrap();
    let dockyard = Dockyard::start(&["--store", store, "--workers", "3", "--budget", "2GiB"]);
    let said = &dockyard.banner;
    for line in [
        &format!("listening   http://{}", dockyard.address),
        &format!("store       redb in {store}"),
        "keeps       2 GiB, blobs of at most 512 MiB",
        "limits      head 32 KiB in 10s",
        "codec       HTTP/1.1, strict",
        "workers     3 threads",
        &format!("The live page is at http://{}/", dockyard.address),
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let way = [
        "per peer",
        "HTTP",
        "metrics",
        "client address",
        "access log",
        "keep-alive",
    ];
    let way = way.iter().chain(&["overload", "time-out", "handler"]);
    let places: Vec<_> = way
        .map(|layer| {
            said.find(&format!("\n    {layer} "))
                .unwrap_or_else(|| panic!("{layer}\n{said}"))
        })
        .collect();
    assert!(places.is_sorted(), "{said}");
}

#[test]
fn its_three_commands_do_what_they_are_there_for() {
    let dockyard = Dockyard::in_memory(&[]);
    let answers = tried(&dockyard);
    assert!(answers[1].contains("name = \"docks\""), "{answers:?}");
    assert!(
        !dockyard.get("/b/cache").json()["blobs"]
            .as_array()
            .unwrap()
            .is_empty()
    );

    let secure = Dockyard::in_memory(&["--tls"]);
    let said = &secure.banner;
    assert!(
        said.contains("\n    TLS ") && said.contains("certificate made just now"),
        "{said}"
    );
    let answers = tried(&secure);
    assert!(answers[1].contains("name = \"docks\""), "{answers:?}");
    assert!(answers[2].contains("\"key\":\"Cargo.toml\""), "{answers:?}");
}
