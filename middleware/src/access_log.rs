//! An access log: one line for each request, when its response's body has ended.
//!
//! A line that is written when the head goes out can't know how many bytes followed, how long that took, or whether the
//! client stayed to the end. [`AccessLog`] waits for the end of the body, also for one that is dropped midway, and says
//! how it ended: `complete`, `aborted` (dropped before its end: the client went away, or a layer around this one gave
//! up), `error` (of the service or of the body), `panicked`, `refused`. Complete means that the server has all of it; what
//! it has sent of that when the connection breaks, the connection's report says.
//!
//! ```
//! use http::{Request, Response};
//! use tower::ServiceBuilder;
//! use wharf::{Body, BoxError, Http};
//! use wharf_middleware::AccessLog;
//!
//! async fn hello(_: Request<Body>) -> Result<Response<Body>, BoxError> {
//!     Ok(Response::new(Body::from("hello")))
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! # let directory = std::env::temp_dir().join(format!("wharf-access-log-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let path = directory.join("access.log");
//! let log = AccessLog::json().to_file(&path)?;
//! let stack = ServiceBuilder::new()
//!     .layer(Http::new().on_refused(log.refused()))   // requests that no handler saw
//!     .layer(log.clone())
//!     .service_fn(hello);
//! # let _ = |conn: wharf::Conn<tokio::io::DuplexStream>| tower::ServiceExt::oneshot(stack, conn);
//! # std::fs::remove_dir_all(directory)
//! # }
//! ```
//!
//! ```text
//! 203.0.113.7 - - [24/Nov/2026:04:01:59 +0000] "GET /?token=*** HTTP/1.1" 200 5 "-" "curl/8.14.1"
//! {"time":"2026-11-24T04:01:59.250Z","client":"203.0.113.7","connection":17,"request":3,"method":"GET","target":"/?token=***",
//!  "version":"HTTP/1.1","host":"a.example","status":200,"bytes":5,"first_byte_us":312,"duration_us":344,"ended":"complete",
//!  "user_agent":"curl/8.14.1"}
//! ```
//!
//! (On one line; what isn't known is left out.) [Common](AccessLog::common) and [Combined](AccessLog::combined) are the
//! formats that every tool reads; they have no word for the end, the connection or the times, [JSON](AccessLog::json)
//! has. The time is when the request was read. `client` is what [`ClientAddress::of`] says, so put
//! [`TrustedProxies`](crate::TrustedProxies) around this layer; under another server than wharf, one that trusts nobody
//! and knows where the [peer](crate::TrustedProxies::peer_from) is told. Connection and request number are known on wharf,
//! where the request still has its [`wharf::Body`].
//! A refused request's client is the connection's peer: nobody reads the fields of a broken head.
//! Where the service fails, the answer is the server's and its status is not known here: `-`.
//!
//! **One request is one line**, whatever bytes it is made of: control characters (C0, DEL, C1), quotes, backslashes,
//! separators of lines and marks that turn text around are escaped, bytes that are no UTF-8 too, and no field takes up more
//! than 1 KiB.
//!
//! **Credentials are not shown**: neither user information in a URL nor the values of query parameters with names such as
//! `token`, `password`, `code` or `signature` ([`mask_query`](AccessLog::mask_query)), in targets and in `Referer`.
//! `Authorization` and `Cookie` are never logged, nor are values that are [marked as
//! sensitive](http::HeaderValue::is_sensitive).
//!
//! **No worker waits for the log.** Lines go into a buffer of bounded size, and a thread of its own writes them, many at a
//! time and at most 20 ms later. What doesn't fit is dropped and counted ([`dropped`](AccessLog::dropped)), and the log
//! says so itself: a line `{"time":…,"dropped":12}`, in the other formats a comment. When the last clone of the log is
//! dropped, it waits up to two seconds for the rest to be written; [`flush`](AccessLog::flush) waits for as long as you like.
//!
//! For rotation, have the signal that says so call [`reopen`](AccessLog::reopen):
//!
//! ```no_run
//! # use wharf_middleware::AccessLog;
//! # async fn rotate(log: AccessLog) -> std::io::Result<()> {
//! use tokio::signal::unix::{SignalKind, signal};
//!
//! let mut hang_up = signal(SignalKind::hangup())?;
//! while hang_up.recv().await.is_some() {
//!     if let Err(error) = log.reopen() {
//!         eprintln!("the access log stays where it is: {error}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Cost: two readings of the monotonic clock and one of the other; no allocation, except for
//! [`field`](AccessLog::field)s.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::header::{HOST, HeaderName, REFERER, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;
use wharf::{Address, ConnInfo, Refused};

use crate::ClientAddress;
use crate::follow::{Ended, Follow, Followed, FollowedBody, Watch};

mod escape;
mod line;
mod mask;
mod stamp;
#[cfg(test)]
mod tests;
mod writer;

use line::{Asked, Client, Facts, Format, Settings};
use writer::{Output, Queue};

/// As many bytes of lines wait for being written, by default.
const BUFFER: usize = 4 << 20;

/// The layer, and a handle of its log: a clone is another handle. See [the module](self).
#[derive(Clone)]
#[must_use]
pub struct AccessLog {
    settings: Settings,
    buffer: usize,
    path: Option<PathBuf>,
    output: Arc<Output>,
}

impl AccessLog {
    /// `client - - [time] "GET / HTTP/1.1" 200 5`, to standard output.
    pub fn common() -> Self {
        Self::new(Format::Common)
    }

    /// The common format with `Referer` and `User-Agent`, to standard output.
    pub fn combined() -> Self {
        Self::new(Format::Combined)
    }

    /// One JSON object a line, to standard output.
    pub fn json() -> Self {
        Self::new(Format::Json)
    }

    fn new(format: Format) -> Self {
        Self {
            settings: Settings {
                format,
                masked: mask::PARAMETERS.map(str::to_owned).into(),
                fields: Vec::new(),
            },
            buffer: BUFFER,
            path: None,
            output: Arc::new(Output::new(io::stdout())),
        }
    }

    /// Writes to `writer` instead, on a thread of its own; it may block for as long as it likes.
    pub fn to_writer(mut self, writer: impl Write + Send + 'static) -> Self {
        self.path = None;
        self.output = Arc::new(Output::new(writer));
        self
    }

    /// Appends to the file at `path`, which is made if there is none.
    ///
    /// # Errors
    ///
    /// What opening it says.
    pub fn to_file(self, path: impl AsRef<Path>) -> io::Result<Self> {
        let file = writer::open(path.as_ref())?;
        let mut log = self.to_writer(file);
        log.path = Some(path.as_ref().to_owned());
        Ok(log)
    }

    /// Each line is the message of a `tracing` event at level `INFO`, target `access_log`, for the subscriber of the
    /// calling thread.
    #[cfg(feature = "tracing")]
    pub fn to_tracing(self) -> Self {
        self.to_writer(writer::Events::new())
    }

    /// So many bytes of lines wait for being written; 4 MiB by default. Set it before the log is used.
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = bytes;
        self
    }

    /// The names of query parameters whose values are not shown, instead of the default ones: `access_token`, `api_key`,
    /// `auth`, `client_secret`, `code`, `key`, `password`, `secret`, `session`, `signature`, `token` and their like.
    pub fn mask_query<I>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item: AsRef<str>>,
    {
        let names = names.into_iter();
        self.settings.masked = names
            .map(|name| name.as_ref().to_ascii_lowercase())
            .collect();
        self
    }

    /// Shows a further field of requests, under `"fields"` (JSON only), such as `x-request-id`.
    ///
    /// `Authorization`, `Proxy-Authorization` and `Cookie` are shown as `***`.
    pub fn field(mut self, name: HeaderName) -> Self {
        self.settings.fields.push(name);
        self
    }

    /// What `Http::on_refused` is to call, so that requests that no handler saw have a line too.
    pub fn refused(&self) -> impl Fn(&Refused<'_>) + Send + Sync + 'static {
        let log = self.start();
        move |refused| log.write(&facts_of(refused))
    }

    /// Opens the file anew, after the old one was moved away; lines written from now on go there.
    ///
    /// Without effect for a log that was not made by [`to_file`](Self::to_file).
    ///
    /// # Errors
    ///
    /// What opening it says; lines go on being appended to the old one.
    pub fn reopen(&self) -> io::Result<()> {
        match &self.path {
            Some(path) => writer::open(path).map(|file| self.output.replace(file)),
            None => Ok(()),
        }
    }

    /// Lines that were dropped so far, because there was no room or because they could not be written.
    pub fn dropped(&self) -> u64 {
        self.output.started().map_or(0, Queue::dropped)
    }

    /// Blocks until all lines so far are written, but no longer than `bound`; `false` if they are not.
    pub fn flush(&self, bound: Duration) -> bool {
        self.output.started().is_none_or(|queue| queue.flush(bound))
    }

    fn start(&self) -> Arc<Log> {
        Arc::new(Log {
            settings: self.settings.clone(),
            buffer: self.buffer,
            output: self.output.clone(),
        })
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("settings", &self.settings)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What each request's record holds on to.
struct Log {
    settings: Settings,
    buffer: usize,
    output: Arc<Output>,
}

impl Log {
    fn write(&self, facts: &Facts) {
        let notice = match self.settings.format {
            Format::Json => line::dropped_json,
            Format::Common | Format::Combined => line::dropped_comment,
        };
        let queue = self.output.queue(self.buffer, notice);
        queue.push(|out| self.settings.write(out, facts));
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

fn client_of(peer: &Address) -> Client {
    match peer {
        Address::Socket(address) => Client::Ip(address.ip().to_canonical()),
        Address::Unix(_) => Client::Unix,
        _ => Client::Unknown,
    }
}

fn facts_of(refused: &Refused<'_>) -> Facts {
    let info = refused.info();
    let request = match refused.request() {
        Some(request) => Asked::Path(request.method().clone(), request.path().to_owned()),
        None => {
            let head = refused.first_bytes();
            let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
            Asked::Unread(line.strip_suffix(b"\r").unwrap_or(line).to_owned())
        }
    };
    Facts {
        time: SystemTime::now(),
        client: client_of(&info.peer),
        connection: Some(info.id),
        number: Some(refused.request_number()),
        request,
        referer: None,
        user_agent: None,
        fields: Vec::new(),
        status: Some(refused.status()),
        bytes: 0,
        first_byte: None,
        duration: None,
        ended: Ended::Refused,
        refused: Some(refused.reject().explain()),
    }
}

impl<S> Layer<S> for AccessLog {
    type Service = WithAccessLog<S>;

    fn layer(&self, inner: S) -> WithAccessLog<S> {
        WithAccessLog {
            inner,
            log: self.start(),
        }
    }
}

/// The service that [`AccessLog`] makes.
#[derive(Debug, Clone)]
pub struct WithAccessLog<S> {
    inner: S,
    log: Arc<Log>,
}

impl<S, B, R> Service<Request<B>> for WithAccessLog<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: 'static>,
    B: 'static,
    R: Body,
{
    type Response = Response<LoggedBody<R>>;
    type Error = S::Error;
    type Future = Logged<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let record = Record::new(&self.log, &request);
        let follow = Follow::new(record, request.method());
        Followed::new(follow, || self.inner.call(request))
    }
}

/// The future of [`WithAccessLog`].
pub type Logged<F> = Followed<F, Record>;

/// A response's body; when it ends, or is dropped, the line is written.
pub type LoggedBody<B> = FollowedBody<B, Record>;

/// A request's facts as far as they are known.
#[derive(Debug)]
pub struct Record {
    log: Arc<Log>,
    start: Instant,
    facts: Facts,
}

impl Record {
    fn new<B: 'static>(log: &Arc<Log>, request: &Request<B>) -> Self {
        let info = ConnInfo::find(request);
        let fields = request.headers();
        let client = match (ClientAddress::of(request), info) {
            (Some(client), _) => Client::Ip(client.ip()),
            (None, Some(info)) => client_of(&info.peer),
            (None, None) => Client::Unknown,
        };
        let facts = Facts {
            time: SystemTime::now(),
            client,
            connection: info.map(|info| info.id),
            number: ConnInfo::request_number(request),
            request: Asked::Request(
                request.method().clone(),
                request.uri().clone(),
                request.version(),
                fields.get(HOST).cloned(),
            ),
            referer: fields.get(REFERER).cloned(),
            user_agent: fields.get(USER_AGENT).cloned(),
            fields: log
                .settings
                .fields
                .iter()
                .map(|name| fields.get(name).cloned())
                .collect(),
            status: None,
            bytes: 0,
            first_byte: None,
            duration: None,
            ended: Ended::Aborted,
            refused: None,
        };
        Self {
            log: log.clone(),
            start: Instant::now(),
            facts,
        }
    }
}

impl Watch for Record {
    fn answered(&mut self, status: StatusCode) {
        self.facts.status = Some(status);
        self.facts.first_byte = Some(self.start.elapsed());
    }

    fn failed(&mut self, status: Option<StatusCode>) {
        self.facts.status = status;
    }

    fn ended(&mut self, how: Ended, bytes: u64) {
        self.facts.ended = how;
        self.facts.bytes = bytes;
        self.facts.duration = Some(self.start.elapsed());
        self.log.write(&self.facts);
    }
}
