//! Records who holds which generation of a credential, as its holders report it.

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    Broker, BrokerError,
    trail::{About, allowed},
};
use crate::{
    domain::{
        AppliedReport, AuditAction, AuditRecord, AuditedReport, Call, Connection, CredentialId, Heard, Holders, Role,
    },
    vault::Stored,
};

/// All holders of a connection report on one record: of those who do so at once one is first, and the others try again.
const MOST_TRIES: usize = 16;

/// What became of a report.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Written,
    Repeated,
    Overtaken,
}

impl Broker {
    /// Records what a holder of the caller's credential says. False: it has reported a newer generation before, so
    /// this report says nothing any more.
    ///
    /// # Errors
    /// `CONNECTION_NOT_FOUND`, also for a credential of somebody else; `INVALID_ARGUMENT` for a generation that was never
    /// given out; `RATE_LIMITED` for more changes than are written; `CONFLICT` when others were first each time.
    pub async fn report_applied(
        &self,
        call: &Call,
        credential: CredentialId,
        report: &AppliedReport,
    ) -> Result<bool, BrokerError> {
        let (found, outcome) = match self.reported_connection(call, credential).await {
            Ok(found) => {
                let outcome = self.keep(call, &found.value, report).await;
                (Some(found), outcome)
            }
            Err(error) => (None, Err(error)),
        };
        let record = || self.record_of(call, found.as_ref().map(|found| &found.value), report);
        match &outcome {
            // A repetition changes nothing, and the record of what it repeats says it already.
            Ok(Kept::Written | Kept::Repeated) => {}
            Ok(Kept::Overtaken) => self.record_windowed(record(), "").await?,
            Err(error) => self.record_refused(record(), error).await,
        }
        outcome.map(|kept| kept != Kept::Overtaken)
    }

    /// Who holds what. Nobody is known when that record is damaged: the vault has raised the alarm, and no connection is
    /// less revoked or stored for it.
    pub(super) async fn holders(&self, connection: &Connection) -> Result<Holders, BrokerError> {
        match self.vault().holders(connection).await {
            Ok(stored) => Ok(stored.map_or_else(|| Holders::of(connection), Stored::into_value)),
            Err(error) if error.is_damage() => Ok(Holders::of(connection)),
            Err(error) => Err(error.into()),
        }
    }

    async fn reported_connection(
        &self,
        call: &Call,
        credential: CredentialId,
    ) -> Result<Stored<Connection>, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        let caller = &call.caller;
        let found = self.vault().connection_of_credential(&caller.tenant, caller.subject, credential).await?;
        found.ok_or(BrokerError::ConnectionNotFound)
    }

    async fn keep(&self, call: &Call, connection: &Connection, report: &AppliedReport) -> Result<Kept, BrokerError> {
        if report.generation > connection.credential.generation {
            return Err(BrokerError::Invalid { field: "generation", problem: "is later than any that was given out" });
        }
        for _ in 0..MOST_TRIES {
            match self.try_to_keep(call, connection, report).await {
                Err(BrokerError::Conflict) => tokio::task::yield_now().await,
                other => return other,
            }
        }
        Err(BrokerError::Conflict)
    }

    async fn try_to_keep(
        &self,
        call: &Call,
        connection: &Connection,
        report: &AppliedReport,
    ) -> Result<Kept, BrokerError> {
        let stored = self.vault().holders(connection).await?;
        let before = stored.as_ref().map_or_else(|| Holders::of(connection), |stored| stored.value.clone());
        let after = match before.hear(report, self.now()) {
            Heard::News(after) => after,
            Heard::Repeated => return Ok(Kept::Repeated),
            Heard::Overtaken => return Ok(Kept::Overtaken),
            Heard::TooMany { retry_after } => return Err(BrokerError::RateLimited { retry_after }),
        };
        let mut change = self.vault().change(&connection.tenant, Some(connection.subject)).await?;
        change.put_holders(stored.as_ref(), &after);
        change.audit(&self.record_of(call, Some(connection), report));
        change.commit().await?;
        Ok(Kept::Written)
    }

    fn record_of(&self, call: &Call, connection: Option<&Connection>, report: &AppliedReport) -> AuditRecord {
        // One that was never given out is the caller's own invention: each would open a window of its own.
        let given_out = |connection: &&Connection| report.generation <= connection.credential.generation;
        AuditRecord {
            generation: connection.filter(given_out).map(|_| report.generation),
            applied: Some(audited(report)),
            ..allowed(call, AuditAction::AppliedReported, About { plugin: None, connection }, self.now())
        }
    }
}

fn audited(report: &AppliedReport) -> AuditedReport {
    let digest = digest(&SHA256, report.holder.as_str().as_bytes());
    let holder_sha256 = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
    AuditedReport { holder_sha256, outcome: report.outcome }
}
