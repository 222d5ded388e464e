//! Who a server over TLS says it is: a certificate and its key in a folder of their own, which goes with them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::Failure;

const NAME: &str = "attacked.test";

/// To be had by clients and, through the folder, by servers.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) folder: PathBuf,
}

impl Identity {
    pub(crate) fn new() -> Result<Self, Failure> {
        let name = format!("wharf-attack-{}-identity", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        fs::write(folder.join("certificate.pem"), made.cert.pem())?;
        fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
        Ok(Self { folder })
    }

    /// What a client goes by that trusts it.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(
            self.folder.join("certificate.pem"),
        )?)?;
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config.into())
    }

    pub(crate) fn name() -> ServerName<'static> {
        ServerName::DnsName(NAME.try_into().expect("a name"))
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What axum's server is given of such a folder.
pub(crate) fn server(folder: &str) -> Result<Arc<ServerConfig>, Failure> {
    let chain = vec![CertificateDer::from_pem_file(format!(
        "{folder}/certificate.pem"
    ))?];
    let key = PrivateKeyDer::from_pem_file(format!("{folder}/key.pem"))?;
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(config.into())
}
