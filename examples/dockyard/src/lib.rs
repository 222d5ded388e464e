//! dockyard: a blob store that serves as a build cache, with a live page. `main` is the tour of its layers; what they
//! wrap is here.

pub mod api;
pub mod banner;
pub mod demo;
pub mod live;
pub mod log;
pub mod settings;
pub mod store;
pub mod tls;

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Does something on each SIGHUP, in a task of the runtime that this is called in.
///
/// # Errors
///
/// When the signal can't be listened to.
pub(crate) fn on_hang_up(act: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut hang_ups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hang_ups.recv().await.is_some() {
            act();
        }
    });
    Ok(())
}
