//! `X-Forwarded-*`: lists of bare values, read from the end. No RFC; addresses come with and without brackets and port.

use http::header::{HeaderMap, HeaderName};

use super::{Hop, X_FORWARDED_FOR, lines, node, trim};

/// The hops of `X-Forwarded-For`, the nearest first.
pub(super) fn from_the_end(fields: &HeaderMap) -> impl Iterator<Item = Hop> {
    // Empty elements are no hops (RFC 9110 section 5.6.1.2).
    let elements =
        lines(fields, &X_FORWARDED_FOR).flat_map(|line| line.rsplit(|byte| *byte == b','));
    let elements = elements.map(trim).filter(|element| !element.is_empty());
    elements.map(|element| Hop {
        ip: node::bare_address(element),
        ..Hop::default()
    })
}

/// The last value of a list: the one of which it is certain that the nearest proxy had it in hand.
pub(super) fn last<'a>(
    fields: &'a HeaderMap,
    name: &HeaderName,
    believed: bool,
) -> Option<&'a [u8]> {
    let line = believed.then(|| lines(fields, name).next())??;
    line.rsplit(|byte| *byte == b',').map(trim).next()
}
