//! Resume tokens: opaque to clients, bound to the installation, the principal and the filter, and authenticated, so
//! that a position cannot be forged, moved to another user, or widened to events that were never sent.

use crate::{
    domain::{Caller, EntryId, InstallationId, Revision},
    sealing::{InstallationKeys, KeyedHash},
    store::Head,
};

const VERSION: u8 = 1;
/// version, installation, epoch, partition, revision, principal, filter, MAC
const LENGTH: usize = 1 + 16 + 16 + 2 + 8 + 32 + 32 + 32;
/// The embedded store has one partition.
const PARTITION: [u8; 2] = [0, 0];

/// Makes and reads the tokens of one stream.
#[derive(Clone)]
pub struct Resume {
    installation: InstallationId,
    principal: [u8; 32],
    filter: [u8; 32],
    key: KeyedHash,
}

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub epoch: EntryId,
    pub revision: Revision,
}

/// The token cannot be used on this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeTokenError {
    /// Not made by this installation, or changed since.
    #[error("the resume token is not one of this installation's")]
    Forged,
    /// Another tenant, subject or agent.
    #[error("the resume token belongs to another caller")]
    OtherPrincipal,
    /// A wider filter has events that were never sent.
    #[error("the resume token belongs to another filter")]
    OtherFilter,
}

impl Resume {
    /// `filter`: the canonical form of what the stream shows.
    pub fn new(keys: &InstallationKeys, head: &Head, caller: &Caller, filter: &[u8]) -> Self {
        let key = keys.resume().clone();
        let agent = caller.agent.as_ref().map_or("", |agent| agent.as_str());
        let principal =
            key.hash(&[b"principal", caller.tenant.as_str().as_bytes(), caller.subject.as_bytes(), agent.as_bytes()]);
        let filter = key.hash(&[b"filter", filter]);
        Self { installation: head.installation, principal, filter, key }
    }

    pub fn token(&self, position: Position) -> Vec<u8> {
        let mut token = Vec::with_capacity(LENGTH);
        token.push(VERSION);
        token.extend_from_slice(self.installation.as_bytes());
        token.extend_from_slice(position.epoch.as_bytes());
        token.extend_from_slice(&PARTITION);
        token.extend_from_slice(&position.revision.0.to_be_bytes());
        token.extend_from_slice(&self.principal);
        token.extend_from_slice(&self.filter);
        let mac = self.key.hash(&[&token]);
        token.extend_from_slice(&mac);
        token
    }

    pub fn read(&self, unverified_token: &[u8]) -> Result<Position, ResumeTokenError> {
        if unverified_token.len() != LENGTH {
            return Err(ResumeTokenError::Forged);
        }
        let (body, mac) = unverified_token.split_at(LENGTH - 32);
        if !self.key.verify(&[body], mac) || body[0] != VERSION || body[1..17] != self.installation.as_bytes()[..] {
            return Err(ResumeTokenError::Forged);
        }
        if body[43..75] != self.principal {
            return Err(ResumeTokenError::OtherPrincipal);
        }
        if body[75..107] != self.filter {
            return Err(ResumeTokenError::OtherFilter);
        }
        let epoch = body[17..33].try_into().expect("16 bytes of a checked length");
        let revision = body[35..43].try_into().expect("8 bytes of a checked length");
        Ok(Position { epoch: EntryId::from_bytes(epoch), revision: Revision(u64::from_be_bytes(revision)) })
    }
}
