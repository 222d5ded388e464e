//! The picture as a file of its own.

use crate::run::Outcome;

pub(crate) fn svg(outcome: &Outcome) -> String {
    super::chart::chart(outcome) + "\n"
}
