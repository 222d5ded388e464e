//! An object's content, read by ranges: one request at a time, from where the reader is, and only of the version that was
//! found.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use wharf_middleware::range::Source;

use super::Service;
use crate::store::{Key, StoreError, Task};

/// An object that is read.
pub(super) struct Remote {
    service: Service,
    key: Key,
    tag: HeaderValue,
    size: u64,
    /// Where the next byte of the stream belongs.
    at: u64,
    state: Mutex<State>,
}

enum State {
    Idle,
    Asking(Task<'static, Incoming>),
    Reading(Incoming),
}

impl Remote {
    pub(super) fn new(service: Service, key: Key, tag: HeaderValue, size: u64) -> Self {
        Self {
            service,
            key,
            tag,
            size,
            at: 0,
            state: Mutex::new(State::Idle),
        }
    }

    fn ask(&self, range: &Range<u64>) -> Task<'static, Incoming> {
        let (service, key, tag) = (self.service.clone(), self.key.clone(), self.tag.clone());
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        Box::pin(async move {
            let mut fields = HeaderMap::new();
            fields.insert(header::IF_MATCH, tag);
            let bytes = HeaderValue::try_from(bytes).map_err(|error| super::failed(&error))?;
            fields.insert(header::RANGE, bytes);
            let answer = service
                .ask_plainly(Method::GET, key.full(), &[], fields)
                .await?;
            match answer.status() {
                StatusCode::PARTIAL_CONTENT => Ok(answer.into_body()),
                status => Err(StoreError::Failed(format!(
                    "the S3 service answered {status}, not a range"
                ))),
            }
        })
    }
}

impl Source for Remote {
    fn length(&self) -> u64 {
        self.size
    }

    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        range: Range<u64>,
    ) -> Poll<io::Result<Bytes>> {
        if self.at != range.start {
            self.at = range.start;
            *self.state() = State::Idle;
        }
        loop {
            let next = match self.state() {
                State::Idle => State::Asking(self.ask(&range)),
                State::Asking(asking) => {
                    State::Reading(ready!(asking.as_mut().poll(cx)).map_err(io::Error::other)?)
                }
                State::Reading(body) => {
                    let frame = ready!(Pin::new(body).poll_frame(cx));
                    let frame = frame
                        .ok_or(io::ErrorKind::UnexpectedEof)?
                        .map_err(io::Error::other)?;
                    match frame.into_data() {
                        Ok(bytes) if !bytes.is_empty() => {
                            self.at += bytes.len() as u64;
                            return Poll::Ready(Ok(bytes));
                        }
                        _ => continue,
                    }
                }
            };
            *self.state() = next;
        }
    }
}

impl Remote {
    /// The mutex is never locked: it only lends `Sync` to a request that has none.
    fn state(&mut self) -> &mut State {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
