use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;
use tower::service_fn;

use super::*;
use crate::conn::{By, ConnInfo, ProxyClient};
use crate::error::BoxError;

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 54321 80\r\n";

fn from(peer: &str, io: DuplexStream) -> Conn<DuplexStream> {
    let address = |text: &str| match text.parse::<SocketAddr>() {
        Ok(socket) => socket.into(),
        Err(_) => Address::Unnamed,
    };
    let mut conn = Conn::from(io);
    let info = conn.info_mut();
    (info.peer, info.local) = (address(peer), address("10.0.0.99:8080"));
    conn
}

type Seen = Arc<Mutex<Vec<(ConnInfo, String)>>>;

/// A service that reads to the end and remembers what it saw.
fn reader(
    seen: &Seen,
) -> impl Service<
    Conn<DuplexStream>,
    Response = ConnReport,
    Error = BoxError,
    Future: Future<Output = Result<ConnReport, BoxError>> + Send,
> + Clone
+ use<> {
    let seen = seen.clone();
    service_fn(move |mut conn: Conn<DuplexStream>| {
        let seen = seen.clone();
        async move {
            let mut text = String::new();
            conn.io_mut().read_to_string(&mut text).await?;
            seen.lock().unwrap().push((conn.info().clone(), text));
            Ok(conn.end(CloseReason::ClientClosed))
        }
    })
}

fn behind_tens() -> ProxyProtocol {
    ProxyProtocol::required()
        .trust(["10.0.0.0/8", "2001:db8::7"])
        .unwrap()
}

async fn run(
    layer: ProxyProtocol,
    peer: &str,
    sent: &[u8],
) -> (CloseReason, Option<(ConnInfo, String)>) {
    let (mut client, server) = duplex(1 << 16);
    client.write_all(sent).await.unwrap();
    client.shutdown().await.unwrap();
    let seen = Seen::default();
    let report = layer.layer(reader(&seen)).call(from(peer, server)).await;
    let seen = seen.lock().unwrap().pop();
    (report.unwrap().reason, seen)
}

#[tokio::test]
async fn what_the_balancer_says_is_the_connection_and_what_follows_is_left_to_be_read() {
    let block = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc0\0\x02\x01\xc6\x33\x64\x02\xd4\x31\0\x50\x02\0\x04name";
    for (header, authority) in [(LINE, None), (block, Some("name"))] {
        let sent = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
        let (reason, seen) = run(behind_tens(), "10.1.2.3:4", &sent).await;
        assert_eq!(reason, CloseReason::ClientClosed);
        let (info, text) = seen.unwrap();
        assert_eq!(text, "GET / HTTP/1.1\r\n\r\n");
        assert_eq!(info.peer.to_string(), "192.0.2.1:54321");
        assert_eq!(info.local.to_string(), "198.51.100.2:80");
        let proxy = info.proxy.unwrap();
        assert_eq!(proxy.client, ProxyClient::Told);
        assert_eq!(proxy.peer.to_string(), "10.1.2.3:4");
        assert_eq!(proxy.local.to_string(), "10.0.0.99:8080");
        assert_eq!(proxy.authority(), authority);
    }
}

#[tokio::test]
async fn a_header_without_addresses_leaves_those_of_the_socket() {
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\xd4\x31\0\x50";
    let unspec = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\0\0";
    for (sent, client) in [
        (&b"PROXY UNKNOWN\r\n"[..], ProxyClient::Unknown),
        (unspec, ProxyClient::Unknown),
        (local, ProxyClient::Itself),
    ] {
        let (_, seen) = run(behind_tens(), "10.1.2.3:4", sent).await;
        let (info, text) = seen.unwrap();
        assert_eq!(text, "");
        assert_eq!(info.peer.to_string(), "10.1.2.3:4");
        assert_eq!(info.local.to_string(), "10.0.0.99:8080");
        assert_eq!(info.proxy.unwrap().client, client);
    }
}

#[tokio::test]
async fn only_who_is_trusted_is_believed() {
    let one = || ProxyProtocol::required().trust(["10.0.0.7"]).unwrap();
    let any = || {
        ProxyProtocol::required()
            .trust(["0.0.0.0/0", "::/0"])
            .unwrap()
    };
    for (layer, peer, believed) in [
        (behind_tens(), "10.0.0.0:1", true),
        (behind_tens(), "10.255.255.255:1", true),
        (behind_tens(), "[::ffff:10.0.0.1]:1", true),
        (behind_tens(), "[2001:db8::7]:1", true),
        (behind_tens(), "[2001:db8::8]:1", false),
        (behind_tens(), "9.255.255.255:1", false),
        (behind_tens(), "11.0.0.0:1", false),
        (behind_tens(), "[::ffff:11.0.0.1]:1", false),
        (behind_tens(), "[::10.0.0.1]:1", false),
        (behind_tens(), "unix", false),
        (behind_tens().trust_unix(), "unix", true),
        (one(), "10.0.0.7:1", true),
        (one(), "10.0.0.6:1", false),
        (any(), "11.0.0.1:1", true),
        (any(), "[::2]:1", true),
        (ProxyProtocol::required(), "127.0.0.1:1", false),
        (ProxyProtocol::required().trust_unix(), "127.0.0.1:1", false),
    ] {
        let (reason, seen) = run(layer, peer, LINE).await;
        let wanted = match believed {
            true => CloseReason::ClientClosed,
            false => CloseReason::Proxy(ProxyError::Untrusted),
        };
        assert_eq!(reason, wanted, "{peer}");
        assert_eq!(seen.is_some(), believed, "{peer}");
    }
}

#[test]
fn what_is_no_network_is_refused_with_a_sentence() {
    for text in ["10.0.0.0/33", "ten", "", "10.0.0.0/", "10.0.0.1:80"] {
        let error = ProxyProtocol::required().trust([text]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`{text}` is neither a network like 10.0.0.0/8 nor an IP address")
        );
    }
}

#[tokio::test]
async fn without_a_header_nothing_reaches_the_service_and_the_reason_says_why() {
    for (sent, wanted) in [
        (&b""[..], CloseReason::ClientClosed),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            CloseReason::Proxy(ProxyError::Missing),
        ),
        (b"PROXY TCP4 1.", CloseReason::Proxy(ProxyError::Truncated)),
        (
            b"PROXY TCP4 1.1.1.1\r\n",
            CloseReason::Proxy(ProxyError::Malformed),
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            CloseReason::Proxy(ProxyError::TooLarge),
        ),
    ] {
        let (reason, seen) = run(behind_tens(), "10.0.0.1:1", sent).await;
        assert_eq!(reason, wanted);
        assert!(seen.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_in_time_is_taken_and_a_late_one_is_not() {
    for (pause, in_time) in [(1999, true), (2001, false)] {
        let layer = behind_tens().timeout(Duration::from_secs(2));
        let (mut client, server) = duplex(64);
        let seen = Seen::default();
        let call = tokio::spawn(layer.layer(reader(&seen)).call(from("10.0.0.1:1", server)));
        let begun = Instant::now();
        client.write_all(&LINE[..20]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let _ = client.write_all(&LINE[20..]).await;
        drop(client);
        let reason = call.await.unwrap().unwrap().reason;
        if in_time {
            assert_eq!(reason, CloseReason::ClientClosed);
        } else {
            assert_eq!(reason, CloseReason::Proxy(ProxyError::Late { got: 20 }));
            assert!(begun.elapsed() < Duration::from_millis(2010));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_at_once_when_it_is_told() {
    for (by, wanted) in [
        (By::Shutdown, CloseReason::Shutdown),
        (By::Operator, CloseReason::Operator),
    ] {
        let (_client, server) = duplex(64);
        let conn = from("10.0.0.1:1", server);
        let live = conn.live().clone();
        let seen = Seen::default();
        let call = tokio::spawn(behind_tens().layer(reader(&seen)).call(conn));
        tokio::time::sleep(Duration::from_secs(1)).await;
        live.tell(Told::LastCall, by);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!call.is_finished());
        let told = Instant::now();
        live.tell(Told::Drain, by);
        assert_eq!(call.await.unwrap().unwrap().reason, wanted);
        assert_eq!(told.elapsed(), Duration::ZERO);
    }
}

#[tokio::test]
async fn slow_bytes_make_the_same_header() {
    let (mut client, server) = duplex(1);
    let seen = Seen::default();
    let call = tokio::spawn(
        behind_tens()
            .layer(reader(&seen))
            .call(from("10.0.0.1:1", server)),
    );
    client.write_all(LINE).await.unwrap();
    client.write_all(b"rest").await.unwrap();
    drop(client);
    call.await.unwrap().unwrap();
    let (info, text) = seen.lock().unwrap().pop().unwrap();
    assert_eq!(
        (info.peer.to_string().as_str(), text.as_str()),
        ("192.0.2.1:54321", "rest")
    );
}

#[tokio::test]
async fn a_setting_can_switch_it() {
    for (layer, wanted) in [
        (Some(behind_tens()), "192.0.2.1:54321"),
        (None, "10.0.0.1:1"),
    ] {
        let seen = Seen::default();
        let stack = tower::ServiceBuilder::new()
            .option_layer(layer)
            .service(reader(&seen));
        let (mut client, server) = duplex(64);
        client.write_all(LINE).await.unwrap();
        drop(client);
        let call = tower::ServiceExt::oneshot(stack, from("10.0.0.1:1", server));
        assert!(call.await.is_ok());
        let (info, _) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(info.peer.to_string(), wanted);
    }
}

#[tokio::test]
async fn behind_it_a_limit_counts_the_real_peers() {
    let limit = crate::PerPeer::new(1);
    let stack = behind_tens().layer(limit.layer(reader(&Seen::default())));
    let one = "PROXY TCP4 192.0.2.1 198.51.100.2 1 80\r\n";
    let other = "PROXY TCP4 192.0.2.2 198.51.100.2 1 80\r\n";
    let mut open = Vec::new();
    for (line, served) in [(one, true), (one, false), (other, true)] {
        let (mut client, server) = duplex(64);
        client.write_all(line.as_bytes()).await.unwrap();
        let mut call = Box::pin(stack.clone().call(from("10.0.0.1:1", server)));
        let end = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match end {
            Poll::Pending => assert!(served, "{line}"),
            Poll::Ready(end) => {
                assert_eq!(end.unwrap().reason, CloseReason::PeerLimit);
                assert!(!served, "{line}");
            }
        }
        open.push((client, call));
    }
}

/// Ready when it was asked twice, once: what was cloned is not ready.
#[derive(Default)]
struct Shy {
    asked: u32,
}

impl Clone for Shy {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Conn<DuplexStream>> for Shy {
    type Response = ConnReport;
    type Error = BoxError;
    type Future = std::future::Ready<Result<ConnReport, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.asked += 1;
        match self.asked {
            1 => Poll::Pending,
            2 => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err("worn out".into())),
        }
    }

    fn call(&mut self, conn: Conn<DuplexStream>) -> Self::Future {
        assert_eq!(self.asked, 2, "called without being ready");
        std::future::ready(Ok(conn.end(CloseReason::HandlerAsked)))
    }
}

#[tokio::test]
async fn readiness_is_that_of_the_service_and_the_ready_one_is_called() {
    let mut service = behind_tens().layer(Shy::default());
    for _ in 0..2 {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_pending());
        assert!(service.poll_ready(&mut cx).is_ready());
        let (mut client, server) = duplex(64);
        client.write_all(LINE).await.unwrap();
        let report = service.call(from("10.0.0.1:1", server)).await.unwrap();
        assert_eq!(report.reason, CloseReason::HandlerAsked);
        assert_eq!(report.info.peer.to_string(), "192.0.2.1:54321");
    }
    let mut cx = Context::from_waker(Waker::noop());
    let _ = service.poll_ready(&mut cx);
    let _ = service.poll_ready(&mut cx);
    let Poll::Ready(Err(error)) = service.poll_ready(&mut cx) else {
        panic!("its error is hidden")
    };
    assert_eq!(error.to_string(), "worn out");
}
