//! One request and its response, as the connection sees them: made when a head is complete, gone when the response
//! and the request's body are done. Whether and why the connection ends is decided here, once.

use http::request;
use tokio::sync::oneshot;

use super::wire::Stop;
use crate::codec::{self, Close, Kind};
use crate::conn::{CloseReason, Live, RequestLine};
use crate::error::{Reason, Reject};
use crate::http1::deadline::{Late, Phase};
use crate::upgrade::Upgraded;

/// Small, because a connection keeps it across every wait: what is rare is boxed.
pub(super) struct Exchange {
    /// What the codec knows of it.
    pub(super) codec: codec::Exchange,
    /// Its number on the connection, from 1.
    pub(super) number: u64,
    /// Its method and path, until it has to be waited for: then they are shown to whoever looks.
    request: Option<RequestLine>,
    /// Takes the socket, if the request offered to leave HTTP.
    pub(super) upgrade: Option<Box<oneshot::Sender<Upgraded>>>,
    why: Option<Box<CloseReason>>,
}

impl Exchange {
    #[inline(always)]
    pub(super) fn new(codec: codec::Exchange, number: u64, parts: &request::Parts) -> Self {
        Self {
            codec,
            number,
            request: Some(RequestLine::of(parts)),
            upgrade: None,
            why: None,
        }
    }

    /// The answer to a request that no handler sees.
    pub(super) fn last(method: Kind) -> Self {
        Self {
            codec: codec::Exchange::last(method),
            number: 0,
            request: None,
            upgrade: None,
            why: None,
        }
    }

    /// It has to be waited for.
    pub(super) fn show(&mut self, live: &Live) {
        if let Some(request) = self.request.take() {
            live.show(request);
        }
    }

    /// It is over.
    #[inline]
    pub(super) fn hide(&mut self, live: &Live) {
        if self.request.is_none() {
            live.hide();
        }
    }

    /// The connection ends with this exchange; the first reason stays.
    pub(super) fn close(&mut self, why: CloseReason) {
        if self.codec.close.is_none() {
            self.codec.close = Some(Close::Connection);
            self.why = Some(Box::new(why));
        }
    }

    /// Why the connection ends with this exchange, if it does.
    pub(super) fn closes(&mut self) -> Option<CloseReason> {
        let close = self.codec.close?;
        Some(self.why.take().map_or_else(|| close.into(), |why| *why))
    }
}

/// How long a closing connection listens to a peer that may still be sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linger {
    /// Only to what has come already.
    Not,
    /// For what may be on its way: requests of a client that didn't know yet.
    Briefly,
    /// For as long as it goes on sending what nobody reads, within limits.
    Long,
}

impl Linger {
    /// After a whole exchange.
    pub(super) fn after(why: &CloseReason, has_input: bool) -> Self {
        match why {
            CloseReason::BodyUnread | CloseReason::Refused(_) | CloseReason::BodyTimeout => {
                Self::Long
            }
            _ if has_input => Self::Long,
            CloseReason::ClientAsked => Self::Not,
            _ => Self::Briefly,
        }
    }
}

/// How a connection ends.
pub(super) enum Ending {
    /// The request is answered with an error, which must arrive. The method decides whether that has content.
    Refuse(Reject, Option<Kind>),
    /// What is owed is sent. If the peer may still be sending, it is listened to for a while, lest the kernel
    /// destroys the answer with a reset.
    Close { why: CloseReason, linger: Linger },
    /// The response under way can't be finished: what was encoded of it is sent, its end is not. Where only the end
    /// of the connection would show its end, the stream is reset, so that it can't look complete.
    BreakOff { why: CloseReason, is_framed: bool },
    /// Nothing more can be sent, or is worth it.
    Abort(CloseReason),
    /// What is owed is sent and the socket leaves HTTP.
    HandOver(Option<Box<oneshot::Sender<Upgraded>>>),
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
            Stop::Told(why) => Self::Abort(why),
            Stop::Late(Late::Writing) => Self::Abort(CloseReason::WriteTimeout),
            Stop::Late(Late::Reading) => Self::refuse(Reason::BodyTimeout),
            Stop::Late(Late::Phase(phase)) => match phase {
                Phase::Idle(after) => Self::Close {
                    why: CloseReason::Idle { after },
                    linger: Linger::Not,
                },
                Phase::Head => Self::refuse(Reason::HeadTimeout),
                Phase::Ready => Self::refuse(Reason::NotReady),
                Phase::Drain | Phase::Linger => Self::Close {
                    why: CloseReason::BodyUnread,
                    linger: Linger::Long,
                },
            },
        }
    }
}
