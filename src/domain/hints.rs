//! What a user must fulfil at the next authorization, in the provider's own words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the user must fulfil at the next authorization (OpenID Connect Core §3.1.2.1, §5.5; RFC 9470). From the server,
/// for that same server; `Debug` tells only what is there.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// A JSON object, at most 4 KiB.
    pub claims: Option<String>,
    pub acr_values: Option<String>,
    /// Seconds since the user last signed in.
    pub max_age: Option<u64>,
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hints")
            .field("claims", &self.claims.is_some())
            .field("acr_values", &self.acr_values.is_some())
            .field("max_age", &self.max_age)
            .finish()
    }
}
