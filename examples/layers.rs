//! One stack from socket to handler: below `Http` a layer sees connections, above it requests.
//!
//! ```text
//! RUST_LOG=tower_http=debug cargo run --release --example layers
//! curl http://127.0.0.1:8888/ --compressed -v
//! ```
//!
//! Every layer here is tower's or tower-http's own, unchanged. Read the stack from top to bottom: that is the way a
//! request takes, and the response comes back up.

use std::time::Duration;

use http::{Request, Response};
use tower::{ServiceBuilder, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::trace::TraceLayer;
use tracing_subscriber::EnvFilter;
use wharf::{Body, BoxError, ConnReport, Http, Limits, Reject, Server};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();

    let limits = Limits {
        header_fields: 64,
        idle_timeout: Duration::from_secs(20),
        ..Limits::default()
    };
    let stack = ServiceBuilder::new()
        // Connections. At most this many are open; while they are, nothing is accepted.
        .concurrency_limit(10_000)
        // Here connections become requests. A broken request is answered in our own words.
        .layer(Http::new().limits(limits).on_reject(refused))
        // Requests. The outer layers see everything that the inner ones do.
        .layer(TraceLayer::new_for_http())
        .layer(CompressionLayer::new())
        // What takes longer is answered with 503 ...
        .timeout(Duration::from_secs(10))
        // ... and so is what finds all 512 places taken, at once.
        .load_shed()
        .concurrency_limit(512)
        .service(service_fn(greet));

    let server = Server::new()
        .bind("127.0.0.1:8888")?
        .on_close(|report: &ConnReport| tracing::info!("{report}"));
    println!("listening on http://127.0.0.1:8888");

    let report = server.serve(stack).await?;
    println!("{report}");
    Ok(())
}

async fn greet(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let line = format!("You asked for {}.\n", request.uri().path());
    Ok(Response::new(Body::from(line.repeat(100))))
}

fn refused(reject: &Reject) -> Response<String> {
    let mut response = Response::new(format!("Sorry: {}.\n", reject.explain()));
    *response.status_mut() = reject.status();
    response
}
