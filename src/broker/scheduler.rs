//! The timer loop: looks at what is due, and sleeps until the next thing is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{Broker, BrokerError, refresh::Urgency};
use crate::{
    domain::{AuditResult, ConnectionId, FlowId, FlowState, ProviderId, Timestamp},
    vault::{AttemptKey, Due, DueRecord, Tokens},
};

/// Records looked at in one turn.
const PAGE: usize = 256;
/// Of one lane, at the same time.
const AT_ONCE: usize = 32;
/// The longest sleep: bounds what a missed wake-up can cost.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How long a record that is still due after it was attended to is left alone; doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Records that were attended to, by the time at which they were due. One that stays due at that time could not be
/// handled (its provider is suspended, its row is corrupt) and waits, while the turn goes on to those behind it.
#[derive(Clone, Default)]
struct Attended(Arc<Mutex<HashMap<(DueRecord, Timestamp), Rest>>>);

#[derive(Clone, Copy)]
struct Rest {
    until: Timestamp,
    pause: Duration,
}

/// Who waits for whom: a provider that does not answer holds up its own connections and nobody else's.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Lane {
    Refreshes(ProviderId),
    Jobs,
    Housekeeping,
}

#[derive(Clone, Default)]
struct Lanes(Arc<Mutex<HashMap<Lane, Arc<Semaphore>>>>);

impl Lanes {
    fn slots(&self, lane: Lane) -> Arc<Semaphore> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(lane).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
    }
}

impl Attended {
    /// Until when the record is left alone.
    fn rests_until(&self, due: &Due, now: Timestamp) -> Option<Timestamp> {
        self.rests().get(&(due.record, due.at)).map(|rest| rest.until).filter(|until| now < *until)
    }

    fn note(&self, due: &Due, now: Timestamp) {
        let mut rests = self.rests();
        let before = rests.get(&(due.record, due.at));
        let pause = before.map_or(PAUSE, |rest| (rest.pause * 2).min(LONGEST_PAUSE));
        rests.insert((due.record, due.at), Rest { until: now.plus(pause), pause });
    }

    /// Forgets those that have not been due for a while.
    fn sweep(&self, now: Timestamp) {
        self.rests().retain(|_, rest| now < rest.until.plus(LONGEST_PAUSE));
    }

    fn rests(&self) -> MutexGuard<'_, HashMap<(DueRecord, Timestamp), Rest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Runs until shutdown.
    pub async fn run_scheduler(self) {
        let (lanes, attended) = (Lanes::default(), Attended::default());
        loop {
            let next = match self.turn(&lanes, &attended).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "the scheduler could not read what is due");
                    self.now().plus(PAUSE)
                }
            };
            tokio::select! {
                biased;
                () = self.clock().sleep_until(next) => {}
                () = self.vault().due_before(next) => {}
                () = self.stopping().cancelled() => return,
            }
        }
    }

    /// Starts what is due and says when the next thing will be.
    async fn turn(&self, lanes: &Lanes, attended: &Attended) -> Result<Timestamp, BrokerError> {
        let now = self.now();
        // The counts go with the window, the facts are on record; what is due must not wait for either.
        if let Err(error) = self.close_audit_windows().await {
            tracing::warn!(%error, "closed audit windows could not be recorded");
        }
        self.vault().begin_planning();
        attended.sweep(now);
        let mut next = self.windows().next_close().unwrap_or(Timestamp::NEVER).min(now.plus(LONGEST_SLEEP));
        let mut page = self.vault().due(now.plus(LONGEST_SLEEP), PAGE).await?;
        loop {
            for due in &page {
                if due.at > now {
                    return Ok(next.min(due.at));
                }
                // Stays in the index until it is handled; it must not be started twice meanwhile, nor spin this loop.
                let rests_until = attended.rests_until(due, now);
                next = next.min(rests_until.unwrap_or(now.plus(PAUSE)));
                if rests_until.is_none() {
                    self.begin_attending(due.clone(), lanes, attended);
                }
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else { return Ok(next) };
            page = self.vault().due_after(last, now.plus(LONGEST_SLEEP), PAGE).await?;
        }
    }

    fn begin_attending(&self, due: Due, lanes: &Lanes, attended: &Attended) {
        let (broker, lanes, attended) = (self.clone(), lanes.clone(), attended.clone());
        self.attended().spawn(due.record, async move {
            if let Err(error) = broker.attend_in_turn(&due, &lanes).await {
                tracing::warn!(record = ?due.record, %error, "a due record could not be handled");
            }
            attended.note(&due, broker.now());
        });
    }

    async fn attend_in_turn(&self, due: &Due, lanes: &Lanes) -> Result<(), BrokerError> {
        let lane = match &due.record {
            DueRecord::Connection(id) => match self.vault().any_connection(*id).await? {
                Some(stored) => Lane::Refreshes(stored.value.provider.clone()),
                None => return Ok(()),
            },
            DueRecord::Job(_) => Lane::Jobs,
            DueRecord::Flow(_) | DueRecord::Attempt(_) => Lane::Housekeeping,
        };
        let slots = lanes.slots(lane);
        let _slot = slots.acquire().await;
        if self.stopping().is_cancelled() {
            return Ok(());
        }
        // Boxed, so that the many that wait for their turn after an outage take a tenth of the memory.
        Box::pin(self.attend(&due.record, due.at)).await
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
        if self.now() < flow.value.forgotten_at() || flow.value.state == FlowState::Exchanged {
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
        if self.now() < attempt.value.forgotten_at() {
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
            let provider = self.provider(&stored.value.provider)?;
            if let Ok(turn) = self.take_turn(&provider, credential, Urgency::Background).await? {
                self.refresh_in_turn(id, credential.generation, turn).await;
            }
        }
        Ok(())
    }
}
