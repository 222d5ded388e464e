//! `wharf-attack`: hostile clients, failing kernels and restarts, one sub-command a row. Each drives wharf and, beside it
//! in the same run, axum 0.8's own server, and says of wharf whether it holds its target.

use std::process::ExitCode;

mod child;
mod client;
mod figures;
mod identity;
mod poisson;
mod proxy;
mod rows;
mod run;
mod serve;
mod verdict;

/// Counts what is in use, which the resident memory can't tell: the allocator keeps what it has.
#[global_allocator]
static HEAP: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
usage: wharf-attack all|quick|ROW… [--quick] [--json FILE] [--results FILE]
       wharf-attack list
       wharf-attack serve wharf|axum|bare [--OPTION VALUE]…
       wharf-attack proxy UPSTREAM [--port N] [--delay-ms N] [--slice N] [--stall-after|--reset-after|--half-close-after N]

Attacks servers in processes of their own, on the loopback network, prints a line of JSON for each figure and a table at
the end. Exit code 0: wharf held all its targets; 1: it didn't; 2: this can't be run as it was asked.

  all             every row in its full form: 20 minutes
  quick           every row at small size, for each change: under two minutes
  ROW             a row by its name or the id of one of its figures: slow-head, T1
  list            the rows, each with the ids of its figures
  serve           only the server, which says where it listens
  proxy           a proxy that delays, slices, stalls or breaks what passes
  --quick         the rows that are named, at small size
  --json FILE     the lines as one array
  --results FILE  the table as Markdown, with date, machine and commit
";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("serve") => serve::run(words).map(|()| true),
        Some("proxy") => proxy::run(words).map(|()| true),
        Some("list") => {
            rows::all().iter().for_each(|row| println!("{row}"));
            Ok(true)
        }
        Some(first) if first != "--help" => {
            run::run(std::iter::once(first.to_owned()).chain(words))
        }
        _ => {
            print!("{USAGE}");
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wharf-attack: {error}");
            ExitCode::from(2)
        }
    }
}
