//! The words of the field as types, and their rules. Pure: no I/O, no clock of its own, no randomness.
//!
//! - [`clock`]: `Timestamp`, `Clock` · [`id`]: names and ids · [`secret`]: secrets that cannot be printed
//! - [`credential`]: the state machine · [`refresh`]: its refreshing · [`forecast`]: its end · [`next_action`]: what comes next · [`connection`], [`flow`], [`provider`], [`directory`]:
//!   what is connected, how, to what
//! - [`caller`], [`decision`], [`reason`]: who asks, which link answers, why not
//! - [`event`], [`audit`], [`job`], [`configuration`], [`suspension`]: what is announced, recorded, still to do, in force,
//!   and refused
//! - [`holders`]: who holds what was given out
//! - [`hints`]: what a provider demands of the next authorization · [`key`]: what an operator may know of sealing keys and
//!   erasures
//! - [`public_url`]: where our pages are · [`mod@canonical`], [`json`], [`sealed`], [`scope`]: encodings

mod audit;
mod caller;
mod canonical;
mod clock;
mod configuration;
mod connection;
mod credential;
mod decision;
mod directory;
mod event;
mod flow;
mod forecast;
mod hints;
mod holders;
mod id;
mod job;
mod json;
mod key;
mod next_action;
mod provider;
mod public_url;
mod reason;
mod refresh;
mod scope;
mod sealed;
mod secret;
mod served;
mod suspension;

pub use audit::*;
pub use caller::*;
pub use canonical::*;
pub use clock::*;
pub use configuration::*;
pub use connection::*;
pub use credential::*;
pub use decision::*;
pub use directory::*;
pub use event::*;
pub use flow::*;
pub use forecast::*;
pub use hints::*;
pub use holders::*;
pub use id::*;
pub use job::*;
pub use json::*;
pub use key::*;
pub use next_action::*;
pub use provider::*;
pub use public_url::*;
pub use reason::*;
pub use refresh::*;
pub use scope::*;
pub use sealed::*;
pub use secret::*;
pub use served::*;
pub use suspension::*;
