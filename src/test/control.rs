//! The server's word to a connection over a stream of one's own, where there is no server.

use std::fmt;
use std::sync::Arc;

use crate::conn::{By, Conn, Live, Told};

/// Tells a connection what a server would, and tells its stream how to end: for tests over a stream of their own, as
/// [`Http::connection`](crate::Http::connection) serves it.
///
/// ```
/// use http::{Request, Response};
/// use tower::service_fn;
/// use wharf::test::Control;
/// use wharf::{Body, BoxError, CloseReason, Conn, Http};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (_client, server) = tokio::io::duplex(64);
/// let conn = Conn::from(server);
/// let control = Control::of(&conn);
/// let hello = service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::from("hello"))) });
/// let connection = Http::new().connection(conn, hello).unwrap();
/// control.cut();
/// assert_eq!(connection.await.reason, CloseReason::Cut);
/// # }
/// ```
#[derive(Clone)]
pub struct Control(Arc<Live>);

impl Control {
    /// The control of this connection.
    pub fn of<Io>(conn: &Conn<Io>) -> Self {
        Self(conn.live().clone())
    }

    /// To close after the response under way or the next one, as a lame duck tells it.
    pub fn lame_duck(&self) {
        self.0.tell(Told::LastCall, By::Shutdown);
    }

    /// To close after the response under way, at once if idle.
    pub fn drain(&self) {
        self.0.tell(Told::Drain, By::Shutdown);
    }

    /// To end now: the time for finishing is over.
    pub fn cut(&self) {
        self.0.tell(Told::Cut, By::Shutdown);
    }

    /// The stream is to be reset when it is dropped, so that a cut response can't look complete.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.0.is_aborted()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
