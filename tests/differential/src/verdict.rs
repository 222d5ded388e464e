//! What is the same, what is stricter, what is laxer. The only place that judges.

use crate::direct::Outcome;
use crate::payloads::{Documents, Payload};
use crate::request::Request;
use crate::through::Passage;

/// wharf beside another server, for one payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// Both took the same requests.
    Same,
    /// wharf took the first of those that the other took, and refused the rest by the payload's rule.
    Stricter,
    /// All of it is valid and wharf took it as meant; the other didn't, as listed.
    OtherDiffers,
    /// wharf took what the other refused, or took it for something else.
    Laxer,
}

/// How a payload came through a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Through {
    /// wharf saw what was meant.
    AsMeant,
    /// It saw more of it, as the payload says that a lenient proxy may read it, and all that the proxy sent.
    Lenient,
    /// All of it is valid and the proxy refused it, as listed.
    Refused,
    /// wharf saw something else.
    Disagreement,
}

/// Whether wharf itself did what the payload means: the requests, and the refusal behind them or none.
pub fn as_meant(payload: &Payload, wharf: &Outcome) -> bool {
    // Tunnels aren't made here: a CONNECT is taken, and answered with 405.
    let refused = wharf.refusal().is_some_and(|status| status != 405);
    wharf.taken == payload.meant && refused != payload.is_valid()
}

/// Judges wharf beside another.
pub fn beside(
    documents: &Documents,
    server: &str,
    payload: &Payload,
    wharf: &Outcome,
    other: &Outcome,
) -> Beside {
    if wharf.taken == other.taken {
        Beside::Same
    } else if payload.is_valid() {
        let excused = is_excused(documents, server, payload) && as_meant(payload, wharf);
        if excused {
            Beside::OtherDiffers
        } else {
            Beside::Laxer
        }
    } else if is_start(&wharf.taken, &other.taken) && as_meant(payload, wharf) {
        Beside::Stricter
    } else {
        Beside::Laxer
    }
}

/// Judges what came through a proxy.
pub fn through(documents: &Documents, proxy: &str, payload: &Payload, came: &Passage) -> Through {
    let seen = &came.outcome.taken;
    if !came.faults.is_empty() {
        Through::Disagreement
    } else if *seen == payload.meant {
        Through::AsMeant
    } else if payload.is_valid() {
        let refused = is_start(seen, &payload.meant) && came.outcome.refusal().is_some();
        if refused && is_excused(documents, proxy, payload) {
            Through::Refused
        } else {
            Through::Disagreement
        }
    } else if is_start(&payload.meant, seen) && is_start(seen, &payload.lenient) {
        Through::Lenient
    } else {
        Through::Disagreement
    }
}

fn is_excused(documents: &Documents, server: &str, payload: &Payload) -> bool {
    let mut exceptions = documents.exceptions.iter();
    exceptions.any(|exception| exception.server == server && exception.payload == payload.name)
}

fn is_start(requests: &[Request], of: &[Request]) -> bool {
    of.starts_with(requests)
}
