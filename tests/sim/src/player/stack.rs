//! The whole stack of a simulation, from the stream to the actor.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{Service, ServiceBuilder, service_fn};
use tower_layer::Layer;
use wharf::codec::{Codec, Httparse, Strict};
use wharf::test::Control;
use wharf::tls::TlsStream;
use wharf::{Body, BoxError, Conn, Http, Limits};

use super::{Connection, DAY};
use crate::actor::Actor;
use crate::bugs::{Bug, Bugged};
use crate::net;
use crate::script::Script;
use crate::timing::{Parser, Timing};
use crate::tls::{self, Counted};
use crate::world::World;

/// The connection over this stream, and what tells it to stop.
pub(super) fn connect(
    script: &Script,
    timing: &Timing,
    bug: Option<Bug>,
    world: &Rc<World>,
    io: net::Io,
) -> (Connection, Control) {
    let house = &script.house;
    let timeout = Duration::from_millis(house.timeout.unwrap_or(DAY));
    let service = ServiceBuilder::new()
        .concurrency_limit(house.at_once)
        .timeout(timeout)
        .service(Bugged::new(Actor::new(world.clone()), bug));
    let limits = bug.map_or_else(|| house.limits(), |bug| bug.limits(house.limits()));
    let http = Http::new().limits(limits);
    let most = timing.side_by_side;
    let conn = Conn::from(io);
    let control = Control::of(&conn);
    let net = timing.over_tls.then(|| world.net.clone());
    let connection = match (bug, timing.parser) {
        (Some(bug), _) => {
            Stack(http.codec(bug.codec(world)), most, service, Some(bug)).over(conn, net)
        }
        (None, Parser::Strict) => {
            Stack(http.codec(Strict::new), most, service, None).over(conn, net)
        }
        (None, Parser::Httparse) => {
            Stack(http.codec(Httparse::new), most, service, None).over(conn, net)
        }
    };
    (connection, control)
}

/// HTTP and what it serves: so many requests side by side, with a bug around its stream perhaps.
struct Stack<M, S>(Http<M>, Option<usize>, S, Option<Bug>);

impl<M, C, S, B> Stack<M, S>
where
    M: Fn(&Limits) -> C + 'static,
    C: Codec + 'static,
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + 'static,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    /// Over TLS, if there is a net to be told of the plain text.
    fn over(self, conn: Conn<net::Io>, net: Option<net::Shared>) -> Connection {
        let Some(net) = net else {
            return self.buggy(conn);
        };
        let stack = Rc::new(Cell::new(Some(self)));
        let mut secured = tls::layer().layer(service_fn(move |conn: Conn<TlsStream<net::Io>>| {
            let conn = conn.map_io(|io| Counted::new(io, net.clone()));
            let serving = stack.take().map(|stack| stack.buggy(conn));
            async { Ok::<_, Infallible>(serving.expect("one connection").await) }
        }));
        Box::pin(async move {
            let Ok(report) = secured.call(conn).await;
            report
        })
    }

    fn buggy<Io>(self, conn: Conn<Io>) -> Connection
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match self.3 {
            None => self.plain(conn),
            Some(bug) => self.plain(conn.map_io(|io| bug.stream(io))),
        }
    }

    fn plain<Io>(self, conn: Conn<Io>) -> Connection
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self(http, side_by_side, service, _) = self;
        let works = "limits that work";
        match side_by_side {
            None => Box::pin(http.connection(conn, service).expect(works)),
            Some(most) => {
                let http = http.concurrent_pipelining(most);
                Box::pin(http.connection(conn, service).expect(works))
            }
        }
    }
}
