//! See `wharf_fuzz::request_head`.
#![cfg_attr(fuzzing, no_main)]
wharf_fuzz::target!(request_head);
