//! Whether a provider may be asked now: every POST of a refresh token takes a [`Turn`] first and ends it with what
//! came of it. Nothing here is stored: a refresh that is put off leaves no trace in its connection's record.
//!
//! - [`budget`]: how many in a second · [`breaker`]: whether the provider is there at all

mod breaker;
mod budget;

use std::{
    collections::HashMap,
    future::Future,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use self::{
    breaker::{Advice, Breaker, Standing, Told},
    budget::Budget,
};
use super::{Flown, schedule::draw};
use crate::{
    broker::{Broker, BrokerError},
    domain::{ConnectionId, Credential, Provider, ProviderId, Reason, ReplyClass, Timestamp},
    oauth::{Evidence, TokenFailure},
};

/// The longest that a caller waits: for the budget, or for what a probe or a trial brings that is in the air. For a
/// provider that is down or wants a pause, none waits.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Of ten refreshes without a caller, one may be of a failing connection though others wait.
const BEFORE_A_FAILING: u32 = 9;

/// What is known of each provider's capacity and health.
#[derive(Default)]
pub(in crate::broker) struct Pace(Mutex<HashMap<ProviderId, Arc<Gate>>>);

/// Who wants the refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Urgency {
    /// Somebody waits: goes first, and rather hears no than waits for long.
    Caller,
    /// Nobody waits: waits its turn, however long that takes.
    Background,
}

/// Leave to POST one refresh token. Dropped unused, it goes back to the budget.
pub(in crate::broker) struct Turn {
    gate: Arc<Gate>,
    provider: ProviderId,
    standing: Standing,
    trial: bool,
    ended: bool,
    draw: f64,
}

/// The provider is not to be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct NotNow {
    reason: Reason,
    retry_after: Duration,
}

/// One provider's.
struct Gate {
    state: Mutex<State>,
    changed: Notify,
    /// Those that nobody waits for stand in line, so that they go in the order in which they were due.
    sound: tokio::sync::Mutex<()>,
    failing: tokio::sync::Mutex<()>,
    /// In the line of the sound.
    sound_waiting: AtomicUsize,
}

struct State {
    budget: Budget,
    breaker: Breaker,
    /// Others that went since the last failing one did, nobody waiting for any.
    before_failing: u32,
}

/// Who asks, on what terms.
#[derive(Clone, Copy)]
struct Asking {
    standing: Standing,
    urgency: Urgency,
    rate: NonZeroU32,
    /// After which a probe or a POST is certainly over; either may have to discover the endpoint first.
    lease: Duration,
}

enum Answer {
    GoAt { at: Timestamp, trial: bool },
    Probe,
    Listen(Timestamp),
    Wait(Timestamp),
}

impl From<NotNow> for Flown {
    fn from(NotNow { reason, retry_after }: NotNow) -> Self {
        Self::Failing { reason, retry_after }
    }
}

impl Turn {
    /// Whether it was given for this credential as it is now.
    pub(super) fn is_for(&self, provider: &Provider, credential: &Credential) -> bool {
        self.provider == provider.id && self.standing == Standing::of(provider, credential)
    }

    /// The POST was made, and this is what came of it; `None`: tokens.
    pub(super) fn end(mut self, connection: ConnectionId, failure: Option<&TokenFailure>, now: Timestamp) {
        self.ended = true;
        let told = failure.map_or(Told::Alive, told);
        let mut state = self.gate.state();
        if state.breaker.ended(connection, told, self.trial, now, self.draw) {
            tracing::info!(provider.id = %self.provider, "the provider answers again; refreshes go on");
        }
        drop(state);
        self.gate.changed.notify_waiters();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.gate.state();
        state.budget.give_back();
        if self.trial {
            state.breaker.trial_is_over();
        }
        drop(state);
        self.gate.changed.notify_waiters();
    }
}

/// A definition's rule may call transient what the provider said of this one connection: it is there, then.
fn told(failure: &TokenFailure) -> Told {
    let answered = matches!(failure.evidence, Evidence::Answered { .. });
    match failure.class {
        ReplyClass::Terminal | ReplyClass::Reauthorize => Told::Alive,
        ReplyClass::Configuration | ReplyClass::Transient if answered => Told::Alive,
        // A firewall's page for one user looks like one for all; a probe tells them apart, and this spent nothing.
        ReplyClass::Configuration | ReplyClass::Unknown => Told::Nothing,
        ReplyClass::RateLimited => Told::Limited(failure.retry_after),
        ReplyClass::Transient | ReplyClass::Ambiguous => Told::Down,
    }
}

impl Pace {
    fn gate(&self, provider: &Provider, now: Timestamp) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(provider.id.clone()).or_insert_with(|| {
            let budget = Budget::full(provider.refreshes_per_second, now);
            let state = State { budget, breaker: Breaker::default(), before_failing: 0 };
            Arc::new(Gate {
                state: Mutex::new(state),
                changed: Notify::new(),
                sound: tokio::sync::Mutex::default(),
                failing: tokio::sync::Mutex::default(),
                sound_waiting: AtomicUsize::new(0),
            })
        });
        Arc::clone(gate)
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, asking: &Asking, now: Timestamp, draw: f64) -> Answer {
        let mut state = self.state();
        let others = self.sound_waiting.load(Ordering::Relaxed) > 0;
        let unasked = asking.urgency == Urgency::Background;
        let sound = asking.standing == Standing::Sound;
        if unasked && !sound && others && state.before_failing < BEFORE_A_FAILING {
            return Answer::Wait(now.plus(Duration::from_secs(1) / asking.rate.get()));
        }
        let trial = match state.breaker.advise(asking.standing, others && !sound, asking.lease, now, draw) {
            Advice::Go { trial } => trial,
            Advice::Probe => return Answer::Probe,
            Advice::Listen(until) => return Answer::Listen(until),
            Advice::Wait(until) => return Answer::Wait(until),
        };
        let promised = match asking.urgency {
            Urgency::Caller => state.budget.promise(asking.rate, now, LONGEST_WAIT),
            Urgency::Background => state.budget.take(asking.rate, now).map(|()| now),
        };
        match promised {
            Ok(at) => {
                state.before_failing = match (unasked, sound) {
                    (true, true) => state.before_failing.saturating_add(1),
                    (true, false) => 0,
                    (false, _) => state.before_failing,
                };
                Answer::GoAt { at, trial }
            }
            Err(at) => {
                if trial {
                    state.breaker.trial_is_over();
                }
                Answer::Wait(at)
            }
        }
    }
}

/// Counts one that is sound while it stands in line.
struct InLine<'a>(&'a AtomicUsize);

impl<'a> InLine<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A probe in the air. Those who listen hear of its end also when nobody is left who waits for its answer.
struct Probing<'a>(&'a Gate);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.state().breaker.probe_is_over();
        self.0.changed.notify_waiters();
    }
}

impl Broker {
    /// Waits for the provider's turn: [`Urgency::Background`] until shutdown, [`Urgency::Caller`] a moment.
    pub(in crate::broker) async fn take_turn(
        &self,
        provider: &Provider,
        credential: &Credential,
        urgency: Urgency,
    ) -> Result<Result<Turn, NotNow>, BrokerError> {
        let gate = self.pace().gate(provider, self.now());
        let asking = Asking {
            standing: Standing::of(provider, credential),
            urgency,
            rate: provider.refreshes_per_second,
            lease: self.settings().provider_timeout * 2,
        };
        match (urgency, asking.standing) {
            (Urgency::Caller, _) => self.await_turn(provider, &gate, &asking).await,
            (Urgency::Background, Standing::Sound) => {
                let _in_line = InLine::enter(&gate.sound_waiting);
                let _head = gate.sound.lock().await;
                self.await_turn(provider, &gate, &asking).await
            }
            (Urgency::Background, Standing::Failing { .. } | Standing::Doubtful) => {
                let _head = gate.failing.lock().await;
                self.await_turn(provider, &gate, &asking).await
            }
        }
    }

    async fn await_turn(
        &self,
        provider: &Provider,
        gate: &Arc<Gate>,
        asking: &Asking,
    ) -> Result<Result<Turn, NotNow>, BrokerError> {
        let caller = asking.urgency == Urgency::Caller;
        let deadline = if caller { self.now().plus(LONGEST_WAIT) } else { Timestamp::NEVER };
        loop {
            let changed = gate.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let (now, draw) = (self.now(), draw(self.vault().random())?);
            match gate.ask(asking, now, draw) {
                Answer::GoAt { at, trial } => {
                    let (gate, provider) = (Arc::clone(gate), provider.id.clone());
                    let turn = Turn { gate, provider, standing: asking.standing, trial, ended: false, draw };
                    self.clock().sleep_until(at).await;
                    return Ok(Ok(turn));
                }
                Answer::Probe => self.probe(provider, gate).await?,
                Answer::Listen(until) if now < deadline && !self.stopping().is_cancelled() => {
                    self.change_or(changed, until.min(deadline)).await;
                }
                Answer::Wait(until) if !caller && !self.stopping().is_cancelled() => {
                    self.change_or(changed, until).await;
                }
                Answer::Listen(_) => return Ok(Err(not_now(gate, now, now, draw))),
                Answer::Wait(until) => return Ok(Err(not_now(gate, until, now, draw))),
            }
        }
    }

    async fn change_or(&self, changed: impl Future<Output = ()>, until: Timestamp) {
        tokio::select! {
            biased;
            () = self.stopping().cancelled() => {}
            () = changed => {}
            () = self.clock().sleep_until(until) => {}
        }
    }

    /// Asks the provider something that spends nothing.
    async fn probe(&self, provider: &Provider, gate: &Gate) -> Result<(), BrokerError> {
        let _probing = Probing(gate);
        let alive = self.servers().is_there(provider).await;
        let draw = draw(self.vault().random())?;
        gate.state().breaker.probed(alive, self.now(), draw);
        if !alive {
            tracing::warn!(provider.id = %provider.id, "the provider does not answer; no refresh token is sent until it does");
        }
        Ok(())
    }
}

/// Callers who are told to come back do not come back together.
fn not_now(gate: &Gate, until: Timestamp, now: Timestamp, draw: f64) -> NotNow {
    let reason = match gate.state().breaker.is_paused(now) {
        true => Reason::ProviderRateLimited,
        false => Reason::ProviderUnreachable,
    };
    let wait = (until - now).max(Duration::from_secs(1));
    NotNow { reason, retry_after: wait + (wait / 4).mul_f64(draw) }
}
