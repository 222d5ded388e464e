//! wharf: with all that its server has on by default, and as little of it as there can be.

use std::time::Duration;

use tokio::net::TcpListener;
use tower::{Layer, service_fn};
use wharf::codec::Httparse;
use wharf::{Conn, ConnReport, Http, Limits, Server};

use crate::{BoxError, answers, over_axum};

/// Idle connections are measured by the thousand; none of them is to make room.
const CONNECTIONS: usize = 18_000;

/// The defaults, an account of each connection and refused request, and somebody who looks at the live view each second.
pub async fn full(listener: TcpListener) -> Result<(), BoxError> {
    let http = Http::new().on_refused(|refused| {
        std::hint::black_box(refused.status());
    });
    let server = Server::new()
        .listen(listener)?
        .max_connections(CONNECTIONS)
        .on_close(|report: &ConnReport| {
            std::hint::black_box(report.requests);
        });
    let handle = server.handle();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            std::hint::black_box(handle.connections());
        }
    });
    server
        .serve(http.layer(service_fn(answers::answer)))
        .await?;
    Ok(())
}

pub async fn httparse(listener: TcpListener) -> Result<(), BoxError> {
    let stack = Http::new()
        .codec(Httparse::new)
        .layer(service_fn(answers::answer));
    let server = Server::new().listen(listener)?.max_connections(CONNECTIONS);
    server.serve(stack).await?;
    Ok(())
}

/// No server around the connections, so no list of them, no reports, no limit of their number; and deadlines that are
/// never near. They can't be absent: no option of wharf switches a deadline or a limit off.
pub async fn bare(listener: TcpListener) -> Result<(), BoxError> {
    let far = Duration::from_secs(365 * 24 * 3600);
    let http = Http::new().limits(Limits {
        head_timeout: far,
        idle_timeout: far,
        ready_timeout: far,
        stall_timeout: far,
        rate_grace: far,
        rate_floor: 0,
        drain_timeout: far,
        linger_idle_timeout: far,
        linger_timeout: far,
        max_age: far,
        ..Limits::default()
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http.connection(Conn::from(stream), service_fn(answers::answer))?);
    }
}

pub async fn router(listener: TcpListener) -> Result<(), BoxError> {
    let server = Server::new().listen(listener)?.max_connections(CONNECTIONS);
    server.serve(Http::new().layer(over_axum::router())).await?;
    Ok(())
}

pub async fn per_core(address: &str, workers: usize) -> Result<(), BoxError> {
    let server = Server::new().bind(address)?.workers(workers);
    server
        .serve_per_core(|| Http::new().layer(service_fn(answers::answer)))
        .await?;
    Ok(())
}
