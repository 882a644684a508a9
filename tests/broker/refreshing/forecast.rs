//! An authorization that will end is announced while the user can still renew it at leisure.

use std::time::Duration;

use claviger::{
    dev::{Endpoint, Fault},
    domain::Rotation,
    proto::v1::{CredentialEventKind as Kind, NextAction},
};
use serde_json::json;

use super::{IN_MARGIN, SECOND, generation, look, pass};
use crate::{
    observer::{Observer, in_time},
    world::{Settings, World},
};

#[tokio::test]
async fn the_end_that_an_answer_says_is_shown_and_announced_once_though_refreshes_go_on() {
    let mut world = World::start_with(Settings { rotation: Rotation::None, ..Settings::default() }).await;
    let client = world.client("alice");
    // Two hours for the whole authorization; the refreshes say nothing of it, and keep the refresh token.
    let ends = json!({ "authorization_expires_in": 7200 }).as_object().cloned().unwrap();
    world.provider.faults().arm(Endpoint::Token, Fault::Edit { set: ends, remove: Vec::new() }, 1);
    let begun_at = world.now();
    let connection = world.connect(&client, "alice").await;
    let ends_at = begun_at.plus(Duration::from_secs(7200)).as_secs();
    assert_eq!(connection.authorization_ends_at.unwrap().seconds, ends_at);

    let mut watcher = Observer::of(&client).await;
    drop(client);
    world.restart().await;
    let client = world.client("alice");
    watcher = Observer::after(watcher, &client).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watching = tokio::spawn(async move {
        loop {
            let event = watcher.next().await;
            if event.kind() == Kind::Forecast && tell.send(event).is_err() {
                return;
            }
        }
    });
    // A refresh in each nine minutes and a second; the notice comes in the middle of the two hours.
    for turn in 1..=6 {
        world.clock.advance(IN_MARGIN);
        assert_eq!(generation(&client).await, turn + 1);
    }
    assert!(told.try_recv().is_err(), "the half is not over");
    world.clock.advance(IN_MARGIN);
    assert_eq!(generation(&client).await, 8);
    let first = in_time(async {
        loop {
            // The scheduler looks again when time has passed.
            pass(&world, &client, 2 * SECOND, SECOND).await;
            if let Ok(event) = told.try_recv() {
                return event;
            }
        }
    })
    .await;
    assert_eq!(first.status.as_ref().unwrap().authorization_ends_at.unwrap().seconds, ends_at);
    for _ in 0..3 {
        world.clock.advance(IN_MARGIN);
        generation(&client).await;
        pass(&world, &client, 2 * SECOND, SECOND).await;
    }
    assert!(told.try_recv().is_err(), "it was told once");
    watching.abort();
    let shown = look(&client, &connection).await;
    assert_eq!(shown.authorization_ends_at.unwrap().seconds, ends_at);
    assert_eq!(shown.next_action(), NextAction::Refresh);
    assert!(shown.next_action_at.unwrap().seconds > world.now().as_secs());
    world.stop().await;
}
