//! What one gRPC connection may cost.

use claviger::{
    client::ClientError,
    config::{Config, Period, Size},
    proto::v1::{self, ErrorReason, watch_credential_status_response::Body},
};
use tokio::time::timeout;

use crate::{
    frames::{
        ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PATIENCE, PING, REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
        call, frame, headers,
    },
    rig::Rig,
};

const WATCH_HEALTH: &str = "/grpc.health.v1.Health/Watch";
const WATCH: &str = "/claviger.v1.TokenBrokerService/WatchCredentialStatus";
const CANCEL: u32 = 8;

#[tokio::test]
async fn a_connection_carries_so_many_calls() {
    let rig = Rig::start(|config: &mut Config| config.limits.streams = 2).await;
    let mut raw = Raw::connect(rig.grpc).await;
    for stream in [1, 3] {
        raw.write(&call(stream, WATCH_HEALTH, None)).await;
        assert_eq!(raw.find(|frame| frame.is_of(stream)).await.unwrap().kind, HEADERS, "the call is answered");
    }
    raw.write(&call(5, WATCH_HEALTH, None)).await;
    let refused = raw.find(|frame| frame.is_of(5)).await.unwrap();
    assert_eq!((refused.kind, refused.error_code()), (RST_STREAM, REFUSED_STREAM));
    raw.write(&frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())).await;
    raw.write(&call(7, WATCH_HEALTH, None)).await;
    assert_eq!(raw.find(|frame| frame.is_of(7)).await.unwrap().kind, HEADERS, "there is room again");
}

#[tokio::test]
async fn a_message_that_is_longer_than_configured_is_refused() {
    let rig = Rig::start(|config: &mut Config| config.limits.message = Size::kib(1)).await;
    let client = rig.plain_client();
    let get = |length| {
        client.get_plugin_token(v1::GetPluginTokenRequest {
            plugin: "calendar".to_owned(),
            scopes: vec!["x".repeat(length)],
            ..Default::default()
        })
    };
    let refused = get(2000).await.err().unwrap();
    assert_eq!(refused.reason, Some(ErrorReason::InvalidArgument));
    assert!(refused.message.contains("too long"), "{refused:?}");
    let short = get(100).await.err().unwrap();
    assert!(!short.message.contains("too long"), "{short:?}");
}

#[tokio::test]
async fn headers_that_are_longer_than_configured_never_reach_our_code() {
    let rig = Rig::start(|config: &mut Config| config.limits.header_list = Size::kib(8)).await;
    let mut raw = Raw::connect(rig.grpc).await;
    let token = rig.token();
    let bearer = |length: usize| format!("{}{}", token.expose(), " ".repeat(length));
    raw.write(&call(1, "/grpc.health.v1.Health/Check", Some(&bearer(9 * 1024)))).await;
    let refused = raw.find(|frame| frame.is_of(1)).await.unwrap();
    raw.write(&call(3, "/grpc.health.v1.Health/Check", Some(&bearer(6 * 1024)))).await;
    let served = raw.find(|frame| frame.is_of(3)).await.unwrap();
    assert_eq!(served.kind, HEADERS);
    // The static table's `:status: 200` is index 8; what is refused is told 431.
    assert_eq!(served.payload[0], 0x88);
    assert_ne!(refused.payload.first(), Some(&0x88), "{refused:?}");
}

#[tokio::test]
async fn a_client_that_opens_and_resets_streams_is_sent_away() {
    for (most, sent_away) in [(5, true), (50, false)] {
        let rig = Rig::start(|config: &mut Config| config.limits.reset_streams = most).await;
        let mut raw = Raw::connect(rig.grpc).await;
        // In one write, so that all of it is read before any of it is looked at.
        let burst: Vec<u8> = streams(20)
            .flat_map(|stream| {
                [headers(stream, WATCH_HEALTH, None), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
            })
            .collect();
        assert_eq!(sends_away(&mut raw, &burst).await, sent_away, "{most}");
    }
}

#[tokio::test]
async fn a_client_that_makes_us_reset_streams_is_sent_away() {
    for (most, sent_away) in [(5, true), (50, false)] {
        let rig = Rig::start(|config: &mut Config| config.limits.error_resets = most).await;
        let mut raw = Raw::connect(rig.grpc).await;
        // A window beyond 2^31-1 is an error of its stream (RFC 9113 §6.9.1).
        let burst: Vec<u8> = streams(20)
            .flat_map(|stream| {
                [headers(stream, WATCH_HEALTH, None), frame(WINDOW_UPDATE, 0, stream, &i32::MAX.to_be_bytes())].concat()
            })
            .collect();
        assert_eq!(sends_away(&mut raw, &burst).await, sent_away, "{most}");
    }
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_cut_off() {
    let rig = Rig::start(|config: &mut Config| {
        config.limits.keep_alive_interval = Period::from_secs(1);
        config.limits.keep_alive_timeout = Period::from_secs(1);
    })
    .await;
    let mut raw = Raw::connect(rig.grpc).await;
    assert!(raw.find(|frame| frame.kind == PING).await.is_some(), "it is asked");
    raw.ended().await;
}

#[tokio::test]
async fn a_proper_client_is_not_in_anybodys_way() {
    let rig = Rig::start(|_| {}).await;
    let client = rig.plain_client();
    let calls = (0..64).map(|_| client.list_connections(v1::ListConnectionsRequest::default()));
    let answers: Vec<Result<_, ClientError>> = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn peers_that_take_nothing_keep_nobody_from_a_snapshot() {
    let rig = Rig::start(|config: &mut Config| config.audit.window = Period::from_secs(0)).await;
    let mut deaf = Raw::connect(rig.grpc).await;
    // SETTINGS_INITIAL_WINDOW_SIZE of 1: with room for a byte each stream is asked for its messages, and never again.
    deaf.write(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await;
    let token = rig.token();
    for stream in streams(60) {
        deaf.write(&call(stream, WATCH, Some(token.expose()))).await;
        assert_eq!(deaf.find(|frame| frame.is_of(stream)).await.unwrap().kind, HEADERS, "the stream is open");
    }
    let mut healthy = rig.plain_client().watch_credential_status(Default::default()).await.unwrap();
    loop {
        let message = timeout(PATIENCE, healthy.message()).await.expect("its snapshot never comes").unwrap().unwrap();
        if let Some(Body::SnapshotEnd(_)) = message.body {
            break;
        }
    }
}

/// Ids of streams that a client begins.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// Whether the connection ends as one that is too much to bear.
async fn sends_away(raw: &mut Raw, burst: &[u8]) -> bool {
    raw.write(burst).await;
    raw.write(&frame(PING, 0, 0, b"are you?")).await;
    let end = raw.find(|frame| frame.kind == GOAWAY || (frame.kind == PING && frame.flags == 1)).await;
    let end = end.expect("an answer comes before the end");
    end.kind == GOAWAY && end.error_code() == ENHANCE_YOUR_CALM
}
