//! An authenticator, and the issuer that it trusts.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use claviger::{
    domain::{Caller, PresentedToken, SubjectId, TenantId, canonical},
    identity::{Authenticator, ConfigError, Family, Flaw, IdentityError, Issuer, TokenSource},
    outbound::{Outbound, Policy},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    clock::ManualClock,
    issuer::{SigningKey, TestIssuer},
};

pub(crate) const AUDIENCE: &str = "api://claviger";
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// One issuer with an RSA and a P-256 key, one family that trusts it, and an authenticator.
pub(crate) struct Platform {
    pub(crate) issuer: TestIssuer,
    pub(crate) rsa: &'static SigningKey,
    pub(crate) p256: SigningKey,
    pub(crate) clock: ManualClock,
    pub(crate) authenticator: Arc<Authenticator>,
    /// How often a subject id was made: once for each token that went through every check.
    pub(crate) judged: Arc<AtomicUsize>,
}

impl Platform {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A platform whose family is changed first.
    pub(crate) async fn with(change: impl FnOnce(&mut Family)) -> Self {
        let (rsa, p256) = (an_rsa_key(), SigningKey::p256("p256-1"));
        let issuer = TestIssuer::start(&[rsa, &p256]).await;
        let mut family = family("platform", issuer.url());
        change(&mut family);
        let clock = ManualClock::new();
        let (authenticator, judged) = authenticator(vec![family], &clock);
        Self { issuer, rsa, p256, clock, authenticator: Arc::new(authenticator.unwrap()), judged }
    }

    pub(crate) fn claims(&self) -> Value {
        let now = ManualClock::START.as_secs();
        let (iss, exp) = (self.issuer.url(), now + 3600);
        json!({ "iss": iss, "sub": "alice", "aud": AUDIENCE, "iat": now, "exp": exp, "scope": "broker" })
    }

    /// The usual claims with some replaced, or left out where `null`.
    pub(crate) fn claims_but(&self, changes: Value) -> Value {
        let mut claims = self.claims();
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

    pub(crate) fn token(&self) -> String {
        self.rsa.token(&self.claims())
    }

    pub(crate) async fn ask(&self, token: &str) -> Result<Arc<Caller>, IdentityError> {
        self.authenticator.authenticate(&PresentedToken::new(token.to_owned()), TokenSource::Metadata).await
    }

    pub(crate) async fn refusal(&self, token: &str) -> Option<IdentityError> {
        self.ask(token).await.err()
    }

    pub(crate) async fn refusal_of(&self, changes: Value) -> Option<IdentityError> {
        self.refusal(&self.p256.token(&self.claims_but(changes))).await
    }

    pub(crate) fn judged(&self) -> usize {
        self.judged.load(Ordering::SeqCst)
    }
}

/// Made once, because making one takes long. Its `kid` is `rsa-1`.
pub(crate) fn an_rsa_key() -> &'static SigningKey {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::rsa("rsa-1"));
    &KEY
}

pub(crate) fn family(id: &str, issuer: &str) -> Family {
    let text = format!(
        "id = \"{id}\"\n[[issuers]]\nissuer = \"{issuer}\"\naudiences = [\"{AUDIENCE}\"]\ntenant = {{ fixed = \"acme\" }}"
    );
    toml::from_str(&text).unwrap()
}

pub(crate) fn authenticator(
    families: Vec<Family>,
    clock: &ManualClock,
) -> (Result<Authenticator, ConfigError>, Arc<AtomicUsize>) {
    let judged = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&judged);
    let subject_of = move |family: &claviger::domain::FamilyId, realm: &str, names: &[&str]| {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut parts = vec![family.as_str().as_bytes(), realm.as_bytes()];
        parts.extend(names.iter().map(|name| name.as_bytes()));
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &canonical(&parts)).as_ref());
        SubjectId::from_bytes(id)
    };
    let outbound = Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap();
    let key = Zeroizing::new([7; 32]);
    (Authenticator::new(families, &outbound, Arc::new(clock.clone()), Box::new(subject_of), &key), judged)
}

pub(crate) fn invalid(flaw: Flaw) -> Option<IdentityError> {
    Some(IdentityError::TokenInvalid(flaw))
}

pub(crate) fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

pub(crate) fn only_issuer(family: &mut Family) -> &mut Issuer {
    &mut family.issuers[0]
}
