//! A server of HTTP/2 on a socket, plain or over TLS, wharf beside hyper with hyper-util on the same libraries, for a load
//! client and callgrind: `http2 wharf|hyper PORT [tls]`, until TERM. The handler echoes what a POST brings.

use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tower::{ServiceBuilder, service_fn};
use wharf::{BoxError, Http, Server, Shutdown, Tls};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["wharf", port] => runtime.block_on(wharf(port, None)),
        ["hyper", port] => runtime.block_on(hyper(port, None)),
        ["wharf", port, "tls"] => runtime.block_on(wharf(port, Some(config()))),
        ["hyper", port, "tls"] => runtime.block_on(hyper(port, Some(config()))),
        _ => Err("usage: http2 wharf|hyper PORT [tls]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http2: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn answer<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, BoxError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let content = if request.method() == http::Method::POST {
        let whole = request.into_body().collect().await.map_err(Into::into)?;
        whole.to_bytes()
    } else {
        Bytes::from_static(b"Hello, World!")
    };
    let mut response = Response::new(Full::new(content));
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn config() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = made.signing_key.serialize_der().try_into().expect("a key");
    let builder = ServerConfig::builder_with_provider(default_provider().into());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_no_client_auth();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key);
    let mut config = config.expect("a configuration");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.into()
}

async fn wharf(port: &str, tls: Option<Arc<ServerConfig>>) -> Result<(), BoxError> {
    let stack = ServiceBuilder::new()
        .option_layer(tls.map(Tls::new))
        .layer(Http::new().with_http2())
        .service(service_fn(answer));
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move { terminate.recv().await.unwrap_or_default() };
    let server = Server::new().bind(format!("127.0.0.1:{port}"))?;
    server.shutdown(Shutdown::when(stop)).serve(stack).await?;
    Ok(())
}

async fn hyper(port: &str, tls: Option<Arc<ServerConfig>>) -> Result<(), BoxError> {
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = terminate.recv() => return Ok(()),
        };
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(answer);
            let http = auto::Builder::new(TokioExecutor::new());
            // How a connection ends is the client's business here.
            let _ = match acceptor {
                None => http.serve_connection(TokioIo::new(stream), service).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                    Err(_) => return,
                },
            };
        });
    }
}
