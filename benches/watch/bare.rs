//! tonic alone: the generated service over one broadcast channel, as one would write it without a broker.

use std::{net::Ipv4Addr, pin::Pin};

use claviger::proto::v1::{self, token_broker_service_server as server, watch_credential_status_response::Body};
use futures_util::Stream;
use tokio::{net::TcpListener, sync::broadcast};
use tokio_stream::{StreamExt as _, wrappers::BroadcastStream};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use super::{children::obey, node::now};

/// As long as the broker's.
const RESUME_TOKEN: usize = 139;

struct Bare(broadcast::Sender<v1::WatchCredentialStatusResponse>);

/// In the runtime that the broker's calls run in, and with its `TCP_NODELAY`.
#[tokio::main]
pub(super) async fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, _) = broadcast::channel(16);
    let service = server::TokenBrokerServiceServer::new(Bare(sender.clone()));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))),
    );
    obey(address, |_| {
        let (sender, event) = (sender.clone(), super::node::event("everybody", now()));
        async move { drop(sender.send(message(Body::Batch(event)))) }
    })
    .await;
}

fn message(body: Body) -> v1::WatchCredentialStatusResponse {
    v1::WatchCredentialStatusResponse { resume_token: vec![7; RESUME_TOKEN], revision: 1_000, body: Some(body) }
}

#[tonic::async_trait]
impl server::TokenBrokerService for Bare {
    type WatchCredentialStatusStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchCredentialStatusResponse, Status>> + Send>>;

    async fn watch_credential_status(
        &self,
        _: Request<v1::WatchCredentialStatusRequest>,
    ) -> Result<Response<Self::WatchCredentialStatusStream>, Status> {
        let opened = tokio_stream::once(Ok(message(Body::Opened(v1::WatchOpened::default()))));
        let events =
            BroadcastStream::new(self.0.subscribe()).map(|event| event.map_err(|_| Status::data_loss("lagging")));
        Ok(Response::new(Box::pin(opened.chain(events))))
    }

    async fn validate_platform_token(
        &self,
        _: Request<v1::ValidatePlatformTokenRequest>,
    ) -> Result<Response<v1::ValidatePlatformTokenResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
    }

    async fn get_plugin_token(
        &self,
        _: Request<v1::GetPluginTokenRequest>,
    ) -> Result<Response<v1::GetPluginTokenResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
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

    async fn report_applied(
        &self,
        _: Request<v1::ReportAppliedRequest>,
    ) -> Result<Response<v1::ReportAppliedResponse>, Status> {
        Err(Status::unimplemented("a bare server"))
    }
}
