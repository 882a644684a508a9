//! What `dev` runs: a broker on a generated key and an embedded store, and the provider that it knows.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Listeners, SystemClock, listen},
    broker::{LOGIN_CALLBACK, OAUTH_CALLBACK},
    client::{Client, Connect},
    config::{
        AuditSection, Config, EventsSection, GrpcSection, HttpSection, LimitsSection, LogSection, MetricsSection,
        OutboundSection, PluginSection, ProviderSection, RedirectRule, Reflection, SealingSection, Size, StoreSection,
        TenantSection, TracesSection, WatchSection,
    },
    dev::{self, Arm, DevProvider, PlatformClaims, Signer},
    domain::{Endpoints, PresentedToken, Provider, PublicUrl, Role, Rotation, Scope, TokenUsage},
    identity::{Algorithm, Family, Issuer, IssuerName, Keys, RoleRule, SignIn, TenantRule},
    outbound::{Outbound, Policy},
    sealing::{Random, root_key},
};

/// Whom platform tokens are for.
const AUDIENCE: &str = "claviger";
/// How long `alice.token` lasts.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);
const STORE: &str = "store";
/// The path on which native applications receive the code, on any loopback port.
pub(super) const CALLBACK: &str = "/callback";

#[derive(Debug, thiserror::Error)]
#[error(
    "{} is missing, and {} is sealed under it: put it back, or remove {} to begin anew",
    path.display(), store.display(), directory.display()
)]
pub(in crate::cli) struct RootKeyGone {
    path: PathBuf,
    store: PathBuf,
    directory: PathBuf,
}

pub(super) struct Settings {
    pub(super) directory: PathBuf,
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) provider: SocketAddr,
    pub(super) access_token_lifetime: Duration,
    pub(super) rotation: Rotation,
    pub(super) faults: Vec<Arm>,
}

/// A running broker and its provider.
pub(super) struct World {
    pub(super) provider: DevProvider,
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    serving: JoinHandle<anyhow::Result<()>>,
    ended: watch::Receiver<bool>,
    shutdown: CancellationToken,
}

impl World {
    pub(super) async fn start(settings: Settings) -> anyhow::Result<Self> {
        private_directory(&settings.directory)?;
        let random = Random::system();
        let root_key = root_key(&settings.directory, &random)?;
        let listeners = Listeners {
            grpc: listen(settings.grpc).await.context("--grpc")?,
            http: listen(settings.http).await.context("--http")?,
            metrics: None,
        };
        let (grpc, http) = (listeners.grpc.local_addr()?, listeners.http.local_addr()?);
        let pages = PublicUrl::new(format!("http://{http}").parse()?).context("--http")?;
        let provider = start_provider(&settings, &pages, &random).await?;
        settings.faults.iter().for_each(|fault| provider.faults().add(fault.clone()));
        let config = config(&settings, &pages, &provider, root_key)?;
        let app = App::build(config, Arc::new(SystemClock), random).await?;
        let shutdown = CancellationToken::new();
        let (end, ended) = watch::channel(false);
        let serving = tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                let result = app.serve(listeners, shutdown).await;
                end.send_replace(true);
                result
            }
        });
        Ok(Self { provider, grpc, http, serving, ended, shutdown })
    }

    /// Completes when the broker has stopped by itself.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let result = self.serving.await.context("the broker's task died")?;
        self.provider.shutdown().await;
        result
    }

    pub(super) fn token(&self, user: &str) -> anyhow::Result<PresentedToken> {
        Ok(self.provider.mint_platform_token(user, &claims())?)
    }

    /// Signed with a key that the platform never had.
    pub(super) fn forged_token(&self, user: &str) -> anyhow::Result<PresentedToken> {
        Ok(self.provider.mint_platform_token(user, &PlatformClaims { signer: Signer::Forger, ..claims() })?)
    }

    pub(super) fn client(&self, token: &PresentedToken) -> anyhow::Result<Client> {
        let connect = Connect { endpoint: format!("http://{}", self.grpc), ..Connect::default() };
        Ok(connect.with_token(token)?)
    }

    /// For calls to the provider, as a browser or an agent makes them.
    pub(super) fn outbound() -> anyhow::Result<Outbound> {
        Ok(Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() })?)
    }
}

fn claims() -> PlatformClaims {
    PlatformClaims { lifetime: TOKEN_LIFETIME, ..PlatformClaims::to(AUDIENCE) }
}

async fn start_provider(settings: &Settings, pages: &PublicUrl, random: &Random) -> anyhow::Result<DevProvider> {
    let listener = listen(settings.provider).await.context("--provider")?;
    let options = dev::Options {
        directory: Some(settings.directory.join("provider")),
        redirect_uris: vec![format!("http://127.0.0.1{CALLBACK}").parse()?, pages.at(OAUTH_CALLBACK)],
        sign_in_redirect_uris: vec![pages.at(LOGIN_CALLBACK)],
        access_token_lifetime: settings.access_token_lifetime,
        rotation: settings.rotation,
        ..dev::Options::default()
    };
    let random = random.clone();
    let fill = move |bytes: &mut [u8]| random.fill(bytes).expect("the system's random source does not fail on Linux");
    Ok(DevProvider::start(listener, options, Arc::new(SystemClock), fill).await?)
}

fn config(settings: &Settings, pages: &PublicUrl, provider: &DevProvider, root_key: PathBuf) -> anyhow::Result<Config> {
    let plugins = dev::PLUGINS.iter().map(|plugin| -> anyhow::Result<PluginSection> {
        Ok(PluginSection {
            id: plugin.id.parse()?,
            display_name: plugin.name.to_owned(),
            provider: "dev".parse()?,
            scopes: plugin.scopes(),
            usage: TokenUsage {
                base_url: Some(format!("{}/api/{}", provider.issuer(), plugin.id).parse()?),
                ..TokenUsage::default()
            },
            enabled: true,
        })
    });
    Ok(Config {
        grpc: GrpcSection { listen: settings.grpc, reflection: Reflection::Open, ..GrpcSection::default() },
        http: HttpSection { listen: settings.http, public_url: Some(pages.at("/")), ..HttpSection::default() },
        limits: LimitsSection::default(),
        store: StoreSection {
            directory: settings.directory.join(STORE),
            page_cache: Size::mib(64),
            row_cache: Size::mib(16),
        },
        sealing: SealingSection { root_keys: vec![root_key] },
        outbound: OutboundSection { allow_http_loopback: true, ..OutboundSection::default() },
        audit: AuditSection::default(),
        events: EventsSection::default(),
        watch: WatchSection::default(),
        log: LogSection::default(),
        metrics: MetricsSection { listen: Some(settings.http) },
        traces: TracesSection::default(),
        identity: vec![family(provider)?],
        tenants: vec![TenantSection {
            id: "dev".parse()?,
            require_agent: false,
            return_urls: Vec::new(),
            redirect_uris: vec![RedirectRule::Loopback(CALLBACK.to_owned())],
        }],
        providers: vec![ProviderSection {
            id: "dev".parse()?,
            definition: "oidc".to_owned(),
            issuer: Some(provider.issuer().parse()?),
            directory: None,
            endpoints: Endpoints::default(),
            rotation: Some(provider.rotation()),
            client_id: dev::CLIENT_ID.to_owned(),
            client_secret_file: None,
            client_secret: Some(provider.client_secret()),
            refreshes_per_second: Provider::REFRESHES_PER_SECOND,
        }],
        plugins: plugins.collect::<Result<_, _>>()?,
        agents: Vec::new(),
        toolboxes: Vec::new(),
        grants: Vec::new(),
    })
}

fn family(provider: &DevProvider) -> anyhow::Result<Family> {
    Ok(Family {
        id: "dev".parse()?,
        subject_claims: vec!["sub".to_owned()],
        realm_claim: None,
        issuers: vec![Issuer {
            issuer: IssuerName::Exact(provider.platform_issuer()),
            audiences: [AUDIENCE.to_owned()].into(),
            algorithms: [Algorithm::Rs256, Algorithm::Es256].into(),
            keys: Keys::Discovery,
            tenant: TenantRule::Fixed("dev".parse()?),
            agent_claims: vec!["azp".to_owned()],
            // Whoever tries the operators' commands needs no second token.
            roles: vec![RoleRule {
                role: Role::Operator,
                claim: "sub".to_owned(),
                values: ["alice".to_owned()].into(),
            }],
            token_types: vec!["at+jwt".to_owned()],
            access_token_claims: Vec::new(),
        }],
        sign_in: Some(SignIn {
            issuer: provider.platform_issuer().parse()?,
            client_id: dev::SIGN_IN_CLIENT_ID.to_owned(),
            client_secret: Some(provider.client_secret()),
            client_secret_file: None,
            scopes: "openid".parse::<Scope>().into_iter().collect(),
            subject_is_public: true,
        }),
    })
}

/// Where the key is. One is made only for a store that is yet to come: a store that is there opens under its own.
fn root_key(directory: &Path, random: &Random) -> anyhow::Result<PathBuf> {
    let (path, store) = (directory.join("root.key"), directory.join(STORE));
    if !path.try_exists().with_context(|| format!("{} cannot be looked for", path.display()))? {
        if store.exists() {
            return Err(RootKeyGone { path, store, directory: directory.to_owned() }.into());
        }
        root_key::file::create(&path, random)?;
    }
    Ok(path)
}

fn private_directory(directory: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("{} cannot be made", directory.display()))
}
