//! What every peer answers: thirteen bytes of text, a small JSON, a body echoed, the length of one, ten mebibytes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full};

use crate::BoxError;

pub const HELLO: &[u8] = b"Hello, World!";
const PART: &[u8] = &[b'x'; 64 * 1024];
const PARTS: usize = 160;

pub type Content = Either<Full<Bytes>, Parts>;

pub async fn answer<B>(request: Request<B>) -> Result<Response<Content>, BoxError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let plain = "text/plain";
    Ok(match request.uri().path() {
        "/" => whole(plain, Bytes::from_static(HELLO)),
        "/json" => whole("application/json", json()?.into()),
        "/echo" => {
            let collected = request.into_body().collect().await.map_err(Into::into)?;
            whole(plain, collected.to_bytes())
        }
        "/upload" => {
            let length = length(request.into_body()).await.map_err(Into::into)?;
            whole(plain, length.to_string().into())
        }
        "/down" => Response::new(Either::Right(Parts::all())),
        _ => {
            let mut response = whole(plain, Bytes::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

pub fn json() -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&serde_json::json!({ "message": "Hello, World!" }))
}

pub async fn length<B: http_body::Body<Data = Bytes>>(body: B) -> Result<usize, B::Error> {
    let mut body = std::pin::pin!(body);
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(length)
}

fn whole(kind: &'static str, content: Bytes) -> Response<Content> {
    let mut response = Response::new(Either::Left(Full::new(content)));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A body that is a stream: nobody knows its length, so it goes out in chunks.
pub struct Parts(usize);

impl Parts {
    pub fn all() -> Self {
        Self(PARTS)
    }
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.0.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.0 = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PART)))))
    }
}
