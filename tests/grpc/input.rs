//! Requests that break a rule: each is refused by name, and nothing happens.

use std::fmt::Debug;

use claviger::proto::v1::{
    self, own_code, revoke_request, start_authorization_request, store_auth_code_request::Flow,
    watch_credential_status_request::Start, watch_scope,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::rig::{Rig, reason};

/// The one field that a refusal names.
#[track_caller]
fn field<T>(answer: Result<Response<T>, Status>) -> String {
    let refusal = answer.err().expect("the request breaks a rule");
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::InvalidArgument, "INVALID_ARGUMENT"), "{refusal:?}");
    let mut violations = refusal.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 1);
    assert!(refusal.message().contains(&violations[0].description));
    violations.remove(0).field
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

fn ago() -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: -1, nanos: 0 })
}

#[tokio::test]
async fn get_plugin_token_names_the_bad_field() {
    let rig = Rig::start().await;
    let good = || v1::GetPluginTokenRequest { plugin: "calendar".to_owned(), ..Default::default() };
    let spaced = || "two words".to_owned();
    for (bad, named) in [
        (v1::GetPluginTokenRequest::default(), "plugin"),
        (v1::GetPluginTokenRequest { plugin: "Calendar".to_owned(), ..good() }, "plugin"),
        (v1::GetPluginTokenRequest { plugin: text(65), ..good() }, "plugin"),
        (v1::GetPluginTokenRequest { account: text(257), ..good() }, "account"),
        (v1::GetPluginTokenRequest { account: "a\nb".to_owned(), ..good() }, "account"),
        (v1::GetPluginTokenRequest { scopes: vec![text(1); 65], ..good() }, "scopes"),
        (v1::GetPluginTokenRequest { scopes: vec![spaced()], ..good() }, "scopes"),
        (v1::GetPluginTokenRequest { scopes: vec![String::new()], ..good() }, "scopes"),
        (v1::GetPluginTokenRequest { min_remaining: ago(), ..good() }, "min_remaining"),
        (v1::GetPluginTokenRequest { rejected_token_sha256: vec![0; 31], ..good() }, "rejected_token_sha256"),
        (v1::GetPluginTokenRequest { rejected_token_sha256: vec![0; 33], ..good() }, "rejected_token_sha256"),
        (v1::GetPluginTokenRequest { session_id: text(129), ..good() }, "session_id"),
        (v1::GetPluginTokenRequest { task_id: spaced(), ..good() }, "task_id"),
        (v1::GetPluginTokenRequest { platform_request_id: "ü".to_owned(), ..good() }, "platform_request_id"),
        (v1::GetPluginTokenRequest { return_url: "/relative".to_owned(), ..good() }, "return_url"),
        (v1::GetPluginTokenRequest { return_url: format!("https://a/{}", text(2048)), ..good() }, "return_url"),
        (v1::GetPluginTokenRequest { return_url: "https://evil.example/".to_owned(), ..good() }, "return_url"),
    ] {
        assert_eq!(field(rig.tokens().get_plugin_token(rig.by_alice(bad)).await), named);
    }
}

#[tokio::test]
async fn store_auth_code_names_the_bad_field() {
    let rig = Rig::start().await;
    let of_flow = |flow_code: v1::FlowCode| v1::StoreAuthCodeRequest { flow: Some(Flow::FlowCode(flow_code)) };
    let of_own = |own_code: v1::OwnCode| v1::StoreAuthCodeRequest { flow: Some(Flow::OwnCode(own_code)) };
    let flow = || v1::FlowCode { state: text(43), code: text(20), iss: String::new() };
    let own = || v1::OwnCode {
        target: Some(own_code::Target::Plugin("calendar".to_owned())),
        code: text(20),
        redirect_uri: "http://127.0.0.1/callback".to_owned(),
        code_verifier: text(43),
        ..Default::default()
    };
    let url = |url: &str| v1::OwnCode { redirect_uri: url.to_owned(), ..own() };
    for (bad, named) in [
        (v1::StoreAuthCodeRequest::default(), "flow"),
        (of_flow(v1::FlowCode { state: String::new(), ..flow() }), "flow_code.state"),
        (of_flow(v1::FlowCode { state: text(513), ..flow() }), "flow_code.state"),
        (of_flow(v1::FlowCode { code: String::new(), ..flow() }), "flow_code.code"),
        (of_flow(v1::FlowCode { code: text(4097), ..flow() }), "flow_code.code"),
        (of_flow(v1::FlowCode { code: "a\u{7f}b".to_owned(), ..flow() }), "flow_code.code"),
        (of_flow(v1::FlowCode { iss: text(2049), ..flow() }), "flow_code.iss"),
        (of_own(v1::OwnCode { target: None, ..own() }), "own_code.target"),
        (of_own(v1::OwnCode { target: Some(own_code::Target::Plugin(String::new())), ..own() }), "own_code.plugin"),
        (
            of_own(v1::OwnCode { target: Some(own_code::Target::Provider("A".to_owned())), ..own() }),
            "own_code.provider",
        ),
        (of_own(v1::OwnCode { code: text(4097), ..own() }), "own_code.code"),
        (of_own(url("")), "own_code.redirect_uri"),
        (of_own(url("not a url")), "own_code.redirect_uri"),
        (of_own(url("https://app.example/#fragment")), "own_code.redirect_uri"),
        (of_own(url("https://user@app.example/")), "own_code.redirect_uri"),
        (of_own(v1::OwnCode { code_verifier: text(42), ..own() }), "own_code.code_verifier"),
        (of_own(v1::OwnCode { code_verifier: text(129), ..own() }), "own_code.code_verifier"),
        (of_own(v1::OwnCode { code_verifier: "+".repeat(43), ..own() }), "own_code.code_verifier"),
        (of_own(v1::OwnCode { scopes: vec!["two words".to_owned()], ..own() }), "own_code.scopes"),
    ] {
        assert_eq!(field(rig.tokens().store_auth_code(rig.by_alice(bad)).await), named);
    }
}

#[tokio::test]
async fn revoke_names_the_bad_field() {
    let rig = Rig::start().await;
    let flow_id = format!("flw_{}", "0".repeat(32));
    for (target, named) in [
        (None, "target"),
        (Some(revoke_request::Target::ConnectionId(String::new())), "connection_id"),
        (Some(revoke_request::Target::ConnectionId(flow_id)), "connection_id"),
        (Some(revoke_request::Target::Plugin("no such name!".to_owned())), "plugin"),
        (Some(revoke_request::Target::AllMine(false)), "all_mine"),
    ] {
        let bad = v1::RevokeRequest { target, preview: true };
        assert_eq!(field(rig.tokens().revoke(rig.by_alice(bad)).await), named);
    }
}

#[tokio::test]
async fn report_applied_names_the_bad_field() {
    let rig = Rig::start().await;
    let good = || v1::ReportAppliedRequest {
        credential_id: format!("crd_{}", "0".repeat(32)),
        generation: 1,
        outcome: v1::ApplyOutcome::Applied.into(),
        holder: text(128),
    };
    let absent = rig.tokens().report_applied(rig.by_alice(good())).await.err().unwrap();
    assert_eq!(reason(&absent), "CONNECTION_NOT_FOUND");
    for (bad, named) in [
        (v1::ReportAppliedRequest { credential_id: String::new(), ..good() }, "credential_id"),
        (v1::ReportAppliedRequest { credential_id: format!("con_{}", "0".repeat(32)), ..good() }, "credential_id"),
        (v1::ReportAppliedRequest { generation: 0, ..good() }, "generation"),
        (v1::ReportAppliedRequest { outcome: 0, ..good() }, "outcome"),
        (v1::ReportAppliedRequest { outcome: 9, ..good() }, "outcome"),
        (v1::ReportAppliedRequest { holder: String::new(), ..good() }, "holder"),
        (v1::ReportAppliedRequest { holder: text(129), ..good() }, "holder"),
        (v1::ReportAppliedRequest { holder: "two words".to_owned(), ..good() }, "holder"),
        (v1::ReportAppliedRequest { holder: "\u{1b}[2J".to_owned(), ..good() }, "holder"),
    ] {
        assert_eq!(field(rig.tokens().report_applied(rig.by_alice(bad)).await), named);
    }
}

#[tokio::test]
async fn watch_credential_status_names_the_bad_field() {
    let rig = Rig::start().await;
    let scope =
        |target| v1::WatchCredentialStatusRequest { scopes: vec![v1::WatchScope { target }], ..Default::default() };
    let start = |start| v1::WatchCredentialStatusRequest { start: Some(start), ..Default::default() };
    let good = v1::WatchCredentialStatusRequest::default;
    for (bad, named) in [
        (scope(None), "scopes.target"),
        (scope(Some(watch_scope::Target::ConnectionId("con_1".to_owned()))), "scopes.connection_id"),
        (scope(Some(watch_scope::Target::CredentialId(String::new()))), "scopes.credential_id"),
        (scope(Some(watch_scope::Target::Agent("agent".to_owned()))), "scopes.agent"),
        (scope(Some(watch_scope::Target::Own(false))), "scopes.own"),
        (
            v1::WatchCredentialStatusRequest {
                scopes: vec![v1::WatchScope { target: Some(watch_scope::Target::Own(true)) }; 257],
                ..good()
            },
            "scopes",
        ),
        (v1::WatchCredentialStatusRequest { kinds: vec![0], ..good() }, "kinds"),
        (v1::WatchCredentialStatusRequest { kinds: vec![99], ..good() }, "kinds"),
        (v1::WatchCredentialStatusRequest { kinds: vec![1; 65], ..good() }, "kinds"),
        (v1::WatchCredentialStatusRequest { on_lost: 9, ..good() }, "on_lost"),
        (v1::WatchCredentialStatusRequest { delivery: -1, ..good() }, "delivery"),
        (v1::WatchCredentialStatusRequest { progress_interval: ago(), ..good() }, "progress_interval"),
        (start(Start::Snapshot(false)), "snapshot"),
        (start(Start::Now(false)), "now"),
        (start(Start::ResumeToken(Vec::new())), "resume_token"),
        (start(Start::ResumeToken(vec![0; 1025])), "resume_token"),
        (start(Start::ResumeToken(vec![7; 100])), "resume_token"),
    ] {
        assert_eq!(field(rig.tokens().watch_credential_status(rig.by_alice(bad)).await), named);
    }
}

#[tokio::test]
async fn the_connection_service_names_the_bad_field() {
    let rig = Rig::start().await;
    let good = || v1::StartAuthorizationRequest {
        target: Some(start_authorization_request::Target::Plugin("calendar".to_owned())),
        binding: v1::AuthorizationBinding::Caller.into(),
        redirect_uri: "http://127.0.0.1/callback".to_owned(),
        ..Default::default()
    };
    let provider = start_authorization_request::Target::Provider("dev".to_owned());
    for (bad, named) in [
        (v1::StartAuthorizationRequest { target: None, ..good() }, "target"),
        (v1::StartAuthorizationRequest { target: Some(provider), ..good() }, "scopes"),
        (v1::StartAuthorizationRequest { scopes: vec!["\"".to_owned()], ..good() }, "scopes"),
        (v1::StartAuthorizationRequest { account: text(257), ..good() }, "account"),
        (v1::StartAuthorizationRequest { redirect_uri: String::new(), ..good() }, "redirect_uri"),
        (v1::StartAuthorizationRequest { redirect_uri: "https://evil.example/".to_owned(), ..good() }, "redirect_uri"),
        (v1::StartAuthorizationRequest { binding: v1::AuthorizationBinding::Browser.into(), ..good() }, "redirect_uri"),
        (v1::StartAuthorizationRequest { binding: 7, ..good() }, "binding"),
        (v1::StartAuthorizationRequest { return_url: "x".to_owned(), ..good() }, "return_url"),
    ] {
        assert_eq!(field(rig.connections().start_authorization(rig.by_alice(bad)).await), named);
    }
    let flow_id = format!("flw_{}", "0".repeat(32));
    for (bad, named) in [
        (v1::GetAuthorizationRequest::default(), "flow_id"),
        (v1::GetAuthorizationRequest { flow_id: "flw_xyz".to_owned(), wait: None }, "flow_id"),
        (v1::GetAuthorizationRequest { flow_id, wait: ago() }, "wait"),
    ] {
        assert_eq!(field(rig.connections().get_authorization(rig.by_alice(bad)).await), named);
    }
    let bad = v1::ListConnectionsRequest { provider: "Not A Name".to_owned() };
    assert_eq!(field(rig.connections().list_connections(rig.by_alice(bad)).await), "provider");
    let bad = v1::GetConnectionRequest { connection_id: "crd_1".to_owned() };
    assert_eq!(field(rig.connections().get_connection(rig.by_alice(bad)).await), "connection_id");
}

#[tokio::test]
async fn values_of_fields_are_not_repeated_in_refusals() {
    let rig = Rig::start().await;
    let bad = v1::GetPluginTokenRequest { plugin: "CANARY <script>".to_owned(), ..Default::default() };
    let refusal = rig.tokens().get_plugin_token(rig.by_alice(bad)).await.err().unwrap();
    assert!(!printed(&refusal).contains("CANARY"));
}

fn printed(refusal: &(impl Debug + ?Sized)) -> String {
    format!("{refusal:?}")
}
