//! Which providers the configuration has, as the owners of their credentials have been told. A provider that is taken
//! out takes its credentials out of sight; each of their owners is told, and told again when it comes back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Connection, CredentialState, EventKind, ListPosition, ProviderId, Reach, TenantId, installation_tenant};

/// The providers in force, and how far the list of all connections was gone through to say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedProviders {
    /// The installation's own: [`installation_tenant`].
    pub tenant: TenantId,
    pub providers: BTreeSet<ProviderId>,
    /// Those of them that were not there before. What a stream kept back meanwhile its reader has missed, whether or not
    /// they were told by then that they lost access: all of them are told that they have it.
    pub returned: BTreeSet<ProviderId>,
    pub told: Reach,
}

/// What one connection's owner is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessChange {
    pub connection: Connection,
    /// `None`: what is over needs no word.
    pub event: Option<EventKind>,
}

impl ServedProviders {
    /// For an installation of which nothing is known: nobody has heard of these providers before.
    pub fn first(providers: BTreeSet<ProviderId>) -> Self {
        Self { tenant: installation_tenant(), providers, returned: BTreeSet::new(), told: Reach::Nothing }
    }

    /// Another configuration; `None`: it has the same providers. One that comes before all were told begins anew, and
    /// tells of what the one before it had left.
    pub fn replaced_by(&self, providers: BTreeSet<ProviderId>) -> Option<Self> {
        if providers == self.providers {
            return None;
        }
        let left = if self.is_told() { BTreeSet::new() } else { self.returned.clone() };
        let returned = providers.iter().filter(|id| !self.providers.contains(*id) || left.contains(*id)).cloned();
        Some(Self { returned: returned.collect(), providers, told: Reach::Nothing, ..self.clone() })
    }

    /// Another look at everybody, for what was stored behind the first one.
    #[must_use]
    pub fn once_more(&self) -> Self {
        Self { told: Reach::Nothing, ..self.clone() }
    }

    pub fn is_told(&self) -> bool {
        self.told == Reach::All
    }

    /// The record once everybody has been told up to where the list's part ends; `None`: it is the last one.
    #[must_use]
    pub fn told_to(&self, end: Option<ListPosition>) -> Self {
        Self { told: end.map_or(Reach::All, Reach::To), ..self.clone() }
    }

    /// What becomes of one connection; `None`: nothing.
    pub fn change_of(&self, connection: &Connection) -> Option<AccessChange> {
        let (is_served, is_over) =
            (self.providers.contains(&connection.provider), connection.credential.state == CredentialState::Revoked);
        let event = match (connection.withheld, is_served) {
            (false, false) if !is_over => EventKind::AccessLost,
            (true, true) => EventKind::AccessGained,
            (false, true) if !is_over && self.returned.contains(&connection.provider) => EventKind::AccessGained,
            (false | true, _) => return None,
        };
        let connection = Connection { withheld: event == EventKind::AccessLost, ..connection.clone() };
        Some(AccessChange { connection, event: (!is_over).then_some(event) })
    }
}
