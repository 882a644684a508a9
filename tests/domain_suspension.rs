//! Who is told of a provider's refusal: whatever happens in between, and wherever the telling stops, each watcher hears
//! `SUSPENDED` and `RESUMED` in turn.

use std::collections::BTreeMap;

use claviger::domain::{
    Connection, ConnectionId, Consent, Credential, CredentialId, CredentialState, Granted, ListPosition, Reason,
    Refusal, ScopeSet, SubjectId, Suspension, TellingKind, TenantId, Timestamp, installation_tenant,
};
use proptest::{collection::vec, prelude::*};

#[derive(Clone, Debug)]
enum Step {
    Refuse,
    Accept,
    /// So many records of the list are gone through.
    Tell(usize),
    /// A user authorizes, for the first time or again.
    Authorize(u8),
    GiveUp(u8),
}

struct World {
    now: Timestamp,
    suspension: Suspension,
    connections: BTreeMap<u8, Connection>,
    /// What each connection's watchers believe.
    suspended: BTreeMap<u8, bool>,
}

impl World {
    fn new() -> Self {
        let suspension = Suspension {
            tenant: installation_tenant(),
            provider: "acme".parse().expect("a legal name"),
            refusal: None,
            told: None,
        };
        Self { now: at(1), suspension, connections: BTreeMap::new(), suspended: BTreeMap::new() }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.now = self.now.plus(std::time::Duration::from_millis(1));
        match step {
            Step::Refuse if self.suspension.refusal.is_none() => self.suspension.refusal = Some(refusal(self.now)),
            Step::Refuse => {}
            Step::Accept => self.suspension.refusal = None,
            Step::Tell(limit) => self.tell(*limit)?,
            Step::Authorize(number) => {
                self.connections.insert(*number, connection(*number, self.now));
                // CONNECTED says so.
                self.suspended.remove(number);
            }
            Step::GiveUp(number) => {
                if let Some(found) = self.connections.get_mut(number)
                    && let Ok(given_up) =
                        found.credential.reauthorization_required(Reason::ReauthorizationRequired, None)
                {
                    found.credential = given_up.credential;
                    self.suspended.remove(number);
                }
            }
        }
        Ok(())
    }

    /// What the broker does for one change set.
    fn tell(&mut self, limit: usize) -> Result<(), TestCaseError> {
        let Some(telling) = self.suspension.telling() else { return Ok(()) };
        let after = telling.after().cloned();
        let page: Vec<u8> = self
            .connections
            .keys()
            .filter(|number| after.as_ref() < Some(&place(**number)))
            .take(limit)
            .copied()
            .collect();
        for number in &page {
            if telling.concerns(&place(*number), &self.connections[number]) {
                let suspended = telling.kind == TellingKind::Suspended;
                let before = self.suspended.insert(*number, suspended).unwrap_or(false);
                prop_assert_eq!(before, !suspended, "{} is told {:?} out of turn", number, telling.kind);
            }
        }
        let end = page.last().filter(|_| page.len() == limit).map(|number| place(*number));
        self.suspension = self.suspension.told_to(&telling, end);
        Ok(())
    }

    fn tell_all(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..2000 {
            if self.suspension.telling().is_none() {
                return Ok(());
            }
            self.take(&Step::Tell(3))?;
        }
        Err(TestCaseError::fail("the telling has no end"))
    }
}

proptest! {
    #[test]
    fn suspended_and_resumed_come_in_turn_and_to_everybody(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step)?;
        }
        world.take(&Step::Refuse)?;
        world.tell_all()?;
        let since = world.suspension.refusal.as_ref().map(|refusal| refusal.since);
        for (number, connection) in &world.connections {
            let concerned = connection.is_suspended_since(since.expect("it was refused"));
            prop_assert_eq!(world.suspended.get(number).copied().unwrap_or(false), concerned, "{}", number);
        }
        world.take(&Step::Accept)?;
        world.tell_all()?;
        prop_assert!(world.suspended.values().all(|suspended| !suspended));
        prop_assert!(world.suspension.is_over());
    }
}

#[test]
fn what_is_dead_or_was_authorized_since_or_cannot_be_refreshed_is_not_suspended() {
    let before = connection(1, at(1));
    assert!(before.is_suspended_since(at(2)));
    assert!(!before.is_suspended_since(at(1)), "it was authorized at that very moment");
    let shown = before.suspended().credential;
    assert_eq!((shown.state, shown.reason), (CredentialState::Suspended, Some(Reason::ProviderSuspended)));
    assert_eq!(shown.generation, before.credential.generation);
    for change in [
        |credential: &mut Credential| credential.refreshable = false,
        |credential: &mut Credential| credential.state = CredentialState::ReauthorizationRequired,
        |credential: &mut Credential| credential.state = CredentialState::Revoking,
    ] {
        let mut other = before.clone();
        change(&mut other.credential);
        assert!(!other.is_suspended_since(at(2)));
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Refuse),
        2 => Just(Step::Accept),
        8 => (1usize..6).prop_map(Step::Tell),
        4 => (0u8..24).prop_map(Step::Authorize),
        1 => (0u8..24).prop_map(Step::GiveUp),
    ]
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_800_000_000 + seconds)
}

fn place(number: u8) -> ListPosition {
    ListPosition(vec![number])
}

fn refusal(since: Timestamp) -> Refusal {
    let connection = ConnectionId::from_bytes([0; 16]);
    Refusal { since, registration: [0; 32], connection, refusals: 0, next_attempt_at: since }
}

fn connection(number: u8, consent: Timestamp) -> Connection {
    let tenant: TenantId = "acme".parse().expect("a legal name");
    let (subject, scopes) = (SubjectId::from_bytes([number; 32]), ScopeSet::default());
    let granted = Granted { scopes: scopes.clone(), expires_at: None, refreshable: true, refresh_token_end: None };
    let pending = Credential::pending(CredentialId::from_bytes([number; 16]), consent);
    Connection {
        id: ConnectionId::from_bytes([number; 16]),
        tenant,
        subject,
        provider: "acme".parse().expect("a legal name"),
        account: None,
        created_at: consent,
        consent: Consent { subject, agent: None, scopes, at: consent },
        credential: pending.authorized(granted, consent).expect("it was pending").credential,
        remote_revocation: None,
        withheld: false,
    }
}
