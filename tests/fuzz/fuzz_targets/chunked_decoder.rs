//! See `wharf_fuzz::chunked_decoder`.
#![cfg_attr(fuzzing, no_main)]
wharf_fuzz::target!(chunked_decoder);
