//! Faults on demand.
//!
//! - `fault`, `expiry`: what can go wrong · `named`: what it is called · `arm`, `plan`: which requests it happens to
//! - `hold`: requests held back
//! - `intercept`: makes it happen · `remote`: the same over HTTP

mod arm;
mod expiry;
mod fault;
mod hold;
mod intercept;
mod named;
mod plan;
mod remote;

pub use self::{
    arm::{Arm, Count, InvalidArm},
    expiry::Expiry,
    fault::{Answer, Fault, InvalidAnswer, MissingRefreshToken, RetryAfter},
    hold::{Hold, HoldPoint},
    named::{NAMED_FAULTS, NamedFault, UnknownFault},
    plan::Faults,
};
pub(super) use self::{intercept::intercept, remote::routes};
