//! Fetching an issuer's keys: hourly, and on demand within a budget that no flood of invented key ids can exceed.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache;
use tokio::sync::watch;
use url::Url;

use super::{
    Algorithm, ConfigError, Flaw, IdentityError, Issuer, IssuerName, Keys,
    jwk::{Fingerprint, Key, KeySet, NotAKeySet},
};
use crate::{
    domain::{Clock, Timestamp, strict_json_object},
    outbound::{Outbound, OutboundError, Request},
};

/// The keys of one issuer, and when to ask for them again.
pub(super) struct KeySource {
    issuer: String,
    algorithms: BTreeSet<Algorithm>,
    location: Location,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    loaded: ArcSwapOption<Loaded>,
    state: Mutex<State>,
    /// Key ids that the issuer did not know, and until when they are not asked for again.
    absent: Cache<String, Timestamp>,
}

enum Location {
    Discovery(Url),
    Jwks(Url),
}

struct Loaded {
    keys: KeySet,
    at: Timestamp,
}

struct State {
    budget: Budget,
    next_refresh: Timestamp,
    /// The fetch under way; it answers whether it succeeded.
    flight: Option<Flight>,
}

type Flight = watch::Receiver<Option<bool>>;

/// A token bucket.
struct Budget {
    fetches: u32,
    /// When the last fetch was added, or would have been.
    filled_at: Timestamp,
}

/// Why there is no new key set.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("status {0}")]
    Status(u16),
    #[error(transparent)]
    KeySet(#[from] NotAKeySet),
    #[error("not a discovery document")]
    Discovery,
    #[error("the discovery document is another issuer's")]
    OtherIssuer,
}

impl KeySource {
    pub(super) fn new(issuer: &Issuer, outbound: Outbound, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        let name = issuer.issuer.as_str().to_owned();
        let location = match &issuer.keys {
            Keys::Jwks(url) => Location::Jwks(url.clone()),
            Keys::Metadata(url) => Location::Discovery(url.clone()),
            Keys::Discovery => {
                let base = match &issuer.issuer {
                    IssuerName::Exact(name) => name.clone(),
                    template @ IssuerName::Template(_) => template.of(ANY_DIRECTORY),
                };
                let text = format!("{}/.well-known/openid-configuration", base.trim_end_matches('/'));
                Location::Discovery(text.parse().map_err(|_| ConfigError::IssuerNotUrl(name.clone()))?)
            }
        };
        let budget = Budget { fetches: BURST, filled_at: clock.now() };
        Ok(Self {
            issuer: name,
            algorithms: issuer.algorithms.clone(),
            location,
            outbound,
            clock,
            loaded: ArcSwapOption::empty(),
            state: Mutex::new(State { budget, next_refresh: Timestamp::EPOCH, flight: None }),
            absent: Cache::new(MOST_ABSENT),
        })
    }

    /// The key that a token names. Fetches when there is no key set yet, or the key is not in it.
    pub(super) async fn find(
        self: &Arc<Self>,
        unverified_kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Key>, IdentityError> {
        let now = self.clock.now();
        if let Some(loaded) = self.loaded(now) {
            if let Some(key) = loaded.keys.find(unverified_kid, algorithm) {
                return Ok(key);
            }
            let known_absent = unverified_kid.is_none_or(|kid| self.absent.get(kid).is_some_and(|until| now < until));
            if known_absent {
                return Err(Flaw::KeyUnknown.into());
            }
        }
        let flight = self.join_or_pay(now).map_err(|retry_after| IdentityError::JwksUnavailable { retry_after })?;
        let fetched = landed(flight).await;
        let now = self.clock.now();
        if let Some(key) = self.loaded(now).and_then(|loaded| loaded.keys.find(unverified_kid, algorithm)) {
            return Ok(key);
        }
        if !fetched {
            let retry_after = self.state().budget.wait(now).max(SHORTEST_WAIT);
            return Err(IdentityError::JwksUnavailable { retry_after });
        }
        if let Some(kid) = unverified_kid {
            self.absent.insert(kid.to_owned(), now.plus(ABSENT_FOR));
        }
        Err(Flaw::KeyUnknown.into())
    }

    /// Whether the key is still one of the issuer's.
    pub(super) fn holds(&self, key: Fingerprint, now: Timestamp) -> bool {
        let loaded = self.loaded.load();
        loaded.as_ref().is_some_and(|loaded| loaded.serves(now) && loaded.keys.contains(key))
    }

    pub(super) fn next_refresh(&self) -> Timestamp {
        self.state().next_refresh
    }

    /// Starts the background fetch, or joins one under way, if it is due. It costs nothing of the budget.
    pub(super) fn refresh_if_due(self: &Arc<Self>, now: Timestamp) -> Option<Refresh> {
        let mut state = self.state();
        (state.next_refresh <= now).then(|| Refresh(self.join(&mut state, now)))
    }

    /// The last good key set, unless it is too old to be trusted.
    fn loaded(&self, now: Timestamp) -> Option<Arc<Loaded>> {
        self.loaded.load_full().filter(|loaded| loaded.serves(now))
    }

    /// Joins the fetch under way, or pays for one; fails with the time until the budget allows the next.
    fn join_or_pay(self: &Arc<Self>, now: Timestamp) -> Result<Flight, Duration> {
        let mut state = self.state();
        if state.flight_under_way().is_none() {
            state.budget.take(now)?;
        }
        Ok(self.join(&mut state, now))
    }

    /// The fetch runs on its own: callers that give up cannot stop it, and so cannot spend the budget for nothing.
    fn join(self: &Arc<Self>, state: &mut State, now: Timestamp) -> Flight {
        if let Some(flight) = state.flight_under_way() {
            return flight;
        }
        let (landing, flight) = watch::channel(None);
        state.flight = Some(flight.clone());
        state.next_refresh = now.plus(RETRY_AFTER_FAILURE);
        let source = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = source.fetch().await;
            landing.send_replace(Some(source.land(fetched)));
        });
        flight
    }

    fn land(&self, fetched: Result<KeySet, FetchError>) -> bool {
        let now = self.clock.now();
        let succeeded = match fetched {
            Ok(keys) => {
                self.loaded.store(Some(Arc::new(Loaded { keys, at: now })));
                true
            }
            Err(error) => {
                tracing::warn!(issuer = %self.issuer, error = %error, "could not fetch the issuer's keys");
                false
            }
        };
        let mut state = self.state();
        state.flight = None;
        state.next_refresh = now.plus(if succeeded { REFRESH_EVERY } else { RETRY_AFTER_FAILURE });
        succeeded
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let location = match &self.location {
            Location::Jwks(url) => url.clone(),
            Location::Discovery(url) => self.discover(url.clone()).await?,
        };
        let keys = KeySet::parse(&self.document(location).await?, &self.algorithms)?;
        if keys.ambiguous > 0 {
            tracing::warn!(
                issuer = %self.issuer,
                keys = keys.ambiguous,
                "keys without `alg` are left out: several of the issuer's `algorithms` would fit them; list the one in use"
            );
        }
        Ok(keys)
    }

    /// A document of another issuer is not used (OpenID Connect Discovery §4.3): whoever serves it could name keys. The
    /// document of a template names the template.
    async fn discover(&self, url: Url) -> Result<Url, FetchError> {
        let document = strict_json_object(&self.document(url).await?).ok_or(FetchError::Discovery)?;
        let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str).ok_or(FetchError::Discovery);
        if text("issuer")? != self.issuer {
            return Err(FetchError::OtherIssuer);
        }
        text("jwks_uri")?.parse().map_err(|_| FetchError::Discovery)
    }

    async fn document(&self, url: Url) -> Result<zeroize::Zeroizing<Vec<u8>>, FetchError> {
        let request = Request::get(url).accept_json().at_most(LARGEST_DOCUMENT).within(LONGEST_FETCH);
        let reply = self.outbound.send(request).await?;
        if reply.status == http::StatusCode::OK {
            Ok(reply.body)
        } else {
            Err(FetchError::Status(reply.status.as_u16()))
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an issuer's keys can be had: for whoever asks once, without a broker.
pub struct KeysProbe(KeySource);

/// The issuer's keys, or the document that names them, cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct KeysUnusable(FetchError);

impl KeysProbe {
    /// # Errors
    /// The issuer's address cannot be made from its name.
    pub fn new(issuer: &Issuer, outbound: Outbound, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        KeySource::new(issuer, outbound, clock).map(Self)
    }

    /// What is asked for first.
    pub fn location(&self) -> &Url {
        match &self.0.location {
            Location::Discovery(url) | Location::Jwks(url) => url,
        }
    }

    /// Fetches them once, as a broker does.
    ///
    /// # Errors
    /// A broker could not use them either.
    pub async fn fetch(&self) -> Result<(), KeysUnusable> {
        self.0.fetch().await.map(|_| ()).map_err(KeysUnusable)
    }
}

/// A background fetch under way.
pub(super) struct Refresh(Flight);

impl Refresh {
    pub(super) async fn landed(self) {
        landed(self.0).await;
    }
}

/// A fetch that was torn down with its runtime counts as failed.
async fn landed(mut flight: Flight) -> bool {
    flight.wait_for(Option::is_some).await.is_ok_and(|succeeded| *succeeded == Some(true))
}

impl Loaded {
    fn serves(&self, now: Timestamp) -> bool {
        now.since(self.at) < SERVED_FOR
    }
}

impl State {
    fn flight_under_way(&self) -> Option<Flight> {
        self.flight.clone().filter(|flight| flight.has_changed().is_ok())
    }
}

impl Budget {
    fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        self.fill(now);
        if self.fetches == 0 {
            return Err(self.wait(now));
        }
        self.fetches -= 1;
        Ok(())
    }

    fn fill(&mut self, now: Timestamp) {
        while self.fetches < BURST && now.since(self.filled_at) >= ONE_MORE_EVERY {
            self.fetches += 1;
            self.filled_at = self.filled_at.plus(ONE_MORE_EVERY);
        }
        if self.fetches == BURST {
            self.filled_at = now;
        }
    }

    fn wait(&self, now: Timestamp) -> Duration {
        if self.fetches > 0 { Duration::ZERO } else { ONE_MORE_EVERY.saturating_sub(now.since(self.filled_at)) }
    }
}

/// Entra's name for any directory, in addresses.
const ANY_DIRECTORY: &str = "common";
const BURST: u32 = 3;
const ONE_MORE_EVERY: Duration = Duration::from_secs(60);
const REFRESH_EVERY: Duration = Duration::from_secs(60 * 60);
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(60);
const SERVED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// A key that the issuer signs with before publishing it is found at most this late.
const ABSENT_FOR: Duration = Duration::from_secs(60);
const MOST_ABSENT: usize = 1000;
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_FETCH: Duration = Duration::from_secs(10);
const LARGEST_DOCUMENT: usize = 256 * 1024;
