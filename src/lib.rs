//! A small HTTP container: sockets become a stream of `http::Request`s, each handled by a `tower::Service`.

pub mod body;
pub mod codec;
pub mod conn;
pub mod date;
pub mod error;
mod http1;
mod interim;
pub mod limits;
mod service;
pub mod upgrade;

pub use body::Body;
pub use conn::{Address, CloseReason, Conn, ConnInfo, ConnInfoLayer, ConnReport};
pub use error::{BoxError, Error, ErrorKind, Reason, Reject};
pub use http1::{Http, Http1, MakeHttp1, PerConnection, serve_connection};
pub use interim::{Interim, NotSent, interim};
pub use limits::Limits;
