//! What the parts of a server take by the clock: a head, a body, a connection in memory with a client at its other end.
//! `cargo bench -p wharf-benches`. On a noisy machine `count.sh` tells more, since instructions don't vary.

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use wharf::Limits;
use wharf::codec::{Codec, DecodeBody, Httparse, Piece, Strict};
use wharf_benches::Workload;

fn head(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    for workload in [Workload::Tiny, Workload::Browser] {
        let (name, text) = (workload.name(), workload.reads().concat());
        group.throughput(Throughput::Bytes(text.len() as u64));
        let limits = Limits::default();
        group.bench_function(BenchmarkId::new("strict", name), |bench| {
            let mut codec = Strict::new(&limits);
            bench.iter_with_setup(
                || BytesMut::from(text.as_slice()),
                |input| decode(&mut codec, input),
            );
        });
        group.bench_function(BenchmarkId::new("httparse", name), |bench| {
            let mut codec = Httparse::new(&limits);
            bench.iter_with_setup(
                || BytesMut::from(text.as_slice()),
                |input| decode(&mut codec, input),
            );
        });
    }
    group.finish();
}

/// Gives the request back, so that what it costs to drop isn't counted.
fn decode<C: Codec>(codec: &mut C, mut input: BytesMut) -> (Request<()>, C::Decoder) {
    let (mut parts, ()) = Request::new(()).into_parts();
    let head = codec.decode_head(&mut input, &mut parts);
    let head = head.expect("a good head").expect("a whole head");
    (Request::from_parts(parts, ()), head.decoder)
}

fn body(c: &mut Criterion) {
    const LENGTH: usize = 64 * 1024;
    let mut group = c.benchmark_group("body");
    group.throughput(Throughput::Bytes(LENGTH as u64));
    let mut known =
        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n").into_bytes();
    known.resize(known.len() + LENGTH, b'x');
    let mut small = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..LENGTH / 1024 {
        small.extend_from_slice(b"400\r\n");
        small.extend_from_slice(&[b'x'; 1024]);
        small.extend_from_slice(b"\r\n");
    }
    small.extend_from_slice(b"0\r\n\r\n");
    for (name, message) in [("known", known), ("chunks of 1 KiB", small)] {
        group.bench_function(name, |bench| {
            let mut codec = Strict::new(&Limits::default());
            bench.iter_with_setup(
                || {
                    let mut input = BytesMut::from(message.as_slice());
                    let (mut parts, ()) = Request::new(()).into_parts();
                    let head = codec.decode_head(&mut input, &mut parts);
                    (
                        head.expect("a good head").expect("a whole head").decoder,
                        input,
                    )
                },
                |(mut decoder, mut input)| {
                    let mut length = 0;
                    loop {
                        match decoder.decode(&mut input) {
                            Ok(Some(Piece::Data(data))) => length += data.len(),
                            Ok(Some(Piece::End)) => break,
                            other => panic!("a whole body, not {other:?}"),
                        }
                    }
                    assert_eq!(length, LENGTH);
                    input
                },
            );
        });
    }
    group.finish();
}

fn connection(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let mut group = c.benchmark_group("connection");
    for workload in [
        Workload::Tiny,
        Workload::Browser,
        Workload::Pipelined,
        Workload::Post,
    ] {
        let (name, answers) = (workload.name(), workload.requests());
        let message = workload.reads().concat();
        group.throughput(Throughput::Elements(answers));
        for (server, start) in [("wharf", wharf as fn(DuplexStream)), ("hyper", hyper)] {
            group.bench_function(BenchmarkId::new(server, name), |bench| {
                let mut client = runtime.block_on(async {
                    let (client, server) = tokio::io::duplex(64 * 1024);
                    start(server);
                    client
                });
                bench.iter(|| runtime.block_on(exchange(&mut client, &message, answers)));
            });
        }
    }
    group.finish();
}

/// Writes, and reads until there are so many bodies; only they end in an exclamation mark.
async fn exchange(client: &mut DuplexStream, message: &[u8], mut answers: u64) {
    client.write_all(message).await.expect("an open connection");
    let mut read = [0; 8 * 1024];
    while answers > 0 {
        let got = client.read(&mut read).await.expect("an open connection");
        assert_ne!(got, 0, "the connection ended");
        answers -= read[..got].iter().filter(|byte| **byte == b'!').count() as u64;
    }
}

fn wharf(stream: DuplexStream) {
    let connection = wharf::serve_connection(stream, tower::service_fn(hello));
    tokio::spawn(connection);
}

fn hyper(stream: DuplexStream) {
    let mut http = hyper::server::conn::http1::Builder::new();
    let http = http.pipeline_flush(true);
    let service = hyper::service::service_fn(hello);
    tokio::spawn(http.serve_connection(hyper_util::rt::TokioIo::new(stream), service));
}

async fn hello<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, wharf::BoxError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<wharf::BoxError>,
{
    request.into_body().collect().await.map_err(Into::into)?;
    Ok(Response::new(Full::new(Bytes::from_static(
        b"Hello, World!",
    ))))
}

criterion_group!(parts, head, body, connection);
criterion_main!(parts);
