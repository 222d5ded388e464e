//! What happens in a bucket, as server-sent events.
