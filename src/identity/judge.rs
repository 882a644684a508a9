//! Everything after a verified signature: is it in time, meant for us, of a tenant of ours, an access token, and whose?

use std::{collections::BTreeSet, time::Duration};

use super::{
    Family, Flaw, IdentityError, Issuer, RoleRule, SubjectHasher, TenantRule, claims::Claims, token::VerifiedToken,
};
use crate::domain::{AgentId, Caller, Role, Scope, ScopeSet, SubjectId, TenantId, Timestamp};

/// When a token is good.
#[derive(Clone, Copy)]
pub(super) struct Lifetime {
    expires_at: Timestamp,
    /// The later of `nbf` and `iat`.
    starts_at: Timestamp,
    pub(super) issued_at: Timestamp,
}

/// Applies the rules in the order in which their refusals are promised.
pub(super) fn judge(
    token: &VerifiedToken,
    family: &Family,
    issuer: &Issuer,
    subject_of: &SubjectHasher,
    now: Timestamp,
) -> Result<(Caller, Lifetime), IdentityError> {
    let claims = &token.claims;
    let lifetime = Lifetime::read(claims)?;
    lifetime.check(now)?;
    let audience = audience(claims, issuer)?;
    let tenant = tenant(claims, &issuer.tenant)?;
    check_kind(token, issuer)?;
    let (subject, external_id) = subject(claims, family, subject_of)?;
    let caller = Caller {
        tenant,
        subject,
        family: family.id.clone(),
        external_id,
        agent: agent(claims, &issuer.agent_claims)?,
        audience,
        scopes: scopes(claims)?,
        roles: roles(claims, issuer)?,
        issued_at: lifetime.issued_at,
        expires_at: lifetime.expires_at,
    };
    Ok((caller, lifetime))
}

impl Lifetime {
    /// `exp` is required. Without `iat` and `nbf` a token counts as issued at the epoch, so that every "nothing
    /// issued before" refuses it.
    pub(super) fn read(claims: &Claims) -> Result<Self, Flaw> {
        let expires_at = claims.date("exp")?.ok_or(Flaw::Claims)?;
        let (issued_at, not_before) = (claims.date("iat")?, claims.date("nbf")?);
        let starts_at = issued_at.max(not_before).unwrap_or(Timestamp::EPOCH);
        Ok(Self { expires_at, starts_at, issued_at: issued_at.or(not_before).unwrap_or(Timestamp::EPOCH) })
    }

    pub(super) fn check(&self, now: Timestamp) -> Result<(), IdentityError> {
        if now >= self.expires_at.plus(LEEWAY) {
            Err(IdentityError::TokenExpired)
        } else if now.plus(LEEWAY) < self.starts_at {
            Err(IdentityError::TokenNotYetValid)
        } else {
            Ok(())
        }
    }
}

fn audience(claims: &Claims, issuer: &Issuer) -> Result<Vec<String>, IdentityError> {
    let named = claims.list("aud")?;
    if named.iter().any(|audience| issuer.audiences.contains(*audience)) {
        Ok(named.into_iter().map(str::to_owned).collect())
    } else {
        Err(IdentityError::AudienceMismatch)
    }
}

pub(super) fn tenant(claims: &Claims, rule: &TenantRule) -> Result<TenantId, IdentityError> {
    match rule {
        TenantRule::Fixed(tenant) => Some(tenant),
        TenantRule::Claim { name, allow } => claims.text(name).and_then(|value| allow.get(value)),
    }
    .cloned()
    .ok_or(IdentityError::TenantUnknown)
}

/// Refuses what the same issuer signs with the same keys for other uses: ID tokens (OpenID Connect Core §2 and
/// §3.3.2.11; Keycloak marks them by `typ`, Cognito by `token_use`), logout and security event tokens (RFC 8417).
fn check_kind(token: &VerifiedToken, issuer: &Issuer) -> Result<(), Flaw> {
    let kind = token.kind.as_deref().unwrap_or("JWT");
    let accepted = issuer.token_types.iter().any(|accepted| bare(accepted).eq_ignore_ascii_case(bare(kind)));
    let has = |claim: &str| token.claims.value(claim).is_some();
    let foreign = FOREIGN_CLAIMS.into_iter().any(has);
    let marks = &issuer.access_token_claims;
    let marked = bare(kind).eq_ignore_ascii_case("at+jwt") || marks.is_empty() || marks.iter().any(|mark| has(mark));
    let says_so = is_absent_or(&token.claims, "typ", "Bearer") && is_absent_or(&token.claims, "token_use", "access");
    if accepted && marked && !foreign && says_so { Ok(()) } else { Err(Flaw::Kind) }
}

pub(super) fn is_absent_or(claims: &Claims, claim: &str, expected: &str) -> bool {
    claims.value(claim).is_none_or(|value| value.as_str().is_some_and(|value| value.eq_ignore_ascii_case(expected)))
}

/// RFC 7515 §4.1.9: `application/` may be left out.
pub(super) fn bare(kind: &str) -> &str {
    match kind.split_at_checked(APPLICATION.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(APPLICATION) => rest,
        _ => kind,
    }
}

/// The subject's id, and the first of its claims as the issuer wrote it.
pub(super) fn subject(
    claims: &Claims,
    family: &Family,
    subject_of: &SubjectHasher,
) -> Result<(SubjectId, String), IdentityError> {
    let text = |claim: &String| claims.text(claim).ok_or(IdentityError::SubjectMissing);
    let realm = family.realm_claim.as_ref().map_or(Ok(""), text)?;
    let names = family.subject_claims.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    // Never empty: Family::problems sees to it.
    Ok((subject_of(&family.id, realm, &names), names[0].to_owned()))
}

/// A name that cannot be an agent's is a flaw: read as absent, the call would count as the user's own.
fn agent(claims: &Claims, places: &[String]) -> Result<Option<AgentId>, Flaw> {
    let Some(found) = places.iter().find_map(|place| claims.value(place)) else { return Ok(None) };
    let name = found.as_str().ok_or(Flaw::Claims)?;
    name.parse().map(Some).map_err(|_| Flaw::Claims)
}

/// Text of scopes (RFC 9068 §2.2.3, Entra's `scp`) or a list of them. What cannot be a scope grants nothing.
fn scopes(claims: &Claims) -> Result<ScopeSet, Flaw> {
    let (scope, scp) = (claims.list("scope")?, claims.list("scp")?);
    Ok(scope
        .into_iter()
        .chain(scp)
        .flat_map(str::split_ascii_whitespace)
        .filter_map(|text| text.parse::<Scope>().ok())
        .collect())
}

/// Roles that the token proves. Where the issuer left out the claim that a rule reads, the rule grants nothing, and
/// says so; a caller who is left without any role by that would only learn that one is missing, so that is a flaw.
fn roles(claims: &Claims, issuer: &Issuer) -> Result<BTreeSet<Role>, Flaw> {
    let rules = &issuer.roles;
    let (mut roles, mut undecided) = (BTreeSet::new(), Vec::new());
    if rules.iter().all(|rule| rule.role != Role::User) {
        roles.insert(Role::User);
    }
    for RoleRule { role, claim, values } in rules {
        if claims.list(claim)?.into_iter().any(|value| values.contains(value)) {
            roles.insert(*role);
        } else if claims.is_left_out(claim) {
            undecided.push((role, claim));
        }
    }
    undecided.retain(|(role, _)| !roles.contains(role));
    if roles.is_empty() && !undecided.is_empty() {
        return Err(Flaw::ClaimLeftOut);
    }
    for (role, claim) in undecided {
        let issuer = issuer.issuer.as_str();
        tracing::warn!(%issuer, %claim, ?role, "a role was not granted: the issuer left its claim out of the token");
    }
    Ok(roles)
}

const LEEWAY: Duration = Duration::from_secs(60);
const APPLICATION: &str = "application/";
/// `nonce`, `at_hash`, `c_hash`: ID tokens; `events`: logout and security event tokens.
const FOREIGN_CLAIMS: [&str; 4] = ["nonce", "at_hash", "c_hash", "events"];
