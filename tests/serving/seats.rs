//! How many connections there may be.

use std::net::SocketAddr;

use claviger::{config::Config, proto::v1};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    frames::{PATIENCE, Raw, connect_from, is_served},
    rig::Rig,
};

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let rig = Rig::start(|config: &mut Config| config.limits.connections_per_peer = 2).await;
    let mut mine = [Raw::connect(rig.grpc).await, Raw::connect(rig.grpc).await];
    for raw in &mut mine {
        assert!(raw.lives().await);
    }
    assert!(!is_served(rig.grpc).await, "the third of one address is refused");
    let mut other = Raw::over(connect_from("127.0.0.2", rig.grpc).await).await;
    assert!(other.lives().await, "another address is served");
    for raw in &mut mine {
        assert!(raw.lives().await, "those that are open stay open");
    }
    drop(mine);
    until_served(rig.grpc).await;
}

#[tokio::test]
async fn there_are_so_many_connections_in_all() {
    let rig = Rig::start(|config: &mut Config| config.limits.connections = 2).await;
    let mut first = Raw::over(connect_from("127.0.0.2", rig.grpc).await).await;
    let mut second = Raw::over(connect_from("127.0.0.3", rig.grpc).await).await;
    assert!(first.lives().await && second.lives().await);
    assert!(!is_served(rig.grpc).await);
    drop(first);
    until_served(rig.grpc).await;
}

#[tokio::test]
async fn the_http_listener_counts_its_own() {
    let rig = Rig::start(|config: &mut Config| config.limits.connections_per_peer = 1).await;
    let mut grpc = Raw::connect(rig.grpc).await;
    assert!(grpc.lives().await);
    let mut first = rig.http_socket().await;
    assert!(healthy(&mut first).await);
    assert!(!is_healthy(rig.http).await);
    let mut other = connect_from("127.0.0.2", rig.http).await;
    assert!(healthy(&mut other).await);
    drop(first);
    timeout(PATIENCE, async { while !is_healthy(rig.http).await {} }).await.unwrap();
}

#[tokio::test]
async fn a_connection_in_its_handshake_has_its_seat_already() {
    let authority = crate::pki::Authority::new();
    let rig = Rig::over_tls(&authority, |config: &mut Config| config.limits.connections = 1).await;
    let silent = rig.grpc_socket().await;
    // Without a handshake, and maybe before it has come about here.
    if let Ok(mut refused) = TcpStream::connect(rig.grpc).await {
        let mut nothing = Vec::new();
        let ended = timeout(PATIENCE, refused.read_to_end(&mut nothing)).await.unwrap();
        assert!(ended.is_err() && nothing.is_empty());
    }
    drop(silent);
    let client = rig.tls_client(&authority);
    let ask = async { while client.list_connections(v1::ListConnectionsRequest::default()).await.is_err() {} };
    timeout(PATIENCE, ask).await.unwrap();
}

/// The seat of who left is given back by another task.
async fn until_served(address: SocketAddr) {
    timeout(PATIENCE, async { while !is_served(address).await {} }).await.unwrap();
}

async fn is_healthy(address: SocketAddr) -> bool {
    match TcpStream::connect(address).await {
        Ok(mut socket) => healthy(&mut socket).await,
        Err(_) => false,
    }
}

async fn healthy(socket: &mut TcpStream) -> bool {
    let asked = socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: broker\r\n\r\n").await;
    let mut status = [0; 12];
    let answered = timeout(PATIENCE, socket.read_exact(&mut status)).await.unwrap();
    asked.is_ok() && answered.is_ok() && &status == b"HTTP/1.1 200"
}
