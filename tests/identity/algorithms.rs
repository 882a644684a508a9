//! Signature algorithms: each by its name, with its own key, where its issuer is allowed to use it.

use claviger::identity::{Algorithm, Flaw};
use serde_json::{Value, json};

use crate::{
    clock::ManualClock,
    issuer::{SigningKey, TestIssuer, base64},
    platform::{Platform, authenticator, family, invalid, only_issuer},
};

const RSA: [&str; 6] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
const OTHERS: [&str; 4] = ["ES256", "ES384", "EdDSA", "Ed25519"];

fn named(name: &str) -> Algorithm {
    serde_json::from_value(json!(name)).unwrap()
}

/// Platforms that allow some algorithms and publish what a key becomes.
async fn platform(allowed: &[&str], key: &SigningKey, change: impl FnOnce(&mut Value)) -> Platform {
    let platform = Platform::with(|family| {
        only_issuer(family).algorithms = allowed.iter().map(|name| named(name)).collect();
    })
    .await;
    let mut jwk = key.jwk();
    change(&mut jwk);
    platform.issuer.publish(vec![jwk]);
    platform
}

fn without_algorithm(jwk: &mut Value) {
    jwk.as_object_mut().unwrap().remove("alg");
}

#[tokio::test]
async fn each_algorithm_accepts_its_own_signatures() {
    let mut rsa = SigningKey::rsa("k");
    let mut keys: Vec<SigningKey> = OTHERS.iter().map(|name| SigningKey::of(name, "k")).collect();
    for round in 0..RSA.len() + OTHERS.len() {
        let key = if let Some(name) = RSA.get(round) {
            rsa = rsa.signing_with(name);
            &rsa
        } else {
            keys.rotate_left(1);
            &keys[0]
        };
        let platform = platform(&[key.algorithm()], key, |_| {}).await;
        let token = key.token(&platform.claims());
        assert_eq!(platform.refusal(&token).await, None, "{}", key.algorithm());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let shorter = &signature[..signature.len() - 4];
        for forged in [format!("{signed}.{shorter}"), format!("{signed}.{}", base64([0; 64]))] {
            assert_eq!(platform.refusal(&forged).await, invalid(Flaw::Signature), "{}", key.algorithm());
        }
    }
}

#[tokio::test]
async fn a_signature_of_one_algorithm_is_none_of_another() {
    let by_rs256 = SigningKey::rsa("k");
    let pss = platform(&["RS256", "PS256"], &by_rs256, |jwk| jwk["alg"] = json!("PS256")).await;
    let claims = pss.claims();
    let header = |name: &str| json!({ "alg": name, "kid": "k", "typ": "at+jwt" }).to_string();
    assert_eq!(pss.refusal(&by_rs256.token(&claims)).await, invalid(Flaw::KeyUnknown), "the key is for PS256");
    let relabelled = by_rs256.compact(&header("PS256"), &claims.to_string());
    assert_eq!(pss.refusal(&relabelled).await, invalid(Flaw::Signature));
    let by_ps256 = by_rs256.signing_with("PS256");
    assert_eq!(pss.refusal(&by_ps256.token(&claims)).await, None);
}

#[tokio::test]
async fn a_key_that_names_no_algorithm_has_the_one_that_its_issuer_uses() {
    let mut key = SigningKey::rsa("k");
    let pss = platform(&["PS256", "ES256"], &key, without_algorithm).await;
    assert_eq!(pss.refusal(&key.token(&pss.claims())).await, invalid(Flaw::Algorithm));
    key = key.signing_with("PS256");
    assert_eq!(pss.refusal(&key.token(&pss.claims())).await, None);
    let either = platform(&["RS256", "PS256"], &key, without_algorithm).await;
    assert_eq!(either.refusal(&key.token(&either.claims())).await, invalid(Flaw::KeyUnknown), "which one is it for?");
}

#[tokio::test]
async fn both_names_of_ed25519_are_allowed_by_name() {
    let key = SigningKey::of("EdDSA", "k");
    let old = platform(&["EdDSA"], &key, without_algorithm).await;
    assert_eq!(old.refusal(&key.token(&old.claims())).await, None);
    let key = key.signing_with("Ed25519");
    assert_eq!(old.refusal(&key.token(&old.claims())).await, invalid(Flaw::Algorithm));
    let new = platform(&["Ed25519"], &key, without_algorithm).await;
    assert_eq!(new.refusal(&key.token(&new.claims())).await, None);
}

#[tokio::test]
async fn an_ed25519_signature_has_one_form() {
    let key = SigningKey::of("EdDSA", "k");
    let platform = platform(&["EdDSA"], &key, |_| {}).await;
    let token = key.token(&platform.claims());
    let signed = token.rsplit_once('.').unwrap().0;
    let mut signature = key.sign(signed.as_bytes());
    // S + L verifies as S does, unless the range of S is checked (RFC 8032 §5.1.7).
    let mut carry = 0;
    for (digit, order) in signature[32..].iter_mut().zip(ED25519_ORDER) {
        let sum = u16::from(*digit) + u16::from(order) + carry;
        (*digit, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(platform.refusal(&format!("{signed}.{}", base64(&signature))).await, invalid(Flaw::Signature));
    assert_eq!(platform.refusal(&token).await, None);
}

#[tokio::test]
async fn an_issuer_uses_rs256_and_es256_unless_it_is_told_otherwise() {
    for (name, expected) in [("RS256", None), ("ES256", None), ("PS256", invalid(Flaw::Algorithm))] {
        let key = SigningKey::of(name, "k");
        let issuer = TestIssuer::start(&[&key]).await;
        let clock = ManualClock::new();
        let (authenticator, _) = authenticator(vec![family("platform", issuer.url())], &clock);
        let now = ManualClock::START.as_secs();
        let claims = json!({ "iss": issuer.url(), "sub": "a", "aud": crate::platform::AUDIENCE, "exp": now + 60 });
        let token = claviger::domain::PresentedToken::new(key.token(&claims));
        let refusal =
            authenticator.unwrap().authenticate(&token, claviger::identity::TokenSource::Metadata).await.err();
        assert_eq!(refusal, expected, "{name}");
    }
}

/// L, little-endian (RFC 8032 §5.1).
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
