//! What concerns many connections at once is told in pages: each is one change set with its events and with how far it
//! reaches, so that neither a crash nor the next change of mind tells anybody twice or leaves anybody out.

use super::{Broker, BrokerError};

/// Records looked at for one page.
pub(super) const PAGE: usize = 256;

impl Broker {
    /// Whether another page is to be told, after one of which this became; `true`: there was one. A page that something
    /// else came before is told from what is there then.
    pub(super) fn goes_on(&self, told: Result<bool, BrokerError>) -> Result<bool, BrokerError> {
        match told {
            Ok(false) => Ok(false),
            Ok(true) | Err(BrokerError::Conflict) => Ok(!self.stopping().is_cancelled()),
            Err(error) => Err(error),
        }
    }
}
