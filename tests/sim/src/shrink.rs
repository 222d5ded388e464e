//! Makes a script that fails smaller, for as long as it fails in the same way.
