//! Who may ask what the server offers.

use claviger::grpc::{ReflectionPolicy, Settings};
use tokio_stream::once;
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

use crate::rig::{Rig, reason, with_metadata};

#[tokio::test]
async fn with_the_default_whoever_may_call_may_ask_in_both_versions() {
    let rig = Rig::start().await;
    let bearer = rig.bearer("alice");
    for services in
        [services(&rig, &[("authorization", &bearer)]).await, services_alpha(&rig, &[("authorization", &bearer)]).await]
    {
        let services = services.unwrap();
        for expected in ["claviger.v1.TokenBrokerService", "claviger.v1.ConnectionService", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|name| name == expected), "{expected} is not in {services:?}");
        }
    }
    for refusal in [services(&rig, &[]).await, services_alpha(&rig, &[]).await] {
        assert_eq!(reason(&refusal.unwrap_err()), "TOKEN_MISSING");
    }
}

#[tokio::test]
async fn when_it_is_open_anybody_may_ask_but_nothing_else_opens() {
    let rig = Rig::with(Settings { reflection: ReflectionPolicy::Open, ..Settings::default() }).await;
    assert!(services(&rig, &[]).await.unwrap().len() >= 3);
    assert!(services_alpha(&rig, &[]).await.unwrap().len() >= 3);
    let refusal = rig.call("/claviger.v1.ConnectionService/ListConnections", &[]).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn when_it_is_off_it_is_not_there() {
    let rig = Rig::with(Settings { reflection: ReflectionPolicy::Off, ..Settings::default() }).await;
    let bearer = rig.bearer("alice");
    for metadata in [&[("authorization", bearer.as_str())][..], &[]] {
        let expected = if metadata.is_empty() { Code::Unauthenticated } else { Code::Unimplemented };
        assert_eq!(services(&rig, metadata).await.unwrap_err().code(), expected);
        assert_eq!(services_alpha(&rig, metadata).await.unwrap_err().code(), expected);
    }
}

async fn services(rig: &Rig, metadata: &[(&str, &str)]) -> Result<Vec<String>, Status> {
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(rig.channel());
    let mut answers = client.server_reflection_info(with_metadata(once(list), metadata)).await?.into_inner();
    match answers.message().await?.unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => Ok(list.service.into_iter().map(|s| s.name).collect()),
        _ => Err(Status::unknown("no list came back")),
    }
}

async fn services_alpha(rig: &Rig, metadata: &[(&str, &str)]) -> Result<Vec<String>, Status> {
    use v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(rig.channel());
    let mut answers = client.server_reflection_info(with_metadata(once(list), metadata)).await?.into_inner();
    match answers.message().await?.unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => Ok(list.service.into_iter().map(|s| s.name).collect()),
        _ => Err(Status::unknown("no list came back")),
    }
}
