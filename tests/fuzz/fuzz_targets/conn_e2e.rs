//! See `wharf_fuzz::conn_e2e`.
#![cfg_attr(fuzzing, no_main)]
wharf_fuzz::target!(conn_e2e);
