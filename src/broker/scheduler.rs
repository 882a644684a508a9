//! The timer loop: looks at what is due, and sleeps until the next thing is.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{Broker, BrokerError};
use crate::{
    domain::{AuditResult, ConnectionId, FlowId, FlowState, Timestamp},
    vault::{AttemptKey, DueRecord, Tokens},
};

/// Records looked at in one turn.
const PAGE: usize = 256;
/// Refreshes and jobs at the same time.
const AT_ONCE: usize = 32;
/// The longest sleep: bounds what a missed wake-up can cost.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How long a record that could not be handled now is left alone.
const PAUSE: Duration = Duration::from_secs(1);

impl Broker {
    /// Runs until shutdown.
    pub async fn run_scheduler(self) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let next = match self.turn(&slots).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "the scheduler could not read what is due");
                    self.now().plus(PAUSE)
                }
            };
            tokio::select! {
                () = self.clock().sleep_until(next) => {}
                () = self.vault().due_before(next) => {}
                () = self.stopping().cancelled() => return,
            }
        }
    }

    /// Starts what is due and says when the next thing will be.
    async fn turn(&self, slots: &Arc<Semaphore>) -> Result<Timestamp, BrokerError> {
        let now = self.now();
        self.close_audit_windows().await?;
        self.vault().begin_planning();
        let mut next = self.windows().next_close().unwrap_or(Timestamp::NEVER).min(now.plus(LONGEST_SLEEP));
        for item in self.vault().due(now.plus(LONGEST_SLEEP), PAGE).await? {
            if item.at > now {
                next = next.min(item.at);
                break;
            }
            // Stays in the index until it is handled; it must not be started twice meanwhile, nor spin this loop.
            next = next.min(now.plus(PAUSE));
            let (broker, slots) = (self.clone(), Arc::clone(slots));
            self.attended().spawn(item.record, async move {
                let Ok(_slot) = slots.acquire().await else { return };
                if let Err(error) = broker.attend(&item.record, item.at).await {
                    tracing::warn!(record = ?item.record, %error, "a due record could not be handled");
                }
            });
        }
        Ok(next)
    }

    async fn attend(&self, record: &DueRecord, at: Timestamp) -> Result<(), BrokerError> {
        match record {
            DueRecord::Connection(id) => self.attend_connection(*id, at).await,
            DueRecord::Job(id) => self.run_job(*id).await,
            DueRecord::Flow(id) => self.forget_flow(*id).await,
            DueRecord::Attempt(key) => self.forget_attempt(key).await,
        }
    }

    /// Its time is over, however it ended.
    async fn forget_flow(&self, id: FlowId) -> Result<(), BrokerError> {
        let Some(flow) = self.vault().any_flow(id).await? else { return Ok(()) };
        // Tokens that wait in it are still to be judged; its job does that.
        if flow.value.is_live(self.now()) || flow.value.state == FlowState::Exchanged {
            return Ok(());
        }
        // Nor while its tokens are on their way to it, or held until the store takes them.
        if self.exchanges().has(&id) {
            return Ok(());
        }
        let mut change = self.vault().change(&flow.value.tenant, Some(flow.value.subject)).await?;
        change.delete_flow(&flow);
        change.commit().await?;
        Ok(())
    }

    async fn forget_attempt(&self, key: &AttemptKey) -> Result<(), BrokerError> {
        let Some(attempt) = self.vault().attempt_by_key(key).await? else { return Ok(()) };
        if self.now() < attempt.value.expires_at {
            return Ok(());
        }
        let mut change = self.vault().change(&attempt.value.tenant, Some(attempt.value.subject)).await?;
        change.delete_attempt(&attempt);
        change.commit().await?;
        Ok(())
    }

    async fn attend_connection(&self, id: ConnectionId, at: Timestamp) -> Result<(), BrokerError> {
        let Some(stored) = self.vault().any_connection(id).await? else { return Ok(()) };
        let (credential, now) = (&stored.value.credential, self.now());
        // It has moved on since the index was read.
        if stored.due() != Some(at) {
            return Ok(());
        }
        if let Some(transition) = credential.aged(now) {
            return match self.settle(&stored, transition, Tokens::Keep, AuditResult::Allowed).await {
                Err(BrokerError::Conflict) => Ok(()),
                other => other,
            };
        }
        if credential.state.refreshes() && credential.refreshable {
            self.refresh(id, credential.generation).await;
        }
        Ok(())
    }
}
