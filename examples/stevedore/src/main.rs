//! stevedore, the load client, in a line: `args` make a `plan`; `run` starts threads, each of which does its `worker`'s
//! part: sends what its `source` gives over `connection`s and notes the answers in a `recorder`; `report` tells what came
//! of it, `view` while it comes. `knee` does that again and again, `compare` looks back at another run.
//!
//! It depends on nothing of wharf: a client that shared the server's parser would share its mistakes.

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Files, Job};
use compare::Base;
use fault::FaultKind;
use run::{Ended, Interrupt, Outcome};
use view::View;

mod amount;
mod args;
mod compare;
mod condition;
mod connection;
mod dial;
mod fault;
mod gauge;
mod grid;
mod knee;
mod misbehave;
mod overhead;
mod plan;
mod random;
mod recorder;
mod report;
mod run;
mod scan;
mod schedule;
mod source;
mod target;
mod timeline;
mod view;
mod worker;

/// Reads the arguments, does what they say, prints what came of it.
fn main() -> ExitCode {
    let done = Args::parse().job().and_then(|job| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| format!("no runtime could be started: {error}"))?;
        runtime.block_on(carry_out(job))
    });
    match done {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Ok(Verdict::Gone) => ExitCode::from(3),
        Ok(Verdict::Interrupted) => ExitCode::from(130),
        Err(sentence) => {
            say(&format!("stevedore: {sentence}\n"));
            ExitCode::from(2)
        }
    }
}

/// How it ended, as the exit status says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Failed,
    Gone,
    Interrupted,
}

async fn carry_out(job: Job) -> Result<Verdict, String> {
    let base = job.compare.as_deref().map(Base::read).transpose()?;
    let mut interrupt =
        Interrupt::new().map_err(|error| format!("signals can't be heard: {error}"))?;
    let mut view = View::new(job.quiet, job.no_tui);
    let (outcome, knee) = match &job.knee {
        Some(condition) => {
            let (outcome, sentence) =
                knee::find(&job.plan, condition, &mut interrupt, &mut view).await?;
            (outcome, Some(sentence + "\n"))
        }
        None => (
            run::run(&job.plan, &mut interrupt, &mut |progress| {
                view.show(progress)
            })
            .await?,
            None,
        ),
    };
    view.clear();
    report::write_files(&outcome, &job.files)?;
    let text = match job.quiet {
        true => report::last_line(&outcome) + "\n",
        false => report::text(&outcome),
    };
    tell(&job.files, &text);
    tell(&job.files, &knee.unwrap_or_default());
    if let Some(base) = &base {
        tell(&job.files, &compare::text(base, &outcome));
    }
    Ok(verdict(&job, &outcome))
}

/// What the run's end, the answers and the conditions mean, with a sentence for each that is bad.
fn verdict(job: &Job, outcome: &Outcome) -> Verdict {
    let mut verdict = Verdict::Fine;
    for condition in job
        .fail_if
        .iter()
        .filter(|condition| condition.holds(outcome))
    {
        say(&format!(
            "stevedore: failed: {condition} (it is {})\n",
            condition.explain(outcome)
        ));
        verdict = Verdict::Failed;
    }
    for kind in [FaultKind::Crossed, FaultKind::Differs] {
        let count = outcome.tally.fault(kind);
        if count > 0 {
            say(&format!(
                "stevedore: failed: {} × {}\n",
                amount::grouped(count),
                kind.explain()
            ));
            verdict = Verdict::Failed;
        }
    }
    match &outcome.ended {
        Ended::Done => verdict,
        Ended::Interrupted => {
            say("stevedore: interrupted; this was measured until then\n");
            Verdict::Interrupted
        }
        Ended::Gone(sentence) => {
            say(&format!("stevedore: {sentence}\n"));
            Verdict::Gone
        }
    }
}

/// To the standard output, unless a file has it. A reader that is gone is no error.
fn tell(files: &Files, text: &str) {
    use std::io::Write;
    if files.take_stdout() {
        say(text);
    } else {
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
}

fn say(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}
