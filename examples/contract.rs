//! The service that conformance, fault and load tools talk to: every way a handler can behave, well or badly.
//!
//! ```text
//! PORT=8888 cargo run --release --example contract
//! ```
//!
//! `CODEC=httparse` switches the parser, `WORKERS=n` the number of threads, `RUNTIME=local` gives each of them a runtime of
//! its own; `TERM` drains, a second one cuts. Built with the feature `http2` it speaks HTTP/2 too, by prior knowledge; built
//! with `tls`, `TLS=1` puts TLS below, with a development certificate for `localhost`:
//!
//! ```text
//! TLS=1 cargo run --release --example contract --features http2,tls
//! curl --cacert PATH-IT-PRINTS https://localhost:8888/plaintext
//!
//! cargo run --release --example contract --features http2
//! curl --http2-prior-knowledge http://localhost:8888/plaintext    # `--http2` alone stays with HTTP/1
//! ```
//!
//! What is sent here is fixed: tools compare it byte by byte.

use std::iter::repeat_n;
use std::process::exit;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, SERVER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tower::{Service, ServiceBuilder, service_fn};
use wharf::codec::Httparse;
use wharf::{Body, BoxError, Conn, ConnReport, Http, Listener, Report, Server, Stream};

type Result<T, E = BoxError> = std::result::Result<T, E>;

/// Each route of the contract; what is not here is 404.
pub(crate) async fn answer(request: Request<Body>) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let (route, argument) = path
        .rsplit_once('/')
        .and_then(|(route, last)| Some((route, Some(last.parse().ok()?))))
        .unwrap_or((path, None));
    let get = [Method::GET, Method::HEAD].contains(&parts.method);
    let post = [Method::POST, Method::HEAD].contains(&parts.method);

    Ok(match (route, argument) {
        ("/", None) if get => Response::new(Body::from("The contract service of wharf.\n")),
        ("/plaintext", None) if get => plaintext(),
        ("/json", None) if get => json()?,
        ("/chunked", None) if get => Response::new(stream([data("first\n"), data("second\n")])),
        ("/big", None) if get => Response::new(stream(repeat_n(PIECE, 160).map(Ok))),
        ("/bytes", Some(count)) if get => bytes(count),
        ("/sleep", Some(millis)) if get => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Response::new(Body::from("slept\n"))
        }
        ("/status", Some(code)) if get => status(code),
        ("/panic", None) if get => panic!("this is the route that panics"),
        ("/short", None) if get => declaring(100, stream([data("short")])),
        ("/long", None) if get => declaring(2, stream([data("too long")])),
        ("/cut", None) if get => Response::new(stream([data("the first half"), Err("cut".into())])),
        ("/echo", None) if post => Response::new(body),
        ("/refuse", None) if post => plain(StatusCode::PAYLOAD_TOO_LARGE, "I read none of it.\n"),
        ("/sha256", None) if post => sha256(body).await?,
        _ => plain(StatusCode::NOT_FOUND, "There is nothing here.\n"),
    })
}

fn plaintext() -> Response<Body> {
    let mut response = plain(StatusCode::OK, "Hello, World!");
    response.headers_mut().insert(SERVER, WHARF);
    response
}

fn json() -> Result<Response<Body>> {
    #[derive(Serialize)]
    struct Hello {
        message: &'static str,
    }
    let text = serde_json::to_vec(&Hello {
        message: "Hello, World!",
    })?;
    let mut response = Response::new(Body::from(text));
    let fields = response.headers_mut();
    fields.insert(SERVER, WHARF);
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// `count` bytes of a known length, a piece at a time.
fn bytes(count: u64) -> Response<Body> {
    let size = PIECE.len() as u64;
    let pieces = (0..count.div_ceil(size)).map(move |at| {
        let left = count - at * size;
        Ok(PIECE.slice(..left.min(size) as usize))
    });
    declaring(count, stream(pieces))
}

/// Answers with any status at all, and always tries to send a body: where HTTP forbids one, the container must see to it.
fn status(code: u64) -> Response<Body> {
    let code = u16::try_from(code).ok();
    match code.and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(status) => plain(status, "x"),
        None => plain(
            StatusCode::NOT_FOUND,
            "A status is a number from 100 to 999.\n",
        ),
    }
}

async fn sha256(mut body: Body) -> Result<Response<Body>> {
    let mut digest = Sha256::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            digest.update(data);
        }
    }
    let hex: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Response::new(Body::from(hex)))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A response that says how long it is, whether or not it is true.
fn declaring(length: u64, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// A body of unknown length, from its pieces.
fn stream<I>(pieces: I) -> Body
where
    I: IntoIterator<Item = Result<Bytes>>,
    I::IntoIter: Send + Sync + Unpin + 'static,
{
    Body::new(Pieces(pieces.into_iter()))
}

fn data(text: &'static str) -> Result<Bytes> {
    Ok(Bytes::from_static(text.as_bytes()))
}

struct Pieces<I>(I);

impl<I: Iterator<Item = Result<Bytes>> + Unpin> http_body::Body for Pieces<I> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>>>> {
        let next = self.0.next();
        std::task::Poll::Ready(next.map(|piece| piece.map(http_body::Frame::data)))
    }
}

const WHARF: HeaderValue = HeaderValue::from_static("wharf");
const PIECE: Bytes = Bytes::from_static(&[b'.'; 64 * 1024]);

fn main() {
    let workers = setting("WORKERS", "a number of threads from 1 to 1024", |text| {
        text.parse().ok().filter(|n| (1..=1024).contains(n))
    });
    let port = setting("PORT", "a port", |text| text.parse::<u16>().ok());
    let codec = setting("CODEC", "`strict` or `httparse`", |text| match text {
        "strict" => Some(false),
        "httparse" => Some(true),
        _ => None,
    });
    let runtime = setting("RUNTIME", "`shared` or `local`", |text| match text {
        "shared" => Some(false),
        "local" => Some(true),
        _ => None,
    });

    let tls = setting("TLS", "`1` or `0`", |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    });
    if tls == Some(true) && !cfg!(feature = "tls") {
        fail("TLS=1 needs the feature `tls`: build with --features http2,tls");
    }

    let (httparse, local) = (codec.unwrap_or(false), runtime.unwrap_or(false));

    let mut server = Server::new();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = workers {
        server = server.workers(workers);
        runtime.worker_threads(workers);
    }
    if local {
        // The runtimes that serve are the server's own.
        runtime.worker_threads(1);
    }
    let outcome = match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(run(
            server,
            port.unwrap_or(8888),
            httparse,
            local,
            tls.unwrap_or(false),
        )),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = outcome {
        fail(error);
    }
}

async fn run(server: Server, port: u16, httparse: bool, local: bool, tls: bool) -> Result<()> {
    let listener = Listener::tcp(format!("127.0.0.1:{port}"))?;
    let scheme = if tls { "https" } else { "http" };
    println!("listening on {scheme}://{}", listener.local());
    let server = server.listen(listener)?;

    let tls = tls.then(development::tls).transpose()?;
    let app = ServiceBuilder::new().option_layer(tls);
    let report = if httparse {
        let http = protocols(Http::new().codec(Httparse::new));
        serve(server, local, app.layer(http).service(service_fn(answer))).await?
    } else {
        let http = protocols(Http::new());
        serve(server, local, app.layer(http).service(service_fn(answer))).await?
    };
    println!("{report}");
    Ok(())
}

#[cfg(feature = "http2")]
fn protocols<M>(http: Http<M>) -> wharf::WithHttp2<M> {
    http.with_http2()
}

#[cfg(not(feature = "http2"))]
fn protocols<M>(http: Http<M>) -> Http<M> {
    http
}

#[cfg(feature = "tls")]
mod development {
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use wharf::Tls;

    /// TLS with a certificate that nobody trusts but whoever is told to: its path is printed.
    pub(super) fn tls() -> super::Result<Tls> {
        let _ = default_provider().install_default();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        let folder = std::env::temp_dir().join(format!("wharf-contract-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let path = certificate.display();
        println!("its certificate is in {path} and for localhost: curl --cacert {path}");
        let tls = Tls::from_pem_files(&certificate, &key)?;
        #[cfg(feature = "http2")]
        let tls = tls.with_http2()?;
        Ok(tls)
    }
}

#[cfg(not(feature = "tls"))]
mod development {
    pub(super) fn tls() -> super::Result<tower::layer::util::Identity> {
        Err("TLS=1 needs the feature `tls`".into())
    }
}

/// One stack, and either way of running it.
async fn serve<S>(server: Server, local: bool, stack: S) -> Result<Report, wharf::Error>
where
    S: Service<Conn<Stream>, Response = ConnReport, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    if local {
        server.serve_per_core(move || stack.clone()).await
    } else {
        server.serve(stack).await
    }
}

/// An environment variable, if it is set; ends the process with a sentence if it has no meaning.
fn setting<T>(name: &str, wanted: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = parse(&text);
    if value.is_none() {
        fail(format!("{name} must be {wanted}, not `{text}`"));
    }
    value
}

fn fail(why: impl std::fmt::Display) -> ! {
    eprintln!("contract: {why}");
    exit(2)
}
