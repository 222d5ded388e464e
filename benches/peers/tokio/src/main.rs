//! The peers that run on tokio with the `http` crate's types, and the floor under all of them: one handler, one thread.
//! `peer-tokio SERVER ADDRESS [WORKERS]`. Each answers what [`answers`] says, so that only the container differs.

use std::net::TcpListener as Bound;
use std::process::ExitCode;

use tokio::net::TcpListener;

mod answers;
mod floor;
mod over_axum;
mod over_hyper;
mod over_wharf;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (server, address, workers) = match args.as_slice() {
        [server, address] => (server, address, 1),
        [server, address, workers] => (server, address, workers.parse().unwrap_or(1)),
        _ => {
            eprintln!(
                "usage: peer-tokio wharf|wharf-httparse|wharf-bare|wharf-axum|wharf-per-core|hyper|hyper-default|axum|floor ADDRESS [WORKERS]"
            );
            return ExitCode::from(2);
        }
    };
    match run(server, address, workers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{server} on {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(server: &str, address: &str, workers: usize) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if server == "wharf-per-core" {
            return over_wharf::per_core(address, workers).await;
        }
        let bound = Bound::bind(address)?;
        bound.set_nonblocking(true)?;
        let listener = TcpListener::from_std(bound)?;
        match server {
            "wharf" => over_wharf::full(listener).await,
            "wharf-httparse" => over_wharf::httparse(listener).await,
            "wharf-bare" => over_wharf::bare(listener).await,
            "wharf-axum" => over_wharf::router(listener).await,
            "hyper" => over_hyper::serve(listener, true).await,
            "hyper-default" => over_hyper::serve(listener, false).await,
            "axum" => over_axum::serve(listener).await,
            "floor" => floor::serve(listener).await,
            other => Err(format!("no server is called {other}").into()),
        }
    })
}
