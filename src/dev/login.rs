//! The user's two steps: logging in, and consenting.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    response::Response,
};
use http::HeaderMap;

use super::{
    authorize::{AuthorizationRequest, Rejection},
    ledger::{Code, Grant, GrantId},
    options::User,
    pages,
    parameters::Parameters,
    random::Fingerprint,
    redirect::see_other,
    session::Session,
    site::Site,
};
use crate::domain::AuthorizationCode;

/// Takes the login form. The provider's users go on to consent; the platform's are sent straight back.
pub(super) async fn log_in(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let form = match Form::read(&site, &headers, &body) {
        Ok(form) => form,
        Err(rejection) => return rejection.into_response(&site),
    };
    let Some(user) = form.parameters.single("user").and_then(User::named) else {
        return Rejection::Page("There is no such user.").into_response(&site);
    };
    let session = Session::logged_in(&site, user);
    let next = if site.realm.asks_for_consent() {
        see_other(&format!("{}?{}", site.url("/consent"), form.query))
    } else {
        approve(&site, user, form.request).await
    };
    session.keep(&site, next)
}

pub(super) async fn show_consent(State(site): State<Site>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let query = query.unwrap_or_default();
    let request = match AuthorizationRequest::judge(&site, &query) {
        Ok(request) => request,
        Err(rejection) => return rejection.into_response(&site),
    };
    let session = Session::of(&site, &headers);
    match session.as_ref().and_then(|session| Some((session, session.user(&site)?))) {
        Some((session, user)) => pages::consent(&site, &request, &query, session, user),
        None => see_other(&format!("{}?{query}", site.url(site.realm.manners().authorize))),
    }
}

/// Takes the consent form.
pub(super) async fn decide(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let form = match Form::read(&site, &headers, &body) {
        Ok(form) => form,
        Err(rejection) => return rejection.into_response(&site),
    };
    let Some(user) = form.session.user(&site) else {
        return see_other(&format!("{}?{}", site.url(site.realm.manners().authorize), form.query));
    };
    match form.parameters.single("decision") {
        Some("approve") => approve(&site, user, form.request).await,
        Some("deny") => {
            let members = [("error", "access_denied"), ("error_description", "the user refused")];
            see_other(&form.request.target.answer(&site, &members))
        }
        _ => Rejection::Page("Approve or deny?").into_response(&site),
    }
}

/// A posted form that belongs to the session that it was shown to.
struct Form {
    parameters: Parameters,
    session: Session,
    /// The authorization request as it first came, and as it is judged now.
    query: String,
    request: AuthorizationRequest,
}

impl Form {
    fn read(site: &Site, headers: &HeaderMap, unverified_body: &[u8]) -> Result<Self, Rejection> {
        let parameters = Parameters::parse(unverified_body);
        let session = Session::of(site, headers)
            .filter(|session| session.accepts(site, parameters.single("csrf")))
            .ok_or(Rejection::Page("This form was not opened in this browser. Start again."))?;
        let query = parameters.single("request").unwrap_or_default().to_owned();
        let request = AuthorizationRequest::judge(site, &query)?;
        Ok(Self { parameters, session, query, request })
    }
}

async fn approve(site: &Site, user: &User, request: AuthorizationRequest) -> Response {
    let now = site.now();
    let id = GrantId::new(site.shared.random.text("grant_"));
    let secret = AuthorizationCode::new(site.shared.random.text("dev_ac_"));
    let fingerprint = Fingerprint::of(secret.expose());
    let mut grant = Grant::new(site.realm, request.client.id, user.id, request.scopes, now);
    (grant.offline, grant.as_bot) = (request.offline, request.as_bot);
    let code = Code {
        grant: id.clone(),
        redirect_uri: request.target.redirect_uri.clone(),
        challenge: request.challenge,
        nonce: request.nonce,
        expires_at: now.plus(CODE_LIFETIME),
        used: false,
    };
    match site.shared.ledger.change(now, move |ledger| ledger.approve(id, grant, fingerprint, code)).await {
        Ok(()) => see_other(&request.target.answer(site, &[("code", secret.expose())])),
        Err(error) => {
            tracing::error!(error = %error, "the development server's state could not be kept");
            see_other(&request.target.answer(site, &[("error", "server_error")]))
        }
    }
}

/// RFC 6749 §4.1.2 allows ten minutes at most; a person who copies a code from a terminal needs them.
const CODE_LIFETIME: Duration = Duration::from_secs(600);
