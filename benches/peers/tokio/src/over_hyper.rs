//! hyper, as its guide has it: a task a connection, no deadlines. Bodies flow through `http-body` unchanged.

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{BoxError, answers};

pub async fn serve(listener: TcpListener, flush: bool) -> Result<(), BoxError> {
    let mut http = Builder::new();
    http.pipeline_flush(flush);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http.serve_connection(TokioIo::new(stream), service_fn(answers::answer));
        tokio::spawn(async move {
            // A client that goes away is nobody's error here.
            let _ = connection.await;
        });
    }
}
