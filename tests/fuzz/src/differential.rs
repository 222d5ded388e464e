//! Beside hyper: wharf may refuse what hyper serves, never the other way round, but for what is listed in [`may_serve_more`]; and what
//! both serve both understand alike.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tower::service_fn;
use wharf::{Body, BoxError};

use crate::runtime::block_on;

/// One request as its handler saw it, with its body, if that was whole.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    method: String,
    target: String,
    body: Option<Vec<u8>>,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// Sends the same bytes to both servers.
pub fn diff_hyper(data: &[u8]) {
    let wharf = block_on(by_wharf(data));
    let hyper = block_on(by_hyper(data));
    for (at, (one, other)) in wharf.iter().zip(&hyper).enumerate() {
        // A body that came short is an error in both; how much of it came is nobody's promise.
        assert_eq!(
            (&one.method, &one.target),
            (&other.method, &other.target),
            "request {at}"
        );
        if one.body.is_some() {
            assert_eq!(one.body, other.body, "request {at}");
        }
    }
    assert!(
        wharf.len() <= hyper.len() || may_serve_more(data),
        "wharf served {wharf:?}\nhyper served {hyper:?}"
    );
}

/// What RFC 9112 tells a server to serve and hyper refuses: a minor version above 1 (section 2.3 with RFC 9110 section 6.2); a few
/// empty lines behind a body; and a target in a form that hyper's own URI parser doesn't know.
fn may_serve_more(data: &[u8]) -> bool {
    let has = |what: &[u8]| data.windows(what.len()).any(|window| window == what);
    (b'2'..=b'9').any(|minor| has(&[b"HTTP/1.", &[minor][..]].concat()))
}

async fn by_wharf(data: &[u8]) -> Vec<Seen> {
    let (client, server) = duplex(1 << 16);
    let log = Log::default();
    let seen = log.clone();
    let service = service_fn(move |request: Request<Body>| {
        let seen = seen.clone();
        async move { Ok::<_, BoxError>(note(request, seen).await.map(|_| Body::empty())) }
    });
    tokio::join!(talk(client, data), wharf::serve_connection(server, service));
    Arc::try_unwrap(log)
        .expect("nobody else has it")
        .into_inner()
        .expect("no panic")
}

async fn by_hyper(data: &[u8]) -> Vec<Seen> {
    let (client, server) = duplex(1 << 16);
    let log = Log::default();
    let seen = log.clone();
    let service = hyper::service::service_fn(move |request| {
        let seen = seen.clone();
        async move { Ok::<_, BoxError>(note(request, seen).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    tokio::join!(talk(client, data), async {
        let _ = connection.await;
    });
    Arc::try_unwrap(log)
        .expect("nobody else has it")
        .into_inner()
        .expect("no panic")
}

/// Sends all, says that there is no more, and reads to the end.
async fn talk(client: DuplexStream, data: &[u8]) {
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut answers = Vec::new();
    tokio::join!(
        async {
            let _ = writer.write_all(data).await;
            let _ = writer.shutdown().await;
        },
        async {
            let _ = reader.read_to_end(&mut answers).await;
        }
    );
}

async fn note<B>(request: Request<B>, log: Log) -> Response<Empty<Bytes>>
where
    B: http_body::Body<Data = Bytes>,
{
    let (parts, body) = request.into_parts();
    let seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        body: None,
    };
    let at = {
        let mut log = log.lock().expect("no panic");
        log.push(seen);
        log.len() - 1
    };
    if let Ok(whole) = body.collect().await {
        log.lock().expect("no panic")[at].body = Some(whole.to_bytes().to_vec());
    }
    Response::new(Empty::new())
}
