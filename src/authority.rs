//! Whom a request is for, whichever version of HTTP says it.

use http::Request;
use http::header::HOST;

/// The host, and perhaps the port, that a request is for: of the target if it has one, as in HTTP/2 (`:authority`) and in
/// the absolute form of HTTP/1.1, else of `Host` (RFC 9110 section 7.2).
///
/// On wharf it is `None` only for a request of HTTP/1.0, and empty only where a client of HTTP/1.1 said so; it never has
/// user information.
///
/// ```
/// use http::Request;
///
/// let http2 = Request::get("https://a.example/").body(())?;
/// let http1 = Request::get("/").header("host", "a.example").body(())?;
/// assert_eq!(wharf::authority(&http2), Some("a.example"));
/// assert_eq!(wharf::authority(&http1), Some("a.example"));
/// # Ok::<_, http::Error>(())
/// ```
pub fn authority<B>(request: &Request<B>) -> Option<&str> {
    let host = || request.headers().get(HOST)?.to_str().ok();
    let target = request.uri().authority();
    target.map(|authority| authority.as_str()).or_else(host)
}
