//! Readers of an endless answer over real sockets, under deadlines a thirtieth of the usual: what one has read is seen
//! though the server's kernel holds megabytes that it hasn't.

#[allow(dead_code, unreachable_pub)]
#[path = "support/http2.rs"]
mod wire;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use tower::Layer;
use tower::service_fn;
use wharf::{Address, Body, CloseReason, ConnReport, Http, Limits, Listener, Server, Shutdown};

const STALL: Duration = Duration::from_secs(1);

async fn endless(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    let frame = || {
        let data = Bytes::from_static(&[b'x'; 64 * 1024]);
        Ok::<_, Infallible>(http_body::Frame::data(data))
    };
    let frames = stream::iter(std::iter::repeat_with(frame));
    Ok(Response::new(Body::new(StreamBody::new(frames))))
}

/// Asks for the answer, and reads 8 MiB of it as fast as it comes.
async fn begin(request: &[u8]) -> (TcpStream, mpsc::UnboundedReceiver<ConnReport>) {
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let Address::Socket(address) = *listener.local() else {
        panic!("not TCP")
    };
    let (closed, reports) = mpsc::unbounded_channel();
    let server = Server::new()
        .listen(listener)
        .unwrap()
        .shutdown(Shutdown::never())
        .on_close(move |report| drop(closed.send(report.clone())));
    let http = Http::new().limits(Limits {
        stall_timeout: STALL,
        ..Limits::default()
    });
    tokio::spawn(server.serve(http.with_http2().layer(service_fn(endless))));
    let socket = TcpSocket::new_v4().unwrap();
    // Else its kernel's buffer grows to megabytes, a sixteenth of which has to be read before it says so.
    socket.set_recv_buffer_size(128 * 1024).unwrap();
    let mut client = socket.connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    client.read_exact(&mut vec![0; 8 << 20]).await.unwrap();
    (client, reports)
}

/// Reads 64 KiB four times a second, for long enough to be cut five times; then nothing.
async fn goes_on_slowly_and_then_stands_still(request: &[u8]) {
    let (mut client, mut reports) = begin(request).await;
    let mut beat = interval(STALL / 4);
    for _ in 0..20 {
        beat.tick().await;
        client
            .read_exact(&mut [0; 64 * 1024])
            .await
            .expect("it reads");
    }
    assert!(reports.is_empty(), "{:?}", reports.recv().await);
    let begun = Instant::now();
    let report = timeout(5 * STALL, reports.recv()).await.expect("it is cut");
    assert_eq!(report.unwrap().reason, CloseReason::WriteTimeout);
    assert!(begun.elapsed() < 2 * STALL, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_fast_reader_that_becomes_slow_is_not_cut_and_one_that_stands_still_is() {
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    goes_on_slowly_and_then_stands_still(request).await;
}

#[tokio::test]
async fn nor_is_one_of_http2() {
    const LARGEST: u32 = (1 << 31) - 1;
    let settings = wire::settings(&[(4, LARGEST)]);
    let window = wire::window_update(0, LARGEST - 65_535);
    let request = [wire::PREFACE, &settings, &window, &wire::get(1)].concat();
    goes_on_slowly_and_then_stands_still(&request).await;
}
