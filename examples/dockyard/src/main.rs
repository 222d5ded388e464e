//! dockyard, the example service of wharf: a blob store that serves as a build cache, with a live page.
//!
//! ```text
//! cargo run --release -p dockyard -- --demo
//! ```
//!
//! Read `serve` from top to bottom: that is the way from the socket to the handler, and the response comes back up.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use dockyard::api::{self, Api};
use dockyard::banner::Banner;
use dockyard::live::{Facts, Lines, Live, Phases, Tally, Watched};
use dockyard::settings::Settings;
use dockyard::store::Changes;
use http::Response;
use tower::ServiceBuilder;
use wharf::{BoxError, ConnInfoLayer, Http, Limits, PerPeer, Reject, Shutdown};
use wharf_middleware::{AccessLog, KeepAlive, OverloadLayer, Timeout, Timings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve(Settings::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dockyard: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> Result<(), BoxError> {
    let changes = Changes::new();
    let store = settings.open_store(changes.clone())?;
    let (server, listening) = settings.server()?;
    let handle = server.handle();
}
