//! Bombs of three kinds, the bounds to the byte, and what is answered.

use std::convert::Infallible;
use std::future::ready;
use std::io::Write;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress};
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{ServiceExt, service_fn};
use tower_http::decompression::RequestDecompressionLayer;

use super::*;
use crate::mock::{Picky, converse, honours_readiness};

const MIB: usize = 1 << 20;

fn gzip(content: &[u8]) -> Bytes {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(content).expect("memory");
    gzip.finish().expect("memory").into()
}

fn guard() -> DecompressionGuard<RequestDecompressionLayer> {
    DecompressionGuard::around(RequestDecompressionLayer::new())
}

/// Reads its request to the end or an error, and counts what it got of it.
async fn swallow<B>(request: Request<B>, got: Arc<AtomicUsize>) -> Result<(), BoxError>
where
    B: Body<Data = Bytes, Error = BoxError>,
{
    let mut body = std::pin::pin!(request.into_body());
    while let Some(frame) = body.frame().await {
        let length = frame?.into_data().map_or(0, |data| data.len());
        got.fetch_add(length, Relaxed);
    }
    Ok(())
}

/// The status that a request gets from a handler that reads all of it, and how much of it the handler got.
async fn send<B>(
    guard: DecompressionGuard<RequestDecompressionLayer>,
    coding: &str,
    body: B,
) -> (u16, usize)
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let got = Arc::new(AtomicUsize::new(0));
    let count = got.clone();
    let service = guard.layer(service_fn(move |request| {
        let count = count.clone();
        async move {
            swallow(request, count).await?;
            Ok::<_, BoxError>(Response::new(String::new()))
        }
    }));
    let request = Request::post("/").header("content-encoding", coding);
    let response = service
        .oneshot(request.body(body).expect("a request"))
        .await;
    let status = response.expect("an answer").status();
    (status.as_u16(), got.load(Relaxed))
}

/// A body that repeats `piece` for as often as it is asked; says how often it was.
fn endless(
    head: Bytes,
    piece: Bytes,
    most: usize,
    asked: Arc<AtomicUsize>,
) -> impl Body<Data = Bytes, Error = Infallible> {
    let mut head = Some(head);
    StreamBody::new(stream::iter(std::iter::from_fn(move || {
        if asked.fetch_add(1, Relaxed) == most {
            return None;
        }
        let bytes = head.take().unwrap_or_else(|| piece.clone());
        Some(Ok(Frame::data(bytes)))
    })))
}

/// 100 MiB of zeros as a piece of a deflate stream that can be repeated: it refers to nothing before it.
fn deflated_zeros() -> Bytes {
    let mut deflate = Compress::new(Compression::fast(), false);
    let mut piece = Vec::with_capacity(2 * MIB);
    let zeros = vec![0; MIB];
    for _ in 0..99 {
        let before = deflate.total_in();
        let _ = deflate.compress_vec(&zeros, &mut piece, FlushCompress::None);
        assert_eq!(deflate.total_in() - before, MIB as u64);
    }
    let _ = deflate.compress_vec(&zeros, &mut piece, FlushCompress::Full);
    assert_eq!(deflate.total_in(), 100 * MIB as u64);
    piece.into()
}

#[tokio::test]
async fn ten_gigabytes_of_zeros_in_ten_megabytes_of_gzip_are_too_large() {
    const HEAD: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\xff";
    let piece = deflated_zeros();
    let whole = 100 * piece.len();
    assert!(
        (5 * MIB..50 * MIB).contains(&whole),
        "{whole} bytes of gzip"
    );
    for (guard, most) in [
        (guard(), FREE as usize),
        (guard().max_ratio(1 << 20), 8 * MIB),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let bomb = endless(Bytes::from_static(HEAD), piece.clone(), 100, asked.clone());
        let (status, got) = send(guard, "gzip", bomb).await;
        assert_eq!(status, 413);
        // By the ratio, what has come buys more than what is free.
        let allowed = most.max((100 * piece.len()).min(8 * MIB));
        assert!(got > 0 && got <= allowed, "{got} bytes came out");
        assert_eq!(
            asked.load(Relaxed),
            2,
            "no more than head and first piece were read"
        );
    }
}

#[tokio::test]
async fn so_they_are_when_they_come_in_small_pieces() {
    let piece = deflated_zeros();
    let bytes: Vec<u8> = [&b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..], &piece].concat();
    let chunks: Vec<_> = bytes.chunks(64).map(Bytes::copy_from_slice).collect();
    let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)));
    let (status, got) = send(guard(), "gzip", StreamBody::new(stream::iter(frames))).await;
    assert_eq!(status, 413);
    assert!(got <= FREE as usize, "{got} bytes came out");
}

#[tokio::test]
async fn other_codings_make_larger_bombs_yet() {
    let zeros = vec![0; 64 * MIB];
    let zstd = zstd::encode_all(&zeros[..], 1).expect("memory");
    let mut brotli = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut brotli, 1 << 16, 3, 22);
    encoder.write_all(&zeros).expect("memory");
    drop(encoder);
    for (coding, bomb) in [("br", brotli), ("zstd", zstd)] {
        assert!(bomb.len() < MIB, "{} bytes of {coding}", bomb.len());
        for (guard, most) in [(guard(), 8 * MIB), (guard().max_ratio(1 << 30), 8 * MIB)] {
            let (status, got) = send(guard, coding, Full::from(bomb.clone())).await;
            assert_eq!(status, 413, "{coding}");
            assert!(got > 0 && got <= most, "{coding}: {got} bytes came out");
        }
    }
}

#[tokio::test]
async fn up_to_the_bound_is_passed_on_and_a_byte_more_is_not() {
    for (length, status) in [(9_999, 200), (10_000, 200), (10_001, 413)] {
        let body = Full::new(gzip(&vec![7; length]));
        let (heard, got) = send(guard().max_bytes(10_000), "gzip", body).await;
        assert_eq!(heard, status, "{length}");
        assert!(got <= 10_000 && (status == 413 || got == length));
    }
}

#[tokio::test]
async fn what_is_free_of_the_ratio_is_64_kib_to_the_byte() {
    let free = FREE as usize;
    for (length, status) in [(free - 1, 200), (free, 200), (free + 1, 413)] {
        let body = Full::new(gzip(&vec![7; length]));
        assert!(body.clone().size_hint().exact() < Some(FREE / 100));
        assert_eq!(send(guard(), "gzip", body).await.0, status, "{length}");
    }
}

#[test]
fn the_ratio_is_of_what_has_come() {
    let bounds = guard().bounds;
    for (compressed, allowed) in [
        (0, FREE),
        (655, FREE),
        (656, 65_600),
        (83_886, 8_388_600),
        (83_887, 8 << 20),
        (u64::MAX, 8 << 20),
    ] {
        assert_eq!(bounds.allow(compressed), allowed, "{compressed}");
    }
}

#[tokio::test]
async fn an_honest_upload_arrives_whole_whatever_its_coding() {
    let content: Vec<u8> = (0..MIB as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (status, got) = send(guard(), "gzip", Full::new(gzip(&content))).await;
    assert_eq!((status, got), (200, MIB));
    let zstd = zstd::encode_all(&content[..], 1).expect("memory");
    assert_eq!(send(guard(), "zstd", Full::from(zstd)).await, (200, MIB));
}

#[tokio::test]
async fn what_is_not_decompressed_is_the_servers_business() {
    let large = || Full::from(vec![0; 9 * MIB]);
    assert_eq!(send(guard(), "identity", large()).await, (200, 9 * MIB));
    let pass = RequestDecompressionLayer::new().pass_through_unaccepted(true);
    let pass = DecompressionGuard::around(pass);
    assert_eq!(send(pass, "x-own", large()).await, (200, 9 * MIB));
}

#[tokio::test]
async fn an_unknown_coding_is_still_tower_https_415() {
    assert_eq!(send(guard(), "x-own", Full::default()).await, (415, 0));
}

/// What comes of a bomb when the handler answers `own` after its error.
async fn after_the_error(
    own: Result<u16, BoxError>,
) -> Response<MaybeBody<impl Body<Data = Bytes>>> {
    let mut own = Some(own);
    let service = guard()
        .max_bytes(10)
        .layer(service_fn(move |request: Request<_>| {
            let own = own.take().expect("one call");
            async move {
                let error = BodyExt::collect(request.into_body()).await.map(drop);
                let error: BoxError = error.expect_err("a bomb");
                let large = error.downcast_ref::<TooLarge>().expect("the guard's");
                assert_eq!((large.status().as_u16(), large.allowed()), (413, 10));
                assert_eq!(wharf::error::status_of(&error), 413);
                let mut response = Response::new(Full::<Bytes>::from("own words"));
                *response.status_mut() = StatusCode::from_u16(own?).expect("a status");
                Ok::<_, BoxError>(response)
            }
        }));
    let request = Request::post("/").header("content-encoding", "gzip");
    let request = request.body(Full::new(gzip(&[7; 11]))).expect("a request");
    service.oneshot(request).await.expect("an answer")
}

#[tokio::test]
async fn whatever_the_handler_makes_of_it_the_answer_is_413() {
    for own in [Ok(200), Ok(400), Ok(500), Err("a failure".into())] {
        let response = after_the_error(own).await;
        assert_eq!(response.status(), 413);
        assert_eq!(response.size_hint().exact(), Some(0));
    }
}

#[tokio::test]
async fn a_413_in_the_handlers_own_words_stays() {
    let response = after_the_error(Ok(413)).await;
    assert_eq!(response.status(), 413);
    assert_eq!(response.size_hint().exact(), Some(9));
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let inner = Picky::new(|_| ready(Ok::<_, Infallible>(Response::new(String::new()))));
    let service = guard().layer(inner);
    honours_readiness(service, || {
        let request = Request::post("/").header("content-encoding", "gzip");
        request.body(Full::<Bytes>::default()).expect("a request")
    })
    .await;
}

#[tokio::test]
async fn on_wharf_a_bomb_is_answered_and_its_connection_closed() {
    let bomb = gzip(&vec![0; 9 * MIB]);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        10 * MIB
    );
    let service = guard().layer(service_fn(|request| async move {
        swallow(request, Arc::default()).await?;
        Ok::<_, BoxError>(Response::new(String::new()))
    }));
    let said = converse(service, &[head.as_bytes(), &bomb].concat()).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    assert!(said.contains("connection: close"), "{said}");
}
