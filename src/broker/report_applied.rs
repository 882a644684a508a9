//! Records who holds which generation of a credential, as its holders report it.

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    Broker, BrokerError,
    trail::{About, allowed},
};
use crate::{
    domain::{AppliedReport, AuditAction, AuditRecord, AuditedReport, Call, Connection, CredentialId, Heard, Holders, Role},
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
        let outcome = self.keep(call, credential, report).await;
        match &outcome {
            // A repetition changes nothing, and the record of what it repeats says it already.
            Ok(Kept::Written | Kept::Repeated) => {}
            Ok(Kept::Overtaken) => self.record_read(call, AuditAction::AppliedReported, About::default(), "").await?,
            Err(error) => self.record_refusal(call, AuditAction::AppliedReported, About::default(), error).await,
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

    async fn keep(
        &self,
        call: &Call,
        credential: CredentialId,
        report: &AppliedReport,
    ) -> Result<Kept, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        let caller = &call.caller;
        let found = self.vault().connection_of_credential(&caller.tenant, caller.subject, credential).await?;
        let connection = found.ok_or(BrokerError::ConnectionNotFound)?;
        if report.generation > connection.value.credential.generation {
            return Err(BrokerError::Invalid { field: "generation", problem: "is later than any that was given out" });
        }
        for _ in 0..MOST_TRIES {
            match self.try_to_keep(call, &connection, report).await {
                Err(BrokerError::Conflict) => tokio::task::yield_now().await,
                other => return other,
            }
        }
        Err(BrokerError::Conflict)
    }

    async fn try_to_keep(
        &self,
        call: &Call,
        connection: &Stored<Connection>,
        report: &AppliedReport,
    ) -> Result<Kept, BrokerError> {
        let connection = &connection.value;
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
        let about = About { plugin: None, connection: Some(connection) };
        change.audit(&AuditRecord {
            generation: Some(report.generation),
            applied: Some(audited(report)),
            ..allowed(call, AuditAction::AppliedReported, about, self.now())
        });
        change.commit().await?;
        Ok(Kept::Written)
    }
}

fn audited(report: &AppliedReport) -> AuditedReport {
    let digest = digest(&SHA256, report.holder.as_str().as_bytes());
    let holder_sha256 = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
    AuditedReport { holder_sha256, outcome: report.outcome }
}
