//! The timer loop: looks at what is due, and sleeps until the next thing is.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::yield_now,
};

use super::{
    Broker, BrokerError,
    refresh::{Turn, Urgency},
};
use crate::{
    domain::{AuditResult, Connection, ConnectionId, FlowId, FlowState, ProviderId, Timestamp},
    vault::{AttemptKey, Due, DueRecord, Stored, Tokens},
};

/// Records looked at in one turn.
const PAGE: usize = 256;
/// Of one lane, at the same time.
const AT_ONCE: usize = 32;
/// The longest sleep, and the longest that the index is not read from its beginning: bounds what a missed wake-up can
/// cost.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// How long a record that is still due after it was attended to is left alone; doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// With more than this under way, the index is read from its beginning no more often than once in [`PAUSE`].
const BACKLOG: usize = 1024;

/// Records that were attended to, by the time at which they were due. One that stays due at that time could not be
/// handled (its provider is suspended, its row is corrupt) and waits, while the turn goes on to those behind it.
#[derive(Clone, Default)]
struct Attended {
    resting: Arc<Mutex<Resting>>,
    /// Those that were due while they were under way: perhaps anew.
    passed_over: Arc<Mutex<HashSet<DueRecord>>>,
    again: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    noted: Arc<Notify>,
}

#[derive(Default)]
struct Resting {
    rests: HashMap<(DueRecord, Timestamp), Rest>,
    /// Those that are not under way again, by the end of their rest: with a hundred thousand of them nobody looks at all.
    ending: BTreeMap<RestEnd, Due>,
}

struct Rest {
    end: RestEnd,
    pause: Duration,
}

/// Those whose rest ends together go on in the order in which they were due, and came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RestEnd {
    until: Timestamp,
    due: Timestamp,
    nth: usize,
}

/// How far the index of what is due was read. What a commit puts before that place wakes the scheduler.
#[derive(Default)]
struct Reading {
    last: Option<Due>,
    from_start_at: Option<Timestamp>,
    sooner: bool,
}

/// Who waits for whom: a provider that does not answer holds up its own connections and nobody else's, and those of its
/// connections that fail hold up none that work.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Lane {
    Refreshes(ProviderId),
    Retries(ProviderId),
    Jobs,
    Housekeeping,
}

#[derive(Clone, Default)]
struct Lanes(Arc<Mutex<HashMap<Lane, Arc<Semaphore>>>>);

impl Lanes {
    /// A place among those that are under way. `None`: never, the process is ending.
    async fn place(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        let slots = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(lanes.entry(lane).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
        };
        slots.acquire_owned().await.ok()
    }
}

impl Attended {
    fn rests(&self, due: &Due) -> bool {
        self.resting().rests.contains_key(&(due.record, due.at))
    }

    /// It was attended to, at that time.
    fn note(&self, due: Due, now: Timestamp) {
        if self.passed_over().remove(&due.record) {
            self.again.store(true, Ordering::Relaxed);
        }
        self.rest(due, now, 2);
        self.noted.notify_one();
    }

    /// For so many times as long as the last time.
    fn rest(&self, due: Due, now: Timestamp, longer: u32) {
        let mut resting = self.resting();
        let before = resting.forget(&due);
        let nth = before.as_ref().map_or_else(|| self.count.fetch_add(1, Ordering::Relaxed), |rest| rest.end.nth);
        let pause = before.map_or(PAUSE, |rest| (rest.pause * longer).min(LONGEST_PAUSE));
        let end = RestEnd { until: now.plus(pause), due: due.at, nth };
        resting.rests.insert((due.record, due.at), Rest { end, pause });
        resting.ending.insert(end, due);
    }

    fn forget(&self, due: &Due) {
        self.resting().forget(due);
    }

    /// One that has rested; it is not named again before it rests again.
    fn rested(&self, now: Timestamp) -> Option<Due> {
        let mut resting = self.resting();
        let first = resting.ending.first_entry().filter(|first| first.key().until <= now)?;
        Some(first.remove())
    }

    /// When the next will have rested.
    fn next_rested(&self) -> Timestamp {
        self.resting().ending.keys().next().map_or(Timestamp::NEVER, |end| end.until)
    }

    fn passed_over(&self) -> MutexGuard<'_, HashSet<DueRecord>> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resting(&self) -> MutexGuard<'_, Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resting {
    fn forget(&mut self, due: &Due) -> Option<Rest> {
        let rest = self.rests.remove(&(due.record, due.at))?;
        self.ending.remove(&rest.end);
        Some(rest)
    }
}

impl Reading {
    /// Where to read on. From the start now and then, and when something may have been put before that place.
    fn after(&mut self, now: Timestamp, backlog: usize) -> Option<Due> {
        let started = self.from_start_at.filter(|at| *at <= now);
        let spared = backlog > BACKLOG && started.is_some_and(|at| now - at < PAUSE);
        let whole = self.sooner && !spared || started.is_none_or(|at| now - at >= LONGEST_SLEEP);
        // A clock that was set back: what comes due again lies before that place.
        if whole || self.last.as_ref().is_some_and(|last| last.at > now) {
            *self = Self { last: None, from_start_at: Some(now), sooner: false };
        }
        self.last.clone()
    }
}

impl Broker {
    /// Runs until shutdown.
    pub async fn run_scheduler(self) {
        let (lanes, attended, mut reading) = (Lanes::default(), Attended::default(), Reading::default());
        loop {
            let next = match self.turn(&lanes, &attended, &mut reading).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "the scheduler could not read what is due");
                    self.now().plus(PAUSE)
                }
            };
            tokio::select! {
                biased;
                () = self.stopping().cancelled() => return,
                () = self.vault().due_before(next) => reading.sooner = true,
                () = attended.noted.notified() => reading.sooner |= attended.again.swap(false, Ordering::Relaxed),
                () = self.clock().sleep_until(next) => {}
            }
        }
    }

    /// Starts what is due and says when the next thing will be.
    async fn turn(&self, lanes: &Lanes, attended: &Attended, reading: &mut Reading) -> Result<Timestamp, BrokerError> {
        let now = self.now();
        // The counts go with the window, the facts are on record; what is due must not wait for either.
        if let Err(error) = self.close_audit_windows().await {
            tracing::warn!(%error, "closed audit windows could not be recorded");
        }
        self.vault().begin_planning();
        let next = self.windows().next_close().unwrap_or(Timestamp::NEVER).min(now.plus(LONGEST_SLEEP));
        while let Some(due) = attended.rested(now) {
            // Until what begins now has ended; an error here must not make it rest for ever.
            attended.rest(due.clone(), now, 1);
            if self.attended().has(&due.record) || self.vault().is_due(&due).await? {
                self.begin_attending(due, lanes, attended);
            } else {
                attended.forget(&due);
            }
        }
        let next = next.min(attended.next_rested());
        let mut last = reading.after(now, self.attended().count());
        let next = if reading.sooner { next.min(now.plus(PAUSE)) } else { next };
        loop {
            let horizon = now.plus(LONGEST_SLEEP);
            let page = match &last {
                Some(last) => self.vault().due_after(last, horizon, PAGE).await?,
                None => self.vault().due(horizon, PAGE).await?,
            };
            let whole = page.len() == PAGE;
            for due in page {
                if due.at > now {
                    return Ok(next.min(due.at));
                }
                last = Some(due.clone());
                reading.last.clone_from(&last);
                if !attended.rests(&due) {
                    self.begin_attending(due, lanes, attended);
                }
            }
            if !whole {
                return Ok(next);
            }
            yield_now().await;
        }
    }

    fn begin_attending(&self, due: Due, lanes: &Lanes, attended: &Attended) {
        // Whatever it is due for now, it is looked at again once what is under way has ended.
        if self.attended().has(&due.record) {
            attended.passed_over().insert(due.record);
            return;
        }
        let (broker, lanes, attended) = (self.clone(), lanes.clone(), attended.clone());
        self.attended().spawn(due.record, async move {
            if let Err(error) = broker.attend_in_turn(&due, &lanes).await {
                tracing::warn!(record = ?due.record, %error, "a due record could not be handled");
            }
            attended.note(due, broker.now());
        });
    }

    async fn attend_in_turn(&self, due: &Due, lanes: &Lanes) -> Result<(), BrokerError> {
        let lane = match &due.record {
            // Boxed, so that the many that wait for their turn after an outage take a tenth of the memory.
            DueRecord::Connection(id) => return Box::pin(self.attend_connection(*id, lanes)).await,
            DueRecord::Job(_) => Lane::Jobs,
            DueRecord::Flow(_) | DueRecord::Attempt(_) | DueRecord::Suspension(_) => Lane::Housekeeping,
        };
        let _place = lanes.place(lane).await;
        if self.stopping().is_cancelled() {
            return Ok(());
        }
        match &due.record {
            DueRecord::Connection(_) => Ok(()),
            DueRecord::Job(id) => Box::pin(self.run_job(*id)).await,
            DueRecord::Flow(id) => self.forget_flow(*id).await,
            DueRecord::Attempt(key) => self.forget_attempt(key).await,
            DueRecord::Suspension(key) => self.tell_of_suspension(*key).await,
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

    async fn attend_connection(&self, id: ConnectionId, lanes: &Lanes) -> Result<(), BrokerError> {
        loop {
            let Some(stored) = self.vault().any_connection(id).await? else { return Ok(()) };
            let (credential, now) = (&stored.value.credential, self.now());
            // It may have moved on since the index was read.
            if stored.due().is_none_or(|at| at > now) || self.stopping().is_cancelled() {
                return Ok(());
            }
            let forecast = self.untold_forecast(&stored.value).filter(|forecast| now >= forecast.notice_at);
            let foretold = || forecast.map(|forecast| credential.foretold(forecast.ends_at));
            if let Some(transition) = credential.aged(now).or_else(foretold) {
                match self.settle(&stored, transition, Tokens::Keep, AuditResult::Allowed).await {
                    Ok(()) | Err(BrokerError::Conflict) => continue,
                    other => return other,
                }
            }
            let waits = self.is_suspended(&stored.value.provider, now);
            if waits || !credential.state.refreshes() || !credential.refreshable {
                return Ok(());
            }
            let expiry = credential.expires_at.filter(|_| !credential.announced_expired).unwrap_or(Timestamp::NEVER);
            tokio::select! {
                biased;
                place = self.place_and_turn(&stored, lanes) => {
                    if let Some((_place, turn)) = place? {
                        self.refresh_in_turn(id, credential.generation, turn).await;
                    }
                    return Ok(());
                }
                // Watchers hear of it in time, however long the line is.
                () = self.clock().sleep_until(expiry) => {}
            }
        }
    }

    /// `None`: not in this process's life any more.
    async fn place_and_turn(
        &self,
        stored: &Stored<Connection>,
        lanes: &Lanes,
    ) -> Result<Option<(OwnedSemaphorePermit, Turn)>, BrokerError> {
        let (connection, credential) = (&stored.value, &stored.value.credential);
        let provider = self.provider(&connection.provider)?;
        if self.is_suspended(&provider.id, self.now()) {
            return Ok(None);
        }
        let lane = match credential.refresh.failures == 0 && credential.refresh.attempts == 0 {
            true => Lane::Refreshes(provider.id.clone()),
            false => Lane::Retries(provider.id.clone()),
        };
        let Some(place) = lanes.place(lane).await else { return Ok(None) };
        let turn = self.take_turn(&provider, credential, Urgency::Background).await?;
        Ok(turn.ok().map(|turn| (place, turn)))
    }
}
