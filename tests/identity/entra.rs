//! Microsoft Entra, played by an issuer of ours: both versions in one family, many directories behind one template.

use std::sync::Arc;

use claviger::{
    domain::{Caller, FamilyId, IdToken, Nonce, PresentedToken, Role},
    identity::{Authenticator, ConfigError, Family, Flaw, IdentityError, SignedIn, TenantRule, TokenSource},
};
use serde_json::{Value, json};

use crate::{
    clock::ManualClock,
    issuer::{SigningKey, TestIssuer},
    platform::{an_rsa_key, authenticator, invalid, tenant},
};

pub(crate) const ACME: &str = "11111111-aaaa-4bbb-8ccc-000000000001";
pub(crate) const GLOBEX: &str = "22222222-aaaa-4bbb-8ccc-000000000002";
/// A directory that nobody here allows.
const STRANGER: &str = "33333333-aaaa-4bbb-8ccc-000000000003";
/// The one directory whose keys are its own.
pub(crate) const CONSUMERS: &str = "44444444-aaaa-4bbb-8ccc-000000000004";
const CLIENT: &str = "55555555-aaaa-4bbb-8ccc-000000000005";
const NONCE: &str = "n-0S6_WzA2Mj";

pub(crate) struct Entra {
    pub(crate) issuer: TestIssuer,
    /// Of every directory but the consumers'.
    shared: &'static SigningKey,
    consumers: SigningKey,
}

pub(crate) struct Rig {
    pub(crate) entra: Entra,
    authenticator: Authenticator,
}

impl Entra {
    async fn start() -> Self {
        let (shared, consumers) = (an_rsa_key(), SigningKey::p256("consumers"));
        let issuer = TestIssuer::start(&[]).await;
        let url = issuer.url();
        let metadata = |issuer: String, keys: String| json!({ "issuer": issuer, "jwks_uri": keys });
        let (v2_keys, v1_keys) = (format!("{url}/common/discovery/v2.0/keys"), format!("{url}/common/discovery/keys"));
        let v2 = metadata(format!("{url}/{{tenantid}}/v2.0"), v2_keys);
        issuer.serve("/common/v2.0/.well-known/openid-configuration", v2);
        let v1 = metadata(format!("{url}/sts/{{tenantid}}/"), v1_keys);
        issuer.serve("/sts/common/.well-known/openid-configuration", v1.clone());
        issuer.serve("/common/.well-known/openid-configuration", v1);
        let of_all = with_issuer(shared, Some(format!("{url}/{{tenantid}}/v2.0")));
        let of_consumers = with_issuer(&consumers, Some(format!("{url}/{CONSUMERS}/v2.0")));
        issuer.serve("/common/discovery/v2.0/keys", json!({ "keys": [of_all, of_consumers] }));
        // The keys of v1 name no issuer.
        issuer.serve("/common/discovery/keys", json!({ "keys": [with_issuer(shared, None)] }));
        Self { issuer, shared, consumers }
    }

    fn v2(&self, directory: &str) -> String {
        format!("{}/{directory}/v2.0", self.issuer.url())
    }

    fn v1(&self, directory: &str) -> String {
        format!("{}/sts/{directory}/", self.issuer.url())
    }

    fn family(&self) -> Family {
        let allow = format!(r#"{{ "{ACME}" = "acme", "{GLOBEX}" = "globex", "{CONSUMERS}" = "home" }}"#);
        let text = format!(
            r#"
            id = "entra"
            subject_claims = ["oid"]
            realm_claim = "tid"
            [[issuers]]
            issuer = "{v2}"
            audiences = ["{CLIENT}"]
            tenant = {{ claim = {{ name = "tid", allow = {allow} }} }}
            roles = [{{ role = "operator", claim = "roles", values = ["Broker.Operate"] }}]
            [[issuers]]
            issuer = "{v1}"
            audiences = ["api://claviger"]
            tenant = {{ claim = {{ name = "tid", allow = {allow} }} }}
            [sign_in]
            issuer = "{v2}"
            client_id = "{CLIENT}"
            "#,
            v2 = self.v2("{tenantid}"),
            v1 = self.v1("{tenantid}"),
        );
        toml::from_str(&text).unwrap()
    }

    pub(crate) fn v2_claims(&self, directory: &str) -> Value {
        let now = ManualClock::START.as_secs();
        json!({
            "aud": CLIENT, "iss": self.v2(directory), "iat": now, "nbf": now, "exp": now + 4500, "ver": "2.0",
            "azp": "agent-v2", "azpacr": "1", "oid": "o-1", "tid": directory, "sub": "pairwise to the v2 application",
            "scp": "Connections.Read Connections.Write", "roles": ["Broker.Operate"], "preferred_username": "a@x.test",
        })
    }

    pub(crate) fn v1_claims(&self, directory: &str) -> Value {
        let now = ManualClock::START.as_secs();
        json!({
            "aud": "api://claviger", "iss": self.v1(directory), "iat": now, "nbf": now, "exp": now + 4500, "ver": "1.0",
            "appid": "agent-v1", "appidacr": "1", "oid": "o-1", "tid": directory, "sub": "pairwise to the v1 application",
            "scp": "user_impersonation", "unique_name": "a@x.test",
        })
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Family)) -> Self {
        let entra = Entra::start().await;
        let mut family = entra.family();
        change(&mut family);
        let authenticator = authenticator(vec![family], &ManualClock::new()).0.unwrap();
        Self { entra, authenticator }
    }

    async fn ask(&self, key: &SigningKey, claims: &Value) -> Result<Arc<Caller>, IdentityError> {
        self.present(token(key, claims)).await
    }

    pub(crate) async fn refusal(&self, token: String) -> Option<IdentityError> {
        self.present(token).await.err()
    }

    async fn present(&self, token: String) -> Result<Arc<Caller>, IdentityError> {
        self.authenticator.authenticate(&PresentedToken::new(token), TokenSource::Metadata).await
    }

    /// What is answered to the claims of a good v2 token with these changes.
    async fn refusal_of(&self, changes: Value) -> Option<IdentityError> {
        self.ask(self.entra.shared, &but(self.entra.v2_claims(ACME), changes)).await.err()
    }

    async fn sign_in(&self, claims: &Value) -> Result<SignedIn, IdentityError> {
        let token = IdToken::new(token(self.entra.shared, claims));
        self.authenticator.verify_id_token(&family_id(), &token, &Nonce::new(NONCE.to_owned())).await
    }

    /// What an application gets that asks for an ID token.
    fn id_claims(&self, directory: &str) -> Value {
        but(self.entra.v2_claims(directory), json!({ "azp": null, "azpacr": null, "scp": null, "nonce": NONCE }))
    }
}

/// As Entra does: v1 and v2, access and ID tokens alike are of `typ` `JWT`.
fn token(key: &SigningKey, claims: &Value) -> String {
    key.compact(&json!({ "typ": "JWT", "alg": key.algorithm(), "kid": key.kid }).to_string(), &claims.to_string())
}

/// A key as Entra publishes it: no `alg`, but the issuer that it is for.
fn with_issuer(key: &SigningKey, issuer: Option<String>) -> Value {
    let mut jwk = key.jwk();
    let members = jwk.as_object_mut().unwrap();
    members.remove("alg");
    members.insert("x5t".to_owned(), json!(key.kid));
    members.insert("x5c".to_owned(), json!(["MIIC"]));
    members.extend(issuer.map(|issuer| ("issuer".to_owned(), json!(issuer))));
    jwk
}

pub(crate) fn but(mut claims: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { unreachable!("changes are an object") };
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

fn family_id() -> FamilyId {
    "entra".parse().unwrap()
}

#[tokio::test]
async fn one_person_is_one_subject_in_both_versions() {
    let rig = Rig::start().await;
    let v2 = rig.ask(rig.entra.shared, &rig.entra.v2_claims(ACME)).await.unwrap();
    let v1 = rig.ask(rig.entra.shared, &rig.entra.v1_claims(ACME)).await.unwrap();
    assert_eq!((v2.subject, &v2.tenant), (v1.subject, &v1.tenant));
    assert_eq!((&v2.tenant, v2.external_id.as_str()), (&tenant("acme"), "o-1"));
    let agent = |caller: &Caller| caller.agent.as_ref().map(ToString::to_string);
    assert_eq!((agent(&v1), agent(&v2)), (Some("agent-v1".to_owned()), Some("agent-v2".to_owned())));
    assert_eq!(v2.scopes.join(' '), "Connections.Read Connections.Write");
    assert_eq!(v1.scopes.join(' '), "user_impersonation");
    assert!(v2.has(Role::Operator) && !v1.has(Role::Operator), "the rule is for v2's issuer");
}

#[tokio::test]
async fn the_same_object_id_in_two_directories_is_two_subjects() {
    let rig = Rig::start().await;
    let acme = rig.ask(rig.entra.shared, &rig.entra.v2_claims(ACME)).await.unwrap();
    let globex = rig.ask(rig.entra.shared, &rig.entra.v2_claims(GLOBEX)).await.unwrap();
    assert_ne!(acme.subject, globex.subject);
    assert_eq!(globex.tenant, tenant("globex"));
}

#[tokio::test]
async fn a_directory_that_is_not_allowed_has_no_tenant() {
    let rig = Rig::start().await;
    for claims in [rig.entra.v2_claims(STRANGER), rig.entra.v1_claims(STRANGER)] {
        let refusal = rig.ask(rig.entra.shared, &claims).await.err();
        assert_eq!(refusal, Some(IdentityError::TenantUnknown));
    }
}

#[tokio::test]
async fn the_issuer_and_the_directory_say_the_same() {
    let rig = Rig::start().await;
    for tid in [json!(GLOBEX), json!(null), json!(""), json!("../common"), json!("common"), json!([ACME]), json!(7)] {
        assert_eq!(rig.refusal_of(json!({ "tid": tid })).await, Some(IdentityError::IssuerUnknown), "{tid}");
    }
    for directory in ["common", "organizations", "../common", "{tenantid}", "", &ACME.to_uppercase()] {
        let claims = json!({ "iss": rig.entra.v2(directory), "tid": directory });
        assert_eq!(rig.refusal_of(claims).await, Some(IdentityError::IssuerUnknown), "{directory}");
    }
    let slashed = format!("{}/", rig.entra.v2(ACME));
    assert_eq!(rig.refusal_of(json!({ "iss": slashed })).await, Some(IdentityError::IssuerUnknown));
}

#[tokio::test]
async fn a_key_signs_for_the_directories_that_it_is_published_for() {
    let rig = Rig::start().await;
    let Entra { shared, consumers, .. } = &rig.entra;
    let (acme, home) = (rig.entra.v2_claims(ACME), rig.entra.v2_claims(CONSUMERS));
    assert!(rig.ask(consumers, &home).await.is_ok());
    assert_eq!(rig.ask(consumers, &acme).await.err(), invalid(Flaw::KeyOfOtherIssuer));
    assert!(rig.ask(shared, &acme).await.is_ok());
    let v1 = rig.ask(consumers, &rig.entra.v1_claims(ACME)).await.err();
    assert_eq!(v1, invalid(Flaw::KeyUnknown), "v1 publishes no such key");
}

#[tokio::test]
async fn a_key_that_is_taken_from_a_directory_takes_its_tokens_with_it() {
    let clock = ManualClock::new();
    let entra = Entra::start().await;
    let (authenticator, _) = authenticator(vec![entra.family()], &clock);
    let authenticator = authenticator.unwrap();
    let token = PresentedToken::new(token(entra.shared, &entra.v2_claims(ACME)));
    let ask = async || authenticator.authenticate(&token, TokenSource::Metadata).await.err();
    assert_eq!(ask().await, None);
    let narrowed = with_issuer(entra.shared, Some(entra.v2(GLOBEX)));
    entra.issuer.serve("/common/discovery/v2.0/keys", json!({ "keys": [narrowed] }));
    assert_eq!(ask().await, None, "not known yet");
    clock.advance(crate::platform::HOUR);
    authenticator.refresh_due().await;
    assert_eq!(ask().await, invalid(Flaw::KeyOfOtherIssuer));
}

#[tokio::test]
async fn a_v1_token_needs_v1_metadata() {
    let only_v2 = Rig::with(|family| drop(family.issuers.pop())).await;
    let claims = only_v2.entra.v1_claims(ACME);
    let refusal = only_v2.ask(only_v2.entra.shared, &claims).await.err();
    assert_eq!(refusal, Some(IdentityError::IssuerUnknown));

    let entra = Entra::start().await;
    let url = entra.issuer.url().to_owned();
    let answer = async |keys: String| {
        let mut family = entra.family();
        family.issuers[1].keys = serde_json::from_str(&keys).unwrap();
        let authenticator = authenticator(vec![family], &ManualClock::new()).0.unwrap();
        let token = PresentedToken::new(token(entra.shared, &entra.v1_claims(ACME)));
        authenticator.authenticate(&token, TokenSource::Metadata).await.err()
    };
    let v1 = format!(r#"{{ "metadata": "{url}/common/.well-known/openid-configuration" }}"#);
    assert_eq!(answer(v1).await, None);
    let v2 = format!(r#"{{ "metadata": "{url}/common/v2.0/.well-known/openid-configuration" }}"#);
    assert!(matches!(answer(v2).await, Some(IdentityError::JwksUnavailable { .. })), "another issuer's document");
    let v2_keys = format!(r#"{{ "jwks": "{url}/common/discovery/v2.0/keys" }}"#);
    assert_eq!(answer(v2_keys).await, invalid(Flaw::KeyOfOtherIssuer));
}

#[tokio::test]
async fn an_id_token_for_the_same_application_is_no_access_token() {
    let rig = Rig::start().await;
    let id_token = but(rig.id_claims(ACME), json!({ "nonce": null }));
    assert_eq!(id_token["aud"], json!(CLIENT), "the audience does not tell them apart");
    assert_eq!(rig.ask(rig.entra.shared, &id_token).await.err(), invalid(Flaw::Kind));
    assert_eq!(rig.ask(rig.entra.shared, &rig.id_claims(ACME)).await.err(), invalid(Flaw::Kind));
}

#[tokio::test]
async fn an_application_without_a_person_says_so() {
    let rig = Rig::start().await;
    let app_only = json!({ "scp": null, "oid": "service principal", "roles": ["Broker.Operate"] });
    assert_eq!(rig.refusal_of(app_only.clone()).await, invalid(Flaw::Kind), "it looks like an ID token");
    let claims = but(but(rig.entra.v2_claims(ACME), app_only), json!({ "idtyp": "app" }));
    let caller = rig.ask(rig.entra.shared, &claims).await.unwrap();
    assert_eq!((caller.external_id.as_str(), caller.scopes.is_empty()), ("service principal", true));
}

#[tokio::test]
async fn whoever_signs_in_at_a_directory_is_the_subject_of_its_access_tokens() {
    let rig = Rig::start().await;
    let caller = rig.ask(rig.entra.shared, &rig.entra.v1_claims(ACME)).await.unwrap();
    let signed_in = rig.sign_in(&rig.id_claims(ACME)).await.unwrap();
    assert_eq!((signed_in.subject, &signed_in.tenant), (caller.subject, &caller.tenant));
    let elsewhere = rig.sign_in(&rig.id_claims(GLOBEX)).await.unwrap();
    assert_eq!(elsewhere.tenant, tenant("globex"));
    for (claims, expected) in [
        (rig.id_claims(STRANGER), IdentityError::TenantUnknown),
        (but(rig.id_claims(ACME), json!({ "tid": GLOBEX })), IdentityError::IssuerUnknown),
        (rig.entra.v2_claims(ACME), IdentityError::TokenInvalid(Flaw::NotIdToken)),
        (but(rig.entra.v2_claims(ACME), json!({ "azp": CLIENT })), IdentityError::TokenInvalid(Flaw::Nonce)),
        (but(rig.id_claims(ACME), json!({ "iss": rig.entra.v1(ACME) })), IdentityError::IssuerUnknown),
    ] {
        assert_eq!(rig.sign_in(&claims).await.err(), Some(expected));
    }
}

#[tokio::test]
async fn people_of_a_tenant_are_sent_to_their_own_directory() {
    let rig = Rig::start().await;
    let issuer_of = |rig: &Rig, name: &str| rig.authenticator.sign_in_issuer(&family_id(), &tenant(name));
    let of_acme = issuer_of(&rig, "acme").unwrap();
    assert_eq!(of_acme.as_str(), rig.entra.v2(ACME));
    assert_eq!(issuer_of(&rig, "nobody"), None);
    let merged = Rig::with(|family| {
        let TenantRule::Claim { allow, .. } = &mut family.issuers[0].tenant else { unreachable!("it is a claim") };
        allow.insert(GLOBEX.to_owned(), tenant("acme"));
    })
    .await;
    assert_eq!(issuer_of(&merged, "acme"), None, "which of the two directories is not known");
}

#[tokio::test]
async fn a_sign_in_at_one_directory_takes_nobody_of_another() {
    let entra = Entra::start().await;
    let mut family = entra.family();
    family.sign_in.as_mut().unwrap().issuer = entra.v2(ACME).parse().unwrap();
    let authenticator = authenticator(vec![family], &ManualClock::new()).0.unwrap();
    for name in ["acme", "globex"] {
        let issuer = authenticator.sign_in_issuer(&family_id(), &tenant(name)).unwrap();
        assert_eq!(issuer.as_str(), entra.v2(ACME));
    }
    let rig = Rig { entra, authenticator };
    assert!(rig.sign_in(&rig.id_claims(ACME)).await.is_ok());
    assert_eq!(rig.sign_in(&rig.id_claims(GLOBEX)).await.err(), Some(IdentityError::IssuerUnknown));
}

#[tokio::test]
async fn a_role_that_depends_on_a_claim_left_out_is_not_granted() {
    let rule = |role: &str, claim: &str| {
        serde_json::from_value(json!({ "role": role, "claim": claim, "values": ["g-1"] })).unwrap()
    };
    let left_out = [
        json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": { "endpoint": "https://x.test" } } }),
        json!({ "hasgroups": true }),
    ];
    let operators = Rig::with(|family| family.issuers[0].roles = vec![rule("operator", "groups")]).await;
    let users = Rig::with(|family| family.issuers[0].roles = vec![rule("user", "groups")]).await;
    let roles = async |rig: &Rig, changes: &Value| {
        let claims = but(rig.entra.v2_claims(ACME), changes.clone());
        Ok(Vec::from_iter(rig.ask(rig.entra.shared, &claims).await?.roles.iter().copied()))
    };
    assert_eq!(roles(&operators, &json!({ "groups": ["g-1"] })).await, Ok(vec![Role::User, Role::Operator]));
    assert_eq!(roles(&users, &json!({ "groups": ["g-2"] })).await, Ok(vec![]));
    for changes in &left_out {
        assert_eq!(roles(&operators, changes).await, Ok(vec![Role::User]));
        let refused: Result<Vec<Role>, IdentityError> = roles(&users, changes).await;
        assert_eq!(refused, Err(IdentityError::TokenInvalid(Flaw::ClaimLeftOut)), "they would have no role at all");
    }
    assert_eq!(roles(&users, &json!({ "hasgroups": false })).await, Ok(vec![]));
}

#[test]
fn a_template_trusts_no_directory_that_is_not_named() {
    let template = "https://login.example/{tenantid}/v2.0";
    let problems = |realm: &str, tenant: &str| {
        let text = format!(
            "id = \"entra\"\nsubject_claims = [\"oid\"]\n{realm}\n[[issuers]]\nissuer = \"{template}\"\n\
             audiences = [\"a\"]\ntenant = {tenant}"
        );
        toml::from_str::<Family>(&text).unwrap().problems()
    };
    let good = format!(r#"{{ claim = {{ name = "tid", allow = {{ "{ACME}" = "acme" }} }} }}"#);
    let (issuer, place, realm) = (template.to_owned(), 0, "realm_claim = \"tid\"");
    assert_eq!(problems(realm, &good), []);
    for other in ["", "realm_claim = \"sub\""] {
        assert_eq!(problems(other, &good), [ConfigError::TemplateWithoutRealm { issuer: issuer.clone() }]);
    }
    for other in [r#"{ fixed = "acme" }"#, &good.replace("\"tid\"", "\"groups\"")] {
        assert_eq!(problems(realm, other), [ConfigError::TemplateForAll { place, issuer: issuer.clone() }]);
    }
    for value in ["*", "acme.onmicrosoft.com", &ACME.to_uppercase()] {
        let expected = ConfigError::NotDirectory { place, value: value.to_owned() };
        assert_eq!(problems(realm, &good.replace(ACME, value)), [expected]);
    }
}

#[test]
fn an_issuer_that_a_template_covers_is_configured_twice() {
    let family = |id: &str, issuer: &str| -> Family {
        let text = format!(
            "id = \"{id}\"\nsubject_claims = [\"oid\"]\nrealm_claim = \"tid\"\n[[issuers]]\nissuer = \"{issuer}\"\n\
             audiences = [\"a\"]\ntenant = {{ claim = {{ name = \"tid\", allow = {{ \"{ACME}\" = \"acme\" }} }} }}"
        );
        toml::from_str(&text).unwrap()
    };
    let (template, instance) = ("https://login.example/{tenantid}/v2.0", format!("https://login.example/{ACME}/v2.0"));
    for (first, second) in [(template, instance.as_str()), (&instance, template), (template, template)] {
        let expected = ConfigError::IssuerTwice { place: 0, issuer: second.to_owned() };
        let found = claviger::identity::problems(&[family("one", first), family("two", second)]);
        assert_eq!(found, [(1, expected)]);
    }
}
