//! The services: one line an RPC.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use tonic::{Request, Response, Status, async_trait};

use super::{
    create_backup, get_authorization, get_connection, get_plugin_token, get_plugin_tokens, get_status,
    layers::RateLimit, list_connections, list_keys, report_applied, retire_key, revoke, rotate_key,
    start_authorization, status, store_auth_code, validate_platform_token,
};
use crate::{
    broker::{Broker, BrokerError},
    domain::{Call, Clock, Reason},
    proto::v1::{
        self, connection_service_server::ConnectionService, operations_service_server::OperationsService,
        token_broker_service_server::TokenBrokerService,
    },
};

/// What the RPCs have at hand.
#[derive(Clone)]
pub(super) struct Rpcs {
    pub(super) broker: Broker,
    pub(super) clock: Arc<dyn Clock>,
    /// For calls that count as several.
    pub(super) rate_limit: Option<RateLimit>,
}

pub(super) type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::CreateBackupResponse, Status>> + Send>>;

/// Turns what a use case refused into what the caller sees.
pub(super) fn refused(call: &Call) -> impl Fn(BrokerError) -> Status {
    |error| status::of_broker(&error, &call.request_id)
}

/// The call that the layers have authenticated, and its message. Without one nothing is served.
pub(super) fn received<T>(request: Request<T>) -> Result<(Call, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let call = extensions.remove::<Call>().ok_or_else(|| status::of_reason(Reason::TokenMissing))?;
    Ok((call, message))
}

#[async_trait]
impl TokenBrokerService for Rpcs {
    async fn validate_platform_token(
        &self,
        request: Request<v1::ValidatePlatformTokenRequest>,
    ) -> Result<Response<v1::ValidatePlatformTokenResponse>, Status> {
        validate_platform_token::answer(self, request).await
    }

    async fn get_plugin_token(
        &self,
        request: Request<v1::GetPluginTokenRequest>,
    ) -> Result<Response<v1::GetPluginTokenResponse>, Status> {
        get_plugin_token::answer(self, request).await
    }

    async fn get_plugin_tokens(
        &self,
        request: Request<v1::GetPluginTokensRequest>,
    ) -> Result<Response<v1::GetPluginTokensResponse>, Status> {
        get_plugin_tokens::answer(self, request).await
    }

    async fn store_auth_code(
        &self,
        request: Request<v1::StoreAuthCodeRequest>,
    ) -> Result<Response<v1::StoreAuthCodeResponse>, Status> {
        store_auth_code::answer(self, request).await
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        revoke::answer(self, request).await
    }

    async fn report_applied(
        &self,
        request: Request<v1::ReportAppliedRequest>,
    ) -> Result<Response<v1::ReportAppliedResponse>, Status> {
        report_applied::answer(self, request).await
    }

    type WatchCredentialStatusStream = tokio_stream::Empty<Result<v1::WatchCredentialStatusResponse, Status>>;

    /// Never called: [`super::watch_route`] takes it first.
    async fn watch_credential_status(
        &self,
        _: Request<v1::WatchCredentialStatusRequest>,
    ) -> Result<Response<Self::WatchCredentialStatusStream>, Status> {
        Err(status::of_reason(Reason::Internal))
    }
}

#[async_trait]
impl ConnectionService for Rpcs {
    async fn start_authorization(
        &self,
        request: Request<v1::StartAuthorizationRequest>,
    ) -> Result<Response<v1::StartAuthorizationResponse>, Status> {
        start_authorization::answer(self, request).await
    }

    async fn get_authorization(
        &self,
        request: Request<v1::GetAuthorizationRequest>,
    ) -> Result<Response<v1::GetAuthorizationResponse>, Status> {
        get_authorization::answer(self, request).await
    }

    async fn list_connections(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<v1::ListConnectionsResponse>, Status> {
        list_connections::answer(self, request).await
    }

    async fn get_connection(
        &self,
        request: Request<v1::GetConnectionRequest>,
    ) -> Result<Response<v1::GetConnectionResponse>, Status> {
        get_connection::answer(self, request).await
    }
}

#[async_trait]
impl OperationsService for Rpcs {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        get_status::answer(self, request).await
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        rotate_key::answer(self, request).await
    }

    async fn retire_key(
        &self,
        request: Request<v1::RetireKeyRequest>,
    ) -> Result<Response<v1::RetireKeyResponse>, Status> {
        retire_key::answer(self, request).await
    }

    async fn list_keys(&self, request: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
        list_keys::answer(self, request).await
    }

    type CreateBackupStream = BackupStream;

    async fn create_backup(&self, request: Request<v1::CreateBackupRequest>) -> Result<Response<BackupStream>, Status> {
        create_backup::answer(self, request).await
    }
}
