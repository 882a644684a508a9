//! Peers that are gone without a word (fault test 17). The network is a relay that stops carrying bytes and closes
//! nothing, where a packet filter would have to be allowed; and the broker asks every second, where by default it asks
//! every 30 s and waits 10 s.

use std::time::Duration;

use claviger::{listener::Limits, proto::v1::ErrorReason};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::{
    clients::{PATIENCE, from_snapshot},
    place::{Place, ask_for_a_new_one},
    relay::Relay,
};

#[test]
fn by_default_a_peer_is_missed_within_45_seconds() {
    let limits = Limits::default();
    assert!(limits.keep_alive_interval + limits.keep_alive_timeout <= Duration::from_secs(45));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_gone_gives_its_seat_back() {
    let limits = "limits = { keep_alive_interval = \"1s\", keep_alive_timeout = \"1s\" }";
    let place = Place::new(&format!("{limits}\nwatch = {{ streams_per_principal = 2 }}")).await;
    let broker = place.serve();
    let alice = place.person("alice", &broker.connect()).await;
    let way = Relay::to(broker.grpc).await;
    let (gone, there) = (alice.client(way.address), alice.client(broker.grpc));
    alice.connect(&there).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(gone.watch_credential_status(from_snapshot()).await.unwrap());
    }
    let refused = there.watch_credential_status(from_snapshot()).await.err().unwrap();
    assert_eq!(refused.reason, Some(ErrorReason::StreamQuota), "{refused:?}");

    way.fall_silent();
    // Something is on its way to them that never arrives.
    there.get_plugin_token(ask_for_a_new_one()).await.unwrap();
    let freed = timeout(PATIENCE, async {
        loop {
            match there.watch_credential_status(from_snapshot()).await {
                Ok(stream) => break stream,
                Err(error) => assert_eq!(error.reason, Some(ErrorReason::StreamQuota), "{error:?}"),
            }
        }
    });
    let mut freed = freed.await.expect("their seats stay taken");
    freed.message().await.unwrap().unwrap();
    broker.process.stop(Signal::KILL);
}
