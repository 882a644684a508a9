//! The refresh engine: one detached flight per credential.
//!
//! - [`flight`]: re-read, intent, one POST · [`settle`]: what its answer changes · [`schedule`]: when to look again
//! - [`held`]: tokens that the store could not take yet · [`unspent`]: intents that it could not close
//! - [`pace`]: whether a provider may be asked now

mod flight;
mod held;
mod pace;
mod schedule;
mod settle;
mod unspent;

pub(super) use held::{Beside, Held, HeldPlace};
pub(super) use pace::{Pace, Turn, Urgency};
pub(super) use unspent::Unspent;

use std::time::Duration;

use crate::domain::Reason;

/// How a flight ended, for everybody who waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flown {
    /// The credential has this generation now, by this flight or another.
    Generation(u64),
    /// A passing failure; the old token may still live.
    Failing {
        reason: Reason,
        retry_after: Duration,
    },
    /// Only the user can help.
    ReauthorizationRequired,
    /// Our registration at the provider is refused.
    ProviderSuspended,
    /// The connection is gone or stopped.
    Stopped,
    StoreUnavailable,
}
