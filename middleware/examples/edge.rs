//! A service as it stands at the edge: probes, metrics, an access log that is rotated, limits and time-outs.
//!
//! ```text
//! cargo run --release -p wharf-middleware --example edge
//! curl http://127.0.0.1:8888/
//! curl http://127.0.0.1:9999/metrics
//! mv access.log access.log.1 && kill -HUP $(pidof edge)     # goes on in a new access.log
//! kill $(pidof edge); curl http://127.0.0.1:9999/readyz     # not ready: lame duck
//! ```
//!
//! Arguments, in this order, all optional: where the service listens, where its operators ask, the path of the log, and for how
//! many seconds it still accepts when it was told to stop.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::Router;
use http::{Request, Response};
use tokio::signal::unix::{SignalKind, signal};
use tower::{ServiceBuilder, service_fn};
use wharf::{Body, BoxError, Http, Listener, Server, Shutdown};
use wharf_middleware::{
    AccessLog, Health, KeepAlive, Metrics, OverloadLayer, RateLimitLayer, Timeout,
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let service = Listener::tcp(argument("127.0.0.1:8888"))?;
    let operators = Listener::tcp(argument("127.0.0.1:9999"))?;
    let log = AccessLog::json().to_file(argument("access.log"))?;
    let lame_duck = Duration::from_secs(argument("5").parse()?);
    println!("listening on http://{}", service.local());
    println!(
        "/readyz, /livez and /metrics on http://{}",
        operators.local()
    );

    // A balancer learns from /readyz that it has to look elsewhere, and needs time for that.
    let shutdown = Shutdown::on_signals().lame_duck(lame_duck);
    let server = Server::new().listen(service)?.shutdown(shutdown);
    let overload = OverloadLayer::adaptive();
    let health = Health::new()
        .follow(server.handle())
        .check("disk", Duration::from_millis(300), disk)
        .on_failure(|name, failure| eprintln!("check {name}: {failure}"));
    let (load, lines) = (overload.clone(), log.clone());
    let metrics = Metrics::new()
        .follow(server.handle())
        .counter("overload_refused_total", "Answered with 503.", move || {
            load.load().refused
        })
        .counter(
            "access_log_dropped_total",
            "Lines without room.",
            move || lines.dropped(),
        );

    // Operators have a server of their own: it answers while the other one drains, and it is nobody else's business.
    let admin = Router::new()
        .route_service("/readyz", health.readiness())
        .route_service("/livez", health.liveness())
        .route_service("/metrics", metrics.page());
    let admin = wharf::serve(operators, admin).with_graceful_shutdown(std::future::pending());
    tokio::spawn(async { admin.await.map_err(|error| eprintln!("{error}")) });
    tokio::spawn(rotate(log.clone()));

    let stack = ServiceBuilder::new()
        .layer(Http::new().on_refused(log.refused()))
        // Probes on the service's own port: outside of all that counts, logs or limits.
        .layer(health)
        .layer(metrics)
        .layer(log)
        .layer(KeepAlive::new().max_requests(10_000).jitter(0.1))
        .layer(RateLimitLayer::new(1_000, Duration::from_secs(1)))
        .layer(overload)
        .layer(
            Timeout::new()
                .handler(Duration::from_secs(10))
                .gap(Duration::from_secs(30)),
        )
        .service(service_fn(greet));
    println!("{}", server.serve(stack).await?);
    Ok(())
}

async fn greet(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let line = format!("You asked for {}.\n", request.uri().path());
    Ok(Response::new(Body::from(line)))
}

/// Something that the service can't do without.
async fn disk() -> io::Result<()> {
    tokio::fs::metadata(".").await.map(drop)
}

/// SIGHUP says that the log was moved away.
async fn rotate(log: AccessLog) -> io::Result<()> {
    let mut hang_up = signal(SignalKind::hangup())?;
    while hang_up.recv().await.is_some() {
        match log.reopen() {
            Ok(()) => println!("the access log is opened anew"),
            Err(error) => eprintln!("the access log stays where it is: {error}"),
        }
    }
    Ok(())
}
