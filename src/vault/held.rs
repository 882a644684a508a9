//! Tokens that the store could not take, sealed for a file beside it.

use serde::{Deserialize, Serialize};

use super::{FlowTokens, Stored, TokenSet, Vault, VaultError, place, records::encode_within, stored::GrantedRecord};
use crate::{
    domain::{
        AccessToken, Attempt, ConnectionId, IdToken, Nonce, ProviderId, RefreshToken, Sealed, SubjectId, TenantId,
    },
    sealing::sealed_key_id,
    store::FieldTag,
};

/// Room for the largest token answer that is read, and what is said of it, without growing: see `records`.
const ROOM: usize = 40 * 1024;

/// Whose tokens are held.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A refresh of this generation. Whose it is, for the case that it is gone when the tokens come.
    Connection { id: ConnectionId, generation: u64, tenant: TenantId, subject: SubjectId, provider: ProviderId },
    /// The exchange of this attempt's code.
    Flow(Box<Attempt>),
}

/// Tokens and whose they are. No `Debug`: it holds tokens.
#[derive(Clone)]
pub struct HeldTokens {
    pub owner: Owner,
    pub waiting: FlowTokens,
}

#[derive(Serialize, Deserialize)]
struct HeldRecord {
    owner: Owner,
    granted: GrantedRecord,
    access: Secret,
    refresh: Option<Secret>,
    id_token: Option<Secret>,
    nonce: Option<Secret>,
}

/// Text that is zeroized when the record is dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Secret(zeroize::Zeroizing<String>);

impl Vault {
    /// Seals under the key of the record that the tokens belong to. It was opened just now, so its key is at hand even
    /// if the store is not.
    pub async fn seal_held<T>(&self, beside: &Stored<T>, held: &HeldTokens) -> Result<Sealed, VaultError> {
        let record = beside.row.field(FieldTag::Record).ok_or_else(|| VaultError::corrupt(&beside.key))?;
        let holder = self.keyring().key_of(record, &beside.key).await?;
        let FlowTokens { tokens, nonce, .. } = &held.waiting;
        let record = HeldRecord {
            owner: held.owner.clone(),
            granted: GrantedRecord::of(&held.waiting),
            access: Secret::of(tokens.access.expose()),
            refresh: tokens.refresh.as_ref().map(|token| Secret::of(token.expose())),
            id_token: tokens.id_token.as_ref().map(|token| Secret::of(token.expose())),
            nonce: nonce.as_ref().map(|nonce| Secret::of(nonce.expose())),
        };
        Ok(holder.key.seal(&place::held(), &encode_within(ROOM, &record), self.random())?)
    }

    /// Opens what [`Vault::seal_held`] made, in this process or an earlier one.
    ///
    /// # Errors
    /// [`VaultError::SubjectErased`] when the key was destroyed.
    pub async fn open_held(&self, sealed: &Sealed) -> Result<HeldTokens, VaultError> {
        let unsealable = || VaultError::Unsealable { record: "held tokens".to_owned() };
        let named = self.watched(sealed_key_id(sealed).map_err(|_| unsealable()))?;
        let holder = self.keyring().key(named).await?.ok_or(VaultError::SubjectErased)?;
        let opened = holder.key.open(&place::held(), sealed);
        let bytes = self.watched(opened.map_err(|_| unsealable()))?;
        let HeldRecord { owner, granted, access, refresh, id_token, nonce } =
            self.watched(serde_json::from_slice(&bytes).map_err(|_| unsealable()))?;
        let tokens = TokenSet {
            access: AccessToken::new(access.take()),
            refresh: refresh.map(|token| RefreshToken::new(token.take())),
            id_token: id_token.map(|token| IdToken::new(token.take())),
        };
        let waiting = granted.with(tokens, nonce.map(|nonce| Nonce::new(nonce.take())));
        Ok(HeldTokens { owner, waiting })
    }
}

impl Secret {
    fn of(text: &str) -> Self {
        Self(zeroize::Zeroizing::new(text.to_owned()))
    }

    fn take(mut self) -> String {
        std::mem::take(&mut *self.0)
    }
}
