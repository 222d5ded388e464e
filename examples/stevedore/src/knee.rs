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
const TRIES: usize = 24;
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
    let look = first_look(plan, interrupt, view).await?;
    if look.ended != Ended::Done {
        return Ok((look, "the search had not begun".to_owned()));
    }
    let capacity = look.rate();
    view.note(&knee_row(
        &look,
        capacity,
        "closed loop: where the search begins",
    ));

    let (mut search, mut best) = (Search::from(capacity), None);
    for _ in 0..TRIES {
        let rate = search.rate;
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
            let best = best.unwrap_or(outcome);
            return Ok((Outcome { ended, ..best }, search.cut_short()));
        }
        let verdict = judge(&outcome, condition);
        let next = search.learn(verdict.is_ok());
        let words = match (&verdict, next) {
            (Ok(()), _) => "holds".to_owned(),
            (Err(why), Next::Again) => format!("{why}; once more"),
            (Err(why), _) => why.clone(),
        };
        view.note(&knee_row(&outcome, rate, &words));
        if verdict.is_ok() {
            best = Some(outcome);
        }
        if next == Next::Enough {
            break;
        }
    }
    let (Some(held), Some(outcome)) = (search.held, best) else {
        return Err(format!(
            "{condition} doesn't even hold at {} requests/s",
            grouped(search.failed.unwrap_or(search.rate).max(1.0) as u64)
        ));
    };
    let failed = search
        .failed
        .map_or("any that was tried above".to_owned(), |failed| {
            grouped(failed as u64)
        });
    let sentence = format!(
        "knee: {} requests/s is the highest rate found at which {condition} holds; it doesn't at {failed}",
        grouped(held as u64),
    );
    Ok((outcome, sentence))
}

/// A closed loop, by which the search knows where to begin.
async fn first_look(
    plan: &Plan,
    interrupt: &mut Interrupt,
    view: &mut View,
) -> Result<Outcome, String> {
    let look = Plan {
        load: Load::Closed,
        end: End::After(FIRST_LOOK),
        ..plan.clone()
    };
    run(&Arc::new(look), interrupt, &mut |progress| {
        view.show(progress)
    })
    .await
}

/// Where the knee is, as far as it is known.
#[derive(Debug)]
struct Search {
    /// To be tried.
    rate: f64,
    held: Option<f64>,
    failed: Option<f64>,
    /// It has failed at this rate already. One failure may be chance, or somebody else on the machine.
    is_doubted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The same rate.
    Again,
    Another,
    Enough,
}

impl Search {
    /// `capacity` is what a closed loop reached: as a rule more than users can bear.
    fn from(capacity: f64) -> Self {
        Self {
            rate: capacity / 2.0,
            held: None,
            failed: None,
            is_doubted: false,
        }
    }

    fn cut_short(&self) -> String {
        match self.held {
            Some(held) => format!(
                "the search was cut short; it held at {}/s",
                grouped(held as u64)
            ),
            None => "the search was cut short before any rate held".to_owned(),
        }
    }

    fn learn(&mut self, holds: bool) -> Next {
        if !holds && !self.is_doubted {
            self.is_doubted = true;
            return Next::Again;
        }
        self.is_doubted = false;
        match holds {
            true => self.held = Some(self.rate),
            false => self.failed = Some(self.rate),
        }
        self.rate = match (self.held, self.failed) {
            (Some(held), Some(failed)) if failed / held <= NEAR => return Next::Enough,
            (Some(held), Some(failed)) => (held * failed).sqrt(),
            (Some(held), None) => held * 1.5,
            (None, _) if self.rate < 1.0 => return Next::Enough,
            (None, _) => self.rate / 4.0,
        };
        Next::Another
    }
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

#[cfg(test)]
mod tests {
    use super::{NEAR, Next, Search, TRIES};

    /// Searches where a rate holds up to `knee`, but fails once more in every `chance`th try.
    fn search(capacity: f64, knee: f64, chance: usize) -> Search {
        let mut search = Search::from(capacity);
        for number in 1..=TRIES {
            let holds = search.rate <= knee && number % chance != 0;
            if search.learn(holds) == Next::Enough {
                return search;
            }
        }
        panic!("not found in {TRIES} tries: {search:?}");
    }

    #[test]
    fn the_knee_is_found_wherever_it_is() {
        for knee in [3.0, 10.0, 333.0, 999.0, 1_000.0, 1_700.0] {
            let found = search(1_000.0, knee, usize::MAX);
            let (held, failed) = (found.held.unwrap(), found.failed.unwrap());
            assert!(held <= knee && knee <= failed, "{knee}: {found:?}");
            assert!(failed / held <= NEAR, "{knee}: {found:?}");
        }
    }

    #[test]
    fn one_failure_by_chance_does_not_mislead_it() {
        for chance in [2, 3, 5] {
            let found = search(1_000.0, 700.0, chance);
            assert!(found.held.unwrap() > 700.0 / NEAR, "{chance}: {found:?}");
        }
    }

    #[test]
    fn what_never_holds_has_no_knee() {
        let found = search(1_000.0, 0.0, usize::MAX);
        assert!(
            found.held.is_none() && found.failed.unwrap() < 1.0,
            "{found:?}"
        );
    }
}
