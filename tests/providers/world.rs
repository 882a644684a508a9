use std::{sync::Arc, time::Duration};

use claviger::{
    dev::{
        self, DevProvider, ENTRA_DIRECTORY, Realm,
        visitor::{Decision, Visitor},
    },
    domain::{AuthorizationCode, CodeVerifier, Endpoints, FlowSecret, Nonce, Provider, RefreshToken, ScopeSet},
    oauth::{
        AuthorizationRequest, AuthorizationServers, AuthorizationUrl, TokenFailure, Tokens,
        definitions::{Completion, shipped},
    },
    outbound::{Outbound, Policy},
    sealing::Random,
};
use tokio::net::TcpListener;
use url::Url;

use crate::clock::ManualClock;

pub(crate) const LIFETIME: Duration = Duration::from_secs(600);
const CALLBACK: &str = "http://127.0.0.1/callback";
// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const NONCE: &str = "n0nce";

/// The development server, and the calls that the broker makes.
pub(crate) struct World {
    pub(crate) dev: DevProvider,
    pub(crate) clock: ManualClock,
    pub(crate) servers: AuthorizationServers,
    outbound: Outbound,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(dev::Options::default()).await
    }

    pub(crate) async fn with(options: dev::Options) -> Self {
        let clock = ManualClock::new();
        let options =
            dev::Options { redirect_uris: vec![CALLBACK.parse().unwrap()], access_token_lifetime: LIFETIME, ..options };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let random = Random::system();
        let fill = move |bytes: &mut [u8]| random.fill(bytes).unwrap();
        let dev = DevProvider::start(listener, options, Arc::new(clock.clone()), fill).await.unwrap();
        let outbound = Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap();
        let servers = AuthorizationServers::new(outbound.clone(), Arc::new(clock.clone()));
        Self { dev, clock, servers, outbound }
    }

    /// The shipped definition, completed so that it is about this server.
    pub(crate) fn provider(&self, definition: &str) -> Provider {
        self.provider_in(definition, (definition == "microsoft").then_some("organizations"))
    }

    pub(crate) fn provider_in(&self, definition: &str, directory: Option<&str>) -> Provider {
        let at = |realm, path: &str| Some(self.dev.url_of(realm, path).parse().unwrap());
        let (issuer, endpoints) = match definition {
            "google" => (Some(self.dev.issuer_of(Realm::Google)), Endpoints::default()),
            "microsoft" => (Some(self.dev.url_of(Realm::Entra, "/{directory}/v2.0")), Endpoints::default()),
            "slack" | "slack-bot" => (
                None,
                Endpoints {
                    authorization: at(Realm::Slack, "/oauth/v2/authorize"),
                    token: at(Realm::Slack, "/api/oauth.v2.access"),
                    revocation: at(Realm::Slack, "/api/auth.revoke"),
                    userinfo: at(Realm::Slack, "/api/auth.test"),
                },
            ),
            // Nobody plays GitHub; what it answers can be played by anybody.
            _ => {
                let anywhere = || at(Realm::Provider, "/token");
                let [authorization, token, revocation, userinfo] = [anywhere(), anywhere(), anywhere(), anywhere()];
                (None, Endpoints { authorization, token, revocation, userinfo })
            }
        };
        let issuer = issuer.map(|issuer| issuer.parse().unwrap());
        let directory = directory.map(|directory| directory.parse().unwrap());
        let completion = Completion {
            issuer: issuer.as_ref(),
            directory: directory.as_ref(),
            endpoints: &endpoints,
            rotation: None,
        };
        Provider {
            id: "acme".parse().unwrap(),
            definition: completion.of(shipped(definition).unwrap()).unwrap(),
            client_id: dev::CLIENT_ID.to_owned(),
            client_secret: Some(self.dev.client_secret()),
            refreshes_per_second: Provider::REFRESHES_PER_SECOND,
        }
    }

    pub(crate) async fn authorization_url(&self, provider: &Provider, scopes: &str) -> AuthorizationUrl {
        let request = AuthorizationRequest {
            redirect_uri: &CALLBACK.parse().unwrap(),
            state: &FlowSecret::new("st4te".to_owned()),
            verifier: &CodeVerifier::new(VERIFIER.to_owned()),
            nonce: &Nonce::new(NONCE.to_owned()),
            scopes: &ScopeSet::parse(scopes, ' ').unwrap(),
            login_hint: None,
            hints: None,
        };
        self.servers.authorization_url(provider, &request).await.map_err(|error| error.to_string()).unwrap()
    }

    /// Where the provider sends the browser of a user who approves.
    pub(crate) async fn approved(&self, url: &Url, user: &str) -> Url {
        Visitor::new(self.outbound.clone()).visit(url, user, Decision::Approve).await.unwrap()
    }

    pub(crate) async fn exchange(&self, provider: &Provider, at: &Url, code: &str) -> Result<Tokens, TokenFailure> {
        self.exchange_for(provider, at, code, &CALLBACK.parse().unwrap()).await
    }

    pub(crate) async fn exchange_for(
        &self,
        provider: &Provider,
        at: &Url,
        code: &str,
        redirect_uri: &Url,
    ) -> Result<Tokens, TokenFailure> {
        let (code, verifier) = (AuthorizationCode::new(code.to_owned()), CodeVerifier::new(VERIFIER.to_owned()));
        self.servers.exchange(provider, at, &code, &verifier, redirect_uri).await
    }

    pub(crate) async fn connect(&self, provider: &Provider, user: &str, scopes: &str) -> Tokens {
        let sent = self.authorization_url(provider, scopes).await;
        let answer = self.approved(&sent.url, user).await;
        tokens(self.exchange(provider, &sent.server.token, &parameter(&answer, "code").unwrap()).await)
    }

    pub(crate) async fn refresh(
        &self,
        provider: &Provider,
        token: &RefreshToken,
        scopes: &str,
    ) -> Result<Tokens, TokenFailure> {
        self.servers.refresh(provider, token, &ScopeSet::parse(scopes, ' ').unwrap(), None, 0).await
    }

    pub(crate) async fn account(&self, provider: &Provider, tokens: &Tokens) -> Option<String> {
        let nonce = Nonce::new(NONCE.to_owned());
        self.servers.account(provider, tokens, Some(&nonce)).await.unwrap()
    }
}

#[track_caller]
pub(crate) fn tokens(result: Result<Tokens, TokenFailure>) -> Tokens {
    result.map_err(|failure| failure.to_string()).unwrap()
}

#[track_caller]
pub(crate) fn failure(result: Result<Tokens, TokenFailure>) -> TokenFailure {
    result.map(drop).unwrap_err()
}

pub(crate) fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

pub(crate) fn entra_account(oid: &str) -> String {
    format!("{ENTRA_DIRECTORY}/{oid}")
}
