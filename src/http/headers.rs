//! Headers of every answer, refusals included.

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::Response,
};

/// Nothing here is to be kept, framed, sniffed or run, and no address of ours is told to where a link leads: it may hold a
/// code. `form-action` binds the whole chain of redirects after a form in Chromium, so no form of ours answers with one
/// that leaves us.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

pub(super) async fn secured(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
}
