//! The command line: what can be set, its defaults, and what can't be.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use wharf::{BoxError, Listener, ProxyProtocol, Server};
use wharf_middleware::{OverloadLayer, TrustedProxies};

use crate::store::embedded::{self, Embedded};
use crate::store::{Changes, Store};
use crate::tls::Secure;

/// A blob store that serves as a build cache, with a live page.
#[derive(Debug, Clone, Parser)]
#[command(name = "dockyard", version)]
pub struct Settings {
    /// Where to listen: ADDRESS:PORT or unix:PATH, as often as needed. Sockets that a supervisor hands over come on
    /// top; with those and without this, it listens on them alone [default: 127.0.0.1:8888]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// The store's folder [default: dockyard in $STATE_DIRECTORY, $XDG_CACHE_HOME or ~/.cache, which is made]
    #[arg(long, value_name = "FOLDER", conflicts_with = "memory")]
    pub store: Option<PathBuf>,
    /// Keep blobs in memory only
    #[arg(long)]
    pub memory: bool,
    /// Keep blobs in a bucket of an S3-compatible service instead: http(s)://host/bucket, with credentials and region
    /// as the AWS tools have them in the environment
    #[cfg(feature = "s3")]
    #[arg(long, value_name = "URL", conflicts_with_all = ["store", "memory"])]
    pub s3: Option<String>,
    /// Bytes to keep; beyond that, what was not used for longest goes
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    pub budget: Size,
    /// Bytes of the largest blob
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub largest: Size,
    /// Threads that serve, each with a queue of connections of its own [default: one a core]
    #[arg(long, value_name = "NUMBER")]
    pub workers: Option<usize>,
    /// Connections at a time [default: what the limit of open files leaves, at most 10,000]
    #[arg(long, value_name = "NUMBER")]
    pub max_connections: Option<usize>,
    /// Connections at a time from one address
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub per_peer: usize,
    /// Requests at a time; a few more wait for a moment, the rest is told to come back
    #[arg(long, value_name = "NUMBER", default_value_t = 512)]
    pub requests: usize,
    /// Require a PROXY protocol header, from these networks
    #[arg(long, value_name = "NETWORK")]
    pub proxy_protocol: Vec<String>,
    /// Believe X-Forwarded-For from these networks
    #[arg(long, value_name = "NETWORK")]
    pub trust: Vec<String>,
    /// Speak TLS, with a certificate that is made at the start for this machine alone: to try it out
    #[arg(long)]
    pub tls: bool,
    /// Speak TLS with the certificate chain in this PEM file; when the file has changed, the new one is taken into use
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "tls"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The private key to it, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Append the access log to this file, one JSON object a line; SIGHUP opens it anew
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// At a stop, go on accepting for this long, so that a balancer can notice
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub lame_duck: Duration,
    /// At a stop, give running requests this long
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub drain: Duration,
    /// The page can't stop the server or close connections
    #[arg(long)]
    pub no_controls: bool,
    /// Run a small client against the server, so that the page has something to show
    #[arg(long)]
    pub demo: bool,
}

impl Settings {
    /// The server with its listeners, bound.
    ///
    /// # Errors
    ///
    /// A sentence that says what can't be bound and why.
    pub fn server(&self) -> Result<(Server, Vec<String>), BoxError> {
        let mut listeners = Listener::inherited()?;
        for address in &self.listen {
            listeners.extend(wharf::IntoListeners::into_listeners(address.as_str())?);
        }
        if listeners.is_empty() {
            listeners.push(Listener::tcp(SocketAddr::from(([127, 0, 0, 1], 8888)))?);
        }
        let listening = listeners
            .iter()
            .map(|one| one.local().to_string())
            .collect();
        let mut server = Server::new().listen(listeners)?;
        if let Some(workers) = self.workers {
            server = server.workers(workers);
        }
        if let Some(most) = self.max_connections {
            server = server.max_connections(most);
        }
        Ok((server, listening))
    }

    /// The store, opened.
    ///
    /// # Errors
    ///
    /// A sentence that says what is in the way.
    pub fn open_store(&self, changes: Changes) -> Result<Store, BoxError> {
        #[cfg(feature = "s3")]
        if let Some(bucket) = &self.s3 {
            return self.open_bucket(bucket, changes);
        }
        let folder = match (&self.store, self.memory) {
            (_, true) => None,
            (Some(folder), _) => Some(folder.clone()),
            (None, false) => Some(usual_folder()?),
        };
        let settings = embedded::Settings {
            folder,
            budget: self.budget.0,
            largest: self.largest.0,
            ..embedded::Settings::default()
        };
        Ok(std::sync::Arc::new(Embedded::open(settings, changes)?))
    }

    #[cfg(feature = "s3")]
    fn open_bucket(&self, bucket: &str, changes: Changes) -> Result<Store, BoxError> {
        use crate::store::s3::{self, S3};
        let variable = |name: &str| std::env::var(name).ok();
        let settings = s3::Settings {
            bucket: bucket.to_owned(),
            region: variable("AWS_REGION").unwrap_or_else(|| "us-east-1".into()),
            credentials: s3::credentials(variable)?,
            largest: self.largest.0,
            scratch: None,
        };
        Ok(std::sync::Arc::new(S3::new(settings, changes)?))
    }

    /// The layer that bounds the requests at a time. Those of who runs it go through, also under load.
    pub fn overload(&self) -> OverloadLayer {
        OverloadLayer::limit(self.requests).exempt(|_, uri| {
            let path = uri.path();
            matches!(path, "/" | "/healthz" | "/readyz" | "/metrics") || path.starts_with("/live")
        })
    }

    /// The layer that reads PROXY headers, if there is to be one.
    ///
    /// # Errors
    ///
    /// A sentence that names what is no network.
    pub fn proxy_protocol(&self) -> Result<Option<ProxyProtocol>, BoxError> {
        if self.proxy_protocol.is_empty() {
            return Ok(None);
        }
        Ok(Some(ProxyProtocol::required().trust(&self.proxy_protocol)?))
    }

    /// TLS, if it is to be spoken.
    ///
    /// # Errors
    ///
    /// A sentence that names the file that can't be used, and why.
    pub fn secure(&self) -> Result<Option<Secure>, BoxError> {
        Ok(match (&self.tls_cert, &self.tls_key) {
            (Some(certificates), Some(key)) => Some(Secure::from_files(certificates, key)?),
            _ if self.tls => Some(Secure::for_a_try()?),
            _ => None,
        })
    }

    /// The layer that finds the client behind proxies.
    ///
    /// # Errors
    ///
    /// A sentence that names what is no network.
    pub fn trusted_proxies(&self) -> Result<TrustedProxies, BoxError> {
        Ok(TrustedProxies::x_forwarded_for().trust(&self.trust)?)
    }
}

/// A folder of dockyard's own, which is made; one that is named must be there, for it may be a disk that isn't mounted.
fn usual_folder() -> Result<PathBuf, BoxError> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let folder = from("STATE_DIRECTORY")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("dockyard")))
        .or_else(|| Some(from("HOME")?.join(".cache/dockyard")))
        .ok_or(
            "there is no home folder for the store: name a folder with --store, or use --memory",
        )?;
    std::fs::create_dir_all(&folder).map_err(|error| {
        format!(
            "the store's folder {} can't be made: {error}",
            folder.display()
        )
    })?;
    Ok(folder)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= 86_400.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| "a number of seconds, at most 86400".into())
}

/// A number of bytes, as people write it: `64KiB`, `10GiB`, `1000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (digits, shift) = unit.map_or((text, 0), |(unit, shift)| {
            (text[..text.len() - unit.len()].trim_end(), *shift)
        });
        let number: u64 = digits
            .parse()
            .map_err(|_| "a size like 64KiB, 512MiB, 10GiB or 1000")?;
        let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes > 0);
        bytes
            .map(Self)
            .ok_or("a size must be above zero and below 16 EiB")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits =
            |(_, shift): &&(&str, u32)| self.0 >> shift > 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().rev().find(fits) {
            Some((unit, shift)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0);
        assert_eq!(size("1000"), Ok(1000));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("10 GiB"), Ok(10 << 30));
        for bad in ["", "0", "x", "10GB", "-1", "99999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(Size(10 << 30).to_string(), "10 GiB");
        assert_eq!(Size(1000).to_string(), "1000 bytes");
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Settings::command().debug_assert();
    }
}
