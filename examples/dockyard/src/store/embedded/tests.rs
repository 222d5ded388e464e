use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use wharf_middleware::range;

use super::{Embedded, SMALL, Settings};
use crate::store::{BlobStore, Change, Changes, Found, Key, OnlyIf, Page, StoreError, What};

fn key(name: &str) -> Key {
    Key::new("b", name).unwrap()
}

async fn put(store: &Embedded, name: &str, content: Vec<u8>) -> Result<bool, StoreError> {
    put_if(store, name, content, OnlyIf::always()).await
}

async fn put_if(
    store: &Embedded,
    name: &str,
    content: Vec<u8>,
    only_if: OnlyIf,
) -> Result<bool, StoreError> {
    let mut spool = store.spool();
    spool.take(&Bytes::from(content)).await?;
    let gathered = spool.finish().await?;
    let stored = store
        .put(&key(name), gathered, "text/plain", only_if)
        .await?;
    Ok(stored.replaced)
}

async fn read(found: Found) -> Vec<u8> {
    let full = Response::new(found.content);
    let response = range::respond(&Method::GET, &HeaderMap::new(), full);
    response
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec()
}

async fn get(store: &Embedded, name: &str) -> Option<Vec<u8>> {
    let found = store.find(&key(name)).await.unwrap()?;
    Some(read(found).await)
}

fn absent() -> OnlyIf {
    OnlyIf::new(|now| now.is_none())
}

fn in_memory(budget: u64) -> (Embedded, Arc<Mutex<Vec<Change>>>) {
    let (changes, seen) = (Changes::new(), Arc::new(Mutex::new(Vec::new())));
    let told = seen.clone();
    changes.listen(move |change| told.lock().unwrap().push(change));
    let settings = Settings {
        budget,
        largest: budget,
        ..Settings::default()
    };
    (Embedded::open(settings, changes).unwrap(), seen)
}

fn in_folder(folder: &std::path::Path) -> Result<Embedded, StoreError> {
    let settings = Settings {
        folder: Some(folder.to_owned()),
        ..Settings::default()
    };
    Embedded::open(settings, Changes::new())
}

fn files_in(folder: &std::path::Path) -> usize {
    let count = |folder: std::path::PathBuf| {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                if path.is_dir() { files_in(&path) } else { 1 }
            })
            .sum::<usize>()
    };
    count(folder.to_owned())
}

#[tokio::test]
async fn small_and_large_blobs_come_back_whole_and_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = [0, 1, SMALL - 1, SMALL, SMALL + 1, 1_000_000];
    let content = |size: usize| (0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>();
    let store = in_folder(folder.path()).unwrap();
    for size in sizes {
        assert!(!put(&store, &size.to_string(), content(size)).await.unwrap());
        assert_eq!(get(&store, &size.to_string()).await.unwrap(), content(size));
    }
    drop(store);
    let store = in_folder(folder.path()).unwrap();
    for size in sizes {
        assert_eq!(get(&store, &size.to_string()).await.unwrap(), content(size));
    }
    assert_eq!(files_in(&folder.path().join("blobs")), 2);
}

#[tokio::test]
async fn a_replaced_or_deleted_blob_leaves_no_file_and_no_upload_leaves_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path()).unwrap();
    put(&store, "a", vec![1; 600_000]).await.unwrap();
    assert!(put(&store, "a", vec![2; 600_000]).await.unwrap());
    assert_eq!(files_in(&folder.path().join("blobs")), 1);
    let refused = put_if(&store, "a", vec![3; 600_000], absent()).await;
    assert!(matches!(refused, Err(StoreError::NotMet)));
    assert_eq!(get(&store, "a").await.unwrap(), vec![2; 600_000]);
    assert_eq!(files_in(&folder.path().join("blobs")), 1);

    let mut given_up = store.spool();
    given_up.take(&Bytes::from(vec![4; 600_000])).await.unwrap();
    assert_eq!(files_in(&folder.path().join("incoming")), 1);
    drop(given_up);
    assert_eq!(files_in(&folder.path().join("incoming")), 0);

    let removed = store.delete(&key("a"), OnlyIf::always()).await.unwrap();
    assert_eq!(removed.unwrap().size, 600_000);
    assert!(get(&store, "a").await.is_none());
    assert!(
        store
            .delete(&key("a"), OnlyIf::always())
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(files_in(&folder.path().join("blobs")), 0);
}

#[tokio::test]
async fn what_a_crash_left_behind_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path()).unwrap();
    put(&store, "a", vec![1; 600_000]).await.unwrap();
    drop(store);
    std::fs::write(folder.path().join("incoming/00000001000000ff"), "half").unwrap();
    std::fs::write(folder.path().join("blobs/ff/00000001000000ff"), "not named").unwrap();
    let store = in_folder(folder.path()).unwrap();
    assert_eq!(files_in(&folder.path().join("incoming")), 0);
    assert_eq!(files_in(&folder.path().join("blobs")), 1);
    assert_eq!(get(&store, "a").await.unwrap().len(), 600_000);
}

#[tokio::test]
async fn a_blob_that_is_read_is_whole_although_it_is_replaced_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = in_folder(folder.path()).unwrap();
    put(&store, "a", vec![1; 600_000]).await.unwrap();
    let found = store.find(&key("a")).await.unwrap().unwrap();
    put(&store, "a", vec![2; 600_000]).await.unwrap();
    assert_eq!(read(found).await, vec![1; 600_000]);
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_first() {
    let (store, seen) = in_memory(3_500);
    for name in ["a", "b", "c"] {
        put(&store, name, vec![0; 1_000]).await.unwrap();
    }
    assert_eq!(store.stats().evictions, 0);
    assert!(get(&store, "a").await.is_some());
    put(&store, "d", vec![0; 1_000]).await.unwrap();
    assert!(get(&store, "b").await.is_none());
    assert!(get(&store, "a").await.is_some());
    let stats = store.stats();
    assert_eq!((stats.blobs, stats.evictions), (3, 1));
    assert!(stats.bytes <= 3_500, "{stats:?}");
    let seen = seen.lock().unwrap();
    let evicted = seen.iter().filter(|change| change.what == What::Evicted);
    let evicted: Vec<_> = evicted.map(|change| change.key.key()).collect();
    assert_eq!(evicted, ["b"]);
}

#[tokio::test]
async fn of_many_who_want_to_be_first_one_is() {
    let (store, _) = in_memory(1 << 20);
    let store = Arc::new(store);
    let tries = (0..50_u8).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { put_if(&store, "a", vec![number], absent()).await })
    });
    let mut stored = 0;
    for one in tries.collect::<Vec<_>>() {
        stored += u32::from(one.await.unwrap().is_ok());
    }
    assert_eq!(stored, 1);
    assert!(store.stats().commits <= 51);
}

#[tokio::test]
async fn changes_that_wait_together_are_one_commit() {
    let (store, _) = in_memory(1 << 20);
    let store = Arc::new(store);
    let puts = (0..200).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { put(&store, &number.to_string(), vec![0]).await })
    });
    for one in puts.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.changes, stats.blobs, stats.queued), (200, 200, 0));
    assert!(stats.commits < 200 && stats.largest_commit > 1, "{stats:?}");
}

#[tokio::test]
async fn listings_are_in_order_and_go_on_where_they_ended() {
    let (store, _) = in_memory(1 << 20);
    for name in ["a/1", "a/2", "a/3", "b/1"] {
        put(&store, name, vec![7; 10]).await.unwrap();
    }
    let list = async |prefix: &str, after: &str, limit| {
        let page = Page {
            bucket: "b".into(),
            prefix: prefix.into(),
            after: after.into(),
            limit,
        };
        let listing = store.list(&page).await.unwrap();
        let keys: Vec<_> = listing.blobs.into_iter().map(|blob| blob.key).collect();
        (keys.join(" "), listing.more)
    };
    assert_eq!(list("", "", 10).await, ("a/1 a/2 a/3 b/1".into(), false));
    assert_eq!(list("a/", "", 3).await, ("a/1 a/2 a/3".into(), false));
    assert_eq!(list("a/", "", 2).await, ("a/1 a/2".into(), true));
    assert_eq!(list("a/", "a/2", 2).await, ("a/3".into(), false));
    assert_eq!(list("", "a/3", 2).await, ("b/1".into(), false));
    assert_eq!(list("c", "", 2).await, (String::new(), false));
}

#[tokio::test]
async fn who_comes_second_and_who_names_no_folder_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let first = in_folder(folder.path()).unwrap();
    let refused = |opened: Result<Embedded, StoreError>| opened.err().unwrap().to_string();
    let second = refused(in_folder(folder.path()));
    assert!(second.contains("another process has the store"), "{second}");
    drop(first);
    let missing = refused(in_folder(&folder.path().join("none")));
    assert!(
        missing.contains("make it, mount it, or name another with --store"),
        "{missing}"
    );
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(refused(in_folder(&file)).contains("is a file"));
}

#[tokio::test]
async fn a_folder_that_went_away_stops_writing_and_reads_go_on() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("store");
    std::fs::create_dir(&folder).unwrap();
    let store = in_folder(&folder).unwrap();
    put(&store, "small", vec![1; 10]).await.unwrap();
    put(&store, "large", vec![2; 600_000]).await.unwrap();
    std::fs::rename(&folder, parent.path().join("elsewhere")).unwrap();

    let error = put(&store, "other", vec![3; 600_000]).await.unwrap_err();
    assert!(
        error.to_string().contains("can't reach its disk"),
        "{error}"
    );
    assert!(put(&store, "other", vec![3]).await.is_err());
    assert_eq!(get(&store, "small").await.unwrap(), [1; 10]);
    let error = store.find(&key("large")).await.err().unwrap();
    assert!(error.to_string().contains("missing"), "{error}");

    std::fs::rename(parent.path().join("elsewhere"), &folder).unwrap();
    assert_eq!(get(&store, "large").await.unwrap().len(), 600_000);
    put(&store, "other", vec![3; 600_000]).await.unwrap();
}
