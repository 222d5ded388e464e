//! One test for every store: what the trait promises, each implementation keeps.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dockyard::store::embedded::{Embedded, Settings};
use dockyard::store::{BlobStore, Changes, Found, Key, OnlyIf, Page, StoreError, Stored, What};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use wharf_middleware::range;

#[cfg(feature = "s3")]
mod s3_like;

/// The largest blob of each store here.
const LARGEST: u64 = 2 << 20;

async fn put(
    store: &dyn BlobStore,
    key: &str,
    content: &[u8],
    only_if: OnlyIf,
) -> Result<Stored, StoreError> {
    let mut spool = store.spool();
    for piece in content.chunks(100_000) {
        spool.take(&Bytes::copy_from_slice(piece)).await?;
    }
    let key = Key::new("b", key).unwrap();
    store
        .put(&key, spool.finish().await?, "text/x-test", only_if)
        .await
}

async fn find(store: &dyn BlobStore, key: &str) -> Option<Found> {
    store.find(&Key::new("b", key).unwrap()).await.unwrap()
}

async fn read(found: Found, range: &str) -> Vec<u8> {
    let mut fields = HeaderMap::new();
    if !range.is_empty() {
        fields.insert(
            "range",
            HeaderValue::from_str(&format!("bytes={range}")).unwrap(),
        );
    }
    let response = range::respond(&Method::GET, &fields, Response::new(found.content));
    response
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec()
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 % 253) as u8).collect()
}

async fn keeps_its_promises(make: impl AsyncFnOnce(Changes) -> Box<dyn BlobStore>) {
    let (changes, seen) = (Changes::new(), Arc::new(Mutex::new(Vec::new())));
    let told = seen.clone();
    changes.listen(move |change| {
        told.lock()
            .unwrap()
            .push((change.key.key().to_owned(), change.what))
    });
    let store = make(changes).await;
    let store = store.as_ref();

    for size in [0, 1, 64 * 1024, 64 * 1024 + 1, 1_500_000] {
        let key = format!("of {size} & bytes/ä");
        assert!(
            !put(store, &key, &bytes(size), OnlyIf::always())
                .await
                .unwrap()
                .replaced
        );
        let found = find(store, &key).await.unwrap();
        assert_eq!(
            (found.meta.size, found.meta.content_type.as_str()),
            (size as u64, "text/x-test")
        );
        assert!(read(found, "").await == bytes(size), "{size}");
    }
    let large = async || find(store, "of 1500000 & bytes/ä").await.unwrap();
    assert!(read(large().await, "700000-1400000").await == bytes(1_500_000)[700_000..=1_400_000]);
    assert!(read(large().await, "-1").await == bytes(1_500_000)[1_499_999..]);
    // Two parts, which are read in the order that they are asked for.
    let parts = read(large().await, "1000000-1000001,5-6").await;
    let text = String::from_utf8_lossy(&parts);
    assert!(text.find("bytes 1000000-1000001/").unwrap() < text.find("bytes 5-6/").unwrap());

    // Conditions.
    let first = put(store, "k", b"one", OnlyIf::new(|now| now.is_none()))
        .await
        .unwrap();
    let refused = put(store, "k", b"two", OnlyIf::new(|now| now.is_none())).await;
    assert!(matches!(refused, Err(StoreError::NotMet)));
    let digest = first.meta.digest;
    let is_first = move || OnlyIf::new(move |now| now.is_some_and(|now| now.digest == digest));
    assert!(put(store, "k", b"two", is_first()).await.unwrap().replaced);
    assert!(matches!(
        put(store, "k", b"three", is_first()).await,
        Err(StoreError::NotMet)
    ));
    let key = Key::new("b", "k").unwrap();
    assert!(matches!(
        store.delete(&key, is_first()).await,
        Err(StoreError::NotMet)
    ));
    assert_eq!(read(find(store, "k").await.unwrap(), "").await, b"two");
    assert_eq!(
        store
            .delete(&key, OnlyIf::always())
            .await
            .unwrap()
            .unwrap()
            .size,
        3
    );
    assert!(
        store
            .delete(&key, OnlyIf::always())
            .await
            .unwrap()
            .is_none()
    );
    assert!(find(store, "k").await.is_none());

    // What is too large.
    let beyond = put(store, "l", &vec![0; LARGEST as usize + 1], OnlyIf::always()).await;
    assert!(matches!(beyond, Err(StoreError::TooLarge)));

    // Listings.
    for name in ["list/1", "list/2", "list/3", "other"] {
        put(store, name, b"x", OnlyIf::always()).await.unwrap();
    }
    let list = async |prefix: &str, after: &str, limit| {
        let (bucket, prefix, after) = ("b".to_owned(), prefix.to_owned(), after.to_owned());
        let listing = store
            .list(&Page {
                bucket,
                prefix,
                after,
                limit,
            })
            .await
            .unwrap();
        let keys: Vec<_> = listing.blobs.into_iter().map(|blob| blob.key).collect();
        (keys.join(" "), listing.more)
    };
    assert_eq!(list("list/", "", 2).await, ("list/1 list/2".into(), true));
    assert_eq!(list("list/", "list/2", 2).await, ("list/3".into(), false));
    assert_eq!(list("none", "", 2).await, (String::new(), false));

    let seen = seen.lock().unwrap();
    let of_k: Vec<_> = seen
        .iter()
        .filter(|(key, _)| key == "k")
        .map(|(_, what)| match what {
            What::Put { size, .. } => *size,
            _ => 0,
        })
        .collect();
    assert_eq!(of_k, [3, 3, 0]);
}

fn settings(folder: Option<&std::path::Path>) -> Settings {
    Settings {
        folder: folder.map(Into::into),
        largest: LARGEST,
        ..Settings::default()
    }
}

#[tokio::test]
async fn the_embedded_store_in_memory_keeps_its_promises() {
    keeps_its_promises(async |changes| {
        Box::new(Embedded::open(settings(None), changes).unwrap()) as _
    })
    .await;
}

#[tokio::test]
async fn the_embedded_store_in_a_folder_keeps_its_promises() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    keeps_its_promises(async |changes| {
        Box::new(Embedded::open(settings(Some(path)), changes).unwrap()) as _
    })
    .await;
}

#[cfg(feature = "s3")]
#[tokio::test]
async fn a_store_in_a_bucket_keeps_its_promises() {
    let scratch = tempfile::tempdir().unwrap();
    let bucket = s3_like::start().await;
    let settings = s3_like::settings(&bucket, scratch.path(), LARGEST);
    keeps_its_promises(async |changes| {
        Box::new(dockyard::store::s3::S3::new(settings, changes).unwrap()) as _
    })
    .await;
    assert_eq!(
        std::fs::read_dir(scratch.path()).unwrap().count(),
        0,
        "uploads leave nothing behind"
    );
}

#[cfg(feature = "s3")]
#[tokio::test]
async fn a_store_in_a_bucket_of_somebody_elses_service_keeps_its_promises() {
    let scratch = tempfile::tempdir().unwrap();
    let service = s3_like::Moto::start();
    let settings = s3_like::settings(&service.bucket, scratch.path(), LARGEST);
    keeps_its_promises(async |changes| {
        Box::new(dockyard::store::s3::S3::new(settings, changes).unwrap()) as _
    })
    .await;
}

#[cfg(feature = "s3")]
#[tokio::test]
async fn whoever_signs_wrongly_is_refused_and_told() {
    let scratch = tempfile::tempdir().unwrap();
    let bucket = s3_like::start().await;
    let mut settings = s3_like::settings(&bucket, scratch.path(), LARGEST);
    settings.credentials.secret = "guessed".into();
    let store = dockyard::store::s3::S3::new(settings.clone(), Changes::new()).unwrap();
    let error = put(&store, "k", b"x", OnlyIf::always())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("403"), "{error}");
    settings.bucket = "ftp://nowhere".into();
    let error = dockyard::store::s3::S3::new(settings.clone(), Changes::new())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("http(s)://host/bucket"), "{error}");
    settings.bucket = "http://127.0.0.1:1/bucket".into();
    let store = dockyard::store::s3::S3::new(settings, Changes::new()).unwrap();
    let error = put(&store, "k", b"x", OnlyIf::always())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("can't be asked"), "{error}");
}
