//! A server's TLS from PEM files: what is read, how a certificate is chosen, and how a change of the files shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::Error;

/// What a configuration is made of.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// Chains and their keys.
    certificates: Vec<(PathBuf, PathBuf)>,
    pub(super) clients: Option<Clients>,
    /// The protocols offered, the preferred one first.
    pub(super) alpn: Vec<Vec<u8>>,
}

/// Who may be a client.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    authorities: PathBuf,
    required: bool,
}

impl Clients {
    pub(super) fn required(authorities: &Path) -> Self {
        Self {
            authorities: authorities.to_owned(),
            required: true,
        }
    }

    pub(super) fn optional(authorities: &Path) -> Self {
        Self {
            required: false,
            ..Self::required(authorities)
        }
    }
}

/// The state of the files, as far as a change of them shows in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<(SystemTime, u64)>>);

impl Files {
    pub(super) fn new(certificates: &Path, key: &Path) -> Self {
        Self {
            certificates: vec![(certificates.to_owned(), key.to_owned())],
            clients: None,
            alpn: vec![b"http/1.1".to_vec()],
        }
    }

    pub(super) fn add(&mut self, certificates: &Path, key: &Path) {
        let pair = (certificates.to_owned(), key.to_owned());
        self.certificates.push(pair);
    }

    pub(super) fn stamp(&self) -> Stamp {
        let pairs = self.certificates.iter();
        let clients = self.clients.iter().map(|clients| &clients.authorities);
        let paths = pairs.flat_map(|(chain, key)| [chain, key]).chain(clients);
        let stamp = |path: &PathBuf| {
            let file = fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        };
        Stamp(paths.map(stamp).collect())
    }

    pub(super) fn load(&self) -> Result<Arc<ServerConfig>, Error> {
        let provider = provider()?;
        let keys = self.certificates.iter();
        let keys = keys.map(|(chain, key)| certified(chain, key, &provider));
        let chosen = Arc::new(ByName {
            keys: keys.collect::<Result<_, _>>()?,
        });
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::config(format!("this provider can't speak TLS: {error}")))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(clients.verifier(provider)?),
        };
        let mut config = builder.with_cert_resolver(chosen);
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(Arc::new(config))
    }
}

/// The cryptography: the process's choice, else the feature's.
fn provider() -> Result<Arc<CryptoProvider>, Error> {
    if let Some(installed) = CryptoProvider::get_default() {
        return Ok(installed.clone());
    }
    #[cfg(feature = "tls-aws-lc-rs")]
    return Ok(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().into());
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
    return Ok(tokio_rustls::rustls::crypto::ring::default_provider().into());
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    Err(Error::config(
        "TLS from files needs cryptography: the feature `tls-aws-lc-rs` or `tls-ring`, or a CryptoProvider installed before",
    ))
}

fn certified(
    chain: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let unusable = |path: &Path, what: &str, why: String| {
        Error::config(format!("the {what} `{}`: {why}", path.display()))
    };
    let certificates = certificates(chain)?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unusable(key, "private key", error.to_string()))?;
    // Says too whether the two belong together.
    CertifiedKey::from_der(certificates, secret, provider)
        .map(Arc::new)
        .map_err(|error| {
            let with = format!("{error}, with the key `{}`", key.display());
            unusable(chain, "certificate", with)
        })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unusable =
        |why: String| Error::config(format!("the certificate `{}`: {why}", path.display()));
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it holds none".to_owned()));
    }
    Ok(certificates)
}

impl Clients {
    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>, Error> {
        let unusable = |why: String| {
            let path = self.authorities.display();
            Error::config(format!("the authorities of clients `{path}`: {why}"))
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authorities)? {
            let added = roots.add(authority);
            added.map_err(|error| unusable(error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let builder = if self.required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        builder.build().map_err(|error| unusable(error.to_string()))
    }
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = client.signature_schemes();
        let is_usable = |key: &CertifiedKey| key.key.choose_scheme(schemes).is_some();
        let name = client.server_name().and_then(|name| {
            // One certificate is everybody's: its names needn't be read.
            (self.keys.len() > 1).then(|| ServerName::try_from(name).ok())?
        });
        let fits = |key: &CertifiedKey| name.as_ref().is_some_and(|name| is_for(key, name));
        let usable = || self.keys.iter().filter(|key| is_usable(key));
        let chosen = usable().find(|key| fits(key)).or_else(|| usable().next());
        chosen.cloned()
    }
}

/// Whether a certificate is valid for the name, by the rules of whoever will verify it (RFC 9525).
fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.end_entity_cert().ok().map(ParsedCertificate::try_from);
    let certificate = certificate.and_then(Result::ok);
    certificate.is_some_and(|certificate| verify_server_name(&certificate, name).is_ok())
}
