//! People before browsers, and a world with pages for them.

use claviger::{
    client::Client,
    config::Config,
    dev::Endpoint,
    domain::{AuditAction, AuditRecord, AuditResult, Reason},
    proto::v1::{self, AuthorizationState, ErrorReason},
};
use url::Url;

use crate::{
    browser::{Browser, Page},
    records::Records,
    world::{PLUGIN, Pages, Settings, World},
};

pub(crate) const APPROVE: (&str, &str) = ("decision", "approve");
pub(crate) const DENY: (&str, &str) = ("decision", "deny");
pub(crate) const OAUTH_CALLBACK: &str = "/oauth/callback";
pub(crate) const LOGIN_CALLBACK: &str = "/login/callback";

/// A broker on another site than its provider: both are loopback addresses, and a browser takes each for a site of its
/// own.
pub(crate) async fn world() -> World {
    world_with(|_| {}).await
}

pub(crate) async fn world_with(configure: impl Fn(&mut Config) + Send + Sync + 'static) -> World {
    let listener = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let public_url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let pages = Some(Pages { listener, public_url });
    World::start_with(Settings { pages, configure: Box::new(configure), ..Settings::default() }).await
}

pub(crate) fn browser_start(plugin: &str) -> v1::StartAuthorizationRequest {
    v1::StartAuthorizationRequest {
        target: Some(v1::start_authorization_request::Target::Plugin(plugin.to_owned())),
        binding: v1::AuthorizationBinding::Browser.into(),
        ..Default::default()
    }
}

/// A flow of a user, and the link to it.
pub(crate) struct Link {
    pub(crate) flow: String,
    pub(crate) url: Url,
}

impl Link {
    pub(crate) async fn of(client: &Client) -> Self {
        Self::started(client, browser_start(PLUGIN)).await
    }

    pub(crate) async fn started(client: &Client, request: v1::StartAuthorizationRequest) -> Self {
        let started = client.start_authorization(request).await.unwrap();
        Self { flow: started.flow_id, url: started.authorization_url.parse().unwrap() }
    }

    pub(crate) async fn state(&self, client: &Client) -> (AuthorizationState, ErrorReason) {
        let request = v1::GetAuthorizationRequest { flow_id: self.flow.clone(), wait: None };
        let answer = client.get_authorization(request).await.unwrap();
        (answer.state(), answer.reason())
    }
}

impl Browser {
    /// Opens the link and signs in as `user`.
    pub(crate) async fn signed_in(&mut self, link: &Link, user: &str) -> Page {
        let login = self.open(&link.url).await;
        self.press(&login, "user", user).await
    }

    /// From our consent page, through the provider's pages, up to the address that carries its answer.
    pub(crate) async fn answer(&mut self, consent: &Page, user: &str, decision: (&str, &str)) -> Url {
        let page = self.provider_consent(consent, user).await;
        self.press_up_to(&page, decision, OAUTH_CALLBACK).await
    }

    /// From our consent page up to the provider's.
    pub(crate) async fn provider_consent(&mut self, consent: &Page, user: &str) -> Page {
        let leaving = self.press(consent, APPROVE.0, APPROVE.1).await;
        let login = self.go_on(&leaving).await;
        self.press(&login, "user", user).await
    }

    /// The whole way, as `user` at both.
    pub(crate) async fn connect(&mut self, link: &Link, user: &str) -> Page {
        let consent = self.signed_in(link, user).await;
        let page = self.provider_consent(&consent, user).await;
        self.press(&page, APPROVE.0, APPROVE.1).await
    }
}

/// How often the provider was asked to exchange a code.
pub(crate) fn exchanges(world: &World) -> u64 {
    world.provider.stats().requests(Endpoint::Token)
}

/// Nothing came of it: no code was exchanged, and nobody has a connection.
pub(crate) async fn nothing_is_stored(world: &World) {
    assert_eq!(exchanges(world), 0);
    for user in ["alice", "bob"] {
        let listed = world.client(user).list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
        assert_eq!(listed.connections, [], "{user}");
    }
}

/// The audit trail's refusals and failures of these actions, oldest first.
pub(crate) async fn refusals(world: &mut World, action: AuditAction) -> Vec<(AuditResult, Option<Reason>)> {
    let all = trail(world).await;
    let refused = all.iter().filter(|record| record.action == action && record.result != AuditResult::Allowed);
    refused.map(|record| (record.result, record.reason)).collect()
}

/// Stops the broker and reads its whole audit trail.
pub(crate) async fn trail(world: &mut World) -> Vec<AuditRecord> {
    world.stop().await;
    let records = Records::open(world).await;
    let all = records.vault.audit(0, usize::MAX).await.unwrap();
    records.close().await;
    all.into_iter().map(|(_, record)| record).collect()
}
