//! A reader who wants the newest state of each credential, and lags.

use claviger::{
    proto::v1::{
        CredentialEventKind as Kind, Delivery, WatchCredentialStatusRequest as Request,
        watch_credential_status_request::Start, watch_credential_status_response::Body,
    },
    store::Purge,
};

use std::collections::BTreeMap;

use crate::{
    event_log,
    interleavings::{Owner, view},
    rig::Rig,
    watch_validator::assert_valid,
    watching::User,
};

const CREDENTIALS: u8 = 4;
const STEPS: usize = 120;

/// However far a reader lags who wants only the newest of each credential: generations rise, nothing comes of what is
/// revoked, and in the end they show what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wants_the_newest_only_ends_with_what_there_is() {
    let (rig, mut histories) = (Rig::start().await, Vec::new());
    for seed in 1..=4_u64 {
        let name = format!("alice-{seed}");
        let (user, owner) = (User::of(&rig, &name).await, Owner::of(&rig.vault, &name));
        for number in 0..CREDENTIALS {
            owner.connects(number).await;
        }
        // A token that stands where the log is now.
        let before = user.watches(Start::Now(true), 1024).await;
        let start = if seed % 2 == 0 { Start::Snapshot(true) } else { Start::ResumeToken(before.token()) };
        histories.push(before.history);
        let delivery = Delivery::LatestPerCredential.into();
        let mut lagging = user.asks(Request { start: Some(start), delivery, ..Request::default() }, 1024).await;
        let (mut revoked, mut happened, mut last, mut dice) = ([false; CREDENTIALS as usize], 0, 0, seed);
        for step in 0..STEPS {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (number, draw) = ((dice >> 33) as usize % revoked.len(), (dice >> 40) % 40);
            if revoked[number] {
                continue;
            }
            happened += 1;
            // The last one lives, so that there is an end to read to.
            revoked[number] = draw == 0 && number > 0;
            last = match revoked[number] {
                true => owner.revokes(number as u8, Purge::default()).await,
                false => owner.refreshes(number as u8).await,
            };
            if step % 40 == 39 && lagging.revision() < last {
                lagging.next().await;
            }
        }
        last = owner.refreshes(0).await.max(last);
        lagging.read_to(last).await;
        let messages = &lagging.history.messages;
        let batches = messages.iter().filter_map(|message| match &message.body {
            Some(Body::Batch(batch)) => Some(&batch.events),
            _ => None,
        });
        let (mut came, mut newest) = (0, BTreeMap::<_, (u64, Kind)>::new());
        for event in batches.flatten() {
            let status = event.status.clone().unwrap();
            let (generation, kind) = newest.get(&status.credential_id).copied().unwrap_or((0, Kind::Unspecified));
            assert!(kind != Kind::Revoked && generation <= status.generation, "{event:?} after {kind:?}");
            newest.insert(status.credential_id, (status.generation, event.kind()));
            came += 1;
        }
        assert!(came < happened, "it lags, and is spared something: {came} of {happened}");
        if seed % 2 == 0 {
            assert_eq!(view(messages), owner.state().await);
        } else {
            let state = owner.state().await;
            assert!(view(messages).iter().all(|(id, generation)| state.get(id) == Some(generation)));
        }
        histories.push(lagging.history);
    }
    assert_valid(&event_log::read(&rig.vault).await, &histories);
}
