//! Holds what watchers heard against the log, by the guarantees W1 to W8. (W9, that a stalled watcher costs little and
//! delays nobody, is about time and memory: no history shows it.)

use std::collections::{BTreeMap, BTreeSet, HashMap};

use claviger::proto::v1::{
    self, CredentialEvent, CredentialEventKind as Kind, Delivery, WatchCredentialStatusRequest as Request,
    WatchCredentialStatusResponse as Message, watch_credential_status_request::Start,
    watch_credential_status_response::Body, watch_scope::Target,
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
    /// W7: only what was asked for, and only the listener's own.
    Filtered,
    /// W8: what was sent is what the log has.
    Durable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) guarantee: Guarantee,
    pub(crate) stream: usize,
    pub(crate) what: String,
}

/// Every violation in the histories, which are in the order in which their streams were opened.
pub(crate) fn violations(log: &Log, histories: &[History]) -> Vec<Violation> {
    let (mut tokens, mut found) = (HashMap::new(), Vec::new());
    for (stream, history) in histories.iter().enumerate() {
        let mut judge = Judge { log, history, stream, tokens: &mut tokens, found: &mut found, view: View::default() };
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
    heard: BTreeMap<u64, Vec<CredentialEvent>>,
    /// The revision whose next fragment is due.
    fragment_of: Option<u64>,
}

impl Judge<'_> {
    fn hear_all(&mut self) {
        for message in &self.history.messages {
            self.hear(message);
        }
        self.nothing_is_missing();
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
        {
            self.violated(Guarantee::Atomic, format!("revision {begun} broke off"));
        }
        match &message.body {
            Some(Body::Opened(opened)) => self.opened(opened),
            Some(Body::Resync(_)) => self.begin_anew(),
            Some(Body::SnapshotEnd(_)) => {
                self.view.since = Some(revision);
                self.view.complete = revision;
            }
            Some(Body::Batch(batch)) => self.batch(revision, batch),
            Some(Body::Progress(_)) => self.view.complete = self.view.complete.max(revision),
            Some(Body::Snapshot(_) | Body::Drain(_)) | None => {}
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
        for event in &batch.events {
            if !known.is_some_and(|known| known.contains(event)) && revision > self.log.compacted {
                self.violated(Guarantee::Durable, format!("at {revision} the log has no {}", told(event)));
            }
            if !self.matches(event) {
                self.violated(Guarantee::Filtered, format!("{} at {revision}", told(event)));
            }
            let before = self.view.heard.entry(revision).or_default();
            if before.contains(event) {
                self.violated(Guarantee::Unique, format!("{} at {revision}", told(event)));
            }
            self.view.heard.entry(revision).or_default().push(event.clone());
        }
        if batch.more_follows {
            self.view.fragment_of = Some(revision);
            return;
        }
        self.view.complete = self.view.complete.max(revision);
        let matching = known.into_iter().flatten().filter(|event| self.matches(event)).count();
        let came = self.view.heard.get(&revision).map_or(0, Vec::len);
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
            .filter(|(_, event)| self.matches(event))
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

    fn matches(&self, event: &CredentialEvent) -> bool {
        let (Request { scopes, kinds, .. }, status) = (&self.history.request, event.status.clone().unwrap_or_default());
        let shown = scopes.is_empty()
            || scopes.iter().any(|scope| match &scope.target {
                Some(Target::ConnectionId(id)) => *id == status.connection_id,
                Some(Target::CredentialId(id)) => *id == status.credential_id,
                Some(Target::Own(_)) => true,
                Some(Target::Agent(_)) | None => false,
            });
        let is_end = matches!(event.kind(), Kind::ReauthorizationRequired | Kind::Revoked | Kind::Erased);
        shown && status.subject == self.history.subject && (kinds.is_empty() || is_end || kinds.contains(&event.kind))
    }

    fn is_every_event(&self) -> bool {
        self.history.request.delivery() != Delivery::LatestPerCredential
    }

    fn violated(&mut self, guarantee: Guarantee, what: String) {
        self.found.push(Violation { guarantee, stream: self.stream, what });
    }
}

fn credential(event: &CredentialEvent) -> String {
    event.status.as_ref().map(|status| status.credential_id.clone()).unwrap_or_default()
}

fn told(event: &CredentialEvent) -> String {
    format!("{:?} of {}", event.kind(), credential(event))
}
