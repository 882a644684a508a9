//! A provider that refuses our client registration. It is on record once, for the provider: no connection's own record
//! says so, so that nothing has to be mended in a hundred thousand records when the registration is.

use serde::{Deserialize, Serialize};

use super::{Connection, ConnectionId, CredentialState, ProviderId, Reason, TenantId, Timestamp};

/// What is known of a provider's refusal, and how far its connections' watchers have been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// The installation's own: [`super::installation_tenant`].
    pub tenant: TenantId,
    pub provider: ProviderId,
    /// `None`: it is over.
    pub refusal: Option<Refusal>,
    /// `None`: nobody was told, or all were told that it is over.
    pub told: Option<Told>,
}

/// The provider refuses our registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub since: Timestamp,
    /// Keyed fingerprint of the refused registration: with another one the refusal is over.
    pub registration: [u8; 32],
    /// Whose refresh was refused first.
    pub connection: ConnectionId,
    /// How often it was refused, for the time between attempts.
    pub refusals: u32,
    /// When one refresh may find out whether it still is.
    pub next_attempt_at: Timestamp,
}

/// How far watchers have been told of one refusal: `SUSPENDED` goes to each connection that it covers, in the order of
/// a list of all of them, and `RESUMED` to exactly those.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Of the refusal; it tells one from the next.
    pub since: Timestamp,
    pub suspended: Reach,
    /// `None`: it is not over yet.
    pub resumed: Option<Reach>,
}

/// How far a list of all connections was gone through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    Nothing,
    /// Up to here and including it.
    To(ListPosition),
    All,
}

/// A place in the list of all connections; they are ordered as their bytes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ListPosition(pub Vec<u8>);

/// What is to be told next, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    pub kind: TellingKind,
    since: Timestamp,
    after: Reach,
    last: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TellingKind {
    Suspended,
    Resumed,
}

impl Connection {
    /// Whether a refusal since then keeps it from being refreshed. One that was authorized later is none of it: its
    /// authorization was taken with a registration that works. What is once no longer concerned never is again.
    pub fn is_suspended_since(&self, refused: Timestamp) -> bool {
        let credential = &self.credential;
        credential.state.refreshes() && credential.refreshable && self.consent.at < refused
    }

    /// As everybody is shown it while its provider refuses us.
    #[must_use]
    pub fn suspended(&self) -> Self {
        let mut shown = self.clone();
        shown.credential.state = CredentialState::Suspended;
        shown.credential.reason = Some(Reason::ProviderSuspended);
        shown
    }
}

impl Suspension {
    /// What is to be told next; `None`: nothing.
    pub fn telling(&self) -> Option<Telling> {
        let current = self.refusal.as_ref().map(|refusal| refusal.since);
        let (kind, since, after, last) = match (&self.told, current) {
            (None, None) => return None,
            (None, Some(since)) => (TellingKind::Suspended, since, Reach::Nothing, Reach::All),
            (Some(Told { since, suspended, resumed: None }), Some(current)) if *since == current => {
                (TellingKind::Suspended, *since, suspended.clone(), Reach::All)
            }
            // Whoever was told of an earlier refusal hears that it is over before the next begins for them.
            (Some(Told { since, suspended, resumed }), _) => {
                (TellingKind::Resumed, *since, resumed.clone().unwrap_or(Reach::Nothing), suspended.clone())
            }
        };
        (after != Reach::All).then_some(Telling { kind, since, after, last })
    }

    /// The record once everybody has been told that stands in the part of the list that ends here; `None`: at its end.
    #[must_use]
    pub fn told_to(&self, telling: &Telling, end: Option<ListPosition>) -> Self {
        let Telling { kind, since, last, .. } = telling;
        let reach = end.filter(|end| last.includes(end)).map_or(Reach::All, Reach::To);
        let told = match (kind, &self.told) {
            (TellingKind::Suspended, _) => Some(Told { since: *since, suspended: reach, resumed: None }),
            (TellingKind::Resumed, Some(told)) if reach != Reach::All => {
                Some(Told { resumed: Some(reach), ..told.clone() })
            }
            (TellingKind::Resumed, _) => None,
        };
        Self { told, ..self.clone() }
    }

    /// Whether the record says nothing any more.
    pub fn is_over(&self) -> bool {
        self.refusal.is_none() && self.told.is_none()
    }
}

impl Telling {
    /// Where the list goes on; `None`: at its beginning.
    pub fn after(&self) -> Option<&ListPosition> {
        self.after.position()
    }

    /// Whether the connection at this place of the list is one of those to be told.
    pub fn concerns(&self, at: &ListPosition, connection: &Connection) -> bool {
        self.last.includes(at) && connection.is_suspended_since(self.since)
    }
}

impl Reach {
    /// Where the list goes on; `None`: at its beginning, or not at all.
    pub fn position(&self) -> Option<&ListPosition> {
        match self {
            Self::To(position) => Some(position),
            Self::Nothing | Self::All => None,
        }
    }

    fn includes(&self, position: &ListPosition) -> bool {
        match self {
            Self::Nothing => false,
            Self::To(last) => position <= last,
            Self::All => true,
        }
    }
}
