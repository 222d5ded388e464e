//! TLS for this service: where its certificate comes from. What is done with one, and when a new one is taken, is the
//! layer's business.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use wharf::{BoxError, Tls};

/// Whom a certificate that is made at the start is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// TLS, and what there is to say of it.
pub struct Secure {
    /// The layer.
    pub layer: Tls,
    /// Which certificate it shows, for the banner: a line or two.
    pub certificate: Vec<String>,
    /// For a client in this process; where the certificate isn't one of its own, it can't tell whom to trust.
    pub connector: Option<TlsConnector>,
}

impl Secure {
    /// With a certificate from files. Changed files are taken into use, and on SIGHUP all are.
    ///
    /// # Errors
    ///
    /// A sentence that names the file that can't be used, and why.
    pub fn from_files(certificates: &Path, key: &Path) -> Result<Self, BoxError> {
        let layer = Tls::from_pem_files(certificates, key)?
            .with_http2()?
            .on_reload(say);
        let again = layer.clone();
        crate::on_hang_up(move || say(again.reload().as_ref().copied()))?;
        let from = format!(
            "from {}; a new one is taken into use",
            certificates.display()
        );
        Ok(Self {
            layer,
            certificate: vec![from],
            connector: None,
        })
    }

    /// With a certificate made now, in memory, for whoever tries it out on this machine.
    ///
    /// # Errors
    ///
    /// When there is no randomness to make a key of.
    pub fn for_a_try() -> Result<Self, BoxError> {
        let key = KeyPair::generate()?;
        let mut wanted = CertificateParams::new(NAMES.map(str::to_owned))?;
        let name = &mut wanted.distinguished_name;
        name.push(DnType::CommonName, "dockyard, to try it out");
        let certificate = wanted.self_signed(&key)?.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        Ok(Self {
            certificate: vec![
                format!(
                    "made just now for {}: your browser will warn of it once",
                    NAMES.join(", ")
                ),
                format!("SHA-256 {}", fingerprint(&certificate)),
                "for a real one: --tls-cert FILE --tls-key FILE".to_owned(),
            ],
            connector: Some(trusting(&certificate)?),
            layer: Tls::new(showing(certificate, key)?),
        })
    }
}

/// What came of reading the files again.
fn say(outcome: Result<(), &wharf::Error>) {
    match outcome {
        Ok(()) => eprintln!("dockyard: the certificate was read, and is in use from here on"),
        Err(error) => eprintln!("dockyard: the old certificate is still in use: {error}"),
    }
}

/// The server's side: this certificate, HTTP/2 preferred.
fn showing(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, BoxError> {
    let builder = ServerConfig::builder_with_provider(default_provider().into());
    let mut config = builder
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A client's side: this certificate and no other.
fn trusting(certificate: &CertificateDer<'static>) -> Result<TlsConnector, BoxError> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let builder = ClientConfig::builder_with_provider(default_provider().into());
    let config = builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// As browsers show it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate);
    let mut text = String::new();
    for (at, byte) in digest.iter().enumerate() {
        let colon = if at == 0 { "" } else { ":" };
        let _ = write!(text, "{colon}{byte:02X}");
    }
    text
}
