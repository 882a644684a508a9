//! Token revocation (RFC 7009).

use axum::{body::Bytes, extract::State};
use http::{HeaderMap, StatusCode};

use super::{
    client_authentication::authenticate, ledger::Ledger, oauth_error::OauthError, parameters::Parameters,
    random::Fingerprint, site::Site,
};

/// A refresh token takes its whole grant along, an access token falls alone. An unknown token is as good as revoked
/// (§2.2); the hint is not needed.
pub(super) async fn answer(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, OauthError> {
    let parameters = Parameters::parse(&body);
    let client = authenticate(&site, &headers, &parameters)?;
    let token = parameters.single("token").ok_or_else(|| OauthError::new("invalid_request", "token is missing"))?;
    let fingerprint = Fingerprint::of(token);
    let now = site.now();
    let realm = site.realm;
    let change = move |ledger: &mut Ledger| {
        let of_refresh_token = ledger.grant_of_refresh_token(&fingerprint).map(|(id, grant)| (Some(id.clone()), grant));
        let of_access_token = || ledger.live_access_token(&fingerprint, realm, now).map(|(_, grant)| (None, grant));
        let Some((family, grant)) = of_refresh_token.or_else(of_access_token) else { return Ok(()) };
        if !grant.belongs_to(realm, client.id) {
            return Err(OauthError::new("invalid_grant", "the token belongs to another client"));
        }
        match family {
            Some(id) => ledger.end_grant(&id, now),
            None => ledger.remove_access_token(&fingerprint),
        }
        Ok(())
    };
    site.shared.ledger.change(now, change).await??;
    Ok(StatusCode::OK)
}
