//! Access tokens: what is accepted, and every refusal.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::hmac;
use claviger::{
    domain::{PresentedToken, Reason, Role},
    identity::{ConfigError, Flaw, IdentityError, RoleRule, TenantRule, TokenSource},
};
use serde_json::{Value, json};

use crate::{
    clock::ManualClock,
    issuer::{SigningKey, TestIssuer, base64},
    platform::{AUDIENCE, HOUR, MINUTE, Platform, SECOND, authenticator, family, invalid, only_issuer, tenant},
};

#[tokio::test]
async fn a_good_token_of_either_algorithm_names_its_caller() {
    let platform = Platform::start().await;
    for key in [platform.rsa, &platform.p256] {
        let claims = platform.claims_but(json!({
            "aud": ["https://other.example", AUDIENCE], "scope": "mail.read mail.send", "azp": "agent-7",
        }));
        let caller = platform.ask(&key.token(&claims)).await.unwrap();
        assert_eq!(caller.tenant, tenant("acme"));
        assert_eq!((caller.family.as_str(), caller.external_id.as_str()), ("platform", "alice"));
        assert_eq!(caller.agent.as_ref().map(|agent| agent.as_str()), Some("agent-7"));
        assert_eq!(caller.audience, ["https://other.example", AUDIENCE]);
        assert_eq!(caller.scopes.join(' '), "mail.read mail.send");
        assert_eq!(caller.roles, BTreeSet::from([Role::User]));
        assert_eq!(caller.issued_at, ManualClock::START);
        assert_eq!(caller.expires_at, ManualClock::START.plus(HOUR));
    }
}

#[tokio::test]
async fn a_token_is_as_long_as_its_place_allows() {
    let platform = Platform::start().await;
    let of_length = |target: usize| {
        let bare = platform.p256.token(&platform.claims_but(json!({ "pad": "" }))).len();
        let pad = "x".repeat((target - bare) / 4 * 3);
        platform.p256.token(&platform.claims_but(json!({ "pad": pad })))
    };
    let (fits, long, longer) = (of_length(8180), of_length(8300), of_length(16_500));
    assert!(fits.len() <= 8192 && long.len() > 8192 && longer.len() > 16_384);
    assert!(platform.ask(&fits).await.is_ok());
    assert_eq!(platform.refusal(&long).await, invalid(Flaw::TooLong));
    let in_field = async |token: String| {
        platform.authenticator.authenticate(&PresentedToken::new(token), TokenSource::Field).await.err()
    };
    assert_eq!(in_field(long.clone()).await, None);
    assert_eq!(in_field(longer).await, invalid(Flaw::TooLong));
    // verified before, and still too long for metadata
    assert_eq!(platform.refusal(&long).await, invalid(Flaw::TooLong));
}

#[tokio::test]
async fn only_three_base64url_parts_are_a_token() {
    let platform = Platform::start().await;
    let good = platform.token();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for bad in [
        String::new(),
        "opaque".to_owned(),
        signed.to_owned(),
        format!("{good}.x"),
        format!("{good}.x.y"),
        format!("{signed}."),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{}+/{}", &good[..10], &good[12..]),
        format!("{signed}.{signature}é"),
        json!({ "payload": "x", "protected": "y", "signature": signature }).to_string(),
        ".".repeat(2),
    ] {
        assert_eq!(platform.refusal(&bad).await, invalid(Flaw::Shape), "{bad}");
    }
    assert_eq!(platform.issuer.key_fetches(), 0);
}

#[tokio::test]
async fn a_header_that_reads_two_ways_or_not_at_all_is_refused() {
    let platform = Platform::start().await;
    let payload = platform.claims().to_string();
    let long_kid = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "k".repeat(257));
    for (header, flaw) in [
        (r#"{"alg":"none","alg":"RS256","kid":"rsa-1"}"#, Flaw::Header),
        (r#"{"alg":"RS256","kid":"rsa-1","kid":"p256-1"}"#, Flaw::Header),
        (r#"["RS256"]"#, Flaw::Header),
        (r#"{"alg":"RS256","kid":7}"#, Flaw::Header),
        (r#"{"alg":"RS256","kid":"rsa-1","typ":["at+jwt"]}"#, Flaw::Header),
        (&long_kid, Flaw::Header),
        (r#"{"kid":"rsa-1"}"#, Flaw::Algorithm),
        (r#"{"alg":null,"kid":"rsa-1"}"#, Flaw::Algorithm),
        (r#"{"alg":["RS256"],"kid":"rsa-1"}"#, Flaw::Algorithm),
        (r#"{"alg":"RS256","kid":"rsa-1","crit":[]}"#, Flaw::Critical),
        (r#"{"alg":"RS256","kid":"rsa-1","crit":["exp"],"exp":1}"#, Flaw::Critical),
        (r#"{"alg":"RS256","kid":"rsa-1","b64":false}"#, Flaw::Critical),
    ] {
        assert_eq!(platform.refusal(&platform.rsa.compact(header, &payload)).await, invalid(flaw), "{header}");
    }
    assert_eq!(platform.issuer.key_fetches(), 0);
}

#[tokio::test]
async fn an_algorithm_that_is_not_allowed_is_refused_whatever_the_signature() {
    let platform = Platform::start().await;
    let payload = platform.claims().to_string();
    for name in ["none", "noNE", "None", "NONE", "", "HS256", "HS512", "RS512", "PS256", "rs256", "ES521", "dir"] {
        let header = json!({ "alg": name, "kid": "rsa-1" }).to_string();
        assert_eq!(
            platform.refusal(&platform.rsa.compact(&header, &payload)).await,
            invalid(Flaw::Algorithm),
            "{name}"
        );
    }
    // the public key as an HMAC secret
    let signed = format!("{}.{}", base64(json!({ "alg": "HS256", "kid": "rsa-1" }).to_string()), base64(&payload));
    for secret in [platform.rsa.rsa_modulus(), Vec::new()] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
        assert_eq!(platform.refusal(&format!("{signed}.{}", base64(tag))).await, invalid(Flaw::Algorithm));
    }
}

#[tokio::test]
async fn an_issuer_accepts_only_its_own_algorithms() {
    let platform = Platform::with(|family| {
        only_issuer(family).algorithms.retain(|algorithm| *algorithm == claviger::identity::Algorithm::Es256);
    })
    .await;
    assert_eq!(platform.refusal(&platform.token()).await, invalid(Flaw::Algorithm));
    assert!(platform.ask(&platform.p256.token(&platform.claims())).await.is_ok());
}

#[tokio::test]
async fn a_token_cannot_choose_its_key() {
    let platform = Platform::start().await;
    let mallory = SigningKey::rsa("mallory");
    let elsewhere = TestIssuer::start(&[&mallory]).await;
    let (keys, payload) = (format!("{}/keys", elsewhere.url()), platform.claims().to_string());
    for extra in [
        json!({ "jwk": mallory.jwk() }),
        json!({ "jku": keys }),
        json!({ "x5u": keys }),
        json!({ "x5c": ["MIIB"] }),
        json!({}),
    ] {
        for (kid, flaw) in [("mallory", Flaw::KeyUnknown), ("rsa-1", Flaw::Signature)] {
            let mut header = json!({ "alg": "RS256", "kid": kid });
            header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let refusal = platform.refusal(&mallory.compact(&header.to_string(), &payload)).await;
            assert_eq!(refusal, invalid(flaw), "{header}");
        }
    }
    assert_eq!((elsewhere.key_fetches(), elsewhere.discoveries()), (0, 0));
    // and what it says about keys does not hurt a good token
    let header = json!({ "alg": "RS256", "kid": "rsa-1", "jku": keys, "jwk": mallory.jwk() }).to_string();
    assert!(platform.ask(&platform.rsa.compact(&header, &payload)).await.is_ok());
    assert_eq!(elsewhere.key_fetches(), 0);
}

#[tokio::test]
async fn a_key_id_is_a_name_and_nothing_else() {
    let platform = Platform::start().await;
    let payload = platform.claims().to_string();
    platform.ask(&platform.token()).await.unwrap();
    for kid in ["../../etc/passwd", "/dev/null", "' OR 1=1 --", "rsa-1\u{0}", "RSA-1", "http://169.254.169.254/"] {
        platform.clock.advance(MINUTE);
        let header = json!({ "alg": "RS256", "kid": kid }).to_string();
        let refusal = platform.refusal(&platform.rsa.compact(&header, &payload)).await;
        assert_eq!(refusal, invalid(Flaw::KeyUnknown), "{kid}");
    }
    // a key of another type under a known name
    platform.clock.advance(MINUTE);
    let header = json!({ "alg": "ES256", "kid": "rsa-1" }).to_string();
    assert_eq!(platform.refusal(&platform.p256.compact(&header, &payload)).await, invalid(Flaw::KeyUnknown));
}

#[tokio::test]
async fn a_token_without_a_key_id_needs_an_issuer_with_one_fitting_key() {
    let platform = Platform::start().await;
    let (header, payload) = (r#"{"alg":"RS256"}"#, platform.claims().to_string());
    let token = platform.rsa.compact(header, &payload);
    assert!(platform.ask(&token).await.is_ok());
    platform.issuer.publish(vec![platform.rsa.jwk(), SigningKey::rsa("rsa-2").jwk()]);
    platform.clock.advance(HOUR);
    platform.authenticator.refresh_due().await;
    let other = platform.rsa.compact(r#"{"alg":"RS256","typ":"JWT"}"#, &payload);
    assert_eq!(platform.refusal(&other).await, invalid(Flaw::KeyUnknown));
}

#[tokio::test]
async fn a_signature_that_does_not_match_is_refused() {
    let platform = Platform::start().await;
    let (header, payload) = (r#"{"alg":"ES256","kid":"p256-1"}"#, platform.claims().to_string());
    let signed = format!("{}.{}", base64(header), base64(&payload));
    let good = platform.p256.sign(signed.as_bytes());
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    let doubled: Vec<u8> = good.iter().chain(&good).copied().collect();
    for (what, signature) in [
        ("r and s are zero (CVE-2022-21449)", vec![0; 64]),
        ("empty halves", vec![0; 1]),
        ("r and s are the group order", [P256_ORDER, P256_ORDER].concat()),
        ("one bit differs", flipped),
        ("too short", good[..63].to_vec()),
        ("too long", doubled),
    ] {
        let token = format!("{signed}.{}", base64(signature));
        assert_eq!(platform.refusal(&token).await, invalid(Flaw::Signature), "{what}");
    }
    let other = base64(platform.claims_but(json!({ "sub": "mallory" })).to_string());
    let swapped = format!("{}.{other}.{}", base64(header), base64(&good));
    assert_eq!(platform.refusal(&swapped).await, invalid(Flaw::Signature));
    assert!(platform.ask(&format!("{signed}.{}", base64(good))).await.is_ok());
}

#[tokio::test]
async fn an_unknown_issuer_is_named_as_the_reason_and_never_called() {
    let platform = Platform::start().await;
    let stranger = TestIssuer::start(&[platform.rsa]).await;
    let own = platform.issuer.url();
    for issuer in [stranger.url(), &format!("{own}/"), &own.to_uppercase(), "https://accounts.example.com"] {
        assert_eq!(platform.refusal_of(json!({ "iss": issuer })).await, Some(IdentityError::IssuerUnknown), "{issuer}");
    }
    assert_eq!((stranger.discoveries(), stranger.key_fetches(), platform.issuer.key_fetches()), (0, 0, 0));
    for issuer in [json!(null), json!(7), json!([own]), json!("")] {
        assert_eq!(platform.refusal_of(json!({ "iss": issuer })).await, invalid(Flaw::Claims));
    }
}

#[tokio::test]
async fn claims_that_read_two_ways_are_refused() {
    let platform = Platform::start().await;
    let claims = platform.claims().to_string();
    let twice = format!("{},\"sub\":\"mallory\"}}", &claims[..claims.len() - 1]);
    let token = platform.rsa.compact(r#"{"alg":"RS256","kid":"rsa-1"}"#, &twice);
    assert_eq!(platform.refusal(&token).await, invalid(Flaw::Claims));
}

#[tokio::test]
async fn time_limits_hold_with_a_minute_of_leeway() {
    let platform = Platform::start().await;
    let now = ManualClock::START.as_secs();
    for (changes, expected) in [
        (json!({ "exp": now - 59 }), None),
        (json!({ "exp": now - 60 }), Some(IdentityError::TokenExpired)),
        (json!({ "exp": now as f64 - 60.5 }), Some(IdentityError::TokenExpired)),
        (json!({ "exp": 0 }), Some(IdentityError::TokenExpired)),
        (json!({ "exp": -1e300 }), Some(IdentityError::TokenExpired)),
        (json!({ "exp": null }), invalid(Flaw::Claims)),
        (json!({ "exp": (now + 3600).to_string() }), invalid(Flaw::Claims)),
        (json!({ "exp": [now + 3600] }), invalid(Flaw::Claims)),
        (json!({ "nbf": now + 60 }), None),
        (json!({ "nbf": now + 61 }), Some(IdentityError::TokenNotYetValid)),
        (json!({ "nbf": true }), invalid(Flaw::Claims)),
        (json!({ "iat": now + 61 }), Some(IdentityError::TokenNotYetValid)),
        (json!({ "iat": "yesterday" }), invalid(Flaw::Claims)),
        (json!({ "iat": null }), None),
        (json!({ "exp": now - 60, "aud": "other" }), Some(IdentityError::TokenExpired)),
    ] {
        assert_eq!(platform.refusal_of(changes.clone()).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn the_audience_is_an_exact_member() {
    let platform = Platform::start().await;
    for audience in [
        json!(null),
        json!("api://claviger/"),
        json!("API://claviger"),
        json!("api://claviger api://other"),
        json!(["https://graph.microsoft.com"]),
        json!([]),
        json!(""),
    ] {
        let refusal = platform.refusal_of(json!({ "aud": audience })).await;
        assert_eq!(refusal, Some(IdentityError::AudienceMismatch), "{audience}");
    }
    for audience in [json!({ "api://claviger": true }), json!([AUDIENCE, 7]), json!(7)] {
        assert_eq!(platform.refusal_of(json!({ "aud": audience })).await, invalid(Flaw::Claims), "{audience}");
    }
}

#[tokio::test]
async fn a_tenant_comes_from_the_allow_list_alone() {
    let allow = BTreeMap::from([("72f9".to_owned(), tenant("acme")), ("91a0".to_owned(), tenant("globex"))]);
    let platform = Platform::with(|family| {
        family.realm_claim = Some("tid".to_owned());
        only_issuer(family).tenant = TenantRule::Claim { name: "tid".to_owned(), allow };
    })
    .await;
    let mut subjects = BTreeSet::new();
    for (tid, name) in [("72f9", "acme"), ("91a0", "globex")] {
        let caller = platform.ask(&platform.rsa.token(&platform.claims_but(json!({ "tid": tid })))).await.unwrap();
        assert_eq!(caller.tenant, tenant(name));
        subjects.insert(caller.subject);
    }
    assert_eq!(subjects.len(), 2, "the same subject claim in two realms is two subjects");
    for tid in [json!("acme"), json!("72F9"), json!("../72f9"), json!(""), json!(["72f9"]), json!(null)] {
        assert_eq!(platform.refusal_of(json!({ "tid": tid })).await, Some(IdentityError::TenantUnknown), "{tid}");
    }
}

#[tokio::test]
async fn what_the_issuer_signs_for_other_uses_is_no_access_token() {
    let platform = Platform::start().await;
    for (changes, name) in [
        (json!({ "nonce": "n-0S6_WzA2Mj" }), "ID token"),
        (json!({ "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" }), "ID token"),
        (json!({ "typ": "ID" }), "Keycloak ID token"),
        (json!({ "typ": "Refresh" }), "Keycloak refresh token"),
        (json!({ "token_use": "id" }), "Cognito ID token"),
        (json!({ "events": {} }), "logout token"),
    ] {
        assert_eq!(platform.refusal_of(changes).await, invalid(Flaw::Kind), "{name}");
    }
    assert_eq!(platform.refusal_of(json!({ "typ": "Bearer", "token_use": "access" })).await, None);
    let unmarked = platform.claims_but(json!({ "scope": null }));
    assert!(platform.ask(&platform.rsa.token(&unmarked)).await.is_ok(), "its `typ` says what it is");
    let header = json!({ "alg": "RS256", "kid": "rsa-1", "typ": "JWT" }).to_string();
    let of = |claims: &Value| platform.rsa.compact(&header, &claims.to_string());
    assert_eq!(platform.refusal(&of(&unmarked)).await, invalid(Flaw::Kind), "it may be an ID token");
    for mark in ["scope", "scp", "idtyp"] {
        let claims = platform.claims_but(json!({ "scope": null, mark: "x" }));
        assert!(platform.ask(&of(&claims)).await.is_ok(), "{mark}");
    }
    let payload = platform.claims().to_string();
    for (typ, expected) in [
        ("at+jwt", None),
        ("application/at+jwt", None),
        ("AT+JWT", None),
        ("JWT", None),
        ("secevent+jwt", invalid(Flaw::Kind)),
        ("logout+jwt", invalid(Flaw::Kind)),
        ("dpop+jwt", invalid(Flaw::Kind)),
        ("client-authentication+jwt", invalid(Flaw::Kind)),
        ("", invalid(Flaw::Kind)),
    ] {
        let header = json!({ "alg": "RS256", "kid": "rsa-1", "typ": typ }).to_string();
        assert_eq!(platform.refusal(&platform.rsa.compact(&header, &payload)).await, expected, "{typ}");
    }
    let untyped = platform.rsa.compact(r#"{"alg":"RS256","kid":"rsa-1"}"#, &payload);
    assert!(platform.ask(&untyped).await.is_ok());
    let strict = Platform::with(|family| only_issuer(family).token_types = vec!["at+jwt".to_owned()]).await;
    let untyped = strict.rsa.compact(r#"{"alg":"RS256","kid":"rsa-1"}"#, &strict.claims().to_string());
    assert_eq!(strict.refusal(&untyped).await, invalid(Flaw::Kind));
    assert!(strict.ask(&strict.token()).await.is_ok());
}

#[tokio::test]
async fn a_subject_needs_all_of_its_claims() {
    let platform = Platform::with(|family| {
        family.subject_claims = vec!["oid".to_owned(), "sub".to_owned()];
        family.realm_claim = Some("tid".to_owned());
    })
    .await;
    let whole = json!({ "oid": "o-1", "tid": "72f9" });
    assert_eq!(platform.refusal_of(whole.clone()).await, None);
    for (claim, value) in
        [("oid", json!(null)), ("sub", json!("")), ("sub", json!(7)), ("tid", json!(null)), ("oid", json!(["o-1"]))]
    {
        let mut changes = whole.clone();
        changes[claim] = value;
        assert_eq!(platform.refusal_of(changes.clone()).await, Some(IdentityError::SubjectMissing), "{changes}");
    }
}

#[tokio::test]
async fn an_agent_is_named_by_the_first_claim_that_does() {
    let platform = Platform::start().await;
    let agent = async |changes: Value| {
        let caller = platform.ask(&platform.p256.token(&platform.claims_but(changes))).await?;
        Ok(caller.agent.as_ref().map(ToString::to_string))
    };
    assert_eq!(agent(json!({})).await, Ok(None));
    assert_eq!(agent(json!({ "appid": "b", "act": { "sub": "c" } })).await, Ok(Some("b".to_owned())));
    assert_eq!(agent(json!({ "act": { "sub": "c" } })).await, Ok(Some("c".to_owned())));
    for name in [json!(""), json!(7), json!("two words"), json!("x".repeat(257))] {
        let refused: Result<Option<String>, IdentityError> = agent(json!({ "azp": name })).await;
        assert_eq!(
            refused,
            Err(IdentityError::TokenInvalid(Flaw::Claims)),
            "read as absent it would be the user's own"
        );
    }
}

#[tokio::test]
async fn roles_follow_the_rules_and_a_rule_for_users_ends_the_default() {
    let rule = |role, claim: &str, value: &str| RoleRule {
        role,
        claim: claim.to_owned(),
        values: BTreeSet::from([value.to_owned()]),
    };
    let platform =
        Platform::with(|family| only_issuer(family).roles = vec![rule(Role::Operator, "groups", "ops")]).await;
    let roles = async |platform: &Platform, changes: Value| {
        let token = platform.rsa.token(&platform.claims_but(changes));
        Vec::from_iter(platform.ask(&token).await.unwrap().roles.iter().copied())
    };
    assert_eq!(roles(&platform, json!({ "groups": ["dev", "ops"] })).await, [Role::User, Role::Operator]);
    assert_eq!(roles(&platform, json!({ "groups": ["dev", "Ops", "ops2"] })).await, [Role::User]);
    assert_eq!(roles(&platform, json!({})).await, [Role::User]);
    let only_some = rule(Role::User, "realm.access", "claviger");
    let platform = Platform::with(|family| only_issuer(family).roles = vec![only_some]).await;
    assert_eq!(roles(&platform, json!({})).await, []);
    assert_eq!(roles(&platform, json!({ "realm": { "access": "claviger" } })).await, [Role::User]);
}

#[tokio::test]
async fn the_same_subject_claim_in_two_families_is_two_subjects() {
    let key = SigningKey::p256("k");
    let (first, second) = (TestIssuer::start(&[&key]).await, TestIssuer::start(&[&key]).await);
    let clock = ManualClock::new();
    let (both, _) = authenticator(vec![family("first", first.url()), family("second", second.url())], &clock);
    let both = both.unwrap();
    let mut subjects = BTreeSet::new();
    for issuer in [&first, &second] {
        let now = ManualClock::START.as_secs();
        let claims = json!({ "iss": issuer.url(), "sub": "alice", "aud": AUDIENCE, "exp": now + 60 });
        let caller = both.authenticate(&PresentedToken::new(key.token(&claims)), TokenSource::Metadata).await.unwrap();
        subjects.insert(caller.subject);
    }
    assert_eq!(subjects.len(), 2);
}

#[tokio::test]
async fn an_issuer_or_family_configured_twice_is_refused() {
    let clock = ManualClock::new();
    let (a, b) = ("https://a.example", "https://b.example");
    for (families, expected) in [
        (vec![family("x", a), family("y", a)], ConfigError::IssuerTwice { place: 0, issuer: a.to_owned() }),
        (vec![family("x", a), family("x", b)], ConfigError::FamilyTwice("x".parse().unwrap())),
    ] {
        assert_eq!(authenticator(families, &clock).0.err(), Some(expected));
    }
}

#[test]
fn every_refusal_has_its_own_reason() {
    let retry_after = SECOND;
    let reasons = [
        (IdentityError::TokenInvalid(Flaw::Shape), Reason::TokenInvalid),
        (IdentityError::TokenExpired, Reason::TokenExpired),
        (IdentityError::TokenNotYetValid, Reason::TokenNotYetValid),
        (IdentityError::AudienceMismatch, Reason::AudienceMismatch),
        (IdentityError::IssuerUnknown, Reason::IssuerUnknown),
        (IdentityError::TenantUnknown, Reason::TenantUnknown),
        (IdentityError::SubjectMissing, Reason::SubjectMissing),
        (IdentityError::JwksUnavailable { retry_after }, Reason::JwksUnavailable),
        (IdentityError::SignInNotConfigured, Reason::SignInNotConfigured),
    ];
    for (error, reason) in reasons {
        assert_eq!(error.reason(), reason);
    }
}

/// n of P-256 (SEC 2 §2.4.2).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
