//! A store in a bucket of an S3-compatible service. An object's name is the blob's, `bucket/key`, and what S3 doesn't know
//! of a blob, its SHA-256, rides along as metadata. What is kept and for how long is the service's own policy.
//!
//! Conditions are judged by what is there, and sent on as conditions on that very version, so that nobody who comes in
//! between is overwritten. A deletion is checked the same way where the service knows conditional deletion.

use std::path::PathBuf;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use wharf::Body;
use wharf_middleware::range::{self, FileSource};

use super::embedded::SMALL;
use super::spool::{GatheredContent, Scratch};
use super::{
    BlobStore, Change, Changes, Content, Digest, Found, Gathered, Key, Listing, Meta, OnlyIf, Page,
    Spool, Stats, StoreError, Stored, Task, What,
};

mod listing;
pub mod sign;
mod source;

use sign::{Credentials, encode};
use source::Remote;

const SHA256: &str = "x-amz-meta-sha256";
/// A listing of a thousand blobs has far less.
const LONGEST_LISTING: usize = 8 << 20;

/// How an [`S3`] store is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The service and the bucket: `https://s3.eu-central-1.amazonaws.com/my-cache`.
    pub bucket: String,
    /// The service's region.
    pub region: String,
    /// Who asks.
    pub credentials: Credentials,
    /// The largest blob.
    pub largest: u64,
    /// Where large uploads are gathered; `None`: the system's folder for temporary files.
    pub scratch: Option<PathBuf>,
}

/// A store in a bucket; see [the module](self).
pub struct S3 {
    remote: Service,
    settings: Settings,
    changes: Changes,
}

/// The service, as far as requests to it go; a clone is the same.
#[derive(Clone)]
struct Service {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    /// `https://host`
    origin: String,
    /// `/my-cache`
    path: String,
    region: String,
    credentials: Credentials,
}

/// An object that is there.
struct Object {
    meta: Meta,
    /// The service's own tag of this version.
    tag: HeaderValue,
}

impl S3 {
    /// A store in that bucket, which must be there.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the settings.
    pub fn new(settings: Settings, changes: Changes) -> Result<Self, StoreError> {
        let wrong = || {
            StoreError::Failed(format!(
                "--s3 takes the address of a bucket, http(s)://host/bucket, not `{}`",
                settings.bucket
            ))
        };
        let uri: http::Uri = settings.bucket.parse().map_err(|_| wrong())?;
        let path = uri.path().trim_end_matches('/');
        let (Some(scheme), Some(authority), true) =
            (uri.scheme_str(), uri.authority(), path.len() > 1)
        else {
            return Err(wrong());
        };
        // Named, because a build that has two providers has no default one.
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(tokio_rustls::rustls::crypto::ring::default_provider())
            .map_err(|error| StoreError::Failed(format!("TLS to the bucket: {error}")))?;
        let connector = connector.https_or_http().enable_http1().build();
        let remote = Service {
            client: Client::builder(TokioExecutor::new()).build(connector),
            origin: format!("{scheme}://{authority}"),
            path: path.to_owned(),
            region: settings.region.clone(),
            credentials: settings.credentials.clone(),
        };
        Ok(Self {
            remote,
            settings,
            changes,
        })
    }

    fn tell(&self, key: &Key, what: What) {
        let key = key.clone();
        self.changes.tell(Change { key, what });
    }
}

impl Service {
    /// Asks for an object; its name and the query are encoded here and in the signature in the same way.
    async fn ask(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
        fields: HeaderMap,
        body: Body,
        payload: &str,
    ) -> Result<Response<Incoming>, StoreError> {
        let mut path = self.path.clone();
        if !name.is_empty() {
            path = format!("{path}/{}", encode(name, true));
        }
        let query: Vec<_> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value, false)))
            .collect();
        let query = query.join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}{mark}{query}", self.origin));
        let mut request = request.body(body).map_err(|error| failed(&error))?;
        *request.headers_mut() = fields;
        let (mut head, body) = request.into_parts();
        sign::sign(
            &mut head,
            &self.credentials,
            &self.region,
            payload,
            SystemTime::now(),
        );
        let answer = self.client.request(Request::from_parts(head, body)).await;
        let answer = answer.map_err(|error| failed(&error))?;
        match answer.status() {
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Err(StoreError::NotMet),
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(answer),
            status => Err(StoreError::Failed(format!(
                "the S3 service answered {status}"
            ))),
        }
    }

    /// Without a body.
    async fn ask_plainly(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
        fields: HeaderMap,
    ) -> Result<Response<Incoming>, StoreError> {
        self.ask(method, name, query, fields, Body::empty(), sign::NOTHING)
            .await
    }

    async fn look(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let answer = self
            .ask_plainly(Method::HEAD, key.full(), &[], HeaderMap::new())
            .await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let fields = answer.headers();
        let text =
            |name: header::HeaderName| fields.get(name).and_then(|value| value.to_str().ok());
        let known = || {
            Some(Object {
                meta: Meta {
                    size: text(header::CONTENT_LENGTH)?.parse().ok()?,
                    digest: Digest::parse(fields.get(SHA256)?.to_str().ok()?)?,
                    content_type: text(header::CONTENT_TYPE).unwrap_or_default().to_owned(),
                    modified: httpdate::parse_http_date(text(header::LAST_MODIFIED)?).ok()?,
                },
                tag: fields.get(header::ETAG)?.clone(),
            })
        };
        known().map(Some).ok_or_else(|| {
            StoreError::Failed(format!(
                "the object {key:?} was not stored by dockyard: it has no {SHA256}"
            ))
        })
    }
}

impl BlobStore for S3 {
    fn spool(&self) -> Spool {
        let folder = self.settings.scratch.clone();
        let scratch = Scratch::new(folder.unwrap_or_else(std::env::temp_dir));
        Spool::in_files(self.settings.largest, SMALL, std::sync::Arc::new(scratch))
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        gathered: Gathered,
        content_type: &'a str,
        only_if: OnlyIf,
    ) -> Task<'a, Stored> {
        Box::pin(async move {
            let before = self.remote.look(key).await?;
            if !only_if.holds(before.as_ref().map(|object| &object.meta)) {
                return Err(StoreError::NotMet);
            }
            let mut fields = HeaderMap::new();
            if !only_if.is_always() {
                match &before {
                    Some(object) => fields.insert(header::IF_MATCH, object.tag.clone()),
                    None => fields.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*")),
                };
            }
            let digest = gathered.digest.to_string();
            fields.insert(header::CONTENT_LENGTH, gathered.size.into());
            fields.insert(
                SHA256,
                HeaderValue::try_from(&digest).map_err(|error| failed(&error))?,
            );
            let kind = HeaderValue::try_from(content_type).map_err(|error| failed(&error))?;
            fields.insert(header::CONTENT_TYPE, kind);
            let (body, _file) = body(gathered.content)?;
            let answer = self
                .remote
                .ask(Method::PUT, key.full(), &[], fields, body, &digest)
                .await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Err(StoreError::Failed(
                    "the S3 service has no such bucket".into(),
                ));
            }
            let (size, digest) = (gathered.size, gathered.digest);
            self.tell(key, What::Put { size, digest });
            Ok(Stored {
                meta: Meta {
                    size,
                    digest,
                    content_type: content_type.to_owned(),
                    modified: SystemTime::now(),
                },
                replaced: before.is_some(),
            })
        })
    }

    fn find<'a>(&'a self, key: &'a Key) -> Task<'a, Option<Found>> {
        Box::pin(async move {
            let object = self.remote.look(key).await?;
            Ok(object.map(|Object { meta, tag }| {
                let remote = Remote::new(self.remote.clone(), key.clone(), tag, meta.size);
                let content = Content::new(remote);
                Found { meta, content }
            }))
        })
    }

    fn delete<'a>(&'a self, key: &'a Key, only_if: OnlyIf) -> Task<'a, Option<Meta>> {
        Box::pin(async move {
            let before = self.remote.look(key).await?;
            if !only_if.holds(before.as_ref().map(|object| &object.meta)) {
                return Err(StoreError::NotMet);
            }
            let Some(Object { meta, tag }) = before else {
                return Ok(None);
            };
            let mut fields = HeaderMap::new();
            if !only_if.is_always() {
                fields.insert(header::IF_MATCH, tag);
            }
            self.remote
                .ask_plainly(Method::DELETE, key.full(), &[], fields)
                .await?;
            self.tell(key, What::Deleted);
            Ok(Some(meta))
        })
    }

    fn list<'a>(&'a self, page: &'a Page) -> Task<'a, Listing> {
        Box::pin(async move {
            let root = format!("{}/", page.bucket);
            let prefix = format!("{root}{}", page.prefix);
            let after = format!("{root}{}", page.after);
            let limit = page.limit.to_string();
            let mut query = vec![
                ("list-type", "2"),
                ("max-keys", limit.as_str()),
                ("prefix", prefix.as_str()),
            ];
            if !page.after.is_empty() {
                query.push(("start-after", after.as_str()));
            }
            let answer = self
                .remote
                .ask_plainly(Method::GET, "", &query, HeaderMap::new())
                .await?;
            let body = http_body_util::Limited::new(answer.into_body(), LONGEST_LISTING);
            let text = body
                .collect()
                .await
                .map_err(|error| StoreError::Failed(error.to_string()))?;
            listing::read(&text.to_bytes(), &root)
        })
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }

    fn place(&self) -> String {
        format!("S3 at {}", self.settings.bucket)
    }
}

/// What was gathered, as a body; its file must be kept as long.
fn body(
    content: GatheredContent,
) -> Result<(Body, Option<super::spool::TemporaryFile>), StoreError> {
    match content {
        GatheredContent::Memory(bytes) => Ok((bytes.into(), None)),
        GatheredContent::File(file) => {
            let source = FileSource::new(file.file.try_clone()?)?;
            let whole = range::respond(&Method::GET, &HeaderMap::new(), Response::new(source));
            Ok((Body::new(whole.into_body()), Some(file)))
        }
    }
}

fn failed(error: &dyn std::error::Error) -> StoreError {
    let mut text = format!("the S3 service can't be asked: {error}");
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    StoreError::Failed(text)
}

/// Reads credentials as the tools of AWS do: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
///
/// # Errors
///
/// A sentence that names what is missing.
pub fn credentials(variable: impl Fn(&str) -> Option<String>) -> Result<Credentials, StoreError> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    let needed = |name: &str| {
        let missing = || StoreError::Failed(format!("--s3 needs {name} in the environment"));
        given(name).ok_or_else(missing)
    };
    Ok(Credentials {
        key: needed("AWS_ACCESS_KEY_ID")?,
        secret: needed("AWS_SECRET_ACCESS_KEY")?,
        token: given("AWS_SESSION_TOKEN"),
    })
}
