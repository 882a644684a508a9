//! One subscriber: a position in the log, and nothing else that grows.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    Delivery, DrainReason, OnLost, ResyncReason, Start, Watch, WatchFilter, WatchMessage,
    access::{Access, Standing},
    drain::Turn,
    fragments::fragments,
    latest::keep_latest,
    quota::Seat,
    snapshot::Making,
};
use crate::{
    broker::{Broker, BrokerError},
    domain::{Call, Caller, CredentialEvent, EntryId, Revision, Timestamp},
    events::{Listener, LoggedEvent, Position, Read, Resume, ResumeTokenError},
};
use futures_util::{Stream, stream};

/// A stream lives 50 min ± 20 %.
const MAX_AGE: Duration = Duration::from_secs(3000);
/// How long a token may be ahead of the log before it is called so: the hub announces after the commit is answered.
const AHEAD_WAIT: Duration = Duration::from_secs(3);
/// Progress intervals that a snapshot may take, its place in the queue included: clients give up after three.
const SNAPSHOT_INTERVALS: u32 = 2;
/// Messages that an outbox has room for without growing.
const USUAL: usize = 4;
/// Reconnects after a drain are spread over this time, but for those of a shutdown.
const RECONNECT_SPREAD: Duration = Duration::from_secs(10);

pub(super) struct Subscription {
    broker: Broker,
    caller: Arc<Caller>,
    access: Access,
    filter: WatchFilter,
    on_lost: OnLost,
    delivery: Delivery,
    resume: Resume,
    epoch: EntryId,
    listener: Listener,
    /// Everything up to here that passes the filter was sent, or stands in `outbox`.
    cursor: Revision,
    /// Where the client can continue: `None` until it has a whole snapshot.
    sent: Option<Revision>,
    outbox: VecDeque<WatchMessage>,
    wants_snapshot: bool,
    making: Option<Making>,
    interval: Duration,
    progress_at: Timestamp,
    ends_at: Timestamp,
    ending: Ending,
    /// To be told that the process ends; `None`: it does not.
    turn: Option<Turn>,
    _seat: Seat,
}

/// How far the end of the stream has come.
enum Ending {
    Open,
    /// The drain is out; this comes last.
    Drained(Option<BrokerError>),
    Over,
}

impl Subscription {
    pub(super) async fn open(
        broker: Broker,
        call: &Call,
        watch: Watch,
        resume: Resume,
        seat: Seat,
    ) -> Result<Self, BrokerError> {
        let Watch { filter, start, on_lost, delivery, progress_interval, connection: _ } = watch;
        let (head, now) = (broker.hub().head(), broker.now());
        let told_interval = super::progress_interval(progress_interval);
        // Its own, so that streams that were opened together do not speak together.
        let interval = jitter(told_interval, 0.1, &broker)?;
        let max_age = jitter(MAX_AGE, 0.2, &broker)?;
        let mut subscription = Self {
            caller: Arc::clone(&call.caller),
            access: Access::new(&broker, &call.caller),
            listener: broker.hub().listen(call.caller.tenant.clone(), call.caller.subject),
            // What was durable before the call is not "from now on", although the hub may not have announced it yet.
            cursor: head.revision,
            outbox: VecDeque::new(),
            sent: None,
            wants_snapshot: start == Start::Snapshot,
            making: None,
            interval,
            progress_at: now.plus(interval),
            ends_at: now.plus(max_age).min(call.caller.expires_at),
            ending: Ending::Open,
            turn: None,
            epoch: head.epoch,
            _seat: seat,
            filter,
            on_lost,
            delivery,
            resume,
            broker,
        };
        let lost = match &start {
            Start::Resume(token) => {
                let position = subscription.resume.read(token).map_err(invalid_token)?;
                subscription.continue_from(position).await?
            }
            Start::Snapshot | Start::Now => None,
        };
        if !subscription.wants_snapshot && lost.is_none() {
            subscription.sent = Some(subscription.cursor);
        }
        let token = subscription.token(subscription.sent);
        let opened = WatchMessage::Opened { head: head.revision, progress_interval: told_interval, max_age, token };
        subscription.outbox.push_back(opened);
        if let Some(reason) = lost {
            subscription.wants_snapshot = true;
            subscription.outbox.push_back(WatchMessage::Resync { reason });
        }
        Ok(subscription)
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<WatchMessage, BrokerError>> + Send {
        stream::unfold(
            self,
            |mut subscription| async move { subscription.next().await.map(|item| (item, subscription)) },
        )
    }

    /// Puts the cursor at a token's position; `Some`: that position is lost and the client wants to resync.
    async fn continue_from(&mut self, position: Position) -> Result<Option<ResyncReason>, BrokerError> {
        let head = self.broker.hub().head();
        let (lost, error) = if position.epoch != head.epoch {
            (
                ResyncReason::EpochChanged,
                BrokerError::RevisionCompacted { compacted: head.revision, head: head.revision },
            )
        } else if position.revision < head.compacted {
            (ResyncReason::Compacted, BrokerError::RevisionCompacted { compacted: head.compacted, head: head.revision })
        } else if self.reaches(position.revision).await {
            self.cursor = position.revision;
            return Ok(None);
        } else {
            (ResyncReason::AheadOfLog, BrokerError::AheadOfLog { head: head.revision })
        };
        match self.on_lost {
            OnLost::Resync => Ok(Some(lost)),
            OnLost::Fail => Err(error),
        }
    }

    async fn reaches(&self, revision: Revision) -> bool {
        let deadline = self.broker.now().plus(AHEAD_WAIT);
        let mut announced = self.broker.hub().subscribe();
        tokio::select! {
            reached = announced.wait_for(|announced| *announced >= revision) => reached.is_ok(),
            () = self.broker.clock().sleep_until(deadline) => false,
        }
    }

    async fn next(&mut self) -> Option<Result<WatchMessage, BrokerError>> {
        loop {
            if let Err(error) = self.review().await {
                self.ending = Ending::Over;
                return Some(Err(error));
            }
            if let Some(message) = self.outbox.pop_front() {
                let Some(message) = self.access.pass(message) else { continue };
                self.sent = match message {
                    WatchMessage::Resync { .. } => None,
                    _ => message.completes().or(self.sent),
                };
                self.progress_at = self.broker.now().plus(self.interval);
                if self.outbox.is_empty() && self.outbox.capacity() > USUAL {
                    // One that has caught up goes back to being small.
                    self.outbox = VecDeque::new();
                }
                return Some(Ok(message));
            }
            match std::mem::replace(&mut self.ending, Ending::Over) {
                Ending::Over => return None,
                Ending::Drained(error) => return error.map(Err),
                Ending::Open => self.ending = Ending::Open,
            }
            let advanced = match self.advance().await {
                // Also in the middle of a snapshot: every watcher is told when to come again.
                Err(BrokerError::ShuttingDown) => self.drain(DrainReason::Shutdown, Some(BrokerError::ShuttingDown)),
                other => other,
            };
            if let Err(error) = advanced {
                self.ending = Ending::Over;
                return Some(Err(error));
            }
        }
    }

    /// Nothing leaves that its reader may not see at this moment, also if it could be seen when it was taken from the log.
    async fn review(&mut self) -> Result<(), BrokerError> {
        if !matches!(self.ending, Ending::Open) {
            return Ok(());
        }
        let mut last_words = Vec::new();
        let refusal = loop {
            match self.access.ask(&self.broker).await? {
                Standing::Allowed => return Ok(()),
                Standing::Refused(refusal) => break refusal,
                Standing::Erased if self.access.is_within_revision() => break BrokerError::SubjectErased,
                Standing::Erased => {
                    let after = self.sent.unwrap_or(self.cursor);
                    if let Some(told) = self.broker.erased_after(&self.caller, &self.filter, after).await? {
                        last_words = told;
                        break BrokerError::SubjectErased;
                    }
                }
            }
        };
        let before = self.outbox.len();
        // The first message is always that one.
        self.outbox.retain(|message| matches!(message, WatchMessage::Opened { .. }));
        if self.outbox.len() < before {
            // The client never gets the rest of it.
            self.cursor = self.sent.unwrap_or(self.cursor);
        }
        self.put_events(last_words);
        self.drain(DrainReason::Authorization, Some(refusal))
    }

    /// Fills the outbox with what comes next, waiting for it if need be.
    async fn advance(&mut self) -> Result<(), BrokerError> {
        let now = self.broker.now();
        let is_turn = self.broker.is_turn(&mut self.turn);
        // Nobody who takes what they are sent slowly, or for whom much is written, goes untold.
        if self.turn.is_some_and(|turn| turn.is_overdue(now)) {
            return self.drain(DrainReason::Shutdown, Some(BrokerError::ShuttingDown));
        }
        if self.wants_snapshot {
            // Boxed: every stream would keep the room for it.
            return Box::pin(self.take_snapshot()).await;
        }
        if now >= self.ends_at {
            return match now >= self.caller.expires_at {
                // It lapsed only now, and that is for the next look at the authorization to say.
                true => Ok(()),
                false => self.drain(DrainReason::MaxAge, None),
            };
        }
        self.take_events().await?;
        if !self.outbox.is_empty() {
            return Ok(());
        }
        // Also while it catches up: a long stretch of other people's events must not look like silence.
        // A clock that was set back must not look like silence either.
        if now >= self.progress_at || now.plus(self.interval * 2) < self.progress_at {
            let (revision, token) = (self.cursor, self.token(Some(self.cursor)));
            self.outbox.push_back(WatchMessage::Progress { revision, token });
            return Ok(());
        }
        let behind = self.cursor < self.broker.hub().announced();
        match (behind, is_turn) {
            (true, _) => Ok(()),
            (false, true) => self.drain(DrainReason::Shutdown, Some(BrokerError::ShuttingDown)),
            (false, false) => self.wait().await,
        }
    }

    async fn wait(&mut self) -> Result<(), BrokerError> {
        let turn_at = self.turn.map_or(Timestamp::NEVER, |turn| turn.at());
        let until = self.progress_at.min(self.ends_at).min(turn_at);
        tokio::select! {
            () = self.listener.rung() => Ok(()),
            () = self.broker.clock().sleep_until(until) => Ok(()),
            () = self.broker.called(self.turn) => Ok(()),
        }
    }

    /// Nothing is said meanwhile, since there is no position to tell: the wait ends before a client takes it for silence.
    async fn take_snapshot(&mut self) -> Result<(), BrokerError> {
        let broker = &self.broker;
        let until = broker.now().plus(self.interval * SNAPSHOT_INTERVALS);
        let making = self.making.get_or_insert_with(|| broker.make_snapshot(&self.caller, &self.filter, until));
        let until = making.until;
        let overdue_at = self.turn.map_or(Timestamp::NEVER, |turn| turn.overdue_at());
        let (revision, statuses) = tokio::select! {
            biased;
            made = making.made() => made?,
            () = broker.stopping().cancelled() => return Err(BrokerError::ShuttingDown),
            // Whether it may go on, and how long, is asked again.
            () = self.listener.rung() => return Ok(()),
            () = broker.called(self.turn) => return Ok(()),
            () = broker.clock().sleep_until(until.min(self.caller.expires_at).min(overdue_at)) => {
                return if broker.now() < until { Ok(()) } else { Err(BrokerError::StoreUnavailable) };
            }
        };
        (self.making, self.wants_snapshot, self.cursor) = (None, false, revision);
        for statuses in fragments(statuses) {
            self.outbox.push_back(WatchMessage::Snapshot { revision, statuses });
        }
        let token = self.token(Some(revision));
        self.outbox.push_back(WatchMessage::SnapshotEnd { revision, token });
        Ok(())
    }

    async fn take_events(&mut self) -> Result<(), BrokerError> {
        let (revisions, complete) = match self.listener.after(self.cursor).await? {
            Read::Revisions { revisions, complete } => (revisions, complete),
            Read::Compacted(compacted) => return self.fall_behind(compacted),
        };
        let mut matching: Vec<(Revision, Vec<LoggedEvent>)> = Vec::new();
        for logged in &revisions {
            let events: Vec<_> = logged.events.iter().filter(|event| self.may_see(event)).cloned().collect();
            if !events.is_empty() {
                matching.push((logged.revision, events));
            }
        }
        if self.delivery == Delivery::LatestPerCredential {
            keep_latest(&mut matching);
        }
        self.put_events(matching);
        self.cursor = complete;
        Ok(())
    }

    fn put_events(&mut self, revisions: Vec<(Revision, Vec<LoggedEvent>)>) {
        for (revision, events) in revisions {
            let mut fragments = fragments(events).into_iter().peekable();
            while let Some(events) = fragments.next() {
                let token = fragments.peek().is_none().then(|| self.token(Some(revision)));
                self.outbox.push_back(WatchMessage::Batch { revision, events, token });
            }
        }
    }

    fn fall_behind(&mut self, compacted: Revision) -> Result<(), BrokerError> {
        match self.on_lost {
            OnLost::Fail => Err(BrokerError::RevisionCompacted { compacted, head: self.broker.hub().head().revision }),
            OnLost::Resync => {
                self.wants_snapshot = true;
                self.outbox.push_back(WatchMessage::Resync { reason: ResyncReason::Compacted });
                Ok(())
            }
        }
    }

    fn may_see(&self, event: &CredentialEvent) -> bool {
        event.tenant == self.caller.tenant && event.status.subject == self.caller.subject && self.filter.passes(event)
    }

    /// The last message, and what the stream ends with; `None`: it ends well.
    fn drain(&mut self, reason: DrainReason, error: Option<BrokerError>) -> Result<(), BrokerError> {
        // One whose snapshot was broken off has not asked yet.
        self.broker.is_turn(&mut self.turn);
        let reconnect_after = match self.turn {
            // Whatever it ends for, until then nobody is there.
            Some(turn) => turn.return_at() - self.broker.now(),
            None => RECONNECT_SPREAD.mul_f64(unit(&self.broker)?),
        };
        let last = self.outbox.iter().rev().find_map(WatchMessage::completes);
        let at = if self.outbox.is_empty() { self.sent.map(|_| self.cursor) } else { last.or(self.sent) };
        let token = self.token(at);
        self.outbox.push_back(WatchMessage::Drain { reason, reconnect_after, token });
        self.ending = Ending::Drained(error);
        Ok(())
    }

    /// Empty where continuing is not possible: a client without a whole snapshot would miss what is not repeated.
    fn token(&self, at: Option<Revision>) -> Vec<u8> {
        at.map_or_else(Vec::new, |revision| self.resume.token(Position { epoch: self.epoch, revision }))
    }
}

fn invalid_token(error: ResumeTokenError) -> BrokerError {
    let problem = match error {
        ResumeTokenError::Forged => "is not a token of this installation",
        ResumeTokenError::OtherPrincipal => "belongs to another caller",
        ResumeTokenError::OtherFilter => "belongs to another filter",
    };
    BrokerError::Invalid { field: "resume_token", problem }
}

/// `mean` ± `share`.
fn jitter(mean: Duration, share: f64, broker: &Broker) -> Result<Duration, BrokerError> {
    Ok(mean.mul_f64(1.0 - share + 2.0 * share * unit(broker)?))
}

/// A random number from 0 to 1.
fn unit(broker: &Broker) -> Result<f64, BrokerError> {
    Ok(f64::from(u32::from_be_bytes(broker.fresh()?)) / f64::from(u32::MAX))
}
