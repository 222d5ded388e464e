//! HTTPS and HTTP/2, asked for by curl: what is spoken, what is stored, and which certificate is shown.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::{Dockyard, wait_until};

fn curl(arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sS", "--ipv4", "--noproxy", "*", "--max-time", "30"]);
    command.args(arguments).output().expect("curl")
}

/// What curl prints, if all goes well.
fn said(arguments: &[&str]) -> String {
    let output = curl(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_client_gets_the_protocol_that_it_asks_for() {
    let version = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
    let secure = Dockyard::in_memory(&["--tls"]);
    let plain = Dockyard::in_memory(&[]);
    let plain_on_secure = secure.url("/healthz").replace("https", "http");
    for (url, arguments, spoken) in [
        (secure.url("/healthz"), &["-k"][..], "2 200"),
        (secure.url("/healthz"), &["-k", "--http1.1"], "1.1 200"),
        (secure.url("/healthz"), &["-k", "--tls-max", "1.2"], "2 200"),
        (plain_on_secure, &[], "1.1 400"),
        (plain.url("/healthz"), &[], "1.1 200"),
        (plain.url("/healthz"), &["--http2-prior-knowledge"], "2 200"),
    ] {
        let spoke = said(&[&version[..], arguments, &[&url]].concat());
        assert_eq!(spoke, spoken, "{url} {arguments:?}");
    }
    // Nobody trusts the certificate who wasn't told to.
    assert!(!curl(&[&secure.url("/healthz")]).status.success());
}

#[test]
fn blobs_go_both_ways_over_http_2() {
    let dockyard = Dockyard::in_memory(&["--tls", "--largest", "4MiB", "--budget", "16MiB"]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, size: usize| {
        let content: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (blob, huge) = (file("blob", 3_000_000), file("huge", 5 << 20));
    let back = folder.path().join("back").to_str().unwrap().to_owned();
    let code = ["-k", "-w", "%{http_version} %{http_code}", "-o"];
    let url = dockyard.url("/b/x/blob");
    let ask = |into: &str, arguments: &[&str]| said(&[&code[..], &[into], arguments].concat());
    let same = |range: std::ops::Range<usize>| {
        std::fs::read(&back).unwrap() == std::fs::read(&blob).unwrap()[range]
    };

    assert_eq!(ask("/dev/null", &["-T", &blob, &url]), "2 201");
    assert_eq!(ask(&back, &[&url]), "2 200");
    assert!(same(0..3_000_000));
    assert_eq!(ask(&back, &["-r", "1000000-1999999", &url]), "2 206");
    assert!(same(1_000_000..2_000_000));
    let tag = said(&["-k", "-I", "-o", "/dev/null", "-w", "%header{etag}", &url]);
    let unchanged = format!("if-none-match: {tag}");
    assert_eq!(ask("/dev/null", &["-H", &unchanged, &url]), "2 304");
    // Of an answer that comes before all is sent, curl 7.88 sees only the end; nghttp sees it whole.
    let put = ["-nv", "-H", ":method: PUT", "-d", &huge, &url];
    let beyond = Command::new("nghttp").args(put).output().expect("nghttp");
    let beyond = String::from_utf8_lossy(&beyond.stdout);
    assert!(beyond.contains(":status: 413"), "{beyond}");
    assert_eq!(ask("/dev/null", &["-X", "DELETE", &url]), "2 204");
    assert_eq!(ask("/dev/null", &[&url]), "2 404");
}

/// A certificate for `localhost` that is its own authority, and its key, in these files.
fn certify(certificate: &Path, key: &Path) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let signed = params.self_signed(&pair).unwrap();
    std::fs::write(key, pem("PRIVATE KEY", &pair.serialize_der())).unwrap();
    std::fs::write(certificate, pem("CERTIFICATE", signed.der())).unwrap();
}

fn pem(what: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
}

#[test]
fn a_new_certificate_is_taken_on_hang_up_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    certify(&path("cert"), &path("key"));
    std::fs::copy(path("cert"), path("first")).unwrap();
    let files = ["--tls-cert", &text("cert"), "--tls-key", &text("key")];
    let dockyard = Dockyard::in_memory(&files);
    assert!(
        dockyard.banner.contains(&text("cert")),
        "{}",
        dockyard.banner
    );
    let url = format!("https://localhost:{}/healthz", dockyard.address.port());
    let shows = |certificate: &str| curl(&["--cacert", certificate, &url]).status.success();
    assert!(shows(&text("first")));

    certify(&path("cert"), &path("key"));
    std::fs::copy(path("cert"), path("second")).unwrap();
    dockyard.signal("HUP");
    wait_until("the new one is shown", || shows(&text("second")));
    assert!(!shows(&text("first")));

    std::fs::write(path("cert"), "half a certif").unwrap();
    dockyard.signal("HUP");
    wait_until("it says that the old one stays", || {
        let said = dockyard.said();
        said.contains("is in use from here on")
            && said.contains("the old certificate is still in use")
    });
    assert!(shows(&text("second")));
}

#[test]
fn what_tls_lacks_is_said_at_the_start() {
    let refused = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dockyard"));
        command
            .args(["--memory", "--listen", "127.0.0.1:0"])
            .args(arguments);
        match Dockyard::spawn(command) {
            Ok(_) => panic!("it starts"),
            Err(said) => said,
        }
    };
    let said = refused(&["--tls-cert", "/none.pem", "--tls-key", "/none.key"]);
    assert!(said.contains("/none.pem"), "{said}");
    let said = refused(&["--tls-cert", "/none.pem"]);
    assert!(said.contains("--tls-key"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    certify(&cert, &key);
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let said = refused(&["--demo", "--tls-cert", cert, "--tls-key", key]);
    assert!(
        said.contains("--demo knows the certificate of --tls"),
        "{said}"
    );
}
