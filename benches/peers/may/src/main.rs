//! may_minihttp with one worker: no `http` types, sixteen header fields at most, no streams. `peer-may ADDRESS`.

use std::io::{self, Read};

use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Answers;

impl HttpService for Answers {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        match request.path() {
            "/json" => {
                response.header("content-type: application/json");
                let json = serde_json::json!({ "message": "Hello, World!" });
                response.body_vec(serde_json::to_vec(&json)?);
            }
            "/echo" => {
                let mut body = Vec::new();
                request.body().read_to_end(&mut body)?;
                response.header("content-type: text/plain");
                response.body_vec(body);
            }
            _ => {
                response.header("content-type: text/plain");
                response.body("Hello, World!");
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).expect("usage: peer-may ADDRESS");
    may::config().set_workers(1);
    let server = HttpServer(Answers).start(address)?;
    let _ = server.join();
    Ok(())
}
