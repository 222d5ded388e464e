//! Entity tags (RFC 9110 section 8.8.3): parsed where they stand, compared in the two ways there are.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// An entity tag: `"v1"`, or `W/"v1"` where it stands for versions that are only as good as each other.
///
/// ```
/// use wharf_middleware::conditional::ETag;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let strong = ETag::strong("v1")?;
/// let weak = ETag::weak("v1")?;
/// assert!(strong.weak_eq(&weak) && !strong.strong_eq(&weak));
/// assert!(!weak.strong_eq(&weak)); // two weak tags never are
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(HeaderValue);

impl ETag {
    /// The tag of content that is the same byte by byte wherever the tag is.
    ///
    /// # Errors
    ///
    /// Controls, spaces and quotes can't be written in a tag.
    pub fn strong(opaque: &str) -> Result<Self, InvalidETag> {
        Self::build(format!("\"{opaque}\""))
    }

    /// The tag of content that means the same wherever the tag is.
    ///
    /// # Errors
    ///
    /// As for [`strong`](Self::strong).
    pub fn weak(opaque: &str) -> Result<Self, InvalidETag> {
        Self::build(format!("W/\"{opaque}\""))
    }

    fn build(text: String) -> Result<Self, InvalidETag> {
        let value = HeaderValue::try_from(text).map_err(|_| InvalidETag(()))?;
        Self::parse(&value).ok_or(InvalidETag(()))
    }

    /// The tag that is the whole of a field's value.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let (_, rest) = Tag::first(value.as_bytes())?;
        rest.is_empty().then(|| Self(value.clone()))
    }

    /// As a field's value.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// It is a weak one.
    pub fn is_weak(&self) -> bool {
        self.tag().weak
    }

    /// Both are strong and the same: for `If-Match` and `If-Range` (RFC 9110 section 8.8.3.2).
    pub fn strong_eq(&self, other: &Self) -> bool {
        self.strong_eq_to(other.tag())
    }

    /// The same, weak or not: for `If-None-Match`.
    pub fn weak_eq(&self, other: &Self) -> bool {
        self.weak_eq_to(other.tag())
    }

    pub(super) fn strong_eq_to(&self, other: Tag<'_>) -> bool {
        !self.is_weak() && !other.weak && self.weak_eq_to(other)
    }

    pub(super) fn weak_eq_to(&self, other: Tag<'_>) -> bool {
        self.tag().opaque == other.opaque
    }

    fn tag(&self) -> Tag<'_> {
        let (tag, _) = Tag::first(self.0.as_bytes()).expect("it was parsed before");
        tag
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0.as_bytes()))
    }
}

impl From<ETag> for HeaderValue {
    fn from(etag: ETag) -> Self {
        etag.0
    }
}

/// An entity tag can't be written with these characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidETag(());

impl fmt::Display for InvalidETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entity tag must not hold control characters, spaces or double quotes")
    }
}

impl std::error::Error for InvalidETag {}

/// A tag where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// The tag that `bytes` begin with, and what is behind it.
    fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        // The `W` is case-sensitive.
        let (weak, quoted) = match bytes.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, bytes),
        };
        let quoted = quoted.strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| !is_etagc(*byte))?;
        let (opaque, rest) = quoted.split_at(end);
        Some((Self { weak, opaque }, rest.strip_prefix(b"\"")?))
    }
}

/// No space, no control, no quote; commas are allowed, so a list can't be split at them.
fn is_etagc(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x7E | 0x80..)
}

/// What a field of entity tags says.
pub(super) enum Listed<T> {
    /// It isn't there.
    Absent,
    /// `*`.
    Any,
    /// These.
    Tags(T),
    /// Neither.
    Malformed,
}

/// The tags that a request lists, over all lines of the field.
pub(super) fn listed<'a>(
    fields: &'a HeaderMap,
    name: &HeaderName,
) -> Listed<impl Iterator<Item = Tag<'a>> + use<'a>> {
    let lines = fields.get_all(name);
    let mut count = 0;
    let mut wildcards = 0;
    for line in lines.iter() {
        count += 1;
        if line.as_bytes() == b"*" {
            wildcards += 1;
        } else if Tags::of(line).any(|tag| tag.is_none()) {
            return Listed::Malformed;
        }
    }
    match (count, wildcards) {
        (0, _) => Listed::Absent,
        (1, 1) => Listed::Any,
        (_, 0) => Listed::Tags(lines.into_iter().flat_map(|line| Tags::of(line).flatten())),
        _ => Listed::Malformed,
    }
}

/// The members of one line; `None` where it isn't a list of tags, which ends it.
#[derive(Clone)]
struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Tags<'a> {
    fn of(line: &'a HeaderValue) -> Self {
        Self {
            rest: line.as_bytes(),
        }
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Option<Tag<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        // Empty members are to be ignored (RFC 9110 section 5.6.1.2).
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let member = Tag::first(self.rest).filter(|(_, rest)| ends_member(rest));
        self.rest = member.map_or(&[], |(_, rest)| rest);
        Some(member.map(|(tag, _)| tag))
    }
}

fn ends_member(rest: &[u8]) -> bool {
    matches!(rest.trim_ascii_start(), [] | [b',', ..])
}
