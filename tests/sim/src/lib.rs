//! Whole connections in a simulated world: the real codec, the real connection and a real stack of services, on a clock
//! that stands still until everybody waits, over a stream that cuts, delays and fails as a seed says.
//!
//! One `u64` is one simulation, down to the last byte of its trace. [`script`] is what happens, [`timing`] how it is
//! cut; [`player`] plays them, [`answers`] reads what the client gets by an own reading of RFC 9112, [`model`] says what
//! it must be. Nothing of the container judges the container.

pub mod actor;
pub mod answers;
pub mod bugs;
pub mod generate;
pub mod hunt;
pub mod model;
pub mod net;
pub mod player;
pub mod random;
pub mod reply;
pub mod script;
pub mod shrink;
pub mod timing;
pub mod tls;
pub mod world;
