//! Finding a server's metadata (RFC 8414 §3, OpenID Connect Discovery §4), and remembering it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache;
use tokio::sync::Mutex;
use url::Url;

use super::{
    json::Document,
    metadata::{Metadata, RefusedMetadata},
};
use crate::{
    domain::{Clock, Issuer, Timestamp},
    outbound::{Outbound, OutboundError, Request},
};

/// Why there is no metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    #[error("the metadata of {issuer} is out of reach")]
    Unreachable { issuer: Issuer, source: OutboundError },
    /// Something answered at the well-known addresses, but not with a metadata document.
    #[error("{issuer} publishes no metadata (last status {status})")]
    Absent { issuer: Issuer, status: u16 },
    #[error("the metadata of {issuer} is refused: {refused}")]
    Refused { issuer: Issuer, refused: RefusedMetadata },
}

/// Metadata by issuer: asked for at most once an hour, and by one caller at a time.
pub(super) struct Discovery {
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    slots: Cache<Issuer, Arc<Slot>>,
}

#[derive(Default)]
struct Slot {
    known: ArcSwapOption<Known>,
    /// Held while asking. Without it, every flight of a provider would ask at the same second.
    asking: Mutex<()>,
}

#[derive(Clone)]
struct Known {
    answer: Result<Arc<Metadata>, DiscoveryError>,
    asked_at: Timestamp,
    ask_again_at: Timestamp,
    /// The last good document, and when it was fetched.
    good: Option<(Arc<Metadata>, Timestamp)>,
}

impl Discovery {
    pub(super) fn new(outbound: Outbound, clock: Arc<dyn Clock>) -> Self {
        Self { outbound, clock, slots: Cache::new(ISSUERS) }
    }

    /// The issuer's metadata, at most [`FRESH`] old; while the server cannot be reached or publishes something that
    /// must be refused, the last good one for [`OUTAGE`].
    /// `named` is what the server calls itself, which is not `issuer` where that is shared by many directories.
    pub(super) async fn metadata(&self, issuer: &Issuer, named: &Issuer) -> Result<Arc<Metadata>, DiscoveryError> {
        let slot = self.slot(issuer);
        if let Some(answer) = slot.settled(self.clock.now()) {
            return answer;
        }
        let _turn = match (slot.asking.try_lock(), slot.last_good(self.clock.now())) {
            (Ok(turn), _) => turn,
            (Err(_), Some(metadata)) => return Ok(metadata),
            (Err(_), None) => slot.asking.lock().await,
        };
        if let Some(answer) = slot.settled(self.clock.now()) {
            return answer;
        }
        let fetched = self.fetch(issuer, named).await;
        slot.settle(fetched, self.clock.now())
    }

    fn slot(&self, issuer: &Issuer) -> Arc<Slot> {
        let slot = self.slots.get_or_insert_with(issuer, || Ok::<_, std::convert::Infallible>(Arc::default()));
        slot.unwrap_or_else(|never| match never {})
    }

    /// Tries the well-known addresses in order. A document of another issuer is passed over: a server may answer a
    /// path that it does not know with its root's document.
    async fn fetch(&self, issuer: &Issuer, named: &Issuer) -> Result<Arc<Metadata>, DiscoveryError> {
        let mut worst = None;
        for address in well_known(issuer) {
            let error =
                match self.outbound.send(Request::get(address).accept_json().at_most(LARGEST).within(PATIENCE)).await {
                    Err(source) => DiscoveryError::Unreachable { issuer: issuer.clone(), source },
                    Ok(reply) => match Document::parse(&reply.body).filter(|_| reply.status.is_success()) {
                        None => DiscoveryError::Absent { issuer: issuer.clone(), status: reply.status.as_u16() },
                        Some(document) => {
                            let read = Metadata::read(&document, named, |url| self.outbound.check(url).is_ok());
                            match read {
                                Ok(metadata) => return Ok(Arc::new(metadata)),
                                Err(refused) => DiscoveryError::Refused { issuer: issuer.clone(), refused },
                            }
                        }
                    },
                };
            if is_final(&error) {
                return Err(error);
            }
            worst = Some(graver(worst, error));
        }
        Err(worst.expect("there is always a well-known address"))
    }
}

impl Slot {
    /// The remembered answer, while it need not be asked for again. A clock set back makes it worthless.
    fn settled(&self, now: Timestamp) -> Option<Result<Arc<Metadata>, DiscoveryError>> {
        let known = self.known.load_full()?;
        (known.asked_at <= now && now < known.ask_again_at).then(|| known.answer.clone())
    }

    fn last_good(&self, now: Timestamp) -> Option<Arc<Metadata>> {
        let (metadata, fetched_at) = self.known.load_full()?.good.clone()?;
        (now - fetched_at < OUTAGE).then_some(metadata)
    }

    fn settle(
        &self,
        fetched: Result<Arc<Metadata>, DiscoveryError>,
        now: Timestamp,
    ) -> Result<Arc<Metadata>, DiscoveryError> {
        let before = self.known.load_full().and_then(|known| known.good.clone());
        let (answer, good, pause) = match (fetched, self.last_good(now)) {
            (Ok(metadata), _) => (Ok(metadata.clone()), Some((metadata, now)), FRESH),
            (Err(_), Some(metadata)) => (Ok(metadata), before, OUTAGE_PAUSE),
            (Err(error), None) => (Err(error), None, FAILURE_PAUSE),
        };
        let known = Known { answer: answer.clone(), asked_at: now, ask_again_at: now.plus(pause), good };
        self.known.store(Some(Arc::new(known)));
        answer
    }
}

/// The well-known part goes between host and path (RFC 8414 §3.1); OpenID Connect Discovery §4 appends it instead.
fn well_known(issuer: &Issuer) -> Vec<Url> {
    let base = issuer.url();
    let at = |path: String| {
        let mut address = base.clone();
        address.set_path(&path);
        address
    };
    let path = base.path().trim_end_matches('/');
    let mut addresses = vec![
        at(format!("/.well-known/oauth-authorization-server{path}")),
        at(format!("/.well-known/openid-configuration{path}")),
    ];
    if !path.is_empty() {
        addresses.push(at(format!("{path}/.well-known/openid-configuration")));
    }
    addresses
}

/// The other addresses are on the same host, and the right document is not made better by another one.
fn is_final(error: &DiscoveryError) -> bool {
    match error {
        DiscoveryError::Unreachable { source, .. } => !matches!(source, OutboundError::TooLarge { .. }),
        DiscoveryError::Refused { refused, .. } => *refused != RefusedMetadata::IssuerMismatch,
        DiscoveryError::Absent { .. } => false,
    }
}

/// Which failure tells more: a wrong document before none, none before silence.
fn graver(before: Option<DiscoveryError>, new: DiscoveryError) -> DiscoveryError {
    let gravity = |error: &DiscoveryError| match error {
        DiscoveryError::Refused { .. } => 2,
        DiscoveryError::Absent { .. } => 1,
        DiscoveryError::Unreachable { .. } => 0,
    };
    match before {
        Some(before) if gravity(&before) > gravity(&new) => before,
        _ => new,
    }
}

const ISSUERS: usize = 1024;
const LARGEST: usize = 256 * 1024;
/// For one document: a user may be waiting.
const PATIENCE: Duration = Duration::from_secs(10);
const FRESH: Duration = Duration::from_secs(3600);
/// How long a good document outlives its server's silence.
const OUTAGE: Duration = Duration::from_secs(24 * 3600);
const OUTAGE_PAUSE: Duration = Duration::from_secs(60);
const FAILURE_PAUSE: Duration = Duration::from_secs(10);
