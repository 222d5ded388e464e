//! What can go wrong with a request, in one word each. Counters have one place for each kind, so the list is closed.

use std::fmt;
use std::io::{self, ErrorKind};

use crate::scan::Malformed;

/// Why a request has no answer, or the wrong one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody listens there.
    Refused,
    /// No connection, for another reason.
    Unreachable(String),
    /// This process has no more descriptors.
    NoDescriptors,
    /// No whole answer in time.
    Timeout,
    /// The connection ended before an answer began.
    Closed,
    /// The connection ended within an answer.
    CutOff,
    Reset,
    /// The answer isn't HTTP.
    Malformed(Malformed),
    /// The answer belongs to another request.
    Crossed,
    /// The answer's content isn't the request's.
    Differs,
}

/// A place among the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// Nobody listened there.
    Refused,
    /// No connection, for another reason.
    Unreachable,
    /// This process had no more descriptors.
    NoDescriptors,
    /// No whole answer in time.
    Timeout,
    /// The connection ended before an answer began.
    Closed,
    /// The connection ended within an answer.
    CutOff,
    /// The connection was reset.
    Reset,
    /// The answer was not HTTP.
    Malformed,
    /// The answer belonged to another request.
    Crossed,
    /// The answer's content was not the request's.
    Differs,
}

impl FaultKind {
    /// All of them, in the order of the counters.
    pub(crate) const ALL: [Self; 10] = [
        Self::Refused,
        Self::Unreachable,
        Self::NoDescriptors,
        Self::Timeout,
        Self::Closed,
        Self::CutOff,
        Self::Reset,
        Self::Malformed,
        Self::Crossed,
        Self::Differs,
    ];

    /// The key in machine-readable reports.
    #[must_use]
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::NoDescriptors => "no_descriptors",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::CutOff => "cut_off",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::Crossed => "crossed",
            Self::Differs => "differs",
        }
    }

    /// What happened, for people.
    #[must_use]
    pub(crate) fn explain(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "no connection",
            Self::NoDescriptors => "too many open files",
            Self::Timeout => "no answer in time",
            Self::Closed => "closed before the answer",
            Self::CutOff => "answer cut off",
            Self::Reset => "connection reset",
            Self::Malformed => "answer is not HTTP",
            Self::Crossed => "answer of another request",
            Self::Differs => "answer is not the echo",
        }
    }

    /// Whether no connection came about.
    pub(crate) fn is_of_connecting(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Unreachable | Self::NoDescriptors
        )
    }
}

impl Fault {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Self::Reset
            }
            _ => Self::CutOff,
        }
    }

    pub(crate) fn of_connecting(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            // EMFILE and ENFILE have no kind of their own.
            _ if matches!(error.raw_os_error(), Some(23 | 24)) => Self::NoDescriptors,
            ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable(error.to_string()),
        }
    }

    pub(crate) fn kind(&self) -> FaultKind {
        match self {
            Self::Refused => FaultKind::Refused,
            Self::Unreachable(_) => FaultKind::Unreachable,
            Self::NoDescriptors => FaultKind::NoDescriptors,
            Self::Timeout => FaultKind::Timeout,
            Self::Closed => FaultKind::Closed,
            Self::CutOff => FaultKind::CutOff,
            Self::Reset => FaultKind::Reset,
            Self::Malformed(_) => FaultKind::Malformed,
            Self::Crossed => FaultKind::Crossed,
            Self::Differs => FaultKind::Differs,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "no connection ({why})"),
            Self::NoDescriptors => {
                f.write_str("this process may not open more files: raise `ulimit -n` or lower -c")
            }
            Self::Malformed(why) => write!(f, "an answer is not HTTP: {why}"),
            other => f.write_str(other.kind().explain()),
        }
    }
}
