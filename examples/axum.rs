//! An axum `Router` on wharf, unchanged: where there was `axum::serve`, there is `wharf::serve`.
//!
//! ```text
//! cargo run --release --example axum
//! curl http://127.0.0.1:8888/hello/sailor
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};

#[tokio::main]
async fn main() -> Result<(), wharf::Error> {
    let app = Router::new()
        .route("/", get(|| async { "hello\n" }))
        .route("/hello/{name}", get(hello))
        .route("/sum", post(sum))
        .with_state(Arc::new(AtomicU64::new(0)));

    println!("listening on http://127.0.0.1:8888");
    let report = wharf::serve("127.0.0.1:8888", app).await?;
    println!("{report}");
    Ok(())
}

async fn hello(Path(name): Path<String>, State(visits): State<Arc<AtomicU64>>) -> String {
    let visit = visits.fetch_add(1, Relaxed) + 1;
    format!("hello {name}, you are visitor {visit}\n")
}

async fn sum(Json(numbers): Json<Vec<f64>>) -> Json<f64> {
    Json(numbers.iter().sum())
}
