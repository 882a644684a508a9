//! What `dev` prints, ready to paste.

use std::{
    fs,
    io::{self, Write},
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
/// What is left to connect in a browser.
const OTHER_PLUGIN: &str = "notes";

/// Writes the token where only this user reads it; the command lines name the file, never the token.
pub(super) fn write_token(directory: &Path, token: &PresentedToken) -> io::Result<PathBuf> {
    let path = directory.join("alice.token");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
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
    let (grpc, program) = (world.grpc, program()?);
    let call = |extra: &str, data: &str, method: &str| {
        format!(
            "grpcurl -plaintext {extra}-expand-headers -H 'authorization: Bearer ${{CLAVIGER_TOKEN}}' -d '{data}' {grpc} claviger.v1.TokenBrokerService/{method}"
        )
    };
    let page = page(world).await.context("a page could not be had")?;
    let (http, issuer) = (world.http, world.provider.issuer());
    let lines = [
        "claviger dev is running.".to_owned(),
        format!("  gRPC      {grpc}"),
        format!("  HTTP      http://{http}/readyz"),
        format!("  page      {page} (alice connects her notes here; ten minutes)"),
        format!("  provider  {issuer} (users alice and bob, no passwords)"),
        String::new(),
        "# who you are".to_owned(),
        format!("export CLAVIGER_TOKEN=\"$(cat {})\"", quoted(token_file)),
        String::new(),
        "# the five calls of TokenBrokerService".to_owned(),
        call("", "{}", "ValidatePlatformToken"),
        call("", &store_auth_code(&answer), "StoreAuthCode"),
        call("", &format!(r#"{{"plugin": "{PLUGIN}"}}"#), "GetPluginToken"),
        call("-max-time 5 ", r#"{"snapshot": true}"#, "WatchCredentialStatus"),
        call("", &format!(r#"{{"plugin": "{PLUGIN}", "preview": true}}"#), "Revoke"),
        String::new(),
        "# the same from this program; the code above is good for ten minutes, this asks for a new one".to_owned(),
        format!("export CLAVIGER_ENDPOINT=http://{grpc}"),
        format!("{program} connect {PLUGIN} && {program} token {PLUGIN} && {program} connections"),
        String::new(),
        format!("Stop with Ctrl-C. Everything is kept in {}.", token_file.parent().unwrap_or(token_file).display()),
        String::new(),
    ];
    let mut out = io::stdout().lock();
    match out.write_all(lines.join("\n").as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed the pipe has read enough; what was started is wanted all the same.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// How this program was called: by its name where the shell found it, else by its whole path.
fn program() -> io::Result<String> {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if called.components().count() == 1 { Ok(quoted(&called)) } else { Ok(quoted(&std::env::current_exe()?)) }
}

/// One word of a shell's, whatever is in it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,@".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
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

/// Our page for a flow of alice's.
async fn page(world: &World) -> anyhow::Result<String> {
    let client = world.client(&world.token("alice")?)?;
    let started = client
        .start_authorization(v1::StartAuthorizationRequest {
            target: Some(start_authorization_request::Target::Plugin(OTHER_PLUGIN.to_owned())),
            binding: v1::AuthorizationBinding::Browser.into(),
            ..Default::default()
        })
        .await?;
    Ok(started.authorization_url)
}

/// The request's JSON. Every value stands in base64url or a URL, so nothing in it can end a shell's quotes.
fn store_auth_code(answer: &Url) -> String {
    let pairs: serde_json::Map<_, _> =
        answer.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
    serde_json::json!({ "flow_code": pairs }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(quoted(Path::new("/tmp/claviger-dev/alice.token")), "/tmp/claviger-dev/alice.token");
        assert_eq!(quoted(Path::new("/tmp/it's $HOME")), r"'/tmp/it'\''s $HOME'");
    }
}
