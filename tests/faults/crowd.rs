//! Many callers of one connection.

use std::{collections::BTreeSet, time::Duration};

use claviger::{
    dev::{Endpoint, GrantType, HoldPoint},
    domain::Rotation,
    proto::v1,
};
use futures_util::future::join_all;

use crate::{cell::ask, modes::Played, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_callers_of_a_token_that_ends_cause_one_request_and_get_one_generation() {
    let world = World::start(Played::Demo, Rotation::Strict).await;
    world.set_lifetime(Duration::from_secs(1));
    let broker = world.serve();
    let client = world.client(&broker);
    let hold = world.provider.faults().hold_if(Endpoint::Token, Some(GrantType::RefreshToken), HoldPoint::Request);
    world.connect(&client).await;
    hold.arrived(1).await;
    let ten_minutes = prost_types::Duration { seconds: 600, nanos: 0 };
    let request = v1::GetPluginTokenRequest { min_remaining: Some(ten_minutes), ..ask() };
    let callers = join_all((0..200).map(|_| client.get_plugin_token(request.clone())));
    let (answers, ()) = tokio::join!(callers, async {
        // Whoever comes later finds the new token, or joins.
        hold.release();
    });
    let generations: BTreeSet<_> = answers.into_iter().map(|answer| answer.unwrap().generation).collect();
    assert_eq!((generations, world.refreshes()), (BTreeSet::from([2]), 1));
}
