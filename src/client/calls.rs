//! One method an RPC.

use tonic::{Response, Status, Streaming};

use super::{Client, ClientError};
use crate::proto::v1;

macro_rules! unary {
    ($($service:ident.$rpc:ident($request:ident) -> $answer:ident;)+) => {
        impl Client {$(
            /// See the RPC of this name in `proto/`.
            ///
            /// # Errors
            /// What the broker refused with, or that it cannot be reached.
            pub async fn $rpc(&self, request: v1::$request) -> Result<v1::$answer, ClientError> {
                answer(self.$service.clone().$rpc(request).await)
            }
        )+}
    };
}

unary! {
    broker.validate_platform_token(ValidatePlatformTokenRequest) -> ValidatePlatformTokenResponse;
    broker.get_plugin_token(GetPluginTokenRequest) -> GetPluginTokenResponse;
    broker.get_plugin_tokens(GetPluginTokensRequest) -> GetPluginTokensResponse;
    broker.store_auth_code(StoreAuthCodeRequest) -> StoreAuthCodeResponse;
    broker.report_applied(ReportAppliedRequest) -> ReportAppliedResponse;
    broker.revoke(RevokeRequest) -> RevokeResponse;
    connections.start_authorization(StartAuthorizationRequest) -> StartAuthorizationResponse;
    connections.get_authorization(GetAuthorizationRequest) -> GetAuthorizationResponse;
    connections.list_connections(ListConnectionsRequest) -> ListConnectionsResponse;
    connections.get_connection(GetConnectionRequest) -> GetConnectionResponse;
    operations.get_status(GetStatusRequest) -> GetStatusResponse;
    operations.rotate_key(RotateKeyRequest) -> RotateKeyResponse;
    operations.retire_key(RetireKeyRequest) -> RetireKeyResponse;
    operations.list_keys(ListKeysRequest) -> ListKeysResponse;
}

impl Client {
    /// One stream, as it comes; [`super::Watch`] keeps one open.
    ///
    /// # Errors
    /// What the broker refused with, or that it cannot be reached.
    pub async fn watch_credential_status(
        &self,
        request: v1::WatchCredentialStatusRequest,
    ) -> Result<Streaming<v1::WatchCredentialStatusResponse>, ClientError> {
        answer(self.broker.clone().watch_credential_status(request).await)
    }

    /// The archive, as it is made.
    ///
    /// # Errors
    /// What the broker refused with, or that it cannot be reached.
    pub async fn create_backup(
        &self,
        request: v1::CreateBackupRequest,
    ) -> Result<Streaming<v1::CreateBackupResponse>, ClientError> {
        answer(self.operations.clone().create_backup(request).await)
    }
}

fn answer<T>(result: Result<Response<T>, Status>) -> Result<T, ClientError> {
    Ok(result?.into_inner())
}
