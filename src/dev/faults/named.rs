//! The ways in which providers are known to fail, by name: for the command line, for JSON, and for docs/testing.md.

use std::str::FromStr;

use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use serde_json::{Map, Value, json};

use super::{Answer, Expiry, Fault, HoldPoint, MissingRefreshToken, RetryAfter};

/// A fault that has a name.
pub struct NamedFault {
    pub name: &'static str,
    /// What happens, in one sentence.
    pub about: &'static str,
    make: fn() -> Fault,
}

/// Nothing goes wrong under this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no fault is named {name}; there are: {}", names())]
pub struct UnknownFault {
    name: String,
}

const fn named(name: &'static str, about: &'static str, make: fn() -> Fault) -> NamedFault {
    NamedFault { name, about, make }
}

/// Made for the token endpoint; those that come instead of an answer or cut it off suit every endpoint.
pub const NAMED_FAULTS: &[NamedFault] = &[
    named("drop", "The connection closes without an answer, and nothing happens.", || Fault::Drop),
    named("commit_then_drop", "The request takes effect; its answer is lost.", || Fault::CommitThenDrop),
    named("commit_then_truncate", "The request takes effect; half of its answer arrives.", || {
        Fault::CommitThenTruncate
    }),
    named("commit_then_502", "The request takes effect; a gateway answers 502.", || {
        Fault::CommitThenAnswer(Answer::new(StatusCode::BAD_GATEWAY, "bad gateway"))
    }),
    named("slow_request", "The request takes effect after 60 s, and is answered then.", || slow(HoldPoint::Request)),
    named("slow_answer", "The request takes effect at once and is answered after 60 s.", || slow(HoldPoint::Answer)),
    named("omitted_refresh_token", "No refresh token comes; the old one stays.", || {
        Fault::RefreshToken(MissingRefreshToken::Omit)
    }),
    named("empty_refresh_token", "`\"refresh_token\": \"\"`; the old one stays.", || {
        Fault::RefreshToken(MissingRefreshToken::Empty)
    }),
    named("null_refresh_token", "`\"refresh_token\": null`; the old one stays.", || {
        Fault::RefreshToken(MissingRefreshToken::Null)
    }),
    named("invalid_grant", "400 `invalid_grant`, though the refresh token lives.", || error(400, "invalid_grant")),
    named("invalid_grant_403", "The same with status 403.", || error(403, "invalid_grant")),
    named("invalid_grant_200", "The same with status 200.", || error(200, "invalid_grant")),
    named("ok_false", "Slack: 200 `\"ok\": false`, `token_revoked`.", || {
        answer(200, &json!({ "ok": false, "error": "token_revoked" }))
    }),
    named("bad_refresh_token", "HubSpot: 400 `\"status\": \"BAD_REFRESH_TOKEN\"`.", || {
        answer(400, &json!({ "status": "BAD_REFRESH_TOKEN", "message": "missing or unknown refresh token" }))
    }),
    named("html_400", "400 with the page of a firewall.", || page(400)),
    named("html_403", "403 with the page of a firewall.", || page(403)),
    named("redirect", "302 to another place.", || {
        let place = HeaderValue::from_static("https://elsewhere.example/token");
        Fault::Answer(Answer::new(StatusCode::FOUND, "").with(LOCATION, place))
    }),
    named("invalid_client", "401 `invalid_client`: the registration is refused.", || error(401, "invalid_client")),
    named("interaction_required", "400 `interaction_required`, with claims for the next login.", || {
        answer(
            400,
            &json!({ "error": "interaction_required", "claims": r#"{"access_token":{"acrs":{"value":"c1"}}}"# }),
        )
    }),
    named("entra_50196", "Entra: 400 `invalid_grant` that means a loop, code 50196.", || {
        let description =
            "AADSTS50196: The server terminated an operation because it encountered a client request loop.";
        answer(400, &json!({ "error": "invalid_grant", "error_description": description, "error_codes": [50196] }))
    }),
    named("salesforce_concurrency", "Salesforce: 400 `invalid_grant` that means two refreshes at once.", || {
        answer(
            400,
            &json!({ "error": "invalid_grant", "error_description": "token request is already being processed" }),
        )
    }),
    named("rate_limited", "429 that does not say how long.", || busy(429, RetryAfter::Absent)),
    named("rate_limited_seconds", "429 with `Retry-After: 7`.", || busy(429, RetryAfter::Seconds(7))),
    named("rate_limited_date", "429 with a `Retry-After` date in 7 s.", || busy(429, RetryAfter::Date(7))),
    named("rate_limited_forever", "429 with `Retry-After: 1000000000`.", || {
        busy(429, RetryAfter::Seconds(1_000_000_000))
    }),
    named("unavailable", "503 that does not say how long.", || busy(503, RetryAfter::Absent)),
    named("unavailable_seconds", "503 with `Retry-After: 7`.", || busy(503, RetryAfter::Seconds(7))),
    named("server_error", "500, and nothing happens.", || {
        Fault::Answer(Answer::new(StatusCode::INTERNAL_SERVER_ERROR, ""))
    }),
    named("expires_in_absent", "No `expires_in`.", || Fault::Expiry(Expiry::Absent)),
    named("expires_in_zero", "`expires_in` is 0.", || Fault::Expiry(Expiry::Zero)),
    named("expires_in_negative", "`expires_in` is -1.", || Fault::Expiry(Expiry::Negative)),
    named("expires_in_text", "`expires_in` is a string.", || Fault::Expiry(Expiry::Text)),
    named("expires_in_fraction", "`expires_in` has a fraction.", || Fault::Expiry(Expiry::Fraction)),
    named("expires_in_huge", "`expires_in` is 10^18.", || Fault::Expiry(Expiry::Huge)),
    named("expires_in_milliseconds", "`expires_in` counts milliseconds.", || Fault::Expiry(Expiry::Milliseconds)),
    named("expires_at_date", "`expires_at`, a date, instead of `expires_in`.", || Fault::Expiry(Expiry::AtDate)),
    named("expires_at_seconds", "`expires_at`, seconds since 1970.", || Fault::Expiry(Expiry::AtSeconds)),
    named("expires_at_milliseconds", "`expires_at`, milliseconds since 1970.", || {
        Fault::Expiry(Expiry::AtMilliseconds)
    }),
    named("fewer_scopes", "The token has no scope but `openid`.", || {
        Fault::Scope("openid".parse().into_iter().collect())
    }),
    named("token_type_lower", "`token_type` is `bearer`.", || token_type("bearer")),
    named("token_type_upper", "`token_type` is `BEARER`.", || token_type("BEARER")),
    named("token_type_dpop", "`token_type` is `DPoP`.", || token_type("DPoP")),
    named("token_type_absent", "No `token_type`.", || Fault::Edit {
        set: Map::new(),
        remove: vec!["token_type".to_owned()],
    }),
    named("other_subject", "The ID token names somebody else.", || Fault::IdTokenSubject("somebody-else".to_owned())),
];

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        let found = NAMED_FAULTS.iter().find(|fault| fault.name == name);
        found.map(|fault| (fault.make)()).ok_or_else(|| UnknownFault { name: name.to_owned() })
    }
}

fn names() -> String {
    NAMED_FAULTS.iter().map(|fault| fault.name).collect::<Vec<_>>().join(", ")
}

fn slow(point: HoldPoint) -> Fault {
    Fault::Slow { seconds: 60, point }
}

fn busy(status: u16, retry_after: RetryAfter) -> Fault {
    Fault::Busy { status: status_of(status), retry_after }
}

fn error(status: u16, code: &str) -> Fault {
    answer(status, &json!({ "error": code }))
}

fn answer(status: u16, body: &Value) -> Fault {
    Fault::Answer(Answer::json(status_of(status), body))
}

fn page(status: u16) -> Fault {
    let html = HeaderValue::from_static("text/html");
    Fault::Answer(Answer::new(status_of(status), "<html><body>Request blocked</body></html>").with(CONTENT_TYPE, html))
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("the table's statuses are three digits")
}

fn token_type(name: &str) -> Fault {
    Fault::Edit { set: Map::from_iter([("token_type".to_owned(), json!(name))]), remove: Vec::new() }
}
