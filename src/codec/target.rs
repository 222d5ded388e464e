//! Request target and Host.
