//! Layers over HTTP/2, whose frames are made by hand here: what they say of the connection is said in frames.

use http::{Request, Response};
use tower::{ServiceBuilder, service_fn};
use wharf::{Body, BoxError, Http};
use wharf_middleware::{AccessLog, KeepAlive};

async fn hello(_: Request<Body>) -> Result<Response<Body>, BoxError> {
    Ok(Response::new(Body::from("hello")))
}

/// A GET of `/` on a stream: by the static table, but for the authority.
fn get(stream: u8) -> Vec<u8> {
    let block = b"\x82\x86\x84\x01\x01a";
    let head = [0, 0, block.len() as u8, 1, 5, 0, 0, 0, stream];
    [&head[..], block].concat()
}

/// The types of the frames that came.
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        kinds.push(bytes[3]);
        bytes = &bytes[9 + length..];
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_policy_says_goodbye_with_goaway() {
    const GOAWAY: u8 = 7;
    let stack = ServiceBuilder::new()
        .layer(Http::new().with_http2())
        .layer(KeepAlive::new().max_requests(2))
        .service(service_fn(hello));
    let mut client = wharf::test::connect_to(stack);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    client.send([&preface[..], &get(1)].concat()).await;
    assert!(!kinds(&client.received().await).contains(&GOAWAY));
    client.send(get(3)).await;
    let kinds = kinds(&client.received().await);
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
}

#[tokio::test]
async fn the_access_log_names_the_version_and_the_authority() {
    let folder = std::env::temp_dir().join(format!("wharf-http2-log-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("access.log");
    let log = AccessLog::json().to_file(&path).unwrap();
    let stack = ServiceBuilder::new()
        .layer(Http::new().on_refused(log.refused()).with_http2())
        .layer(log.clone())
        .service(service_fn(hello));
    let mut client = wharf::test::connect_to(stack);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    client.send([&preface[..], &get(1)].concat()).await;
    client.received().await;
    assert!(log.flush(std::time::Duration::from_secs(20)));
    let line = std::fs::read_to_string(&path).unwrap();
    assert!(line.contains(r#""version":"HTTP/2.0""#), "{line}");
    assert!(line.contains(r#""status":200"#), "{line}");
    assert!(line.contains(r#""bytes":5"#), "{line}");
    std::fs::remove_dir_all(folder).unwrap();
}
