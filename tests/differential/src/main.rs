//! `wharf-differential`: says all payloads to all servers and writes the table.

use std::process::ExitCode;

use wharf_differential::{Documents, Run};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
usage: wharf-differential [--results FILE]

  --results FILE  writes the table as Markdown, with date, versions and commit
";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wharf-differential: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing failed.
async fn run() -> Result<bool, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let file = match words[..] {
        [] => None,
        ["--results", file] => Some(file),
        _ => {
            print!("{USAGE}");
            return Ok(words == ["--help"]);
        }
    };
    let run = Run::of(Documents::read()).await?;
    println!("{}", run.summary());
    let failures = run.failures();
    failures.iter().for_each(|failure| println!("{failure}\n"));
    println!("{} failures", failures.len());
    if let Some(file) = file {
        std::fs::write(file, run.results()?)?;
    }
    Ok(failures.is_empty())
}
