//! Redirects that turn a POST into a GET.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// 303, so that no browser repeats the login form's body elsewhere (RFC 9700 §4.12). Carries codes: never cached, and
/// no referrer.
pub(super) fn see_other(location: &str) -> Response {
    let Ok(location) = HeaderValue::try_from(location) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}
