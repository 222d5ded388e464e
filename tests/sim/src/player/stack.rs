//! The whole stack of a simulation, from the stream to the actor.

use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{Service, ServiceBuilder};
use wharf::codec::{Codec, Httparse, Strict};
use wharf::test::Control;
use wharf::{Body, BoxError, Conn, Http, Limits};

use super::{Connection, DAY};
use crate::actor::Actor;
use crate::bugs::{Bug, Bugged};
use crate::net::Io;
use crate::script::Script;
use crate::timing::{Parser, Timing};
use crate::world::World;

/// The connection over this stream, and what tells it to stop.
pub(super) fn connect(
    script: &Script,
    timing: &Timing,
    bug: Option<Bug>,
    world: &Rc<World>,
    io: Io,
) -> (Connection, Control) {
    let house = &script.house;
    let timeout = Duration::from_millis(house.timeout.unwrap_or(DAY));
    let stack = ServiceBuilder::new()
        .concurrency_limit(house.at_once)
        .timeout(timeout)
        .service(Bugged::new(Actor::new(world.clone()), bug));
    let limits = bug.map_or_else(|| house.limits(), |bug| bug.limits(house.limits()));
    let http = Http::new().limits(limits);
    let most = timing.side_by_side;
    match (bug, timing.parser) {
        (Some(bug), _) => over(http.codec(bug.codec(world)), most, bug.stream(io), stack),
        (None, Parser::Strict) => over(http.codec(Strict::new), most, io, stack),
        (None, Parser::Httparse) => over(http.codec(Httparse::new), most, io, stack),
    }
}

fn over<M, C, Io, S, B>(
    http: Http<M>,
    side_by_side: Option<usize>,
    io: Io,
    stack: S,
) -> (Connection, Control)
where
    M: Fn(&Limits) -> C + 'static,
    C: Codec + 'static,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + 'static,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    let conn = Conn::from(io);
    let control = Control::of(&conn);
    let works = "limits that work";
    let connection: Connection = match side_by_side {
        None => Box::pin(http.connection(conn, stack).expect(works)),
        Some(most) => {
            let http = http.concurrent_pipelining(most);
            Box::pin(http.connection(conn, stack).expect(works))
        }
    };
    (connection, control)
}
