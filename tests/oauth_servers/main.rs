//! The calls to authorization servers, over real sockets against a scripted server.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

mod account;
mod authorize;
mod discovery;
mod revoke;
mod token;
#[path = "../support/token_endpoint.rs"]
mod token_endpoint;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use claviger::{
    domain::{BoxFuture, ClientSecret, Clock, Definition, Provider, Timestamp},
    oauth::{AuthorizationServers, definitions::shipped},
    outbound::{Outbound, Policy},
};
use token_endpoint::TokenEndpoint;

/// A clock that the test moves by hand.
struct HandClock(AtomicI64);

impl HandClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, _: Timestamp) -> BoxFuture<'static, ()> {
        unreachable!("nothing in oauth sleeps")
    }
}

/// A server, and the calls under test.
struct World {
    endpoint: TokenEndpoint,
    servers: Arc<AuthorizationServers>,
    clock: Arc<HandClock>,
}

impl World {
    async fn start() -> Self {
        Self::with_timeout(Duration::from_secs(10)).await
    }

    async fn with_timeout(timeout: Duration) -> Self {
        let policy = Policy { allow_http_loopback: true, timeout, ..Policy::default() };
        let clock = Arc::new(HandClock(AtomicI64::new(NOW * 1000)));
        let servers = Arc::new(AuthorizationServers::new(Outbound::new(&policy).unwrap(), clock.clone()));
        Self { endpoint: TokenEndpoint::start().await, servers, clock }
    }

    /// The shipped OpenID definition, pinned to this server's endpoints.
    fn pinned(&self) -> Provider {
        let mut provider = provider(shipped("oidc").unwrap());
        provider.definition.endpoints.authorization = Some(self.endpoint.url("/authorize"));
        provider.definition.endpoints.token = Some(self.endpoint.url("/token"));
        provider.definition.endpoints.revocation = Some(self.endpoint.url("/revoke"));
        provider
    }

    /// The shipped OpenID definition, to be discovered from this server under `path`.
    fn discovered(&self, path: &str) -> Provider {
        let mut provider = provider(shipped("oidc").unwrap());
        provider.definition.issuer = Some(format!("{}{path}", self.endpoint.issuer()).parse().unwrap());
        provider
    }
}

fn provider(definition: Definition) -> Provider {
    Provider {
        id: "acme".parse().unwrap(),
        definition,
        client_id: "client".to_owned(),
        client_secret: Some(ClientSecret::new("s3cret".to_owned())),
        refreshes_per_second: Provider::REFRESHES_PER_SECOND,
    }
}

/// Seconds since 1970.
const NOW: i64 = 1_800_000_000;
