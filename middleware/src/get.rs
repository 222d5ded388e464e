//! Services that only show something answer to `GET` and `HEAD`.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

/// What any other method hears (RFC 9110 section 15.5.6).
pub(crate) fn only_get<B>(request: &Request<B>) -> Option<Response<String>> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return None;
    }
    let mut response = Response::new("only GET and HEAD\n".to_owned());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    let allow = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(header::ALLOW, allow);
    Some(response)
}
