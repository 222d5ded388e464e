//! The strict head parser.

/// The head parser in one pass.
#[derive(Debug)]
pub struct Strict;
