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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payloads::Exception;
    use std::collections::BTreeMap;

    fn requests(targets: &[&str]) -> Vec<Request> {
        let request = |target: &&str| Request::new("GET", target, b"");
        targets.iter().map(request).collect()
    }

    fn took(targets: &[&str], status: u16) -> Outcome {
        Outcome {
            taken: requests(targets),
            statuses: vec![status],
        }
    }

    fn payload(meant: &[&str], rule: Option<&str>, lenient: &[&str]) -> Payload {
        Payload {
            name: "payload".to_owned(),
            bytes: vec![],
            meant: requests(meant),
            rule: rule.map(str::to_owned),
            lenient: requests(lenient),
        }
    }

    fn documents(excused: Option<&str>) -> Documents {
        let exception = |server: &str| Exception {
            server: server.to_owned(),
            payload: "payload".to_owned(),
            source: String::new(),
            text: String::new(),
        };
        Documents {
            payloads: vec![],
            rules: BTreeMap::new(),
            exceptions: excused.map(exception).into_iter().collect(),
        }
    }

    fn came(targets: &[&str], faults: &[&str]) -> Passage {
        Passage {
            outcome: took(targets, 200),
            faults: faults.iter().map(|fault| fault.to_string()).collect(),
        }
    }

    /// Beside hyper, which may be excused.
    fn judged(excused: Option<&str>, payload: &Payload, wharf: Outcome, hyper: Outcome) -> Beside {
        beside(&documents(excused), "hyper", payload, &wharf, &hyper)
    }

    #[test]
    fn taking_what_another_refuses_is_laxer() {
        let invalid = payload(&[], Some("rule"), &[]);
        let judged = judged(Some("hyper"), &invalid, took(&["/x"], 200), took(&[], 400));
        assert_eq!(judged, Beside::Laxer);
    }

    #[test]
    fn reading_something_else_than_another_is_laxer() {
        let invalid = payload(&["/x"], Some("rule"), &[]);
        let other = took(&["/y", "/z"], 200);
        let judged = judged(None, &invalid, took(&["/x"], 400), other);
        assert_eq!(judged, Beside::Laxer);
    }

    #[test]
    fn refusing_the_rest_of_what_another_takes_is_stricter() {
        let invalid = payload(&["/x"], Some("rule"), &[]);
        let other = took(&["/x", "/never"], 200);
        let judged = judged(None, &invalid, took(&["/x"], 400), other);
        assert_eq!(judged, Beside::Stricter);
    }

    #[test]
    fn another_that_refuses_what_is_valid_must_be_named() {
        let valid = payload(&["/x"], None, &[]);
        let judge = |excused| judged(excused, &valid, took(&["/x"], 200), took(&[], 400));
        assert_eq!(judge(None), Beside::Laxer);
        assert_eq!(judge(Some("Node")), Beside::Laxer);
        assert_eq!(judge(Some("hyper")), Beside::OtherDiffers);
    }

    #[test]
    fn a_name_in_the_list_excuses_no_misreading_of_wharfs_own() {
        let valid = payload(&["/x"], None, &[]);
        let judged = judged(Some("hyper"), &valid, took(&["/y"], 200), took(&[], 400));
        assert_eq!(judged, Beside::Laxer);
    }

    #[test]
    fn what_a_proxy_didnt_send_is_a_disagreement() {
        let valid = payload(&["/x"], None, &[]);
        let judged = through(
            &documents(Some("nginx")),
            "nginx",
            &valid,
            &came(&["/x"], &["no mark"]),
        );
        assert_eq!(judged, Through::Disagreement);
    }

    #[test]
    fn a_lenient_proxy_may_show_wharf_what_the_payload_allows_and_no_more() {
        let invalid = payload(&[], Some("rule"), &["/x", "/never"]);
        let judge = |seen: &[&str]| through(&documents(None), "nginx", &invalid, &came(seen, &[]));
        assert_eq!(judge(&[]), Through::AsMeant);
        assert_eq!(judge(&["/x"]), Through::Lenient);
        assert_eq!(judge(&["/never"]), Through::Lenient);
        assert_eq!(judge(&["/never", "/x"]), Through::Disagreement);
        assert_eq!(judge(&["/x", "/x"]), Through::Disagreement);
        assert_eq!(judge(&["/smuggled"]), Through::Disagreement);
    }

    #[test]
    fn a_valid_payload_comes_through_whole_unless_the_proxy_is_named() {
        let valid = payload(&["/x", "/next"], None, &[]);
        let judge = |excused| through(&documents(excused), "nginx", &valid, &came(&["/x"], &[]));
        assert_eq!(judge(None), Through::Disagreement);
        assert_eq!(judge(Some("nginx")), Through::ProxyDiffers);
    }
}
