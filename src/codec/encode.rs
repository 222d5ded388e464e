//! The way back: heads and bodies into bytes.

/// Why a response can't be sent.
#[derive(Debug)]
pub struct EncodeError;
