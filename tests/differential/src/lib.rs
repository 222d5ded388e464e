//! The same bytes to wharf, hyper, Node and nginx, and through nginx and HAProxy to wharf: who takes them for what.
//!
//! wharf may refuse what another serves, by a rule that is named. It never serves what another refuses, nor reads it otherwise, unless
//! the payload is valid by the RFCs and the other's refusal is listed by name. Behind a proxy it sees what the proxy's client meant.

#![warn(missing_docs)]

mod child;
mod client;
mod direct;
mod payloads;
mod report;
mod request;
mod through;
mod verdict;

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../support/notation.rs"]
mod notation;

use direct::{Outcome, Server};
use through::{Passage, Proxy};

pub use payloads::Documents;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What all servers made of all payloads.
pub struct Run {
    documents: Documents,
    versions: Vec<String>,
    wharf: Vec<Outcome>,
    /// By name, each payload's in the payloads' order.
    others: Vec<(&'static str, Vec<Outcome>)>,
    proxies: Vec<(&'static str, Vec<Passage>)>,
}

impl Run {
    /// Says all payloads to all servers, each server's one after the other, all servers at the same time.
    ///
    /// # Errors
    ///
    /// When a server can't be run (for want of its program: which package to install), or doesn't end a connection in time.
    pub async fn of(documents: Documents) -> Result<Self, Failure> {
        let programs = [child::NODE, child::NGINX, child::HAPROXY];
        let versions = programs.map(child::Program::version);
        let versions = versions.into_iter().collect::<Result<_, _>>()?;
        let payloads = &documents.payloads[..];
        let (wharf, httparse, hyper, node, nginx, behind_nginx, behind_haproxy) = tokio::try_join!(
            direct::in_process(Server::Wharf, payloads),
            direct::in_process(Server::WharfHttparse, payloads),
            direct::in_process(Server::Hyper, payloads),
            direct::node(payloads),
            through::through(Proxy::Nginx, Server::Hyper, payloads),
            through::through(Proxy::Nginx, Server::Wharf, payloads),
            through::through(Proxy::Haproxy, Server::Wharf, payloads),
        )?;
        // What nginx takes is what it sends on.
        let nginx = nginx.into_iter().map(|passage| passage.outcome).collect();
        Ok(Self {
            versions,
            wharf,
            others: vec![
                ("wharf/httparse", httparse),
                ("hyper", hyper),
                ("Node", node),
                ("nginx", nginx),
            ],
            proxies: vec![("nginx", behind_nginx), ("HAProxy", behind_haproxy)],
            documents,
        })
    }
}
