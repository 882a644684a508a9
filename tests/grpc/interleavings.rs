//! Somebody comes to watch while something happens: at each point of what is read for them, something else is written.

use std::{collections::BTreeMap, pin::pin};

use claviger::{
    domain::{
        AccessToken, Caller, Connection, ConnectionId, Consent, Credential, CredentialEvent, CredentialId,
        CredentialState, CredentialStatus, EventKind, Granted, RefreshToken, Revision, Role, ScopeSet, SubjectId,
        TenantId, Timestamp, canonical,
    },
    events::{Position, Resume},
    grpc::Settings,
    proto::v1::{
        self, OnLost, WatchCredentialStatusRequest as Request, WatchCredentialStatusResponse as Message,
        watch_credential_status_request::Start, watch_credential_status_response::Body,
    },
    store::Purge,
    vault::{Change, TokenSet, Tokens, Vault},
};

use crate::{
    clock::ManualClock,
    event_log,
    gated_store::{Reads, Side},
    rig::{Rig, reason},
    watch_validator::{History, Log, assert_valid},
    watching::User,
};

/// Whose connections change without the broker, as another use case changes them.
#[derive(Clone)]
pub(crate) struct Owner {
    vault: Vault,
    pub(crate) subject: SubjectId,
}

pub(crate) fn acme() -> TenantId {
    "acme".parse().unwrap()
}

pub(crate) fn numbered(number: u8, subject: SubjectId) -> ConnectionId {
    let mut id: [u8; 16] = subject.as_bytes()[..16].try_into().unwrap();
    id[15] = number;
    ConnectionId::from_bytes(id)
}

impl Owner {
    pub(crate) fn of(vault: &Vault, name: &str) -> Self {
        let subject = vault.keys().subject_id(&"platform".parse().unwrap(), "", &[name]);
        Self { vault: vault.clone(), subject }
    }

    async fn change(&self) -> Change {
        self.vault.change(&acme(), Some(self.subject)).await.unwrap()
    }

    pub(crate) async fn connects(&self, number: u8) -> u64 {
        let (id, now) = (numbered(number, self.subject), ManualClock::START);
        let pending = Credential::pending(CredentialId::from_bytes(*id.as_bytes()), now);
        let connection = Connection {
            id,
            tenant: acme(),
            subject: self.subject,
            provider: "dev".parse().unwrap(),
            account: Some(number.to_string()),
            created_at: now,
            consent: Consent { subject: self.subject, agent: None, scopes: ScopeSet::default(), at: now },
            credential: pending.authorized(granted(), now).unwrap().credential,
            remote_revocation: None,
            withheld: false,
        };
        let mut change = self.change().await;
        change.insert_connection(&connection, &tokens(), Timestamp::NEVER);
        change.event(&event(EventKind::Connected, &connection));
        change.commit().await.unwrap().revision.0
    }

    pub(crate) async fn refreshes(&self, number: u8) -> u64 {
        let stored = self.vault.connection(&acme(), numbered(number, self.subject)).await.unwrap().unwrap();
        let credential = stored.value.credential.refreshed(granted(), ManualClock::START).unwrap().credential;
        let next = Connection { credential, ..stored.value.clone() };
        let mut change = self.change().await;
        change.update_connection(&stored, &next, Tokens::Replace(&tokens()), Timestamp::NEVER);
        change.event(&event(EventKind::Refreshed, &next));
        change.commit().await.unwrap().revision.0
    }

    /// In the same change set the log loses its old end.
    pub(crate) async fn revokes(&self, number: u8, purge: Purge) -> u64 {
        let stored = self.vault.connection(&acme(), numbered(number, self.subject)).await.unwrap().unwrap();
        let credential = stored.value.credential.begin_revocation().unwrap().credential;
        let next = Connection { credential, ..stored.value.clone() };
        let mut change = self.change().await;
        change.update_connection(&stored, &next, Tokens::Drop, Timestamp::NEVER);
        change.event(&event(EventKind::Revoked, &next));
        change.purge(purge);
        change.commit().await.unwrap().revision.0
    }

    /// More events of one revision than one read of the log gives, of nothing that is there.
    async fn fills_a_page(&self) {
        let mut change = self.change().await;
        let id = ConnectionId::from_bytes([0xFF; 16]);
        for number in 0..130_u128 {
            let status = CredentialStatus {
                credential: CredentialId::from_bytes(number.to_be_bytes()),
                connection: id,
                subject: self.subject,
                agent: None,
                provider: "dev".parse().unwrap(),
                state: CredentialState::Revoked,
                generation: 1,
                scopes: ScopeSet::default(),
                expires_at: None,
                reason: None,
                authorization_ends_at: None,
            };
            let (kind, occurred_at) = (EventKind::Revoked, ManualClock::START);
            change.event(&CredentialEvent { kind, tenant: acme(), occurred_at, status });
        }
        change.commit().await.unwrap();
    }

    /// What is served, by what it is called on the stream.
    pub(crate) async fn state(&self) -> BTreeMap<String, u64> {
        let connections = self.vault.connections(&acme(), self.subject, None).await.unwrap();
        let credentials = connections.into_iter().map(|stored| stored.value.credential.clone());
        let serving = credentials.filter(|credential| !credential.state.is_stopped());
        serving.map(|credential| (credential.id.to_string(), credential.generation)).collect()
    }

    /// A token that stands on a revision, as a stream of this owner with no filter would have sent it.
    pub(crate) fn token(&self, position: Position) -> Vec<u8> {
        let none = canonical(&[]);
        let (head, filter) = (self.vault.store().head(), canonical(&[&none, &none, &none]));
        Resume::new(self.vault.keys(), &head, &self.caller(), &filter).token(position)
    }

    pub(crate) fn at(&self, revision: u64) -> Vec<u8> {
        self.token(Position { epoch: self.vault.store().head().epoch, revision: Revision(revision) })
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller {
            tenant: acme(),
            subject: self.subject,
            family: "platform".parse().unwrap(),
            external_id: String::new(),
            agent: None,
            audience: Vec::new(),
            scopes: ScopeSet::default(),
            roles: [Role::User].into(),
            issued_at: Timestamp::EPOCH,
            expires_at: Timestamp::NEVER,
        }
    }
}

fn granted() -> Granted {
    Granted { scopes: ScopeSet::default(), expires_at: None, refreshable: true, refresh_token_end: None }
}

fn tokens() -> TokenSet {
    let (access, refresh) = (AccessToken::new("a".to_owned()), Some(RefreshToken::new("r".to_owned())));
    TokenSet { access, refresh, id_token: None }
}

fn event(kind: EventKind, connection: &Connection) -> CredentialEvent {
    let (tenant, occurred_at) = (connection.tenant.clone(), ManualClock::START);
    CredentialEvent { kind, tenant, occurred_at, status: CredentialStatus::of(connection) }
}

/// What a client shows that has heard all this: of what is served, the newest.
pub(crate) fn view(messages: &[Message]) -> BTreeMap<String, u64> {
    let mut newest: BTreeMap<String, v1::CredentialStatus> = BTreeMap::new();
    for message in messages {
        let statuses: Vec<_> = match message.body.clone().unwrap() {
            Body::Resync(_) => {
                newest.clear();
                continue;
            }
            Body::Snapshot(snapshot) => snapshot.statuses,
            Body::Batch(batch) => batch.events.into_iter().filter_map(|event| event.status).collect(),
            _ => continue,
        };
        newest.extend(statuses.into_iter().map(|status| (status.credential_id.clone(), status)));
    }
    let is_stopped = |status: &v1::CredentialStatus| {
        [v1::CredentialState::Revoking, v1::CredentialState::Revoked].contains(&status.state())
    };
    newest.retain(|_, status| !is_stopped(status));
    newest.into_iter().map(|(id, status)| (id, status.generation)).collect()
}

/// A snapshot and what follows it are exactly what there is, whatever was written at whichever point of the opening.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_a_stream_opens_is_in_its_snapshot_or_follows_it() {
    let (rig, mut histories) = (Rig::start().await, Vec::new());
    for (reads, side) in [(Reads::All, Side::Before), (Reads::All, Side::After), (Reads::OfTheLog, Side::Before)] {
        for others in 0.. {
            let name = format!("alice-{}-{side:?}-{others}", reads == Reads::All);
            let (user, owner) = (User::of(&rig, &name).await, Owner::of(&rig.vault, &name));
            assert_eq!(user.subject, owner.subject);
            for number in [0, 1] {
                owner.connects(number).await;
            }
            if reads == Reads::OfTheLog {
                // The first of them is the one by which the broker itself learns of this.
                rig.gate.hold(reads, others, side);
                owner.refreshes(0).await;
            } else {
                owner.refreshes(0).await;
                rig.gate.hold(reads, others, side);
            }
            let mut opening = pin!(user.comes_to(Request::default(), 0));
            let (is_held, opened) = tokio::select! {
                biased;
                opened = &mut opening => {
                    rig.gate.release();
                    (false, Some(opened))
                }
                () = rig.gate.held() => (true, None),
            };
            owner.refreshes(0).await;
            owner.connects(2).await;
            owner.revokes(1, Purge::default()).await;
            rig.gate.release();
            let opened = match opened {
                Some(opened) => opened,
                None => opening.await,
            };
            let last = owner.refreshes(0).await;
            let (mut history, come) = opened.1.unwrap().comes_to(last).await;
            assert!(come.is_ok(), "{:?}", come.err());
            assert_eq!(view(&history.messages), owner.state().await);
            history.must_reach = Some(last);
            histories.push(history);
            if !is_held {
                assert!(others > 0, "nothing is read");
                break;
            }
        }
    }
    println!("{} interleavings", histories.len());
    assert_valid(&event_log::read(&rig.vault).await, &histories);
}

/// Enough for every point of every opening below.
const PEOPLE: usize = 40;

/// For each: three revisions of theirs, more than one read of the log apart.
async fn pasts_of_many(vault: &Vault) -> Vec<(u64, u64, u64)> {
    let (mut pasts, other) = (Vec::new(), Owner::of(vault, "other"));
    for number in 0..PEOPLE {
        let owner = Owner::of(vault, &format!("alice-{number}"));
        let first = owner.connects(0).await;
        other.fills_a_page().await;
        let second = owner.connects(1).await;
        let last = owner.refreshes(0).await;
        other.fills_a_page().await;
        pasts.push((first, second, last));
    }
    pasts
}

/// Whoever reads a part of the log that is cut off at that moment is told everything or is told that it is lost: never
/// does something not come, and nothing is said of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compacted_while_it_is_read_is_told_or_said_to_be_lost() {
    let mut pasts = Vec::new();
    let rig = Rig::after(Settings::default(), async |vault| pasts = pasts_of_many(vault).await).await;
    let (mut log, mut histories) = (event_log::read(&rig.vault).await, Vec::new());
    let (mut lost, mut people) = (0, pasts.iter().enumerate());
    for on_lost in [OnLost::Fail, OnLost::Resync] {
        for (reads, side) in
            [(Reads::All, Side::Before), (Reads::OfTheLog, Side::Before), (Reads::OfTheLog, Side::After)]
        {
            for others in 0.. {
                let (number, (first, second, last)) = people.next().expect("there are people enough");
                let name = format!("alice-{number}");
                let (user, owner) = (User::of(&rig, &name).await, Owner::of(&rig.vault, &name));
                let token = owner.at(*first);
                histories.push(stood(&user, *first, &token));
                let start = Some(Start::ResumeToken(token));
                let request = Request { start, on_lost: on_lost.into(), ..Request::default() };
                rig.gate.hold(reads, others, side);
                let mut opening = pin!(user.comes_to(request, *last));
                let (is_held, opened) = tokio::select! {
                    biased;
                    opened = &mut opening => {
                        rig.gate.release();
                        (false, Some(opened))
                    }
                    () = rig.gate.held() => (true, None),
                };
                // Its own end is told by the change set that cuts the log off behind it.
                let events = Revision(if others % 2 == 0 { *second } else { *last });
                owner.revokes(0, Purge { events, audit: 0 }).await;
                rig.gate.release();
                let (mut history, come) = match opened {
                    Some(opened) => opened,
                    None => opening.await,
                };
                match come {
                    Ok(watching) => {
                        let newest = owner.refreshes(1).await;
                        let come;
                        (history, come) = watching.comes_to(newest).await;
                        assert!(come.is_ok(), "{:?}", come.err());
                        history.must_reach = Some(newest);
                        lost += usize::from(history.messages.iter().any(is_resync));
                    }
                    Err(refused) => {
                        assert_eq!((reason(&refused).as_str(), on_lost), ("REVISION_COMPACTED", OnLost::Fail));
                        lost += 1;
                    }
                }
                histories.push(history);
                if !is_held {
                    break;
                }
            }
        }
    }
    log.revisions.extend(event_log::read(&rig.vault).await.revisions);
    println!("{} interleavings, {lost} of them lost", histories.len() / 2);
    assert!(lost > 0 && lost < histories.len() / 2, "both ends are reached");
    // With what was cut off: the validator forgives nothing.
    assert_valid(&Log { compacted: 0, ..log }, &histories);
}

fn is_resync(message: &Message) -> bool {
    matches!(message.body, Some(Body::Resync(_)))
}

/// A stream that got this token there.
fn stood(user: &User<'_>, revision: u64, token: &[u8]) -> History {
    let opened = v1::WatchOpened { head_revision: revision, ..Default::default() };
    let (body, resume_token) = (Some(Body::Opened(opened)), token.to_vec());
    let request = Request { start: Some(Start::Now(true)), ..Request::default() };
    let messages = vec![Message { revision, resume_token, body }];
    History { subject: user.subject.to_string(), request, messages, must_reach: None }
}
