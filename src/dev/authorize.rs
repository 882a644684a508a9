//! The authorization endpoint (RFC 6749 §3.1, RFC 7636 §4.3, RFC 9207): judges the request, then shows the login page.

use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use url::{Host, Url};

use super::{
    pages,
    parameters::Parameters,
    persona::{Asked, Objection},
    realm::Client,
    redirect::see_other,
    session::Session,
    site::Site,
};
use crate::domain::ScopeSet;

/// A request that may be put before the user.
pub(super) struct AuthorizationRequest {
    pub(super) client: Client,
    pub(super) target: Target,
    pub(super) scopes: ScopeSet,
    pub(super) nonce: Option<String>,
    /// PKCE `code_challenge`, S256.
    pub(super) challenge: String,
    pub(super) offline: bool,
    pub(super) as_bot: bool,
}

/// Where the answer goes; the redirect URI is a registered one.
pub(super) struct Target {
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
}

pub(super) enum Rejection {
    /// Client or redirect URI are in doubt, so the user is told and nobody else (RFC 6749 §4.1.2.1).
    Page(&'static str),
    Redirect {
        target: Target,
        error: &'static str,
        description: &'static str,
    },
}

pub(super) async fn show_login(State(site): State<Site>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let query = query.unwrap_or_default();
    match AuthorizationRequest::judge(&site, &query) {
        Err(rejection) => rejection.into_response(&site),
        Ok(request) => {
            let session = Session::of(&site, &headers).unwrap_or_else(|| Session::new(&site));
            let page = pages::login(&site, &request, &query, &session);
            session.keep(&site, page)
        }
    }
}

impl AuthorizationRequest {
    /// The same query is judged again at every step: what the browser carries along is never trusted.
    pub(super) fn judge(site: &Site, unverified_query: &str) -> Result<Self, Rejection> {
        let parameters = Parameters::parse(unverified_query.as_bytes());
        let client = parameters.single("client_id").and_then(|id| site.client(id));
        let client = client.ok_or(Rejection::Page("The client is not registered here."))?;
        let redirect_uri = parameters
            .single("redirect_uri")
            .filter(|uri| client.redirect_uris.iter().any(|registered| matches(registered, uri)))
            .ok_or(Rejection::Page("The redirect URI is not one of this client."))?
            .to_owned();
        let target = Target { redirect_uri, state: parameters.single("state").map(ToOwned::to_owned) };
        match judge_details(site, &parameters) {
            Ok((Asked { scopes, offline, as_bot }, challenge)) => {
                let nonce = parameters.single("nonce").map(ToOwned::to_owned);
                Ok(Self { client, target, scopes, nonce, challenge, offline, as_bot })
            }
            Err((error, description)) => Err(Rejection::Redirect { target, error, description }),
        }
    }
}

/// Everything that a client may be told about.
fn judge_details(site: &Site, parameters: &Parameters) -> Result<(Asked, String), Objection> {
    if parameters.any_repeated() {
        return Err(("invalid_request", "a parameter stands twice"));
    }
    match parameters.single("response_type") {
        Some("code") => {}
        Some(_) => return Err(("unsupported_response_type", "response_type must be code")),
        None => return Err(("invalid_request", "response_type is missing")),
    }
    if parameters.single("request").is_some() {
        return Err(("request_not_supported", "request objects are not supported"));
    }
    if parameters.single("request_uri").is_some() {
        return Err(("request_uri_not_supported", "request objects are not supported"));
    }
    if parameters.single("response_mode").is_some_and(|mode| mode != "query") {
        return Err(("invalid_request", "response_mode must be query"));
    }
    let challenge = parameters
        .single("code_challenge")
        .ok_or(("invalid_request", "code_challenge is missing: PKCE is required"))?;
    if parameters.single("code_challenge_method") != Some("S256") {
        return Err(("invalid_request", "code_challenge_method must be S256"));
    }
    if !is_s256(challenge) {
        return Err(("invalid_request", "code_challenge is not a base64url SHA-256 digest"));
    }
    let asked = (site.realm.manners().ask)(site, parameters)?;
    // Every authorization asks for a login, so there is never one to continue silently.
    if parameters.single("prompt").is_some_and(|prompt| prompt.split(' ').any(|word| word == "none")) {
        return Err(("login_required", "the user has to log in"));
    }
    Ok((asked, challenge.to_owned()))
}

impl Rejection {
    pub(super) fn into_response(self, site: &Site) -> Response {
        match self {
            Self::Page(message) => (StatusCode::BAD_REQUEST, pages::refusal(message)).into_response(),
            Self::Redirect { target, error, description } => {
                see_other(&target.answer(site, &[("error", error), ("error_description", description)]))
            }
        }
    }
}

impl Target {
    /// The redirect URI with the answer, `state`, and, of those that send it, `iss` against mix-up.
    pub(super) fn answer(&self, site: &Site, members: &[(&str, &str)]) -> String {
        let mut url = Url::parse(&self.redirect_uri).expect("a registered redirect URI was a Url before");
        let mut query = url.query_pairs_mut();
        query.extend_pairs(members);
        if let Some(state) = &self.state {
            query.append_pair("state", state);
        }
        if site.realm.manners().names_issuer {
            query.append_pair("iss", &site.issuer());
        }
        drop(query);
        url.into()
    }

    /// Scheme, host and port, for the page's content security policy.
    pub(super) fn origin(&self) -> String {
        Url::parse(&self.redirect_uri).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
    }
}

fn is_s256(challenge: &str) -> bool {
    challenge.len() == 43 && challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Character for character, but for the port of a native application's loopback address, which the operating system
/// chose (RFC 8252 §7.3).
fn matches(registered: &str, unverified: &str) -> bool {
    let portless = |text: &str| {
        let mut url = Url::parse(text).ok()?;
        let loopback = match url.host()? {
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
            Host::Domain(_) => false,
        };
        (url.scheme() == "http" && loopback && url.set_port(None).is_ok()).then_some(url)
    };
    registered == unverified || portless(registered).is_some_and(|registered| portless(unverified) == Some(registered))
}
