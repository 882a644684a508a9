//! Who gets in, as whom, and under which name.

use claviger::proto::{FILE_DESCRIPTOR_SET, v1};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;
use tonic_types::StatusExt;

use crate::rig::{Rig, VALIDATE, reason, with_metadata};

#[tokio::test]
async fn every_method_refuses_a_call_without_a_token() {
    let rig = Rig::start().await;
    let descriptors = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let ours = descriptors.file.iter().flat_map(|file| {
        let methods = |service: &prost_types::ServiceDescriptorProto| {
            let service = format!("{}.{}", file.package(), service.name());
            move |method: &prost_types::MethodDescriptorProto| format!("/{service}/{}", method.name())
        };
        file.service.iter().flat_map(move |service| service.method.iter().map(methods(service)).collect::<Vec<_>>())
    });
    let mut paths: Vec<String> = ours.collect();
    assert_eq!(paths.len(), 16, "{paths:?}");
    paths.extend(
        [
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/claviger.v1.TokenBrokerService/DoesNotExist",
            "/claviger.v1.DoesNotExist/Method",
            "/grpc.health.v1.HealthX/Check",
            "/grpc.health.v1.Health",
            "//grpc.health.v1.Health/Check",
            "/",
        ]
        .map(str::to_owned),
    );
    for path in paths {
        let refusal = rig.call(&path, &[]).await.unwrap_err();
        assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::Unauthenticated, "TOKEN_MISSING"), "{path}");
    }
}

#[tokio::test]
async fn a_method_that_is_not_there_is_unimplemented_for_who_may_call() {
    let rig = Rig::start().await;
    let bearer = rig.bearer("alice");
    for path in ["/claviger.v1.TokenBrokerService/DoesNotExist", "/claviger.v1.DoesNotExist/Method"] {
        let refusal = rig.call(path, &[("authorization", &bearer)]).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn exactly_one_bearer_token_is_taken() {
    let rig = Rig::start().await;
    let good = rig.bearer("alice");
    let token = rig.token("alice");
    let (lower, spaced, basic, bare) =
        (format!("bearer {token}"), format!("BEARER   {token}"), format!("Basic {token}"), token.clone());
    for taken in [&good, &lower, &spaced] {
        rig.call(VALIDATE, &[("authorization", taken)]).await.unwrap();
    }
    let long = format!("Bearer {}", "x".repeat(8 * 1024 + 1));
    let two = format!("{good}, {good}");
    for (refused, expected) in [
        (vec!["Bearer"], "TOKEN_MISSING"),
        (vec!["Bearer "], "TOKEN_MISSING"),
        (vec![""], "TOKEN_MISSING"),
        (vec![basic.as_str()], "TOKEN_MISSING"),
        (vec![bare.as_str()], "TOKEN_MISSING"),
        (vec![good.as_str(), good.as_str()], "TOKEN_INVALID"),
        (vec![basic.as_str(), good.as_str()], "TOKEN_INVALID"),
        (vec![two.as_str()], "TOKEN_INVALID"),
        (vec!["Bearer abc.def.ghi"], "TOKEN_INVALID"),
        (vec![long.as_str()], "TOKEN_INVALID"),
    ] {
        let metadata: Vec<_> = refused.iter().map(|value| ("authorization", *value)).collect();
        let refusal = rig.call(VALIDATE, &metadata).await.unwrap_err();
        assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::Unauthenticated, expected), "{refused:?}");
    }
}

#[tokio::test]
async fn nothing_but_the_token_says_who_calls() {
    let rig = Rig::start().await;
    let own = rig.by_alice(v1::ValidatePlatformTokenRequest::default());
    let plain = rig.tokens().validate_platform_token(own).await.unwrap().into_inner();
    assert!(plain.valid && plain.external_id == "alice" && plain.tenant == "acme" && plain.agent.is_empty());
    let bearer = rig.bearer("alice");
    let spoofed = with_metadata(
        v1::ValidatePlatformTokenRequest::default(),
        &[
            ("authorization", &bearer),
            ("x-user-id", "bob"),
            ("x-tenant-id", "globex"),
            ("x-agent-id", "agent"),
            ("x-roles", "operator"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-user", "bob"),
            ("forwarded", "for=203.0.113.7"),
        ],
    );
    let spoofed = rig.tokens().validate_platform_token(spoofed).await.unwrap().into_inner();
    assert!(spoofed == plain);
}

#[tokio::test]
async fn an_agent_that_is_not_looked_at_is_refused() {
    let rig = Rig::start().await;
    let bearer = rig.bearer("alice");
    let refusal =
        rig.call(VALIDATE, &[("authorization", &bearer), ("agent-authorization", &bearer)]).await.unwrap_err();
    assert_eq!(reason(&refusal), "INVALID_ARGUMENT");
    assert_eq!(refusal.get_details_bad_request().unwrap().field_violations[0].field, "agent-authorization");
    let anonymous = rig.call(VALIDATE, &[("agent-authorization", &bearer)]).await.unwrap_err();
    assert_eq!(reason(&anonymous), "TOKEN_MISSING");
}

#[tokio::test]
async fn a_callers_request_id_comes_back_with_answers_and_refusals() {
    let rig = Rig::start().await;
    let bearer = rig.bearer("alice");
    let answer = rig.call(VALIDATE, &[("authorization", &bearer), ("x-request-id", "call-7")]).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "call-7");
    let refusal = rig.call(VALIDATE, &[("x-request-id", "call-8")]).await.unwrap_err();
    assert_eq!(refusal.metadata().get("x-request-id").unwrap(), "call-8");
    let health = rig.call("/grpc.health.v1.Health/Check", &[("x-request-id", "call-9")]).await.unwrap();
    assert_eq!(health.metadata().get("x-request-id").unwrap(), "call-9");
}

#[tokio::test]
async fn a_request_id_is_made_where_there_is_no_usable_one() {
    let rig = Rig::start().await;
    let mut made = Vec::new();
    let long = "x".repeat(129);
    for offered in [vec![], vec!["two words"], vec![long.as_str()], vec![""], vec!["one", "two"]] {
        let metadata: Vec<_> = offered.iter().map(|value| ("x-request-id", *value)).collect();
        let refusal = rig.call(VALIDATE, &metadata).await.unwrap_err();
        let id = refusal.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        assert!(id.starts_with("req_0101010101010101_"), "{offered:?}: {id}");
        made.push(id);
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 5);
}

#[tokio::test]
async fn what_the_user_must_do_names_the_flow_and_echoes_the_platforms_ids() {
    let rig = Rig::start().await;
    let request = rig.by_alice(v1::GetPluginTokenRequest {
        plugin: "calendar".to_owned(),
        session_id: "s-1".to_owned(),
        task_id: "t-1".to_owned(),
        platform_request_id: "p-1".to_owned(),
        ..Default::default()
    });
    let refusal = rig.tokens().get_plugin_token(request).await.err().unwrap();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::FailedPrecondition, "CONSENT_REQUIRED"));
    let details = tonic_types::Status::decode(refusal.details()).unwrap().details;
    let ours =
        details.iter().find(|detail| detail.type_url == "type.googleapis.com/claviger.v1.AuthenticationRequired");
    let required = v1::AuthenticationRequired::decode(ours.unwrap().value.as_slice()).unwrap();
    assert_eq!((required.provider.as_str(), required.plugin.as_str()), ("dev", "calendar"));
    assert_eq!(required.session_id, "s-1");
    assert_eq!(required.task_id, "t-1");
    assert_eq!(required.platform_request_id, "p-1");
    let flow = v1::GetAuthorizationRequest { flow_id: required.flow_id, wait: None };
    let flow = rig.connections().get_authorization(rig.by_alice(flow)).await.unwrap().into_inner();
    assert_eq!(flow.state(), v1::AuthorizationState::Pending);
    assert_eq!(flow.expires_at, required.expires_at);
}
