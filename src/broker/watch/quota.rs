//! How many streams may be open: refused visibly, not queued. How many snapshots may be made at a time: queued.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    broker::BrokerError,
    domain::{AgentId, Caller, SubjectId, TenantId},
    events::{Owner, Turn, Turns},
};

/// When to ask for a seat again: one that is given up is free at once.
const AGAIN: Duration = Duration::from_secs(10);
/// Snapshots that are made at the same time: when every watcher comes back without a token, the others wait, and what is
/// opened for them does not fill the memory.
const SNAPSHOTS: usize = 32;

/// The most watch streams at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchQuotas {
    pub in_all: u32,
    pub per_tenant: u32,
    /// Of one subject, and of one agent of theirs.
    pub per_principal: u32,
    /// Less than a connection's concurrent streams: what is above those waits in the client without a word.
    pub per_connection: u32,
}

/// Seats taken.
#[derive(Clone)]
pub(in crate::broker) struct Quota {
    quotas: WatchQuotas,
    taken: Arc<Mutex<HashMap<Share, u32>>>,
    snapshots: Arc<Turns>,
}

/// What a seat is counted under.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Share {
    All,
    Tenant(TenantId),
    Principal(SubjectId, Option<AgentId>),
    /// By its other end: no two connections have the same at a time.
    Connection(SocketAddr),
}

/// One open stream's seat; given back when dropped.
pub(super) struct Seat {
    quota: Quota,
    caller: Arc<Caller>,
    connection: Option<SocketAddr>,
}

impl Quota {
    pub(in crate::broker) fn new(quotas: WatchQuotas) -> Self {
        Self { quotas, taken: Arc::default(), snapshots: Arc::new(Turns::new(SNAPSHOTS)) }
    }

    pub(super) fn take(&self, caller: &Arc<Caller>, connection: Option<SocketAddr>) -> Result<Seat, BrokerError> {
        let mut taken = self.taken();
        let full = |share: Share| taken.get(&share).is_some_and(|seats| *seats >= self.most(&share));
        if shares(caller, connection).any(full) {
            return Err(BrokerError::StreamQuota { retry_after: AGAIN });
        }
        for share in shares(caller, connection) {
            *taken.entry(share).or_default() += 1;
        }
        Ok(Seat { quota: self.clone(), caller: Arc::clone(caller), connection })
    }

    /// Waits for one of the turns to read everything of a subject; over when dropped.
    pub(super) async fn snapshot_turn(&self, owner: Owner) -> Turn<'_> {
        self.snapshots.take(owner).await
    }

    /// Streams that are open now.
    pub(super) fn open(&self) -> u32 {
        self.taken().get(&Share::All).copied().unwrap_or(0)
    }

    fn most(&self, share: &Share) -> u32 {
        match share {
            Share::All => self.quotas.in_all,
            Share::Tenant(_) => self.quotas.per_tenant,
            Share::Principal(..) => self.quotas.per_principal,
            Share::Connection(_) => self.quotas.per_connection,
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Share, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for WatchQuotas {
    fn default() -> Self {
        Self { in_all: 50_000, per_tenant: 50_000, per_principal: 64, per_connection: 200 }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.quota.taken();
        for share in shares(&self.caller, self.connection) {
            if let Some(seats) = taken.get_mut(&share) {
                *seats -= 1;
                if *seats == 0 {
                    taken.remove(&share);
                }
            }
        }
    }
}

/// What a stream counts under. Not kept for each of them: it is as much as the rest of a stream.
fn shares(caller: &Caller, connection: Option<SocketAddr>) -> impl Iterator<Item = Share> + use<> {
    let principal = Share::Principal(caller.subject, caller.agent.clone());
    let shares = [Share::All, Share::Tenant(caller.tenant.clone()), principal];
    shares.into_iter().chain(connection.map(Share::Connection))
}
