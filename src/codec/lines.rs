//! Field lines that came before on this thread: a browser sends the same `user-agent` with every request, and the next
//! browser often the same `accept-encoding`. A line is known by all its bytes, so what it was found to be holds.
//!
//! Bounded, and nobody's secret: [`SLOTS`] lines of at most [`LONGEST`] bytes, copies that pin no read buffer, and only
//! of names that say nothing about a person or a session, as how long a comparison takes can be seen from outside.

use bytes::Bytes;
use http::HeaderValue;

use super::framing::Field;
use super::names::Entry;
use super::target::{self, Host};
use super::usual::Fresh;

/// Lines that a thread keeps, about 100 KB of them at most.
const SLOTS: usize = 256;
const LONGEST: usize = 256;
/// One in so many lines that aren't known is kept, in the place of another: what comes often gets there soon, and
/// what comes once costs next to nothing.
const ONE_IN: u32 = 16;

/// A field line that was read before.
#[derive(Debug)]
pub(super) struct Line {
    /// With the line end.
    bytes: Bytes,
    pub(super) known: &'static Entry,
    pub(super) value: HeaderValue,
    /// What the value says where it is a `Host`, which is judged but once: saves 60 instructions.
    pub(super) host: Option<Host>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// The lines that a thread keeps.
#[derive(Debug)]
pub(super) struct Lines {
    slots: [Option<Box<Line>>; SLOTS],
    unknown: u32,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            slots: [const { None }; SLOTS],
            unknown: 0,
        }
    }
}

/// The place of a line among those kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot(u8);

impl Lines {
    /// The line kept in `slot`, if `rest` begins with it.
    #[inline(always)]
    pub(super) fn find(&self, slot: Slot, rest: &[u8]) -> Option<&Line> {
        self.at(slot).filter(|line| rest.starts_with(&line.bytes))
    }

    #[inline(always)]
    pub(super) fn at(&self, slot: Slot) -> Option<&Line> {
        self.slots[usize::from(slot.0)].as_deref()
    }

    /// Takes note of a valid line for which there was none in its slot; `value` is a place in it.
    #[inline(always)]
    pub(super) fn note(&mut self, known: &'static Entry, fresh: &Fresh, head: &[u8]) {
        if known.is_kept {
            self.unknown = self.unknown.wrapping_add(1);
            if self.unknown.is_multiple_of(ONE_IN) {
                self.keep(known, fresh, head);
            }
        }
    }

    #[cold]
    fn keep(&mut self, known: &'static Entry, Fresh { span, next, slot }: &Fresh, head: &[u8]) {
        let line = head.get(span.name as usize..*next as usize);
        let Some(line) = line.filter(|line| line.len() <= LONGEST) else {
            return;
        };
        let bytes = Bytes::copy_from_slice(line);
        let value = (span.value - span.name) as usize..(span.value_end - span.name) as usize;
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes.slice(value)) {
            let host = match known.field {
                Field::Host => target::host(value.as_bytes()),
                _ => None,
            };
            self.slots[usize::from(slot.0)] = Some(Box::new(Line {
                bytes,
                known,
                value,
                host,
            }));
        }
    }
}

impl Slot {
    /// The slot of the line that `rest` begins with, by sixteen bytes: the name and, in most lines, what differs
    /// between values. None where less is left than any field and the end of a head need.
    #[inline(always)]
    pub(super) fn of(rest: &[u8]) -> Option<Self> {
        let first = u64::from_le_bytes(*rest.first_chunk()?);
        let second = u64::from_le_bytes(*rest.get(..16).unwrap_or(rest).last_chunk()?);
        let mixed = (first ^ second.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Some(Self((mixed >> 56) as u8))
    }
}
