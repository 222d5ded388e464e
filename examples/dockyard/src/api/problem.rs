//! A refusal that says what to do, as `application/problem+json` (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use wharf::error::status_of;
use wharf::{BoxError, Reject};

use crate::store::{BadKey, StoreError};

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    /// With a sentence for whoever asked.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, detail }
    }

    /// The bytes of any refusal, for those that no handler makes.
    pub fn json(status: StatusCode, detail: &str) -> String {
        let title = status.canonical_reason().unwrap_or("Refused");
        json!({ "status": status.as_u16(), "title": title, "detail": detail }).to_string()
    }
}

/// What a request is answered with that no handler saw.
pub fn refused(reject: &Reject) -> http::Response<String> {
    plain(reject.status(), reject.explain())
}

/// What a request is answered with whose service failed.
pub fn failed(error: &BoxError) -> http::Response<String> {
    let status = status_of(error);
    let detail = match status {
        StatusCode::SERVICE_UNAVAILABLE => "the server has too much to do, try again later",
        _ => "the server failed to answer this request",
    };
    plain(status, detail)
}

fn plain(status: StatusCode, detail: &str) -> http::Response<String> {
    let mut response = http::Response::new(Problem::json(status, detail));
    *response.status_mut() = status;
    decorate(status, response.headers_mut());
    response
}

fn decorate(status: StatusCode, fields: &mut HeaderMap) {
    let json = HeaderValue::from_static("application/problem+json");
    fields.insert(header::CONTENT_TYPE, json);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        plain(self.status, &self.detail).map(Into::into)
    }
}

impl From<BadKey> for Problem {
    fn from(bad: BadKey) -> Self {
        Self::new(StatusCode::BAD_REQUEST, bad.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::NotMet => StatusCode::PRECONDITION_FAILED,
            StoreError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            StoreError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}
