//! The handlers that transcripts talk to, chosen by path; `tests/conversations/README.md` lists them. They use only
//! what a user of the library has.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf::{Body, BoxError};

/// What the handlers saw, one line a request.
pub type Seen = Arc<Mutex<Vec<String>>>;

/// Answers a request by its path.
pub async fn answer(mut request: Request<Body>, seen: Seen) -> Result<Response<Body>, BoxError> {
    seen.lock().unwrap().push(described(&request));
    if request.method() == Method::CONNECT {
        return Ok(switch(&mut request, StatusCode::OK));
    }
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/hello" => Response::new(Body::from("hello")),
        "/echo" => Response::new(request.into_body()),
        "/read" => Response::new(Body::from(read(request.into_body()).await?)),
        "/tolerant" => Response::new(Body::from(
            read(request.into_body())
                .await
                .unwrap_or_else(|e| e.to_string()),
        )),
        "/ignore" => {
            drop(request);
            Response::new(Body::from("ignored"))
        }
        "/hold" => Response::new(Body::new(
            Frames::of(["held"]).holding(request.into_body()).sized(4),
        )),
        "/stream" => Response::new(Body::new(Frames::of(["hello, ", "world"]))),
        "/trailers" => Response::new(Body::new(
            Frames::of(["hello"]).trailers(&[("checksum", "5d41")]),
        )),
        "/forbidden-trailers" => {
            let trailers = [
                ("content-length", "5"),
                ("host", "a"),
                ("checksum", "5d41"),
                ("transfer-encoding", "x"),
            ];
            Response::new(Body::new(Frames::of(["hello"]).trailers(&trailers)))
        }
        "/short" => with("content-length", "10", Body::new(Frames::of(["short"]))),
        "/long" => with(
            "content-length",
            "5",
            Body::new(Frames::of(["hello", ", and far too long"])),
        ),
        "/mismatch" => with("content-length", "10", Body::from("hello")),
        "/twice" => with("content-length", "5", Body::from("hello")).and("content-length", "5"),
        "/framed" => with("transfer-encoding", "chunked", Body::from("hello")),
        "/gzip-coding" => with(
            "transfer-encoding",
            "gzip",
            Body::new(Frames::of(["hello"])),
        ),
        "/close" => with("connection", "close", Body::from("hello")),
        "/keep" => {
            with("connection", "keep-alive", Body::from("hello")).and("keep-alive", "timeout=5")
        }
        "/dated" => with("date", "Sun, 06 Nov 1994 08:49:37 GMT", Body::from("hello")),
        "/fields" => with("x-one", "1", Body::from("hello"))
            .and("set-cookie", "a=1")
            .and("set-cookie", "b=2"),
        "/empty" => Response::new(Body::empty()),
        "/cut" => Response::new(Body::new(Frames::of(["hello"]).failing())),
        "/cut-sized" => with(
            "content-length",
            "10",
            Body::new(Frames::of(["hello"]).failing()),
        ),
        "/error" => return Err("the handler failed".into()),
        "/panic" => panic!("the handler panicked, as it should"),
        "/hints" => hints(&request).await,
        "/upgrade" if wharf_offers(&request) => {
            switch(&mut request, StatusCode::SWITCHING_PROTOCOLS)
        }
        "/switch" => status(StatusCode::SWITCHING_PROTOCOLS),
        "/426" => with("upgrade", "echo", Body::empty()).status(426),
        path => match path
            .strip_prefix("/status/")
            .and_then(|code| code.parse().ok())
        {
            Some(code) => Response::new(Body::from("x")).status(code),
            None => Response::new(Body::from(spelled_out(&request))),
        },
    })
}

/// Method, target and version: the identity of a request in the log.
fn described(request: &Request<Body>) -> String {
    format!(
        "{} {} {:?}",
        request.method(),
        request.uri(),
        request.version()
    )
}

/// The request as a handler sees it: sorted fields, each on a line of its own.
fn spelled_out(request: &Request<Body>) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = request
        .headers()
        .iter()
        .map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat())
        .collect();
    fields.sort();
    [
        described(request).into_bytes(),
        b"\r\n".to_vec(),
        fields.concat(),
    ]
    .concat()
}

/// A whole body as text, its trailers behind it.
async fn read(body: Body) -> Result<String, BoxError> {
    let whole = body.collect().await?;
    let trailers = whole.trailers().cloned().unwrap_or_default();
    let mut text = String::from_utf8_lossy(&whole.to_bytes()).into_owned();
    for (name, value) in &trailers {
        text.push_str(&format!(
            "\r\n{name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    Ok(text)
}

async fn hints(request: &Request<Body>) -> Response<Body> {
    let mut fields = HeaderMap::new();
    fields.insert(
        header::LINK,
        HeaderValue::from_static("</style.css>; rel=preload"),
    );
    let interim = wharf::interim(request);
    // HTTP/1.0 knows no interim responses; that it can't be sent is no reason not to answer.
    let _ = interim.early_hints(fields).await;
    Response::new(Body::from("hello"))
}

fn wharf_offers(request: &Request<Body>) -> bool {
    request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol == "echo")
}

/// Leaves HTTP, if the connection lets it, and sends back what comes in capital letters.
fn switch(request: &mut Request<Body>, status_code: StatusCode) -> Response<Body> {
    let Some(upgrade) = wharf::upgrade::on(request) else {
        return Response::new(Body::from("no upgrade"));
    };
    tokio::spawn(async move {
        let Ok(mut io) = upgrade.await else { return };
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            buffer[..read].make_ascii_uppercase();
            if io.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = io.shutdown().await;
    });
    let mut response = status(status_code);
    if status_code == StatusCode::SWITCHING_PROTOCOLS {
        response
            .headers_mut()
            .insert(header::UPGRADE, HeaderValue::from_static("echo"));
    }
    response
}

fn status(status: StatusCode) -> Response<Body> {
    Response::new(Body::empty()).status(status.as_u16())
}

fn with(name: &'static str, value: &'static str, body: Body) -> Response<Body> {
    Response::new(body).and(name, value)
}

/// Responses in a chain.
pub trait Chain {
    fn and(self, name: &'static str, value: &'static str) -> Self;
    fn status(self, status: u16) -> Self;
}

impl<B> Chain for Response<B> {
    fn and(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers_mut().append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        self
    }

    fn status(mut self, status: u16) -> Self {
        *self.status_mut() = StatusCode::from_u16(status).expect("a status");
        self
    }
}

/// A body of given frames, ready one by one; its length is only known if it is told.
#[derive(Default)]
pub struct Frames {
    frames: VecDeque<Result<Frame<Bytes>, BoxError>>,
    size: Option<u64>,
    held: Option<Body>,
}

impl Frames {
    pub fn of<T: Into<Bytes>>(frames: impl IntoIterator<Item = T>) -> Self {
        Self {
            frames: frames
                .into_iter()
                .map(|data| Ok(Frame::data(data.into())))
                .collect(),
            ..Self::default()
        }
    }

    pub fn trailers(mut self, fields: &[(&'static str, &'static str)]) -> Self {
        let fields = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        self.frames.push_back(Ok(Frame::trailers(fields.collect())));
        self
    }

    /// Ends in an error.
    pub fn failing(mut self) -> Self {
        self.frames.push_back(Err("the body failed".into()));
        self
    }

    /// Says this length, true or not.
    pub fn sized(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// Keeps a request's body, unread, until this one is dropped.
    pub fn holding(mut self, body: Body) -> Self {
        self.held = Some(body);
        self
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.frames.pop_front())
    }

    fn size_hint(&self) -> SizeHint {
        self.size
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
