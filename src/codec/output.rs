//! Bytes owed to the peer, in order. Small pieces are copied into one buffer that is kept, large ones are held as
//! they came and go out beside it without a copy. Knows neither HTTP nor sockets; how much may be owed is the
//! connection's decision.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// From this size on a piece is held instead of copied: below it, copying costs less than one more `IoSlice`.
const LARGE: usize = 4 * 1024;
/// The first allocation: a usual head with a small body, or a few of them.
const FIRST: usize = 1024;

/// Bytes owed to the peer.
///
/// ```
/// use std::io::IoSlice;
/// use wharf::codec::Output;
///
/// let mut output = Output::default();
/// output.put(b"HTTP/1.1 200 OK\r\n\r\n");
/// output.put_buf(bytes::Bytes::from(vec![b'x'; 65_536]));
/// assert_eq!(output.len(), 19 + 65_536);
///
/// let mut slices = [IoSlice::new(&[]); Output::SLICES];
/// assert_eq!(output.slices(&mut slices), 2);
/// output.advance(20);
/// assert_eq!(output.len(), 65_535);
/// ```
#[derive(Debug, Default)]
pub struct Output {
    /// Initialised to its whole length once, then written over: the owed part is `start..end`.
    small: Vec<u8>,
    start: usize,
    end: usize,
    large: VecDeque<Large>,
    large_bytes: usize,
}

/// A piece that was not copied, never empty.
#[derive(Debug)]
struct Large {
    /// It goes out before the byte of `small` at this index.
    place: usize,
    bytes: Bytes,
}

/// How far an [`Output`] had come, to return to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    small: usize,
    large: usize,
}

impl Output {
    /// As many slices as are worth giving to one vectored write.
    pub const SLICES: usize = 64;

    /// How many bytes are owed.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start + self.large_bytes
    }

    /// Nothing is owed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        copy(self.claim(bytes.len()), bytes);
    }

    /// Appends what `buf` has: small chunks are copied, large ones held without a copy where their type allows it.
    ///
    /// Returns the number of bytes appended: what `buf` said to have [remaining](Buf::remaining), or less if it
    /// breaks the contract of [`Buf`] and runs dry early.
    #[inline(always)]
    pub fn put_buf<B: Buf>(&mut self, buf: B) -> usize {
        let promised = buf.remaining();
        // What nearly every response is: a small body in one chunk.
        match buf.chunk().get(..promised) {
            Some(whole) if promised < LARGE => {
                self.put(whole);
                promised
            }
            _ => self.put_chunks(buf, promised),
        }
    }

    fn put_chunks<B: Buf>(&mut self, mut buf: B, promised: usize) -> usize {
        let mut left = promised;
        loop {
            let chunk = buf.chunk();
            let count = chunk.len().min(left);
            if count == 0 {
                break;
            }
            if count < LARGE {
                self.put(&chunk[..count]);
                buf.advance(count);
            } else {
                self.hold(buf.copy_to_bytes(count));
            }
            left -= count;
        }
        promised - left
    }

    fn hold(&mut self, bytes: Bytes) {
        self.large_bytes += bytes.len();
        self.large.push_back(Large {
            place: self.end,
            bytes,
        });
    }

    /// All that is owed, if it lies in one piece.
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        if self.large.is_empty() {
            return Some(&self.small[self.start..self.end]);
        }
        match self.large.front() {
            Some(only) if self.large.len() == 1 && self.start == self.end => Some(&only.bytes),
            _ => None,
        }
    }

    /// Fills `slices` from the front with what is owed and returns how many are filled.
    ///
    /// With fewer slices than there are pieces, the rest stays owed for the next write.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut free = slices.iter_mut();
        let mut filled = 0;
        let mut fill = |bytes: &'a [u8]| {
            let Some(slice) = free.next() else {
                return false;
            };
            *slice = IoSlice::new(bytes);
            filled += 1;
            true
        };
        let mut at = self.start;
        for large in &self.large {
            if at < large.place && !fill(&self.small[at..large.place]) || !fill(&large.bytes) {
                return filled;
            }
            at = large.place;
        }
        if at < self.end {
            fill(&self.small[at..self.end]);
        }
        filled
    }

    /// Takes `count` bytes off the front: the peer has them.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.len(), "more was written than was owed");
        if self.large.is_empty() {
            self.start = self.end.min(self.start + count);
        } else {
            self.advance_over_large(count);
        }
        if self.start == self.end && self.large.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }

    fn advance_over_large(&mut self, mut count: usize) {
        while let Some(large) = self.large.front_mut() {
            let before = large.place - self.start;
            if count < before {
                break;
            }
            count -= before;
            self.start = large.place;
            let held = large.bytes.len();
            if count < held {
                large.bytes.advance(count);
                self.large_bytes -= count;
                return;
            }
            count -= held;
            self.large_bytes -= held;
            self.large.pop_front();
        }
        self.start = self.end.min(self.start + count);
    }

    /// How far this has come, for [`truncate`](Output::truncate).
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark {
            small: self.end - self.start,
            large: self.large.len(),
        }
    }

    /// Takes back what was appended since `mark`, if nothing was [taken off](Output::advance) since.
    pub fn truncate(&mut self, mark: Mark) {
        self.end = self.end.min(self.start + mark.small);
        for taken in self.large.drain(mark.large.min(self.large.len())..) {
            self.large_bytes -= taken.bytes.len();
        }
    }

    /// Bytes of memory kept for small pieces.
    pub fn capacity(&self) -> usize {
        self.small.len()
    }

    /// Gives memory back if nothing is owed and more than `keep` bytes of it are kept.
    pub fn shrink(&mut self, keep: usize) {
        if self.is_empty() && self.small.len() > keep {
            *self = Self::default();
        }
    }

    /// The next `count` bytes, appended with unspecified content: the caller writes over all of them.
    #[inline]
    pub(in crate::codec) fn claim(&mut self, count: usize) -> &mut [u8] {
        if self.small.len() - self.end < count {
            self.grow(count);
        }
        let from = self.end;
        self.end += count;
        &mut self.small[from..self.end]
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        let owed = self.end - self.start;
        // Moving down what is owed pays only where at least as much room is won, else it could cost O(n²).
        if owed > self.start || self.small.len() - owed < more {
            let length = (self.end + more)
                .max(self.small.len() * 2)
                .max(FIRST)
                .next_multiple_of(64);
            self.small.resize(length, 0);
            return;
        }
        self.small.copy_within(self.start..self.end, 0);
        for large in &mut self.large {
            large.place -= self.start;
        }
        self.end = owed;
        self.start = 0;
    }
}

/// `copy_from_slice` for pieces of a few bytes: two copies of fixed size that may overlap, instead of a call.
#[inline(always)]
pub(in crate::codec) fn copy(to: &mut [u8], from: &[u8]) {
    if from.len() > 32 {
        to.copy_from_slice(from);
    } else if from.len() >= 16 {
        copy_ends::<16>(to, from);
    } else if from.len() >= 8 {
        copy_ends::<8>(to, from);
    } else if from.len() >= 4 {
        copy_ends::<4>(to, from);
    } else if from.len() >= 2 {
        copy_ends::<2>(to, from);
    } else {
        copy_ends::<1>(to, from);
    }
}

/// Copies a slice of `N` to `2 * N` bytes to one of the same length; a shorter one isn't copied.
#[inline(always)]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is owed, read through `slices` of the given number at a time.
    fn owed(output: &Output, at_once: usize) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); at_once];
        let filled = output.slices(&mut slices);
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    fn noise(seed: &mut u64) -> usize {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize
    }

    #[test]
    fn small_pieces_of_every_length_are_copied() {
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut output = Output::default();
            output.put(b"<");
            output.put(&bytes);
            output.put(b">");
            assert_eq!(
                output.as_slice().unwrap(),
                [b"<", &bytes[..], b">"].concat()
            );
            assert_eq!(output.len(), length + 2);
        }
    }

    #[test]
    fn a_large_piece_is_held_and_not_copied() {
        let bytes = Bytes::from(vec![7; LARGE]);
        let mut output = Output::default();
        assert_eq!(output.put_buf(bytes.clone()), LARGE);
        assert_eq!(output.as_slice().unwrap().as_ptr(), bytes.as_ptr());
        assert_eq!(output.capacity(), 0);
        output.put(b"tail");
        assert_eq!(output.as_slice(), None);
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(output.slices(&mut slices), 2);
        assert_eq!(slices[0].as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn a_chain_is_taken_chunk_by_chunk() {
        let large = Bytes::from(vec![7; LARGE]);
        let mut output = Output::default();
        output.put_buf(
            Bytes::from_static(b"head")
                .chain(large.clone())
                .chain(&b"tail"[..]),
        );
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(output.slices(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), large.as_ptr());
        assert_eq!(owed(&output, 4), [b"head", &large[..], b"tail"].concat());
    }

    #[test]
    fn a_buf_that_runs_dry_is_not_waited_for() {
        struct Liar(usize);
        impl Buf for Liar {
            fn remaining(&self) -> usize {
                100
            }
            fn chunk(&self) -> &[u8] {
                &b"abc"[self.0..]
            }
            fn advance(&mut self, count: usize) {
                self.0 += count;
            }
        }
        let mut output = Output::default();
        assert_eq!(output.put_buf(Liar(0)), 3);
        assert_eq!(output.as_slice().unwrap(), b"abc");
    }

    #[test]
    fn truncate_takes_back_small_and_large() {
        let mut output = Output::default();
        output.put(b"kept and sent");
        output.advance(9);
        let mark = output.mark();
        output.put(&[b'x'; 3000]);
        output.put_buf(Bytes::from(vec![7; LARGE]));
        output.put(b"more");
        output.truncate(mark);
        assert_eq!(output.as_slice().unwrap(), b"sent");
        assert_eq!(output.len(), 4);
    }

    #[test]
    fn any_order_of_putting_and_advancing_keeps_the_bytes() {
        for round in 0..400 {
            let mut seed = round;
            let mut output = Output::default();
            let mut model: VecDeque<u8> = VecDeque::new();
            for step in 0..60 {
                let length = match noise(&mut seed) % 8 {
                    0 => LARGE + noise(&mut seed) % 3,
                    1 => LARGE - 1 - noise(&mut seed) % 3,
                    2 => 0,
                    _ => noise(&mut seed) % 90,
                };
                let bytes: Vec<u8> = (0..length).map(|at| (at ^ step) as u8).collect();
                if noise(&mut seed).is_multiple_of(5) {
                    let mark = output.mark();
                    output.put_buf(&bytes[..]);
                    output.truncate(mark);
                }
                model.extend(&bytes);
                output.put_buf(Bytes::from(bytes));
                let sent = match noise(&mut seed) % 4 {
                    0 => 0,
                    1 => model.len(),
                    _ => noise(&mut seed) % (model.len() + 1),
                };
                assert_eq!(owed(&output, 200), *model.make_contiguous());
                assert!(model.make_contiguous().starts_with(&owed(&output, 3)));
                output.advance(sent);
                model.drain(..sent);
                assert_eq!(output.len(), model.len());
                assert_eq!(output.is_empty(), model.is_empty());
            }
            assert!(output.capacity() < 64 * LARGE, "{}", output.capacity());
        }
    }

    #[test]
    fn a_write_has_no_empty_pieces() {
        let large = Bytes::from(vec![7; LARGE]);
        let mut output = Output::default();
        output.put_buf(large.clone());
        output.put_buf(large);
        assert_eq!(output.slices(&mut [IoSlice::new(&[]); 4]), 2);
        output.put(b"tail");
        assert_eq!(output.slices(&mut [IoSlice::new(&[]); 4]), 3);
        output.advance(LARGE);
        assert_eq!(output.slices(&mut [IoSlice::new(&[]); 4]), 2);
        output.advance(LARGE);
        assert_eq!(output.slices(&mut [IoSlice::new(&[]); 4]), 1);
    }

    #[test]
    fn memory_is_asked_for_seldom() {
        let mut output = Output::default();
        let mut sizes = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            output.put(&[b'x'; 100]);
            sizes.insert(output.capacity());
        }
        assert!(sizes.len() <= 16, "{sizes:?}");
    }

    #[test]
    fn what_just_fits_needs_no_more_memory() {
        for (more, is_more) in [(23, false), (24, false), (25, true)] {
            let mut output = Output::default();
            output.put(&[b'x'; FIRST - 24]);
            let before = output.capacity();
            assert_eq!(before, FIRST);
            output.put(&vec![b'y'; more]);
            assert_eq!(output.capacity() > before, is_more, "{more}");
            assert_eq!(output.len(), FIRST - 24 + more);
        }
    }

    #[test]
    fn memory_is_given_back_only_when_nothing_is_owed() {
        let mut output = Output::default();
        output.put(&[b'x'; 3000]);
        output.shrink(1024);
        assert_eq!(output.len(), 3000);
        output.advance(3000);
        output.shrink(4096);
        let capacity = output.capacity();
        assert!(capacity >= 3000);
        output.shrink(capacity);
        assert_eq!(output.capacity(), capacity);
        output.shrink(capacity - 1);
        assert_eq!(output.capacity(), 0);
    }

    #[test]
    fn what_the_peer_has_makes_room_where_it_is_at_least_as_much_as_is_owed() {
        for (taken, more, is_more) in [
            (FIRST / 2 - 1, 100, true),
            (FIRST / 2, 100, false),
            (FIRST / 2, FIRST / 2, false),
            (FIRST / 2, FIRST / 2 + 1, true),
            (FIRST / 2 + 1, 100, false),
        ] {
            let mut output = Output::default();
            output.put(&[b'x'; FIRST]);
            output.advance(taken);
            output.put(&vec![b'y'; more]);
            assert_eq!(output.capacity() > FIRST, is_more, "{more} behind {taken}");
            assert_eq!(output.len(), FIRST - taken + more);
        }
    }

    #[test]
    fn a_slow_reader_does_not_make_the_buffer_grow() {
        let mut output = Output::default();
        output.put(&[b'x'; 700]);
        for _ in 0..10_000 {
            output.put(&[b'x'; 100]);
            output.advance(100);
        }
        assert_eq!(output.len(), 700);
        assert!(output.capacity() <= 4 * FIRST, "{}", output.capacity());
    }
}
