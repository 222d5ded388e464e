//! dockyard: a blob store that serves as a build cache, with a live page. `main` is the tour of its layers; what they
//! wrap is here.

pub mod api;
pub mod banner;
pub mod demo;
pub mod live;
pub mod log;
pub mod settings;
pub mod store;
