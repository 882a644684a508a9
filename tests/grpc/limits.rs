//! How much one may send, and how often.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use claviger::{
    grpc::{Rate, Settings},
    proto::v1,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::rig::{Rig, VALIDATE, closed, reason, with_metadata};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_caller_above_the_rate_is_told_when_to_come_back_and_is_served_then() {
    let count = |number| NonZeroU32::new(number).unwrap();
    let rate = Some(Rate { per_second: count(2), burst: count(3) });
    let rig = Rig::with(Settings { rate, ..Settings::default() }).await;
    let (alice, bob) = (rig.bearer("alice"), rig.bearer("bob"));
    for _ in 0..3 {
        rig.call(VALIDATE, &[("authorization", &alice)]).await.unwrap();
    }
    let refusal = rig.call(VALIDATE, &[("authorization", &alice)]).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
    let wait = refusal.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, Duration::from_millis(500));
    rig.call(VALIDATE, &[("authorization", &bob)]).await.unwrap();
    rig.call("/grpc.health.v1.Health/Check", &[]).await.unwrap();
    rig.clock.advance(wait);
    rig.call(VALIDATE, &[("authorization", &alice)]).await.unwrap();
    let again = rig.call(VALIDATE, &[("authorization", &alice)]).await.unwrap_err();
    assert_eq!(reason(&again), "RATE_LIMITED");
}

#[tokio::test]
async fn a_message_that_is_too_long_is_the_callers_mistake() {
    let rig = Rig::start().await;
    let long = v1::GetPluginTokenRequest { plugin: "x".repeat(64 * 1024), ..Default::default() };
    let refusal = rig.tokens().get_plugin_token(rig.by_alice(long)).await.err().unwrap();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::InvalidArgument, "INVALID_ARGUMENT"));
    assert!(refusal.metadata().contains_key("x-request-id"));
}

#[tokio::test]
async fn a_message_of_another_kind_is_the_callers_mistake() {
    let rig = Rig::start().await;
    // Field 1 of the one is a message, of the other a string that must be UTF-8.
    let mut client = tonic::client::Grpc::new(rig.channel());
    client.ready().await.unwrap();
    let other = with_metadata(b"\xff\xfe".to_vec(), &[("authorization", &rig.bearer("alice"))]);
    let codec = tonic_prost::ProstCodec::<Vec<u8>, ()>::default();
    let refusal = client.unary(other, VALIDATE.parse().unwrap(), codec).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::InvalidArgument, "INVALID_ARGUMENT"));
}

#[tokio::test]
async fn compressed_messages_are_not_taken() {
    let rig = Rig::start().await;
    let compressed = [("authorization", rig.bearer("alice")), ("grpc-encoding", "gzip".to_owned())];
    let metadata = compressed.each_ref().map(|(name, value)| (*name, value.as_str()));
    let refusal = rig.call(VALIDATE, &metadata).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unimplemented);
}

#[tokio::test]
async fn headers_that_are_too_long_are_refused_and_the_connection_lives_on() {
    let rig = Rig::start().await;
    let long = "x".repeat(25 * 1024);
    let refusal = rig.call(VALIDATE, &[("x-tracing", &long)]).await.unwrap_err();
    assert_ne!(reason(&refusal), "TOKEN_MISSING", "the call got as far as our code");
    rig.call(VALIDATE, &[("authorization", &rig.bearer("alice"))]).await.unwrap();
}

#[tokio::test]
async fn the_limits_of_http2_are_announced() {
    let rig = Rig::start().await;
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    socket.write_all(PREFACE).await.unwrap();
    let length = usize::from(socket.read_u8().await.unwrap()) << 16 | usize::from(socket.read_u16().await.unwrap());
    let mut header = [0; 6];
    socket.read_exact(&mut header).await.unwrap();
    assert_eq!(header[0], 4, "the first frame is SETTINGS");
    let mut settings = HashMap::new();
    for _ in 0..length / 6 {
        settings.insert(socket.read_u16().await.unwrap(), socket.read_u32().await.unwrap());
    }
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    assert_eq!(settings[&MAX_CONCURRENT_STREAMS], 256);
    // 64 KiB; the protocol's own default is one byte less.
    assert_eq!(settings[&INITIAL_WINDOW_SIZE], 64 * 1024);
    assert_eq!(settings[&MAX_HEADER_LIST_SIZE], 24 * 1024);
}

#[tokio::test]
async fn a_connection_that_does_not_speak_in_time_is_closed() {
    let rig = Rig::start().await;
    let opened_at = rig.clock_now();
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    let mut dribbling = TcpStream::connect(rig.address).await.unwrap();
    dribbling.write_all(&PREFACE[..PREFACE.len() - 1]).await.unwrap();
    let mut speaking = TcpStream::connect(rig.address).await.unwrap();
    speaking.write_all(PREFACE).await.unwrap();
    // Connections are accepted in their order, so all three were.
    ping(&mut speaking).await;
    rig.clock.someone_sleeps_until(opened_at.plus(Duration::from_secs(10))).await;
    rig.clock.advance(Duration::from_secs(10));
    closed(&mut silent).await;
    closed(&mut dribbling).await;
    ping(&mut speaking).await;
}

/// Returns once a PING has been answered (RFC 9113 §6.7).
async fn ping(socket: &mut TcpStream) {
    const OPAQUE: &[u8] = b"pingpong";
    socket.write_all(b"\0\0\x08\x06\0\0\0\0\0").await.unwrap();
    socket.write_all(OPAQUE).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(OPAQUE) {
        heard.push(socket.read_u8().await.unwrap());
    }
}
