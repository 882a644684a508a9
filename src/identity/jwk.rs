//! One issuer's keys (RFC 7517), within limits: a key set is a stranger's document.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::{Algorithm, config::KeyType};
use crate::domain::{canonical, strict_json_object};

/// The keys of an issuer that can verify something here.
pub(super) struct KeySet(Vec<Arc<Key>>);

/// One public key, ready for use.
pub(super) struct Key {
    kid: Option<String>,
    key_type: KeyType,
    /// The only algorithm that the key may be used with, if the issuer says so.
    algorithm: Option<Algorithm>,
    verifying: DecodingKey,
    fingerprint: Fingerprint,
}

/// Digest of the key itself, whatever its `kid`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// Not a key set, or one of unreasonable size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JWKS document within limits")]
pub(super) struct NotAKeySet;

impl KeySet {
    /// Keys that we cannot use (other types, other purposes, bad sizes, private keys laid open) are left out.
    pub(super) fn parse(document: &[u8]) -> Result<Self, NotAKeySet> {
        let document = strict_json_object(document).ok_or(NotAKeySet)?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(NotAKeySet)?;
        if keys.len() > MOST_KEYS {
            return Err(NotAKeySet);
        }
        Ok(Self(keys.iter().filter_map(|key| Key::parse(key.as_object()?)).map(Arc::new).collect()))
    }

    /// The key of that `kid` which fits the algorithm; without a `kid`, the only one that fits. One key is tried,
    /// never several.
    pub(super) fn find(&self, unverified_kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let mut fitting = self.0.iter().filter(|key| key.fits(algorithm));
        let found = match unverified_kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        found.cloned()
    }

    pub(super) fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.0.iter().any(|key| key.fingerprint == fingerprint)
    }
}

impl Key {
    pub(super) fn verifying(&self) -> &DecodingKey {
        &self.verifying
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.key_type == algorithm.key_type() && self.algorithm.is_none_or(|own| own == algorithm)
    }

    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let verifies = jwk.get("use").is_none_or(|usage| usage == "sig")
            && jwk
                .get("key_ops")
                .is_none_or(|all| all.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify")));
        if !verifies || jwk.contains_key("d") {
            return None;
        }
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(name) => Some(Algorithm::named(name.as_str()?)?),
        };
        let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let (key_type, verifying, numbers) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (n, e) = (unpadded(number("n")?), unpadded(number("e")?));
                rsa_within_limits(&n, &e).then_some(())?;
                (KeyType::Rsa, DecodingKey::from_rsa_raw_components(&n, &e), [n, e])
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (number("x")?, number("y")?);
                (x.len() == 32 && y.len() == 32).then_some(())?;
                (KeyType::P256, DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?, [x, y])
            }
            _ => return None,
        };
        if algorithm.is_some_and(|algorithm| algorithm.key_type() != key_type) {
            return None;
        }
        let fingerprint = fingerprint(key_type, &numbers);
        Some(Self { kid: text("kid").map(str::to_owned), key_type, algorithm, verifying, fingerprint })
    }
}

/// RFC 7518 §2 forbids leading zeros, and some issuers send them.
fn unpadded(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.drain(..zeros);
    number
}

/// 2048 to 4096 bits: below, forgery is in reach; above, each verification is a favour to an attacker.
fn rsa_within_limits(n: &[u8], e: &[u8]) -> bool {
    let zeros = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = (n.len() * 8).saturating_sub(zeros);
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    (2048..=4096).contains(&bits) && odd(n) && odd(e) && e != [1] && e.len() <= 4
}

fn fingerprint(key_type: KeyType, numbers: &[Vec<u8>; 2]) -> Fingerprint {
    let label: &[u8] = match key_type {
        KeyType::Rsa => b"RSA",
        KeyType::P256 => b"P-256",
    };
    let digest = digest(&SHA256, &canonical(&[label, &numbers[0], &numbers[1]]));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Fingerprint(bytes)
}

const MOST_KEYS: usize = 200;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(bits: usize) -> Value {
        let mut n = vec![0xff; bits / 8];
        n[0] = 0x80;
        json!({ "kty": "RSA", "kid": "k", "n": URL_SAFE_NO_PAD.encode(n), "e": "AQAB" })
    }

    fn p256() -> Value {
        json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": URL_SAFE_NO_PAD.encode([1; 32]), "y": URL_SAFE_NO_PAD.encode([2; 32]) })
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn usable(key: &Value) -> bool {
        let set = set(std::slice::from_ref(key));
        Algorithm::ALL.into_iter().any(|algorithm| set.find(Some("k"), algorithm).is_some())
    }

    #[test]
    fn a_key_for_verifying_signatures_is_usable() {
        for key in [
            rsa(2048),
            rsa(3072),
            rsa(4096),
            p256(),
            with(rsa(2048), "use", json!("sig")),
            with(p256(), "key_ops", json!(["verify"])),
            with(p256(), "alg", json!("ES256")),
            with(rsa(2048), "n", json!(URL_SAFE_NO_PAD.encode([&[0_u8][..], &[0xff; 256]].concat()))),
        ] {
            assert!(usable(&key), "{key}");
        }
    }

    #[test]
    fn a_key_of_another_kind_size_or_use_is_left_out() {
        for key in [
            rsa(1024),
            rsa(2040),
            rsa(4104),
            rsa(16_384),
            with(rsa(2048), "e", json!("AQ")),
            with(rsa(2048), "e", json!("Ag")),
            with(rsa(2048), "e", json!("AQAAAAAB")),
            with(rsa(2048), "n", json!("not base64url!")),
            with(rsa(2048), "use", json!("enc")),
            with(rsa(2048), "use", json!(null)),
            with(rsa(2048), "key_ops", json!(["sign"])),
            with(rsa(2048), "alg", json!("RSA-OAEP")),
            with(rsa(2048), "alg", json!("HS256")),
            with(rsa(2048), "alg", json!("ES256")),
            with(rsa(2048), "alg", json!(7)),
            with(rsa(2048), "d", json!("AQAB")),
            with(p256(), "d", json!("AQAB")),
            with(p256(), "crv", json!("P-521")),
            with(p256(), "crv", json!("secp256k1")),
            with(p256(), "x", json!(URL_SAFE_NO_PAD.encode([1; 31]))),
            with(p256(), "y", json!("")),
            with(p256(), "kty", json!("OKP")),
            json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0" }),
            json!({ "kid": "k" }),
            json!("k"),
        ] {
            assert!(!usable(&key), "{key}");
        }
    }

    #[test]
    fn a_set_of_mixed_keys_under_one_name_gives_the_one_that_fits() {
        let set = set(&[json!({ "kty": "new" }), rsa(2048), p256()]);
        let (by_rsa, by_p256) =
            (set.find(Some("k"), Algorithm::Rs256).unwrap(), set.find(Some("k"), Algorithm::Es256).unwrap());
        assert_eq!((by_rsa.key_type, by_p256.key_type), (KeyType::Rsa, KeyType::P256));
        assert!(set.contains(by_rsa.fingerprint()) && by_rsa.fingerprint() != by_p256.fingerprint());
        assert!(set.find(Some("K"), Algorithm::Rs256).is_none());
    }

    #[test]
    fn without_a_name_only_a_single_fitting_key_is_found() {
        assert!(set(&[rsa(2048), p256()]).find(None, Algorithm::Rs256).is_some());
        assert!(set(&[rsa(2048), rsa(3072)]).find(None, Algorithm::Rs256).is_none());
    }
}
