//! Connecting accounts in binding `CALLER`: flows, codes, and what comes of them.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use claviger::{
    app::{App, Listeners},
    client::{ClientError, Connect},
    config::{Config, Period},
    dev::{Answer, Endpoint, Fault, GrantType, HoldPoint, TokenOutcome, TokenRefusal, visitor::Decision},
    domain::{
        Attempt, AuthorizationCode, Flow, FlowSecret, FlowState, Granted, Job, JobId, JobKind, ReplyClass, ScopeSet,
    },
    oauth::AuthorizationServers,
    proto::v1::{self, AuthorizationState, ErrorReason},
    sealing::Random,
    vault::{FlowTokens, Parked, TokenSet},
};
use http::StatusCode;
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    heard::Client,
    support::records::Records,
    world::{CALLBACK, MINUTE, PLUGIN, Settings, World, ask, code_of, outbound, parameter, reason, start},
};

pub(crate) const SOON: Duration = Duration::from_secs(20);
const VERIFIER: &str = "a-verifier-of-the-callers-own-that-is-long-enough";

// The intent.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_again_returns_the_open_flow_with_a_new_attempt() {
    let world = World::start().await;
    let alice = world.client("alice");
    let first = alice.start_authorization(start(PLUGIN)).await.unwrap();
    let second = alice.start_authorization(start(PLUGIN)).await.unwrap();
    assert_eq!(first.flow_id, second.flow_id);
    assert_eq!(first.expires_at, second.expires_at);
    for name in ["state", "nonce", "code_challenge"] {
        let of = |started: &v1::StartAuthorizationResponse| parameter(&url_of(started), name);
        assert!(of(&first).len() >= 43, "{name}");
        assert_ne!(of(&first), of(&second), "{name} is minted for each attempt");
    }
    assert_eq!(parameter(&url_of(&first), "code_challenge_method"), "S256");
    let other = alice.start_authorization(start("notes")).await.unwrap();
    assert_ne!(other.flow_id, first.flow_id);
    let bobs = world.client("bob").start_authorization(start(PLUGIN)).await.unwrap();
    assert_ne!(bobs.flow_id, first.flow_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_at_once_it_is_still_one_flow() {
    let world = World::start().await;
    let alice = world.client("alice");
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let alice = alice.clone();
        calls.spawn(async move { alice.start_authorization(start(PLUGIN)).await.unwrap().flow_id });
    }
    let mut flows = calls.join_all().await;
    flows.dedup();
    assert_eq!(flows.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polling_agent_is_told_of_one_flow_and_writes_nothing_new() {
    let world = World::start().await;
    let alice = world.client("alice");
    let first = required(alice.get_plugin_token(ask(PLUGIN)).await);
    assert_eq!(first.plugin, PLUGIN);
    assert_eq!(first.provider, "dev");
    assert_eq!(first.missing_scopes, ["calendar.read"]);
    assert_eq!(first.auth_url, "", "without a sign-in there is no page to send the user to");
    // The first look leaves a record itself.
    head(&alice).await;
    let before = head(&alice).await;
    for _ in 0..3 {
        let again = required(alice.get_plugin_token(ask(PLUGIN)).await);
        assert_eq!((again.flow_id, again.expires_at), (first.flow_id.clone(), first.expires_at));
    }
    assert_eq!(head(&alice).await, before);
    assert_eq!(alice.start_authorization(start(PLUGIN)).await.unwrap().flow_id, first.flow_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_own_ids_are_echoed_to_whoever_sends_the_user() {
    let world = World::start().await;
    let request = v1::GetPluginTokenRequest {
        session_id: "session-1".to_owned(),
        task_id: "task-2".to_owned(),
        platform_request_id: "request-3".to_owned(),
        ..ask(PLUGIN)
    };
    let required = required(world.client("alice").get_plugin_token(request).await);
    assert_eq!(required.session_id, "session-1");
    assert_eq!(required.task_id, "task-2");
    assert_eq!(required.platform_request_id, "request-3");
}

// What is not started.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_sent_where_the_tenant_does_not_allow() {
    let world = World::start().await;
    let alice = world.client("alice");
    for elsewhere in ["https://evil.example/done", "https://app.example/done?x", "https://app.example/done/"] {
        let started = v1::StartAuthorizationRequest { return_url: elsewhere.to_owned(), ..start(PLUGIN) };
        assert_eq!(violation(alice.start_authorization(started).await), "return_url", "{elsewhere}");
        let asked = v1::GetPluginTokenRequest { return_url: elsewhere.to_owned(), ..ask(PLUGIN) };
        assert_eq!(violation(alice.get_plugin_token(asked).await), "return_url", "{elsewhere}");
    }
    let allowed = "https://app.example/done".to_owned();
    let asked = v1::GetPluginTokenRequest { return_url: allowed.clone(), ..ask(PLUGIN) };
    let flow = required(alice.get_plugin_token(asked).await).flow_id;
    let started = v1::StartAuthorizationRequest { return_url: allowed, ..start(PLUGIN) };
    assert_eq!(alice.start_authorization(started).await.unwrap().flow_id, flow);

    for elsewhere in [
        "https://evil.example/callback",
        "http://127.0.0.1/other",
        "http://127.0.0.1.evil.example/callback",
        "http://localhost/callback",
        "https://127.0.0.1/callback",
        "http://127.0.0.1/callback?x=1",
    ] {
        let started = v1::StartAuthorizationRequest { redirect_uri: elsewhere.to_owned(), ..start(PLUGIN) };
        assert_eq!(violation(alice.start_authorization(started).await), "redirect_uri", "{elsewhere}");
    }
    let native =
        v1::StartAuthorizationRequest { redirect_uri: "http://127.0.0.1:49152/callback".into(), ..start(PLUGIN) };
    assert!(alice.start_authorization(native).await.is_ok(), "a native application's port is its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_authorized_is_refused_by_name() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let browser = v1::StartAuthorizationRequest {
        binding: v1::AuthorizationBinding::Browser.into(),
        redirect_uri: String::new(),
        ..start(PLUGIN)
    };
    assert_eq!(reason(alice.start_authorization(browser).await), ErrorReason::SignInNotConfigured);
    assert_eq!(reason(alice.start_authorization(start("nowhere")).await), ErrorReason::PluginUnknown);
    assert_eq!(reason(alice.get_plugin_token(ask("nowhere")).await), ErrorReason::PluginUnknown);
    let provider = v1::StartAuthorizationRequest {
        target: Some(v1::start_authorization_request::Target::Provider("nowhere".to_owned())),
        scopes: vec!["calendar.read".to_owned()],
        ..start(PLUGIN)
    };
    assert_eq!(reason(alice.start_authorization(provider).await), ErrorReason::PluginUnknown);
    let wider = vec!["calendar.read".to_owned(), "notes.write".to_owned()];
    let started = v1::StartAuthorizationRequest { scopes: wider.clone(), ..start(PLUGIN) };
    assert_eq!(reason(alice.start_authorization(started).await), ErrorReason::ScopeExceeded);
    let asked = v1::GetPluginTokenRequest { scopes: wider, ..ask(PLUGIN) };
    assert_eq!(reason(alice.get_plugin_token(asked).await), ErrorReason::ScopeExceeded);

    world.reconfigure(|config| config.plugins.iter_mut().for_each(|plugin| plugin.enabled = false)).await;
    let alice = world.client("alice");
    assert_eq!(reason(alice.start_authorization(start(PLUGIN)).await), ErrorReason::PluginDenied);
    assert_eq!(reason(alice.get_plugin_token(ask(PLUGIN)).await), ErrorReason::PluginDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_has_so_many_flows_within_their_time() {
    let world = World::start().await;
    let alice = world.client("alice");
    let for_account =
        |number: usize| v1::StartAuthorizationRequest { account: format!("account-{number}"), ..start(PLUGIN) };
    let mut calls = JoinSet::new();
    for number in 0..40 {
        let (alice, request) = (alice.clone(), for_account(number));
        calls.spawn(async move { alice.start_authorization(request).await });
    }
    let (opened, refused): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(opened.len(), 32, "also when they are asked for at once");
    for refused in refused {
        let refused = refused.err().expect("a refusal");
        assert_eq!(refused.reason, Some(ErrorReason::FlowQuota));
        assert!(refused.retry_after.is_some());
    }
    let required_still = required(alice.get_plugin_token(ask(PLUGIN)).await);
    assert_eq!(required_still.flow_id, "");
    assert_eq!(required_still.expires_at, None);
    assert_eq!(reason(world.own_code(&alice, "some-code").await), ErrorReason::FlowQuota, "an own flow counts too");
    assert!(world.client("bob").start_authorization(start(PLUGIN)).await.is_ok(), "it is each subject's own");

    world.clock.advance(10 * MINUTE);
    assert!(alice.start_authorization(for_account(50)).await.is_ok());
    assert_ne!(required(alice.get_plugin_token(ask(PLUGIN)).await).flow_id, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_mints_so_many_attempts() {
    let world = World::start().await;
    let alice = world.client("alice");
    for _ in 0..10 {
        alice.start_authorization(start(PLUGIN)).await.unwrap();
    }
    world.clock.advance(MINUTE);
    let refused = alice.start_authorization(start(PLUGIN)).await.err().expect("a refusal");
    assert_eq!(refused.reason, Some(ErrorReason::FlowQuota));
    assert_eq!(refused.retry_after, Some(9 * MINUTE), "when the flow ends");
}

// Storing the code.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_becomes_a_connection_without_a_token_in_sight() {
    let world = World::start().await;
    let alice = world.client("alice");
    let started = alice.start_authorization(start(PLUGIN)).await.unwrap();
    let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    let connection = world.store(&alice, &answer).await.unwrap();
    assert_eq!(connection.account, "alice");
    assert_eq!(connection.provider, "dev");
    assert_eq!(connection.generation, 1);
    assert_eq!(connection.state(), v1::CredentialState::Connected);
    assert!(connection.scopes.contains(&"calendar.read".to_owned()));
    let flow = alice.get_authorization(of_flow(&started.flow_id)).await.unwrap();
    assert_eq!(flow.state(), AuthorizationState::Completed);
    assert_eq!(flow.connection, Some(connection.clone()));
    let token = alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    assert_eq!(token.connection_id, connection.connection_id);
    assert!(world.accepts(&token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_in_other_hands_is_of_a_flow_that_does_not_exist() {
    let world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let answer = world.authorize(&alice, "alice").await;
    assert_eq!(reason(world.store(&bob, &answer).await), ErrorReason::FlowNotFound);
    assert_eq!(exchanges(&world), 0);
    let mut unknown = answer.clone();
    unknown.set_query(Some(&format!("state={}&code=abc&iss=x", "A".repeat(43))));
    assert_eq!(reason(world.store(&alice, &unknown).await), ErrorReason::FlowNotFound);
    assert!(world.store(&alice, &answer).await.is_ok(), "nothing was consumed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_is_told_so() {
    let world = World::start().await;
    let alice = world.client("alice");
    let started = alice.start_authorization(start(PLUGIN)).await.unwrap();
    let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    world.clock.advance(10 * MINUTE);
    assert_eq!(reason(world.store(&alice, &answer).await), ErrorReason::FlowExpired);
    let flow = alice.get_authorization(of_flow(&started.flow_id)).await.unwrap();
    assert_eq!(flow.state(), AuthorizationState::Expired);
    assert_eq!(flow.reason(), ErrorReason::FlowExpired);
    assert_eq!(exchanges(&world), 0);
    let fresh = alice.start_authorization(start(PLUGIN)).await.unwrap();
    assert_ne!(fresh.flow_id, started.flow_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_code_gets_the_stored_outcome() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let answer = world.authorize(&alice, "alice").await;
    let first = world.store(&alice, &answer).await.unwrap();
    assert_eq!(world.store(&alice, &answer).await.unwrap(), first);
    world.restart().await;
    let alice = world.client("alice");
    assert_eq!(world.store(&alice, &answer).await.unwrap(), first, "also after a restart");
    assert_eq!(exchanges(&world), 1);
    let mut other = code_of(&answer);
    if let Some(v1::store_auth_code_request::Flow::FlowCode(flow)) = &mut other.flow {
        flow.code = "another".to_owned();
    }
    assert_eq!(reason(alice.store_auth_code(other).await), ErrorReason::FlowConsumed);
    assert_eq!(exchanges(&world), 1);
    assert_eq!(world.live_refresh_tokens(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_code_twice_at_once_is_exchanged_once() {
    let world = World::start().await;
    let alice = world.client("alice");
    let answer = world.authorize(&alice, "alice").await;
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let (alice, request) = (alice.clone(), code_of(&answer));
        calls.spawn(async move { alice.store_auth_code(request).await.unwrap().connection.unwrap().connection_id });
    }
    let mut connections = calls.join_all().await;
    connections.dedup();
    assert_eq!(connections.len(), 1);
    assert_eq!(exchanges(&world), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_attempts_of_a_flow_one_is_exchanged() {
    let world = World::start().await;
    let alice = world.client("alice");
    let (one, two) = (world.authorize(&alice, "alice").await, world.authorize(&alice, "alice").await);
    let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    let first = {
        let (alice, request) = (alice.clone(), code_of(&one));
        tokio::spawn(async move { alice.store_auth_code(request).await.map(|answer| answer.connection) })
    };
    hold.arrived(1).await;
    let second = {
        let (alice, request) = (alice.clone(), code_of(&two));
        tokio::spawn(async move { reason(alice.store_auth_code(request).await) })
    };
    hold.release();
    assert!(first.await.unwrap().is_ok());
    assert_eq!(second.await.unwrap(), ErrorReason::FlowConsumed);
    assert_eq!(exchanges(&world), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_states_are_refused_by_pkce() {
    let world = World::start().await;
    let alice = world.client("alice");
    let one = world.authorize(&alice, "alice").await;
    let started = alice.start_authorization(start("notes")).await.unwrap();
    let two = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    for (state, code) in [(&one, &two), (&two, &one)] {
        let flow = v1::FlowCode {
            state: parameter(state, "state"),
            code: parameter(code, "code"),
            iss: parameter(code, "iss"),
        };
        let request = v1::StoreAuthCodeRequest { flow: Some(v1::store_auth_code_request::Flow::FlowCode(flow)) };
        assert_eq!(reason(alice.store_auth_code(request).await), ErrorReason::ExchangeRefused);
    }
    let refused = TokenOutcome::Refused(TokenRefusal::WrongVerifier);
    assert!(world.provider.token_requests().iter().all(|request| request.outcome == refused));
    assert_eq!(exchanges(&world), 2);
    assert_eq!(connections(&alice).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_another_issuer_touches_nothing() {
    let world = World::start().await;
    let alice = world.client("alice");
    let answer = world.authorize(&alice, "alice").await;
    for iss in ["", "https://evil.example", &format!("{}/", world.provider.issuer())] {
        let mut request = code_of(&answer);
        if let Some(v1::store_auth_code_request::Flow::FlowCode(flow)) = &mut request.flow {
            flow.iss = iss.to_owned();
        }
        assert_eq!(reason(alice.store_auth_code(request).await), ErrorReason::IssuerMismatch, "{iss:?}");
    }
    assert_eq!(exchanges(&world), 0);
    assert_eq!(connections(&alice).await, []);
    assert!(world.store(&alice, &answer).await.is_ok(), "the attempt is still good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_loses_nothing() {
    let world = World::start().await;
    let alice = world.client("alice");
    let started = alice.start_authorization(start(PLUGIN)).await.unwrap();
    let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    let call = {
        let (alice, request) = (alice.clone(), code_of(&answer));
        tokio::spawn(async move { alice.store_auth_code(request).await })
    };
    hold.arrived(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    hold.release();
    let flow = finished(&alice, &started.flow_id).await;
    assert_eq!(flow.state(), AuthorizationState::Completed);
    assert_eq!(connections(&alice).await.len(), 1);
}

// A flow of the caller's own.

impl World {
    /// Up to the code, without the broker.
    async fn own_authorization(&self, user: &str, scopes: &str) -> Url {
        let mut url: Url = format!("{}/authorize", self.provider.issuer()).parse().unwrap();
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", claviger::dev::CLIENT_ID)
            .append_pair("redirect_uri", CALLBACK)
            .append_pair("scope", scopes)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        self.visit(url.as_str(), user, Decision::Approve).await
    }

    async fn own_code(&self, client: &Client, code: &str) -> Result<v1::Connection, ClientError> {
        Ok(client.store_auth_code(own(code, VERIFIER)).await?.connection.unwrap())
    }
}

fn own(code: &str, verifier: &str) -> v1::StoreAuthCodeRequest {
    let own = v1::OwnCode {
        target: Some(v1::own_code::Target::Plugin(PLUGIN.to_owned())),
        code: code.to_owned(),
        redirect_uri: CALLBACK.to_owned(),
        code_verifier: verifier.to_owned(),
        scopes: Vec::new(),
    };
    v1::StoreAuthCodeRequest { flow: Some(v1::store_auth_code_request::Flow::OwnCode(own)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_of_the_callers_own_flow_is_as_safe_to_repeat() {
    let world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let answer = world.own_authorization("alice", "openid offline_access calendar.read").await;
    let code = parameter(&answer, "code");
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let (alice, request) = (alice.clone(), own(&code, VERIFIER));
        calls.spawn(async move { alice.store_auth_code(request).await.unwrap().connection.unwrap() });
    }
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|connection| *connection == answers[0]));
    assert_eq!(answers[0].account, "alice");
    assert_eq!(world.own_code(&alice, &code).await.unwrap(), answers[0]);
    assert_eq!(exchanges(&world), 1);
    assert_eq!(reason(world.own_code(&bob, &code).await), ErrorReason::FlowNotFound);
    assert!(world.accepts(&alice.get_plugin_token(ask(PLUGIN)).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_verifier_of_the_callers_own_is_refused_for_good() {
    let world = World::start().await;
    let alice = world.client("alice");
    let answer = world.own_authorization("alice", "openid offline_access calendar.read").await;
    let request = || own(&parameter(&answer, "code"), &VERIFIER.to_uppercase());
    assert_eq!(reason(alice.store_auth_code(request()).await), ErrorReason::ExchangeRefused);
    assert_eq!(reason(alice.store_auth_code(request()).await), ErrorReason::ExchangeRefused);
    assert_eq!(exchanges(&world), 1);
    assert_eq!(connections(&alice).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_for_another_redirect_uri_is_not_the_callers_to_bring() {
    let world = World::start().await;
    let alice = world.client("alice");
    let answer = world.own_authorization("alice", "openid calendar.read").await;
    let mut request = own(&parameter(&answer, "code"), VERIFIER);
    if let Some(v1::store_auth_code_request::Flow::OwnCode(own)) = &mut request.flow {
        own.redirect_uri = "https://connect.example/oauth/callback".to_owned();
    }
    let before = exchanges(&world);
    assert_eq!(violation(alice.store_auth_code(request).await), "redirect_uri");
    assert_eq!(exchanges(&world), before, "the code is not sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_providers_grant_is_what_the_caller_had_asked_for() {
    let world = World::start().await;
    let alice = world.client("alice");
    let silent = || Fault::Edit { set: serde_json::Map::new(), remove: vec!["scope".to_owned()] };
    for (scopes, granted) in
        [(vec![], vec!["calendar.read"]), (vec!["calendar.read", "email"], vec!["calendar.read", "email"])]
    {
        let answer = world.own_authorization("alice", "openid offline_access calendar.read email").await;
        let mut request = own(&parameter(&answer, "code"), VERIFIER);
        if let Some(v1::store_auth_code_request::Flow::OwnCode(own)) = &mut request.flow {
            own.scopes = scopes.into_iter().map(str::to_owned).collect();
        }
        world.provider.faults().arm(Endpoint::Token, silent(), 1);
        let connection = alice.store_auth_code(request).await.unwrap().connection.unwrap();
        assert_eq!(connection.scopes, granted);
    }
}

// Providers in trouble.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_was_never_sent_works_later() {
    let mut world = World::start_with(Settings { durable_provider: true, ..Settings::default() }).await;
    let alice = world.client("alice");
    let started = alice.start_authorization(start(PLUGIN)).await.unwrap();
    let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    world.provider.shutdown().await;
    let refused = world.store(&alice, &answer).await.unwrap_err();
    assert_eq!(refused.reason, Some(ErrorReason::ProviderUnreachable));
    assert!(refused.retry_after.is_some());
    let flow = alice.get_authorization(of_flow(&started.flow_id)).await.unwrap();
    assert_eq!(flow.state(), AuthorizationState::Pending);
    world.start_provider().await;
    assert_eq!(world.store(&alice, &answer).await.unwrap().account, "alice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_no_token_ends_the_flow_with_its_reason() {
    let world = World::start().await;
    let alice = world.client("alice");
    let json = |status, body: serde_json::Value| Fault::Answer(Answer::json(status, &body));
    let edit =
        |name: &str, value| Fault::Edit { set: [(name.to_owned(), value)].into_iter().collect(), remove: vec![] };
    let page = |status| Fault::Answer(Answer::new(status, "<html>blocked by the firewall</html>"));
    let cases = [
        ("a page", page(StatusCode::FORBIDDEN), ErrorReason::ProviderReplyInvalid),
        ("a page where tokens should be", page(StatusCode::OK), ErrorReason::ExchangeInterrupted),
        ("an error with 200", json(StatusCode::OK, json!({"error": "invalid_grant"})), ErrorReason::ExchangeRefused),
        ("an error", json(StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"})), ErrorReason::ExchangeRefused),
        (
            "our client",
            json(StatusCode::UNAUTHORIZED, json!({"error": "invalid_client"})),
            ErrorReason::ProviderSuspended,
        ),
        ("an empty token", edit("access_token", json!("")), ErrorReason::ExchangeInterrupted),
        ("a token that is none", edit("access_token", json!(7)), ErrorReason::ExchangeInterrupted),
        ("nothing", Fault::CommitThenDrop, ErrorReason::ExchangeInterrupted),
        ("half of it", Fault::CommitThenTruncate, ErrorReason::ExchangeInterrupted),
        (
            "trouble",
            Fault::CommitThenAnswer(Answer::new(StatusCode::BAD_GATEWAY, "")),
            ErrorReason::ExchangeInterrupted,
        ),
    ];
    for (what, fault, expected) in cases {
        let started = alice.start_authorization(start(PLUGIN)).await.unwrap();
        let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
        let before = exchanges(&world);
        world.provider.faults().arm(Endpoint::Token, fault, 1);
        assert_eq!(reason(world.store(&alice, &answer).await), expected, "{what}");
        assert_eq!(reason(world.store(&alice, &answer).await), expected, "{what}, repeated");
        assert_eq!(exchanges(&world), before + 1, "{what}: a code is sent once");
        let flow = alice.get_authorization(of_flow(&started.flow_id)).await.unwrap();
        assert_eq!((flow.state(), flow.reason()), (AuthorizationState::Failed, expected), "{what}");
        assert_eq!(connections(&alice).await, [], "{what}");
    }
    assert!(world.store(&alice, &world.authorize(&alice, "alice").await).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_does_not_answer_in_time_has_interrupted_the_exchange() {
    let configure = Box::new(|config: &mut Config| config.outbound.timeout = Period::from_secs(4));
    let world = World::start_with(Settings { configure, ..Settings::default() }).await;
    let alice = world.client("alice");
    let answer = world.authorize(&alice, "alice").await;
    let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Request);
    assert_eq!(reason(world.store(&alice, &answer).await), ErrorReason::ExchangeInterrupted);
    hold.release();
    assert_eq!(connections(&alice).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strange_id_token_costs_nobody_a_fresh_token() {
    let world = World::start().await;
    let alice = world.client("alice");
    let answer = world.authorize(&alice, "alice").await;
    let fault =
        Fault::Edit { set: [("id_token".to_owned(), json!("no.token.atall"))].into_iter().collect(), remove: vec![] };
    world.provider.faults().arm(Endpoint::Token, fault, 1);
    let connection = world.store(&alice, &answer).await.unwrap();
    assert_eq!(connection.account, "", "the account stays unknown");
    assert!(world.accepts(&alice.get_plugin_token(ask(PLUGIN)).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_an_unknown_account_never_take_a_known_ones_place() {
    let world = World::start().await;
    let alice = world.client("alice");
    let known = world.connect(&alice, "alice").await;
    let again = v1::StartAuthorizationRequest { account: known.account.clone(), ..start(PLUGIN) };
    let started = alice.start_authorization(again).await.unwrap();
    let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    let fault =
        Fault::Edit { set: [("id_token".to_owned(), json!("no.token.atall"))].into_iter().collect(), remove: vec![] };
    world.provider.faults().arm(Endpoint::Token, fault, 1);
    let other = world.store(&alice, &answer).await.unwrap();
    assert_eq!(other.account, "", "nobody has confirmed a name");
    assert_ne!(other.connection_id, known.connection_id);
    assert!(connections(&alice).await.iter().any(|connection| connection.account == known.account));
}

// A broker that dies.

/// A broker that can be torn down in the middle of anything: it runs on a runtime of its own.
struct Doomed {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Doomed {
    async fn start(world: &mut World, user: &str) -> Self {
        world.stop().await;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (config, clock) = (world.config(), Arc::new(world.clock.clone()));
        let grpc = runtime.spawn(async move {
            let listeners = Listeners::bind(&config).await.unwrap();
            let grpc = listeners.grpc.local_addr().unwrap();
            let app = App::build(config, clock, Random::system()).await.unwrap();
            tokio::spawn(app.serve(listeners, CancellationToken::new()));
            grpc
        });
        let endpoint = format!("http://{}", grpc.await.unwrap());
        let token = world.token(user, &crate::world::claims());
        let client = Connect { endpoint, ..Connect::default() }.with_token(&token).unwrap();
        Self { runtime, client: world.heard.by(client, &token) }
    }

    /// Returns when the store's directory is free again, as it is at once when a process dies.
    async fn die(self, world: &World) {
        self.runtime.shutdown_background();
        let lock = world.config().store.directory.join("lock");
        let freed = tokio::task::spawn_blocking(move || std::fs::File::open(lock).unwrap().lock().unwrap());
        timeout(SOON, freed).await.expect("the store is let go of").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_during_the_exchange_is_told_as_what_it_is() {
    let mut world = World::start().await;
    let doomed = Doomed::start(&mut world, "alice").await;
    let started = doomed.client.start_authorization(start(PLUGIN)).await.unwrap();
    let (flow, answer) = (started.flow_id, world.visit(&started.authorization_url, "alice", Decision::Approve).await);
    let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    let call = {
        let (client, request) = (doomed.client.clone(), code_of(&answer));
        tokio::spawn(async move { client.store_auth_code(request).await })
    };
    hold.arrived(1).await;
    doomed.die(&world).await;
    assert!(call.await.unwrap().is_err());
    hold.release();
    world.run().await;
    let alice = world.client("alice");
    assert_eq!(reason(world.store(&alice, &answer).await), ErrorReason::ExchangeInterrupted);
    assert_eq!(exchanges(&world), 1, "a code that may be spent is not sent again");
    world.clock.advance(Duration::from_secs(5));
    let flow = finished(&alice, &flow).await;
    assert_eq!((flow.state(), flow.reason()), (AuthorizationState::Failed, ErrorReason::ExchangeInterrupted));
    assert!(world.store(&alice, &world.authorize(&alice, "alice").await).await.is_ok());
}

/// Leaves behind what a broker leaves that dies after it has stored an exchange's tokens and before it has judged them.
async fn die_before_settling(world: &mut World, answer: &Url) {
    world.stop().await;
    let records = Records::open(world).await;
    let vault = &records.vault;
    let code = AuthorizationCode::new(parameter(answer, "code"));
    let attempt = vault.attempt(&FlowSecret::new(parameter(answer, "state"))).await.unwrap().unwrap();
    let Attempt { tenant, subject, token_endpoint, redirect_uri, .. } = attempt.value.clone();
    let flow = vault.flow(&tenant, attempt.value.flow).await.unwrap().unwrap();
    let verifier = vault.attempt_verifier(&attempt).await.unwrap();
    let provider = records.provider(world);
    let servers = AuthorizationServers::new(outbound(), Arc::new(world.clock.clone()));
    let exchanged = servers.exchange(&provider, &token_endpoint, &code, &verifier, &redirect_uri).await;
    let tokens = exchanged.unwrap_or_else(|failure| panic!("{:?}", failure.class == ReplyClass::Unknown));
    let granted = Granted {
        scopes: tokens.scopes.unwrap_or_default(),
        expires_at: tokens.expires_in.map(|life| tokens.asked_at.plus(life)),
        refreshable: tokens.refresh.is_some(),
        refresh_token_end: None,
    };
    let parked = FlowTokens {
        tokens: TokenSet { access: tokens.access, refresh: tokens.refresh, id_token: tokens.id_token },
        granted,
        obtained_at: tokens.asked_at,
        nonce: vault.attempt_nonce(&attempt).await.unwrap(),
    };
    let mut change = vault.change(&tenant, Some(subject)).await.unwrap();
    let digest = vault.keys().code_digest(&code);
    change.update_attempt(&attempt, &Attempt { consumed_by: Some(digest), ..attempt.value.clone() });
    change.update_flow(&flow, &Flow { state: FlowState::Exchanged, ..flow.value.clone() }, Parked::Replace(&parked));
    let kind = JobKind::SettleFlow { flow: flow.value.id };
    let job = Job { id: JobId::from_bytes([7; 16]), tenant, subject, kind, failures: 0 };
    change.insert_job(&job, None, world.now().plus(Duration::from_secs(5)));
    change.commit().await.unwrap();
    records.close().await;
    world.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_the_job_settles_what_was_exchanged() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let started = alice.start_authorization(start(PLUGIN)).await.unwrap();
    let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    die_before_settling(&mut world, &answer).await;
    let alice = world.client("alice");
    assert_eq!(connections(&alice).await, []);
    world.clock.advance(Duration::from_secs(5));
    let flow = finished(&alice, &started.flow_id).await;
    assert_eq!(flow.state(), AuthorizationState::Completed);
    assert_eq!(flow.connection.unwrap().account, "alice");
    assert!(world.accepts(&alice.get_plugin_token(ask(PLUGIN)).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_a_repeated_code_need_not_wait_for_the_job() {
    let mut world = World::start().await;
    let answer = world.authorize(&world.client("alice"), "alice").await;
    die_before_settling(&mut world, &answer).await;
    let alice = world.client("alice");
    let connection = world.store(&alice, &answer).await.unwrap();
    assert_eq!(connection.account, "alice");
    world.clock.advance(MINUTE);
    assert_eq!(world.store(&alice, &answer).await.unwrap().connection_id, connection.connection_id);
    assert_eq!(connections(&alice).await.len(), 1);
    assert_eq!(exchanges(&world), 1);
}

// Waiting for the end.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_flow_hears_of_its_end_at_once() {
    let world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let started = alice.start_authorization(start(PLUGIN)).await.unwrap();
    assert_eq!(reason(bob.get_authorization(of_flow(&started.flow_id)).await), ErrorReason::FlowNotFound);
    let waiting = {
        let (alice, flow) = (alice.clone(), started.flow_id.clone());
        tokio::spawn(async move { finished(&alice, &flow).await })
    };
    world.clock.someone_sleeps_until(world.now().plus(MINUTE)).await;
    let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    let connection = world.store(&alice, &answer).await.unwrap();
    let flow = waiting.await.unwrap();
    assert_eq!(flow.state(), AuthorizationState::Completed);
    assert_eq!(flow.connection, Some(connection));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_at_its_deadline_and_at_the_flows() {
    let world = World::start().await;
    let alice = world.client("alice");
    let flow_id = alice.start_authorization(start(PLUGIN)).await.unwrap().flow_id;
    let wait = |seconds| {
        let alice = alice.clone();
        let wait = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = v1::GetAuthorizationRequest { flow_id: flow_id.clone(), wait };
        tokio::spawn(async move { timeout(SOON, alice.get_authorization(request)).await.unwrap().unwrap() })
    };
    let waiting = wait(13);
    world.clock.someone_sleeps_until(world.now().plus(Duration::from_secs(13))).await;
    world.clock.advance(Duration::from_secs(13));
    assert_eq!(waiting.await.unwrap().state(), AuthorizationState::Pending);
    // Longer than is granted: the deadline is a minute.
    let waiting = wait(3600);
    world.clock.someone_sleeps_until(world.now().plus(MINUTE)).await;
    world.clock.advance(MINUTE);
    assert_eq!(waiting.await.unwrap().state(), AuthorizationState::Pending);

    world.clock.advance(8 * MINUTE + Duration::from_secs(17));
    let waiting = wait(60);
    world.clock.someone_sleeps_until(world.now().plus(Duration::from_secs(30))).await;
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(waiting.await.unwrap().state(), AuthorizationState::Expired);
}

// Several accounts, more scopes.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_accounts_one_must_be_named() {
    let world = World::start().await;
    let alice = world.client("alice");
    let first = world.connect(&alice, "alice").await;
    let second = world.connect(&alice, "bob").await;
    assert_ne!(first.connection_id, second.connection_id);
    let refused = world.raw(&world.token("alice", &crate::world::claims())).get_plugin_token(ask(PLUGIN)).await;
    let refused = refused.err().expect("a refusal");
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "ACCOUNT_AMBIGUOUS");
    let mut named = [&info.metadata["account_1"], &info.metadata["account_2"]];
    named.sort();
    assert_eq!(named, ["alice", "bob"]);
    for connection in [&first, &second] {
        let asked = v1::GetPluginTokenRequest { account: connection.account.clone(), ..ask(PLUGIN) };
        let token = alice.get_plugin_token(asked).await.unwrap();
        assert_eq!(token.connection_id, connection.connection_id);
        assert_eq!(token.account, connection.account);
        assert!(world.accepts(&token));
    }
    let stranger = v1::GetPluginTokenRequest { account: "carol".to_owned(), ..ask(PLUGIN) };
    assert_eq!(reason(alice.get_plugin_token(stranger).await), ErrorReason::ConsentRequired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_plugin_adds_its_scopes_to_the_connection() {
    let world = World::start().await;
    let alice = world.client("alice");
    let connection = world.connect(&alice, "alice").await;
    let missing = required_as(ErrorReason::ScopesMissing, alice.get_plugin_token(ask("notes")).await);
    assert_eq!(missing.missing_scopes, ["notes.read", "notes.write"]);
    assert_eq!(missing.plugin, "notes");

    let started = alice.start_authorization(start("notes")).await.unwrap();
    assert_eq!(started.flow_id, missing.flow_id, "the flow that the agent was told of");
    let asked: ScopeSet = ScopeSet::parse(&parameter(&url_of(&started), "scope"), ' ').unwrap();
    let union = ScopeSet::parse("calendar.read notes.read notes.write", ' ').unwrap();
    assert!(asked.contains_all(&union), "existing scopes are kept");
    let answer = world.visit(&started.authorization_url, "alice", Decision::Approve).await;
    let renewed = world.store(&alice, &answer).await.unwrap();
    assert_eq!(renewed.connection_id, connection.connection_id);
    assert_eq!(renewed.credential_id, connection.credential_id);
    assert_eq!(renewed.generation, 2);
    let flow = alice.get_authorization(of_flow(&missing.flow_id)).await.unwrap();
    assert_eq!(flow.state(), AuthorizationState::Completed);
    for plugin in [PLUGIN, "notes"] {
        assert!(world.accepts(&alice.get_plugin_token(ask(plugin)).await.unwrap()), "{plugin}");
    }

    // Connecting the first plugin once more must not take the second one's scopes away.
    world.connect(&alice, "alice").await;
    assert_eq!(connections(&alice).await.len(), 1);
    assert!(alice.get_plugin_token(ask("notes")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_account_than_the_one_to_renew_is_refused_and_its_tokens_revoked() {
    let world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let renew = v1::StartAuthorizationRequest { account: "alice".to_owned(), ..start(PLUGIN) };
    let named = alice.start_authorization(renew).await.unwrap();
    let stepped_up = alice.start_authorization(start("notes")).await.unwrap();
    for started in [named, stepped_up] {
        let revocations = world.provider.stats().requests(Endpoint::Revoke);
        let hold = world.provider.faults().hold(Endpoint::Revoke, HoldPoint::Answer);
        let answer = world.visit(&started.authorization_url, "bob", Decision::Approve).await;
        assert_eq!(reason(world.store(&alice, &answer).await), ErrorReason::AccountMismatch);
        assert_eq!(reason(world.store(&alice, &answer).await), ErrorReason::AccountMismatch);
        let flow = alice.get_authorization(of_flow(&started.flow_id)).await.unwrap();
        assert_eq!((flow.state(), flow.reason()), (AuthorizationState::Failed, ErrorReason::AccountMismatch));
        timeout(SOON, hold.arrived(1)).await.expect("the provider is told of the refresh token");
        let second = world.provider.faults().hold(Endpoint::Revoke, HoldPoint::Answer);
        hold.release();
        timeout(SOON, second.arrived(1)).await.expect("the provider is told of the access token");
        second.release();
        assert!(world.provider.stats().requests(Endpoint::Revoke) > revocations);
        let bobs = world.provider.grants().into_iter().filter(|grant| grant.user == "bob");
        assert!(bobs.map(|grant| grant.live_refresh_tokens).all(|live| live == 0));
    }
    let kept = connections(&alice).await;
    assert_eq!((kept.len(), kept[0].account.as_str(), kept[0].generation), (1, "alice", 1));
}

fn url_of(started: &v1::StartAuthorizationResponse) -> Url {
    started.authorization_url.parse().unwrap()
}

fn of_flow(flow_id: &str) -> v1::GetAuthorizationRequest {
    v1::GetAuthorizationRequest { flow_id: flow_id.to_owned(), wait: None }
}

/// Waits for the flow's end, on the broker's clock; real time only bounds the failure.
async fn finished(client: &Client, flow_id: &str) -> v1::GetAuthorizationResponse {
    let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request = v1::GetAuthorizationRequest { flow_id: flow_id.to_owned(), wait };
    timeout(SOON, client.get_authorization(request)).await.expect("the flow ends").unwrap()
}

async fn connections(client: &Client) -> Vec<v1::Connection> {
    client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap().connections
}

fn exchanges(world: &World) -> u64 {
    world.provider.stats().token_requests(GrantType::AuthorizationCode)
}

#[track_caller]
fn required(result: Result<v1::GetPluginTokenResponse, ClientError>) -> v1::AuthenticationRequired {
    required_as(ErrorReason::ConsentRequired, result)
}

#[track_caller]
fn required_as(
    expected: ErrorReason,
    result: Result<v1::GetPluginTokenResponse, ClientError>,
) -> v1::AuthenticationRequired {
    let error = result.err().expect("the user must act");
    assert_eq!(error.reason, Some(expected));
    *error.authentication_required.expect("it says what to do")
}

#[track_caller]
fn violation<T>(result: Result<T, ClientError>) -> String {
    let error = result.err().expect("a field is wrong");
    assert_eq!(error.reason, Some(ErrorReason::InvalidArgument));
    error.violations[0].field.clone()
}

/// The store's revision.
pub(crate) async fn head(client: &Client) -> u64 {
    let mut stream = client.watch_credential_status(v1::WatchCredentialStatusRequest::default()).await.unwrap();
    match stream.message().await.unwrap().unwrap().body {
        Some(v1::watch_credential_status_response::Body::Opened(opened)) => opened.head_revision,
        other => panic!("{other:?}"),
    }
}
