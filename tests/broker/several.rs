//! GetPluginTokens: each request gets what it would have got alone, whatever becomes of the others.

use claviger::{
    client::ClientError,
    config::Config,
    dev::{Endpoint, HoldPoint},
    proto::v1::{
        self, CredentialEventKind, ErrorReason, GetPluginTokenRequest, plugin_token_result::Result as Outcome,
    },
};

use crate::{
    heard::Client,
    observer::{Observer, in_time},
    world::{MINUTE, PLUGIN, Settings, World, ask, reason, start},
};

type Results = Vec<Result<v1::GetPluginTokenResponse, ClientError>>;

async fn tokens(client: &Client, requests: Vec<GetPluginTokenRequest>) -> Result<Results, ClientError> {
    let answer = in_time(client.get_plugin_tokens(v1::GetPluginTokensRequest { requests })).await?;
    let results = answer.results.into_iter().map(|result| match result.result.unwrap() {
        Outcome::Token(token) => Ok(token),
        Outcome::Error(error) => Err(error.into()),
    });
    Ok(results.collect())
}

/// Everything that the caller is told, but for the name of the call.
fn told(result: Result<v1::GetPluginTokenResponse, ClientError>) -> String {
    match result {
        Ok(token) => format!("{} {} {:?}", token.access_token, token.generation, token.expires_at),
        Err(error) => format!("{:?}", ClientError { request_id: None, ..error }),
    }
}

/// `notes` is at a provider of its own, which happens to be the same server.
fn with_a_second_provider(config: &mut Config) {
    let twin = claviger::config::ProviderSection { id: "twin".parse().unwrap(), ..config.providers[0].clone() };
    let notes = config.plugins.iter_mut().find(|plugin| plugin.id.as_str() == "notes").unwrap();
    notes.provider = twin.id.clone();
    config.providers.push(twin);
}

async fn connect(world: &World, client: &Client, plugin: &str) {
    let started = client.start_authorization(start(plugin)).await.unwrap();
    let answer = world.visit(&started.authorization_url, "alice", claviger::dev::visitor::Decision::Approve).await;
    world.store(client, &answer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_result_stands_at_its_place_and_is_what_its_request_gets_alone() {
    let configure = |config: &mut Config| {
        with_a_second_provider(config);
        let mut closed = config.plugins[0].clone();
        (closed.id, closed.enabled) = ("closed".parse().unwrap(), false);
        let mut wider = config.plugins[0].clone();
        (wider.id, wider.scopes) = (
            "wider".parse().unwrap(),
            ["calendar.read", "notes.read"].iter().map(|scope| scope.parse().unwrap()).collect(),
        );
        config.plugins.extend([closed, wider]);
    };
    let world = World::start_with(Settings { configure: Box::new(configure), ..Settings::default() }).await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let token = alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    let refused = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.access_token.as_bytes());
    let (session_id, platform_request_id) = ("s-1".to_owned(), "p-1".to_owned());
    let requests = vec![
        (
            GetPluginTokenRequest { session_id: "two words".to_owned(), ..ask(PLUGIN) },
            Some(ErrorReason::InvalidArgument),
        ),
        (ask(PLUGIN), None),
        (ask("nowhere"), Some(ErrorReason::PluginUnknown)),
        (ask("closed"), Some(ErrorReason::PluginDenied)),
        (
            GetPluginTokenRequest { scopes: vec!["notes.read".to_owned()], ..ask(PLUGIN) },
            Some(ErrorReason::ScopeExceeded),
        ),
        (GetPluginTokenRequest { session_id, platform_request_id, ..ask("notes") }, Some(ErrorReason::ConsentRequired)),
        (ask("wider"), Some(ErrorReason::ScopesMissing)),
        (ask(""), Some(ErrorReason::InvalidArgument)),
        (GetPluginTokenRequest { min_generation: 7, ..ask(PLUGIN) }, Some(ErrorReason::InvalidArgument)),
        (
            GetPluginTokenRequest { rejected_token_sha256: refused.as_ref().to_vec(), ..ask(PLUGIN) },
            Some(ErrorReason::RateLimited),
        ),
        (ask(PLUGIN), None),
    ];
    let together = tokens(&alice, requests.iter().map(|(request, _)| request.clone()).collect()).await.unwrap();
    assert_eq!(together.len(), requests.len());
    for (place, (result, (request, expected))) in together.into_iter().zip(requests).enumerate() {
        assert_eq!(result.as_ref().err().and_then(|error| error.reason), expected, "result {place}");
        assert_eq!(told(result), told(alice.get_plugin_token(request).await), "result {place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_provider_costs_its_time_out_and_only_its_own_tokens() {
    let world =
        World::start_with(Settings { configure: Box::new(with_a_second_provider), ..Settings::default() }).await;
    let alice = world.client("alice");
    connect(&world, &alice, PLUGIN).await;
    world.clock.advance(7 * MINUTE);
    connect(&world, &alice, "notes").await;
    let silent = world.provider.faults().hold(Endpoint::Token, HoldPoint::Request);
    // The one has lapsed, the other is not even due.
    world.clock.advance(4 * MINUTE);
    let results = tokens(&alice, vec![ask(PLUGIN), ask("notes"), ask("nowhere")]).await.unwrap();
    let [calendar, notes, nowhere] = results.try_into().ok().unwrap();
    assert_eq!(reason(calendar), ErrorReason::ProviderUnreachable, "nobody released it");
    assert!(world.accepts(&notes.unwrap()));
    assert_eq!(reason(nowhere), ErrorReason::PluginUnknown);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_many_times_is_one_refresh() {
    let world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    world.clock.advance(11 * MINUTE);
    let results = tokens(&alice, vec![ask(PLUGIN); 32]).await.unwrap();
    let tokens: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(tokens.len(), 32);
    assert!(tokens.iter().all(|token| token.generation == 2 && token.access_token == tokens[0].access_token));
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_cancels_no_refresh() {
    let world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let mut observer = Observer::of(&alice).await;
    let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Request);
    world.clock.advance(2 * MINUTE);
    let longer = prost_types::Duration { seconds: 9 * 60, nanos: 0 };
    let longer = GetPluginTokenRequest { min_remaining: Some(longer), ..ask(PLUGIN) };
    let caller = alice.clone();
    let call = tokio::spawn(async move { tokens(&caller, vec![longer, ask("nowhere")]).await.map(drop) });
    in_time(hold.arrived(1)).await;
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()), "it was answered before its refresh");
    hold.release();
    let refreshed = observer.until(CredentialEventKind::Refreshed).await;
    assert_eq!(refreshed[0].status.as_ref().unwrap().generation, 2);
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_and_too_many_are_refused_as_a_whole() {
    let world = World::start().await;
    let alice = world.client("alice");
    for count in [0, 33] {
        let refusal = tokens(&alice, vec![ask(PLUGIN); count]).await.err().unwrap();
        assert_eq!(refusal.reason, Some(ErrorReason::InvalidArgument), "{count}");
        assert_eq!(refusal.violations[0].field, "requests", "{count}");
    }
    let most = tokens(&alice, vec![ask(PLUGIN); 32]).await.unwrap();
    assert!(most.into_iter().all(|result| reason(result) == ErrorReason::ConsentRequired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_counts_as_a_call() {
    // Ten at once, one more each second.
    let world = World::start_with(Settings { rate: 1, ..Settings::default() }).await;
    let alice = world.client("alice");
    let results = tokens(&alice, vec![ask("nowhere"); 12]).await.unwrap();
    let reasons: Vec<_> = results.into_iter().map(|result| result.err().unwrap()).collect();
    assert!(reasons[..10].iter().all(|error| error.reason == Some(ErrorReason::PluginUnknown)));
    for limited in &reasons[10..] {
        assert_eq!(limited.reason, Some(ErrorReason::RateLimited));
        assert_eq!(limited.retry_after, Some(MINUTE / 60));
    }
    assert_eq!(tokens(&alice, vec![ask("nowhere")]).await.err().unwrap().reason, Some(ErrorReason::RateLimited));
    world.clock.advance(MINUTE / 60);
    assert_eq!(reason(tokens(&alice, vec![ask("nowhere")]).await.unwrap().remove(0)), ErrorReason::PluginUnknown);
}
