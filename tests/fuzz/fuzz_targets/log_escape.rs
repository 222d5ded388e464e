//! See `wharf_fuzz::log_escape`.
#![cfg_attr(fuzzing, no_main)]
wharf_fuzz::target!(log_escape);
