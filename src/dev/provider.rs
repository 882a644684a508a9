//! A running development server, and what tests may ask of it.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpListener, sync::oneshot, task, task::JoinHandle};

use super::{
    Faults, GrantId, Options, PlatformClaims, Realm, Settings, StateError, Stats, TokenRequest,
    connection::{Cut, CuttableListener},
    identity::Identity,
    journal::Journal,
    ledger::{Grant, Ledger, LedgerStore},
    platform,
    random::{Fingerprint, Random},
    settings::InForce,
    site::{self, Shared, Site},
    state_file::StateFile,
};
use crate::domain::{AccessToken, ClientSecret, Clock, PresentedToken, RefreshToken, Rotation, ScopeSet, Timestamp};

/// Why a development server does not run.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// Users log in without passwords here: nobody else's machine may reach it.
    #[error("a development server serves on loopback only, not on {address}")]
    NotLoopback { address: SocketAddr },
    #[error("the listener has no address: {kind}")]
    Listener { kind: ErrorKind },
    #[error(transparent)]
    State(#[from] StateError),
    #[error("keys could not be generated")]
    KeyGeneration,
    #[error("signing failed")]
    Signing,
}

/// A running server. Dropping it stops it in the background.
pub struct DevProvider {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// One grant, for tests to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantState {
    pub id: GrantId,
    pub realm: Realm,
    pub client_id: String,
    pub user: String,
    pub scopes: ScopeSet,
    pub granted_at: Timestamp,
    /// Revoked by the client, or ended because a code or refresh token came twice.
    pub ended_at: Option<Timestamp>,
    /// Refresh tokens that the token endpoint would take now.
    pub live_refresh_tokens: usize,
}

impl DevProvider {
    /// Serves on `listener`, in tasks of the current runtime. `random` fills buffers from a cryptographic source.
    pub async fn start(
        listener: TcpListener,
        options: Options,
        clock: Arc<dyn Clock>,
        random: impl Fn(&mut [u8]) + Send + Sync + 'static,
    ) -> Result<Self, DevError> {
        let address = listener.local_addr().map_err(|error| DevError::Listener { kind: error.kind() })?;
        if !address.ip().is_loopback() {
            return Err(DevError::NotLoopback { address });
        }
        let shared = Arc::new(open(address, options, clock, Random::new(random)).await?);
        let service = site::router(&shared).into_make_service_with_connect_info::<Cut>();
        let (stop, stopped) = oneshot::channel();
        let server = axum::serve(CuttableListener(listener), service).with_graceful_shutdown(async {
            // Sent by `shutdown`, or dropped with the server: both mean stop.
            let _ = stopped.await;
        });
        let serving = task::spawn(async {
            // Ends without an error, by axum's contract: accept errors are retried there.
            let _ = server.await;
        });
        Ok(Self { shared, address, stop: Mutex::new(Some((stop, serving))) })
    }

    /// Lets held requests go, finishes what runs for at most five seconds, and closes the listener.
    pub async fn shutdown(&self) {
        let Some((stop, serving)) = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        self.shared.faults.release_all();
        let _ = stop.send(());
        let give_up = self.shared.clock.sleep_until(self.shared.clock.now().plus(LAST_REQUESTS));
        tokio::select! {
            _ = serving => {}
            () = give_up => {}
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The demo provider's issuer, which is also the server's base URL.
    pub fn issuer(&self) -> String {
        self.issuer_of(Realm::Provider)
    }

    pub fn platform_issuer(&self) -> String {
        self.issuer_of(Realm::Platform)
    }

    /// As ID tokens name it.
    pub fn issuer_of(&self, realm: Realm) -> String {
        self.site(realm).issuer()
    }

    /// The address of something below a realm's own path, `/api/auth.test` for example.
    pub fn url_of(&self, realm: Realm, path: &str) -> String {
        self.site(realm).url(path)
    }

    /// The secret of both confidential clients.
    pub fn client_secret(&self) -> ClientSecret {
        self.shared.identity.client_secret.clone()
    }

    /// A token of the platform for `user`, who need not exist: tests ask for strangers too.
    pub fn mint_platform_token(&self, user: &str, claims: &PlatformClaims) -> Result<PresentedToken, DevError> {
        platform::mint(&self.site(Realm::Platform), user, claims)
    }

    pub fn rotation(&self) -> Rotation {
        self.settings().rotation
    }

    pub fn settings(&self) -> Settings {
        self.shared.settings.get()
    }

    /// For what is issued and rotated from now on.
    pub fn set(&self, settings: Settings) {
        self.shared.settings.set(settings);
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    pub fn stats(&self) -> Stats {
        self.shared.journal.stats()
    }

    /// The latest requests to both token endpoints, oldest first.
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.shared.journal.token_requests()
    }

    pub fn grants(&self) -> Vec<GrantState> {
        self.shared.ledger.read(|ledger| ledger.grants().map(|(id, grant)| self.describe(id, grant)).collect())
    }

    pub fn grant(&self, id: &GrantId) -> Option<GrantState> {
        self.shared.ledger.read(|ledger| ledger.grant(id).map(|grant| self.describe(id, grant)))
    }

    /// Refresh tokens of a grant that the token endpoint would take now; 0 for an unknown grant.
    pub fn live_refresh_tokens(&self, id: &GrantId) -> usize {
        self.grant(id).map_or(0, |grant| grant.live_refresh_tokens)
    }

    pub fn is_refresh_token_live(&self, token: &RefreshToken) -> bool {
        let fingerprint = Fingerprint::of(token.expose());
        let now = self.shared.clock.now();
        self.shared.ledger.read(|ledger| {
            let found = ledger.grant_of_refresh_token(&fingerprint);
            found.is_some_and(|(_, grant)| grant.accepts(&fingerprint, self.site(grant.realm).rotation(), now))
        })
    }

    /// Whether APIs would take it now, whatever its scopes.
    pub fn is_access_token_live(&self, token: &AccessToken) -> bool {
        let fingerprint = Fingerprint::of(token.expose());
        let now = self.shared.clock.now();
        let is_live = |ledger: &Ledger, realm| ledger.live_access_token(&fingerprint, realm, now).is_some();
        self.shared.ledger.read(|ledger| Realm::ALL.into_iter().any(|realm| is_live(ledger, realm)))
    }

    fn describe(&self, id: &GrantId, grant: &Grant) -> GrantState {
        GrantState {
            id: id.clone(),
            realm: grant.realm,
            client_id: grant.client.clone(),
            user: grant.user.clone(),
            scopes: grant.scopes.clone(),
            granted_at: grant.granted_at,
            ended_at: grant.ended_at,
            live_refresh_tokens: grant.live_refresh_tokens(self.site(grant.realm).rotation(), self.shared.clock.now()),
        }
    }

    fn site(&self, realm: Realm) -> Site {
        Site { shared: self.shared.clone(), realm }
    }
}

/// Reads or makes the state, away from the runtime's threads: making RSA keys takes a while.
async fn open(
    address: SocketAddr,
    options: Options,
    clock: Arc<dyn Clock>,
    random: Random,
) -> Result<Shared, DevError> {
    let opened = task::spawn_blocking(move || {
        let identity =
            Identity::load_or_generate(options.directory.as_deref(), options.client_secret.clone(), &random)?;
        let ledger = match &options.directory {
            Some(directory) => LedgerStore::open(StateFile::new(directory, "grants.json")?)?,
            None => LedgerStore::in_memory(),
        };
        let (faults, journal) = (Faults::default(), Journal::default());
        let Options { rotation, access_token_lifetime, .. } = options;
        let settings = InForce::new(Settings { rotation, access_token_lifetime });
        let (base, port) = (format!("http://{address}"), address.port());
        Ok(Shared { base, port, options, settings, clock, random, identity, ledger, faults, journal })
    });
    opened.await.unwrap_or(Err(DevError::State(StateError::Interrupted)))
}

const LAST_REQUESTS: Duration = Duration::from_secs(5);
