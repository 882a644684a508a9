//! A keyed hash chain: each record's authenticator covers its number, its sealed body and the authenticator before it,
//! so an edited, dropped, reordered or inserted record is named by the first authenticator that does not hold. A body
//! is bound to its entry id by its own seal.

use aws_lc_rs::digest::{SHA256, digest};

use crate::{
    domain::{AuditLinker, Sealed},
    sealing::{AuditKey, KeyedHash},
    vault::LinkedAudit,
};

/// Links records as the store commits them. It is made before the store is opened; the key follows from
/// `Vault::open`, through which alone audit records come to be.
#[derive(Clone)]
pub struct Chain {
    key: AuditKey,
}

/// Where the chain stands after a record; where a check begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub sequence: u64,
    pub mac: [u8; 32],
}

/// The first record at which the chain does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    #[error("audit record {sequence} is missing")]
    Missing { sequence: u64 },
    /// It was edited, or one before it was.
    #[error("audit record {sequence} is not what was recorded")]
    Altered { sequence: u64 },
}

impl Chain {
    pub fn new(key: AuditKey) -> Self {
        Self { key }
    }
}

impl AuditLinker for Chain {
    fn link(&self, sequence: u64, previous: Option<&[u8]>, body: &Sealed) -> Vec<u8> {
        let key = self.key.get().expect("audit records come from change sets, and those from a vault that set the key");
        let previous = previous.map(LinkedAudit::decode);
        // A predecessor that does not decode was damaged: the chain goes on from zeros, and the check names it.
        let mac = previous.map(|previous| previous.map_or([0; 32], |previous| previous.mac));
        let mac = key.hash(&parts(sequence, mac.as_ref(), body).each_ref().map(Vec::as_slice));
        LinkedAudit { sequence, mac, body: body.clone() }.encode()
    }
}

/// Checks that `entries` continue the chain from `start` (`None`: from its beginning), and says where it stands after
/// them. That nothing is missing after the last one only the caller can know, by comparing with a position that was
/// kept elsewhere.
pub fn check<'a>(
    key: &KeyedHash,
    start: Option<Position>,
    entries: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<Position>, Break> {
    let mut position = start;
    for entry in entries {
        let sequence = position.map_or(1, |position| position.sequence + 1);
        let linked = LinkedAudit::decode(entry).ok_or(Break::Altered { sequence })?;
        if linked.sequence > sequence {
            return Err(Break::Missing { sequence });
        }
        let parts = parts(sequence, position.map(|position| position.mac).as_ref(), &linked.body);
        if linked.sequence != sequence || !key.verify(&parts.each_ref().map(Vec::as_slice), &linked.mac) {
            return Err(Break::Altered { sequence });
        }
        position = Some(Position { sequence, mac: linked.mac });
    }
    Ok(position)
}

fn parts(sequence: u64, previous: Option<&[u8; 32]>, body: &Sealed) -> [Vec<u8>; 3] {
    [
        sequence.to_be_bytes().to_vec(),
        previous.map_or_else(Vec::new, |mac| mac.to_vec()),
        digest(&SHA256, body.as_bytes()).as_ref().to_vec(),
    ]
}
