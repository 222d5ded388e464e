//! What can be wrong with a disk: it is full, it isn't there, somebody else has it. Each is said, and reads go on.

mod support;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Client, Dockyard, wait_until};

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

/// A dockyard on a disk of its own, which goes with it; and where the disk is to be found from outside.
fn on_a_disk_of_its_own(megabytes: u32, folder: &Path) -> (Dockyard, PathBuf) {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let rights: &[&str] = if is_root {
        &[]
    } else {
        &["--user", "--map-root-user"]
    };
    let script =
        "mount -t tmpfs -o size=$1m none \"$2\" && exec \"$3\" --listen 127.0.0.1:0 --store \"$2\"";
    let mut command = Command::new("unshare");
    command
        .args(rights)
        .args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(megabytes.to_string()).arg(folder);
    command.arg(env!("CARGO_BIN_EXE_dockyard"));
    let dockyard = Dockyard::spawn(command).unwrap_or_else(|said| {
        panic!("no disk can be mounted for this test, which needs root or user namespaces: {said}")
    });
    let root = format!("/proc/{}/root", dockyard.child.id());
    let disk = Path::new(&root).join(folder.strip_prefix("/").unwrap());
    (dockyard, disk)
}

/// Something else that needs room on a disk.
struct Filler {
    disk: PathBuf,
    file: File,
}

impl Filler {
    fn on(disk: &Path) -> Self {
        let file = File::create(disk.join("filler")).unwrap();
        let disk = disk.to_owned();
        Self { disk, file }
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.disk).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Grows or shrinks until so much is free.
    fn leave(&mut self, bytes: u64) {
        let free = self.free();
        let size = self.file.metadata().unwrap().len();
        if free < bytes {
            self.file.set_len(size - (bytes - free)).unwrap();
            self.file.seek(SeekFrom::End(0)).unwrap();
        } else {
            let needed = usize::try_from(free - bytes).unwrap();
            self.file.write_all(&vec![0; needed]).unwrap();
        }
        assert_eq!(self.free(), bytes);
    }
}

#[test]
fn a_disk_that_is_really_full_takes_nothing_and_serves_what_it_has_until_there_is_room() {
    const RESERVE: u64 = 16 << 20;
    let folder = tempfile::tempdir().unwrap();
    let (dockyard, disk) = on_a_disk_of_its_own(64, folder.path());
    let (small, large) = (vec![b's'; 10_000], vec![b'l'; 600_000]);
    assert_eq!(dockyard.put("/b/x/small", &small).status, 201);
    assert_eq!(dockyard.put("/b/x/large", &large).status, 201);
    assert_eq!(dockyard.put("/b/x/goes", &large).status, 201);
    let mut filler = Filler::on(&disk);
    let refuses = |path: &str, content: &[u8]| {
        let answer = dockyard.put(path, content);
        assert_eq!(answer.status, 507, "{path}: {answer:?}");
        let why = answer.text();
        assert!(
            why.contains("the store's disk is full") && why.contains("make room"),
            "{why}"
        );
    };

    // So much is left alone, for the index: with exactly that a blob is taken, with a page less none is.
    filler.leave(RESERVE);
    assert_eq!(dockyard.put("/b/x/at-the-reserve", &small).status, 201);
    filler.leave(RESERVE - 4096);
    refuses("/b/x/below", &small);
    refuses("/b/x/below", &large);
    filler.leave(RESERVE + 4096);
    assert_eq!(dockyard.put("/b/x/above", &small).status, 201);

    // An upload is under way when the last byte goes.
    filler.leave(RESERVE + (1 << 20));
    let mut upload = Client::connect(dockyard.address);
    let head = "PUT /b/x/under-way HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\n\r\n";
    upload.send(&[head.as_bytes(), &large].concat()).unwrap();
    let incoming = || fs::read_dir(disk.join("incoming")).unwrap().count();
    wait_until("it goes into a file", || incoming() == 1);
    filler.leave(0);
    upload.send(&vec![b'u'; 1_400_000]).unwrap();
    let answer = upload.answer("PUT").unwrap();
    assert_eq!(answer.status, 507, "{answer:?}");
    wait_until("nothing is left of it", || incoming() == 0);
    filler.leave(0);

    refuses("/b/x/full", &small);
    refuses("/b/x/full", &large);
    assert!(dockyard.get("/b/x/small").content == small);
    assert!(dockyard.get("/b/x/large").content == large);
    assert!(dockyard.get("/b/x/above").content == small);
    for missing in ["below", "under-way", "full"] {
        assert_eq!(dockyard.get(&format!("/b/x/{missing}")).status, 404);
    }
    assert_eq!(dockyard.get("/b/x?limit=10").status, 200);
    assert_eq!(dockyard.get("/readyz").status, 200);
    // A blob can be removed, and makes room.
    let removed = dockyard.ask("DELETE", "/b/x/goes", &[], b"");
    assert_eq!(removed.status, 204, "{removed:?}");
    assert!(filler.free() >= 600_000);

    // And with room it goes on as if nothing had been.
    filler.leave(2 * RESERVE);
    assert_eq!(dockyard.put("/b/x/full", &large).status, 201);
    assert_eq!(dockyard.put("/b/x/below", &small).status, 201);
    assert!(dockyard.get("/b/x/full").content == large);
    assert!(dockyard.get("/b/x/large").content == large);
    assert!(
        dockyard
            .get("/metrics")
            .text()
            .contains("dockyard_writable 1")
    );
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
fn without_a_word_it_makes_a_folder_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dockyard"));
    command
        .args(["--listen", "127.0.0.1:0"])
        .env("XDG_CACHE_HOME", home.path());
    let dockyard = Dockyard::spawn(command.env_remove("STATE_DIRECTORY")).unwrap();
    let folder = home.path().join("dockyard");
    let place = format!("redb in {}", folder.display());
    assert!(dockyard.banner.contains(&place), "{}", dockyard.banner);
    assert_eq!(dockyard.put("/b/x/a", b"kept").status, 201);
    assert!(fs::read_dir(folder).unwrap().count() > 0);
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
