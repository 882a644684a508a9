//! One issuer's keys (RFC 7517), within limits: a key set is a stranger's document.

use std::{collections::BTreeSet, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::{Algorithm, IssuerName, algorithm::KeyType};
use crate::domain::{canonical, strict_json_object};

/// The keys of an issuer that can verify something here.
pub(super) struct KeySet {
    keys: Vec<Arc<Key>>,
    /// Keys that would fit several of the issuer's algorithms, and name none.
    pub(super) ambiguous: usize,
}

/// One public key, ready for use.
pub(super) struct Key {
    kid: Option<String>,
    /// The only algorithm that the key is used with (RFC 8725 §3.1).
    algorithm: Algorithm,
    /// Entra's member of that name: the issuer that signs with the key, among those that share a key set.
    issuer: Option<IssuerName>,
    verifying: DecodingKey,
    fingerprint: Fingerprint,
}

/// A key's algorithm cannot be told.
struct Ambiguous;

/// Digest of the key itself and of what it may be used for, whatever its `kid`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// Not a key set, or one of unreasonable size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JWKS document within limits")]
pub(super) struct NotAKeySet;

impl KeySet {
    /// Keys that we cannot use (other types, other purposes, bad sizes, private keys laid open) are left out.
    pub(super) fn parse(document: &[u8], allowed: &BTreeSet<Algorithm>) -> Result<Self, NotAKeySet> {
        let document = strict_json_object(document).ok_or(NotAKeySet)?;
        let listed = document.get("keys").and_then(Value::as_array).ok_or(NotAKeySet)?;
        if listed.len() > MOST_KEYS {
            return Err(NotAKeySet);
        }
        let (mut keys, mut ambiguous) = (Vec::new(), 0);
        for parsed in listed.iter().filter_map(|key| Key::parse(key.as_object()?, allowed)) {
            match parsed {
                Ok(key) => keys.push(Arc::new(key)),
                Err(Ambiguous) => ambiguous += 1,
            }
        }
        Ok(Self { keys, ambiguous })
    }

    /// The key of that `kid` which fits the algorithm; without a `kid`, the only one that fits. One key is tried,
    /// never several.
    pub(super) fn find(&self, unverified_kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        let found = match unverified_kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        found.cloned()
    }

    pub(super) fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.keys.iter().any(|key| key.fingerprint == fingerprint)
    }
}

impl Key {
    pub(super) fn verifying(&self) -> &DecodingKey {
        &self.verifying
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether the key may sign for this `iss`: in a key set that many directories share, one of them must not be able to
    /// speak for another. A key without the member is the whole issuer's.
    pub(super) fn may_sign_for(&self, iss: &str, tid: Option<&str>) -> bool {
        self.issuer.as_ref().is_none_or(|issuer| issuer.covers(iss, tid))
    }

    /// `None`: not a key for us.
    fn parse(jwk: &Map<String, Value>, allowed: &BTreeSet<Algorithm>) -> Option<Result<Self, Ambiguous>> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let verifies = jwk.get("use").is_none_or(|usage| usage == "sig")
            && jwk
                .get("key_ops")
                .is_none_or(|all| all.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify")));
        if !verifies || jwk.contains_key("d") {
            return None;
        }
        let issuer = match jwk.get("issuer") {
            None => None,
            Some(name) => Some(IssuerName::try_from(name.as_str()?.to_owned()).ok()?),
        };
        let (key_type, verifying, numbers) = public_key(jwk)?;
        let algorithm = match jwk.get("alg") {
            Some(name) => Algorithm::named(name.as_str()?).filter(|own| own.key_type() == key_type)?,
            None => {
                let mut fitting = allowed.iter().filter(|algorithm| algorithm.key_type() == key_type);
                let first = *fitting.next()?;
                if fitting.next().is_some() {
                    return Some(Err(Ambiguous));
                }
                first
            }
        };
        let scope = issuer.as_ref().map_or("", IssuerName::as_str);
        let fingerprint = fingerprint(algorithm, scope, &numbers);
        Some(Ok(Self { kid: text("kid").map(str::to_owned), algorithm, issuer, verifying, fingerprint }))
    }
}

/// The key, and the numbers that make it (RFC 7518 §6.2 and §6.3, RFC 8037 §2).
fn public_key(jwk: &Map<String, Value>) -> Option<(KeyType, DecodingKey, [Vec<u8>; 2])> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let of_size = |name: &str, size: usize| number(name).filter(|bytes| bytes.len() == size);
    let on_curve = |key_type, size| {
        let numbers = [of_size("x", size)?, of_size("y", size)?];
        Some((key_type, DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?, numbers))
    };
    match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (n, e) = (unpadded(number("n")?), unpadded(number("e")?));
            rsa_within_limits(&n, &e).then_some(())?;
            Some((KeyType::Rsa, DecodingKey::from_rsa_raw_components(&n, &e), [n, e]))
        }
        ("EC", Some("P-256")) => on_curve(KeyType::P256, 32),
        ("EC", Some("P-384")) => on_curve(KeyType::P384, 48),
        ("OKP", Some("Ed25519")) => {
            let x = of_size("x", 32)?;
            Some((KeyType::Ed25519, DecodingKey::from_ed_components(text("x")?).ok()?, [x, Vec::new()]))
        }
        _ => None,
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

fn fingerprint(algorithm: Algorithm, issuer: &str, numbers: &[Vec<u8>; 2]) -> Fingerprint {
    let parts: [&[u8]; 4] = [algorithm.name().as_bytes(), issuer.as_bytes(), &numbers[0], &numbers[1]];
    let digest = digest(&SHA256, &canonical(&parts));
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

    fn p384() -> Value {
        json!({ "kty": "EC", "crv": "P-384", "kid": "k", "x": URL_SAFE_NO_PAD.encode([1; 48]), "y": URL_SAFE_NO_PAD.encode([2; 48]) })
    }

    fn ed25519() -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": URL_SAFE_NO_PAD.encode([1; 32]) })
    }

    /// One algorithm for each type of key.
    const ALLOWED: [Algorithm; 4] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];

    fn set_of(keys: &[Value], allowed: &[Algorithm]) -> KeySet {
        let allowed = allowed.iter().copied().collect();
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), &allowed).unwrap()
    }

    fn set(keys: &[Value]) -> KeySet {
        set_of(keys, &ALLOWED)
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
            p384(),
            ed25519(),
            with(ed25519(), "alg", json!("Ed25519")),
            with(rsa(2048), "alg", json!("PS512")),
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
            with(p256(), "crv", json!("P-384")),
            with(p384(), "alg", json!("ES256")),
            with(p384(), "crv", json!("P-256")),
            with(ed25519(), "crv", json!("X25519")),
            with(ed25519(), "crv", json!("Ed448")),
            with(ed25519(), "kty", json!("EC")),
            with(ed25519(), "x", json!(URL_SAFE_NO_PAD.encode([1; 33]))),
            with(ed25519(), "alg", json!("ES256")),
            with(rsa(2048), "alg", json!("EdDSA")),
            with(rsa(2048), "issuer", json!(7)),
            with(rsa(2048), "issuer", json!("https://login.example/{tenant}")),
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
        assert_eq!((by_rsa.algorithm, by_p256.algorithm), (Algorithm::Rs256, Algorithm::Es256));
        assert!(set.contains(by_rsa.fingerprint()) && by_rsa.fingerprint() != by_p256.fingerprint());
        assert!(set.find(Some("K"), Algorithm::Rs256).is_none());
    }

    #[test]
    fn without_a_name_only_a_single_fitting_key_is_found() {
        assert!(set(&[rsa(2048), p256()]).find(None, Algorithm::Rs256).is_some());
        assert!(set(&[rsa(2048), rsa(3072)]).find(None, Algorithm::Rs256).is_none());
    }

    #[test]
    fn a_key_is_used_with_one_algorithm() {
        let both = [Algorithm::Rs256, Algorithm::Ps256];
        for (key, allowed, fits) in [
            (rsa(2048), &both[..1], Some(Algorithm::Rs256)),
            (rsa(2048), &both[1..], Some(Algorithm::Ps256)),
            (with(rsa(2048), "alg", json!("PS256")), &both[..], Some(Algorithm::Ps256)),
            (rsa(2048), &both[..], None),
        ] {
            let set = set_of(std::slice::from_ref(&key), allowed);
            let found = both.into_iter().filter(|algorithm| set.find(Some("k"), *algorithm).is_some());
            assert_eq!(found.collect::<Vec<_>>(), Vec::from_iter(fits), "{key}");
            assert_eq!(set.ambiguous, usize::from(fits.is_none()));
        }
    }

    #[test]
    fn the_same_numbers_for_another_use_are_another_key() {
        let as_key = |key: &Value| set(std::slice::from_ref(key)).keys[0].fingerprint;
        let plain = as_key(&rsa(2048));
        assert!(plain == as_key(&with(rsa(2048), "kid", json!("other"))));
        for (name, value) in [("alg", "PS256"), ("issuer", "https://login.example/{tenantid}")] {
            assert!(plain != as_key(&with(rsa(2048), name, json!(value))), "{name}");
        }
    }
}
