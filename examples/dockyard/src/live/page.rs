//! The page's routes: the page itself, its frames, one connection, and the controls. Controls are for whoever sits at
//! this machine, and for requests that this page itself makes.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::request::Parts;
use http::{StatusCode, header};
use serde_json::{Value, json};
use wharf::ConnInfo;
use wharf_middleware::sse::Sse;

use super::Live;
use super::frame::{self, Connection};
use super::viewer::Viewer;
use crate::api::Problem;

const PAGE: &str = include_str!("page.html");
/// The page is its own only source: nothing else may be loaded, run or asked.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The field by which the page shows that it is the page.
const TOKEN: &str = "x-dockyard-token";
/// How long the page waits before it comes back.
const RETRY: Duration = Duration::from_secs(1);

/// The page, and what it asks for.
pub fn routes(live: Live) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/live", get(frames))
        .route("/live/connections/{id}", get(connection))
        .route("/live/connections/{id}/close", post(close))
        .route("/live/drain", post(drain))
        .with_state(live)
}

async fn page() -> Response {
    let fields = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (fields, PAGE).into_response()
}

async fn frames(State(live): State<Live>, asked: Parts) -> Response {
    let shared = live.shared;
    let may_control = shared.watched.controls && is_at_home(&asked);
    let hello = frame::hello(&shared, may_control.then_some(token()));
    let connection = asked.extensions.get().map_or(0, |info: &ConnInfo| info.id);
    let events = Sse::new(Viewer::new(shared, connection, hello)).retry(RETRY);
    events.into_response().map(Body::new)
}

async fn connection(State(live): State<Live>, Path(id): Path<u64>) -> Result<Json<Value>, Problem> {
    let views = live.shared.watched.handle.connections();
    let view = views.iter().find(|view| view.info.id == id);
    let view = view.ok_or_else(|| gone(id))?;
    let (lines, _) = live.shared.watched.lines.since(0);
    let of_it = format!("\"connection\":{id},");
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| line.get().contains(&of_it))
        .collect();
    Ok(Json(
        json!({ "connection": Connection::from(view), "lines": lines }),
    ))
}

async fn close(
    State(live): State<Live>,
    Path(id): Path<u64>,
    _allowed: Allowed,
) -> Result<StatusCode, Problem> {
    let closed = live.shared.watched.handle.close(id);
    closed
        .then_some(StatusCode::ACCEPTED)
        .ok_or_else(|| gone(id))
}

async fn drain(State(live): State<Live>, _allowed: Allowed) -> StatusCode {
    live.shared.watched.handle.stop();
    StatusCode::ACCEPTED
}

fn gone(id: u64) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("connection {id} is not open"),
    )
}

/// A request that may do something to the server.
struct Allowed;

impl FromRequestParts<Live> for Allowed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, live: &Live) -> Result<Self, Problem> {
        let shows = parts
            .headers
            .get(TOKEN)
            .is_some_and(|shown| shown == token());
        if live.shared.watched.controls && is_at_home(parts) && shows {
            return Ok(Self);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "only the page itself can do this, in a browser on this machine and without a proxy",
        ))
    }
}

/// Whether a request comes from this machine, without a proxy, and to a name that only this machine has: another
/// site's name that leads here is none.
fn is_at_home(asked: &Parts) -> bool {
    let fields = &asked.headers;
    let info = asked.extensions.get::<ConnInfo>();
    let peer = info.and_then(|info| info.peer.socket());
    let is_near = peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let is_passed_on = ["forwarded", "x-forwarded-for", "via"];
    let is_passed_on = is_passed_on.iter().any(|name| fields.contains_key(*name));
    let host = || fields.get(header::HOST)?.to_str().ok();
    // HTTP/2 has it in the target.
    let authority = asked.uri.authority().map(|authority| authority.as_str());
    is_near && !is_passed_on && authority.or_else(host).is_some_and(names_this_machine)
}

fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Known to this process and to the pages it has given out.
fn token() -> &'static str {
    static TOKEN: LazyLock<String> = LazyLock::new(|| {
        let random = RandomState::new();
        format!("{:016x}{:016x}", random.hash_one(1), random.hash_one(2))
    });
    &TOKEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_told_from_others() {
        for host in [
            "localhost",
            "localhost:8888",
            "127.0.0.1:8888",
            "[::1]:8888",
            "[::1]",
        ] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:8888",
            "localhost.evil.example",
            "10.0.0.1",
            "",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
    }

    #[test]
    fn the_page_is_small_and_fetches_nothing_from_elsewhere() {
        assert!(PAGE.len() <= 60 * 1024, "{}", PAGE.len());
        for elsewhere in ["http://", "https://", "src=\"/", "@import", "url("] {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
    }
}
