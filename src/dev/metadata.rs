//! What an issuer says about itself (RFC 8414, OpenID Connect Discovery 1.0, RFC 7517).

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{realm::Realm, site::Site};

pub(super) async fn document(State(site): State<Site>) -> Json<Value> {
    let mut document = json!({
        "issuer": site.issuer(),
        "authorization_endpoint": site.url("/authorize"),
        "token_endpoint": site.url("/token"),
        "userinfo_endpoint": site.url("/userinfo"),
        "jwks_uri": site.url("/jwks"),
        "scopes_supported": site.realm.scopes(),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "name", "email"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
    });
    if site.realm == Realm::Provider {
        document["grant_types_supported"] = json!(["authorization_code", "refresh_token"]);
        document["token_endpoint_auth_methods_supported"] =
            json!(["client_secret_basic", "client_secret_post", "none"]);
        document["revocation_endpoint"] = json!(site.url("/revoke"));
        document["revocation_endpoint_auth_methods_supported"] =
            json!(["client_secret_basic", "client_secret_post", "none"]);
        document["introspection_endpoint"] = json!(site.url("/introspect"));
        document["introspection_endpoint_auth_methods_supported"] =
            json!(["client_secret_basic", "client_secret_post"]);
    }
    Json(document)
}

pub(super) async fn keys(State(site): State<Site>) -> Json<Value> {
    Json(site.keys().public())
}
