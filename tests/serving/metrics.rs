//! `/metrics` is where the operator wants it, and nowhere else.

use std::net::SocketAddr;

use claviger::config::MetricsSection;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{frames::PATIENCE, rig::Rig};

async fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("no answer comes").unwrap();
    answer
}

fn tells(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
        && answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8")
        && answer.contains("\nclaviger_ready 1\n")
}

#[tokio::test]
async fn metrics_are_served_where_they_are_wanted() {
    let nowhere = Rig::start(|_| ()).await;
    assert!(get(nowhere.http, "/metrics").await.starts_with("HTTP/1.1 404"));

    let beside = Rig::start(|config| config.metrics = MetricsSection { listen: Some(config.http.listen) }).await;
    assert_eq!(beside.metrics, None);
    assert!(tells(&get(beside.http, "/metrics").await));

    let apart = Rig::start(|config| config.metrics.listen = Some("127.0.0.2:0".parse().unwrap())).await;
    let metrics = apart.metrics.unwrap();
    assert!(tells(&get(metrics, "/metrics").await));
    assert!(get(apart.http, "/metrics").await.starts_with("HTTP/1.1 404"));
    assert!(get(metrics, "/readyz").await.starts_with("HTTP/1.1 404"), "nothing else is served there");
    apart.begin_shutdown();
    apart.ended().await.unwrap();
    assert!(TcpStream::connect(metrics).await.is_err(), "its socket is closed with the process's others");
}
