//! The highest rate at which a condition holds: an open loop, tried at one rate after the other, each time anew.

use std::sync::Arc;
use std::time::Duration;

use crate::amount::grouped;
use crate::condition::Condition;
use crate::plan::{End, Load, Plan};
use crate::report::knee_row;
use crate::run::{Ended, Interrupt, Outcome, run};
use crate::schedule::Arrivals;
use crate::view::View;

/// The search ends when what failed is no more than that above what held.
const NEAR: f64 = 1.05;
const TRIES: usize = 16;
/// Of the requests that were due, so many must have been answered without an error for a rate to be sustainable.
const SUSTAINED: f64 = 0.98;
/// How long the closed loop runs by which the search knows where to begin.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Searches, and hands back the run at the knee with a sentence about it.
///
/// # Errors
///
/// A sentence, when the condition doesn't even hold at the lowest rate that is tried, or nothing could be measured.
pub(crate) async fn find(
    plan: &Arc<Plan>,
    condition: &Condition,
    interrupt: &mut Interrupt,
    view: &mut View,
) -> Result<(Outcome, String), String> {
    let look = Plan {
        load: Load::Closed,
        end: End::After(FIRST_LOOK),
        ..Plan::clone(plan)
    };
    let look = run(&Arc::new(look), interrupt, &mut |progress| {
        view.show(progress)
    })
    .await?;
    if look.ended != Ended::Done {
        return Ok((look, "the search had not begun".to_owned()));
    }
    let capacity = look.rate();
    view.note(&knee_row(
        &look,
        capacity,
        "closed loop: where the search begins",
    ));

    let (mut rate, mut held, mut failed) = (capacity / 2.0, None::<(f64, Outcome)>, None::<f64>);
    for _ in 0..TRIES {
        let load = Load::Open {
            rate,
            arrivals: Arrivals::Poisson,
        };
        // What is under way at the end is no sign of too much; what found no connection is.
        let attempt = Arc::new(Plan {
            load,
            wait: true,
            ..Plan::clone(plan)
        });
        let outcome = run(&attempt, interrupt, &mut |progress| view.show(progress)).await?;
        if outcome.ended != Ended::Done {
            let ended = outcome.ended.clone();
            let (rate, best) = held.unwrap_or((rate, outcome));
            let sentence = format!(
                "the search was cut short; it held at {}/s",
                grouped(rate as u64)
            );
            return Ok((Outcome { ended, ..best }, sentence));
        }
        let verdict = judge(&outcome, condition);
        view.note(&knee_row(
            &outcome,
            rate,
            &verdict
                .as_ref()
                .map_or_else(Clone::clone, |()| "holds".to_owned()),
        ));
        match verdict {
            Ok(()) => held = Some((rate, outcome)),
            Err(_) => failed = Some(rate),
        }
        rate = match (&held, failed) {
            (Some((held, _)), Some(failed)) if failed / held <= NEAR => break,
            (Some((held, _)), Some(failed)) => (held * failed).sqrt(),
            (Some((held, _)), None) => held * 1.5,
            (None, _) if rate < 1.0 => break,
            (None, _) => rate / 4.0,
        };
    }
    let Some((rate, outcome)) = held else {
        return Err(format!(
            "{condition} doesn't even hold at {} requests/s",
            grouped(rate.max(1.0) as u64)
        ));
    };
    let sentence = format!(
        "knee: {} requests/s is the highest rate found at which {condition} holds; it doesn't at {}",
        grouped(rate as u64),
        failed.map_or("any that was tried above".to_owned(), |failed| grouped(
            failed as u64
        )),
    );
    Ok((outcome, sentence))
}

/// Whether a rate is sustainable, or why not.
fn judge(outcome: &Outcome, condition: &Condition) -> Result<(), String> {
    let tally = &outcome.tally;
    let due = (tally.answered() + tally.failed() + tally.unfinished) as f64;
    let good = (tally.answered() + tally.failed() - tally.errors()) as f64;
    let own = match outcome.overhead.bottleneck() {
        Some(_) => ", and stevedore was the bottleneck",
        None => "",
    };
    if good < SUSTAINED * due {
        return Err(format!(
            "fails: only {:.0} % were answered well{own}",
            good * 100.0 / due.max(1.0)
        ));
    }
    match condition.holds(outcome) {
        true => Ok(()),
        false => Err(format!("fails: it is {}{own}", condition.explain(outcome))),
    }
}
