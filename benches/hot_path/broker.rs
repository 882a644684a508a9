//! The whole broker, as an operator runs it but for the rate limit, which one caller would run into.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use claviger::{
    app::{App, Listeners, SystemClock},
    config::{
        AuditSection, Config, GrpcSection, HttpSection, OutboundSection, PluginSection, ProviderSection, RedirectRule,
        SealingSection, StoreSection, TenantSection,
    },
    dev,
    domain::{ClientSecret, Rotation, TokenUsage},
    identity::{Algorithm, Family, Issuer, IssuerName, Keys, TenantRule},
    sealing::Random,
    telemetry::{LogFormat, Telemetry},
};
use tokio_util::sync::CancellationToken;

use super::servers::{announce, until_told};

pub(super) const ROOT_KEY: &str = "root.key";
pub(super) const CLIENT_SECRET: &str = "of a provider on this machine";
pub(super) const CALLBACK: &str = "/callback";
/// More than a core can answer: the limiter counts and never refuses.
const RATE: u32 = 1_000_000;

#[tokio::main]
pub(super) async fn serve(directory: &Path, issuer: &str) {
    let _telemetry = Telemetry { format: LogFormat::Json, filter: "info", otlp_endpoint: None }.start().unwrap();
    let config = config(directory, issuer);
    let listeners = Listeners::bind(&config).await.unwrap();
    let address = listeners.grpc.local_addr().unwrap();
    let app = App::build(config, Arc::new(SystemClock), Random::system()).await.unwrap();
    announce(address);
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        until_told().await;
        told.cancel();
    });
    app.serve(listeners, shutdown).await.unwrap();
}

fn config(directory: &Path, issuer: &str) -> Config {
    let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
    let plugins = dev::PLUGINS.iter().map(|plugin| PluginSection {
        id: plugin.id.parse().unwrap(),
        display_name: plugin.name.to_owned(),
        provider: "dev".parse().unwrap(),
        scopes: plugin.scopes(),
        usage: TokenUsage {
            base_url: Some(format!("{issuer}/api/{}", plugin.id).parse().unwrap()),
            ..TokenUsage::default()
        },
        enabled: true,
    });
    Config {
        grpc: GrpcSection { listen: anywhere, rate: RATE, ..GrpcSection::default() },
        http: HttpSection { listen: anywhere, ..HttpSection::default() },
        store: StoreSection { directory: directory.join("store"), page_cache: 256 << 20, row_cache: 64 << 20 },
        sealing: SealingSection { root_key: directory.join(ROOT_KEY) },
        outbound: OutboundSection { allow_http_loopback: true, ..OutboundSection::default() },
        audit: AuditSection::default(),
        identity: vec![family(issuer)],
        tenants: vec![TenantSection {
            id: "acme".parse().unwrap(),
            require_agent: false,
            return_urls: Vec::new(),
            redirect_uris: vec![RedirectRule::Loopback(CALLBACK.to_owned())],
        }],
        providers: vec![ProviderSection {
            id: "dev".parse().unwrap(),
            definition: "oidc".to_owned(),
            issuer: Some(issuer.parse().unwrap()),
            rotation: Some(Rotation::Strict),
            client_id: dev::CLIENT_ID.to_owned(),
            client_secret: Some(ClientSecret::new(CLIENT_SECRET.to_owned())),
        }],
        plugins: plugins.collect(),
        agents: Vec::new(),
        toolboxes: Vec::new(),
        grants: Vec::new(),
    }
}

fn family(issuer: &str) -> Family {
    Family {
        id: "platform".parse().unwrap(),
        subject_claims: vec!["sub".to_owned()],
        realm_claim: None,
        issuers: vec![Issuer {
            issuer: IssuerName::Exact(format!("{issuer}/platform")),
            audiences: ["claviger".to_owned()].into(),
            algorithms: [Algorithm::Rs256, Algorithm::Es256].into(),
            keys: Keys::Discovery,
            tenant: TenantRule::Fixed("acme".parse().unwrap()),
            agent_claims: vec!["azp".to_owned()],
            roles: Vec::new(),
            token_types: vec!["at+jwt".to_owned()],
        }],
    }
}
