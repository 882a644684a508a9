//! Signing in on our pages: which ID tokens are ours, and that they name the same person as access tokens do.

use std::sync::Arc;

use claviger::{
    domain::{FamilyId, IdToken, Nonce, Scope},
    identity::{ConfigError, Family, Flaw, IdentityError, SignIn, SignedIn, TenantRule},
};
use serde_json::{Value, json};

use crate::{
    clock::ManualClock,
    issuer::{SigningKey, TestIssuer},
    platform::{HOUR, MINUTE, Platform, SECOND, authenticator, family, invalid, tenant},
};

const CLIENT: &str = "claviger-pages";
const NONCE: &str = "n-0S6_WzA2Mj";

/// A platform whose people can sign in, and the ID tokens that it gives our pages.
struct Pages(Platform);

impl Pages {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Family)) -> Self {
        Self(
            Platform::with(|family| {
                family.sign_in = Some(sign_in(family.issuers[0].issuer.as_str()));
                change(family);
            })
            .await,
        )
    }

    fn claims_but(&self, changes: Value) -> Value {
        let Value::Object(changes) = changes else { unreachable!("changes are an object") };
        let mut all = json!({ "aud": CLIENT, "nonce": NONCE, "scope": null });
        all.as_object_mut().unwrap().extend(changes);
        self.0.claims_but(all)
    }

    fn id_token(&self, changes: Value) -> String {
        id_token(self.0.rsa, &self.claims_but(changes))
    }

    async fn verify(&self, token: String) -> Result<SignedIn, IdentityError> {
        let nonce = Nonce::new(NONCE.to_owned());
        self.0.authenticator.verify_id_token(&"platform".parse().unwrap(), &IdToken::new(token), &nonce).await
    }

    async fn refusal_of(&self, changes: Value) -> Option<IdentityError> {
        self.verify(self.id_token(changes)).await.err()
    }
}

fn id_token(key: &SigningKey, claims: &Value) -> String {
    key.compact(&json!({ "alg": key.algorithm(), "kid": key.kid }).to_string(), &claims.to_string())
}

fn sign_in(issuer: &str) -> SignIn {
    let text = format!("issuer = \"{issuer}\"\nclient_id = \"{CLIENT}\"\nsubject_is_public = true");
    toml::from_str(&text).unwrap()
}

#[tokio::test]
async fn whoever_signs_in_is_the_subject_of_their_access_tokens() {
    let pages = Pages::start().await;
    let caller = pages.0.ask(&pages.0.token()).await.unwrap();
    let signed_in = pages.verify(pages.id_token(json!({}))).await.unwrap();
    assert_eq!(signed_in.tenant, tenant("acme"));
    assert_eq!((signed_in.subject, &signed_in.family), (caller.subject, &caller.family));
    assert_eq!((signed_in.external_id.as_str(), signed_in.issued_at), ("alice", ManualClock::START));
    let other = pages.verify(pages.id_token(json!({ "sub": "bob" }))).await.unwrap();
    assert_ne!(other.subject, signed_in.subject);
}

#[tokio::test]
async fn realm_and_subject_claims_are_those_of_the_family() {
    let pages = Pages::with(|family| {
        family.subject_claims = vec!["oid".to_owned()];
        family.realm_claim = Some("tid".to_owned());
        let allow = [("72f9".to_owned(), tenant("globex"))].into();
        family.issuers[0].tenant = TenantRule::Claim { name: "tid".to_owned(), allow };
    })
    .await;
    let whole = json!({ "oid": "o-1", "tid": "72f9", "sub": "pairwise to the pages" });
    let caller = pages.0.rsa.token(&pages.0.claims_but(json!({ "oid": "o-1", "tid": "72f9", "sub": "to the api" })));
    let caller = pages.0.ask(&caller).await.unwrap();
    let signed_in = pages.verify(pages.id_token(whole.clone())).await.unwrap();
    assert_eq!((signed_in.subject, signed_in.tenant), (caller.subject, caller.tenant.clone()));
    for (claim, expected) in [("oid", IdentityError::SubjectMissing), ("tid", IdentityError::TenantUnknown)] {
        let mut changes = whole.clone();
        changes[claim] = json!(null);
        assert_eq!(pages.refusal_of(changes).await, Some(expected));
    }
}

#[tokio::test]
async fn an_id_token_is_for_our_client_alone() {
    let pages = Pages::start().await;
    for audience in [json!("other"), json!([CLIENT, "other"]), json!([CLIENT, CLIENT]), json!([]), json!(null)] {
        let refusal = pages.refusal_of(json!({ "aud": audience })).await;
        assert_eq!(refusal, Some(IdentityError::AudienceMismatch), "{audience}");
    }
    assert_eq!(pages.refusal_of(json!({ "aud": [CLIENT], "azp": CLIENT })).await, None);
    for party in [json!("other"), json!(7), json!([CLIENT])] {
        assert_eq!(pages.refusal_of(json!({ "azp": party })).await, invalid(Flaw::NotIdToken), "{party}");
    }
}

#[tokio::test]
async fn an_id_token_of_another_sign_in_is_refused() {
    let pages = Pages::start().await;
    for nonce in [json!(null), json!(""), json!("n-0S6_WzA2Mk"), json!(format!("{NONCE}x")), json!([NONCE]), json!(7)] {
        assert_eq!(pages.refusal_of(json!({ "nonce": nonce })).await, invalid(Flaw::Nonce), "{nonce}");
    }
}

#[tokio::test]
async fn what_the_issuer_signs_for_other_uses_is_no_id_token() {
    let pages = Pages::start().await;
    for (changes, name) in [
        (json!({ "typ": "Bearer" }), "Keycloak access token"),
        (json!({ "token_use": "access" }), "Cognito access token"),
        (json!({ "events": {} }), "logout token"),
        (json!({ "iat": null }), "no time of issue"),
    ] {
        assert_eq!(pages.refusal_of(changes).await, invalid(Flaw::NotIdToken), "{name}");
    }
    assert_eq!(pages.refusal_of(json!({ "typ": "ID", "token_use": "id" })).await, None);
    let payload = pages.claims_but(json!({})).to_string();
    for (typ, expected) in [
        ("JWT", None),
        ("jwt", None),
        ("at+jwt", invalid(Flaw::NotIdToken)),
        ("application/at+jwt", invalid(Flaw::NotIdToken)),
        ("logout+jwt", invalid(Flaw::NotIdToken)),
    ] {
        let header = json!({ "alg": "RS256", "kid": "rsa-1", "typ": typ }).to_string();
        assert_eq!(pages.verify(pages.0.rsa.compact(&header, &payload)).await.err(), expected, "{typ}");
    }
    let access_token = pages.0.token();
    assert_eq!(pages.verify(access_token).await.err(), Some(IdentityError::AudienceMismatch));
    let id_token = pages.id_token(json!({ "aud": crate::platform::AUDIENCE }));
    assert_eq!(pages.0.refusal(&id_token).await, invalid(Flaw::Kind), "and an ID token is no access token");
}

#[tokio::test]
async fn an_id_token_is_signed_in_time_by_the_sign_in_issuer() {
    let pages = Pages::start().await;
    let now = ManualClock::START.as_secs();
    assert_eq!(pages.refusal_of(json!({ "exp": now - 60 })).await, Some(IdentityError::TokenExpired));
    assert_eq!(pages.refusal_of(json!({ "iat": now + 61 })).await, Some(IdentityError::TokenNotYetValid));
    let mallory = SigningKey::rsa("rsa-1");
    let forged = id_token(&mallory, &pages.claims_but(json!({})));
    assert_eq!(pages.verify(forged).await.err(), invalid(Flaw::Signature));
    let (header, payload) = (r#"{"alg":"none"}"#, pages.claims_but(json!({})).to_string());
    assert_eq!(pages.verify(mallory.compact(header, &payload)).await.err(), invalid(Flaw::Algorithm));
    let long = pages.id_token(json!({ "pad": "x".repeat(13_000) }));
    assert_eq!(pages.verify(long).await.err(), invalid(Flaw::TooLong));
    pages.0.issuer.misbehave(crate::issuer::Fault::Status(503));
    pages.0.clock.advance(24 * HOUR);
    let fresh = pages.id_token(json!({ "iat": now + 86_400, "exp": now + 90_000 }));
    assert!(matches!(
        pages.verify(fresh).await,
        Err(IdentityError::JwksUnavailable { retry_after }) if (SECOND..=MINUTE).contains(&retry_after)
    ));
}

#[tokio::test]
async fn only_the_issuer_that_people_were_sent_to_may_say_who_they_are() {
    let key = SigningKey::p256("k");
    let (first, second) = (TestIssuer::start(&[&key]).await, TestIssuer::start(&[&key]).await);
    let mut both = family("both", first.url());
    both.issuers.extend(family("both", second.url()).issuers);
    both.sign_in = Some(sign_in(second.url()));
    let (authenticator, _) = authenticator(vec![both], &ManualClock::new());
    let authenticator = authenticator.unwrap();
    let now = ManualClock::START.as_secs();
    let id: FamilyId = "both".parse().unwrap();
    let ask = async |issuer: &str| {
        let claims = json!({
            "iss": issuer, "sub": "alice", "aud": CLIENT, "iat": now, "exp": now + 60, "nonce": NONCE,
        });
        let token = IdToken::new(id_token(&key, &claims));
        authenticator.verify_id_token(&id, &token, &Nonce::new(NONCE.to_owned())).await.err()
    };
    assert_eq!(ask(second.url()).await, None);
    assert_eq!(ask(first.url()).await, Some(IdentityError::IssuerUnknown));
    assert_eq!((first.discoveries(), first.key_fetches()), (0, 0));
}

#[tokio::test]
async fn a_family_without_sign_in_takes_no_id_token() {
    let platform = Platform::start().await;
    let authenticator = Arc::clone(&platform.authenticator);
    for id in ["platform", "nobody"] {
        let id: FamilyId = id.parse().unwrap();
        assert!(authenticator.sign_in(&id).is_none());
        let (token, nonce) = (IdToken::new(platform.token()), Nonce::new(NONCE.to_owned()));
        let refusal = authenticator.verify_id_token(&id, &token, &nonce).await.err();
        assert_eq!(refusal, Some(IdentityError::SignInNotConfigured));
    }
    let pages = Pages::start().await;
    let found = pages.0.authenticator.sign_in(&"platform".parse().unwrap()).unwrap();
    assert_eq!((found.client_id.as_str(), found.scopes.join(' ').as_str()), (CLIENT, "openid"));
}

#[test]
fn a_sign_in_that_cannot_be_meant_is_refused() {
    let issuer = "https://login.example.com";
    let id: FamilyId = "platform".parse().unwrap();
    let elsewhere = "https://login.example.com/";
    let answer = |change: &dyn Fn(&mut Family, &mut SignIn)| {
        let (mut family, mut sign_in) = (family("platform", issuer), sign_in(issuer));
        change(&mut family, &mut sign_in);
        family.sign_in = Some(sign_in);
        authenticator(vec![family], &ManualClock::new()).0.err()
    };
    assert_eq!(
        answer(&|_, sign_in| sign_in.issuer = elsewhere.parse().unwrap()),
        Some(ConfigError::SignInElsewhere { family: id.clone(), issuer: elsewhere.parse().unwrap() })
    );
    assert_eq!(answer(&|_, sign_in| sign_in.client_id.clear()), Some(ConfigError::SignInWithoutClient(id.clone())));
    assert_eq!(
        answer(&|_, sign_in| sign_in.scopes = "profile".parse::<Scope>().into_iter().collect()),
        Some(ConfigError::SignInWithoutOpenid(id.clone()))
    );
    assert_eq!(answer(&|_, sign_in| sign_in.subject_is_public = false), Some(ConfigError::SubjectMayBePairwise(id)));
    assert_eq!(answer(&|_, _| {}), None);
    let by_object_id = |family: &mut Family, sign_in: &mut SignIn| {
        family.subject_claims = vec!["oid".to_owned()];
        sign_in.subject_is_public = false;
    };
    assert_eq!(answer(&by_object_id), None, "another claim than `sub` needs no statement");
}
