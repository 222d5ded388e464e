//! A small HTTP container: sockets become a stream of `http::Request`s, each handled by a `tower::Service`.

pub mod body;
pub mod codec;
pub mod conn;
pub mod date;
pub mod error;
pub mod limits;
pub mod listener;
mod serve;
pub mod server;
pub mod shutdown;

pub use body::Body;
pub use conn::{Address, CloseReason, Conn, ConnInfo, ConnReport};
pub use error::{BoxError, Error, ErrorKind, Reason, Reject};
pub use limits::Limits;
pub use listener::{IntoListeners, Listener, Stream};
pub use serve::Serve;
pub use server::Server;
pub use shutdown::{Report, Shutdown};
