//! SIGTERM while peers do everything that could hold it up (fault test 16).

use claviger::{app::SystemClock, client::Connect, domain::Clock as _};
use rustix::process::Signal;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::{
    clients::{Narrow, Watchers, from_snapshot},
    pki::{self, Authority, Handshake},
    place::{Broker, Place},
    process::Process,
};

/// The head of a TLS record that holds a ClientHello of 512 bytes, and the first of them.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Exit code 0 is an end within `limits.shutdown_grace`, which is 25 s: after that the process gives up, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_peer_holds_up_the_end_whatever_it_does() {
    let (place, authority) = (Place::new("").await, Authority::new());
    authority.server().write(&place.path(""));
    let files = r#"{ certificate_file = "tls.crt", private_key_file = "tls.key" }"#;
    let broker = Broker::that_runs(Process::spawn(place.command().env("CLAVIGER__GRPC__TLS", files)));
    let connect = Connect {
        endpoint: format!("https://{}", broker.grpc),
        ca: Some(authority.pem().into_bytes()),
        ..Connect::default()
    };
    let alice = place.person("alice", &connect).await;

    let mut watchers = Watchers::default();
    let client = connect.with_token(&alice.token).unwrap();
    for _ in 0..20 {
        watchers.add(client.clone(), &alice.subject, from_snapshot());
    }
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let endpoint = Endpoint::from_shared(connect.endpoint.clone()).unwrap().tls_config(tls).unwrap();
    let mut stalled = Narrow::over(endpoint);
    stalled.open(20, true, &alice, &watchers.record).await;
    alice.connect(&client).await;
    for _ in 0..3 {
        client.get_plugin_token(crate::place::ask_for_a_new_one()).await.unwrap();
    }
    let silent = TcpStream::connect(broker.grpc).await.unwrap();
    let mut half = TcpStream::connect(broker.grpc).await.unwrap();
    half.write_all(HALF_A_HELLO).await.unwrap();
    let mute = Handshake::of(&authority).over(TcpStream::connect(broker.grpc).await.unwrap()).await.unwrap();
    let mut page = TcpStream::connect(broker.http).await.unwrap();
    page.write_all(b"GET /healthz HTT").await.unwrap();
    // Over a connection of its own, and they are admitted in order.
    place.person("bob", &connect).await;
    watchers.until("up to date", |standing| standing.generation == 4).await;

    let asked = SystemClock.now();
    broker.process.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(|| broker.process.finish()).await.unwrap();
    ended.expect_code(0);
    println!("gone after {:?}", SystemClock.now() - asked);
    watchers.until("told", |standing| standing.returns.len() == 1).await;
    stalled.wake();
    stalled.ended().await;
    assert!(stalled.standings().iter().all(|standing| standing.borrow().returns.is_empty()), "they were not stalled");
    drop((silent, half, mute, page, pki::NAME));
}
