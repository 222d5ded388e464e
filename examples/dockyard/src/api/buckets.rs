//! The blobs of a bucket, a page at a time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};

use super::name::Bucket;
use super::{Api, Problem};
use crate::store::{Key, Page};

/// Blobs of a page, if nothing else is asked for.
const USUAL: usize = 100;
/// Blobs of a page at most.
const MOST: usize = 1000;

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Bucket(bucket): Bucket,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let page = page(bucket, query.as_deref().unwrap_or_default())?;
    let listing = api.store.list(&page).await?;
    let last = listing.blobs.last().map(|blob| blob.key.clone());
    let blobs: Vec<_> = listing
        .blobs
        .iter()
        .map(|blob| {
            json!({
                "key": blob.key,
                "size": blob.size,
                "etag": blob.digest.map(|digest| digest.etag()),
                "modified": httpdate::fmt_http_date(blob.modified),
            })
        })
        .collect();
    Ok(Json(json!({
        "bucket": page.bucket,
        "blobs": blobs,
        "next": last.filter(|_| listing.more),
    })))
}

fn page(bucket: String, query: &str) -> Result<Page, Problem> {
    let mut page = Page {
        bucket,
        prefix: String::new(),
        after: String::new(),
        limit: USUAL,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| bad("a query must be UTF-8, percent-encoded"))?;
        if value.len() > Key::KEY_BYTES {
            return Err(bad("`prefix` and `after` have at most 1024 bytes"));
        }
        match name {
            "prefix" => page.prefix = value,
            "after" => page.after = value,
            "limit" => {
                let limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=MOST).contains(limit));
                page.limit = limit.ok_or_else(|| bad("`limit` is 1 to 1000"))?;
            }
            _ => return Err(bad("a listing knows `prefix`, `after` and `limit`")),
        }
    }
    Ok(page)
}

fn bad(why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, why)
}

/// A value of a query, as forms encode it. `None`: it is not UTF-8, or a percent sign stands alone.
fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_forms_write_it() {
        let page = page("b".into(), "prefix=a%2Fb+c&after=%C3%A4&limit=7").unwrap();
        assert_eq!(
            (page.prefix.as_str(), page.after.as_str(), page.limit),
            ("a/b c", "ä", 7)
        );
    }

    #[test]
    fn what_a_query_may_not_say_is_refused() {
        for query in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "prefix=%",
            "prefix=%+1",
            "after=%ff",
            "other=1",
        ] {
            assert!(page("b".into(), query).is_err(), "{query}");
        }
        assert!(page("b".into(), "limit=1000").is_ok());
    }
}
