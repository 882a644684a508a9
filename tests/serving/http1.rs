//! What one HTTP connection may cost, with pages that do what a test needs.

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::ConnectInfo,
    routing::{get, post},
};
use claviger::{
    domain::Clock,
    http,
    listener::{Limits, Opening, Protocol},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{clock::ManualClock, frames::PATIENCE, someone_sleeps_until};

/// More than all buffers on the way take.
const MUCH: usize = 64 << 20;

#[tokio::test]
async fn headers_that_do_not_end_are_not_waited_for() {
    let address =
        serve(Limits { http_header_time: Duration::from_secs(1), ..Limits::default() }, &ManualClock::new()).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /hello HTTP/1.1\r\nhost: bro").await.unwrap();
    ended(&mut slow).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /hello HTTP/1.1\r\nhost: broker\r\n\r\n").await.unwrap();
    let heard = ended(&mut idle).await;
    assert!(String::from_utf8_lossy(&heard).starts_with("HTTP/1.1 200"), "it is answered, and idle after that");
}

#[tokio::test]
async fn headers_that_are_too_long_are_refused() {
    let address = serve(Limits { header_list: 8 * 1024, ..Limits::default() }, &ManualClock::new()).await;
    let ask = |length| {
        format!("GET /hello HTTP/1.1\r\nhost: broker\r\nx-tracing: {}\r\nconnection: close\r\n\r\n", "x".repeat(length))
    };
    assert_eq!(status(address, ask(6 * 1024).as_bytes()).await, "200");
    assert_eq!(status(address, ask(20 * 1024).as_bytes()).await, "431");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let address = serve(Limits { http_body: 1024, ..Limits::default() }, &ManualClock::new()).await;
    let ask = |length| {
        let body = "x".repeat(length);
        format!("POST /length HTTP/1.1\r\nhost: broker\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    assert_eq!(status(address, ask(1024).as_bytes()).await, "200");
    assert_eq!(status(address, ask(1025).as_bytes()).await, "413");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_all_the_same() {
    let clock = ManualClock::new();
    let address = serve(Limits::default(), &clock).await;
    // One for which nothing comes, and one whose body does not end.
    for ask in
        ["GET /never HTTP/1.1\r\nhost: broker\r\n", "POST /length HTTP/1.1\r\nhost: broker\r\ncontent-length: 9\r\n"]
    {
        let asked_at = clock.now();
        let waiting =
            tokio::spawn(async move { status(address, format!("{ask}connection: close\r\n\r\n").as_bytes()).await });
        someone_sleeps_until(&clock, asked_at.plus(Duration::from_secs(60))).await;
        clock.advance(Duration::from_secs(60));
        assert_eq!(waiting.await.unwrap(), "503", "{ask}");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off() {
    let clock = ManualClock::new();
    let address = serve(Limits::default(), &clock).await;
    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"GET /much HTTP/1.1\r\nhost: broker\r\n\r\n").await.unwrap();
    someone_sleeps_until(&clock, ManualClock::START.plus(Duration::from_secs(30))).await;
    clock.advance(Duration::from_secs(30));
    assert!(ended(&mut deaf).await.len() < MUCH);
}

#[tokio::test]
async fn pages_know_whom_they_talk_to() {
    let address = serve(Limits::default(), &ManualClock::new()).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let own = socket.local_addr().unwrap().to_string();
    socket.write_all(b"GET /who HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n").await.unwrap();
    let heard = String::from_utf8(ended(&mut socket).await).unwrap();
    assert!(heard.ends_with(&own), "{heard}");
}

async fn serve(limits: Limits, clock: &ManualClock) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/hello", get("hello"))
        .route("/much", get(|| async { Bytes::from(vec![b'x'; MUCH]) }))
        .route("/never", get(|| async { pending::<()>().await }))
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/who", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }));
    let (clock, cut): (Arc<dyn Clock>, _) = (Arc::new(clock.clone()), CancellationToken::new());
    let opening = Opening { protocol: Protocol::Http1, tls: None, limits, clock, cut };
    tokio::spawn(http::serve(listener, router, opening, CancellationToken::new()));
    address
}

/// The status that a request is answered with.
async fn status(address: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut line = [0; 12];
    timeout(PATIENCE, socket.read_exact(&mut line)).await.expect("no answer comes").unwrap();
    String::from_utf8_lossy(&line[9..]).into_owned()
}

/// What is read until the connection ends, in good order or not.
async fn ended(socket: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("the connection stays open").ok();
    heard
}
