//! `Range` and `If-Range`, read and decided. Nothing here reads a source.

use std::ops::Range;
use std::time::SystemTime;

use http::Method;
use http::header::{self, HeaderMap};

use crate::conditional::{Validators, only};

/// With more ranges than these the whole is sent.
pub const MAX_RANGES: usize = 16;

/// Which part of a representation a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Selection {
    /// All of it: 200.
    Whole,
    /// One part: 206 with `Content-Range`.
    One(Range<u64>),
    /// Several, none of which overlap, in the order they were asked for: 206 as `multipart/byteranges`.
    Many(Vec<Range<u64>>),
    /// Parts that don't exist: 416.
    Unsatisfiable,
}

/// Which part of `length` bytes a request gets, if its [conditions](crate::conditional::evaluate) hold.
///
/// `If-Range` is judged by `current` (RFC 9110 section 13.1.5): if it doesn't hold, the client needs the whole. The
/// choices that the standard leaves are in the table of [the module](super). Allocates only for several parts.
pub fn select(method: &Method, fields: &HeaderMap, current: &Validators, length: u64) -> Selection {
    if method != Method::GET {
        return Selection::Whole;
    }
    let Some(value) = only(fields, &header::RANGE) else {
        return Selection::Whole;
    };
    let Some(set) = byte_ranges(value.as_bytes()) else {
        return Selection::Whole;
    };
    if !current.are_those_of_if_range(fields, SystemTime::now) {
        return Selection::Whole;
    }

    let mut found: [Range<u64>; MAX_RANGES] = Default::default();
    let (mut asked, mut exist) = (0, 0);
    for member in set.split(|byte| *byte == b',') {
        let member = member.trim_ascii();
        // Empty members are to be ignored (RFC 9110 section 5.6.1.2).
        if member.is_empty() {
            continue;
        }
        let Some(spec) = Spec::parse(member) else {
            return Selection::Whole;
        };
        asked += 1;
        if asked > MAX_RANGES {
            return Selection::Whole;
        }
        match spec.within(length) {
            Within::Part(part) => {
                if found[..exist].iter().any(|other| overlap(other, &part)) {
                    return Selection::Whole;
                }
                found[exist] = part;
                exist += 1;
            }
            Within::Nothing => {}
            Within::Empty => return Selection::Whole,
        }
    }
    match &found[..exist] {
        _ if asked == 0 => Selection::Whole,
        [] => Selection::Unsatisfiable,
        [one] => Selection::One(one.clone()),
        many => Selection::Many(many.to_vec()),
    }
}

/// What stands behind `bytes=`; the unit's case doesn't matter (RFC 9110 section 14.1).
fn byte_ranges(value: &[u8]) -> Option<&[u8]> {
    const UNIT: &[u8] = b"bytes=";
    let (unit, set) = value.split_at_checked(UNIT.len())?;
    unit.eq_ignore_ascii_case(UNIT).then_some(set)
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// One range as it was asked for.
enum Spec {
    From { first: u64, last: Option<u64> },
    Last(u64),
}

enum Within {
    Part(Range<u64>),
    Nothing,
    /// The end of nothing, which there is.
    Empty,
}

impl Spec {
    fn parse(member: &[u8]) -> Option<Self> {
        let dash = member.iter().position(|byte| *byte == b'-')?;
        let (first, last) = (&member[..dash], &member[dash + 1..]);
        match (first, last) {
            ([], last) => number(last).map(Self::Last),
            (first, []) => Some(Self::From {
                first: number(first)?,
                last: None,
            }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                let last = Some(last).filter(|last| *last >= first)?;
                Some(Self::From {
                    first,
                    last: Some(last),
                })
            }
        }
    }

    fn within(self, length: u64) -> Within {
        match self {
            Self::Last(0) => Within::Nothing,
            Self::Last(_) if length == 0 => Within::Empty,
            Self::Last(count) => Within::Part(length.saturating_sub(count)..length),
            Self::From { first, .. } if first >= length => Within::Nothing,
            Self::From { first, last } => {
                let end = last.map_or(length, |last| last.saturating_add(1).min(length));
                Within::Part(first..end)
            }
        }
    }
}

/// Digits and nothing else; what is too large for a number is larger than any content.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    };
    let is_some = !digits.is_empty();
    digits.iter().try_fold(0, add).filter(|_| is_some)
}
