//! What stands before and beside the handler: the PROXY header, the fields of proxies, the line of the access log.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tower::{Layer, ServiceExt, service_fn};
use wharf::{BoxError, CloseReason, Conn, ConnInfo, ConnReport, ProxyProtocol};
use wharf_middleware::{AccessLog, ClientAddress, TrustedProxies};

use crate::runtime::block_on;

/// A header cut anyhow is believed or refused alike, and not a byte behind it is lost.
pub fn proxy_protocol(data: &[u8]) {
    let (pieces, message) = crate::cut(data);
    let whole = block_on(proxied(&[message]));
    let cut = block_on(proxied(&pieces));
    assert_eq!(whole, cut);
    if let Some((_, behind)) = &whole {
        assert!(message.ends_with(behind), "{behind:?}");
    }
}

/// What was believed, and what came behind it; `None`: refused.
async fn proxied(pieces: &[&[u8]]) -> Option<(String, Vec<u8>)> {
    let seen = Arc::new(Mutex::new(None));
    let inner = {
        let seen = seen.clone();
        service_fn(move |mut conn: Conn<DuplexStream>| {
            let seen = seen.clone();
            async move {
                let mut behind = Vec::new();
                let said = format!("{:?}", conn.info().proxy);
                let _ = conn.io_mut().read_to_end(&mut behind).await;
                *seen.lock().expect("no panic") = Some((said, behind));
                Ok::<ConnReport, BoxError>(conn.end(CloseReason::before_http("seen")))
            }
        })
    };
    let layer = ProxyProtocol::required()
        .trust(["127.0.0.0/8"])
        .expect("a network");
    let (mut client, server) = duplex(1 << 16);
    let mut info = ConnInfo::default();
    info.peer = SocketAddr::from(([127, 0, 0, 1], 1)).into();
    let send = async {
        for piece in pieces {
            let _ = client.write_all(piece).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(client);
    };
    let _ = tokio::join!(send, layer.layer(inner).oneshot(Conn::new(server, info)));
    seen.lock().expect("no panic").take()
}

/// Nobody is believed who isn't trusted, and an address that is believed was said.
pub fn forwarded(data: &[u8]) {
    let Some((&way, rest)) = data.split_first() else {
        return;
    };
    let layer = if way & 1 == 0 {
        TrustedProxies::forwarded()
    } else {
        TrustedProxies::x_forwarded_for()
    };
    let name = if way & 1 == 0 {
        "forwarded"
    } else {
        "x-forwarded-for"
    };
    let layer = layer
        .trust(["10.0.0.0/8", "fd00::/8"])
        .expect("networks")
        .peer_from(|extensions| extensions.get().copied());
    let is_trusted = way & 2 == 0;
    let peer: SocketAddr = if is_trusted {
        ([10, 0, 0, 1], 80)
    } else {
        ([192, 0, 2, 1], 80)
    }
    .into();
    let mut request = Request::new(Empty::<Bytes>::new());
    for line in rest.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            request
                .headers_mut()
                .append(HeaderName::from_static(name), value);
        }
    }
    request.extensions_mut().insert(peer);
    let text = String::from_utf8_lossy(rest).to_ascii_lowercase();
    let service = service_fn(|request: Request<Empty<Bytes>>| async move {
        Ok::<_, BoxError>(Response::new(ClientAddress::of(&request)))
    });
    let found = block_on(layer.layer(service).oneshot(request))
        .expect("no error")
        .into_body();
    let found = found.expect("an address");
    if !is_trusted {
        assert_eq!(found.ip(), peer.ip());
        assert!(!found.is_forwarded());
    }
    // An address that a trusted proxy hides leaves that proxy's own; IPv6 has many spellings.
    if found.ip() != peer.ip() && found.ip().is_ipv4() {
        let said = found.ip().to_string();
        assert!(text.contains(&said), "{said} was said by nobody");
    }
}

/// Whatever a client sends is one line, and as JSON a valid one without control characters.
pub fn log_escape(data: &[u8]) {
    let parts: Vec<&[u8]> = data.splitn(4, |byte| *byte == b'\n').collect();
    let &[method, uri, agent, referer] = &parts[..] else {
        return;
    };
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(uri)) else {
        return;
    };
    for make in [AccessLog::json, AccessLog::combined] {
        let lines = Lines::default();
        let log = make().to_writer(lines.clone());
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        for (name, value) in [("user-agent", agent), ("referer", referer)] {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                request
                    .headers_mut()
                    .insert(HeaderName::from_static(name), value);
            }
        }
        let service = service_fn(|_: Request<Empty<Bytes>>| async {
            Ok::<_, BoxError>(Response::new(Full::new(Bytes::from("x"))))
        });
        block_on(async {
            let response = log.layer(service).oneshot(request).await.expect("no error");
            let _ = response.into_body().collect().await;
        });
        assert!(log.flush(Duration::from_secs(10)), "the line is written");
        let written = lines.0.lock().expect("no panic").clone();
        let text = String::from_utf8(written).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        let line = text.strip_suffix('\n').expect("a line");
        assert!(
            !line
                .chars()
                .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')),
            "{line:?}"
        );
        if line.starts_with('{') {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(value.is_object());
        }
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
