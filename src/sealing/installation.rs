//! The keys that never rotate: derived from one random secret that is kept wrapped under the root key, so that rotating
//! the root changes no subject id, no look-up key, no resume token and no audit chain.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use super::{AssociatedData, Key, KeyedHash, Random, RandomUnavailable, Unsealable, key::exact};
use crate::domain::{AuthorizationCode, BrowserSecret, FamilyId, FlowId, RefreshToken, Sealed, SubjectId};

/// The one secret of an installation. Its bytes leave only sealed.
pub struct InstallationSecret(Zeroizing<[u8; 32]>);

/// Keyed hashes by purpose, each with its own key.
#[derive(Clone)]
pub struct InstallationKeys {
    identity: KeyedHash,
    lookup: KeyedHash,
    fingerprint: KeyedHash,
    audit: KeyedHash,
    resume: KeyedHash,
    browser: KeyedHash,
    erasures: KeyedHash,
}

/// What is made of a cookie of our pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrowserPurpose {
    /// Tells that a browser holds the session.
    Session,
    /// Tells that a browser may bring an attempt's answer.
    Attempt,
    /// Stands in the session's forms.
    FormToken,
    /// `state`, nonce and PKCE verifier of a sign-in: the cookie is all that is kept of it.
    SignInState,
    SignInNonce,
    SignInVerifier,
}

impl BrowserPurpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Session => b"session",
            Self::Attempt => b"attempt",
            Self::FormToken => b"form token",
            Self::SignInState => b"sign-in state",
            Self::SignInNonce => b"sign-in nonce",
            Self::SignInVerifier => b"sign-in verifier",
        }
    }
}

/// The key that links audit records, handed out before it is known.
///
/// A store is given its linker when it is opened, but the key is wrapped inside that store. `Vault::open` sets it; audit
/// records are made only by change sets, change sets only by a vault, so no record is ever linked without it. Deriving
/// it from the root key instead would need no second step, but a retired root key would then take the chain's
/// verifiability with it.
#[derive(Clone, Default)]
pub struct AuditKey(Arc<OnceLock<KeyedHash>>);

impl InstallationSecret {
    pub fn generate(random: &Random) -> Result<Self, RandomUnavailable> {
        random.secret().map(Self)
    }

    pub fn wrap(&self, root: &Key, place: &AssociatedData<'_>, random: &Random) -> Result<Sealed, RandomUnavailable> {
        root.seal(place, self.0.as_ref(), random)
    }

    pub fn unwrap_secret(root: &Key, place: &AssociatedData<'_>, wrapped: &Sealed) -> Result<Self, Unsealable> {
        exact(&root.open(place, wrapped)?).map(Self)
    }

    /// The labels are persisted through everything that was hashed: never change one.
    pub fn keys(&self) -> InstallationKeys {
        let key = |label: &str| KeyedHash::new(&derive(&self.0, label.as_bytes()));
        InstallationKeys {
            identity: key("claviger v1 identity"),
            lookup: key("claviger v1 look-up"),
            fingerprint: key("claviger v1 fingerprint"),
            audit: key("claviger v1 audit chain"),
            resume: key("claviger v1 resume token"),
            browser: key("claviger v1 browser"),
            erasures: key("claviger v1 erasures"),
        }
    }
}

impl InstallationKeys {
    /// The subject that an identity family's claims name. `realm` is what the token says its directory is (Entra
    /// `tid`), empty when the family has none. The claims are in configured order.
    pub fn subject_id(&self, family: &FamilyId, realm: &str, claims: &[&str]) -> SubjectId {
        let mut parts = vec![family.as_str().as_bytes(), realm.as_bytes()];
        parts.extend(claims.iter().map(|claim| claim.as_bytes()));
        SubjectId::from_bytes(self.identity.hash(&parts))
    }

    /// For keys and index keys: a dump of the store names nobody.
    pub fn lookup(&self) -> &KeyedHash {
        &self.lookup
    }

    /// Tells whether two refresh tokens are the same without keeping either.
    pub fn refresh_token_fingerprint(&self, token: &RefreshToken) -> [u8; 32] {
        self.fingerprint.hash(&[b"refresh token", token.expose().as_bytes()])
    }

    /// Tells whether a client registration is another one without keeping its secret. `registration` is all of it.
    pub fn registration_fingerprint(&self, registration: &[&[u8]]) -> [u8; 32] {
        self.fingerprint.hash(&[&[b"client registration".as_slice()], registration].concat())
    }

    /// Tells whether a code was seen before without keeping it.
    pub fn code_digest(&self, code: &AuthorizationCode) -> [u8; 32] {
        self.fingerprint.hash(&[b"authorization code", code.expose().as_bytes()])
    }

    /// What a browser's cookie for a flow is good for: each purpose has values of its own, and none tells the cookie.
    pub fn browser(&self, purpose: BrowserPurpose, flow: FlowId, secret: &BrowserSecret) -> [u8; 32] {
        self.browser.hash(&[purpose.label(), flow.as_bytes(), secret.expose().as_bytes()])
    }

    pub fn audit(&self) -> &KeyedHash {
        &self.audit
    }

    /// Authenticates receipts of erasures, and the list of them.
    pub fn erasures(&self) -> &KeyedHash {
        &self.erasures
    }

    /// Authenticates the resume tokens of watch streams.
    pub fn resume(&self) -> &KeyedHash {
        &self.resume
    }
}

impl AuditKey {
    /// `None` until a vault was opened with it.
    pub fn get(&self) -> Option<&KeyedHash> {
        self.0.get()
    }

    /// Sets the key; the first one stays.
    pub fn set(&self, keys: &InstallationKeys) {
        self.0.get_or_init(|| keys.audit.clone());
    }
}

/// HKDF-SHA256 (RFC 5869) without salt: the secret is uniformly random already.
pub(super) fn derive<const N: usize>(secret: &[u8; 32], label: &[u8]) -> Zeroizing<[u8; N]> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut derived = Zeroizing::new([0; N]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(secret)
        .expand(&[label], Length(N))
        .and_then(|okm| okm.fill(derived.as_mut()))
        .expect("HKDF-SHA256 gives up to 8160 bytes");
    derived
}
