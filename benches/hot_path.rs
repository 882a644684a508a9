//! What a warm GetPluginToken and ValidatePlatformToken cost beside a bare tonic call of the same sizes, in one run on
//! one machine: alternating rounds, medians of paired ratios. Absolute figures stand beside them and mean less.
//!
//! The client shares the machine with the server and costs more than it, so the ratios flatter the broker; a load
//! generator of its own is for a later harness.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails ends the run")]

#[path = "../tests/support/clock.rs"]
#[expect(dead_code, reason = "time stands still in a bench")]
mod clock;
#[path = "../tests/broker/world.rs"]
#[expect(dead_code, reason = "the tests' harness offers more than a bench needs")]
mod world;

mod support {
    pub(crate) use super::clock;
}

use std::{net::SocketAddr, sync::Arc, time::Duration};

use claviger::{
    client::{Client, Connect},
    proto::v1::{self, token_broker_service_server as server},
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Request, Response, Status};
use world::{PLUGIN, World, ask};

const ROUNDS: usize = 7;
const CALLERS: usize = 16;
const CALLS: usize = 400;

#[tokio::main]
async fn main() {
    let world = World::start().await;
    let client = world.client("alice");
    world.connect(&client, "alice").await;
    let answer = client.get_plugin_token(ask(PLUGIN)).await.unwrap();
    let validation = client.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await.unwrap();
    let bare = Bare { token: Arc::new(answer), validation: Arc::new(validation) }.serve().await;
    let endpoint = format!("http://{bare}");
    let token = world.token("alice", &world::claims());
    let bare = Connect { endpoint, ..Connect::default() }.with_token(&token).unwrap();
    println!(
        "{:<24}{:>12}{:>12}{:>10}   (calls/s, {CALLERS} callers, {ROUNDS} paired rounds)",
        "", "bare", "claviger", "ratio"
    );
    compare("GetPluginToken, warm", &bare, &client, |client| async move {
        client.get_plugin_token(ask(PLUGIN)).await.unwrap();
    })
    .await;
    compare("ValidatePlatformToken", &bare, &client, |client| async move {
        client.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await.unwrap();
    })
    .await;
}

async fn compare<F: Future<Output = ()> + Send + 'static>(
    name: &str,
    bare: &Client,
    claviger: &Client,
    call: impl Fn(Client) -> F + Copy + Send + 'static,
) {
    // The first round warms connections and caches on both sides.
    rate(bare, call).await;
    rate(claviger, call).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push((rate(bare, call).await, rate(claviger, call).await));
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let bare = median(rounds.iter().map(|(bare, _)| *bare).collect());
    let own = median(rounds.iter().map(|(_, own)| *own).collect());
    let ratio = median(rounds.iter().map(|(bare, own)| own / bare).collect());
    println!("{name:<24}{bare:>12.0}{own:>12.0}{ratio:>10.2}");
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
async fn rate<F: Future<Output = ()> + Send + 'static>(
    client: &Client,
    call: impl Fn(Client) -> F + Copy + Send + 'static,
) -> f64 {
    let begun = std::time::Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = client.clone();
        callers.spawn(async move {
            for _ in 0..CALLS {
                call(client.clone()).await;
            }
        });
    }
    callers.join_all().await;
    let elapsed: Duration = begun.elapsed();
    (CALLERS * CALLS) as f64 / elapsed.as_secs_f64()
}

/// Decodes the request and answers with the constants.
#[derive(Clone)]
struct Bare {
    token: Arc<v1::GetPluginTokenResponse>,
    validation: Arc<v1::ValidatePlatformTokenResponse>,
}

impl Bare {
    async fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(server::TokenBrokerServiceServer::new(self))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        address
    }
}

#[tonic::async_trait]
impl server::TokenBrokerService for Bare {
    type WatchCredentialStatusStream = tokio_stream::Empty<Result<v1::WatchCredentialStatusResponse, Status>>;

    async fn validate_platform_token(
        &self,
        _: Request<v1::ValidatePlatformTokenRequest>,
    ) -> Result<Response<v1::ValidatePlatformTokenResponse>, Status> {
        Ok(Response::new(v1::ValidatePlatformTokenResponse::clone(&self.validation)))
    }

    async fn get_plugin_token(
        &self,
        _: Request<v1::GetPluginTokenRequest>,
    ) -> Result<Response<v1::GetPluginTokenResponse>, Status> {
        Ok(Response::new(v1::GetPluginTokenResponse::clone(&self.token)))
    }

    async fn get_plugin_tokens(
        &self,
        _: Request<v1::GetPluginTokensRequest>,
    ) -> Result<Response<v1::GetPluginTokensResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
    }

    async fn store_auth_code(
        &self,
        _: Request<v1::StoreAuthCodeRequest>,
    ) -> Result<Response<v1::StoreAuthCodeResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
    }

    async fn revoke(&self, _: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
    }

    async fn watch_credential_status(
        &self,
        _: Request<v1::WatchCredentialStatusRequest>,
    ) -> Result<Response<Self::WatchCredentialStatusStream>, Status> {
        Err(Status::unimplemented("a bare server"))
    }
}
