//! What can be wrong with a disk: it is full, it isn't there, somebody else has it. Each is said, and reads go on.

mod support;

use std::path::Path;
use std::process::Command;

use support::Dockyard;

/// A dockyard whose files may not grow beyond so many KiB, which to it is a full disk.
fn on_a_small_disk(folder: &Path, kib: u32) -> Dockyard {
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kib * 2);
    command.args([
        "-c",
        &script,
        "sh",
        env!("CARGO_BIN_EXE_dockyard"),
        "--listen",
        "127.0.0.1:0",
        "--store",
    ]);
    command.arg(folder);
    Dockyard::spawn(command).unwrap_or_else(|said| panic!("it doesn't start: {said}"))
}

fn refused(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dockyard"));
    command.args(["--listen", "127.0.0.1:0"]).args(arguments);
    match Dockyard::spawn(command) {
        Ok(_) => panic!("it starts"),
        Err(said) => said,
    }
}

#[test]
fn a_full_disk_is_507_and_reads_go_on_and_room_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let dockyard = on_a_small_disk(folder.path(), 8 * 1024);
    let small = vec![b's'; 60_000];
    let large = vec![b'l'; 600_000];
    assert_eq!(dockyard.put("/b/x/small", &small).status, 201);
    assert_eq!(dockyard.put("/b/x/large", &large).status, 201);

    // A large blob that has no room, in its file.
    let refused = dockyard.put("/b/x/huge", &vec![b'h'; 9 << 20]);
    assert_eq!(refused.status, 507, "{refused:?}");
    assert!(
        refused.text().contains("the store's disk is full"),
        "{refused:?}"
    );
    // Small ones until the index has none.
    let mut stored = 0;
    let refused = loop {
        let answer = dockyard.put(&format!("/b/fill/{stored}"), &small);
        if answer.status != 201 {
            break answer;
        }
        stored += 1;
        assert!(stored < 1_000, "the index never fills up");
    };
    assert_eq!(refused.status, 507, "{refused:?}");

    assert!(dockyard.get("/b/x/small").content == small);
    assert!(dockyard.get("/b/x/large").content == large);
    for number in 0..stored {
        assert!(
            dockyard.get(&format!("/b/fill/{number}")).content == small,
            "{number}"
        );
    }
    assert_eq!(dockyard.get(&format!("/b/fill/{stored}")).status, 404);
    assert_eq!(dockyard.get("/readyz").status, 200);
    // Files are another matter than the index: a large one still fits.
    drop(dockyard);

    let dockyard = Dockyard::start(&["--store", folder.path().to_str().unwrap()]);
    assert_eq!(dockyard.put("/b/x/again", &small).status, 201);
    assert!(dockyard.get("/b/x/large").content == large);
}

#[test]
fn what_is_in_the_way_at_the_start_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let missing = format!("{path}/not/mounted");
    let said = refused(&["--store", &missing]);
    assert!(
        said.contains("not/mounted can't be used") && said.contains("name another with --store"),
        "{said}"
    );

    let first = Dockyard::start(&["--store", path]);
    let said = refused(&["--store", path]);
    assert!(said.contains("another process has the store"), "{said}");
    assert_eq!(first.put("/b/x/a", b"still").status, 201);

    let said = refused(&["--memory", "--budget", "1MiB", "--largest", "2MiB"]);
    assert!(
        said.contains("--budget") && said.contains("must not be below"),
        "{said}"
    );
    let said = refused(&["--memory", "--listen", &first.address.to_string()]);
    assert!(said.contains("in use"), "{said}");
    let said = refused(&["--memory", "--proxy-protocol", "ten"]);
    assert!(said.contains("`ten` is neither a network"), "{said}");
}

#[test]
fn a_clean_stop_and_start_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let dockyard = Dockyard::start(&["--store", path]);
    dockyard.put("/b/x/a", b"hello");
    let before = dockyard.get("/b/x/a");
    dockyard.signal("TERM");
    assert!(dockyard.ended().success());
    let after = Dockyard::start(&["--store", path]).get("/b/x/a");
    assert_eq!(before.content, after.content);
    for field in ["etag", "last-modified", "content-type"] {
        assert_eq!(before.field(field), after.field(field));
    }
}
