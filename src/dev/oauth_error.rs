//! Errors as clients of the direct endpoints see them (RFC 6749 §5.2).

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::{TokenRefusal, state_file::StateError};

pub(super) struct OauthError {
    pub(super) code: &'static str,
    description: String,
    status: StatusCode,
    challenge: Option<HeaderValue>,
}

impl OauthError {
    pub(super) fn new(code: &'static str, description: &str) -> Self {
        Self { code, description: description.to_owned(), status: StatusCode::BAD_REQUEST, challenge: None }
    }

    pub(super) fn invalid_client(description: &str) -> Self {
        Self {
            code: "invalid_client",
            description: description.to_owned(),
            status: StatusCode::UNAUTHORIZED,
            challenge: Some(HeaderValue::from_static(r#"Basic realm="claviger dev", charset="UTF-8""#)),
        }
    }
}

impl From<TokenRefusal> for OauthError {
    /// The fact is told in full, as no production server should: this one is for developers.
    fn from(refusal: TokenRefusal) -> Self {
        let code = if refusal == TokenRefusal::ScopeExceeded { "invalid_scope" } else { "invalid_grant" };
        Self::new(code, &refusal.to_string())
    }
}

impl From<StateError> for OauthError {
    fn from(error: StateError) -> Self {
        tracing::error!(error = %error, "the development server's state could not be kept");
        Self {
            code: "server_error",
            description: "the server's state could not be kept; nothing was changed".to_owned(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            challenge: None,
        }
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        (&self).into_response()
    }
}

impl IntoResponse for &OauthError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.code, "error_description": self.description }));
        let mut response = (self.status, body).into_response();
        if let Some(challenge) = &self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.clone());
        }
        response
    }
}
