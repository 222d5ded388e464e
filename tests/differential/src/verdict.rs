//! What is the same, what is stricter, what is laxer. The only place that judges.

use crate::direct::Outcome;
use crate::payloads::{Documents, Payload};
use crate::request::Request;
use crate::through::Passage;

/// wharf beside another server, for one payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Beside {
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
pub(crate) enum Through {
    /// wharf saw what was meant.
    AsMeant,
    /// It saw what the payload says that a lenient proxy may read in it, or of that what wharf itself takes.
    Lenient,
    /// All of it is valid and the proxy didn't take it as meant, as listed; wharf saw what the proxy sent.
    ProxyDiffers,
    /// wharf saw something else.
    Disagreement,
}

/// Whether wharf itself did what the payload means: the requests, and the refusal behind them or none.
pub(crate) fn as_meant(payload: &Payload, wharf: &Outcome) -> bool {
    // Tunnels aren't made here: a CONNECT is taken, and answered with 405.
    let refused = wharf.refusal().is_some_and(|status| status != 405);
    wharf.taken == payload.meant && refused != payload.is_valid()
}

/// Judges wharf beside another.
pub(crate) fn beside(
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
    } else if other.taken.starts_with(&wharf.taken) && as_meant(payload, wharf) {
        Beside::Stricter
    } else {
        Beside::Laxer
    }
}

/// Judges what came through a proxy.
pub(crate) fn through(
    documents: &Documents,
    proxy: &str,
    payload: &Payload,
    came: &Passage,
) -> Through {
    let seen = &came.outcome.taken;
    if !came.faults.is_empty() {
        Through::Disagreement
    } else if *seen == payload.meant {
        Through::AsMeant
    } else if payload.is_valid() {
        // It stopped short, or went on behind the end that was meant.
        let is_part = payload.meant.starts_with(seen) || seen.starts_with(&payload.meant);
        if is_part && is_excused(documents, proxy, payload) {
            Through::ProxyDiffers
        } else {
            Through::Disagreement
        }
    } else if seen.starts_with(&payload.meant) && is_part(seen, &payload.lenient) {
        Through::Lenient
    } else {
        Through::Disagreement
    }
}

fn is_excused(documents: &Documents, server: &str, payload: &Payload) -> bool {
    let mut exceptions = documents.exceptions.iter();
    exceptions.any(|exception| exception.server == server && exception.payload == payload.name)
}

/// Whether these are some of those, in their order: what the proxy sent on and wharf refused is missing.
fn is_part(some: &[Request], of: &[Request]) -> bool {
    let mut rest = of.iter();
    some.iter()
        .all(|request| rest.any(|other| other == request))
}
