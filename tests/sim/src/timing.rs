//! How the bytes and the time of a simulation are cut: what must not change an answer.

use std::fmt;

use crate::random::Random;

/// How a script is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// What chance decides while it is played.
    pub seed: u64,
    /// How the client's bytes are sent.
    pub sends: Cut,
    /// How many of them a read finds.
    pub reads: Cut,
    /// How many bytes a write takes.
    pub writes: Cut,
    /// In so many of a hundred cases a read, write, flush or shutdown must wait first.
    pub waits: usize,
    /// For at most so many milliseconds.
    pub wait_most: u64,
    /// In so many of a hundred cases the connection is woken for nothing.
    pub spurious: usize,
    /// The stream buffers what is written until it is flushed, as TLS does.
    pub buffers: bool,
    /// Which head parser.
    pub parser: Parser,
    /// So many pipelined requests are handled at a time; `None`: the layer isn't there.
    pub side_by_side: Option<usize>,
    /// The stream is encrypted, and what is cut are its records.
    pub over_tls: bool,
}

/// How many bytes go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All that there are.
    Whole,
    /// One to so many.
    UpTo(usize),
    /// Only one.
    One,
}

impl Cut {
    /// How many of `bytes`, which are more than none.
    pub fn of(self, bytes: usize, random: &mut Random) -> usize {
        match self {
            Self::Whole => bytes,
            Self::UpTo(most) => random.between(1, most).min(bytes),
            Self::One => 1,
        }
    }
}

/// The head parsers that ship.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parser {
    /// `codec::Strict`
    Strict,
    /// `codec::Httparse`
    Httparse,
}

impl Timing {
    /// The timing of a seed. Small contents may be cut into single bytes; `bytes` is how many there are.
    pub fn of(seed: u64, bytes: usize) -> Self {
        let mut random = Random::new(seed);
        let timed = random.percent(70);
        Self {
            seed: random.number(),
            sends: cut(&mut random, bytes),
            reads: cut(&mut random, bytes),
            writes: cut(&mut random, bytes),
            waits: if timed {
                random.pick(&[0, 5, 20, 50])
            } else {
                0
            },
            wait_most: random.pick(&[0, 1, 3, 30]),
            spurious: random.pick(&[0, 0, 0, 10]),
            buffers: random.percent(15),
            parser: random.pick(&[Parser::Strict, Parser::Strict, Parser::Httparse]),
            side_by_side: random.percent(30).then(|| random.pick(&[1, 2, 3, 8])),
            over_tls: false,
        }
    }

    /// The plainest timing.
    pub fn plain(seed: u64) -> Self {
        Self {
            seed,
            sends: Cut::Whole,
            reads: Cut::Whole,
            writes: Cut::Whole,
            waits: 0,
            wait_most: 0,
            spurious: 0,
            buffers: false,
            parser: Parser::Strict,
            side_by_side: None,
            over_tls: false,
        }
    }
}

fn cut(random: &mut Random, bytes: usize) -> Cut {
    // Slices grow with what there is to be cut, so that no simulation takes long.
    let least = bytes / 60 + 1;
    match random.below(100) {
        0..55 => Cut::Whole,
        55..58 if bytes < 300 => Cut::One,
        _ => Cut::UpTo(random.between(least, least * 4)),
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sends,
            reads,
            writes,
            waits,
            wait_most,
            spurious,
            ..
        } = self;
        write!(
            f,
            "  timing: sends {sends:?}, reads {reads:?}, writes {writes:?}, {:?}",
            self.parser
        )?;
        if let Some(most) = self.side_by_side {
            write!(f, ", {most} side by side")?;
        }
        if self.over_tls {
            write!(f, ", over TLS")?;
        }
        if self.buffers {
            write!(f, ", the stream buffers")?;
        }
        if *waits > 0 || *wait_most > 0 {
            write!(
                f,
                ", waits in {waits} of 100 cases, for at most {wait_most} ms"
            )?;
        }
        if *spurious > 0 {
            write!(f, ", woken for nothing in {spurious} of 100 cases")?;
        }
        Ok(())
    }
}
