//! See `wharf_fuzz::forwarded`.
#![cfg_attr(fuzzing, no_main)]
wharf_fuzz::target!(forwarded);
