//! A keyed hash chain: each record's authenticator covers its number, its sealed body and the authenticator before it,
//! so an edited, dropped, reordered or inserted record is named by the first authenticator that does not hold. A body
//! is bound to its entry id by its own seal.

use aws_lc_rs::digest::{SHA256, digest};

use super::Position;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::sealing::{InstallationKeys, InstallationSecret, Random};

    #[test]
    fn an_untouched_chain_holds_and_says_where_it_ends() {
        let (keys, entries) = chain(5);
        let end = verify(&keys, None, &entries).unwrap().unwrap();
        assert_eq!(end.sequence, 5);
        assert_eq!(end.mac, LinkedAudit::decode(&entries[4]).unwrap().mac);
        assert_eq!(verify(&keys, None, &[]), Ok(None));
    }

    #[test]
    fn a_check_can_continue_where_another_ended() {
        let (keys, entries) = chain(5);
        let middle = verify(&keys, None, &entries[..2]).unwrap();
        assert_eq!(verify(&keys, middle, &entries[2..]), verify(&keys, None, &entries));
        assert_eq!(verify(&keys, middle, &entries[3..]), Err(Break::Missing { sequence: 3 }));
    }

    #[test]
    fn every_flipped_bit_is_named() {
        let (keys, entries) = chain(3);
        for at in 0..entries[1].len() {
            for bit in 0..8 {
                let mut edited = entries.clone();
                edited[1][at] ^= 1 << bit;
                let broken = verify(&keys, None, &edited).unwrap_err();
                assert!(matches!(broken, Break::Altered { sequence: 2 } | Break::Missing { sequence: 2 }));
            }
        }
    }

    #[test]
    fn dropped_reordered_repeated_and_foreign_records_are_named() {
        let (keys, entries) = chain(4);
        let (_, foreign) = chain(4);
        let pick = |order: &[usize]| order.iter().map(|i| entries[*i].clone()).collect::<Vec<_>>();
        assert_eq!(verify(&keys, None, &pick(&[0, 2, 3])), Err(Break::Missing { sequence: 2 }));
        assert_eq!(verify(&keys, None, &pick(&[1, 2, 3])), Err(Break::Missing { sequence: 1 }));
        assert_eq!(verify(&keys, None, &pick(&[0, 2, 1, 3])), Err(Break::Missing { sequence: 2 }));
        assert_eq!(verify(&keys, None, &pick(&[0, 1, 1, 2])), Err(Break::Altered { sequence: 3 }));
        let mut mixed = entries.clone();
        mixed[2].clone_from(&foreign[2]);
        assert_eq!(verify(&keys, None, &mixed), Err(Break::Altered { sequence: 3 }));
    }

    #[test]
    fn renumbering_does_not_hide_a_dropped_record() {
        let (keys, entries) = chain(3);
        let mut last = LinkedAudit::decode(&entries[2]).unwrap();
        last.sequence = 2;
        let renumbered = [entries[0].clone(), last.encode()];
        assert_eq!(verify(&keys, None, &renumbered), Err(Break::Altered { sequence: 2 }));
    }

    #[test]
    fn a_chain_of_another_installation_does_not_hold() {
        let ((_, entries), (keys, _)) = (chain(2), chain(2));
        assert_eq!(verify(&keys, None, &entries), Err(Break::Altered { sequence: 1 }));
    }

    #[test]
    fn linking_behind_a_damaged_record_leaves_the_damage_visible() {
        let (keys, linker) = linker();
        let body = Sealed::from_bytes(Bytes::from_static(b"body"));
        let entries = [linker.link(1, None, &body), b"damaged".to_vec(), linker.link(3, Some(b"damaged"), &body)];
        assert_eq!(verify(&keys, None, &entries), Err(Break::Altered { sequence: 2 }));
    }

    fn verify(
        keys: &InstallationKeys,
        start: Option<Position>,
        entries: &[Vec<u8>],
    ) -> Result<Option<Position>, Break> {
        check(keys.audit(), start, entries.iter().map(Vec::as_slice))
    }

    fn chain(length: u64) -> (InstallationKeys, Vec<Vec<u8>>) {
        let (keys, linker) = linker();
        let mut entries: Vec<Vec<u8>> = Vec::new();
        for sequence in 1..=length {
            let body = Sealed::from_bytes(Bytes::from(format!("body {sequence}")));
            entries.push(linker.link(sequence, entries.last().map(Vec::as_slice), &body));
        }
        (keys, entries)
    }

    fn linker() -> (InstallationKeys, Chain) {
        let keys = InstallationSecret::generate(&Random::system()).unwrap().keys();
        let key = AuditKey::default();
        key.set(&keys);
        (keys, Chain::new(key))
    }
}
