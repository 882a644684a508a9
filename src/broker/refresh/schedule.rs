//! When to look at a credential again.

use std::time::Duration;

use crate::{
    broker::Broker,
    domain::{Connection, Forecast, RefreshTokenLifetime, Timestamp},
    sealing::{Random, RandomUnavailable},
};

const FIRST: Duration = Duration::from_secs(1);
/// Callers wait for the first failures of a connection: ten in a row are tried again within this.
const LONGEST_AT_FIRST: Duration = Duration::from_secs(300);
const AT_FIRST: u32 = 10;
/// Whoever asks: a connection that stays dead costs its provider sixty requests a day.
const LONGEST: Duration = Duration::from_secs(3600);

impl Broker {
    /// The time of the next action: a refresh, or that watchers are told of the authorization's end.
    pub(in crate::broker) fn next_action(&self, connection: &Connection) -> Result<Timestamp, RandomUnavailable> {
        let notice_at = self.untold_forecast(connection).map_or(Timestamp::NEVER, |forecast| forecast.notice_at);
        Ok(self.next_refresh(connection)?.min(notice_at))
    }

    /// The end of the authorization; `None`: it is not known.
    pub(in crate::broker) fn ends_at(&self, connection: &Connection) -> Option<Timestamp> {
        let (lifetime, stalled) = self.refresh_token_lifetime(connection);
        Some(connection.forecast(lifetime, stalled)?.ends_at)
    }

    /// The end of the authorization, while there is something to tell of it.
    pub(in crate::broker) fn untold_forecast(&self, connection: &Connection) -> Option<Forecast> {
        let (lifetime, stalled) = self.refresh_token_lifetime(connection);
        connection.untold_forecast(lifetime, stalled)
    }

    /// What the definition says, and whether nothing is refreshed at the provider now.
    fn refresh_token_lifetime(&self, connection: &Connection) -> (RefreshTokenLifetime, bool) {
        let provider = self.provider(&connection.provider).ok();
        let lifetime = provider.map(|provider| provider.definition.refresh_token_lifetime).unwrap_or_default();
        (lifetime, self.refuses(&connection.provider))
    }

    /// With jitter before a planned refresh so that credentials issued together are not
    /// refreshed together.
    fn next_refresh(&self, connection: &Connection) -> Result<Timestamp, RandomUnavailable> {
        let provider = self.provider(&connection.provider).ok();
        let definition = provider.as_deref().map(|provider| &provider.definition);
        let late = definition.is_some_and(|definition| definition.refresh_invalidates_access_token);
        let idle = definition.and_then(|definition| definition.refresh_token_lifetime.idle).map(Duration::from_secs);
        let credential = &connection.credential;
        let at = credential.next_action(late, idle);
        let planned =
            credential.refreshable && credential.refresh.intent.is_none() && credential.refresh.retry_at.is_none();
        if !planned || at == Timestamp::NEVER || (late && Some(at) == credential.expires_at) {
            return Ok(at);
        }
        let ahead = at - credential.obtained_at;
        let life = credential.lifetime().unwrap_or(ahead).min(ahead);
        let early = at.minus((life / 10).mul_f64(draw(self.vault().random())?));
        Ok(early.max(credential.obtained_at.plus(life / 4)))
    }
}

/// Equal jitter: half of the wait is certain, the other half drawn. Doubles from 1 s.
pub(super) fn backoff(failures: u32, random: &Random) -> Result<Duration, RandomUnavailable> {
    let longest = if failures < AT_FIRST { LONGEST_AT_FIRST } else { LONGEST };
    let wait = FIRST.saturating_mul(1 << failures.min(16)).min(longest);
    Ok(wait.mul_f64(0.5 + draw(random)? / 2.0))
}

/// Evenly of 0..1.
pub(super) fn draw(random: &Random) -> Result<f64, RandomUnavailable> {
    Ok(f64::from(u32::from_be_bytes(random.bytes()?)) / (f64::from(u32::MAX) + 1.0))
}
