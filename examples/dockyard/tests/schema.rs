//! The API by its own description: schemathesis asks what `/openapi.json` allows and what it doesn't, and holds the
//! answers against it.

mod support;

use std::process::Command;

use support::{Dockyard, run};

#[test]
fn answers_are_as_the_description_says() {
    let dockyard = Dockyard::in_memory(&[]);
    let tool = std::env::var("SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".into());
    let configuration = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml");
    // It leaves what it learned in the current folder.
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(&tool);
    command
        .current_dir(folder.path())
        .env("NO_PROXY", "*")
        .env_remove("http_proxy");
    command.args([
        "--config-file",
        configuration,
        "run",
        &dockyard.url("/openapi.json"),
    ]);
    command.args([
        "--checks",
        "all",
        "--max-examples",
        "40",
        "--seed",
        "7",
        "--no-color",
    ]);
    assert!(
        Command::new(&tool).arg("--version").output().is_ok(),
        "`{tool}` can't be run: pip install schemathesis, and name it in SCHEMATHESIS"
    );
    let said = run(&mut command);
    assert!(said.contains("15 passed"), "{said}");
}
