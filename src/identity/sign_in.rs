//! Signing in on our pages: our registration at an issuer, and the profile of the ID tokens that it gives us.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Family, Flaw, IdentityError, IssuerName, SubjectHasher, TenantRule,
    claims::Claims,
    judge::{Lifetime, bare, is_absent_or, subject, tenant},
    token::VerifiedToken,
};
use crate::domain::{ClientSecret, FamilyId, Issuer, Nonce, Scope, ScopeSet, SubjectId, TenantId, Timestamp};

/// Our registration as an OpenID Connect client of the family. Without one nobody of the family can use our pages, so
/// binding `BROWSER` is refused with `SIGN_IN_NOT_CONFIGURED`.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// Where people sign in: one of the family's issuers, or one of those that a template stands for. With the template
    /// itself, each tenant's people sign in at their own directory: see
    /// [`Authenticator::sign_in_issuer`](super::Authenticator::sign_in_issuer).
    #[schemars(with = "String", example = &"https://login.example.com/")]
    pub issuer: Issuer,
    /// Our id there.
    #[schemars(example = &"claviger-pages")]
    pub client_id: String,
    /// `None`: a public client.
    #[serde(skip)]
    pub client_secret: Option<ClientSecret>,
    /// File with our secret there: one line, a regular file of this user with mode 0600 or 0400. Absent for a public
    /// client.
    #[serde(default)]
    #[schemars(example = &"/etc/claviger/sign-in.secret")]
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for; `openid` must be among it.
    #[schemars(with = "Vec<String>")]
    #[serde(default = "openid_alone")]
    pub scopes: ScopeSet,
    /// The operator states that `sub` is the same for every client (OpenID Connect Core §8: `public`). A pairwise one
    /// would make the person who signs in another subject than the one who called.
    #[serde(default)]
    pub subject_is_public: bool,
}

/// Who signed in on our pages. Made only by `identity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    pub tenant: TenantId,
    /// The id that the person's access tokens give as well.
    pub subject: SubjectId,
    pub family: FamilyId,
    /// The subject claim as the issuer wrote it; for the person's own eyes, never logged or stored.
    pub external_id: String,
    pub issued_at: Timestamp,
}

impl SignIn {
    /// Whether people sign in at this configured issuer.
    pub(super) fn is_at(&self, configured: &IssuerName) -> bool {
        configured.as_str() == self.issuer.as_str() || configured.directory(self.issuer.as_str()).is_some()
    }

    /// Whether an ID token of this `iss` and this `tid` comes from where people were sent.
    pub(super) fn expects(&self, iss: &str, tid: Option<&str>) -> bool {
        self.name().is_some_and(|name| name.covers(iss, tid))
    }

    /// Where people of the tenant sign in. `None`: the tenant is no directory of the template, or several.
    pub(super) fn issuer_for(&self, tenant: &TenantId, rule: &TenantRule) -> Option<Issuer> {
        let name = self.name()?;
        let (IssuerName::Template(_), TenantRule::Claim { allow, .. }) = (&name, rule) else {
            return Some(self.issuer.clone());
        };
        let mut directories = allow.iter().filter(|(_, of)| *of == tenant).map(|(directory, _)| directory);
        let directory = directories.next().filter(|_| directories.next().is_none())?;
        name.of(directory).parse().ok()
    }

    fn name(&self) -> Option<IssuerName> {
        IssuerName::try_from(self.issuer.as_str().to_owned()).ok()
    }

    pub(super) fn asks_for_openid(&self) -> bool {
        self.scopes.contains_all(&openid_alone())
    }
}

/// OpenID Connect Core §3.1.3.7, in its strict reading: the token is for us alone.
pub(super) fn judge_id_token(
    token: &VerifiedToken,
    nonce: &Nonce,
    sign_in: &SignIn,
    family: &Family,
    rule: &TenantRule,
    subject_of: &SubjectHasher,
    now: Timestamp,
) -> Result<SignedIn, IdentityError> {
    let claims = &token.claims;
    let lifetime = Lifetime::read(claims)?;
    lifetime.check(now)?;
    if claims.list("aud")? != [sign_in.client_id.as_str()] {
        return Err(IdentityError::AudienceMismatch);
    }
    check_kind(token, &sign_in.client_id)?;
    check_nonce(claims, nonce)?;
    let tenant = tenant(claims, rule)?;
    let (subject, external_id) = subject(claims, family, subject_of)?;
    Ok(SignedIn { tenant, subject, family: family.id.clone(), external_id, issued_at: lifetime.issued_at })
}

/// Refuses what the same keys sign for the same client and other uses: access tokens (RFC 9068 §2.1), logout tokens
/// (OpenID Connect Back-Channel Logout §2.4), and ID tokens that another party asked for.
fn check_kind(token: &VerifiedToken, client_id: &str) -> Result<(), Flaw> {
    let claims = &token.claims;
    let header = token.kind.as_deref().is_none_or(|kind| bare(kind).eq_ignore_ascii_case("JWT"));
    let says_so = is_absent_or(claims, "typ", "ID") && is_absent_or(claims, "token_use", "id");
    let asked_for_by_us = claims.value("azp").is_none_or(|party| party == client_id);
    let complete = claims.value("iat").is_some() && claims.value("events").is_none();
    if header && says_so && asked_for_by_us && complete { Ok(()) } else { Err(Flaw::NotIdToken) }
}

/// The nonce ties the token to the browser that was sent to sign in: without it a token of another sign-in could be
/// slipped in (OpenID Connect Core §3.1.3.7, 11). Compared in constant time.
fn check_nonce(claims: &Claims, nonce: &Nonce) -> Result<(), Flaw> {
    let own = claims.text("nonce").map(|text| Nonce::new(text.to_owned()));
    if own.as_ref() == Some(nonce) { Ok(()) } else { Err(Flaw::Nonce) }
}

fn openid_alone() -> ScopeSet {
    "openid".parse::<Scope>().into_iter().collect()
}
