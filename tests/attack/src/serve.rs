//! The servers under attack: one axum `Router`, served by wharf or by `axum::serve`, so that what differs is the server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{DefaultBodyLimit, Path};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::make::Shared;
use wharf::{Http, Limits, Listener, Server, Tls};
use wharf_middleware::{AccessLog, ClientAddress, OverloadLayer, RateLimitLayer, TrustedProxies};

use crate::{Failure, identity};

/// What `wharf-attack serve` was asked for.
#[derive(Debug)]
struct Options {
    server: String,
    threads: usize,
    files: Option<u64>,
    port: u16,
    max_connections: Option<usize>,
    hurry: u32,
    shed: Option<String>,
    /// Speaks HTTP/2 too.
    http2: bool,
    /// Speaks TLS, with what is in that folder, and HTTP/2 too.
    tls: Option<String>,
    /// The service never becomes ready.
    never_ready: bool,
    /// Writes an access log, to standard error.
    log: bool,
    /// Believes proxies, and limits the rate of their clients.
    proxied: bool,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self {
            server: words.next().ok_or("serve what?")?,
            threads: 2,
            files: None,
            port: 0,
            max_connections: None,
            hurry: 1,
            shed: None,
            http2: false,
            tls: None,
            never_ready: false,
            log: false,
            proxied: false,
        };
        while let Some(option) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--threads" => options.threads = value.parse()?,
                "--files" => options.files = Some(value.parse()?),
                "--port" => options.port = value.parse()?,
                "--max-connections" => options.max_connections = Some(value.parse()?),
                "--hurry" => options.hurry = value.parse()?,
                "--shed" => options.shed = Some(value),
                "--http2" => options.http2 = value.parse()?,
                "--tls" => (options.tls, options.http2) = (Some(value), true),
                "--never-ready" => options.never_ready = value.parse()?,
                "--log" => options.log = value.parse()?,
                "--proxied" => options.proxied = value.parse()?,
                other => return Err(format!("no option of serve is called {other}").into()),
            }
        }
        Ok(options)
    }
}

/// Serves until it is told to stop.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options = Options::read(words)?;
    // Nobody is left behind if the attacker ends early.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: options.files.or(hard),
            maximum: hard,
        },
    )?;
    let runtime = match options.threads {
        1 => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
        threads => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    }?;
    runtime.block_on(async {
        match options.server.as_str() {
            "wharf" => wharf(options).await,
            "axum" => axum(options).await,
            "bare" => bare().await,
            other => Err(format!("no server is called {other}").into()),
        }
    })
}

async fn wharf(options: Options) -> Result<(), Failure> {
    let mut listeners = Listener::inherited()?;
    if listeners.is_empty() {
        listeners.push(Listener::tcp(SocketAddr::from((
            [127, 0, 0, 1],
            options.port,
        )))?);
    }
    let address = listeners[0].local().socket().ok_or("not TCP")?;
    let mut server = Server::new()
        .listen(listeners)?
        .on_accept_error(|error| eprintln!("accept: {error}"));
    if let Some(most) = options.max_connections {
        server = server.max_connections(most);
    }
    let mut http = Http::new().limits(hurried(options.hurry));
    let log = options
        .log
        .then(|| AccessLog::json().to_writer(std::io::stderr()));
    if let Some(log) = &log {
        http = http.on_refused(log.refused());
    }
    let app = match options.shed.as_deref() {
        None => logged(app(), log),
        Some("adaptive") => app().layer(OverloadLayer::adaptive()),
        Some(limit) => app().layer(OverloadLayer::limit(limit.parse()?)),
    };
    announce(address);
    let stack = ServiceBuilder::new();
    let report = match options.tls {
        Some(folder) => {
            let tls = Tls::from_pem_files(
                format!("{folder}/certificate.pem"),
                format!("{folder}/key.pem"),
            )?;
            let tls = tls
                .with_http2()?
                .timeout(Duration::from_secs(10) / options.hurry);
            let stack = stack.layer(tls).layer(http.with_http2());
            server.serve(stack.service(app)).await?
        }
        None if options.http2 => {
            let stack = stack.layer(http.with_http2());
            server.serve(stack.service(app)).await?
        }
        None if options.proxied => {
            let proxies = TrustedProxies::x_forwarded_for().trust(["127.0.0.1", "10.0.0.0/8"])?;
            let rate = RateLimitLayer::new(1_000_000, Duration::from_secs(1)).without_fields();
            let stack = stack.layer(http).layer(proxies).layer(rate);
            server.serve(stack.service(app)).await?
        }
        None if options.never_ready => server.serve(stack.layer(http).service(NeverReady)).await?,
        None => server.serve(stack.layer(http).service(app)).await?,
    };
    eprintln!("{report}");
    Ok(())
}

async fn axum(options: Options) -> Result<(), Failure> {
    let inherited = listenfd::ListenFd::from_env().take_tcp_listener(0)?;
    let socket = match inherited {
        Some(socket) => {
            socket.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(socket)?
        }
        None => tokio::net::TcpListener::bind(("127.0.0.1", options.port)).await?,
    };
    let address = socket.local_addr()?;
    let log = options
        .log
        .then(|| AccessLog::json().to_writer(std::io::stderr()));
    let app = match options.shed.as_deref() {
        None => logged(app(), log),
        Some(limit) => app().layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(|_| async {
                    StatusCode::SERVICE_UNAVAILABLE
                }))
                .load_shed()
                .layer(GlobalConcurrencyLimitLayer::new(limit.parse()?)),
        ),
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    announce(address);
    if options.never_ready {
        axum::serve(socket, Shared::new(NeverReady)).await?;
        return Ok(());
    }
    if options.http2 {
        return hyper_util(socket, app, options.tls.as_deref()).await;
    }
    axum::serve(socket, app)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}

/// axum as its users serve it where TLS, or both protocols on one port, is asked for: its own server has neither.
async fn hyper_util(
    socket: tokio::net::TcpListener,
    app: Router,
    tls: Option<&str>,
) -> Result<(), Failure> {
    let tls = tls
        .map(identity::server)
        .transpose()?
        .map(TlsAcceptor::from);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    loop {
        let (io, _) = socket.accept().await?;
        let (tls, builder) = (tls.clone(), builder.clone());
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            match tls {
                None => builder.serve_connection(TokioIo::new(io), service).await,
                Some(tls) => {
                    let io = TokioIo::new(tls.accept(io).await?);
                    builder.serve_connection(io, service).await
                }
            }
        });
    }
}

/// The least that can be called a server: no deadlines, no limits, one answer.
async fn bare() -> Result<(), Failure> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let socket = socket.listen(4096)?;
    announce(socket.local_addr()?);
    loop {
        let (mut io, _) = socket.accept().await?;
        tokio::spawn(async move {
            let mut head = Vec::with_capacity(1024);
            while let Ok(1..) = io.read_buf(&mut head).await {
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    let _ = io.write_all(ANSWER).await;
                }
            }
        });
    }
}

fn announce(address: SocketAddr) {
    println!("listening {address} as {}", std::process::id());
}

fn logged(app: Router, log: Option<AccessLog>) -> Router {
    match log {
        Some(log) => app.layer(log),
        None => app,
    }
}

/// A service that has no room, and never will.
#[derive(Clone)]
struct NeverReady;

impl<B> tower::Service<http::Request<B>> for NeverReady {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        std::future::pending()
    }
}

/// The defaults in a world that goes faster: where the time of a row is a deadline's, and nothing else.
pub(crate) fn hurried(by: u32) -> Limits {
    let usual = Limits::default();
    Limits {
        head_timeout: usual.head_timeout / by,
        idle_timeout: usual.idle_timeout / by,
        ready_timeout: usual.ready_timeout / by,
        stall_timeout: usual.stall_timeout / by,
        rate_grace: usual.rate_grace / by,
        drain_timeout: usual.drain_timeout / by,
        linger_idle_timeout: usual.linger_idle_timeout / by,
        linger_timeout: usual.linger_timeout / by,
        rate_floor: usual.rate_floor * by,
        ..usual
    }
}

/// Requests that somebody works on, `/live` itself excluded.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts as live for as long as it is held.
struct Alive;

impl Alive {
    fn new() -> Self {
        LIVE.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Relaxed);
    }
}

fn app() -> Router {
    // What the overload rows saturate: so many at a time, each for so long, whatever the processor does.
    let permits = Arc::new(Semaphore::new(WORKERS));
    let work = move || {
        let permits = permits.clone();
        async move {
            let _permit = permits.acquire().await;
            tokio::time::sleep(WORK).await;
            "done"
        }
    };
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/sleep/{millis}", get(sleep))
        .route(
            "/big/{bytes}",
            get(|Path(bytes): Path<u64>| async move { Body::new(Filler(bytes)) }),
        )
        .route("/echo", post(|body: Body| async move { body }))
        .route("/swallow", post(swallow))
        .route("/hash", post(hash))
        .route("/refuse", post(|| async { StatusCode::PAYLOAD_TOO_LARGE }))
        .route("/panic", get(panics))
        .route("/lie/{length}/{how}", get(lie))
        .route("/broken", get(broken))
        .route("/switch", get(|| async { StatusCode::SWITCHING_PROTOCOLS }))
        .route("/live", get(|| async { LIVE.load(Relaxed).to_string() }))
        .route(
            "/heap",
            get(|| async { crate::HEAP.allocated().to_string() }),
        )
        .route("/work", get(work))
        .route("/say/{place}/{text}", get(say))
        .route("/switch-to-echo", get(switch_to_echo).post(switch_to_echo))
        .route("/client", get(client))
        .layer(DefaultBodyLimit::disable())
}

/// The service of the overload rows does so many requests at a time.
pub(crate) const WORKERS: usize = 8;
/// Each takes so long.
pub(crate) const WORK: Duration = Duration::from_millis(10);

async fn sleep(Path(millis): Path<u64>) -> &'static str {
    let _alive = Alive::new();
    tokio::time::sleep(Duration::from_millis(millis)).await;
    "hello"
}

async fn panics() -> &'static str {
    if LIVE.load(Relaxed) < usize::MAX {
        // The default hook would fill the log.
        std::panic::resume_unwind(Box::new("as asked"));
    }
    ""
}

/// Passes on what it was given, if that can be said at all.
async fn say(Path((place, text)): Path<(String, String)>) -> Result<Response<Body>, StatusCode> {
    let unsayable = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let mut name = http::header::LOCATION;
    let mut value = HeaderValue::from_static("a");
    match place.as_str() {
        "name" => {
            name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| unsayable(()))?;
        }
        _ => value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| unsayable(()))?,
    }
    if place == "value" {
        name = HeaderName::from_static("x-said");
    }
    let mut response = Response::new(Body::from("hello"));
    response.headers_mut().insert(name, value);
    Ok(response)
}

/// Leaves HTTP, if that was offered, and repeats what it hears.
async fn switch_to_echo(mut request: axum::extract::Request) -> Response<Body> {
    if let Some(upgrade) = wharf::upgrade::on(&mut request) {
        tokio::spawn(async move {
            if let Ok(socket) = upgrade.await {
                echo(socket).await;
            }
        });
    } else if request
        .extensions()
        .get::<hyper::upgrade::OnUpgrade>()
        .is_some()
    {
        tokio::spawn(async move {
            if let Ok(socket) = hyper::upgrade::on(request).await {
                echo(TokioIo::new(socket)).await;
            }
        });
    } else {
        let _ = request.into_body().collect().await;
        return Response::new(Body::from("hello"));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static("echo"));
    response
}

async fn echo(socket: impl AsyncRead + AsyncWrite) {
    let (mut from, mut to) = tokio::io::split(socket);
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// Who asks, as far as that can be known.
async fn client(request: axum::extract::Request) -> String {
    let client = ClientAddress::of(&request);
    client.map_or_else(|| "?".to_owned(), |client| client.ip().to_string())
}

/// Declares another length than it writes.
async fn lie(Path((length, how)): Path<(u64, String)>) -> Response<Body> {
    let body = match how.as_str() {
        "known" => Body::from("hello"),
        _ => Body::from_stream(stream::iter([Ok::<_, Infallible>("hello")])),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// Breaks in the middle.
async fn broken() -> Body {
    let frames = stream::iter([Ok("hello"), Err(std::io::Error::other("as asked"))]);
    // Or the first frame would wait for the second.
    Body::from_stream(frames.then(|frame| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        frame
    }))
}

/// What the container says of a body that it gives up; 400 where it doesn't say.
fn refused(error: axum::Error) -> StatusCode {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(reject) = error.downcast_ref::<wharf::Reject>() {
            return reject.status();
        }
        cause = error.source();
    }
    StatusCode::BAD_REQUEST
}

/// Reads the whole body and says how long it was.
async fn swallow(mut body: Body) -> Result<String, StatusCode> {
    let _alive = Alive::new();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(refused)?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes.to_string())
}

async fn hash(mut body: Body) -> Result<String, StatusCode> {
    let _alive = Alive::new();
    let mut hash = Sha256::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(refused)?;
        if let Some(data) = frame.data_ref() {
            hash.update(data);
        }
    }
    Ok(hex(&hash.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// So many bytes, in frames of 64 KiB.
struct Filler(u64);

static FRAME: [u8; 64 * 1024] = [b'x'; 64 * 1024];

impl http_body::Body for Filler {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        let bytes = self.0.min(FRAME.len() as u64);
        self.0 -= bytes;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(
            &FRAME[..bytes as usize],
        )))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}
