//! A connection that may be either: its first bytes say whether it is HTTP/2, where TLS hasn't said so already. They are
//! waited for as a first head is, and whoever goes on has them.

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::Settings;
use super::connection::Connection;
use super::exchange::{Ending, Linger};
use crate::body::Body;
use crate::codec::Codec;
use crate::conn::{Conn, ConnReport};
use crate::error::BoxError;
use crate::http2::{self, PREFACE};

/// Serves a connection to its end, in the protocol that it speaks.
pub(crate) fn serve<Io, C, S, B>(
    conn: Conn<Io>,
    codec: C,
    mut service: S,
    settings: Arc<Settings>,
) -> impl Future<Output = ConnReport>
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C: Codec,
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let tls = conn.info().tls.as_ref();
    let agreed = tls.and_then(|tls| tls.alpn.as_ref().map(|alpn| alpn == "h2"));
    let mut connection = Connection::new(conn, codec, settings);
    async move {
        let is_http2 = match agreed {
            Some(is_http2) => Ok(is_http2),
            None => connection.begins_as_http2().await,
        };
        let ending = match is_http2 {
            Ok(true) => {
                let Connection { wire, settings, .. } = connection;
                let live = wire.live().clone();
                let (io, early) = wire.into_rest();
                return Box::pin(http2::serve(io, early, live, service, settings)).await;
            }
            Ok(false) => loop {
                if let Err(ending) = connection.exchanges(&mut service, u64::MAX).await {
                    break ending;
                }
            },
            Err(ending) => ending,
        };
        Box::pin(connection.end(ending)).await
    }
}

impl<Io, C> Connection<Io, C>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    C: Codec,
{
    /// Reads until the first bytes are the preface of HTTP/2, or can't be.
    async fn begins_as_http2(&mut self) -> Result<bool, Ending> {
        loop {
            let input = &self.wire.desk().input;
            let len = input.len().min(PREFACE.len());
            if input[..len] != PREFACE[..len] {
                return Ok(false);
            }
            if len == PREFACE.len() {
                return Ok(true);
            }
            let more = self.until(|cx, this| this.poll_more(cx)).await?;
            if let ControlFlow::Break(why) = more {
                return Err(Ending::Close {
                    why,
                    linger: Linger::Not,
                });
            }
        }
    }
}
