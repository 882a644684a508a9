//! Platform tokens that lapse, and that are refused.

use claviger::{
    dev::PlatformClaims,
    domain::PresentedToken,
    proto::v1::{DrainCause, watch_credential_status_response::Body},
};

use crate::{
    place::{Place, assert_none_came_twice, bodies, snapshots},
    world::{MINUTE, claims},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_token_that_lapses_is_read_anew() {
    let short = PlatformClaims { lifetime: 10 * MINUTE, ..PlatformClaims::to("claviger") };
    let Some(mut place) = Place::start_with(&["alice"], |world| world.token("alice", &short), |_| Vec::new()).await
    else {
        return;
    };
    place.client_knows_all().await;
    place.world.clock.advance(10 * MINUTE);
    place.program.says("UNAUTHENTICATED TOKEN_EXPIRED").await;
    place.program.says("waiting for a new token").await;
    place.refresh("alice").await;
    place.program.renew(place.world.token("alice", &claims()).expose());
    place.client_knows_all().await;
    let streams = place.judge().await;
    assert_eq!(snapshots(&streams), [true, false]);
    let drained = |body: &Body| matches!(body, Body::Drain(drain) if drain.cause() == DrainCause::Authorization);
    assert_eq!(bodies(&streams).filter(|body| drained(body)).count(), 1);
    assert_none_came_twice(&streams);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_platform_tokens_that_are_refused_end_it() {
    let nobody = |_: &_| PresentedToken::new("nobody".to_owned());
    let Some(mut place) = Place::start_with(&[], nobody, |_| Vec::new()).await else { return };
    place.program.says("waiting for a new token").await;
    place.program.renew("nobody else");
    place.program.says("gave up: UNAUTHENTICATED TOKEN_INVALID").await;
    assert_eq!(place.program.code().await, Some(1));
}
