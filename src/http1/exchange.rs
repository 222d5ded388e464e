//! One request and its response, as the connection sees them: made when a head is complete, gone when the response
//! and the request's body are done. Whether and why the connection ends is decided here, once.

use tokio::sync::oneshot;

use super::wire::Stop;
use crate::codec::{self, Close, Kind};
use crate::conn::CloseReason;
use crate::error::{Reason, Reject};
use crate::http1::deadline::{Late, Phase};
use crate::upgrade::Upgraded;

pub(super) struct Exchange {
    /// What the codec knows of it.
    pub(super) codec: codec::Exchange,
    /// Its number on the connection, from 1.
    pub(super) number: u64,
    /// Takes the socket, if the request offered to leave HTTP.
    pub(super) upgrade: Option<oneshot::Sender<Upgraded>>,
    why: Option<CloseReason>,
}

impl Exchange {
    pub(super) fn new(codec: codec::Exchange, number: u64) -> Self {
        Self {
            codec,
            number,
            upgrade: None,
            why: None,
        }
    }

    /// The connection ends with this exchange; the first reason stays.
    pub(super) fn close(&mut self, why: CloseReason) {
        if self.codec.close.is_none() {
            self.codec.close = Some(Close::Connection);
            self.why = Some(why);
        }
    }

    /// Why the connection ends with this exchange, if it does.
    pub(super) fn closes(&mut self) -> Option<CloseReason> {
        let close = self.codec.close?;
        Some(self.why.take().unwrap_or_else(|| close.into()))
    }
}

/// How a connection ends.
pub(super) enum Ending {
    /// The request is answered with an error, which must arrive. The method decides whether that has content.
    Refuse(Reject, Option<Kind>),
    /// What is owed is sent. If the peer may still be sending, it is listened to for a while, lest the kernel
    /// destroys the answer with a reset.
    Close { why: CloseReason, linger: bool },
    /// The response under way can't be finished: what was encoded of it is sent, its end is not. Where only the end
    /// of the connection would show its end, the stream is reset, so that it can't look complete.
    BreakOff { why: CloseReason, is_framed: bool },
    /// Nothing more can be sent, or is worth it.
    Abort(CloseReason),
    /// What is owed is sent and the socket leaves HTTP.
    HandOver(Option<oneshot::Sender<Upgraded>>),
}

impl Ending {
    fn refuse(reason: Reason) -> Self {
        Self::Refuse(Reject::new(reason), None)
    }

    /// The same, for an exchange whose head is known.
    pub(super) fn of(self, exchange: &Exchange) -> Self {
        match self {
            Self::Refuse(reject, _) => Self::Refuse(reject, Some(exchange.codec.method)),
            other => other,
        }
    }
}

impl From<Stop> for Ending {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Io(kind) => Self::Abort(CloseReason::Io(kind)),
            Stop::Cut => Self::Abort(CloseReason::Cut),
            Stop::Late(Late::Writing) => Self::Abort(CloseReason::WriteTimeout),
            Stop::Late(Late::Reading) => Self::refuse(Reason::BodyTimeout),
            Stop::Late(Late::Phase(phase)) => match phase {
                Phase::Idle(after) => Self::Close {
                    why: CloseReason::Idle { after },
                    linger: false,
                },
                Phase::Head => Self::refuse(Reason::HeadTimeout),
                Phase::Ready => Self::refuse(Reason::NotReady),
                Phase::Drain | Phase::Linger => Self::Close {
                    why: CloseReason::BodyUnread,
                    linger: true,
                },
            },
        }
    }
}
