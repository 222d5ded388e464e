//! See `wharf_fuzz::response_encode`.
#![cfg_attr(fuzzing, no_main)]
wharf_fuzz::target!(response_encode);
