//! What `dev` prints, ready to paste.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use url::Url;

use super::world::{CALLBACK, World};
use crate::{
    dev::visitor::{Decision, Visitor},
    domain::PresentedToken,
    proto::v1::{self, start_authorization_request},
};

const PLUGIN: &str = "calendar";

/// Writes the token where only this user reads it; the command lines name the file, never the token.
pub(super) fn write_token(directory: &Path, token: &PresentedToken) -> std::io::Result<PathBuf> {
    let path = directory.join("alice.token");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    writeln!(file, "{}", token.expose())?;
    file.sync_all()?;
    Ok(path)
}

/// Prints how to call the five RPCs. The code in the StoreAuthCode line is real: alice has just logged in for it.
pub(super) async fn print(world: &World, token_file: &Path) -> anyhow::Result<()> {
    let answer = authorize(world).await.context("a code for the StoreAuthCode line could not be had")?;
    let grpc = world.grpc;
    let call = |extra: &str, data: &str, method: &str| {
        format!(
            "grpcurl -plaintext {extra}-expand-headers -H 'authorization: Bearer ${{CLAVIGER_TOKEN}}' -d '{data}' {grpc} claviger.v1.TokenBrokerService/{method}"
        )
    };
    println!("claviger dev is running.");
    println!("  gRPC      {grpc}");
    println!("  HTTP      http://{}/readyz", world.http);
    println!("  provider  {} (users alice and bob, no passwords)", world.provider.issuer());
    println!();
    println!("# who you are");
    println!("export CLAVIGER_TOKEN=\"$(cat {})\"", token_file.display());
    println!();
    println!("# the five calls of TokenBrokerService");
    println!("{}", call("", "{}", "ValidatePlatformToken"));
    println!("{}", call("", &store_auth_code(&answer), "StoreAuthCode"));
    println!("{}", call("", &format!(r#"{{"plugin": "{PLUGIN}"}}"#), "GetPluginToken"));
    println!("{}", call("-max-time 5 ", r#"{"snapshot": true}"#, "WatchCredentialStatus"));
    println!("{}", call("", &format!(r#"{{"plugin": "{PLUGIN}", "preview": true}}"#), "Revoke"));
    println!();
    println!("# the same from this program; the code above is good for ten minutes, this asks for a new one");
    println!("claviger connect {PLUGIN} && claviger token {PLUGIN} && claviger connections");
    println!();
    println!("Stop with Ctrl-C. Everything is kept in {}.", token_file.parent().unwrap_or(Path::new(".")).display());
    Ok(())
}

/// A whole authorization up to the redirect that carries the code.
pub(super) async fn authorize(world: &World) -> anyhow::Result<Url> {
    let client = world.client(&world.token("alice")?)?;
    let started = client
        .start_authorization(v1::StartAuthorizationRequest {
            target: Some(start_authorization_request::Target::Plugin(PLUGIN.to_owned())),
            binding: v1::AuthorizationBinding::Caller.into(),
            redirect_uri: format!("http://127.0.0.1{CALLBACK}"),
            ..Default::default()
        })
        .await?;
    let visitor = Visitor::new(World::outbound()?);
    Ok(visitor.visit(&started.authorization_url.parse()?, "alice", Decision::Approve).await?)
}

/// The request's JSON. Every value stands in base64url or a URL, so nothing in it can end a shell's quotes.
fn store_auth_code(answer: &Url) -> String {
    let pairs: serde_json::Map<_, _> =
        answer.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
    serde_json::json!({ "flow_code": pairs }).to_string()
}
