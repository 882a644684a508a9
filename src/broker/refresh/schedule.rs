//! When to look at a credential again.

use std::time::Duration;

use crate::{
    broker::Broker,
    domain::{Connection, Timestamp},
    sealing::{Random, RandomUnavailable},
};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

impl Broker {
    /// The time of the next action, with jitter before a planned refresh so that credentials issued together are not
    /// refreshed together.
    pub(in crate::broker) fn next_action(&self, connection: &Connection) -> Result<Timestamp, RandomUnavailable> {
        let provider = self.provider(&connection.provider);
        let late = provider.is_ok_and(|provider| provider.definition.refresh_invalidates_access_token);
        let credential = &connection.credential;
        let at = credential.next_action(late);
        let planned =
            credential.refreshable && credential.refresh.intent.is_none() && credential.refresh.retry_at.is_none();
        Ok(match credential.lifetime() {
            Some(lifetime) if planned && !late && at != Timestamp::NEVER => {
                let early = at.minus(fraction(lifetime / 10, self.vault().random())?);
                early.max(credential.obtained_at.plus(lifetime / 4))
            }
            _ => at,
        })
    }
}

/// Full jitter: a random wait up to 1 s × 2^failures, at most 5 minutes.
pub(super) fn backoff(failures: u32, random: &Random) -> Result<Duration, RandomUnavailable> {
    let ceiling = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
    // Never at once: a provider that answers errors fast must not be asked in a tight loop.
    Ok(Duration::from_millis(100) + fraction(ceiling, random)?)
}

fn fraction(of: Duration, random: &Random) -> Result<Duration, RandomUnavailable> {
    let draw = u32::from_be_bytes(random.bytes()?);
    Ok(of.mul_f64(f64::from(draw) / f64::from(u32::MAX)))
}
