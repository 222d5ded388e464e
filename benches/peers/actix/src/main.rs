//! actix-web with one worker. `peer-actix ADDRESS`.

use std::convert::Infallible;

use actix_web::web::{self, Bytes, Payload};
use actix_web::{App, HttpResponse, HttpServer};
use futures_util::{StreamExt, stream};

static PART: [u8; 64 * 1024] = [b'x'; 64 * 1024];

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).expect("usage: peer-actix ADDRESS");
    let app = || {
        App::new()
            .app_data(web::PayloadConfig::new(4 << 20))
            .route("/", web::get().to(|| async { "Hello, World!" }))
            .route("/json", web::get().to(json))
            .route("/echo", web::post().to(|body: Bytes| async { body }))
            .route("/upload", web::post().to(upload))
            .route("/down", web::get().to(down))
    };
    HttpServer::new(app).workers(1).bind(address)?.run().await
}

async fn json() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "message": "Hello, World!" }))
}

async fn upload(mut body: Payload) -> Result<String, actix_web::Error> {
    let mut length = 0;
    while let Some(part) = body.next().await {
        length += part?.len();
    }
    Ok(length.to_string())
}

async fn down() -> HttpResponse {
    let parts = stream::iter((0..160).map(|_| Ok::<_, Infallible>(Bytes::from_static(&PART))));
    HttpResponse::Ok().streaming(parts)
}
