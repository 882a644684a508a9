//! The only place that knows every concrete type: a [`Config`](crate::config::Config) becomes an [`App`], and an app serves listeners.
//!
//! - [`build`]: floors put together · [`serve`]: run, drain, stop · [`certificates`]: exchanged while serving
//! - [`clock`]: the system's time · [`doctor`]: what is wrong with an installation
//! - [`restore`]: a store from an archive · [`replacement`]: another directory in a store's place

mod build;
mod certificates;
mod clock;
mod doctor;
mod reload;
mod replacement;
mod restore;
mod serve;

pub use build::{App, NotConfigured};
pub use certificates::{Certificates, NotReloaded};
pub use clock::SystemClock;
pub use doctor::{Finding, Verdict, examine};
pub use reload::Reloader;
pub use replacement::NotReplaced;
pub use restore::{NotRestored, Restore, RestoreStep, Restored};
pub use serve::{Listeners, NotListening, NotStopped, listen};
