//! The whole stack of a simulation, from the stream to the actor.

use std::rc::Rc;
use std::time::Duration;

use tower::ServiceBuilder;
use wharf::codec::{Httparse, Strict};
use wharf::test::Control;
use wharf::{Conn, Http, Limits};

use super::{Connection, DAY};
use crate::actor::Actor;
use crate::bugs::{Bug, Bugged};
use crate::net::Io;
use crate::script::Script;
use crate::timing::{Parser, Timing};
use crate::world::World;

pub(super) fn connect(
    script: &Script,
    timing: &Timing,
    bug: Option<Bug>,
    world: &Rc<World>,
    io: Io,
) -> (Connection, Control) {
    let house = &script.house;
    let timeout = Duration::from_millis(house.timeout.unwrap_or(DAY));
    let actor = Actor::new(world.clone());
    let actor = match bug {
        Some(bug) => bug.service(actor),
        None => Bugged::none(actor),
    };
    let stack = ServiceBuilder::new()
        .concurrency_limit(house.at_once)
        .timeout(timeout)
        .service(actor);
    let limits = bug.map_or_else(|| house.limits(), |bug| bug.limits(house.limits()));
    let http = Http::new().limits(limits);
    if let Some(bug) = bug {
        let conn = Conn::from(bug.stream(io));
        let control = Control::of(&conn);
        let http = http.codec(bug.codec(world));
        let connection: Connection = match timing.side_by_side {
            None => Box::pin(http.connection(conn, stack).expect("limits that work")),
            Some(most) => Box::pin(
                http.concurrent_pipelining(most)
                    .connection(conn, stack)
                    .expect("limits that work"),
            ),
        };
        return (connection, control);
    }
    let conn = Conn::from(io);
    let control = Control::of(&conn);
    let strict: fn(&Limits) -> Strict = Strict::new;
    let httparse: fn(&Limits) -> Httparse = Httparse::new;
    let connection: Connection = match (timing.parser, timing.side_by_side) {
        (Parser::Strict, None) => Box::pin(
            http.codec(strict)
                .connection(conn, stack)
                .expect("limits that work"),
        ),
        (Parser::Httparse, None) => Box::pin(
            http.codec(httparse)
                .connection(conn, stack)
                .expect("limits that work"),
        ),
        (Parser::Strict, Some(most)) => Box::pin(
            http.codec(strict)
                .concurrent_pipelining(most)
                .connection(conn, stack)
                .expect("limits that work"),
        ),
        (Parser::Httparse, Some(most)) => Box::pin(
            http.codec(httparse)
                .concurrent_pipelining(most)
                .connection(conn, stack)
                .expect("limits that work"),
        ),
    };
    (connection, control)
}
