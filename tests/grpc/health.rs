//! Readiness, on both listeners.

use axum::{body::Body, http::Request};
use claviger::http;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tower::ServiceExt;

use crate::rig::Rig;

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn anybody_may_ask_whether_a_service_serves() {
    let rig = Rig::start().await;
    let mut client = HealthClient::new(rig.channel());
    for service in
        ["", "claviger.v1.TokenBrokerService", "claviger.v1.ConnectionService", "claviger.v1.OperationsService"]
    {
        assert_eq!(client.check(of(service)).await.unwrap().into_inner().status(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(client.check(of("claviger.v1.Other")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_watcher_is_told_that_the_broker_stops_and_then_let_go() {
    let rig = Rig::start().await;
    let mut client = HealthClient::new(rig.channel());
    let mut statuses = client.watch(of("")).await.unwrap().into_inner();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    rig.broker.stop().await;
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(statuses.message().await.unwrap(), None);
    assert_eq!(client.check(of("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn the_http_side_says_the_same() {
    let rig = Rig::start().await;
    let routes = http::router(rig.broker.clone());
    let status = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = routes.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{path}");
        assert!(answer.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        answer.status().as_u16()
    };
    assert_eq!((status("/healthz").await, status("/readyz").await, status("/nothing").await), (200, 200, 404));
    rig.broker.stop().await;
    assert_eq!((status("/healthz").await, status("/readyz").await), (200, 503));
}
