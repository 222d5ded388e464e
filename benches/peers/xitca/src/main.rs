//! xitca-web with one worker. `peer-xitca ADDRESS`.

use xitca_web::App;
use xitca_web::body::ResponseBody;
use xitca_web::bytes::Bytes;
use xitca_web::handler::handler_service;
use xitca_web::http::WebResponse;
use xitca_web::http::header::{CONTENT_TYPE, HeaderValue};
use xitca_web::route::{get, post};

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).expect("usage: peer-xitca ADDRESS");
    App::new()
        .at("/", get(handler_service(async || "Hello, World!")))
        .at("/json", get(handler_service(json)))
        .at("/echo", post(handler_service(async |body: Vec<u8>| body)))
        .serve()
        .worker_threads(1)
        .bind(address)?
        .run()
        .wait()
}

async fn json() -> WebResponse {
    let json = serde_json::json!({ "message": "Hello, World!" }).to_string();
    let mut response = WebResponse::new(ResponseBody::bytes(Bytes::from(json)));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
