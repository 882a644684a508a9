//! Connections, their tokens, and the subjects that own them.

use bytes::Bytes;

use super::{Stored, Subject, TokenSet, Vault, VaultError, place};
use crate::{
    domain::{AccessToken, Connection, ConnectionId, IdToken, ProviderId, RefreshToken, SubjectId, TenantId},
    store::{FieldTag, IndexKind, RecordKey},
};

/// Index entries read at a time.
const PAGE: usize = 256;

impl Vault {
    /// `None` also for another tenant's connection: it does not exist for this one.
    pub async fn connection(
        &self,
        tenant: &TenantId,
        id: ConnectionId,
    ) -> Result<Option<Stored<Connection>>, VaultError> {
        Ok(self.any_connection(id).await?.filter(|connection| connection.value.tenant == *tenant))
    }

    /// Whatever the tenant: for the scheduler and for jobs, which act for nobody's request.
    pub async fn any_connection(&self, id: ConnectionId) -> Result<Option<Stored<Connection>>, VaultError> {
        let stored = self.read_kept::<Connection>(place::connection_row(id)).await?;
        Ok(stored.filter(|connection| connection.value.id == id))
    }

    /// The connection as it is now; `None` when it is gone.
    pub async fn latest(&self, connection: &Stored<Connection>) -> Result<Option<Stored<Connection>>, VaultError> {
        self.read_kept(connection.key.clone()).await
    }

    /// All the connections of a subject, or those to one provider, ordered by provider and id (both hashed or random).
    pub async fn connections(
        &self,
        tenant: &TenantId,
        subject: SubjectId,
        provider: Option<&ProviderId>,
    ) -> Result<Vec<Stored<Connection>>, VaultError> {
        let prefix = self.connections_prefix(tenant, subject, provider);
        let mut found = Vec::new();
        for record in self.indexed(IndexKind::ConnectionsOfSubject, prefix).await? {
            let Some(stored) = self.read_kept::<Connection>(record).await? else { continue };
            let Connection { tenant: of, subject: by, provider: to, .. } = &stored.value;
            if of == tenant && *by == subject && provider.is_none_or(|wanted| wanted == to) {
                found.push(stored);
            }
        }
        Ok(found)
    }

    pub async fn access_token(&self, connection: &Stored<Connection>) -> Result<AccessToken, VaultError> {
        let token = self.connection_secret(connection, FieldTag::AccessToken).await?;
        token.map(AccessToken::new).ok_or_else(|| VaultError::NoTokens { record: format!("{:?}", connection.key) })
    }

    /// Whether this is the connection's access token, by its SHA-256: what a caller says of a token that an API refused.
    pub async fn is_access_token(
        &self,
        connection: &Stored<Connection>,
        sha256: &[u8; 32],
    ) -> Result<bool, VaultError> {
        let token = self.access_token(connection).await?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.expose().as_bytes());
        Ok(aws_lc_rs::constant_time::verify_slices_are_equal(digest.as_ref(), sha256).is_ok())
    }

    /// `None` when the provider gave none.
    pub async fn refresh_token(&self, connection: &Stored<Connection>) -> Result<Option<RefreshToken>, VaultError> {
        Ok(self.connection_secret(connection, FieldTag::RefreshToken).await?.map(RefreshToken::new))
    }

    /// `None` when none is kept.
    pub async fn id_token(&self, connection: &Stored<Connection>) -> Result<Option<IdToken>, VaultError> {
        Ok(self.connection_secret(connection, FieldTag::IdToken).await?.map(IdToken::new))
    }

    /// All the connection's tokens; `None` when they were dropped.
    pub async fn connection_tokens(&self, connection: &Stored<Connection>) -> Result<Option<TokenSet>, VaultError> {
        self.tokens(connection, connection.value.credential.generation).await
    }

    /// `None` for a subject for whom nothing was ever stored.
    pub async fn subject(&self, tenant: &TenantId, subject: SubjectId) -> Result<Option<Stored<Subject>>, VaultError> {
        let stored = self.read_kept::<Subject>(self.subject_row(tenant, subject)).await?;
        Ok(stored.filter(|stored| stored.value.tenant == *tenant && stored.value.subject == subject))
    }

    fn subject_row(&self, tenant: &TenantId, subject: SubjectId) -> RecordKey {
        let (kept, name) = (&self.opened().subject_rows, (tenant.clone(), subject));
        kept.get(&name).unwrap_or_else(|| {
            let row = place::subject_row(self.keys(), tenant, subject);
            kept.insert(name, row.clone());
            row
        })
    }

    fn connections_prefix(&self, tenant: &TenantId, subject: SubjectId, provider: Option<&ProviderId>) -> Bytes {
        let (kept, name) = (&self.opened().prefixes, (tenant.clone(), subject, provider.cloned()));
        kept.get(&name).unwrap_or_else(|| {
            let prefix = Bytes::from(place::connections_prefix(self.keys(), tenant, subject, provider));
            kept.insert(name, prefix.clone());
            prefix
        })
    }

    /// The records that one index lists under a prefix.
    pub(super) async fn indexed(
        &self,
        index: IndexKind,
        prefix: impl Into<Bytes>,
    ) -> Result<Vec<RecordKey>, VaultError> {
        let prefix = prefix.into();
        let mut records = Vec::new();
        let mut after = None;
        loop {
            let page = self.store().index(index, prefix.clone(), after, PAGE).await?;
            let more = page.len() == PAGE;
            after = page.last().map(|entry| entry.key.clone());
            records.extend(page.into_iter().map(|entry| entry.record));
            if !more {
                return Ok(records);
            }
        }
    }

    async fn connection_secret(
        &self,
        connection: &Stored<Connection>,
        tag: FieldTag,
    ) -> Result<Option<String>, VaultError> {
        self.secret(connection, tag, connection.value.credential.generation).await
    }
}
