//! A service that is like S3 as far as dockyard asks it, on wharf: objects with metadata, ranges, conditions on the
//! service's own tags, listings; and every request must be signed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use dockyard::store::s3::Settings;
use dockyard::store::s3::sign::{Credentials, authorization, encode};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use wharf_middleware::conditional::{Decision, ETag, Validators, evaluate};
use wharf_middleware::range;

const REGION: &str = "test-1";

fn credentials() -> Credentials {
    Credentials {
        key: "dock".into(),
        secret: "hand".into(),
        token: Some("session".into()),
    }
}

pub(crate) fn settings(bucket: &str, scratch: &Path, largest: u64) -> Settings {
    Settings {
        bucket: bucket.to_owned(),
        region: REGION.into(),
        credentials: credentials(),
        largest,
        scratch: Some(scratch.to_owned()),
    }
}

#[derive(Default)]
struct Bucket {
    objects: Mutex<BTreeMap<String, Object>>,
    versions: AtomicU64,
}

#[derive(Clone)]
struct Object {
    content: Bytes,
    fields: HeaderMap,
    validators: Validators,
}

/// Starts one; returns the address of its bucket.
pub(crate) async fn start() -> String {
    let listener = wharf::Listener::tcp("127.0.0.1:0").unwrap();
    let address = listener.local().to_string();
    let app = axum::Router::new()
        .fallback(answer)
        .with_state(Arc::new(Bucket::default()));
    tokio::spawn(async move {
        wharf::serve(listener, app)
            .shutdown(wharf::Shutdown::never())
            .await
    });
    format!("http://{address}/bucket")
}

/// A service that others have built after S3, as a child process: Python's moto. It believes every signature.
pub(crate) struct Moto {
    child: Child,
    /// The address of a bucket there.
    pub(crate) bucket: String,
}

impl Moto {
    pub(crate) fn start() -> Self {
        let tool = std::env::var("MOTO_SERVER").unwrap_or_else(|_| "moto_server".into());
        let mut child = Command::new(&tool)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("`{tool}` can't be run ({error}): pip install 'moto[server]', and name it in MOTO_SERVER")
            });
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("Running on ")?.1.to_owned()))
            .expect("moto says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        let bucket = format!("{address}/bucket");
        let made = Command::new("curl")
            .args(["-sSf", "--noproxy", "*", "-X", "PUT", &bucket])
            .status();
        assert!(made.unwrap().success(), "a bucket is made");
        Self { child, bucket }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn answer(State(bucket): State<Arc<Bucket>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let content = to_bytes(body, 64 << 20).await.unwrap();
    if let Err(refused) = check_signature(&head, &content) {
        return (StatusCode::FORBIDDEN, refused).into_response();
    }
    let path = head.uri.path();
    let Some(name) = path.strip_prefix("/bucket") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match (&head.method, name.strip_prefix('/')) {
        (&Method::GET, None) => list(&bucket, head.uri.query().unwrap_or_default()).into_response(),
        (method, Some(name)) => object(&bucket, method, &decode(name), &head.headers, content),
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// The signature is that of this head, and the hash in it that of this content.
fn check_signature(head: &http::request::Parts, content: &Bytes) -> Result<(), &'static str> {
    let field = |name: &str| {
        head.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let payload = field("x-amz-content-sha256");
    let hash: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if payload != hash {
        return Err("the content is not what was signed");
    }
    if field("x-amz-security-token") != "session" {
        return Err("not of this session");
    }
    let mut signed = head.clone();
    let names = field("authorization")
        .split("SignedHeaders=")
        .nth(1)
        .unwrap_or_default();
    let names: Vec<_> = names
        .split(',')
        .next()
        .unwrap_or_default()
        .split(';')
        .collect();
    signed.headers = head
        .headers
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let expected = authorization(
        &signed,
        &credentials(),
        REGION,
        payload,
        field("x-amz-date"),
    );
    (field("authorization") == expected)
        .then_some(())
        .ok_or("signed by somebody else")
}

fn object(
    bucket: &Bucket,
    method: &Method,
    name: &str,
    fields: &HeaderMap,
    content: Bytes,
) -> Response<Body> {
    let mut objects = bucket.objects.lock().unwrap();
    let now = objects.get(name).cloned();
    let decision = evaluate(
        method,
        fields,
        now.as_ref().map(|object| &object.validators),
    );
    match *method {
        Method::PUT | Method::DELETE if decision != Decision::Proceed => {
            StatusCode::PRECONDITION_FAILED.into_response()
        }
        Method::PUT => {
            let version = bucket.versions.fetch_add(1, Relaxed);
            let validators = Validators::new()
                .etag(ETag::strong(&format!("v{version}")).unwrap())
                .last_modified(SystemTime::now());
            let kept = [
                header::CONTENT_TYPE,
                header::HeaderName::from_static("x-amz-meta-sha256"),
            ];
            let mut own: HeaderMap = kept
                .iter()
                .filter_map(|name| Some((name.clone(), fields.get(name)?.clone())))
                .collect();
            validators.write(&mut own);
            objects.insert(
                name.to_owned(),
                Object {
                    content,
                    fields: own,
                    validators,
                },
            );
            StatusCode::OK.into_response()
        }
        Method::DELETE => {
            objects.remove(name);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => match now {
            None => StatusCode::NOT_FOUND.into_response(),
            Some(object) => {
                let mut full = Response::new(object.content);
                *full.headers_mut() = object.fields;
                range::respond(method, fields, full).map(Body::new)
            }
        },
    }
}

fn list(bucket: &Bucket, query: &str) -> String {
    let pairs: BTreeMap<_, _> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name, decode(value)))
        .collect();
    assert_eq!(pairs["list-type"], "2");
    let (prefix, limit): (_, usize) = (&pairs["prefix"], pairs["max-keys"].parse().unwrap());
    let after = pairs.get("start-after").cloned().unwrap_or_default();
    let objects = bucket.objects.lock().unwrap();
    let found: Vec<_> = objects
        .iter()
        .filter(|(name, _)| name.starts_with(prefix) && **name > after)
        .collect();
    let shown: String = found.iter().take(limit).map(|(name, object)| {
        let name = name.replace('&', "&amp;").replace('<', "&lt;");
        format!("<Contents><Key>{name}</Key><LastModified>2026-11-24T00:00:00.000Z</LastModified><Size>{}</Size></Contents>", object.content.len())
    }).collect();
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>{}</IsTruncated>{shown}</ListBucketResult>",
        found.len() > limit
    )
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    let decoded = String::from_utf8(bytes).unwrap();
    assert!(
        [true, false]
            .iter()
            .any(|is_path| encode(&decoded, *is_path) == text),
        "{text}"
    );
    decoded
}
