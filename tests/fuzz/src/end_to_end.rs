//! A whole connection over a stream that does what the input says: so many bytes come, nothing comes, a write takes so much. It ends,
//! and what it sent are whole answers, one for each request and in their order; only the last may be cut.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::service_fn;
use wharf::{Body, BoxError, Conn, Http, Limits};

use crate::answer::Answer;
use crate::runtime::block_on;

/// Plays a script of reads and writes to a connection.
pub fn conn_e2e(data: &[u8]) {
    let Some((&writes, script)) = data.split_first() else {
        return;
    };
    let sent = Arc::new(Mutex::new(Vec::new()));
    let methods = Arc::new(Mutex::new(Vec::new()));
    let io = Scripted {
        script: script.to_vec(),
        at: 0,
        takes: usize::from(writes),
        stalls: false,
        sent: sent.clone(),
    };
    let seen = methods.clone();
    let service = service_fn(move |request: Request<Body>| {
        seen.lock().unwrap().push(request.method().to_string());
        answer(request)
    });
    let limits = Limits {
        head_bytes: 1024,
        request_line_bytes: 256,
        header_fields: 16,
        write_buffer_bytes: 1024,
        ..Limits::default()
    };
    let http = Http::new().limits(limits);
    block_on(async {
        let connection = http
            .connection(Conn::from(io), service)
            .expect("limits that work");
        connection.await;
    });
    check(&sent.lock().unwrap(), &methods.lock().unwrap());
}

/// By the target's second letter: the ways of a handler.
async fn answer(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let way = request
        .uri()
        .path()
        .as_bytes()
        .get(1)
        .copied()
        .unwrap_or(b'-');
    let response = Response::builder();
    let body = match way {
        b'e' => request.into_body(),
        b'r' => request.into_body().collect().await?.to_bytes().into(),
        b's' => stream([Ok("some"), Ok(""), Ok("more")]),
        b'f' => stream([Ok("some"), Err("broken"), Ok("more")]),
        b'l' => {
            return Ok(response.header(header::CONTENT_LENGTH, 3).body(stream([
                Ok("longer"),
                Ok(""),
                Ok(""),
            ]))?);
        }
        b'x' => return Err("an error".into()),
        b'n' => {
            return Ok(response
                .status(StatusCode::NO_CONTENT)
                .body("not to be sent".into())?);
        }
        b'c' => {
            return Ok(response
                .header(header::CONNECTION, "close")
                .body("bye".into())?);
        }
        b'k' => "x".repeat(3000).into(),
        _ => "hello".into(),
    };
    Ok(response.body(body)?)
}

fn stream(frames: [Result<&'static str, &'static str>; 3]) -> Body {
    let frames = frames.map(|frame| frame.map(|data| Frame::data(Bytes::from(data))));
    Body::new(StreamBody::new(futures_util::stream::iter(frames)))
}

/// What was sent is one whole answer after the other, for the requests that the handler saw and at most one that it didn't.
fn check(sent: &[u8], methods: &[String]) {
    let mut rest = sent;
    let mut answered = 0;
    while !rest.is_empty() {
        // A refused HEAD has no content either, which its answer shows by its length alone.
        let method = methods.get(answered).map_or("GET", String::as_str);
        let whole = Answer::read(rest, method).or_else(|| {
            let is_refusal = answered >= methods.len();
            is_refusal
                .then(|| Answer::read(rest, "HEAD").filter(|(_, len)| *len == rest.len()))
                .flatten()
        });
        let Some((answer, len)) = whole else { break };
        rest = &rest[len..];
        if answer.status >= 200 {
            answered += 1;
        }
        if answer.status >= 200
            && answer
                .field("connection")
                .is_some_and(|value| value.contains("close"))
        {
            assert!(
                rest.is_empty(),
                "{} bytes behind an answer that said close",
                rest.len()
            );
        }
    }
    assert!(
        answered <= methods.len() + 1,
        "{answered} answers to {methods:?}"
    );
}

/// A stream that follows a script: a byte below 128 brings so many of the bytes behind it, zero makes the reader wait; from 128
/// on the writer waits once.
struct Scripted {
    script: Vec<u8>,
    at: usize,
    /// A write takes so much and one more.
    takes: usize,
    stalls: bool,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(&step) = self.script.get(self.at) else {
            return Poll::Ready(Ok(())); // the end
        };
        if step == 0 || step >= 128 {
            self.at += 1;
            self.stalls |= step >= 128;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let from = self.at + 1;
        let to = (from + usize::from(step).min(buf.remaining())).min(self.script.len());
        buf.put_slice(&self.script[from..to]);
        self.at = to;
        if from == to {
            self.at = self.script.len();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.stalls) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = buf.len().min(self.takes + 1);
        self.sent.lock().unwrap().extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
