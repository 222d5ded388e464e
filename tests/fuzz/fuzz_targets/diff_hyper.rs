//! See `wharf_fuzz::diff_hyper`.
#![cfg_attr(fuzzing, no_main)]
wharf_fuzz::target!(diff_hyper);
