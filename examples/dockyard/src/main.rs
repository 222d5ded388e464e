//! dockyard, the example service of wharf: a blob store that serves as a build cache, with a live page.
//!
//! ```text
//! cargo run --release -p dockyard -- --demo
//! ```
//!
//! Read `serve` from top to bottom: the stack in its middle is the way from the socket to the handler, and the response
//! comes back up.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use dockyard::api::{self, Api, Watches, problem};
use dockyard::banner::{self, Banner};
use dockyard::live::{self, Lines, Live, Phases, Tally, Watched};
use dockyard::settings::Settings;
use dockyard::store::Changes;
use dockyard::{demo, log};
use tower::ServiceBuilder;
use wharf::{BoxError, ConnInfoLayer, Http, Limits, PerPeer, Shutdown};
use wharf_middleware::{Health, KeepAlive, Metrics, Timeout, Timings};

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

const SECOND: Duration = Duration::from_secs(1);

async fn serve(settings: Settings) -> Result<(), BoxError> {
    // What is kept, and where it listens: both say at once what is in the way.
    let changes = Changes::new();
    let watches = Watches::of(&changes);
    let store = settings.open_store(changes)?;
    let (server, listening) = settings.server()?;
    let secure = settings.secure()?;
    let limits = Limits {
        header_fields: 64,
        ..Limits::default()
    };
    let facts = banner::facts(&settings, &listening, secure.as_ref(), store.place());
    let banner = Banner::new(&settings, &facts, &limits).to_string();

    // What looks on: each of these is a layer of the stack, and something to read.
    let (phases, timings, metrics) = (Phases::default(), Timings::new(), Metrics::new());
    let (lines, tally) = (Lines::default(), Arc::<Tally>::default());
    let access_log = log::access_log(settings.access_log.as_deref(), &lines)?;
    let handle = server.handle();

    // What answers: the API, the page, and what operators ask for.
    let api = Arc::new(Api::new(store.clone(), settings.largest.0, watches));
    let health = Health::new().follow(handle.clone());
    let figures = metrics.clone().follow(handle.clone());
    let figures = api::operators::figures(figures, &api, &access_log);
    let live = Live::watch(Watched {
        facts,
        handle: handle.clone(),
        metrics: metrics.clone(),
        phases: phases.clone(),
        timings: timings.clone(),
        lines,
        counts: api.counts.clone(),
        store,
        tally: tally.clone(),
        controls: !settings.no_controls,
    });
    let app = axum::Router::new()
        .merge(api::routes(api))
        .merge(live::routes(live))
        .merge(api::operators::routes(&health, &figures));

    let stack = ServiceBuilder::new()
        // Connections. Behind a balancer, the peer is whom the balancer names; nobody may have too many.
        .option_layer(settings.proxy_protocol()?)
        .layer(PerPeer::new(settings.per_peer))
        // Their bytes in plain text from here on, if they came encrypted.
        .option_layer(secure.as_ref().map(|secure| secure.layer.clone()))
        .layer(phases.connections())
        // Here connections become requests, be it HTTP/1.1 or HTTP/2. What is broken is refused in our own words, and told.
        .layer(
            Http::new()
                .limits(limits)
                .on_reject(problem::refused)
                .on_error(problem::failed)
                .on_refused(log::refused(&access_log, &tally))
                .with_http2(),
        )
        // Requests. The outer layers see everything that the inner ones do.
        .layer(phases.requests())
        .layer(metrics)
        .layer(timings.timed("client address", settings.trusted_proxies()?))
        .layer(timings.timed("access log", access_log.clone()))
        // Idle connections are kept for less long when the house is nearly full.
        .layer(timings.timed(
            "keep-alive",
            KeepAlive::new().crowded(0.8, 5 * SECOND, move || handle.fullness()),
        ))
        // So many requests at a time, a short queue, and a quick 503 for the rest.
        .layer(timings.timed("overload", settings.overload()))
        // A download whose disk has gone silent is given up.
        .layer(timings.timed("time-out", Timeout::new().gap(30 * SECOND)))
        // For handlers that want to know who asks.
        .layer(ConnInfoLayer)
        .service(api::or_explain(app));

    // Ctrl-C and SIGTERM drain; the second one cuts. Each worker accepts for itself and keeps what it accepts.
    let shutdown = Shutdown::on_signals()
        .lame_duck(settings.lame_duck)
        .drain(settings.drain)
        .progress(SECOND, |left| eprintln!("{left}"));
    if settings.demo {
        demo::start(&settings, &listening, secure.as_ref())?;
    }
    print!("{banner}");
    let report = server
        .shutdown(shutdown)
        .on_close(move |connection| tally.closed(connection))
        .on_accept_error(|error| eprintln!("dockyard: can't accept: {error}"))
        .serve_per_core(move || stack.clone())
        .await?;

    access_log.flush(2 * SECOND);
    println!("{report}");
    Ok(())
}
