//! The use cases, one file each. Every mutation is one change set: the record, its events, its audit records and its
//! follow-up jobs commit together, and only then are acknowledged and published.
//!
//! - [`authorize`]: the zero-trust chain · [`get_plugin_token`], [`get_plugin_tokens`] · [`start_authorization`]
//! - [`store_auth_code`], [`exchange`], [`settle_flow`] · [`browser`]: our pages' side of it · [`revoke`] · [`report_applied`] · [`watch`] ·
//!   [`connections`] · [`validate_platform_token`]
//! - [`get_status`], [`create_backup`]: for operators · [`suspension`]: providers that refuse our registration
//! - [`refresh`]: the refresh engine · [`jobs`], [`scheduler`]: what goes on by itself · [`flights`]: detached tasks
//! - [`rotate_key`], [`list_keys`]: the sealing keys · [`erase_subject`]: destroying one
//! - [`retention`]: the old ends of the logs · [`trail`]: how all of them write the audit trail · [`catalog`], [`reconfigure`]: what the
//!   operator configured

mod authorize;
mod browser;
mod catalog;
mod connections;
mod create_backup;
mod erase_subject;
mod error;
mod exchange;
mod flights;
mod get_plugin_token;
mod get_plugin_tokens;
mod get_status;
mod jobs;
mod list_keys;
mod reconfigure;
mod refresh;
mod report_applied;
mod retention;
mod revoke;
mod rotate_key;
mod scheduler;
mod settle_flow;
mod start_authorization;
mod store_auth_code;
mod suspension;
mod trail;
mod validate_platform_token;
mod watch;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use browser::{
    ConnectPage, ConsentRequest, Cookies, Ended, FormProof, LOGIN_CALLBACK, OAUTH_CALLBACK, Outcome, SentToProvider,
    SignInBegun, SignedInBrowser, VisitRefused,
};
pub use catalog::{Catalog, Tenant, UrlRule};
pub use connections::{LONGEST_WAIT, ShownConnection};
pub use create_backup::{BackupPart, BackupSummary};
pub use error::{AuthenticationRequired, BrokerError};
pub use get_plugin_token::{GetPluginToken, PluginToken, ScopeEnforcement};
pub use get_plugin_tokens::MOST_TOKENS;
pub use get_status::Status;
pub use retention::Retention;
pub use revoke::{Revoke, RevokeTarget, RevokedConnection};
pub use start_authorization::{Binding, StartAuthorization, StartedAuthorization, Target};
pub use store_auth_code::{OwnFlow, StoreAuthCode};
pub use validate_platform_token::Validation;
pub use watch::{
    Delivery, DrainReason, OnLost, ResyncReason, Start, Watch, WatchFilter, WatchMessage, WatchQuotas, Wire,
};

use crate::{
    audit::Windows,
    domain::{
        Clock, Connection, ConnectionId, CredentialEvent, EventKind, FlowId, Granted, Nonce, Provider, ProviderId,
        PublicUrl, RefreshTokenEnd, ScopeSet, Timestamp,
    },
    events::Hub,
    identity::Authenticator,
    metrics::{Metrics, Readings},
    oauth::{AuthorizationServers, Tokens},
    vault::{Change, DueRecord, ErasureList, FlowTokens, TokenSet, Vault},
};
use exchange::Exchanged;
use flights::Flights;
use refresh::{Flown, HeldPlace, Pace, Unspent};

/// The broker: all use cases over one store. Clones share everything.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

/// What a broker is made of.
pub struct Parts {
    pub vault: Vault,
    pub servers: AuthorizationServers,
    pub authenticator: Arc<Authenticator>,
    pub catalog: Arc<Catalog>,
    pub hub: Hub,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest that one request to a provider may take.
    pub provider_timeout: Duration,
    /// How long one audit record covers repeated reads; zero: every read has its own.
    pub audit_window: Duration,
    pub retention: Retention,
    pub watch: WatchQuotas,
    /// Where tokens wait that the store could not take; `None`: in memory only.
    pub held_directory: Option<PathBuf>,
    /// Kept outside every copy of the store.
    pub erasures: ErasureList,
    /// Where browsers find our pages; `None`: binding `BROWSER` is not to be had.
    pub public_url: Option<PublicUrl>,
}

struct Inner {
    catalog: ArcSwap<Catalog>,
    parts: Parts,
    metrics: Arc<Metrics>,
    windows: Windows,
    flights: Flights<ConnectionId, Flown>,
    exchanges: Flights<FlowId, Exchanged>,
    revocations: Flights<ConnectionId, bool>,
    attended: Flights<DueRecord, ()>,
    held: HeldPlace,
    pace: Pace,
    unspent: Unspent,
    quota: watch::Quota,
    drains: watch::Drains,
    backups: create_backup::Backups,
    started_at: Timestamp,
    opening: start_authorization::Turns,
    suspensions: suspension::Suspensions,
    /// How often each flow's sign-in was answered, until the flow is over.
    sign_ins: Mutex<HashMap<FlowId, (u32, Timestamp)>>,
    /// A rotation was begun.
    key_work: Notify,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Broker {
    /// Applies what an earlier process could not store before anything is served.
    pub async fn start(parts: Parts) -> Result<Self, BrokerError> {
        let tasks = TaskTracker::new();
        let broker = Self(Arc::new(Inner {
            metrics: Arc::default(),
            windows: Windows::new(parts.settings.audit_window),
            flights: Flights::new(tasks.clone()),
            exchanges: Flights::new(tasks.clone()),
            revocations: Flights::new(tasks.clone()),
            attended: Flights::new(tasks.clone()),
            held: HeldPlace::new(parts.settings.held_directory.clone()),
            pace: Pace::default(),
            unspent: Unspent::default(),
            quota: watch::Quota::new(parts.settings.watch),
            drains: watch::Drains::default(),
            backups: create_backup::Backups::default(),
            started_at: parts.clock.now(),
            opening: start_authorization::Turns::default(),
            suspensions: suspension::Suspensions::default(),
            sign_ins: Mutex::default(),
            key_work: Notify::new(),
            tasks,
            stopping: CancellationToken::new(),
            catalog: ArcSwap::new(Arc::clone(&parts.catalog)),
            parts,
        }));
        // Before an interrupted erasure is finished: afterwards held tokens do not open, and nobody could revoke them.
        broker.recover_held().await?;
        broker.replay_erasures().await?;
        broker.review_suspensions().await?;
        Ok(broker)
    }

    /// Whether calls can be answered: the store is there, and holds everything that providers have handed out.
    pub fn is_ready(&self) -> bool {
        self.vault().store().head().available && self.held().count() == 0 && !self.leaving().is_cancelled()
    }

    /// Stops beginning new work and waits for what is in the air: an exchange or refresh that was cut off would lose
    /// tokens. Ends the watch streams with a drain.
    pub async fn stop(&self) {
        self.begin_draining(Duration::ZERO);
        self.0.stopping.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        let last = self.windows().end(self.now());
        if let Err(error) = self.record_repeated(last).await {
            tracing::warn!(%error, "the last audit windows could not be closed");
        }
    }

    /// How often, since this process began, something was found in the store that no change set leaves there, or a
    /// provider that refuses our registration.
    pub fn alarms(&self) -> u64 {
        self.vault().alarms() + self.suspensions().alarms()
    }

    /// What is counted here and at the edges.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Everything that Prometheus is told.
    pub fn metrics_text(&self) -> String {
        let readings = Readings { ready: self.is_ready(), held_tokens: self.held().count(), alarms: self.alarms() };
        self.metrics().text(readings)
    }

    /// What is in force now; whoever needs a consistent view keeps it for the whole call.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.load_full()
    }

    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }

    fn vault(&self) -> &Vault {
        &self.0.parts.vault
    }

    fn servers(&self) -> &AuthorizationServers {
        &self.0.parts.servers
    }

    fn authenticator(&self) -> &Authenticator {
        &self.0.parts.authenticator
    }

    fn hub(&self) -> &Hub {
        &self.0.parts.hub
    }

    fn settings(&self) -> &Settings {
        &self.0.parts.settings
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.parts.clock
    }

    fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    fn windows(&self) -> &Windows {
        &self.0.windows
    }

    fn flights(&self) -> &Flights<ConnectionId, Flown> {
        &self.0.flights
    }

    fn exchanges(&self) -> &Flights<FlowId, Exchanged> {
        &self.0.exchanges
    }

    fn revocations(&self) -> &Flights<ConnectionId, bool> {
        &self.0.revocations
    }

    fn attended(&self) -> &Flights<DueRecord, ()> {
        &self.0.attended
    }

    fn held(&self) -> &HeldPlace {
        &self.0.held
    }

    fn pace(&self) -> &Pace {
        &self.0.pace
    }

    fn unspent(&self) -> &Unspent {
        &self.0.unspent
    }

    fn key_work(&self) -> &Notify {
        &self.0.key_work
    }

    fn quota(&self) -> &watch::Quota {
        &self.0.quota
    }

    fn drains(&self) -> &watch::Drains {
        &self.0.drains
    }

    fn suspensions(&self) -> &suspension::Suspensions {
        &self.0.suspensions
    }

    fn backups(&self) -> &create_backup::Backups {
        &self.0.backups
    }

    fn opening(&self) -> &start_authorization::Turns {
        &self.0.opening
    }

    fn provider(&self, id: &ProviderId) -> Result<Arc<Provider>, BrokerError> {
        self.catalog().providers.get(id).cloned().ok_or(BrokerError::ProviderUnknown)
    }

    /// Random bytes for an id.
    fn fresh<const N: usize>(&self) -> Result<[u8; N], BrokerError> {
        Ok(self.vault().random().bytes()?)
    }

    /// A token response as it waits to be stored.
    fn waiting(tokens: Tokens, asked: &ScopeSet, nonce: Option<Nonce>) -> FlowTokens {
        let obtained_at = tokens.asked_at;
        let granted = Granted {
            // RFC 6749 §5.1: what the provider does not say was granted as asked.
            scopes: tokens.scopes.unwrap_or_else(|| asked.clone()),
            expires_at: tokens.expires_in.map(|life| obtained_at.plus(life)),
            refreshable: tokens.refresh.is_some(),
            refresh_token_end: tokens
                .refresh_expires_in
                .map(|life| RefreshTokenEnd { at: obtained_at.plus(life), since: obtained_at }),
        };
        let tokens = TokenSet { access: tokens.access, refresh: tokens.refresh, id_token: tokens.id_token };
        FlowTokens { tokens, granted, obtained_at, nonce }
    }

    fn announce(&self, change: &mut Change, connection: &Connection, kinds: &[EventKind]) {
        for kind in kinds {
            change.event(&CredentialEvent {
                kind: *kind,
                tenant: connection.tenant.clone(),
                occurred_at: self.now(),
                // New tokens prove that the provider takes our registration.
                status: match kind {
                    EventKind::Connected | EventKind::Recovered | EventKind::Refreshed => {
                        self.status_as_stored(connection)
                    }
                    _ => self.status_of(connection),
                },
            });
        }
    }
}
