//! Compares servers on loopback. `drive measure PART [--quick]` measures one part and keeps its rows in a file;
//! `drive report` makes a table and a picture of all files. A part that is there already isn't measured again, so a run
//! that was stopped goes on where it was.

use std::path::PathBuf;
use std::process::ExitCode;

mod load;
mod measure;
mod picture;
mod report;
mod rows;
mod servers;
mod table;
mod workloads;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where things are: the binaries of the peers, what was measured, what is written for readers.
struct Places {
    binaries: PathBuf,
    measured: PathBuf,
    written: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drive: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), BoxError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let binaries = std::env::current_exe()?;
    let binaries = binaries.parent().ok_or("no directory")?.to_owned();
    let measured =
        std::env::var_os("MEASURED").map_or_else(|| binaries.join("measured"), Into::into);
    let written = std::env::var_os("WRITTEN").map_or_else(|| measured.clone(), Into::into);
    let places = Places {
        binaries,
        measured,
        written,
    };
    match words.as_slice() {
        ["parts"] => {
            measure::parts().for_each(|part| println!("{part}"));
            Ok(())
        }
        ["measure", part] => measure::part(&places, part, &measure::FULL),
        ["measure", part, "--quick"] => measure::part(&places, part, &measure::QUICK),
        ["report"] => report::write(&places),
        _ => Err("usage: drive parts | measure PART [--quick] | report".into()),
    }
}
