//! The order of checks, and the only way in.

use std::{collections::HashMap, sync::Arc};

use zeroize::Zeroizing;

use super::{
    ConfigError, Family, Flaw, IdentityError, Issuer, IssuerName, SignIn, SignedIn,
    cache::{Digest, Verified, VerifiedTokens},
    judge::judge,
    jwk::Key,
    key_source::KeySource,
    problem::problems,
    sign_in::judge_id_token,
    token::{UnverifiedToken, VerifiedToken},
};
use crate::{
    domain::{Caller, Clock, FamilyId, IdToken, Nonce, PresentedToken, SubjectId, TenantId, Timestamp},
    outbound::Outbound,
};

/// Makes a subject's id from the family, the realm (may be empty) and the subject claims.
pub type SubjectHasher = Box<dyn Fn(&FamilyId, &str, &[&str]) -> SubjectId + Send + Sync>;

/// Where a token was presented, which decides how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// gRPC metadata or an HTTP header: 8 KiB.
    Metadata,
    /// A field of a request: 16 KiB.
    Field,
}

/// Verifies presented tokens against the configured issuers.
pub struct Authenticator {
    clock: Arc<dyn Clock>,
    subject_of: SubjectHasher,
    families: HashMap<FamilyId, Arc<Family>>,
    issuers: Vec<ConfiguredIssuer>,
    /// Those with an exact name.
    by_name: HashMap<String, usize>,
    verified: VerifiedTokens,
}

struct ConfiguredIssuer {
    family: Arc<Family>,
    issuer: Issuer,
    keys: Arc<KeySource>,
}

impl Authenticator {
    /// `cache_key` is random and lives as long as the process.
    pub fn new(
        families: Vec<Family>,
        outbound: &Outbound,
        clock: Arc<dyn Clock>,
        subject_of: SubjectHasher,
        cache_key: &Zeroizing<[u8; 32]>,
    ) -> Result<Self, ConfigError> {
        if let Some((_, problem)) = problems(&families).into_iter().next() {
            return Err(problem);
        }
        let (mut issuers, mut by_name, mut by_id) = (Vec::new(), HashMap::new(), HashMap::new());
        for mut family in families {
            let own = std::mem::take(&mut family.issuers);
            let family = Arc::new(family);
            by_id.insert(family.id.clone(), Arc::clone(&family));
            for issuer in own {
                if let IssuerName::Exact(name) = &issuer.issuer {
                    by_name.insert(name.clone(), issuers.len());
                }
                let keys = Arc::new(KeySource::new(&issuer, outbound.clone(), Arc::clone(&clock))?);
                issuers.push(ConfiguredIssuer { family: Arc::clone(&family), issuer, keys });
            }
        }
        Ok(Self { clock, subject_of, families: by_id, issuers, by_name, verified: VerifiedTokens::new(cache_key) })
    }

    /// Says who presents the token. Checks, in this order: length, form, header, algorithm, critical extensions,
    /// issuer, key, signature, times, audience, tenant, kind, subject; the first that fails is the answer. A token that
    /// passed before passes again by look-up, as long as its key is the issuer's and its time lasts.
    pub async fn authenticate(
        &self,
        token: &PresentedToken,
        source: TokenSource,
    ) -> Result<Arc<Caller>, IdentityError> {
        let unverified = token.expose();
        if unverified.len() > source.longest() {
            return Err(Flaw::TooLong.into());
        }
        let digest = self.verified.digest(unverified);
        if let Some(caller) = self.known(&digest, self.clock.now())? {
            return Ok(caller);
        }
        let mark = self.verified.mark();
        let verified = self.verify(unverified).await.inspect_err(say_why)?;
        let caller = Arc::clone(&verified.caller);
        self.verified.keep(digest, verified, mark);
        Ok(caller)
    }

    /// How people of the family sign in on our pages, if they can.
    pub fn sign_in(&self, family: &FamilyId) -> Option<&SignIn> {
        self.families.get(family)?.sign_in.as_ref()
    }

    /// The issuer at which people of the tenant sign in: with a template, that of the tenant's own directory.
    pub fn sign_in_issuer(&self, family: &FamilyId, tenant: &TenantId) -> Option<crate::domain::Issuer> {
        let sign_in = self.sign_in(family)?;
        let own = self.issuers.iter().find(|own| own.family.id == *family && sign_in.is_at(&own.issuer.issuer))?;
        sign_in.issuer_for(tenant, &own.issuer.tenant)
    }

    /// Says who brings the ID token that the family's sign-in issuer gave us for this `nonce`. Checks as
    /// [`Self::authenticate`] does, but by the rules for ID tokens (OpenID Connect Core §3.1.3.7); nothing is
    /// remembered, because such a token is used once.
    pub async fn verify_id_token(
        &self,
        family: &FamilyId,
        token: &IdToken,
        nonce: &Nonce,
    ) -> Result<SignedIn, IdentityError> {
        self.verify_sign_in(family, token, nonce).await.inspect_err(say_why)
    }

    async fn verify_sign_in(
        &self,
        family: &FamilyId,
        token: &IdToken,
        nonce: &Nonce,
    ) -> Result<SignedIn, IdentityError> {
        let sign_in = self.sign_in(family).ok_or(IdentityError::SignInNotConfigured)?;
        let unverified = token.expose();
        if unverified.len() > TokenSource::Field.longest() {
            return Err(Flaw::TooLong.into());
        }
        let unverified = UnverifiedToken::parse(unverified)?;
        let iss = unverified.unverified_issuer().ok_or(Flaw::Claims)?;
        if !sign_in.expects(iss, unverified.unverified_directory()) {
            return Err(IdentityError::IssuerUnknown);
        }
        let (place, token, _) = self.signed(unverified).await?;
        let ConfiguredIssuer { family, issuer, .. } = &self.issuers[place];
        judge_id_token(&token, nonce, sign_in, family, &issuer.tenant, &self.subject_of, self.clock.now())
    }

    /// Makes the subject's tokens go through every check again, because what was decided about them has changed.
    pub fn forget_subject(&self, subject: &SubjectId) {
        self.verified.forget(subject);
    }

    /// Fetches the keys of every issuer that is due, all at once, and returns when all have answered or failed.
    pub async fn refresh_due(&self) {
        let now = self.clock.now();
        let under_way: Vec<_> = self.issuers.iter().filter_map(|issuer| issuer.keys.refresh_if_due(now)).collect();
        for refresh in under_way {
            refresh.landed().await;
        }
    }

    /// Keeps every issuer's keys fresh, hourly, until dropped. The application runs it beside the server.
    pub async fn keep_keys_fresh(&self) {
        loop {
            self.refresh_due().await;
            let next = self.issuers.iter().map(|issuer| issuer.keys.next_refresh()).min();
            self.clock.sleep_until(next.unwrap_or(Timestamp::NEVER)).await;
        }
    }

    /// The caller of a token that was verified before.
    fn known(&self, digest: &Digest, now: Timestamp) -> Result<Option<Arc<Caller>>, IdentityError> {
        let Some(entry) = self.verified.entry(digest) else { return Ok(None) };
        if !self.issuers[entry.issuer].keys.holds(entry.signed_with, now) {
            self.verified.drop_entry(digest);
            return Ok(None);
        }
        match entry.lifetime.check(now) {
            Ok(()) => Ok(Some(Arc::clone(&entry.caller))),
            Err(error) => {
                self.verified.drop_entry(digest);
                Err(error)
            }
        }
    }

    async fn verify(&self, unverified: &str) -> Result<Verified, IdentityError> {
        let (place, token, key) = self.signed(UnverifiedToken::parse(unverified)?).await?;
        let ConfiguredIssuer { family, issuer, .. } = &self.issuers[place];
        let (caller, lifetime) = judge(&token, family, issuer, &self.subject_of, self.clock.now())?;
        Ok(Verified { caller: Arc::new(caller), lifetime, issuer: place, signed_with: key.fingerprint() })
    }

    /// The token once its issuer's key vouches for it, with the issuer's place and that key.
    async fn signed(&self, unverified: UnverifiedToken<'_>) -> Result<(usize, VerifiedToken, Arc<Key>), IdentityError> {
        let iss = unverified.unverified_issuer().ok_or(Flaw::Claims)?;
        let tid = unverified.unverified_directory();
        let place = self.issuer_of(iss, tid).ok_or(IdentityError::IssuerUnknown)?;
        let ConfiguredIssuer { issuer, keys, .. } = &self.issuers[place];
        if !issuer.algorithms.contains(&unverified.algorithm) {
            return Err(Flaw::Algorithm.into());
        }
        let key = keys.find(unverified.unverified_kid.as_deref(), unverified.algorithm).await?;
        if !key.may_sign_for(iss, tid) {
            return Err(Flaw::KeyOfOtherIssuer.into());
        }
        Ok((place, unverified.verify(&key)?, key))
    }

    /// The place of the configured issuer: the one of that name, else the template that covers it.
    fn issuer_of(&self, unverified_iss: &str, unverified_tid: Option<&str>) -> Option<usize> {
        let covers = |own: &ConfiguredIssuer| own.issuer.issuer.covers(unverified_iss, unverified_tid);
        self.by_name.get(unverified_iss).copied().or_else(|| self.issuers.iter().position(covers))
    }
}

/// For operators: callers learn only the reason. At this level, because strangers decide how often it is said.
fn say_why(error: &IdentityError) {
    tracing::debug!(%error, "a token was refused");
}

impl TokenSource {
    /// Bytes.
    const fn longest(self) -> usize {
        match self {
            Self::Metadata => 8 * 1024,
            Self::Field => 16 * 1024,
        }
    }
}
