//! The body, in both directions.

use std::sync::Arc;

use crate::conn::Live;

/// A request or response body.
#[derive(Debug, Default)]
pub struct Body {
    live: Option<Arc<Live>>,
}

impl Body {
    pub(crate) fn live(&self) -> Option<&Arc<Live>> {
        self.live.as_ref()
    }
}
