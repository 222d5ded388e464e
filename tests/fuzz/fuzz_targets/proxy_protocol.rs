//! See `wharf_fuzz::proxy_protocol`.
#![cfg_attr(fuzzing, no_main)]
wharf_fuzz::target!(proxy_protocol);
