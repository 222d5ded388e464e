//! A listing as S3 writes it (ListObjectsV2), read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::store::{Listed, Listing, StoreError};

/// Reads a listing of objects whose names begin with `root`, which is not part of a key.
pub(super) fn read(xml: &[u8], root: &str) -> Result<Listing, StoreError> {
    let unreadable = || StoreError::Failed("the S3 service's listing can't be read".into());
    let text = std::str::from_utf8(xml).map_err(|_| unreadable())?;
    let document = roxmltree::Document::parse(text).map_err(|_| unreadable())?;
    let child = |node: roxmltree::Node<'_, '_>, name: &str| {
        let found = node
            .children()
            .find(|child| child.tag_name().name() == name)?;
        Some(found.text().unwrap_or_default().to_owned())
    };
    let result = document.root_element();
    let objects = result
        .children()
        .filter(|node| node.tag_name().name() == "Contents");
    let blobs = objects.map(|object| {
        Some(Listed {
            key: child(object, "Key")?.strip_prefix(root)?.to_owned(),
            size: child(object, "Size")?.parse().ok()?,
            digest: None,
            modified: time(&child(object, "LastModified")?)?,
        })
    });
    Ok(Listing {
        blobs: blobs.collect::<Option<_>>().ok_or_else(unreadable)?,
        more: child(result, "IsTruncated").as_deref() == Some("true"),
    })
}

/// `2009-10-12T17:50:30.000Z`
fn time(text: &str) -> Option<SystemTime> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if year < 1970 || !(1..=12).contains(&month) || !text.ends_with('Z') {
        return None;
    }
    // Days before the year, which begins in March here, so that the odd day is its last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(UNIX_EPOCH + Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_with_its_entities_and_times() {
        let xml = br#"<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>
            <Contents><Key>b/a&amp;b</Key><LastModified>2024-02-29T12:00:01.000Z</LastModified><Size>7</Size></Contents></ListBucketResult>"#;
        let listing = read(xml, "b/").unwrap();
        assert!(listing.more);
        assert_eq!(
            (listing.blobs[0].key.as_str(), listing.blobs[0].size),
            ("a&b", 7)
        );
        let date = httpdate::fmt_http_date(listing.blobs[0].modified);
        assert_eq!(date, "Thu, 29 Feb 2024 12:00:01 GMT");
        assert!(read(b"<html>", "b/").is_err());
    }
}
