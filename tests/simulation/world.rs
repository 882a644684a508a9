//! Everything that outlives a process: time, the store's content, the server, and what was seen of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use claviger::{
    audit::Chain,
    domain::{ConnectionId, EntryId, InstallationId, JobId, Rotation, SubjectId},
    sealing::{AuditKey, Random, RootKey},
    store::{Receipt, RecordKey, RecordKind},
    vault::{ErasureList, TokenSet, Vault},
};
use futures_util::FutureExt;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::{
    checks::{Invariant, Known},
    draw::Draw,
    memory_store::MemoryStore,
    oracle::{Answer, Ended, Oracle, grant_of},
    plan::{Action, Kill, Mood, Plan, Read},
    time::Time,
    wire::{Asked, Fate, TIMEOUT},
};

/// Steps and reads after which a world is taken to go round in circles.
const MOST_STEPS: u64 = 20_000;
const MOST_READS: u64 = 400_000;
/// The longest that a read takes before it looks, and after, in milliseconds.
pub(crate) const SLOW_READ: u64 = 3;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) time: Time,
    pub(crate) memory: Arc<MemoryStore>,
    pub(crate) audit_key: AuditKey,
    pub(crate) erasures: ErasureList,
    /// The processes' own randomness.
    pub(crate) random: Random,
    /// Looks into the store past every fault.
    pub(crate) inspector: Vault,
    draws: Draws,
    state: Mutex<State>,
}

struct Draws {
    store: Draw,
    wire: Draw,
}

/// An invariant does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
    pub(crate) at: u64,
}

pub(crate) struct State {
    pub(crate) oracle: Oracle,
    pub(crate) actions: Vec<(u64, Action)>,
    /// Refreshes whose process died while they were under way: they may still arrive.
    arrivals: BTreeSet<(u64, String)>,
    pub(crate) mood: Mood,
    pub(crate) store_down: bool,
    /// No more faults.
    pub(crate) calm: bool,
    pub(crate) has_jumped: bool,
    pub(crate) process: u32,
    steps: u64,
    reads: u64,
    kill: Option<Kill>,
    pub(crate) dead: bool,
    pub(crate) end: Arc<Notify>,
    pub(crate) connections: BTreeMap<ConnectionId, Known>,
    /// Grants with a refresh under way in a live process.
    under_way: BTreeSet<usize>,
    /// POSTs of each refresh token that nobody got an answer to.
    pub(crate) unanswered: BTreeMap<String, u32>,
    pub(crate) posts: Vec<u64>,
    /// Answers that a live process was given and that are not durable yet.
    in_hand: Vec<InHand>,
    pub(crate) wanted: BTreeSet<(ConnectionId, u64)>,
    pub(crate) callers: BTreeMap<u64, Read>,
    /// When each grant was asked for in vain, since it last brought tokens.
    pub(crate) in_vain: BTreeMap<usize, Vec<u64>>,
    pub(crate) broken: Option<Broken>,
    trace: Option<Vec<String>>,
}

struct InHand {
    person: usize,
    grant: usize,
    access: String,
    process: u32,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Arc<Self> {
        let plan_draw = Draw::new(seed, 1);
        let mut plan = Plan::draw(&plan_draw);
        let (own, audit_key) = (Draw::new(seed, 2), AuditKey::default());
        let random = Random::from_fill(Arc::new(move |bytes| {
            own.fill(bytes);
            Ok(())
        }));
        let (installation, epoch) = (InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]));
        let memory = Arc::new(MemoryStore::new(installation, epoch, Box::new(Chain::new(audit_key.clone()))));
        let opened = Vault::open(memory.clone(), root(), random.clone(), &audit_key).now_or_never();
        let inspector = opened.expect("memory does not wait").unwrap();
        let actions = std::mem::take(&mut plan.actions);
        let state = Mutex::new(State {
            oracle: Oracle::new(plan.rotation),
            actions,
            arrivals: BTreeSet::new(),
            mood: Mood::Well,
            store_down: false,
            calm: false,
            has_jumped: false,
            process: 0,
            steps: 0,
            reads: 0,
            kill: None,
            dead: false,
            end: Arc::default(),
            connections: BTreeMap::new(),
            under_way: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            posts: Vec::new(),
            in_hand: Vec::new(),
            wanted: BTreeSet::new(),
            callers: BTreeMap::new(),
            in_vain: BTreeMap::new(),
            broken: None,
            trace: traced.then(Vec::new),
        });
        let draws = Draws { store: Draw::new(seed, 3), wire: Draw::new(seed, 4) };
        let (time, erasures) = (Time::default(), ErasureList::in_memory());
        Arc::new(Self { plan, time, memory, audit_key, erasures, random, inspector, draws, state })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        let at = self.time.elapsed();
        if let Some(trace) = &mut self.state().trace {
            trace.push(format!("{at:>9} {}", line()));
        }
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.state().trace.take().unwrap_or_default()
    }

    /// The first one is told: what comes after it follows from it.
    pub(crate) fn broken(&self, invariant: Invariant, what: impl fmt::Display) {
        let (at, mut state) = (self.time.elapsed(), self.state());
        if state.broken.is_none() {
            state.broken = Some(Broken { invariant, what: what.to_string(), at });
            state.end.notify_one();
        }
    }

    /// Begins a process; what it gives tells when the process is to end.
    pub(crate) fn begin_process(&self) -> Arc<Notify> {
        let mut state = self.state();
        state.process += 1;
        state.dead = false;
        state.end = Arc::default();
        state.callers.clear();
        state.kill = self.plan.kills.get(state.process as usize - 1).filter(|_| !state.calm).copied();
        Arc::clone(&state.end)
    }

    /// Where a process may be killed: then nothing of it goes on.
    pub(crate) async fn step(&self, step: &'static str, of_refresh: bool) {
        let (killed, steps) = {
            let mut state = self.state();
            state.steps += 1;
            let comes_now = match &mut state.kill {
                Some(Kill::AfterSteps(left)) => count_down(left),
                Some(Kill::InRefresh { step: wanted, nth }) if of_refresh && *wanted == step => count_down(nth),
                Some(Kill::InRefresh { .. }) | None => false,
            };
            if comes_now && !state.calm {
                state.dead = true;
                state.end.notify_one();
            }
            (state.dead, state.steps)
        };
        if steps > MOST_STEPS {
            self.broken(Invariant::I6, "the broker goes round in circles");
        }
        self.trace(|| format!("{step}{}", if killed { ": killed" } else { "" }));
        if killed {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn is_store_down(&self) -> bool {
        self.state().store_down
    }

    /// A commit whose answer is lost with the store's going away.
    pub(crate) fn is_written_unseen(&self) -> bool {
        self.draws.store.percent(30)
    }

    pub(crate) async fn take_time_to_read(&self) {
        let reads = {
            let mut state = self.state();
            state.reads += 1;
            state.reads
        };
        if reads > MOST_READS {
            self.broken(Invariant::I6, "the broker reads in circles");
            std::future::pending::<()>().await;
        }
        if self.draws.store.percent(self.plan.slowness / 4) {
            self.time.pause(self.draws.store.within(0..=SLOW_READ)).await;
        }
    }

    pub(crate) async fn take_time_to_write(&self) {
        if self.draws.store.percent(self.plan.slowness) {
            self.time.pause(self.draws.store.one_of(&[0, 1, 5, 400])).await;
        }
    }

    /// How a request fares, and how long it takes there and back.
    pub(crate) fn fate(&self) -> (Fate, u64, u64) {
        let (mood, calm) = {
            let state = self.state();
            (state.mood, state.calm)
        };
        let draw = &self.draws.wire;
        let fate = if calm { Fate::Answered } else { Fate::draw(draw, self.plan.faults, mood) };
        (fate, draw.within(0..=100), draw.one_of(&[0, 10, 100, 2000]))
    }

    pub(crate) fn coin(&self, sides: u64) -> u64 {
        self.draws.wire.number() % sides
    }

    /// Reads what has changed, and judges it.
    pub(crate) fn committed(&self, keys: &[RecordKey], receipt: &Receipt) {
        for key in keys {
            let id = key.id().as_ref();
            match key.kind() {
                RecordKind::Connection => {
                    let id = ConnectionId::from_bytes(id.try_into().unwrap());
                    let tokens = self.judge_connection(id, receipt);
                    self.now_durable(tokens.as_ref());
                }
                RecordKind::Job => {
                    let id = JobId::from_bytes(id.try_into().unwrap());
                    let tokens = async {
                        let job = self.inspector.job(id).await.unwrap()?;
                        self.inspector.job_tokens(&job).await.unwrap()
                    };
                    self.now_durable(tokens.now_or_never().expect("memory does not wait").as_ref());
                }
                _ => {}
            }
        }
    }

    fn now_durable(&self, tokens: Option<&TokenSet>) {
        if let Some(tokens) = tokens {
            self.state().in_hand.retain(|hand| hand.access != tokens.access.expose());
        }
    }

    /// A process has ended in good order: whatever it was given must be durable.
    pub(crate) fn expect_nothing_in_hand(&self) {
        let lost = self.state().in_hand.first().map(|hand| hand.access.clone());
        if let Some(access) = lost {
            self.broken(Invariant::I1, format!("{access} was given to a live process and is nowhere"));
        }
    }

    /// What a kill leaves behind.
    pub(crate) fn bury(&self) {
        let mut state = self.state();
        state.in_hand.clear();
        state.under_way.clear();
    }

    /// The server as it is now: what was under way when a process died has arrived.
    pub(crate) fn with_oracle<T>(&self, ask: impl FnOnce(&mut Oracle, u64) -> T) -> T {
        let now = self.time.elapsed();
        let mut state = self.state();
        while let Some((at, token)) = state.arrivals.first().cloned().filter(|(at, _)| *at <= now) {
            state.arrivals.pop_first();
            let _ = state.oracle.refresh(&token, at);
        }
        ask(&mut state.oracle, now)
    }
}

impl State {
    /// What was in hand of a grant that its user has replaced by another is nobody's any more.
    pub(crate) fn forget_in_hand_beside(&mut self, person: usize, grant: usize) {
        self.in_hand.retain(|hand| hand.person != person || hand.grant == grant);
    }
}

/// True when nothing is left.
fn count_down(left: &mut u64) -> bool {
    *left = left.saturating_sub(1);
    *left == 0
}

/// A request on its way.
pub(crate) struct Post {
    world: Arc<World>,
    asked: Asked,
    /// When it arrives at the latest, should its process die; `None`: it has arrived, or never does.
    arrives_by: Option<u64>,
    ended: bool,
}

impl Post {
    pub(crate) fn begin(world: &Arc<World>, asked: Asked, arrives: bool, there: u64) -> Self {
        if let Asked::Refresh(token) = &asked {
            world.judge_post(token);
            let grant = grant_of(token).unwrap_or(usize::MAX);
            let now = world.time.elapsed();
            let mut state = world.state();
            state.posts.push(now);
            state.in_vain.entry(grant).or_default().push(now);
            let alone = state.under_way.insert(grant);
            let late = state.arrivals.iter().any(|(at, late)| late == token && now < *at);
            let asked_again = state.in_hand.iter().any(|hand| hand.grant == grant && hand.process == state.process);
            let (jumped, strict) = (state.has_jumped, world.plan.rotation == Rotation::Strict);
            drop(state);
            if !alone {
                world.broken(Invariant::I2, format!("two POSTs of {token} at once"));
            }
            if late && strict && !jumped {
                world.broken(Invariant::I2, format!("{token} is sent while an earlier POST of it may still arrive"));
            }
            if asked_again {
                world.broken(Invariant::I1, format!("{token} is spent, and the answer before it was not kept"));
            }
        }
        let arrives_by = arrives.then(|| world.time.elapsed() + there.max(world.coin(TIMEOUT.as_millis() as u64)));
        Self { world: Arc::clone(world), asked, arrives_by, ended: false }
    }

    /// The server acts on it.
    pub(crate) fn arrive(&mut self) -> Answer {
        self.arrives_by = None;
        let mood = self.world.state().mood;
        let asked = &self.asked;
        let answer = self.world.with_oracle(|oracle, now| match asked {
            Asked::Revoke(token) => oracle.revoke(token),
            _ if mood == Mood::Misconfigured => Answer::Error("invalid_client"),
            Asked::Exchange(code) => oracle.exchange(code),
            Asked::Refresh(token) => oracle.refresh(token, now),
            Asked::Nothing => Answer::Error("invalid_request"),
        });
        self.world.trace(|| format!("the server answers {asked:?} with {answer:?}"));
        answer
    }

    /// The client has an answer, or gave up. `tells`: it knows now what became of the token.
    pub(crate) fn end(&mut self, tells: bool, answer: Option<&Answer>) {
        self.ended = true;
        let Asked::Refresh(token) = &self.asked else { return };
        let mut state = self.world.state();
        state.under_way.remove(&grant_of(token).unwrap_or(usize::MAX));
        if !tells {
            *state.unanswered.entry(token.clone()).or_default() += 1;
        }
        match answer {
            Some(Answer::Tokens { grant, access, .. }) => {
                state.in_vain.remove(grant);
                let process = state.process;
                let person = state.connections.values().find(|known| known.grant == *grant).map(|known| known.person);
                let hand = person.map(|person| InHand { person, grant: *grant, access: access.clone(), process });
                state.in_hand.extend(hand);
            }
            Some(Answer::Error("invalid_grant")) => {
                state.oracle.refused.insert(token.clone());
            }
            _ => {}
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let Asked::Refresh(token) = &self.asked else { return };
        if self.ended {
            return;
        }
        let still_arrives = self.world.coin(2) == 0;
        let mut state = self.world.state();
        *state.unanswered.entry(token.clone()).or_default() += 1;
        if let Some(at) = self.arrives_by.filter(|_| still_arrives) {
            state.arrivals.insert((at, token.clone()));
        }
        let dead = state.dead || state.broken.is_some();
        drop(state);
        if !dead {
            self.world.broken(Invariant::I1, format!("a live process gave up its POST of {token}"));
        }
    }
}

pub(crate) fn root() -> RootKey {
    RootKey::from_secret(&Zeroizing::new([7; 32]))
}

/// Whose connections are looked at.
pub(crate) fn subject(person: usize) -> SubjectId {
    SubjectId::from_bytes([person as u8 + 1; 32])
}

impl World {
    /// The user ends every grant of this person at the server.
    pub(crate) fn end_grants(&self, person: usize) {
        let grants: Vec<usize> =
            self.state().connections.values().filter(|known| known.person == person).map(|known| known.grant).collect();
        self.with_oracle(|oracle, _| grants.iter().for_each(|grant| oracle.end(*grant, Ended::ByItsUser)));
    }
}
