//! The whole broker, as an operator runs it but for the rate limit, which one caller would run into.

use std::{path::Path, sync::Arc};

use claviger::{
    app::{App, Listeners, SystemClock},
    config::Config,
    dev,
    domain::ClientSecret,
    sealing::Random,
    telemetry::{LogFormat, Telemetry},
};
use tokio_util::sync::CancellationToken;

use super::servers::{announce, until_told};

pub(super) const ROOT_KEY: &str = "root.key";
pub(super) const CLIENT_SECRET: &str = "of a provider on this machine";
pub(super) const CALLBACK: &str = "/callback";

/// In the runtime that the binary's `main` has.
#[tokio::main]
pub(super) async fn serve(directory: &Path, issuer: &str) {
    let _telemetry = Telemetry { format: LogFormat::Json, filter: "info", otlp_endpoint: None }.start().unwrap();
    let config = config(directory, issuer);
    let listeners = Listeners::bind(&config).await.unwrap();
    let address = listeners.grpc.local_addr().unwrap();
    let app = App::build(config, Arc::new(SystemClock), Random::system()).await.unwrap();
    announce(address);
    let shutdown = CancellationToken::new();
    let told = shutdown.clone();
    tokio::spawn(async move {
        until_told().await;
        told.cancel();
    });
    app.serve(listeners, shutdown).await.unwrap();
}

/// Everything that is not here has its default.
fn config(directory: &Path, issuer: &str) -> Config {
    let (store, root_key) = (directory.join("store"), directory.join(ROOT_KEY));
    let (store, root_key, client) = (store.display(), root_key.display(), dev::CLIENT_ID);
    let text = format!(
        r#"
        grpc = {{ listen = "127.0.0.1:0", rate = 1_000_000 }}
        http = {{ listen = "127.0.0.1:0" }}
        store = {{ directory = "{store}" }}
        sealing = {{ root_keys = ["{root_key}"] }}
        outbound = {{ allow_http_loopback = true }}
        [[identity]]
        id = "platform"
        issuers = [{{ issuer = "{issuer}/platform", audiences = ["claviger"], tenant = {{ fixed = "acme" }} }}]
        [[tenants]]
        id = "acme"
        redirect_uris = [{{ loopback = "{CALLBACK}" }}]
        [[providers]]
        id = "dev"
        definition = "oidc"
        issuer = "{issuer}"
        rotation = "strict"
        client_id = "{client}"
        [[plugins]]
        id = "notes"
        display_name = "Notes"
        provider = "dev"
        scopes = ["notes.read", "notes.write"]
        usage = {{ header = "authorization", scheme = "Bearer", base_url = "{issuer}/api/notes" }}
        "#
    );
    let mut config: Config = toml::from_str(&text).unwrap();
    config.providers[0].client_secret = Some(ClientSecret::new(CLIENT_SECRET.to_owned()));
    config
}
