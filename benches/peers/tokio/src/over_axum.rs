//! An axum application, on `axum::serve` here and on wharf there.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::{BoxError, answers};

pub async fn serve(listener: TcpListener) -> Result<(), BoxError> {
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router()).await?;
    Ok(())
}

pub fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "Hello, World!" }))
        .route("/json", get(json))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/upload", post(upload))
        .route("/down", get(|| async { Body::new(answers::Parts::all()) }))
        .layer(DefaultBodyLimit::disable())
}

async fn json() -> Result<impl IntoResponse, StatusCode> {
    let json = answers::json().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, "application/json")], json))
}

async fn upload(body: Body) -> Result<String, StatusCode> {
    let length = answers::length(body).await;
    length
        .map(|length| length.to_string())
        .map_err(|_| StatusCode::BAD_REQUEST)
}
