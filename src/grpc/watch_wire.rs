//! A watch stream's messages as bytes. Events and states are written when the log is read, once for everybody; a message
//! that lists them is put together from their bytes and what is its stream's own, as a protobuf message is its fields one
//! after another.

use bytes::{BufMut, Bytes};
use prost::{
    Message as _,
    encoding::{self, WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::encode;
use crate::{
    broker::{Delivery, DrainReason, OnLost, ResyncReason, WatchMessage, Wire},
    domain::{CredentialEvent, CredentialStatus, EventKind, Reason},
    proto::v1::{self, CredentialEventKind, DrainCause, watch_credential_status_response::Body},
};

/// What the encoding of one message needs to know of the stream.
pub(super) struct Progress {
    pub(super) delivery: Delivery,
    pub(super) on_lost: OnLost,
    /// Where the stream stands: messages that have no revision of their own repeat it.
    pub(super) revision: u64,
}

/// One message, ready to be written.
pub(super) enum Outgoing {
    /// Has nothing that is shared.
    Own(v1::WatchCredentialStatusResponse),
    List(List),
}

/// A message that lists states or events.
pub(super) struct List {
    resume_token: Vec<u8>,
    revision: u64,
    body: ListBody,
    values: Vec<Bytes>,
    more_follows: bool,
}

/// The body's field in `WatchCredentialStatusResponse`.
#[derive(Clone, Copy)]
enum ListBody {
    Snapshot = 5,
    Batch = 7,
}

/// Field numbers of `WatchCredentialStatusResponse`.
const RESUME_TOKEN: u32 = 1;
const REVISION: u32 = 2;
/// Field numbers of `WatchBatch`; in `WatchSnapshot`, `VALUES` is the same.
const VALUES: u32 = 1;
const MORE_FOLLOWS: u32 = 2;

/// As every message has it that has it.
pub const WIRE: Wire =
    Wire { event: |event| encode_event(event).encode_to_vec(), status: |status| encode_status(status).encode_to_vec() };

impl Progress {
    pub(super) fn prepare(&mut self, message: WatchMessage) -> Outgoing {
        let (body, revision, token) = match message {
            WatchMessage::Snapshot { revision, statuses } => {
                self.revision = revision.0;
                let values = statuses.iter().map(|status| status.wire.clone());
                return self.list(ListBody::Snapshot, values.collect(), Vec::new(), false);
            }
            WatchMessage::Batch { revision, events, token } => {
                self.revision = revision.0;
                let (values, more_follows) = (events.iter().map(|event| event.wire.clone()), token.is_none());
                return self.list(ListBody::Batch, values.collect(), token.unwrap_or_default(), more_follows);
            }
            WatchMessage::Opened { head, progress_interval, max_age: _, token } => {
                let opened = v1::WatchOpened {
                    head_revision: head.0,
                    progress_interval: Some(encode::duration(progress_interval)),
                    delivery: encode_delivery(self.delivery).into(),
                    on_lost: encode_on_lost(self.on_lost).into(),
                };
                (Body::Opened(opened), None, token)
            }
            WatchMessage::Resync { reason } => {
                let reason = match reason {
                    ResyncReason::Compacted | ResyncReason::EpochChanged => Reason::RevisionCompacted,
                    ResyncReason::AheadOfLog => Reason::AheadOfLog,
                };
                (Body::Resync(v1::WatchResync { reason: encode::reason(reason).into() }), None, Vec::new())
            }
            WatchMessage::SnapshotEnd { revision, token } => {
                (Body::SnapshotEnd(v1::WatchSnapshotEnd {}), Some(revision), token)
            }
            WatchMessage::Progress { revision, token } => (Body::Progress(v1::WatchProgress {}), Some(revision), token),
            WatchMessage::Drain { reason, reconnect_after, token } => {
                let reconnect_after = Some(encode::duration(reconnect_after));
                (Body::Drain(v1::WatchDrain { cause: encode_cause(reason).into(), reconnect_after }), None, token)
            }
        };
        self.revision = revision.map_or(self.revision, |revision| revision.0);
        let (resume_token, revision, body) = (token, self.revision, Some(body));
        Outgoing::Own(v1::WatchCredentialStatusResponse { resume_token, revision, body })
    }

    fn list(&self, body: ListBody, values: Vec<Bytes>, resume_token: Vec<u8>, more_follows: bool) -> Outgoing {
        Outgoing::List(List { resume_token, revision: self.revision, body, values, more_follows })
    }
}

impl Outgoing {
    /// How many bytes [`Self::write`] writes.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Own(message) => message.encoded_len(),
            Self::List(list) => list.length(),
        }
    }

    pub(super) fn write(&self, into: &mut impl BufMut) {
        match self {
            Self::Own(message) => message.encode_raw(into),
            Self::List(list) => list.write(into),
        }
    }
}

impl List {
    fn length(&self) -> usize {
        let token = if self.resume_token.is_empty() {
            0
        } else {
            encoding::bytes::encoded_len(RESUME_TOKEN, &self.resume_token)
        };
        let revision = if self.revision == 0 { 0 } else { encoding::uint64::encoded_len(REVISION, &self.revision) };
        token + revision + field_length(self.body as u32, self.body_length())
    }

    fn body_length(&self) -> usize {
        let values: usize = self.values.iter().map(|value| field_length(VALUES, value.len())).sum();
        values + if self.more_follows { encoding::bool::encoded_len(MORE_FOLLOWS, &true) } else { 0 }
    }

    /// In the order of the fields' numbers, and without what is empty, as prost does it.
    fn write(&self, into: &mut impl BufMut) {
        if !self.resume_token.is_empty() {
            encoding::bytes::encode(RESUME_TOKEN, &self.resume_token, into);
        }
        if self.revision != 0 {
            encoding::uint64::encode(REVISION, &self.revision, into);
        }
        head(self.body as u32, self.body_length(), into);
        for value in &self.values {
            head(VALUES, value.len(), into);
            into.put_slice(value);
        }
        if self.more_follows {
            encoding::bool::encode(MORE_FOLLOWS, &true, into);
        }
    }
}

/// Of a field whose value is that many bytes.
fn field_length(number: u32, bytes: usize) -> usize {
    key_len(number) + encoded_len_varint(bytes as u64) + bytes
}

/// What stands before a value of that many bytes.
fn head(number: u32, bytes: usize, into: &mut impl BufMut) {
    encode_key(number, WireType::LengthDelimited, into);
    encode_varint(bytes as u64, into);
}

const fn encode_kind(kind: EventKind) -> CredentialEventKind {
    match kind {
        EventKind::Connected => CredentialEventKind::Connected,
        EventKind::Refreshed => CredentialEventKind::Refreshed,
        EventKind::Expiring => CredentialEventKind::Expiring,
        EventKind::Expired => CredentialEventKind::Expired,
        EventKind::RefreshFailing => CredentialEventKind::RefreshFailing,
        EventKind::Recovered => CredentialEventKind::Recovered,
        EventKind::ReauthorizationRequired => CredentialEventKind::ReauthorizationRequired,
        EventKind::Suspended => CredentialEventKind::Suspended,
        EventKind::Resumed => CredentialEventKind::Resumed,
        EventKind::Forecast => CredentialEventKind::Forecast,
        EventKind::Revoked => CredentialEventKind::Revoked,
        EventKind::Erased => CredentialEventKind::Erased,
        EventKind::AccessLost => CredentialEventKind::AccessLost,
        EventKind::AccessGained => CredentialEventKind::AccessGained,
    }
}

fn encode_event(event: &CredentialEvent) -> v1::CredentialEvent {
    v1::CredentialEvent {
        kind: encode_kind(event.kind).into(),
        occurred_at: Some(encode::timestamp(event.occurred_at)),
        status: Some(match event.kind {
            EventKind::AccessLost => encode_ids(&event.status),
            _ => encode_status(&event.status),
        }),
    }
}

/// Nothing else may be told of what must not be seen.
fn encode_ids(status: &CredentialStatus) -> v1::CredentialStatus {
    v1::CredentialStatus {
        credential_id: status.credential.to_string(),
        connection_id: status.connection.to_string(),
        subject: status.subject.to_string(),
        ..Default::default()
    }
}

fn encode_status(status: &CredentialStatus) -> v1::CredentialStatus {
    let CredentialStatus {
        credential,
        connection,
        subject,
        agent,
        provider,
        state,
        generation,
        scopes,
        expires_at,
        reason,
        authorization_ends_at,
    } = status;
    v1::CredentialStatus {
        credential_id: credential.to_string(),
        connection_id: connection.to_string(),
        subject: subject.to_string(),
        agent: agent.as_ref().map(ToString::to_string).unwrap_or_default(),
        provider: provider.to_string(),
        state: encode::state(*state).into(),
        generation: *generation,
        scopes: encode::scopes(scopes),
        expires_at: expires_at.map(encode::timestamp),
        reason: encode::optional_reason(*reason).into(),
        authorization_ends_at: authorization_ends_at.map(encode::timestamp),
    }
}

const fn encode_delivery(delivery: Delivery) -> v1::Delivery {
    match delivery {
        Delivery::EveryEvent => v1::Delivery::EveryEvent,
        Delivery::LatestPerCredential => v1::Delivery::LatestPerCredential,
    }
}

const fn encode_on_lost(on_lost: OnLost) -> v1::OnLost {
    match on_lost {
        OnLost::Fail => v1::OnLost::Fail,
        OnLost::Resync => v1::OnLost::Resync,
    }
}

const fn encode_cause(reason: DrainReason) -> DrainCause {
    match reason {
        DrainReason::MaxAge => DrainCause::MaxAge,
        DrainReason::Shutdown => DrainCause::Shutdown,
        DrainReason::Authorization => DrainCause::Authorization,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{ConnectionId, CredentialId, CredentialState, Revision, SubjectId, Timestamp};

    fn statuses() -> impl Strategy<Value = CredentialStatus> {
        let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 32]>());
        let scopes = prop::collection::btree_set("[a-z./]{1,40}", 0..9);
        let times = (prop::option::of(any::<i32>()), prop::option::of(any::<i32>()));
        let reason = prop::option::of(prop::sample::select(vec![Reason::RevisionCompacted, Reason::AheadOfLog]));
        (ids, prop::option::of("[a-z]{1,20}"), any::<u64>(), scopes, times, reason).prop_map(
            |((credential, connection, subject), agent, generation, scopes, (expires, ends), reason)| {
                let at = |seconds: i32| Timestamp::from_secs(seconds.into());
                CredentialStatus {
                    credential: CredentialId::from_bytes(credential),
                    connection: ConnectionId::from_bytes(connection),
                    subject: SubjectId::from_bytes(subject),
                    agent: agent.map(|agent| agent.parse().unwrap()),
                    provider: "github".parse().unwrap(),
                    state: CredentialState::Connected,
                    generation,
                    scopes: scopes.into_iter().map(|scope| scope.parse().unwrap()).collect(),
                    expires_at: expires.map(at),
                    reason,
                    authorization_ends_at: ends.map(at),
                }
            },
        )
    }

    fn events() -> impl Strategy<Value = CredentialEvent> {
        let kinds = prop::sample::select(vec![EventKind::Connected, EventKind::Refreshed, EventKind::Revoked]);
        (kinds, any::<i32>(), statuses()).prop_map(|(kind, at, status)| CredentialEvent {
            kind,
            tenant: "acme".parse().unwrap(),
            occurred_at: Timestamp::from_secs(at.into()),
            status,
        })
    }

    fn written(message: WatchMessage) -> Vec<u8> {
        let mut progress = Progress { delivery: Delivery::EveryEvent, on_lost: OnLost::Fail, revision: 3 };
        let (outgoing, mut bytes) = (progress.prepare(message), Vec::new());
        outgoing.write(&mut bytes);
        assert_eq!(bytes.len(), outgoing.length());
        bytes
    }

    fn message(resume_token: Vec<u8>, revision: u64, body: Body) -> Vec<u8> {
        v1::WatchCredentialStatusResponse { resume_token, revision, body: Some(body) }.encode_to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn a_batch_is_written_as_prost_writes_it(
            events in prop::collection::vec(events(), 0..20),
            revision in prop_oneof![Just(0), any::<u64>()],
            token in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        ) {
            let body = v1::WatchBatch { events: events.iter().map(encode_event).collect(), more_follows: token.is_none() };
            let expected = message(token.clone().unwrap_or_default(), revision, Body::Batch(body));
            let events = events.into_iter().map(|event| WIRE.event(event)).collect();
            prop_assert_eq!(written(WatchMessage::Batch { revision: Revision(revision), events, token }), expected);
        }

        #[test]
        fn a_snapshot_is_written_as_prost_writes_it(
            statuses in prop::collection::vec(statuses(), 0..20),
            revision in any::<u64>(),
        ) {
            let body = v1::WatchSnapshot { statuses: statuses.iter().map(encode_status).collect() };
            let expected = message(Vec::new(), revision, Body::Snapshot(body));
            let statuses = statuses.into_iter().map(|status| WIRE.status(status)).collect();
            prop_assert_eq!(written(WatchMessage::Snapshot { revision: Revision(revision), statuses }), expected);
        }
    }

    #[test]
    fn what_has_no_revision_of_its_own_repeats_the_streams() {
        let (reason, reconnect_after) = (DrainReason::MaxAge, std::time::Duration::from_secs(7));
        let reconnect = Some(encode::duration(reconnect_after));
        let body = v1::WatchDrain { cause: DrainCause::MaxAge.into(), reconnect_after: reconnect };
        let drain = WatchMessage::Drain { reason, reconnect_after, token: vec![1] };
        assert_eq!(written(drain), message(vec![1], 3, Body::Drain(body)));
    }
}
