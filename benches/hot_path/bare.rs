//! tonic alone: decodes the request, and answers with a constant.

use std::{fs, net::Ipv4Addr, path::Path, sync::Arc};

use claviger::proto::v1::{self, token_broker_service_server as server};
use prost::Message;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use super::servers::{announce, until_told};

/// The answers' file names in the directory that both sides know.
pub(super) const TOKEN: &str = "token.answer";
pub(super) const VALIDATION: &str = "validation.answer";

struct Bare {
    token: Arc<v1::GetPluginTokenResponse>,
    validation: Arc<v1::ValidatePlatformTokenResponse>,
}

/// In the runtime that the broker's calls run in, and with its `TCP_NODELAY`.
#[tokio::main]
pub(super) async fn serve(directory: &Path) {
    let read = |name| fs::read(directory.join(name)).unwrap();
    let bare = Bare {
        token: Arc::new(Message::decode(&*read(TOKEN)).unwrap()),
        validation: Arc::new(Message::decode(&*read(VALIDATION)).unwrap()),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    announce(listener.local_addr().unwrap());
    tonic::transport::Server::builder()
        .add_service(server::TokenBrokerServiceServer::new(bare))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), until_told())
        .await
        .unwrap();
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

    async fn report_applied(
        &self,
        _: Request<v1::ReportAppliedRequest>,
    ) -> Result<Response<v1::ReportAppliedResponse>, Status> {
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
