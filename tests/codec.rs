//! A codec of one's own, made of the stock one: it sees each head and may refuse it in the container's words.

use bytes::BytesMut;
use http::{HeaderMap, Request, Response, StatusCode, header, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tower::service_fn;
use wharf::codec::{Codec, EncodeError, Exchange, Head, Output, Reply, Strict};
use wharf::{Body, BoxError, Conn, Http, Limits, Reason, Reject};

/// Answers for one authority only, and only in origin form.
struct Only {
    inner: Strict,
    authority: &'static str,
}

impl Only {
    fn new(limits: &Limits) -> Self {
        Self {
            inner: Strict::new(limits),
            authority: "a.example",
        }
    }
}

impl Codec for Only {
    type Decoder = <Strict as Codec>::Decoder;
    type Encoder = <Strict as Codec>::Encoder;

    fn decode_head(
        &mut self,
        input: &mut BytesMut,
        parts: &mut request::Parts,
    ) -> Result<Option<Head<Self::Decoder>>, Reject> {
        let Some(head) = self.inner.decode_head(input, parts)? else {
            return Ok(None);
        };
        if parts.uri.authority().is_some() {
            return Err(Reject::new(Reason::Target));
        }
        match parts.headers.get(header::HOST) {
            Some(host) if host == self.authority => Ok(Some(head)),
            _ => Err(Reject::new(Reason::Misdirected)),
        }
    }

    fn encode_head(
        &mut self,
        exchange: &mut Exchange,
        reply: Reply<'_>,
        output: &mut Output,
    ) -> Result<Self::Encoder, EncodeError> {
        self.inner.encode_head(exchange, reply, output)
    }

    fn encode_interim(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
        output: &mut Output,
    ) -> Result<(), EncodeError> {
        self.inner.encode_interim(status, fields, output)
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_codec_refuses_with_421_and_400_what_the_stock_one_accepts() {
    for (request, status) in [
        (
            "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n",
            "200",
        ),
        ("GET / HTTP/1.1\r\nhost: b.example\r\n\r\n", "421"),
        (
            "GET http://a.example/ HTTP/1.1\r\nhost: a.example\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
    ] {
        let (mut client, server) = duplex(4096);
        let hello = service_fn(|_: Request<Body>| async {
            Ok::<_, BoxError>(Response::new(Body::from("hello")))
        });
        let connection = Http::new()
            .codec(Only::new)
            .connection(Conn::from(server), hello);
        let talk = async move {
            client.write_all(request.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (answer, report) = tokio::join!(talk, connection.unwrap());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert_eq!(
            report.requests,
            u64::from(status == "200"),
            "a refused request reaches no handler"
        );
    }
}

#[test]
fn limits_that_cannot_work_are_an_error_with_a_sentence() {
    let service =
        || service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
    for (limits, word) in [
        (
            Limits {
                head_bytes: 0,
                ..Limits::default()
            },
            "head_bytes",
        ),
        (
            Limits {
                header_fields: 0,
                ..Limits::default()
            },
            "header_fields",
        ),
        (
            Limits {
                header_fields: usize::MAX,
                ..Limits::default()
            },
            "header_fields",
        ),
        (
            Limits {
                head_bytes: 1000,
                ..Limits::default()
            },
            "request_line_bytes",
        ),
        (
            Limits {
                write_buffer_bytes: 0,
                ..Limits::default()
            },
            "write_buffer_bytes",
        ),
        (
            Limits {
                idle_timeout: std::time::Duration::ZERO,
                ..Limits::default()
            },
            "idle_timeout",
        ),
        (
            Limits {
                max_age: std::time::Duration::MAX,
                ..Limits::default()
            },
            "max_age",
        ),
    ] {
        let error = limits.check().unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        let (_, server) = duplex(64);
        let connection = Http::new()
            .limits(limits)
            .connection(Conn::from(server), service());
        assert!(connection.is_err());
    }
}

#[tokio::test]
async fn a_server_with_limits_that_cannot_work_does_not_start() {
    use tower::Layer;
    let http = Http::new().limits(Limits {
        head_bytes: 0,
        ..Limits::default()
    });
    let app =
        service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
    let server = wharf::Server::new().bind("127.0.0.1:0").unwrap();
    let error = server.serve(http.layer(app)).await.unwrap_err();
    assert!(error.to_string().contains("head_bytes must be"), "{error}");
}
