//! What must hold in every world at every moment.
//!
//! - I1 the stored refresh token is the provider's live one, or the credential is truthfully ambiguous or asks for
//!   reauthorization; what a live process was given becomes durable
//! - I2 at most one POST per credential from live processes, none that nobody needs, and never a third attempt on one
//!   generation at a strict provider
//! - I3 no caller gets a token older than one already given
//! - I4 no terminal state from a transient cause
//! - I5 every transition has its event and audit record
//! - I6 budget and back-off bounds hold
//! - I7 nothing is served after a revocation was acknowledged

use std::{collections::BTreeMap, time::Duration};

use claviger::{
    broker::PluginToken,
    domain::{
        AuditAction, Connection, ConnectionId, Credential, CredentialState, EventKind, Revision, Rotation, Timestamp,
    },
    store::Receipt,
    vault::TokenSet,
};
use futures_util::FutureExt;

use crate::{
    oracle::{Ended, grant_of},
    plan::{MINUTE, Read, SECOND},
    world::{SLOW_READ, World},
};

/// Of one grant within ten minutes: ten waits that double from half a second, each after one retry at once.
const MOST_IN_VAIN: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
}

/// A connection as it was last committed.
pub(crate) struct Known {
    pub(crate) person: usize,
    pub(crate) grant: usize,
    /// `None`: erased.
    pub(crate) connection: Option<Connection>,
    pub(crate) refresh: Option<String>,
    /// Of each generation, from 1.
    access: Vec<String>,
    /// The newest generation that a caller was given.
    pub(crate) given: u64,
    /// When a caller was told that it is revoked.
    pub(crate) acknowledged_at: Option<u64>,
}

impl World {
    /// What a commit has made of a connection; gives its tokens.
    pub(crate) fn judge_connection(&self, id: ConnectionId, receipt: &Receipt) -> Option<TokenSet> {
        let looked = async {
            let stored = self.inspector.any_connection(id).await.unwrap()?;
            let tokens = self.inspector.connection_tokens(&stored).await.unwrap();
            Some((stored.into_value(), tokens))
        };
        let (after, tokens) = looked.now_or_never().expect("memory does not wait").unzip();
        let tokens = tokens.flatten();
        let before = self.state().connections.get(&id).and_then(|known| known.connection.clone());
        self.judge_logs(id, before.as_ref(), after.as_ref(), receipt);
        if let Some(after) = &after {
            self.note(after, tokens.as_ref());
            self.judge_tokens(before.as_ref(), after, tokens.as_ref());
        } else if let Some(known) = self.state().connections.get_mut(&id) {
            known.connection = None;
        }
        tokens
    }

    fn note(&self, after: &Connection, tokens: Option<&TokenSet>) {
        let credential = &after.credential;
        self.trace(|| {
            let Credential { state, generation, refresh, .. } = credential;
            format!(
                "{} {state:?} generation {generation} attempts {} {:?}",
                after.id,
                refresh.attempts,
                refresh.intent.as_ref().map(|intent| intent.attempt)
            )
        });
        let mut state = self.state();
        let known = state.connections.entry(after.id).or_insert_with(|| Known {
            person: usize::from(after.subject.as_bytes()[0]) - 1,
            grant: 0,
            connection: None,
            refresh: None,
            access: Vec::new(),
            given: 0,
            acknowledged_at: None,
        });
        let moved = known.connection.as_ref().is_none_or(|before| before.credential.generation < credential.generation);
        if let Some(tokens) = tokens {
            known.refresh = tokens.refresh.as_ref().map(|token| token.expose().to_owned());
            if let (true, Some(grant)) = (moved, grant_of(tokens.access.expose())) {
                known.grant = grant;
                known.access.push(tokens.access.expose().to_owned());
            }
        }
        known.connection = Some(after.clone());
        let (person, id) = (known.person, after.id);
        // What was in hand of a grant that the user has replaced is nobody's any more.
        let grant = known.grant;
        if moved {
            state.forget_in_hand_beside(person, grant);
            let waiting: Vec<Read> = state.callers.values().filter(|read| read.person == person).copied().collect();
            for read in waiting {
                state.want(id, &read, false, self.time.wall(), credential);
            }
        }
    }

    /// I1 and I4, at a commit.
    fn judge_tokens(&self, before: Option<&Connection>, after: &Connection, tokens: Option<&TokenSet>) {
        let credential = &after.credential;
        let refresh = tokens.and_then(|tokens| tokens.refresh.as_ref()).map(|token| token.expose().to_owned());
        let died = credential.state == CredentialState::ReauthorizationRequired
            && before.is_some_and(|before| before.credential.state != credential.state);
        if died {
            let Some(refresh) = &refresh else {
                return self.broken(Invariant::I1, format!("the tokens of {} were deleted", after.id));
            };
            let unanswered = self.state().unanswered.get(refresh).copied().unwrap_or_default();
            let attempts = before.map_or(0, |before| before.credential.refresh.attempts);
            let spent = matches!(self.plan.rotation, Rotation::Strict | Rotation::Grace { .. })
                && (unanswered >= 2 || (attempts >= 2 && self.state().process > 1));
            let refused = self.state().oracle.refused.contains(refresh);
            if !spent && !refused {
                self.broken(Invariant::I4, format!("{} is given up: {refresh} was never refused", after.id));
            }
        }
        if before.is_some_and(|before| before.credential.state.is_stopped()) && !credential.state.is_stopped() {
            return self
                .broken(Invariant::I7, format!("{} was stopped, and is {:?} again", after.id, credential.state));
        }
        let ambiguous = credential.refresh.intent.is_some() || credential.refresh.attempts > 0;
        if !credential.state.refreshes() || ambiguous {
            return;
        }
        let Some(refresh) = refresh else {
            return self.broken(Invariant::I1, format!("{} has lost its refresh token", after.id));
        };
        let (valid, ended) = self.with_oracle(|oracle, now| {
            let ended = grant_of(&refresh).and_then(|grant| oracle.ended(grant));
            (oracle.is_valid(&refresh, now), ended)
        });
        if !valid && ended != Some(Ended::ByItsUser) {
            self.broken(Invariant::I1, format!("{} holds {refresh} for good, and it is not ({ended:?})", after.id));
        }
    }

    /// I5.
    fn judge_logs(&self, id: ConnectionId, before: Option<&Connection>, after: Option<&Connection>, receipt: &Receipt) {
        let read = async {
            let events = self.inspector.events(Revision(receipt.revision.0 - 1), 1).await.unwrap();
            let first = receipt.audit.first().map_or(0, |first| first - 1);
            let audit = self.inspector.audit(first, receipt.audit.len()).await.unwrap();
            (events, audit)
        };
        let (events, audit) = read.now_or_never().expect("memory does not wait");
        let events = events.into_iter().filter(|(revision, _)| *revision == receipt.revision);
        let mut told: Vec<_> =
            events.flat_map(|(_, events)| events).filter(|event| event.status.connection == id).collect();
        told.retain(|event| !matches!(event.kind, EventKind::Suspended | EventKind::Resumed));
        let mut kinds: Vec<EventKind> = told.iter().map(|event| event.kind).collect();
        let mut expected = expected(before.map(|before| &before.credential), after.map(|after| &after.credential));
        kinds.sort();
        expected.sort();
        if kinds != expected {
            self.broken(Invariant::I5, format!("{id}: events {kinds:?} where {expected:?} should be"));
        }
        let recorded = audit.iter().any(|(_, record)| {
            record.connection == Some(id)
                || matches!(record.action, AuditAction::SubjectErased | AuditAction::ConnectionChanged)
        });
        if !recorded {
            self.broken(Invariant::I5, format!("{id} changed, and the trail says nothing of it"));
        }
        if let Some(after) = after.filter(|_| {
            told.iter().any(|event| event.status.generation != after.map_or(0, |after| after.credential.generation))
        }) {
            self.broken(Invariant::I5, format!("{}: an event tells another generation", after.id));
        }
    }

    /// I2 and I6, when a refresh is sent.
    pub(crate) fn judge_post(&self, token: &str) {
        let (now, wall) = (self.time.elapsed(), self.time.wall());
        let state = self.state();
        let unanswered = state.unanswered.get(token).copied().unwrap_or_default();
        let third = self.plan.rotation == Rotation::Strict && unanswered >= 2;
        let known = state.connections.values().find(|known| known.refresh.as_deref() == Some(token));
        let idle = known.and_then(|known| known.connection.as_ref()).filter(|connection| {
            let Credential { refresh, generation, expires_at, .. } = &connection.credential;
            let fresh = expires_at.is_some_and(|at| {
                let life = connection.credential.lifetime().unwrap_or_default();
                wall.plus(connection.credential.margin() + life / 10 + Duration::from_secs(1)) < at
            });
            let first = refresh.failures == 0 && refresh.attempts <= 1;
            fresh && first && !state.has_jumped && !state.wanted.contains(&(connection.id, *generation))
        });
        let idle = idle.map(|connection| connection.id);
        let lately = state.posts.iter().rev().take_while(|at| now < **at + SECOND).count();
        let grant = grant_of(token).unwrap_or(usize::MAX);
        let in_vain = state.in_vain.get(&grant).map(|posts| posts.iter().filter(|at| now < **at + 10 * MINUTE).count());
        drop(state);
        if third {
            self.broken(Invariant::I2, format!("{token} is sent after two answers to it were lost"));
        }
        if let Some(id) = idle {
            self.broken(Invariant::I2, format!("{id} is refreshed, and nobody needs it"));
        }
        // A process that begins has a full bucket, and a slow commit brings two POSTs nearer to each other.
        let most = 2 * self.plan.refreshes_per_second as usize + self.plan.people;
        if lately > most {
            self.broken(Invariant::I6, format!("{lately} POSTs within a second"));
        }
        if let Some(in_vain) = in_vain.filter(|count| *count > MOST_IN_VAIN) {
            self.broken(Invariant::I6, format!("{in_vain} POSTs in vain for one grant within ten minutes"));
        }
    }

    /// I3 and I7, when a caller is given a token.
    pub(crate) fn judge_answer(&self, given_before: u64, token: &PluginToken) {
        let connection = &token.connection.value;
        let generation = connection.credential.generation;
        let text = token.access_token.expose();
        let mut state = self.state();
        let Some(known) = state.connections.get_mut(&connection.id) else { return };
        known.given = known.given.max(generation);
        // Its last look at the record may have been under way when that was said.
        let acknowledged = known.acknowledged_at.is_some_and(|at| self.time.elapsed() > at + SLOW_READ);
        let own = usize::try_from(generation).ok().and_then(|place| known.access.get(place - 1));
        let right = own.is_some_and(|own| own == text);
        drop(state);
        if acknowledged {
            self.broken(Invariant::I7, format!("{text} was served after {} was revoked", connection.id));
        }
        if generation < given_before || !right {
            self.broken(
                Invariant::I3,
                format!("{text} is not of generation {generation}, or older than {given_before}"),
            );
        }
    }

    /// Whether everything has come to rest.
    pub(crate) fn is_settled(&self) -> bool {
        self.state().connections.values().filter_map(|known| known.connection.as_ref()).all(|connection| {
            let Credential { state, refresh, .. } = &connection.credential;
            refresh.intent.is_none()
                && matches!(
                    state,
                    CredentialState::Connected | CredentialState::ReauthorizationRequired | CredentialState::Revoked
                )
        })
    }

    /// When everything has come to rest: what is connected works, and what was ended is ended at the provider.
    pub(crate) fn judge_end(&self) {
        let (mut live, mut ended) = (Vec::new(), Vec::new());
        for (id, known) in &self.state().connections {
            match known.connection.as_ref().map(|connection| connection.credential.state) {
                Some(CredentialState::Connected) => live.push((*id, known.grant, known.refresh.clone())),
                Some(CredentialState::ReauthorizationRequired) => {}
                Some(CredentialState::Revoked) | None => ended.push((*id, known.grant)),
                Some(state) => live.push((*id, known.grant, Some(format!("{state:?}")))),
            }
        }
        for (id, grant, refresh) in live {
            let works = self.with_oracle(|oracle, now| {
                oracle.ended(grant) == Some(Ended::ByItsUser)
                    || refresh.as_deref().is_some_and(|token| oracle.is_valid(token, now))
            });
            if !works {
                self.broken(Invariant::I1, format!("in the end {id} holds {refresh:?}"));
            }
        }
        for (id, grant) in ended {
            if self.with_oracle(|oracle, _| oracle.is_used(grant) && oracle.ended(grant).is_none()) {
                self.broken(
                    Invariant::I7,
                    format!("{id} is gone here, and its grant {grant} lives on at the provider"),
                );
            }
        }
    }
}

impl Known {
    pub(crate) fn last_access(&self) -> Option<&str> {
        self.access.last().map(String::as_str)
    }
}

impl World {
    /// A read begins: what it may need, and the newest generations that were given before it.
    pub(crate) fn begin_read(&self, number: u64, read: &Read) -> BTreeMap<ConnectionId, u64> {
        let wall = self.time.wall();
        let mut state = self.state();
        state.callers.insert(number, *read);
        let own = state.connections.iter().filter(|(_, known)| known.person == read.person);
        let own = own.filter_map(|(id, known)| Some((*id, known.given, known.connection.as_ref()?.credential.clone())));
        let own: Vec<_> = own.collect();
        for (id, _, credential) in &own {
            state.want(*id, read, read.rejects, wall, credential);
        }
        own.into_iter().map(|(id, given, _)| (id, given)).collect()
    }

    /// Whether the person has exactly one connection, and the server stands by all that they ever had.
    pub(crate) fn has_one_that_works(&self, person: usize) -> bool {
        let state = self.state();
        let own = || state.connections.values().filter(|known| known.person == person);
        let works = |known: &&Known| {
            let connection = known.connection.as_ref();
            connection.is_some_and(|connection| connection.credential.state == CredentialState::Connected)
        };
        own().filter(works).count() == 1 && own().all(|known| state.oracle.ended(known.grant).is_none())
    }

    /// Whether the person has a connection that serves.
    pub(crate) fn has_working(&self, person: usize) -> bool {
        let state = self.state();
        let own = state.connections.values().filter(|known| known.person == person);
        own.filter_map(|known| known.connection.as_ref()).any(|connection| connection.credential.state.serves())
    }
}

impl crate::world::State {
    /// A caller needs a newer token than this generation's.
    pub(crate) fn want(
        &mut self,
        id: ConnectionId,
        read: &Read,
        rejects: bool,
        now: Timestamp,
        credential: &Credential,
    ) {
        let remaining = read.remaining.map_or(Duration::from_secs(60).min(credential.margin()), Duration::from_secs);
        if rejects || !credential.is_fresh(now, remaining) {
            self.wanted.insert((id, credential.generation));
        }
    }
}

/// What watchers must be told of a change, from the records alone.
fn expected(before: Option<&Credential>, after: Option<&Credential>) -> Vec<EventKind> {
    use CredentialState as State;
    let Some(after) = after else { return before.map(|_| EventKind::Erased).into_iter().collect() };
    let Some(before) = before else { return vec![EventKind::Connected] };
    if after.generation > before.generation {
        let by_user = after.refresh == claviger::domain::Refresh::default() && before.refresh.intent.is_none();
        return match before.state {
            State::ReauthorizationRequired => vec![EventKind::Connected],
            _ if by_user => vec![EventKind::Connected],
            State::RefreshFailing => vec![EventKind::Recovered, EventKind::Refreshed],
            _ => vec![EventKind::Refreshed],
        };
    }
    let mut events = Vec::new();
    if after.announced_expired && !before.announced_expired {
        events.push(EventKind::Expired);
    } else if after.announced_expiring && !before.announced_expiring {
        events.push(EventKind::Expiring);
    }
    if after.state != before.state {
        events.extend(match after.state {
            State::RefreshFailing => Some(EventKind::RefreshFailing),
            State::ReauthorizationRequired => Some(EventKind::ReauthorizationRequired),
            State::Revoking | State::Revoked => Some(EventKind::Revoked),
            State::Pending | State::Connected | State::Expiring | State::Expired | State::Suspended => None,
        });
    }
    events
}
