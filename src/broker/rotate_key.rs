//! Supersedes keys while calls are served.

use std::time::Duration;

use super::{
    Broker, BrokerError,
    trail::{About, allowed},
};
use crate::{
    domain::{
        AuditAction, AuditRecord, AuditTarget, Call, KeyRotation, Role, RotateKey, TenantId, Timestamp,
        installation_tenant,
    },
    vault::Rotating,
};

/// How long a tenant's key that an erasure has marked may wait: the erasures of a day share one rotation. An older copy
/// becomes unreadable with the retirement of a root key, which takes longer.
const MARKED: Duration = Duration::from_secs(24 * 3600);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(5);

impl Broker {
    /// Begins a rotation, which then goes on by itself, and says how far it is. Asking again asks how far it is.
    ///
    /// # Errors
    /// `ROLE_MISSING` for who is no operator, `NO_NEW_ROOT_KEY`.
    pub async fn rotate_key(&self, call: &Call, key: RotateKey) -> Result<KeyRotation, BrokerError> {
        let outcome = self.begin_rotation(call, &key).await;
        if let Err(error) = &outcome {
            self.record_refusal(call, AuditAction::KeyRotated, About::default(), error).await;
        }
        outcome
    }

    async fn begin_rotation(&self, call: &Call, key: &RotateKey) -> Result<KeyRotation, BrokerError> {
        self.authorize_session(call, Role::Operator).await?;
        let record = allowed(call, AuditAction::KeyRotated, About::default(), self.now());
        // A task of its own: what was begun must be gone on with, also for a caller who goes away.
        let (broker, key) = (self.clone(), key.clone());
        let beginning = self.0.tasks.spawn(async move {
            let begun = broker.begin_rotations(&record, &key).await;
            broker.key_work().notify_one();
            begun
        });
        beginning.await.unwrap_or(Err(BrokerError::ShuttingDown))
    }

    async fn begin_rotations(&self, record: &AuditRecord, key: &RotateKey) -> Result<KeyRotation, BrokerError> {
        let tenants = match key {
            RotateKey::Root => return Ok(self.vault().begin_root_rotation(record).await?),
            RotateKey::Tenants(Some(tenant)) if !self.vault().tenants().await?.contains(tenant) => {
                return Err(BrokerError::Invalid { field: "tenant", problem: "has no keys" });
            }
            RotateKey::Tenants(Some(tenant)) => vec![tenant.clone()],
            RotateKey::Tenants(None) => self.vault().tenants().await?,
        };
        let mut whole = KeyRotation { begun: 0, left: 0, started_at: self.now() };
        for tenant in tenants {
            let record = AuditRecord { target: Some(AuditTarget::Tenant(tenant.clone())), ..record.clone() };
            let Some(part) = self.vault().begin_tenant_rotation(&tenant, &record).await? else { continue };
            whole.begun += part.begun;
            whole.left += part.left;
            whole.started_at = whole.started_at.min(part.started_at);
        }
        Ok(whole)
    }

    /// Goes on with every rotation, those of an earlier process first. Runs until shutdown.
    pub async fn run_key_rotation(self) {
        loop {
            let next = match self.rotate_what_is_begun().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "a key rotation stands still; it is tried again");
                    self.now().plus(PAUSE)
                }
            };
            tokio::select! {
                () = self.clock().sleep_until(next) => {}
                () = self.key_work().notified() => {}
                () = self.stopping().cancelled() => return,
            }
        }
    }

    /// When the next one is to begin by itself. One that cannot go on keeps no other from it.
    async fn rotate_what_is_begun(&self) -> Result<Timestamp, BrokerError> {
        let (mut next, mut stuck) = (Timestamp::NEVER, None);
        for (tenant, since) in self.vault().marked_tenants().await? {
            let at = since.plus(MARKED);
            if at <= self.now() {
                stuck = self.begin_marked(&tenant).await.err().or(stuck);
            } else {
                next = next.min(at);
            }
        }
        for (what, _) in self.vault().rotations().await? {
            stuck = self.rotate_to_the_end(&what).await.err().or(stuck);
        }
        stuck.map_or(Ok(next), Err)
    }

    async fn begin_marked(&self, tenant: &TenantId) -> Result<(), BrokerError> {
        let record = AuditRecord {
            target: Some(AuditTarget::Tenant(tenant.clone())),
            ..AuditRecord::by_broker(installation_tenant(), AuditAction::KeyRotated, self.now())
        };
        self.vault().begin_tenant_rotation(tenant, &record).await?;
        Ok(())
    }

    async fn rotate_to_the_end(&self, what: &Rotating) -> Result<(), BrokerError> {
        while self.vault().go_on_rotating(what).await? {
            if self.stopping().is_cancelled() {
                return Ok(());
            }
        }
        tracing::info!(key = ?what, "a key rotation has ended");
        Ok(())
    }
}
