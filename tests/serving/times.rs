//! How long a connection may say nothing.

use std::time::Duration;

use claviger::domain::Clock as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    clock::ManualClock,
    frames::{PATIENCE, PREFACE, Raw},
    pki::{Authority, Handshake},
    rig::Rig,
    someone_sleeps_until,
};

/// The head of a TLS record that holds a ClientHello of 512 bytes, and the first of them.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

#[tokio::test]
async fn a_handshake_or_a_preface_that_does_not_end_is_not_waited_for() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    let handshake = Handshake::of(&authority);
    let mut silent = rig.grpc_socket().await;
    let mut half = rig.grpc_socket().await;
    half.write_all(HALF_A_HELLO).await.unwrap();
    let mut mute = handshake.over(rig.grpc_socket().await).await.unwrap();
    let mut dribbling = handshake.over(rig.grpc_socket().await).await.unwrap();
    dribbling.write_all(&PREFACE[..PREFACE.len() - 1]).await.unwrap();
    dribbling.flush().await.unwrap();
    // Connections are admitted in their order, so with this one all were.
    let mut speaking = Raw::over(handshake.over(rig.grpc_socket().await).await.unwrap()).await;
    assert!(speaking.lives().await);

    someone_sleeps_until(&rig.clock, ManualClock::START.plus(Duration::from_secs(10))).await;
    rig.clock.advance(Duration::from_secs(10));
    ended(&mut silent).await;
    ended(&mut half).await;
    let mut rest = Vec::new();
    timeout(PATIENCE, mute.read_to_end(&mut rest)).await.expect("it stays open").ok();
    timeout(PATIENCE, dribbling.read_to_end(&mut rest)).await.expect("it stays open").ok();
    assert!(speaking.lives().await);
}

#[tokio::test]
async fn a_handshake_on_the_http_listener_is_not_waited_for_either() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    let mut half = rig.http_socket().await;
    half.write_all(HALF_A_HELLO).await.unwrap();
    let handshake = Handshake { alpn: b"http/1.1", ..Handshake::of(&authority) };
    // Admitted after the other.
    handshake.over(rig.http_socket().await).await.unwrap();
    someone_sleeps_until(&rig.clock, rig.clock.now().plus(Duration::from_secs(10))).await;
    rig.clock.advance(Duration::from_secs(10));
    ended(&mut half).await;
}

#[tokio::test]
async fn a_slow_handshake_keeps_nobody_else_waiting() {
    let authority = Authority::new();
    let rig = Rig::over_tls(&authority, |_| {}).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut socket = rig.grpc_socket().await;
        socket.write_all(HALF_A_HELLO).await.unwrap();
        slow.push(socket);
    }
    let handshake = Handshake::of(&authority);
    let open = timeout(PATIENCE, handshake.over(rig.grpc_socket().await)).await.expect("it waits for the others");
    assert!(Raw::over(open.unwrap()).await.lives().await);
}

async fn ended(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("it stays open").ok();
}
