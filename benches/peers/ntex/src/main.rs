//! ntex on tokio with one worker. `peer-ntex ADDRESS`.

use futures_util::{StreamExt, stream};
use ntex::util::Bytes;
use ntex::web::types::{Payload, PayloadConfig};
use ntex::web::{self, App, HttpResponse};

static PART: [u8; 64 * 1024] = [b'x'; 64 * 1024];

#[ntex::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).expect("usage: peer-ntex ADDRESS");
    let app = async || {
        App::new()
            .state(PayloadConfig::new(4 << 20))
            .route("/", web::get().to(async || "Hello, World!"))
            .route("/json", web::get().to(json))
            .route("/echo", web::post().to(echo))
            .route("/upload", web::post().to(upload))
            .route("/down", web::get().to(down))
    };
    web::server(app).workers(1).bind(address)?.run().await
}

async fn json() -> HttpResponse {
    HttpResponse::Ok().json(&serde_json::json!({ "message": "Hello, World!" }))
}

async fn echo(body: Bytes) -> HttpResponse {
    HttpResponse::Ok().body(body)
}

async fn upload(mut body: Payload) -> Result<String, web::error::PayloadError> {
    let mut length = 0;
    while let Some(part) = body.next().await {
        length += part?.len();
    }
    Ok(length.to_string())
}

async fn down() -> HttpResponse {
    let parts = (0..160).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&PART)));
    HttpResponse::Ok().streaming(stream::iter(parts))
}
