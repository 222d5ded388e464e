//! The httparse head parser.

/// The head parser over `httparse`.
#[derive(Debug)]
pub struct Httparse;
