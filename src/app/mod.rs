//! The only place that knows every concrete type: a [`Config`](crate::config::Config) becomes an [`App`], and an app serves listeners.
//!
//! - [`build`]: floors put together · [`serve`]: run, drain, stop · [`clock`]: the system's time

mod build;
mod clock;
mod serve;

pub use build::{App, NotConfigured};
pub use clock::SystemClock;
pub use serve::{Listeners, NotListening, listen};
