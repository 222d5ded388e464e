//! An echo service, and the first thing to run:
//!
//! ```text
//! cargo run --release --example echo
//! curl http://127.0.0.1:8888/
//! curl http://127.0.0.1:8888/ --data 'ahoy'
//! ```
//!
//! A request's body comes back while it is still arriving. Ctrl-C lets running requests finish, then prints the report.

use std::net::SocketAddr;
use std::process::exit;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use tower::{ServiceBuilder, service_fn};
use wharf::{Body, BoxError, ConnReport, Http, Listener, Server};

const HELP: &str = "\
Echoes what it is sent.

usage: echo [ADDRESS] [--port N] [--debug] [--local]

  ADDRESS   where to listen, 127.0.0.1:8888 unless told
  --port N  the same with another port
  --debug   a line on stderr for each request and for each connection's end
  --local   one runtime a core instead of one for all
  --help    this text";

const FRIENDLY: &str = "This is wharf's echo service: send me a body and it comes back.

  curl http://127.0.0.1:8888/ --data 'ahoy'
";

#[tokio::main]
async fn main() {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(sentence) => {
            eprintln!("echo: {sentence}\n\n{HELP}");
            exit(2);
        }
    };
    if let Err(error) = run(options).await {
        eprintln!("echo: {error}");
        exit(1);
    }
}

async fn run(options: Options) -> Result<(), BoxError> {
    let debug = options.debug;

    // Below `Http` there are connections, above it there are requests. Both are tower services.
    let stack = move || {
        ServiceBuilder::new()
            .layer(Http::new())
            .service(service_fn(move |request| async move {
                if debug {
                    log_request(&request);
                }
                echo(request)
            }))
    };

    let listener = Listener::tcp(options.address)?;
    println!("listening on http://{}", listener.local());
    let server = Server::new()
        .listen(listener)?
        .on_close(move |report: &ConnReport| {
            if debug {
                eprintln!("{report}");
            }
        });
    // Either way it is the same stack; one that isn't `Send` works with the first.
    let report = if options.local {
        server.serve_per_core(stack).await?
    } else {
        server.serve(stack()).await?
    };
    println!("{report}");
    Ok(())
}

fn echo(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(text(FRIENDLY));
    }
    // The request's body is the response's body: it is pulled as fast as the client takes it back.
    let mut response = Response::new(body);
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    Ok(response)
}

fn text(content: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(content));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn log_request(request: &Request<Body>) {
    let connection = wharf::ConnInfo::of(request).map_or(0, |info| info.id);
    let (method, uri) = (request.method(), request.uri());
    eprintln!("connection {connection}: {method} {uri}");
}

struct Options {
    address: SocketAddr,
    debug: bool,
    local: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8888)),
            debug: false,
            local: false,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => {
                    println!("{HELP}");
                    exit(0);
                }
                "--debug" => options.debug = true,
                "--local" => options.local = true,
                "--port" => {
                    let port = arguments.next().ok_or("--port wants a number")?;
                    let port = port.parse().map_err(|_| {
                        format!("--port wants a number from 0 to 65535, not `{port}`")
                    })?;
                    options.address.set_port(port);
                }
                flag if flag.starts_with('-') => {
                    return Err(format!("there is no option `{flag}`"));
                }
                address => {
                    options.address = address.parse().map_err(|_| {
                        format!("`{address}` is not an address like 127.0.0.1:8888")
                    })?;
                }
            }
        }
        Ok(options)
    }
}
