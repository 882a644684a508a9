//! The main job, walked through with real calls over the wire. Each step says what it saw; the first that does not
//! hold ends the tour with an error.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use http::{HeaderValue, StatusCode, header::LOCATION};
use tonic::Streaming;
use url::Url;

use super::{
    super::signals::Signals,
    quick_start,
    world::{Settings, World},
};
use crate::{
    app::SystemClock,
    client::{Client, ClientError},
    domain::{Clock, Rotation},
    outbound::Request,
    proto::v1::{self, CredentialEvent, CredentialEventKind, ErrorReason, watch_credential_status_response::Body},
    sealing::Random,
};

const PLUGIN: &str = "calendar";
/// Short enough to watch a refresh.
const LIFETIME: Duration = Duration::from_secs(4);
/// No step waits longer than this.
const PATIENCE: Duration = Duration::from_secs(12);

/// Runs in a directory and on ports of its own, so that a running `dev` is left alone, and leaves nothing behind.
pub(super) async fn walk(signals: Signals) -> anyhow::Result<()> {
    let name: [u8; 8] = Random::system().bytes()?;
    let directory = std::env::temp_dir().join(format!("claviger-tour-{:016x}", u64::from_be_bytes(name)));
    let walked = walk_in(&directory, signals).await;
    let removed = match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("{} is left behind", directory.display())),
    };
    walked.and(removed)?;
    say("The tour is over: every step held.")
}

async fn walk_in(directory: &Path, mut signals: Signals) -> anyhow::Result<()> {
    let anywhere = "127.0.0.1:0".parse()?;
    let settings = Settings {
        directory: directory.to_owned(),
        grpc: anywhere,
        http: anywhere,
        provider: anywhere,
        access_token_lifetime: LIFETIME,
        rotation: Rotation::Strict,
        faults: Vec::new(),
    };
    let world = World::start(settings).await?;
    let result = tokio::select! {
        result = steps(&world) => result,
        () = signals.received() => Err(anyhow!("the tour was interrupted")),
    };
    let stopped = world.stop().await;
    result.and(stopped)
}

async fn steps(world: &World) -> anyhow::Result<()> {
    let alice = world.client(&world.token("alice")?)?;
    identify(world, &alice).await?;
    ask_too_early(world, &alice).await?;
    let mut watch = open_watch(&alice).await?;
    let answer = log_in(world).await?;
    store_the_code(world, &alice, &answer).await?;
    expect_event(&mut watch, CredentialEventKind::Connected, 1).await?;
    let first = use_token(&alice, 1).await?;
    see_refresh(&alice, &mut watch, &first).await?;
    revoke(world, &alice, &mut watch).await
}

async fn identify(world: &World, alice: &Client) -> anyhow::Result<()> {
    let said = alice.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await?;
    ensure!(said.valid && said.external_id == "alice", "alice's own token is not taken for hers");
    step(&format!("ValidatePlatformToken: alice is {}", said.subject))?;
    let forger = world.client(&world.forged_token("alice")?)?;
    let refused = forger.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await;
    expect_reason(refused, ErrorReason::TokenInvalid).context("a token with a forged signature was let in")?;
    step("a token with a forged signature is refused: TOKEN_INVALID")?;
    Ok(())
}

async fn ask_too_early(world: &World, alice: &Client) -> anyhow::Result<()> {
    let error = expect_reason(alice.get_plugin_token(request()).await, ErrorReason::ConsentRequired)?;
    let required = error.authentication_required.context("the refusal does not say what the user must do")?;
    ensure!(!required.flow_id.is_empty(), "the refusal names no flow");
    step(&format!("GetPluginToken before consent: AuthenticationRequired, flow {}", required.flow_id))?;
    let page = World::outbound()?.send(Request::get(required.auth_url.parse()?)).await?;
    let next = page.headers.get(LOCATION).and_then(|next| next.to_str().ok()).unwrap_or_default();
    let issuer = world.provider.platform_issuer();
    ensure!(page.status == StatusCode::SEE_OTHER && next.starts_with(&issuer), "the page asks nobody to sign in");
    step("the page behind its link sends whoever opens it to sign in")?;
    Ok(())
}

async fn open_watch(alice: &Client) -> anyhow::Result<Streaming<v1::WatchCredentialStatusResponse>> {
    let mut watch = alice.watch_credential_status(v1::WatchCredentialStatusRequest::default()).await?;
    ensure!(matches!(next(&mut watch).await?, Body::Opened(_)), "the stream does not begin with `opened`");
    ensure!(matches!(next(&mut watch).await?, Body::SnapshotEnd(_)), "nothing is connected, yet something is listed");
    step("WatchCredentialStatus: open, the snapshot is empty")?;
    Ok(watch)
}

async fn log_in(world: &World) -> anyhow::Result<Url> {
    let answer = quick_start::authorize(world).await?;
    step("StartAuthorization, and alice logged in and approved at the provider")?;
    Ok(answer)
}

async fn store_the_code(world: &World, alice: &Client, answer: &Url) -> anyhow::Result<()> {
    let parameter = |name: &str| -> String {
        answer.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let flow = v1::FlowCode { state: parameter("state"), code: parameter("code"), iss: parameter("iss") };
    let request = || v1::StoreAuthCodeRequest { flow: Some(v1::store_auth_code_request::Flow::FlowCode(flow.clone())) };
    let bob = world.client(&world.token("bob")?)?;
    expect_reason(bob.store_auth_code(request()).await, ErrorReason::FlowNotFound)
        .context("bob finished alice's flow")?;
    step("StoreAuthCode by bob, with alice's code: FLOW_NOT_FOUND")?;
    let stored = alice.store_auth_code(request()).await?.connection.context("no connection was stored")?;
    let again = alice.store_auth_code(request()).await?.connection.context("no connection was stored")?;
    ensure!(stored.connection_id == again.connection_id, "a repeated StoreAuthCode made another connection");
    step(&format!("StoreAuthCode by alice: connection {}, account {}", stored.connection_id, stored.account))?;
    Ok(())
}

async fn use_token(alice: &Client, generation: u64) -> anyhow::Result<v1::GetPluginTokenResponse> {
    let token = alice.get_plugin_token(v1::GetPluginTokenRequest { min_generation: generation, ..request() }).await?;
    ensure!(token.generation >= generation, "generation {} was served, {generation} was asked", token.generation);
    let status = call_api(&token).await?;
    ensure!(status == 200, "the plugin's API answered {status}");
    step(&format!("GetPluginToken: generation {}, and the calendar's API accepts it", token.generation))?;
    Ok(token)
}

async fn see_refresh(
    alice: &Client,
    watch: &mut Streaming<v1::WatchCredentialStatusResponse>,
    first: &v1::GetPluginTokenResponse,
) -> anyhow::Result<()> {
    expect_event(watch, CredentialEventKind::Refreshed, first.generation + 1).await?;
    let second = use_token(alice, first.generation + 1).await?;
    ensure!(second.access_token != first.access_token, "the refreshed token is the old one");
    Ok(())
}

async fn revoke(
    world: &World,
    alice: &Client,
    watch: &mut Streaming<v1::WatchCredentialStatusResponse>,
) -> anyhow::Result<()> {
    let last = alice.get_plugin_token(request()).await?;
    let target = v1::revoke_request::Target::Plugin(PLUGIN.to_owned());
    let revoked = alice.revoke(v1::RevokeRequest { target: Some(target), ..Default::default() }).await?;
    ensure!(revoked.results.len() == 1, "{} connections were revoked, not one", revoked.results.len());
    let remote = revoked.results[0].remote_outcome();
    ensure!(remote == v1::RemoteOutcome::Confirmed, "the provider did not confirm: {}", remote.as_str_name());
    step("Revoke: stopped here, confirmed by the provider")?;
    expect_event(watch, CredentialEventKind::Revoked, 0).await?;
    let status = call_api(&last).await?;
    ensure!(status == 401, "after the revocation the plugin's API answered {status}");
    let live: usize = world.provider.grants().iter().map(|grant| grant.live_refresh_tokens).sum();
    ensure!(live == 0, "{live} refresh tokens still live at the provider");
    step("the provider refuses the access token and the refresh token")?;
    expect_reason(alice.get_plugin_token(request()).await, ErrorReason::ConsentRequired)
        .context("a token was served after the revocation")?;
    step("GetPluginToken after the revocation: AuthenticationRequired")?;
    Ok(())
}

/// Waits for an event, passing over others; a generation of 0 is any.
async fn expect_event(
    watch: &mut Streaming<v1::WatchCredentialStatusResponse>,
    kind: CredentialEventKind,
    generation: u64,
) -> anyhow::Result<CredentialEvent> {
    loop {
        let Body::Batch(batch) = next(watch).await.with_context(|| format!("{} never came", kind.as_str_name()))?
        else {
            continue;
        };
        for event in batch.events {
            let status = event.status.clone().unwrap_or_default();
            if event.kind() == kind && status.generation >= generation {
                step(&format!("WatchCredentialStatus: {} generation {}", kind.as_str_name(), status.generation))?;
                return Ok(event);
            }
        }
    }
}

async fn next(watch: &mut Streaming<v1::WatchCredentialStatusResponse>) -> anyhow::Result<Body> {
    let late = SystemClock.sleep_until(SystemClock.now().plus(PATIENCE));
    let message = tokio::select! {
        message = watch.message() => message?,
        () = late => bail!("the stream was silent for {} s", PATIENCE.as_secs()),
    };
    message.context("the stream ended")?.body.context("a message says nothing")
}

/// Uses the token as its answer says.
async fn call_api(token: &v1::GetPluginTokenResponse) -> anyhow::Result<u16> {
    let usage = token.usage.clone().unwrap_or_default();
    let header = HeaderValue::from_str(&format!("{} {}", usage.scheme, token.access_token))?;
    let request = Request::get(usage.base_url.parse()?).authorization(header);
    Ok(World::outbound()?.send(request).await?.status.as_u16())
}

fn expect_reason<T>(result: Result<T, ClientError>, reason: ErrorReason) -> anyhow::Result<ClientError> {
    match result {
        Ok(_) => bail!("{} was expected, and the call succeeded", reason.as_str_name()),
        Err(error) if error.reason == Some(reason) => Ok(error),
        Err(error) => bail!("{} was expected: {error}", reason.as_str_name()),
    }
}

fn request() -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest { plugin: PLUGIN.to_owned(), ..Default::default() }
}

fn step(said: &str) -> anyhow::Result<()> {
    say(&format!("  ok  {said}"))
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
