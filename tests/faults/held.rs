//! The provider has answered, and the disk is full.

use std::time::Duration;

use claviger::{
    app::SystemClock,
    dev::{Endpoint, GrantType, HoldPoint},
    domain::{AccessToken, Clock as _, Rotation},
};
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    cell::{ask, ask_for_a_new_one, kill},
    modes::Played,
    strace::{Strace, can_attach},
    world::{Broker, World},
};

/// A broker that holds the tokens of generation 2, for they cannot be stored. The file beside the store is written all
/// the same: only the store's own writes fail.
async fn holding() -> Option<(World, Broker, Strace, JoinHandle<Option<u64>>)> {
    if !can_attach() {
        return None;
    }
    let world = World::start(Played::Demo, Rotation::Strict).await;
    let broker = world.serve();
    let client = world.client(&broker);
    world.connect(&client).await;
    let hold = world.provider.faults().hold_if(Endpoint::Token, Some(GrantType::RefreshToken), HoldPoint::Answer);
    let call = tokio::spawn(async move {
        let answer = client.get_plugin_token(ask_for_a_new_one()).await;
        answer.ok().map(|token| token.generation)
    });
    hold.arrived(1).await;
    assert!(broker.is_ready().await);
    let full = Strace::fill_disk(&broker.process, &world.store());
    hold.release();
    until(async || !broker.is_ready().await && world.holds_tokens()).await;
    Some((world, broker, full, call))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_a_full_disk_refused_are_stored_once_there_is_room() {
    let Some((world, broker, full, call)) = holding().await else { return };
    full.end();
    assert_eq!(call.await.unwrap(), Some(2));
    until(async || broker.is_ready().await).await;
    works(&world, &broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_a_full_disk_refused_survive_a_kill() {
    let Some((world, broker, full, _call)) = holding().await else { return };
    kill(broker);
    full.end();
    let broker = world.serve();
    works(&world, &broker).await;
}

/// Neither a file nor readiness tells when it changes, and asking without a pause takes the processor from the broker.
async fn until(holds: impl AsyncFn() -> bool) {
    let asked = async {
        while !holds().await {
            SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(20))).await;
        }
    };
    timeout(Duration::from_secs(120), asked).await.expect("it comes in time");
}

async fn works(world: &World, broker: &Broker) {
    let client = world.client(broker);
    let token = client.get_plugin_token(ask()).await.unwrap();
    assert_eq!((token.generation, world.refreshes()), (2, 1), "no second request was needed");
    assert!(world.provider.is_access_token_live(&AccessToken::new(token.access_token)));
    let next = client.get_plugin_token(ask_for_a_new_one()).await.unwrap();
    assert_eq!(next.generation, 3, "what is stored is what the provider takes");
}
