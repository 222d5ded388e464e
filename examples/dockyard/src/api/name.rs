//! From a path to the name of a blob: the one place that knows which routes stand for which bucket.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams};
use http::StatusCode;
use http::request::Parts;

use super::Problem;
use crate::store::{Digest, Key, check_bucket};

/// The name of the blob that a request is about.
pub(super) struct Name {
    pub(super) key: Key,
    /// The content that it must have, where the name says so.
    pub(super) content: Option<Digest>,
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(unreadable)?;
        let param = |name| {
            params
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let route = parts
            .extensions
            .get::<MatchedPath>()
            .map_or("", MatchedPath::as_str);
        if let Some(hash) = param("hash") {
            let content = Digest::parse(hash).ok_or_else(not_a_hash)?;
            let bucket = route.trim_start_matches('/').split('/').next();
            return Ok(Self {
                key: Key::new(bucket.unwrap_or_default(), &content.to_string())?,
                content: route.starts_with("/cas/").then_some(content),
            });
        }
        let bucket = param("bucket").unwrap_or("cache");
        Ok(Self {
            key: Key::new(bucket, param("key").unwrap_or_default())?,
            content: None,
        })
    }
}

/// The bucket that a request is about.
pub(super) struct Bucket(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Bucket {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(unreadable)?;
        let bucket = params.iter().find(|(key, _)| *key == "bucket");
        let bucket = bucket.map_or("", |(_, value)| value);
        check_bucket(bucket)?;
        Ok(Self(bucket.to_owned()))
    }
}

fn unreadable(_: RawPathParamsRejection) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "the path must be UTF-8, percent-encoded",
    )
}

fn not_a_hash() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "the name must be a SHA-256 in 64 hexadecimal digits",
    )
}
