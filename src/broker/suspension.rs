//! A provider that refuses our client registration: nobody's connection is to blame, and asking for each of them would
//! only make noise. It is put on record once, the operator is alarmed, watchers are told, and one refresh at a time finds
//! out whether it is still so.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use super::{Broker, BrokerError, telling::PAGE};
use crate::{
    domain::{
        AuditAction, AuditRecord, AuditResult, Connection, ConnectionId, CredentialEvent, CredentialStatus, EventKind,
        Provider, ProviderId, Reason, Refusal, Suspension, Telling, TellingKind as Kind, Timestamp,
        installation_tenant,
    },
    vault::{Stored, SuspensionKey},
};

/// Between two attempts at first; doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Connections whose own trouble is remembered.
const MOST_BLAMED: usize = 4096;

/// What is known here of providers that refuse us; the store has it too.
#[derive(Default)]
pub(super) struct Suspensions {
    refusals: Mutex<HashMap<ProviderId, Refusal>>,
    /// Whose refusal others contradict: they were refused, and somebody else was not. It is their own.
    blamed: Mutex<HashSet<ConnectionId>>,
    alarms: AtomicU64,
    /// Held while the store and `refusals` are brought to say the same.
    changing: tokio::sync::Mutex<()>,
}

/// Whom a refusal of our registration concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Refused {
    All,
    /// Others are refreshed with the same registration.
    ThisOne,
}

impl Suspensions {
    /// How often a provider was found to refuse us.
    pub(super) fn alarms(&self) -> u64 {
        self.alarms.load(Ordering::Relaxed)
    }

    fn get(&self, provider: &ProviderId) -> Option<Refusal> {
        self.refusals().get(provider).cloned()
    }

    fn refusals(&self) -> MutexGuard<'_, HashMap<ProviderId, Refusal>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blamed(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.blamed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, provider: &ProviderId, refusal: Option<Refusal>) {
        match refusal {
            Some(refusal) => self.refusals().insert(provider.clone(), refusal),
            None => self.refusals().remove(provider),
        };
    }

    fn raise(&self, provider: &ProviderId, since: Timestamp) {
        self.alarms.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            alarm = "provider_suspended", provider.id = %provider, since = since.as_secs(),
            "the provider refuses our client registration; correct its client id, secret or definition"
        );
    }
}

impl Broker {
    /// At the start and after the catalog was exchanged: what was found out before holds, unless the registration is
    /// another one by now.
    pub(super) async fn review_suspensions(&self) -> Result<(), BrokerError> {
        for provider in self.catalog().providers.values() {
            let Some(stored) = self.vault().suspension(&provider.id).await? else { continue };
            let Some(refusal) = stored.value.refusal.clone() else { continue };
            if refusal.registration != self.registration(provider) {
                self.resume(&provider.id).await?;
            } else if !self.refuses(&provider.id) {
                self.suspensions().raise(&provider.id, refusal.since);
                self.suspensions().set(&provider.id, Some(refusal));
            }
        }
        Ok(())
    }

    /// The providers that refuse us, since when.
    pub(super) fn refused(&self) -> Vec<(ProviderId, Refusal)> {
        let mut refused: Vec<_> =
            self.suspensions().refusals().iter().map(|(id, refusal)| (id.clone(), refusal.clone())).collect();
        refused.sort_by(|(a, _), (b, _)| a.cmp(b));
        refused
    }

    /// The connection as everybody is shown it: a suspended provider's are suspended, though nothing of that is stored
    /// with them.
    pub(super) fn shown(&self, connection: &Connection) -> Connection {
        match self.suspensions().get(&connection.provider) {
            Some(refusal) if connection.is_suspended_since(refusal.since) => connection.suspended(),
            _ => connection.clone(),
        }
    }

    pub(super) fn status_of(&self, connection: &Connection) -> CredentialStatus {
        let ends_at = self.ends_at(connection);
        CredentialStatus { authorization_ends_at: ends_at, ..CredentialStatus::of(&self.shown(connection)) }
    }

    /// As the record says, whether the provider refuses us or not.
    pub(super) fn status_as_stored(&self, connection: &Connection) -> CredentialStatus {
        CredentialStatus { authorization_ends_at: self.ends_at(connection), ..CredentialStatus::of(connection) }
    }

    /// Whether the provider refuses us.
    pub(super) fn refuses(&self, provider: &ProviderId) -> bool {
        self.suspensions().refusals().contains_key(provider)
    }

    /// When it may be found out whether the provider still refuses us; `None`: it does not.
    pub(super) fn next_attempt_at(&self, provider: &ProviderId) -> Option<Timestamp> {
        self.suspensions().refusals().get(provider).map(|refusal| refusal.next_attempt_at)
    }

    /// Whether no refresh may be tried at the provider now.
    pub(super) fn is_suspended(&self, provider: &ProviderId, now: Timestamp) -> bool {
        self.suspensions().refusals().get(provider).is_some_and(|refusal| now < refusal.next_attempt_at)
    }

    /// Whether this refresh may be POSTed; at a suspended provider it is the one that finds out.
    pub(super) fn may_attempt(&self, provider: &ProviderId, now: Timestamp) -> bool {
        match self.suspensions().refusals().get_mut(provider) {
            None => true,
            Some(refusal) if now < refusal.next_attempt_at => false,
            Some(refusal) => {
                refusal.next_attempt_at = now.plus(wait(refusal.refusals));
                true
            }
        }
    }

    /// The provider refused our registration when this connection was refreshed.
    pub(in crate::broker) async fn registration_refused(
        &self,
        provider: &Provider,
        connection: ConnectionId,
    ) -> Result<Refused, BrokerError> {
        if self.suspensions().blamed().contains(&connection) {
            return Ok(Refused::ThisOne);
        }
        let _changing = self.suspensions().changing.lock().await;
        // One that was replaced while it was on its way says nothing of the present one.
        if self.registration(provider) != self.registration(&*self.provider(&provider.id)?) {
            return Ok(Refused::All);
        }
        loop {
            let (stored, now) = (self.vault().suspension(&provider.id).await?, self.now());
            let before = stored.as_ref().and_then(|stored| stored.value.refusal.clone());
            let is_new = before.is_none();
            let refusal = match before {
                Some(before) => {
                    let refusals = before.refusals.saturating_add(1);
                    Refusal { refusals, next_attempt_at: now.plus(wait(refusals)), ..before }
                }
                None => Refusal {
                    since: now,
                    registration: self.registration(provider),
                    connection,
                    refusals: 0,
                    next_attempt_at: now.plus(wait(0)),
                },
            };
            let told = stored.as_ref().and_then(|stored| stored.value.told.clone());
            let suspension = Suspension {
                tenant: installation_tenant(),
                provider: provider.id.clone(),
                refusal: Some(refusal.clone()),
                told,
            };
            match self.put_suspension(stored.as_ref(), &suspension, is_new.then_some(AuditResult::Failed)).await {
                Err(BrokerError::Conflict) => continue,
                other => other?,
            }
            if is_new {
                self.suspensions().raise(&provider.id, refusal.since);
            }
            self.suspensions().set(&provider.id, Some(refusal));
            return Ok(Refused::All);
        }
    }

    /// The provider refreshed this connection. That an authorization succeeds would prove less: a registration may be good
    /// for that and not for refreshing.
    pub(in crate::broker) async fn registration_accepted(&self, provider: &ProviderId, connection: ConnectionId) {
        let suspensions = self.suspensions();
        suspensions.blamed().remove(&connection);
        let Some(refusal) = suspensions.get(provider) else { return };
        if connection != refusal.connection {
            let mut blamed = suspensions.blamed();
            if blamed.len() < MOST_BLAMED {
                blamed.insert(refusal.connection);
            }
        }
        // The tokens are safe; the next refresh that succeeds says it again.
        if let Err(error) = self.resume(provider).await {
            tracing::warn!(provider.id = %provider, %error, "that the provider accepts us again could not be recorded");
        }
    }

    async fn resume(&self, provider: &ProviderId) -> Result<(), BrokerError> {
        let _changing = self.suspensions().changing.lock().await;
        loop {
            let stored = self.vault().suspension(provider).await?;
            if let Some(stored) = stored.filter(|stored| stored.value.refusal.is_some()) {
                let over = Suspension { refusal: None, ..stored.value.clone() };
                match self.put_suspension(Some(&stored), &over, Some(AuditResult::Allowed)).await {
                    Err(BrokerError::Conflict) => continue,
                    other => other?,
                }
                tracing::info!(provider.id = %provider, "the provider is refreshed at again");
            }
            self.suspensions().set(provider, None);
            return Ok(());
        }
    }

    /// `audited`: what the change is on record as.
    async fn put_suspension(
        &self,
        from: Option<&Stored<Suspension>>,
        to: &Suspension,
        audited: Option<AuditResult>,
    ) -> Result<(), BrokerError> {
        let now = self.now();
        let mut change = self.vault().change(&to.tenant, None).await?;
        match from {
            Some(from) if to.is_over() => change.delete_suspension(from),
            _ => change.put_suspension(from, to, due(to, now)),
        }
        if let Some(result) = audited {
            let action = match to.refusal {
                Some(_) => AuditAction::ProviderSuspended,
                None => AuditAction::ProviderResumed,
            };
            change.audit(&AuditRecord {
                provider: Some(to.provider.clone()),
                result,
                reason: to.refusal.is_some().then_some(Reason::ProviderSuspended),
                ..AuditRecord::by_broker(to.tenant.clone(), action, now)
            });
        }
        change.commit().await?;
        Ok(())
    }

    /// Tells watchers what there is to tell.
    pub(super) async fn tell_of_suspension(&self, key: SuspensionKey) -> Result<(), BrokerError> {
        while self.goes_on(self.tell_next_page(&key).await)? {}
        Ok(())
    }

    async fn tell_next_page(&self, key: &SuspensionKey) -> Result<bool, BrokerError> {
        let Some(stored) = self.vault().suspension_by_key(key).await? else { return Ok(false) };
        let Some(telling) = stored.value.telling() else { return Ok(false) };
        self.tell_page(&stored, &telling).await.map(|()| true)
    }

    async fn tell_page(&self, stored: &Stored<Suspension>, telling: &Telling) -> Result<(), BrokerError> {
        let page = self.vault().every_connection(telling.after(), PAGE).await?;
        let concerned = page
            .connections
            .iter()
            .filter(|(at, found)| found.value.provider == stored.value.provider && telling.concerns(at, &found.value));
        // Whoever may not see it hears how it stands when they may.
        let concerned: Vec<_> = concerned.map(|(_, found)| found).filter(|found| !found.value.withheld).collect();
        let tenants: BTreeSet<_> = concerned.iter().map(|found| found.value.tenant.clone()).collect();
        let (next, now) = (stored.value.told_to(telling, page.end), self.now());
        let mut change = self.vault().change_across(&next.tenant, &tenants).await?;
        for found in concerned {
            let (kind, status) = match telling.kind {
                Kind::Suspended => (EventKind::Suspended, self.status_as_stored(&found.value.suspended())),
                Kind::Resumed => (EventKind::Resumed, self.status_as_stored(&found.value)),
            };
            change.require_connection(found);
            change.event(&CredentialEvent { kind, tenant: found.value.tenant.clone(), occurred_at: now, status });
        }
        match next.is_over() {
            true => change.delete_suspension(stored),
            false => change.put_suspension(Some(stored), &next, due(&next, now)),
        }
        change.commit().await?;
        Ok(())
    }

    /// All of the registration: with any other one a refusal says nothing.
    fn registration(&self, provider: &Provider) -> [u8; 32] {
        let definition = serde_json::to_vec(&provider.definition).expect("definitions are read from text");
        let secret = provider.client_secret.as_ref().map_or(&b""[..], |secret| secret.expose().as_bytes());
        let id = provider.client_id.as_bytes();
        self.vault().keys().registration_fingerprint(&[id, secret, &definition])
    }
}

fn due(suspension: &Suspension, now: Timestamp) -> Timestamp {
    if suspension.telling().is_some() { now } else { Timestamp::NEVER }
}

fn wait(refusals: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << refusals.min(8)).min(LONGEST_WAIT)
}
