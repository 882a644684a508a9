//! Which keys there are, and declaring one unneeded.

use super::{
    Broker, BrokerError,
    trail::{About, allowed},
};
use crate::domain::{AuditAction, AuditRecord, AuditTarget, Call, KeyId, KeyRotation, KeyStatus, Role};

impl Broker {
    /// # Errors
    /// `ROLE_MISSING` for who is no operator.
    pub async fn list_keys(&self, call: &Call) -> Result<Vec<KeyStatus>, BrokerError> {
        let outcome = self.keys(call).await;
        self.record_answer(call, AuditAction::KeysListed, About::default(), outcome.as_ref().err()).await?;
        outcome
    }

    /// The rotations that are not at their end, as one; `None`: there is none.
    pub async fn key_rotation(&self, call: &Call) -> Result<Option<KeyRotation>, BrokerError> {
        self.authorize_session(call, Role::Operator).await?;
        let under_way = self.vault().rotations().await?;
        Ok(under_way.into_iter().map(|(_, rotation)| rotation).reduce(|whole, part| KeyRotation {
            begun: whole.begun + part.begun,
            left: whole.left + part.left,
            started_at: whole.started_at.min(part.started_at),
        }))
    }

    async fn keys(&self, call: &Call) -> Result<Vec<KeyStatus>, BrokerError> {
        self.authorize_session(call, Role::Operator).await?;
        Ok(self.vault().list_keys().await?)
    }

    /// Declares that a superseded root key is not needed any more: afterwards its file can be destroyed.
    ///
    /// # Errors
    /// `ROLE_MISSING` for who is no operator, `KEY_UNKNOWN`, `KEY_IN_USE` with the number of rows under it.
    pub async fn retire_key(&self, call: &Call, key: KeyId) -> Result<(), BrokerError> {
        let outcome = self.retire(call, key).await;
        if let Err(error) = &outcome {
            self.record_refusal(call, AuditAction::KeyRetired, About::default(), error).await;
        }
        outcome
    }

    async fn retire(&self, call: &Call, key: KeyId) -> Result<(), BrokerError> {
        self.authorize_session(call, Role::Operator).await?;
        let record = AuditRecord {
            target: Some(AuditTarget::Key(key)),
            ..allowed(call, AuditAction::KeyRetired, About::default(), self.now())
        };
        Ok(self.vault().retire_key(key, &record).await?)
    }
}
