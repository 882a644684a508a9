//! The zero-trust chain's words: which link decided, and what it said.

use serde::{Deserialize, Serialize};

use super::Reason;

/// A link of the chain, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    Session,
    Agent,
    Toolbox,
    Plugin,
    Connection,
    Grant,
}

/// The chain's answer: allowed, or the first link that refused and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    Allowed,
    Refused { link: Link, reason: Reason },
}
