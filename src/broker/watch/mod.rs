//! WatchCredentialStatus: the caller's own credentials, from a snapshot or a position, then live.
//!
//! - [`access`]: whether it may go on · [`snapshot`]: the state as of one revision · [`stream`]: what comes after it
//! - [`fragments`]: both in messages of bounded length · [`latest`]: the newest states alone
//! - [`quota`]: how many may watch · [`drain`]: the end of all of them

mod access;
mod drain;
mod fragments;
mod latest;
mod quota;
mod snapshot;
mod stream;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures_util::Stream;

use super::{Broker, BrokerError, trail::About};
pub use crate::events::Wire;
use crate::{
    domain::{
        AuditAction, Call, ConnectionId, CredentialEvent, CredentialId, CredentialStatus, EventKind, Revision, Role,
        canonical,
    },
    events::{LoggedEvent, Resume, WrittenStatus},
};
pub(super) use drain::Drains;
pub(super) use quota::Quota;
pub use quota::WatchQuotas;
use stream::Subscription;

/// The resume interval's bounds and default.
const PROGRESS: (Duration, Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(60));

pub struct Watch {
    pub filter: WatchFilter,
    pub start: Start,
    pub on_lost: OnLost,
    pub delivery: Delivery,
    /// `None`: 30 s. Clamped to 5–60 s; the server adds ± 10 %.
    pub progress_interval: Option<Duration>,
    /// The other end of the connection that it runs on.
    pub connection: Option<SocketAddr>,
}

/// What to show of the caller's own credentials. An event passes when it matches one scope and one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter {
    /// Empty: all.
    pub connections: BTreeSet<ConnectionId>,
    /// Empty: all. A credential passes when its connection is listed above or it is listed here.
    pub credentials: BTreeSet<CredentialId>,
    /// Empty: all. Terminal kinds always pass.
    pub kinds: BTreeSet<EventKind>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The state now, then what changes it.
    Snapshot,
    /// What came after this token's position.
    Resume(Vec<u8>),
    /// What comes after now.
    Now,
}

/// What to do when a position can no longer be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLost {
    Fail,
    /// Say so on the stream, and begin again with a snapshot.
    Resync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    EveryEvent,
    /// The newest state of each credential wins; older ones may be left out.
    LatestPerCredential,
}

/// What the stream carries; a token where the client may resume from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    Opened { head: Revision, progress_interval: Duration, max_age: Duration, token: Vec<u8> },
    Resync { reason: ResyncReason },
    Snapshot { revision: Revision, statuses: Vec<WrittenStatus> },
    SnapshotEnd { revision: Revision, token: Vec<u8> },
    Batch { revision: Revision, events: Vec<LoggedEvent>, token: Option<Vec<u8>> },
    Progress { revision: Revision, token: Vec<u8> },
    Drain { reason: DrainReason, reconnect_after: Duration, token: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncReason {
    Compacted,
    EpochChanged,
    AheadOfLog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainReason {
    MaxAge,
    Shutdown,
    /// The caller's credential has expired, or lost its rights.
    Authorization,
}

impl WatchMessage {
    /// The revision up to which a client that has applied this message has everything.
    fn completes(&self) -> Option<Revision> {
        match self {
            Self::SnapshotEnd { revision, .. } | Self::Progress { revision, .. } => Some(*revision),
            Self::Batch { revision, token, .. } => token.is_some().then_some(*revision),
            Self::Opened { .. } | Self::Resync { .. } | Self::Snapshot { .. } | Self::Drain { .. } => None,
        }
    }
}

impl Broker {
    /// Opens a stream. It ends by itself after a `Drain`; with a refusal when the caller may not go on.
    pub async fn watch(
        &self,
        call: &Call,
        watch: Watch,
    ) -> Result<impl Stream<Item = Result<WatchMessage, BrokerError>> + Send + use<>, BrokerError> {
        match self.open_watch(call, watch).await {
            Ok(subscription) => Ok(subscription.into_stream()),
            Err(error) => {
                self.record_refusal(call, AuditAction::WatchOpened, About::default(), &error).await;
                Err(error)
            }
        }
    }

    async fn open_watch(&self, call: &Call, watch: Watch) -> Result<Subscription, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        if self.leaving().is_cancelled() {
            return Err(BrokerError::ShuttingDown);
        }
        let seat = self.quota().take(&call.caller, watch.connection)?;
        let resume = Resume::new(self.vault().keys(), &self.hub().head(), &call.caller, &watch.filter.canonical());
        let subscription = Subscription::open(self.clone(), call, watch, resume, seat).await?;
        self.record_read(call, AuditAction::WatchOpened, About::default(), "").await?;
        Ok(subscription)
    }
}

impl WatchFilter {
    fn shows(&self, status: &CredentialStatus) -> bool {
        let everything = self.connections.is_empty() && self.credentials.is_empty();
        everything || self.connections.contains(&status.connection) || self.credentials.contains(&status.credential)
    }

    fn passes(&self, event: &CredentialEvent) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind) || event.kind.is_terminal())
            && self.shows(&event.status)
    }

    fn canonical(&self) -> Vec<u8> {
        let connections: Vec<&[u8]> = self.connections.iter().map(|id| &id.as_bytes()[..]).collect();
        let credentials: Vec<&[u8]> = self.credentials.iter().map(|id| &id.as_bytes()[..]).collect();
        let kinds: Vec<Vec<u8>> = self.kinds.iter().map(|kind| format!("{kind:?}").into_bytes()).collect();
        let kinds: Vec<&[u8]> = kinds.iter().map(Vec::as_slice).collect();
        canonical(&[&canonical(&connections), &canonical(&credentials), &canonical(&kinds)])
    }
}

fn progress_interval(asked: Option<Duration>) -> Duration {
    let (shortest, default, longest) = PROGRESS;
    asked.unwrap_or(default).clamp(shortest, longest)
}
