//! A provider that is silent holds up nobody else's connections.

use std::sync::Arc;

use claviger::domain::Provider;
use tokio::net::TcpListener;

use super::{IN_MARGIN, in_time};
use crate::installation::{Installation, authorize, store, token};

/// More than the scheduler reads at a time.
const SILENT: u16 = 260;

/// Takes connections and says nothing.
async fn silence() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            taken.push(connection);
        }
    });
    format!("http://{address}/token")
}

#[tokio::test]
async fn a_silent_provider_keeps_no_other_from_being_refreshed() {
    let mut installation = Installation::new().await;
    let (broker, _disk) = installation.start().await;
    for user in 0..SILENT {
        let answer = authorize(&installation.world, &broker, user).await;
        store(&broker, &answer, user).await.unwrap();
    }
    // From now on the provider of all these is silent, and its double, at which one more user connects, is not.
    let mut silent = Provider::clone(installation.catalog.providers.values().next().unwrap());
    let talking = Provider { id: "talking".parse().unwrap(), ..silent.clone() };
    silent.definition.endpoints.token = Some(silence().await.parse().unwrap());
    installation.catalog.plugins.values_mut().for_each(|plugin| plugin.provider = talking.id.clone());
    installation.catalog.providers = [silent, talking].map(|provider| (provider.id.clone(), Arc::new(provider))).into();
    let (broker, _disk) = installation.start().await;
    installation.world.clock.advance(crate::world::MINUTE);
    let answer = authorize(&installation.world, &broker, SILENT).await;
    store(&broker, &answer, SILENT).await.unwrap();

    let mut head = installation.disk.watch_head();
    let scheduler = tokio::spawn(broker.clone().run_scheduler());
    installation.world.clock.advance(IN_MARGIN);
    in_time(async {
        while installation.world.refreshes() == 0 {
            head.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(token(&broker, SILENT).await.ok().unwrap().connection.value.credential.generation, 2);
    scheduler.abort();
}
