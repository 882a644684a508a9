//! One issuer as its endpoints see it, and the router over all issuers.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use http::{HeaderValue, StatusCode, header};

use super::{
    Endpoint, Options, authorize, faults,
    faults::Faults,
    identity::Identity,
    introspect,
    journal::Journal,
    keys::KeySet,
    ledger::LedgerStore,
    login, metadata, pages, persona,
    random::Random,
    realm::{Client, Realm},
    resources, revoke,
    settings::InForce,
    token,
};
use crate::domain::{Clock, Rotation, Timestamp};

/// What the issuers share.
pub(super) struct Shared {
    /// `http://127.0.0.1:4444`, without a slash at the end.
    pub(super) base: String,
    pub(super) port: u16,
    pub(super) options: Options,
    pub(super) settings: InForce,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Random,
    pub(super) identity: Identity,
    pub(super) ledger: LedgerStore,
    pub(super) faults: Faults,
    pub(super) journal: Journal,
}

#[derive(Clone)]
pub(super) struct Site {
    pub(super) shared: Arc<Shared>,
    pub(super) realm: Realm,
}

/// Bytes of a request's body.
pub(super) const MAX_BODY: usize = 64 * 1024;

impl Site {
    pub(super) fn issuer(&self) -> String {
        self.url(self.realm.manners().issuer)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{}{path}", self.shared.base, self.realm.manners().path)
    }

    pub(super) fn rotation(&self) -> Rotation {
        self.realm.manners().rotation.unwrap_or_else(|| self.shared.settings.get().rotation)
    }

    /// Counts, holds and spoils what comes to an endpoint.
    pub(super) fn intercepted(&self, endpoint: Endpoint, method: MethodRouter<Self>) -> MethodRouter<Self> {
        method.layer(from_fn_with_state((self.clone(), endpoint), faults::intercept))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub(super) fn keys(&self) -> &KeySet {
        self.shared.identity.keys(self.realm)
    }

    pub(super) fn client(&self, unverified_id: &str) -> Option<Client> {
        self.realm.clients(&self.shared.options).into_iter().find(|client| client.id == unverified_id)
    }
}

pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let site = |realm| Site { shared: shared.clone(), realm };
    Router::new()
        .merge(provider_routes(&site(Realm::Provider)))
        .merge(platform_routes(&site(Realm::Platform)))
        .merge(persona::google_routes(&site(Realm::Google)))
        .merge(persona::entra_routes(&site(Realm::Entra)))
        .merge(persona::slack_routes(&site(Realm::Slack)))
        .merge(faults::routes(shared))
        .route("/dev/style.css", get(pages::style))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(shared.clone(), own_name_only))
        .layer(middleware::map_response(never_stored))
}

fn provider_routes(site: &Site) -> Router {
    let at = |endpoint, method| site.intercepted(endpoint, method);
    let metadata = || at(Endpoint::Metadata, get(metadata::document));
    Router::new()
        .route("/.well-known/openid-configuration", metadata())
        .route("/.well-known/oauth-authorization-server", metadata())
        .route("/jwks", at(Endpoint::Jwks, get(metadata::keys)))
        .route("/authorize", at(Endpoint::Authorize, get(authorize::show_login)))
        .route("/login", post(login::log_in))
        .route("/consent", at(Endpoint::Consent, post(login::decide)).get(login::show_consent))
        .route("/token", at(Endpoint::Token, post(token::answer)))
        .route("/revoke", at(Endpoint::Revoke, post(revoke::answer)))
        .route("/introspect", at(Endpoint::Introspect, post(introspect::answer)))
        .route("/userinfo", at(Endpoint::Userinfo, get(resources::userinfo).post(resources::userinfo)))
        .route("/api/{plugin}", at(Endpoint::Api, get(resources::read).post(resources::write)))
        .with_state(site.clone())
}

/// The metadata of an issuer with a path stands at three places: RFC 8414 §3.1 inserts, OpenID Connect Discovery §4
/// appends, and clients that know only insertion ask for both names that way.
fn platform_routes(site: &Site) -> Router {
    let at = |endpoint, method| site.intercepted(endpoint, method);
    let metadata = || at(Endpoint::PlatformMetadata, get(metadata::document));
    Router::new()
        .route("/.well-known/oauth-authorization-server/platform", metadata())
        .route("/.well-known/openid-configuration/platform", metadata())
        .route("/platform/.well-known/openid-configuration", metadata())
        .route("/platform/jwks", at(Endpoint::PlatformJwks, get(metadata::keys)))
        .route("/platform/authorize", at(Endpoint::PlatformAuthorize, get(authorize::show_login)))
        .route("/platform/login", at(Endpoint::PlatformLogin, post(login::log_in)))
        .route("/platform/token", at(Endpoint::PlatformToken, post(token::answer)))
        .route("/platform/userinfo", at(Endpoint::PlatformUserinfo, get(resources::userinfo).post(resources::userinfo)))
        .with_state(site.clone())
}

/// Answers to no name but its own: a web page whose name was rebound to a loopback address gets nothing.
async fn own_name_only(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = shared.base.strip_prefix("http://");
    let as_localhost = format!("localhost:{}", shared.port);
    let is_own = host.is_some_and(|host| Some(host) == authority || host == as_localhost);
    if is_own { next.run(request).await } else { StatusCode::MISDIRECTED_REQUEST.into_response() }
}

async fn never_stored(mut response: Response) -> Response {
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
