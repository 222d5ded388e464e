//! What a blob store is: keys, what is known of a blob, and the trait that the embedded store and the S3-compatible one
//! implement. Knows nothing of HTTP; the conditions of a request arrive here as values.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use wharf_middleware::range::Source;

pub mod changes;
pub mod embedded;
#[cfg(feature = "s3")]
pub mod s3;
pub mod spool;

pub use changes::{Change, Changes, What};
pub use embedded::Embedded;
pub use spool::{Gathered, Spool};

/// What a store does later.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A place for blobs. All calls may be made at the same time; what is acknowledged is durable, as far as the store is.
pub trait BlobStore: Send + Sync + 'static {
    /// A place where an upload is gathered, before it is known to be whole.
    fn spool(&self) -> Spool;

    /// Stores what was gathered, if what is there now meets the condition: all of it, or nothing.
    fn put<'a>(
        &'a self,
        key: &'a Key,
        gathered: Gathered,
        content_type: &'a str,
        only_if: OnlyIf,
    ) -> Task<'a, Stored>;

    /// Finds a blob; what is read from it later is of this version, or an error.
    fn find<'a>(&'a self, key: &'a Key) -> Task<'a, Option<Found>>;

    /// Removes a blob; `None` if there was none.
    fn delete<'a>(&'a self, key: &'a Key, only_if: OnlyIf) -> Task<'a, Option<Meta>>;

    /// Blobs of a bucket in the order of their keys.
    fn list<'a>(&'a self, page: &'a Page) -> Task<'a, Listing>;

    /// How it is going.
    fn stats(&self) -> Stats;

    /// Where it is, in words for the banner.
    fn place(&self) -> String;

    /// Why it can't take blobs now, if it can't.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// The name of a blob: a bucket, and a key in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `bucket/key`
    full: String,
    bucket: usize,
}

impl Key {
    /// Most bytes of a bucket's name.
    pub const BUCKET_BYTES: usize = 63;
    /// Most bytes of a key.
    pub const KEY_BYTES: usize = 1024;

    /// A checked name.
    ///
    /// # Errors
    ///
    /// A sentence that says what a name may be.
    pub fn new(bucket: &str, key: &str) -> Result<Self, BadKey> {
        check_bucket(bucket)?;
        if key.is_empty() || key.len() > Self::KEY_BYTES || key.chars().any(char::is_control) {
            return Err(BadKey(
                "a key is 1 to 1024 bytes of UTF-8 without control characters",
            ));
        }
        Ok(Self {
            full: format!("{bucket}/{key}"),
            bucket: bucket.len(),
        })
    }

    /// A name as a store has kept it.
    pub(crate) fn kept(full: &str) -> Option<Self> {
        Some(Self {
            bucket: full.find('/')?,
            full: full.to_owned(),
        })
    }

    /// `bucket/key`
    pub fn full(&self) -> &str {
        &self.full
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.full[..self.bucket]
    }

    /// The key within its bucket.
    pub fn key(&self) -> &str {
        &self.full[self.bucket + 1..]
    }
}

/// Says whether a bucket may be called that.
///
/// # Errors
///
/// A sentence that says what a name may be.
pub fn check_bucket(bucket: &str) -> Result<(), BadKey> {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    let is_good = (1..=Key::BUCKET_BYTES).contains(&bucket.len())
        && bucket.bytes().all(fits)
        && !bucket.starts_with('.');
    is_good.then_some(()).ok_or(BadKey(
        "a bucket's name is 1 to 63 of a-z, 0-9, `-`, `_` and `.`, and doesn't begin with `.`",
    ))
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// A name that no blob can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadKey(&'static str);

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadKey {}

/// The SHA-256 of a blob, which is its strong entity tag too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// From 64 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
        }
        (Self(digest).to_string() == hex.to_ascii_lowercase()).then_some(Self(digest))
    }

    /// The entity tag, quotes included (RFC 9110 section 8.8.3).
    pub fn etag(&self) -> String {
        format!("\"{self}\"")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Bytes.
    pub size: u64,
    /// Of the content.
    pub digest: Digest,
    /// As the client said that it is.
    pub content_type: String,
    /// When it was stored, to the millisecond.
    pub modified: SystemTime,
}

/// A blob that was found.
pub struct Found {
    /// What is known of it.
    pub meta: Meta,
    /// Its content, still to be read.
    pub content: Content,
}

/// The content of one version of a blob, which is read from any place, as it is asked for.
pub struct Content(Pin<Box<dyn Source + Send>>);

impl Content {
    /// Of any source.
    pub fn new(source: impl Source + Send + 'static) -> Self {
        Self(Box::pin(source))
    }
}

impl Source for Content {
    fn length(&self) -> u64 {
        self.0.length()
    }

    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        range: Range<u64>,
    ) -> Poll<io::Result<Bytes>> {
        self.0.as_mut().poll_read(cx, range)
    }
}

/// What has to be there for a change to be made: judged together with the change, by the store.
#[derive(Default)]
pub struct OnlyIf(Option<Box<Judge>>);

type Judge = dyn Fn(Option<&Meta>) -> bool + Send + Sync;

impl OnlyIf {
    /// Whatever is there.
    pub fn always() -> Self {
        Self(None)
    }

    /// If `judge` says so of what is there.
    pub fn new(judge: impl Fn(Option<&Meta>) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(judge)))
    }

    /// Nothing has to be looked at.
    pub fn is_always(&self) -> bool {
        self.0.is_none()
    }

    /// Whether that is met.
    pub fn holds(&self, now: Option<&Meta>) -> bool {
        self.0.as_ref().is_none_or(|judge| judge(now))
    }
}

/// A blob was stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What is known of it.
    pub meta: Meta,
    /// There was one before.
    pub replaced: bool,
}

/// Which blobs of a bucket are listed.
#[derive(Debug, Clone)]
pub struct Page {
    /// Of this bucket.
    pub bucket: String,
    /// Whose keys begin with this.
    pub prefix: String,
    /// Whose keys come after this one.
    pub after: String,
    /// So many at most.
    pub limit: usize,
}

/// Blobs in the order of their keys.
#[derive(Debug, Default)]
pub struct Listing {
    /// What was found.
    pub blobs: Vec<Listed>,
    /// There are more.
    pub more: bool,
}

/// A blob in a listing.
#[derive(Debug)]
pub struct Listed {
    /// Its key within the bucket.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Its digest, where the store lists it.
    pub digest: Option<Digest>,
    /// When it was stored.
    pub modified: SystemTime,
}

/// How a store is going. What a store doesn't know is zero.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// As many bytes are kept; zero: as many as there are.
    pub budget: u64,
    /// Blobs that were dropped to keep the budget.
    pub evictions: u64,
    /// Changes that wait for the writer.
    pub queued: usize,
    /// As many may wait.
    pub queue: usize,
    /// Commits so far.
    pub commits: u64,
    /// Changes that they made.
    pub changes: u64,
    /// Most changes of one commit.
    pub largest_commit: u64,
    /// How long the last one took.
    pub last_commit: Duration,
}

/// Why a store did not do what it was asked for.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// What has to be there is not.
    NotMet,
    /// The blob is larger than a blob may be.
    TooLarge,
    /// There is no room on the disk.
    Full(String),
    /// Anything else, in words.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMet => f.write_str("the condition of the request isn't met"),
            Self::TooLarge => f.write_str("the blob is larger than this server stores"),
            Self::Full(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(format!(
                "the store's disk is full ({error}): make room, or give it a smaller --budget"
            )),
            _ => Self::Failed(format!("the store can't reach its disk: {error}")),
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The same, back again.
pub(crate) fn from_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// A store that anybody may hold.
pub type Store = Arc<dyn BlobStore>;
