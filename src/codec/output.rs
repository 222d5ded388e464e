//! Bytes owed to the peer.

/// Bytes owed to the peer.
#[derive(Debug, Default)]
pub struct Output;
