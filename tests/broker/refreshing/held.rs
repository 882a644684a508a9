//! Tokens that a provider has handed out while the store takes nothing: they are held until it does, by this process or
//! the next.

use std::{fs, sync::Arc};

use claviger::{
    broker::{Broker, BrokerError, PluginToken},
    domain::{AuditAction, AuditRecord},
    vault::ErasureList,
};

use super::{Endpoint, HoldPoint, IN_MARGIN, LIFETIME, in_time};
use crate::{
    installation::{FullStore, Installation, authorize, call, serves, store, token},
    world::MINUTE,
};

const USER: u16 = 1;

/// A connection whose refresh has been answered just when the disk filled up; the call still waits.
async fn refreshed_onto_a_full_disk(
    installation: &Installation,
) -> (Broker, Arc<FullStore>, tokio::task::JoinHandle<Result<PluginToken, BrokerError>>) {
    let (broker, disk) = installation.start().await;
    let answer = authorize(&installation.world, &broker, USER).await;
    store(&broker, &answer, USER).await.unwrap();
    let hold = installation.world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    installation.world.clock.advance(IN_MARGIN);
    let caller = broker.clone();
    let waiting = tokio::spawn(async move { token(&caller, USER).await });
    in_time(hold.arrived(1)).await;
    assert!(broker.is_ready());
    disk.fill();
    hold.release();
    let files = installation.held_files(1).await;
    assert!(!broker.is_ready(), "what a provider handed out is not stored");
    for secret in ["dev_at_", "dev_rt_"] {
        assert!(!files[0].windows(secret.len()).any(|part| part == secret.as_bytes()), "the file is sealed");
    }
    (broker, disk, waiting)
}

#[tokio::test]
async fn fresh_tokens_wait_for_the_store_and_are_then_served() {
    let installation = Installation::new().await;
    let (broker, disk, waiting) = refreshed_onto_a_full_disk(&installation).await;
    disk.empty();
    serves(&installation.world, &in_time(waiting).await.unwrap().unwrap(), 2);
    assert!(broker.is_ready());
    installation.held_files(0).await;
    installation.world.clock.advance(LIFETIME);
    serves(&installation.world, &token(&broker, USER).await.unwrap(), 3);
    assert_eq!(installation.world.live_refresh_tokens(), 1);
}

#[tokio::test]
async fn fresh_tokens_that_the_store_never_took_are_applied_by_the_next_process() {
    let installation = Installation::new().await;
    let (_dying, _disk, waiting) = refreshed_onto_a_full_disk(&installation).await;
    waiting.abort();
    let (broker, _disk) = installation.start().await;
    assert!(broker.is_ready());
    installation.held_files(0).await;
    serves(&installation.world, &token(&broker, USER).await.unwrap(), 2);
    assert_eq!(installation.world.refreshes(), 1);
    installation.world.clock.advance(LIFETIME);
    serves(&installation.world, &token(&broker, USER).await.unwrap(), 3);
    assert_eq!((installation.world.refreshes(), installation.world.live_refresh_tokens()), (2, 1));
}

#[tokio::test]
async fn fresh_tokens_of_a_subject_who_was_erased_meanwhile_go_to_their_provider_and_nowhere_else() {
    let installation = Installation::new().await;
    let (broker, disk, waiting) = refreshed_onto_a_full_disk(&installation).await;
    erase_user(&installation).await;
    let hold = installation.world.provider.faults().hold(Endpoint::Revoke, HoldPoint::Request);
    let scheduler = tokio::spawn(broker.clone().run_scheduler());
    disk.empty();
    assert!(in_time(waiting).await.unwrap().is_err());
    // The tokens that were in the store, and those that came when it was too late.
    in_time(hold.arrived(2)).await;
    hold.release();
    in_time(async {
        while installation.world.live_refresh_tokens() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    installation.held_files(0).await;
    assert!(broker.is_ready());
    broker.stop().await;
    scheduler.await.unwrap();
}

#[tokio::test]
async fn a_held_file_of_a_subject_who_was_erased_meanwhile_is_removed_at_the_next_start() {
    let installation = Installation::new().await;
    let (_dying, _disk, waiting) = refreshed_onto_a_full_disk(&installation).await;
    waiting.abort();
    erase_user(&installation).await;
    let (broker, _disk) = installation.start().await;
    assert!(broker.is_ready());
    installation.held_files(0).await;
}

/// Past the broker, which would wait for the refresh to land.
async fn erase_user(installation: &Installation) {
    let vault = installation.vault(Arc::clone(&installation.disk)).await;
    let (tenant, subject) = (call(USER).caller.tenant.clone(), call(USER).caller.subject);
    let now = installation.world.now();
    let record = AuditRecord::by_broker(tenant.clone(), AuditAction::SubjectErased, now);
    let list = ErasureList::new(installation.world.directory().join("erasures"));
    vault.erase_subject(&tenant, subject, &record, &list).await.unwrap();
}

#[tokio::test]
async fn a_held_file_that_does_not_open_is_left_alone_and_keeps_nobody_from_starting() {
    let installation = Installation::new().await;
    fs::write(installation.held.join("damaged"), b"no sealed record").unwrap();
    let (broker, _disk) = installation.start().await;
    assert!(broker.is_ready());
    installation.held_files(1).await;
}

#[tokio::test]
async fn tokens_of_an_exchange_that_the_store_never_took_become_a_connection_in_the_next_process() {
    let installation = Installation::new().await;
    let (dying, disk) = installation.start().await;
    let answer = authorize(&installation.world, &dying, USER).await;
    let hold = installation.world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    let (caller, redirect) = (dying.clone(), answer.clone());
    let waiting = tokio::spawn(async move { store(&caller, &redirect, USER).await.map(drop) });
    in_time(hold.arrived(1)).await;
    disk.fill();
    hold.release();
    installation.held_files(1).await;
    assert!(!dying.is_ready());
    waiting.abort();

    let (broker, _disk) = installation.start().await;
    installation.held_files(0).await;
    let mut head = installation.disk.watch_head();
    let scheduler = tokio::spawn(broker.clone().run_scheduler());
    installation.world.clock.advance(MINUTE);
    let connected = in_time(async {
        loop {
            head.mark_unchanged();
            match token(&broker, USER).await {
                Ok(token) => return token,
                Err(_) => head.changed().await.unwrap(),
            }
        }
    });
    serves(&installation.world, &connected.await, 1);
    store(&broker, &answer, USER).await.unwrap();
    broker.stop().await;
    scheduler.await.unwrap();
}

#[tokio::test]
async fn tokens_that_turn_up_after_the_connection_was_given_up_are_revoked_and_stop_no_start() {
    let installation = Installation::new().await;
    let (_dying, _disk, waiting) = refreshed_onto_a_full_disk(&installation).await;
    waiting.abort();
    let file = fs::read_dir(&installation.held).unwrap().next().unwrap().unwrap().path();
    let aside = installation.world.directory().join("aside");
    fs::rename(&file, &aside).unwrap();
    let (broker, _disk) = installation.start().await;
    installation.world.clock.advance(LIFETIME);
    let dead = |result: Result<PluginToken, BrokerError>| result.err().unwrap().reason();
    assert_eq!(dead(token(&broker, USER).await), claviger::domain::Reason::ReauthorizationRequired);

    fs::rename(&aside, &file).unwrap();
    let (broker, _disk) = installation.start().await;
    assert!(broker.is_ready());
    installation.held_files(0).await;
    assert_eq!(dead(token(&broker, USER).await), claviger::domain::Reason::ReauthorizationRequired);
    let hold = installation.world.provider.faults().hold(Endpoint::Revoke, HoldPoint::Request);
    let scheduler = tokio::spawn(broker.clone().run_scheduler());
    in_time(hold.arrived(1)).await;
    hold.release();
    broker.stop().await;
    scheduler.await.unwrap();
}

#[tokio::test]
async fn an_intent_of_which_the_store_did_not_know_whether_it_took_it_is_no_attempt() {
    let installation = Installation::new().await;
    let (broker, disk) = installation.start().await;
    let answer = authorize(&installation.world, &broker, USER).await;
    store(&broker, &answer, USER).await.unwrap();
    for _ in 0..3 {
        installation.world.clock.advance(LIFETIME);
        disk.forget_next_commit();
        assert!(matches!(token(&broker, USER).await, Err(BrokerError::StoreUnavailable)));
    }
    assert_eq!(installation.world.refreshes(), 0, "nothing was sent");
    serves(&installation.world, &token(&broker, USER).await.unwrap(), 2);
    assert_eq!(installation.world.refreshes(), 1);
}
