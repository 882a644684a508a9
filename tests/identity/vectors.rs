//! Vectors that others made: the JOSE cookbook (RFC 7520, RFC 7797, RFC 8037) and what Entra documents of its tokens.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use claviger::identity::{Algorithm, Flaw, IdentityError};
use serde_json::{Value, json};

use crate::{
    entra::{ACME, CONSUMERS, Entra, GLOBEX, Rig, but},
    issuer::{SigningKey, base64},
    platform::{Platform, an_rsa_key, only_issuer},
    vectors_support::{collection, json_files},
};

/// Everything that the cookbook serializes: compact as text, the JSON forms as JSON.
fn serialized(example: &Value) -> Vec<String> {
    let nested = [&example["output"], &example["sign"]["output"], &example["encrypt"]["output"]];
    let forms = nested.into_iter().filter_map(Value::as_object).flat_map(|output| output.values());
    forms.map(|form| form.as_str().map_or_else(|| form.to_string(), str::to_owned)).collect()
}

async fn a_platform_of_every_algorithm() -> Platform {
    let names = ["RS256", "PS256", "PS384", "ES256", "ES384", "EdDSA"];
    let all: Vec<Algorithm> = serde_json::from_value(json!(names)).unwrap();
    Platform::with(|family| only_issuer(family).algorithms = all.into_iter().collect()).await
}

#[tokio::test]
async fn the_cookbook_holds_no_token_of_ours() {
    let Some(cookbook) = collection("jose-cookbook") else { return };
    let platform = a_platform_of_every_algorithm().await;
    let (mut flaws, mut strangers) = (Vec::new(), 0);
    for folder in ["", "jws", "jwe", "rfc7797", "curve25519"] {
        for (file, example) in json_files(cookbook.join(folder)) {
            for text in serialized(&example) {
                let refusal = platform.refusal(&text).await;
                if refusal == Some(IdentityError::IssuerUnknown) {
                    // The one example that is a JWT, of PS256: not from an issuer of ours.
                    strangers += 1;
                    continue;
                }
                let Some(IdentityError::TokenInvalid(flaw)) = refusal else { unreachable!("{file}: {refusal:?}") };
                let alg = example["input"]["alg"].as_str().unwrap_or_default();
                let compact_jws = text.matches('.').count() == 2 && !text.contains('{');
                let expected = match alg {
                    _ if !compact_jws => vec![Flaw::Shape, Flaw::TooLong],
                    // The payload of these is prose, and the signature good.
                    "RS256" | "PS384" | "EdDSA" => vec![Flaw::Claims],
                    // An unencoded payload need not look like a token at all (RFC 7797).
                    _ => vec![Flaw::Algorithm, Flaw::Shape],
                };
                assert!(expected.contains(&flaw), "{file}: {flaw:?}");
                flaws.push(flaw);
            }
        }
    }
    for flaw in [Flaw::Shape, Flaw::Algorithm, Flaw::Claims] {
        assert!(flaws.contains(&flaw), "{flaw:?}");
    }
    assert_eq!((strangers, platform.issuer.key_fetches()), (1, 0));
}

#[tokio::test]
async fn the_cookbooks_ed25519_key_signs_tokens() {
    let Some(cookbook) = collection("jose-cookbook") else { return };
    let (_, example) =
        json_files(cookbook.join("curve25519")).into_iter().find(|(file, _)| file == "jws.json").unwrap();
    let mut jwk = example["input"]["key"].clone();
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes("d"), &bytes("x")).unwrap();
    let platform = a_platform_of_every_algorithm().await;
    let signed = format!("{}.{}", base64(r#"{"alg":"EdDSA","typ":"at+jwt"}"#), base64(platform.claims().to_string()));
    let token = format!("{signed}.{}", base64(pair.sign(signed.as_bytes())));
    platform.issuer.publish(vec![jwk.clone()]);
    let refusal = platform.refusal(&token).await;
    assert_eq!(refusal, Some(IdentityError::TokenInvalid(Flaw::KeyUnknown)), "its private half is laid open");
    jwk.as_object_mut().unwrap().remove("d");
    platform.issuer.publish(vec![jwk]);
    platform.clock.advance(crate::platform::HOUR);
    platform.authenticator.refresh_due().await;
    assert_eq!(platform.refusal(&token).await, None);
}

/// The documented key set with our numbers and addresses in it, and the cases with our directories.
#[tokio::test]
async fn entra_cases_end_as_documented() {
    let Some(entra) = collection("entra") else { return };
    let files = json_files(entra);
    let (_, document) = files.iter().find(|(file, _)| file == "jwks_shape_and_cases.json").unwrap();
    let consumers = SigningKey::rsa("consumers");
    let (both, only_v2) = (Rig::start().await, Rig::with(|family| drop(family.issuers.pop())).await);
    let kids = [&both, &only_v2].map(|rig| publish(&rig.entra, document, &consumers));
    let [shared_kid, consumers_kid] = &kids[0];
    let mut accepted = 0;
    for case in document["cases"].as_array().unwrap() {
        let expected = case["expect"].as_str().unwrap();
        let of_consumers = case["key_issuer"].as_str().is_some_and(|name| name.contains("GUID"));
        let (key, kid) = if of_consumers { (&consumers, consumers_kid) } else { (an_rsa_key(), shared_kid) };
        let header = json!({ "typ": "JWT", "alg": "RS256", "kid": kid }).to_string();
        let answer = async |rig: &Rig| {
            let claims = claims_of(case, &rig.entra);
            rig.refusal(key.compact(&header, &claims.to_string())).await
        };
        if expected.contains("only with v1 metadata") {
            let unpublished = Some(IdentityError::TokenInvalid(Flaw::KeyUnknown));
            assert_eq!(answer(&only_v2).await, Some(IdentityError::IssuerUnknown), "{case}");
            assert_eq!(answer(&both).await, unpublished, "v1's key set has the key under another name");
            continue;
        }
        let refusal = answer(&both).await;
        assert_eq!(refusal.is_none(), expected.starts_with("accept"), "{case}: {refusal:?}");
        accepted += usize::from(refusal.is_none());
    }
    assert_eq!(accepted, 1);
}

/// Serves the documented keys; their ids.
fn publish(entra: &Entra, document: &Value, consumers: &SigningKey) -> [String; 2] {
    let mut keys = document["keys"].clone();
    let mut kids = [String::new(), String::new()];
    for (jwk, (own, kid)) in
        keys.as_array_mut().unwrap().iter_mut().zip([an_rsa_key(), consumers].iter().zip(&mut kids))
    {
        let numbers = own.jwk();
        (jwk["n"], jwk["e"]) = (numbers["n"].clone(), numbers["e"].clone());
        let issuer = jwk["issuer"].as_str().unwrap().replace("https://login.microsoftonline.com", entra.issuer.url());
        jwk["issuer"] = json!(issuer.replace("9188040d-6c67-4c5b-b112-36a304b66dad", CONSUMERS));
        kid.push_str(jwk["kid"].as_str().unwrap());
    }
    entra.issuer.serve("/common/discovery/v2.0/keys", json!({ "keys": keys }));
    kids
}

fn claims_of(case: &Value, entra: &Entra) -> Value {
    let ours = |text: &str| match text {
        "T1" => json!(ACME),
        "T2" => json!(GLOBEX),
        "absent" => json!(null),
        other => json!(other),
    };
    let tid = ours(case["tid"].as_str().unwrap());
    let v1 = case["ver"] == "1.0";
    let claims = if v1 { entra.v1_claims(ACME) } else { entra.v2_claims(ACME) };
    but(claims, json!({ "tid": tid }))
}
