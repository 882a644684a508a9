//! How the server ends.

use std::time::Duration;

use claviger::{
    grpc::Settings,
    proto::v1::{self, watch_credential_status_response::Body},
};
use tokio::net::TcpStream;
use tonic::Status;
use tonic_types::StatusExt;

use crate::rig::{Rig, closed, reason};

#[tokio::test]
async fn at_shutdown_watchers_are_told_and_the_server_ends() {
    let rig = Rig::start().await;
    let watch = rig.by_alice(v1::WatchCredentialStatusRequest::default());
    let mut events = rig.tokens().watch_credential_status(watch).await.unwrap().into_inner();
    let opened = events.message().await.unwrap().unwrap();
    assert!(matches!(opened.body, Some(Body::Opened(_))), "{opened:?}");
    let end = events.message().await.unwrap().unwrap();
    assert!(matches!(end.body, Some(Body::SnapshotEnd(_))), "{end:?}");
    rig.shutdown.cancel();
    let drain = events.message().await.unwrap().unwrap();
    let Some(Body::Drain(drain)) = drain.body else { unreachable!("{drain:?}") };
    assert_eq!(drain.cause(), v1::DrainCause::Shutdown);
    let ended = events.message().await.unwrap_err();
    assert_eq!(reason(&ended), "SHUTTING_DOWN");
    rig.serving.await.unwrap();
}

#[tokio::test]
async fn a_call_that_waits_is_answered_at_shutdown() {
    let rig = Rig::start().await;
    let ask = rig.by_alice(v1::StartAuthorizationRequest {
        target: Some(v1::start_authorization_request::Target::Plugin("calendar".to_owned())),
        binding: v1::AuthorizationBinding::Caller.into(),
        redirect_uri: "http://127.0.0.1/callback".to_owned(),
        ..Default::default()
    });
    let flow_id = rig.connections().start_authorization(ask).await.unwrap().into_inner().flow_id;
    let waiting = rig.by_alice(v1::GetAuthorizationRequest {
        flow_id,
        wait: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
    });
    let mut connections = rig.connections();
    let waiting = tokio::spawn(async move { connections.get_authorization(waiting).await });
    // The wait was cut to a minute.
    rig.clock.someone_sleeps_until(rig.clock_now().plus(Duration::from_secs(60))).await;
    rig.shutdown.cancel();
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().state(), v1::AuthorizationState::Pending);
    rig.serving.await.unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_behind() {
    let rig = Rig::with(Settings { rate: None, ..Settings::default() }).await;
    let open = async || {
        let watch = rig.by_alice(v1::WatchCredentialStatusRequest::default());
        Ok::<_, Status>(rig.tokens().watch_credential_status(watch).await?.into_inner())
    };
    let mut streams = Vec::new();
    let refusal = loop {
        match open().await {
            Ok(stream) => streams.push(stream),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((streams.len(), reason(&refusal).as_str()), (64, "STREAM_QUOTA"));
    assert!(refusal.get_details_retry_info().unwrap().retry_delay.is_some());
    streams.pop();
    // The reset overtakes no call of its own connection, but the seat is given back by another task.
    while let Err(refusal) = open().await {
        assert_eq!(reason(&refusal), "STREAM_QUOTA");
    }
}

#[tokio::test]
async fn a_connection_that_hangs_is_cut_at_shutdown() {
    let rig = Rig::start().await;
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    rig.clock.someone_sleeps_until(rig.clock_now().plus(Duration::from_secs(10))).await;
    rig.shutdown.cancel();
    let drained_by = rig.clock_now().plus(Duration::from_secs(20));
    rig.clock.someone_sleeps_until(drained_by).await;
    rig.clock.advance(Duration::from_secs(20));
    rig.serving.await.unwrap();
    closed(&mut silent).await;
}
