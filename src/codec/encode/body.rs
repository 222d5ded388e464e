//! Response bodies into bytes: by length, in chunks (RFC 9112 section 7.1) or until the connection ends. Writes what the
//! head promised and nothing beyond it; what falls short of it is an error.

use bytes::Buf;
use http::header::HeaderMap;

use super::{EncodeError, field};
use crate::codec::chunked::is_forbidden_in_trailers;
use crate::codec::{EncodeBody, Output};

/// Writes one response body, framed as its head says.
#[derive(Debug)]
pub struct BodyEncoder(State);

impl BodyEncoder {
    #[inline]
    pub(super) fn new(state: State) -> Self {
        Self(state)
    }
}

/// How a body's end shows.
#[derive(Debug)]
pub(super) enum State {
    /// No content goes out, whatever the body has.
    Silent,
    /// That many bytes are still owed to the declared length; an ended body owes none.
    Known(u64),
    Chunked,
    UntilClose,
}

impl EncodeBody for BodyEncoder {
    #[inline]
    fn is_done(&self) -> bool {
        matches!(self.0, State::Silent | State::Known(0))
    }

    #[inline]
    fn is_framed(&self) -> bool {
        !matches!(self.0, State::UntilClose)
    }

    #[inline(always)]
    fn data<B: Buf>(&mut self, data: B, output: &mut Output) -> Result<(), EncodeError> {
        let count = data.remaining();
        if count == 0 {
            // Here because a chunk of no bytes would be the end of the body (RFC 9112 section 7.1).
            return Ok(());
        }
        match &mut self.0 {
            // What nearly every response is: all that was declared at once.
            State::Known(left) if *left == count as u64 => {
                let written = output.put_buf(data);
                *left -= written as u64;
                whole(written, count)
            }
            State::Silent => Ok(()),
            State::Known(left) => known(left, data, count, output),
            State::Chunked => chunk(data, count, output),
            State::UntilClose => until_close(data, count, output),
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap, output: &mut Output) -> Result<(), EncodeError> {
        if !matches!(self.0, State::Chunked) {
            return self.end(output);
        }
        let mark = output.mark();
        output.put(b"0\r\n");
        for (name, value) in trailers {
            if !is_forbidden_in_trailers(name)
                && let Err(error) = field(name, value, output)
            {
                output.truncate(mark);
                return Err(error);
            }
        }
        output.put(b"\r\n");
        self.0 = State::Known(0);
        Ok(())
    }

    #[inline]
    fn end(&mut self, output: &mut Output) -> Result<(), EncodeError> {
        match self.0 {
            State::Silent | State::Known(0) => return Ok(()),
            State::Known(_) => return Err(EncodeError::TooShort),
            State::Chunked => output.put(b"0\r\n\r\n"),
            State::UntilClose => {}
        }
        self.0 = State::Known(0);
        Ok(())
    }
}

fn known<B: Buf>(
    left: &mut u64,
    data: B,
    count: usize,
    output: &mut Output,
) -> Result<(), EncodeError> {
    let fits = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
    let written = if fits == count {
        output.put_buf(data)
    } else {
        output.put_buf(data.take(fits))
    };
    *left -= written as u64;
    whole(written, fits)?;
    if fits < count {
        return Err(EncodeError::TooLong);
    }
    Ok(())
}

fn chunk<B: Buf>(data: B, count: usize, output: &mut Output) -> Result<(), EncodeError> {
    const DIGITS: usize = 2 * size_of::<usize>();
    let mut size = [0; DIGITS + 2];
    let mut at = DIGITS;
    let mut rest = count;
    while rest > 0 {
        at -= 1;
        size[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    size[DIGITS..].copy_from_slice(b"\r\n");
    output.put(&size[at..]);
    whole(output.put_buf(data), count)?;
    output.put(b"\r\n");
    Ok(())
}

fn until_close<B: Buf>(data: B, count: usize, output: &mut Output) -> Result<(), EncodeError> {
    whole(output.put_buf(data), count)
}

/// A `Buf` that has less than it said has made the body shorter than declared.
fn whole(written: usize, promised: usize) -> Result<(), EncodeError> {
    if written < promised {
        return Err(EncodeError::TooShort);
    }
    Ok(())
}
