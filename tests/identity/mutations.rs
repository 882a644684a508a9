//! Whatever an attacker makes of good tokens and public keys, without a private key, is refused.

use aws_lc_rs::hmac;
use claviger::identity::{Algorithm, IdentityError};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::TestRunner,
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::{
    issuer::{SigningKey, base64},
    platform::{AUDIENCE, Platform, only_issuer},
};

/// One change to one of the good tokens, or to several.
#[derive(Clone, Debug)]
enum Mutation {
    FlipBit {
        at: Index,
        bit: u8,
    },
    Drop {
        at: Index,
    },
    Insert {
        at: Index,
        byte: u8,
    },
    /// Header, payload and signature of three good tokens.
    Mix([Index; 3]),
    /// Another claim under the old signature.
    Claim {
        name: &'static str,
        value: Value,
    },
    /// Signed by the issuer, with a member that is there twice.
    Twice {
        name: &'static str,
        value: Value,
        in_header: bool,
    },
    /// Signed with the attacker's key, which the header may bring along.
    OwnKey {
        kid: &'static str,
        brought: Vec<&'static str>,
    },
    /// RS256 to HS256: a public key as the secret.
    PublicSecret {
        algorithm: &'static str,
        form: usize,
    },
    Unsigned {
        algorithm: &'static str,
        keeps_signature: bool,
    },
}

struct World {
    runtime: Runtime,
    platform: Platform,
    ed25519: SigningKey,
    /// Of the same type as one of the issuer's.
    attackers: SigningKey,
    /// The issuer's key and one of its tokens: two persons, three keys.
    good: Vec<(usize, String)>,
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let ed25519 = SigningKey::of("EdDSA", "ed-1");
        let platform = runtime.block_on(Platform::with(|family| {
            let algorithms = ["RS256", "ES256", "EdDSA"].map(|name| serde_json::from_value(json!(name)).unwrap());
            only_issuer(family).algorithms = algorithms.into_iter().collect::<std::collections::BTreeSet<Algorithm>>();
        }));
        platform.issuer.publish(vec![platform.rsa.jwk(), platform.p256.jwk(), ed25519.jwk()]);
        let mut world = Self { runtime, platform, ed25519, attackers: SigningKey::p256("p256-1"), good: Vec::new() };
        for person in ["alice", "bob"] {
            let claims = world.platform.claims_but(json!({ "sub": person }));
            for number in 0..3 {
                let token = world.key(number).token(&claims);
                world.good.push((number, token));
            }
        }
        world
    }

    fn key(&self, number: usize) -> &SigningKey {
        [self.platform.rsa, &self.platform.p256, &self.ed25519][number]
    }

    fn answer(&self, token: &str) -> Result<(), IdentityError> {
        self.runtime.block_on(async { self.platform.ask(token).await.map(|_| ()) })
    }

    /// What an attacker knows of an issuer's key.
    fn public_forms(&self, key: &SigningKey) -> Vec<Vec<u8>> {
        let jwk = key.jwk();
        let number = jwk["n"].as_str().or(jwk["x"].as_str()).unwrap().to_owned();
        let key_set = json!({ "keys": [jwk] }).to_string();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64(key.public_bytes()));
        let forms = [jwk.to_string(), number, key_set, pem, String::new(), key.kid.clone()];
        forms.into_iter().map(String::into_bytes).chain([key.public_bytes(), key.rsa_modulus()]).collect()
    }
}

impl Mutation {
    fn applied(&self, world: &World, which: &Index) -> String {
        let (number, token) = which.get(&world.good);
        let key = world.key(*number);
        let parts: Vec<&str> = token.split('.').collect();
        let claims = world.platform.claims();
        match self {
            Self::FlipBit { at, bit } => edited(token, |bytes| {
                let at = at.index(bytes.len());
                // Seven bits: the text stays text.
                bytes[at] ^= 1 << bit;
            }),
            Self::Drop { at } => edited(token, |bytes| {
                bytes.remove(at.index(bytes.len()));
            }),
            Self::Insert { at, byte } => edited(token, |bytes| bytes.insert(at.index(bytes.len() + 1), *byte)),
            Self::Mix(places) => {
                let part = |number: usize| places[number].get(&world.good).1.split('.').nth(number).unwrap();
                [part(0), part(1), part(2)].join(".")
            }
            Self::Claim { name, value } => {
                let mut changed = claims;
                changed[*name] = value.clone();
                format!("{}.{}.{}", parts[0], base64(changed.to_string()), parts[2])
            }
            Self::Twice { name, value, in_header } => {
                let header = json!({ "alg": key.algorithm(), "kid": key.kid, "typ": "at+jwt" }).to_string();
                let twice = |text: &str| format!("{},\"{name}\":{value}}}", &text[..text.len() - 1]);
                let claims = claims.to_string();
                if *in_header { key.compact(&twice(&header), &claims) } else { key.compact(&header, &twice(&claims)) }
            }
            Self::OwnKey { kid, brought } => {
                let attackers = &world.attackers;
                let mut header = json!({ "alg": attackers.algorithm(), "kid": kid, "typ": "at+jwt" });
                for name in brought {
                    header[*name] = match *name {
                        "jwk" => attackers.jwk(),
                        "x5c" => json!([base64(attackers.public_bytes())]),
                        _ => json!(format!("{}/keys", world.platform.issuer.url())),
                    };
                }
                attackers.compact(&header.to_string(), &claims.to_string())
            }
            Self::PublicSecret { algorithm, form } => {
                let header = json!({ "alg": algorithm, "kid": key.kid, "typ": "at+jwt" }).to_string();
                let signed = format!("{}.{}", base64(header), base64(claims.to_string()));
                let forms = world.public_forms(key);
                let secret = hmac::Key::new(hmac::HMAC_SHA256, &forms[form % forms.len()]);
                format!("{signed}.{}", base64(hmac::sign(&secret, signed.as_bytes())))
            }
            Self::Unsigned { algorithm, keeps_signature } => {
                let header = base64(json!({ "alg": algorithm, "kid": key.kid, "typ": "at+jwt" }).to_string());
                format!("{header}.{}.{}", parts[1], if *keeps_signature { parts[2] } else { "" })
            }
        }
    }
}

fn edited(token: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = token.as_bytes().to_vec();
    edit(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn a_mutation() -> impl Strategy<Value = Mutation> {
    let member = || {
        select(vec![
            ("alg", json!("none")),
            ("alg", json!("HS256")),
            ("kid", json!("rsa-1")),
            ("typ", json!("JWT")),
            ("sub", json!("mallory")),
            ("aud", json!(AUDIENCE)),
            ("exp", json!(9_999_999_999_i64)),
            ("iss", json!("https://evil.example")),
            ("tid", json!("../common")),
        ])
    };
    let twice = select(vec![
        ("alg", json!("none"), true),
        ("alg", json!("RS256"), true),
        ("kid", json!("rsa-1"), true),
        ("typ", json!("at+jwt"), true),
        ("sub", json!("mallory"), false),
        ("iss", json!("https://evil.example"), false),
        ("exp", json!(9_999_999_999_i64), false),
    ]);
    let kids = vec!["p256-1", "rsa-1", "ed-1", "", "../../../../dev/null", "p256-1\u{0}", "' OR '1'='1", "P256-1"];
    let algorithms = vec!["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"];
    let nothing = vec!["none", "None", "NONE", "noNE", "", "RS256", "ES256", "EdDSA", "HS256"];
    let brought = proptest::sample::subsequence(vec!["jwk", "jku", "x5u", "x5c"], 0..=4);
    prop_oneof![
        8 => (any::<Index>(), 0..7_u8).prop_map(|(at, bit)| Mutation::FlipBit { at, bit }),
        2 => any::<Index>().prop_map(|at| Mutation::Drop { at }),
        2 => (any::<Index>(), 0..128_u8).prop_map(|(at, byte)| Mutation::Insert { at, byte }),
        2 => any::<[Index; 3]>().prop_map(Mutation::Mix),
        1 => member().prop_map(|(name, value)| Mutation::Claim { name, value }),
        1 => twice.prop_map(|(name, value, in_header)| Mutation::Twice { name, value, in_header }),
        2 => (select(kids), brought).prop_map(|(kid, brought)| Mutation::OwnKey { kid, brought }),
        2 => (select(algorithms), 0..8_usize)
            .prop_map(|(algorithm, form)| Mutation::PublicSecret { algorithm, form }),
        1 => (select(nothing), any::<bool>())
            .prop_map(|(algorithm, keeps_signature)| Mutation::Unsigned { algorithm, keeps_signature }),
    ]
}

#[test]
fn no_mutation_of_good_tokens_is_accepted() {
    let world = World::new();
    let all_pass = || world.good.iter().all(|(_, token)| world.answer(token).is_ok());
    assert!(all_pass());
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(a_mutation(), any::<Index>()), |(mutation, which)| {
            let token = mutation.applied(&world, &which);
            let known = world.good.iter().any(|(_, good)| *good == token);
            prop_assert_eq!(world.answer(&token).is_ok(), known, "{}", token);
            Ok(())
        })
        .unwrap();
    assert!(all_pass(), "and good ones are none the worse for it");
}
