//! Holds what watchers heard against the log, by the guarantees W1 to W9, and snapshots against what the log adds up to.
//! (Of W9, what a stalled watcher costs is for measurements to say; a history shows whom it holds up.)

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use claviger::proto::v1::{
    self, CredentialEvent, CredentialEventKind as Kind, CredentialState, CredentialStatus, Delivery,
    WatchCredentialStatusRequest as Request, WatchCredentialStatusResponse as Message,
    watch_credential_status_request::Start, watch_credential_status_response::Body, watch_scope::Target,
};

/// Everything that was ever committed, above `compacted`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) compacted: u64,
    /// By revision; each with all its events, whoever's.
    pub(crate) revisions: BTreeMap<u64, Vec<CredentialEvent>>,
}

/// One stream, from its opening to its end.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Who listened.
    pub(crate) subject: String,
    pub(crate) request: Request,
    pub(crate) messages: Vec<Message>,
    /// Up to where this stream must have come by its end, whatever others do; `None`: it was not read to the end.
    pub(crate) must_reach: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Guarantee {
    /// W1: revisions never fall.
    Ordered,
    /// W2: an event comes at most once on a stream.
    Unique,
    /// W3: up to where a stream has come, nothing that matches is missing.
    Reliable,
    /// W4: all matching events of a revision come together.
    Atomic,
    /// W5: a stream that resumes begins behind its token.
    Resumable,
    /// W6: what progress or a snapshot has passed does not come any more.
    Bookmarkable,
    /// W7: only what was asked for, only the listener's own, and nothing of what they could not see then.
    Filtered,
    /// W8: what was sent is what the log has.
    Durable,
    /// W9: a stream that is read comes as far as it must, whoever else is not read.
    Isolated,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) guarantee: Guarantee,
    pub(crate) stream: usize,
    pub(crate) what: String,
}

/// Every violation in the histories, which are in the order in which their streams were opened.
pub(crate) fn violations(log: &Log, histories: &[History]) -> Vec<Violation> {
    let (cuts, mut tokens, mut found) = (Cuts::of(log), HashMap::new(), Vec::new());
    for (stream, history) in histories.iter().enumerate() {
        let mut judge =
            Judge { log, cuts: &cuts, history, stream, tokens: &mut tokens, found: &mut found, view: View::default() };
        judge.hear_all();
    }
    found
}

/// # Panics
/// If there is one.
#[track_caller]
pub(crate) fn assert_valid(log: &Log, histories: &[History]) {
    let violations = violations(log, histories);
    assert!(violations.is_empty(), "{violations:#?}");
}

struct Judge<'a> {
    log: &'a Log,
    cuts: &'a Cuts,
    history: &'a History,
    stream: usize,
    /// Where each token stands.
    tokens: &'a mut HashMap<Vec<u8>, u64>,
    found: &'a mut Vec<Violation>,
    view: View,
}

#[derive(Default)]
struct View {
    /// The newest revision of any message.
    revision: u64,
    /// From where on nothing may be missing; `None`: inside a snapshot.
    since: Option<u64>,
    /// Up to where everything was sent.
    complete: u64,
    /// Revisions that came whole or in part, and their events.
    heard: BTreeMap<u64, HashSet<CredentialEvent>>,
    /// The revision whose next fragment is due.
    fragment_of: Option<u64>,
    /// What the snapshot under way has listed, and at which revision.
    listed: Vec<(u64, CredentialStatus)>,
}

/// Where access to each credential changes: ACCESS_LOST and ERASED end it, ACCESS_GAINED begins it.
#[derive(Default)]
struct Cuts(HashMap<String, Vec<(u64, Kind)>>);

impl Log {
    fn all(&self) -> impl Iterator<Item = (u64, &CredentialEvent)> {
        self.revisions.iter().flat_map(|(revision, events)| events.iter().map(|event| (*revision, event)))
    }

    fn knows(&self, id: &str, at: u64) -> bool {
        self.all().any(|(revision, event)| revision <= at && credential(event) == id)
    }

    /// The newest event of each of the subject's credentials.
    fn state(&self, subject: &str, at: u64) -> BTreeMap<String, CredentialEvent> {
        let own = |event: &CredentialEvent| event.status.as_ref().is_some_and(|status| status.subject == subject);
        let until = self.all().filter(|(revision, event)| *revision <= at && own(event));
        until.map(|(_, event)| (credential(event), event.clone())).collect()
    }
}

impl Cuts {
    fn of(log: &Log) -> Self {
        let mut cuts = Self::default();
        for (revision, event) in log.all().filter(|(_, event)| is_cut(event)) {
            cuts.0.entry(credential(event)).or_default().push((revision, event.kind()));
        }
        cuts
    }

    /// The next one after a revision.
    fn next(&self, id: &str, after: u64) -> Option<(u64, Kind)> {
        self.0.get(id)?.iter().find(|(revision, _)| *revision > after).copied()
    }

    /// Whether its reader could see it when the event happened.
    fn shows(&self, revision: u64, event: &CredentialEvent) -> bool {
        let before = self.0.get(&credential(event)).into_iter().flatten().take_while(|(cut, _)| *cut < revision);
        is_cut(event) || before.last().is_none_or(|(_, kind)| *kind == Kind::AccessGained)
    }
}

impl Judge<'_> {
    fn hear_all(&mut self) {
        for message in &self.history.messages {
            self.hear(message);
        }
        self.nothing_is_missing();
        self.has_come_far_enough();
    }

    fn hear(&mut self, message: &Message) {
        let revision = message.revision;
        if revision < self.view.revision {
            self.violated(Guarantee::Ordered, format!("{revision} after {}", self.view.revision));
        }
        self.view.revision = self.view.revision.max(revision);
        let fragment_of = self.view.fragment_of.take();
        if let Some(begun) = fragment_of
            && !matches!(&message.body, Some(Body::Batch(_)) if revision == begun)
            && !matches!(&message.body, Some(Body::Drain(_)))
        {
            self.violated(Guarantee::Atomic, format!("revision {begun} broke off"));
        }
        match &message.body {
            Some(Body::Opened(opened)) => self.opened(opened),
            Some(Body::Resync(_)) => self.begin_anew(),
            Some(Body::Snapshot(snapshot)) => {
                self.view.listed.extend(snapshot.statuses.iter().map(|status| (revision, status.clone())));
            }
            Some(Body::SnapshotEnd(_)) => {
                self.snapshot_is_true(revision);
                self.view.since = Some(revision);
                self.view.complete = revision;
            }
            Some(Body::Batch(batch)) => self.batch(revision, batch),
            Some(Body::Progress(_)) => self.view.complete = self.view.complete.max(revision),
            Some(Body::Drain(_)) | None => {}
        }
        if !message.resume_token.is_empty() {
            self.tokens.insert(message.resume_token.clone(), self.view.complete);
        }
    }

    fn opened(&mut self, opened: &v1::WatchOpened) {
        self.view.since = match &self.history.request.start {
            Some(Start::ResumeToken(token)) => self.tokens.get(token).copied(),
            Some(Start::Now(_)) => Some(opened.head_revision),
            Some(Start::Snapshot(_)) | None => None,
        };
        self.view.complete = self.view.since.unwrap_or(0);
    }

    fn begin_anew(&mut self) {
        self.nothing_is_missing();
        self.view = View { revision: self.view.revision, ..View::default() };
    }

    fn batch(&mut self, revision: u64, batch: &v1::WatchBatch) {
        if revision <= self.view.complete {
            let resumed = matches!(self.history.request.start, Some(Start::ResumeToken(_)));
            let passed = self.view.since == Some(self.view.complete) && resumed;
            let guarantee = if passed { Guarantee::Resumable } else { Guarantee::Bookmarkable };
            self.violated(guarantee, format!("{revision} after everything up to {}", self.view.complete));
        }
        let known = self.log.revisions.get(&revision);
        let logged: HashSet<&CredentialEvent> = known.into_iter().flatten().collect();
        for event in &batch.events {
            if !logged.contains(event) && revision > self.log.compacted {
                self.violated(Guarantee::Durable, format!("at {revision} the log has no {}", told(event)));
            }
            if !self.matches(revision, event) {
                self.violated(Guarantee::Filtered, format!("{} at {revision}", told(event)));
            }
            if !self.view.heard.entry(revision).or_default().insert(event.clone()) {
                self.violated(Guarantee::Unique, format!("{} at {revision}", told(event)));
            }
        }
        if batch.more_follows {
            self.view.fragment_of = Some(revision);
            return;
        }
        self.view.complete = self.view.complete.max(revision);
        let matching = known.into_iter().flatten().filter(|event| self.is_due(revision, event)).count();
        let came = self.view.heard.get(&revision).map_or(0, HashSet::len);
        if came < matching && self.is_every_event() && revision > self.log.compacted {
            self.violated(Guarantee::Atomic, format!("{came} of {matching} events at {revision}"));
        }
    }

    /// Of everything that matches in (since, complete].
    fn nothing_is_missing(&mut self) {
        let Some(since) = self.view.since.filter(|since| *since >= self.log.compacted) else { return };
        if since >= self.view.complete {
            return;
        }
        let passed: Vec<(u64, &CredentialEvent)> = self
            .log
            .revisions
            .range(since + 1..=self.view.complete)
            .flat_map(|(revision, events)| events.iter().map(|event| (*revision, event)))
            .filter(|(revision, event)| self.is_due(*revision, event))
            .collect();
        let newest: BTreeMap<String, u64> =
            passed.iter().map(|(revision, event)| (credential(event), *revision)).collect();
        let mut missing = BTreeSet::new();
        for (revision, event) in passed {
            let superseded = !self.is_every_event() && newest[&credential(event)] > revision;
            let came = self.view.heard.get(&revision).is_some_and(|heard| heard.contains(event));
            if !came && !superseded {
                missing.insert(format!("{} at {revision}", told(event)));
            }
        }
        for what in missing {
            self.violated(Guarantee::Reliable, what);
        }
    }

    /// What the stream has not come to is not there.
    fn has_come_far_enough(&mut self) {
        let Some(reach) = self.history.must_reach else { return };
        if self.view.since.is_none() {
            return self.violated(Guarantee::Isolated, "it never stood on a revision".to_owned());
        }
        let behind = self.log.revisions.range(self.view.complete + 1..).take_while(|(revision, _)| **revision <= reach);
        let waits = behind.flat_map(|(revision, events)| events.iter().map(|event| (*revision, event)));
        let waits: Vec<_> = waits.filter(|(revision, event)| self.is_due(*revision, event)).collect();
        if let Some((revision, event)) = waits.first() {
            let what = format!("{} at {revision}, and it came to {}", told(event), self.view.complete);
            self.violated(Guarantee::Isolated, what);
        }
    }

    /// What was listed is what the log adds up to.
    fn snapshot_is_true(&mut self, at: u64) {
        let listed = std::mem::take(&mut self.view.listed);
        let mut due = self.log.state(&self.history.subject, at);
        due.retain(|_, event| !is_gone(event) && self.shows(event) && self.cuts.shows(at + 1, event));
        let mut seen = BTreeSet::new();
        for (revision, status) in &listed {
            let id = &status.credential_id;
            if *revision != at {
                self.violated(Guarantee::Atomic, format!("{id} at {revision} in a snapshot at {at}"));
            }
            if !seen.insert(id.clone()) {
                self.violated(Guarantee::Unique, format!("{id} twice in a snapshot"));
            }
            match due.get(id) {
                // Also where an older part of the log is gone: what has no event there may be listed.
                None if self.log.compacted > 0 && !self.log.knows(id, at) => {}
                None => self.violated(Guarantee::Filtered, format!("{id} in a snapshot at {at}")),
                Some(event) if !is_same(event, status) => {
                    self.violated(Guarantee::Durable, format!("{id} as {status:?} at {at}, after {}", told(event)));
                }
                Some(_) => {}
            }
        }
        for (id, event) in due {
            if !seen.contains(&id) && self.cuts.next(&id, at).is_none() {
                self.violated(Guarantee::Reliable, format!("{} is not in a snapshot at {at}", told(&event)));
            }
        }
    }

    /// Whether it must come: it matches, and its reader could see it until it was sent. What access was lost to
    /// afterwards may have been kept back, unless something newer of it came: then it could be seen all the while.
    fn is_due(&self, revision: u64, event: &CredentialEvent) -> bool {
        if !self.matches(revision, event) {
            return false;
        }
        let id = credential(event);
        match self.cuts.next(&id, revision) {
            // One that access is given back by is kept back as any other, when it is lost again by then.
            _ if event.kind() == Kind::AccessLost => true,
            None => true,
            Some((_, Kind::AccessGained)) => false,
            Some((cut, _)) => self
                .view
                .heard
                .range(revision + 1..cut)
                .any(|(_, events)| events.iter().any(|heard| credential(heard) == id)),
        }
    }

    fn matches(&self, revision: u64, event: &CredentialEvent) -> bool {
        let kinds = &self.history.request.kinds;
        let is_end =
            matches!(event.kind(), Kind::ReauthorizationRequired | Kind::Revoked | Kind::Erased | Kind::AccessLost);
        let is_own = event.status.as_ref().is_some_and(|status| status.subject == self.history.subject);
        let asked = kinds.is_empty() || is_end || kinds.contains(&event.kind);
        is_own && asked && self.shows(event) && self.cuts.shows(revision, event)
    }

    fn shows(&self, event: &CredentialEvent) -> bool {
        let (scopes, status) = (&self.history.request.scopes, event.status.clone().unwrap_or_default());
        scopes.is_empty()
            || scopes.iter().any(|scope| match &scope.target {
                Some(Target::ConnectionId(id)) => *id == status.connection_id,
                Some(Target::CredentialId(id)) => *id == status.credential_id,
                Some(Target::Own(_)) => true,
                Some(Target::Agent(_)) | None => false,
            })
    }

    fn is_every_event(&self) -> bool {
        self.history.request.delivery() != Delivery::LatestPerCredential
    }

    fn violated(&mut self, guarantee: Guarantee, what: String) {
        self.found.push(Violation { guarantee, stream: self.stream, what });
    }
}

fn is_cut(event: &CredentialEvent) -> bool {
    matches!(event.kind(), Kind::AccessLost | Kind::AccessGained | Kind::Erased)
}

/// What is not listed any more.
fn is_gone(event: &CredentialEvent) -> bool {
    let is_end = matches!(event.kind(), Kind::AccessLost | Kind::Erased);
    let is_stopped = |state| matches!(state, CredentialState::Revoking | CredentialState::Revoked);
    is_end || event.status.as_ref().is_some_and(|status| is_stopped(status.state()))
}

/// Whether a snapshot lists what the newest event says. Whether a provider suspends it is told page by page: a state may
/// be ahead of its event.
fn is_same(event: &CredentialEvent, listed: &CredentialStatus) -> bool {
    let said = event.status.clone().unwrap_or_default();
    let suspended = [&said, listed].into_iter().any(|status| status.state() == CredentialState::Suspended);
    let (connection, generation, scopes) = (&said.connection_id, said.generation, &said.scopes);
    (connection, generation, scopes) == (&listed.connection_id, listed.generation, &listed.scopes)
        && said.subject == listed.subject
        && (suspended || said.state() == listed.state())
}

fn credential(event: &CredentialEvent) -> String {
    event.status.as_ref().map(|status| status.credential_id.clone()).unwrap_or_default()
}

fn told(event: &CredentialEvent) -> String {
    format!("{:?} of {}", event.kind(), credential(event))
}
